//! Types of settings that take one of a few words.

use std::fmt;
use std::str::FromStr;

use super::ExpectedValue;

word_setting! {
    /// `v4-conncheck-scope`.
    ConncheckScope {
        /// An IPv4 default route on any device makes the instance idle.
        Host = "host",
        /// Only one on the instance's own uplink does.
        Uplink = "uplink",
    }
}

word_setting! {
    /// `translator`.
    TranslatorChoice {
        /// The fast path where it works, else ours alone.
        Auto = "auto",
        /// Ours, with the fast path in the kernel around it.
        Ebpf = "ebpf",
        /// Ours, in this process.
        Userspace = "userspace",
        /// The external TAYGA.
        Tayga = "tayga",
    }
}

word_setting! {
    /// `firewall`.
    FirewallChoice {
        /// nftables chains that would drop, and the ip6tables FORWARD chain where it would.
        Auto = "auto",
        /// nftables only.
        Nftables = "nftables",
        /// ip6tables only.
        Ip6tables = "ip6tables",
        /// Hands off.
        None = "none",
    }
}

word_setting! {
    /// `nd`.
    NdChoice {
        /// A proxy neighbour entry, unless that cannot work or would harm the uplink; then like `anycast`.
        Auto = "auto",
        /// A proxy neighbour entry (RFC 4861 section 7.2.8).
        Proxy = "proxy",
        /// The address is joined as an anycast address (RFC 4861 section 7.2.7).
        Anycast = "anycast",
        /// Nobody answers.
        None = "none",
    }
}

word_setting! {
    /// `when-idle`.
    WhenIdle {
        /// Say why and exit 0.
        Exit = "exit",
        /// Wait for a change.
        Wait = "wait",
    }
}

word_setting! {
    /// `udp-zero-checksum` (RFC 7915 section 4.5).
    UdpZeroChecksum {
        /// Compute it.
        Compute = "compute",
        /// Drop the packet.
        Drop = "drop",
        /// Let it pass as zero.
        Pass = "pass",
    }
}

word_setting! {
    /// `unmapped-source`.
    UnmappedSource {
        /// A CLAT: drop and count it.
        Drop = "drop",
        /// An SIIT translator: use the prefix.
        Prefix = "prefix",
    }
}

word_setting! {
    /// One of `discovery`: where the PLAT prefix is looked for.
    DiscoveryWay {
        /// Router advertisements (RFC 8781).
        Ra = "ra",
        /// DNS64 (RFC 7050).
        Dns = "dns",
    }
}
