//! What the values of a key look like.

use clatd_stages::settings::ClatV6Addr;

/// What the values of a key look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// Yes or no.
    Bool,
    /// A whole number, decimal or in hex.
    Number(Number),
    /// Text.
    Text(Text),
    /// An IPv4 unicast address.
    Ipv4,
    /// An IPv6 unicast address.
    Ipv6,
    /// An IPv6 unicast address, or a way to find one.
    ClatV6,
    /// An RFC 6052 prefix.
    Prefix,
    /// An IPv4 prefix to take addresses from.
    Pool,
    /// `auto`, 0, or a number of bytes.
    Mtu,
    /// A word, or a whole number, decimal or in hex.
    WordOr {
        /// The word.
        word: &'static str,
        /// The smallest number.
        min: u32,
        /// The largest.
        max: u32,
    },
    /// Words out of these, separated by commas.
    WordList(&'static [&'static str]),
    /// `no`, an IPv4 address, or one with a port.
    PlatCheck,
    /// IP addresses, separated by commas.
    DnsServers,
    /// An IP address and a port.
    Socket,
    /// One of these words.
    Words(&'static [&'static str]),
    /// An IPv4 prefix and an IPv6 prefix; the key may be repeated.
    Maps,
}

/// Which numbers a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// From the first to the second.
    Range(u32, u32),
    /// 0, or from the first to the second.
    ZeroOr(u32, u32),
    /// The number of a routing table, but not of one of the system's tables (253 to 255).
    RouteTable,
}

/// Which text a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// Any text: a shell command.
    Shell,
    /// The name or path of a program.
    Program,
    /// The name or path of a program that clatd no longer runs; may be empty.
    FormerProgram,
    /// The path of a file.
    Path,
    /// The name of a device that clatd makes.
    NewDevice,
    /// The name of a device that exists, or a pattern of names.
    Device,
    /// The name of a group of users.
    Group,
    /// The name of a user.
    User,
}

impl ValueKind {
    /// The value as it stands in a synopsis.
    pub fn placeholder(self) -> String {
        match self {
            Self::Bool => "yes|no".into(),
            Self::Number(_) => "number".into(),
            Self::Text(text) => text.placeholder().into(),
            Self::Ipv4 => "IPv4-address".into(),
            Self::Ipv6 => "IPv6-address".into(),
            Self::ClatV6 => format!("{}|IPv6-address", ClatV6Addr::WORDS.join("|")),
            Self::Prefix => "prefix/length".into(),
            Self::DnsServers => "addresses".into(),
            Self::Socket => "address:port".into(),
            Self::Words(words) => words.join("|"),
            Self::Mtu => "auto|number".into(),
            Self::WordOr { word, .. } => format!("{word}|number"),
            Self::WordList(words) => words.join(","),
            Self::PlatCheck => "auto|yes|no|IPv4-address|IPv4-address:port".into(),
            Self::Pool => "IPv4-prefix".into(),
            Self::Maps => "IPv4-prefix IPv6-prefix".into(),
        }
    }
}

impl Text {
    fn placeholder(self) -> &'static str {
        match self {
            Self::Shell => "command",
            Self::Program | Self::FormerProgram => "program",
            Self::Path => "file",
            Self::NewDevice | Self::Device => "device",
            Self::Group => "group",
            Self::User => "user",
        }
    }
}
