//! Programs of others.

section! {
    /// Programs of others.
    Programs {
        /// The ip6tables program.
        cmd_ip6tables: String = "ip6tables".into(),
        /// The nft program.
        cmd_nft: String = "nft".into(),
        /// The TAYGA program.
        cmd_tayga: String = "tayga".into(),
        /// Unused: the kernel is spoken to by netlink.
        cmd_ip: String = "ip".into(),
        /// Unused: PREF64 is found without networkctl.
        cmd_networkctl: String = "networkctl".into(),
        /// Unused: UFW's chains are found like anyone else's.
        cmd_ufw: String = "ufw".into(),
    }
}
