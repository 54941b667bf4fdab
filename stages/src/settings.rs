//! The settings of one instance, typed. `src/config` fills them from files and the command line. Its key table
//! documents each key, so a field here says only what the key does not.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use clatd_translator::Pref64;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Every setting of one instance; the field names are the configuration keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// 1 suppresses normal output, 2 warnings and errors too.
    pub quiet: u32,
    /// 1 prints debugging output, 2 more of it.
    pub debug: u32,
    /// Shell command run as the last step before the translator starts.
    pub script_up: Option<String>,
    /// Shell command run right after the translator has stopped.
    pub script_down: Option<String>,
    /// Seconds that a script or a helper program may take.
    pub script_timeout: u32,
    /// Who runs the scripts; none = the user that the daemon runs as.
    pub script_user: Option<String>,
    /// Name of the CLAT's TUN device.
    pub clat_dev: String,
    /// IPv4 address of the CLAT.
    pub clat_v4_addr: Ipv4Addr,
    /// IPv6 address of the CLAT, or how to find one.
    pub clat_v6_addr: ClatV6Addr,
    /// Conntrack mark of the CLAT's flows with `clat-v6-addr=shared`; none = 0xc1a7 if shared, else 0.
    pub ctmark: Option<u32>,
    /// Routing table of the CLAT's own routes.
    pub route_table: u32,
    /// Priority of the first policy rule; none = before others' rules that would take the CLAT's packets.
    pub rule_priority: Option<u32>,
    /// DNS64 servers asked for the PLAT prefix, in order; empty = the system's resolvers.
    pub dns64_servers: Vec<DnsServer>,
    /// The pool of IPv4 addresses for instances without one of their own.
    pub clat_v4_pool: ipnet::Ipv4Net,
    /// Unused: the kernel is spoken to by netlink.
    pub cmd_ip: String,
    /// The ip6tables program.
    pub cmd_ip6tables: String,
    /// Unused: PREF64 is found without networkctl.
    pub cmd_networkctl: String,
    /// The nft program.
    pub cmd_nft: String,
    /// Unused: UFW's chains are found like anyone else's.
    pub cmd_ufw: String,
    /// The TAYGA program.
    pub cmd_tayga: String,
    /// Whether IPv6 forwarding is switched on.
    pub forwarding_enable: bool,
    /// Whether ip6tables rules are inserted; none = where the FORWARD chain would drop.
    pub ip6tables_enable: Option<bool>,
    /// The uplink; none = the device of the route to the PLAT prefix.
    pub plat_dev: Option<String>,
    /// The PLAT prefix; none = discovered.
    pub plat_prefix: Option<Pref64Setting>,
    /// The ways in which the PLAT prefix is discovered, in order.
    pub discovery: Vec<DiscoveryWay>,
    /// Whether the PLAT must answer before it is used.
    pub plat_check: PlatCheck,
    /// The PLAT prefix where none is configured or discovered.
    pub plat_fallback_prefix: Option<Pref64Setting>,
    /// Whether a proxy neighbour entry is added for the CLAT's IPv6 address.
    pub proxynd_enable: bool,
    /// How the uplink answers them.
    pub nd: NdChoice,
    /// TAYGA's configuration file; none = a temporary one.
    pub tayga_conffile: Option<String>,
    /// The translator's own IPv4 address: source of its ICMPv4 errors.
    pub tayga_v4_addr: Ipv4Addr,
    /// Whether native IPv4 connectivity makes the instance idle.
    pub v4_conncheck_enable: bool,
    /// Seconds to wait before looking for native IPv4 connectivity; none = 0 with `when-idle=wait`, else 10.
    pub v4_conncheck_delay: Option<u32>,
    /// Whether native IPv4 counts on the whole host or on the uplink only.
    pub v4_conncheck_scope: ConncheckScope,
    /// Whether an IPv4 default route through the CLAT is added.
    pub v4_defaultroute_enable: bool,
    /// Whether existing IPv4 default routes are taken away while the CLAT runs.
    pub v4_defaultroute_replace: bool,
    /// Metric of the IPv4 default route; 0 = the kernel's default; none = 2048 and up, in the order of the uplinks.
    pub v4_defaultroute_metric: Option<u32>,
    /// MTU of the IPv4 default route.
    pub v4_defaultroute_mtu: RouteMtu,
    /// TCP MSS of the IPv4 default route in bytes; none = MTU - 40, 0 = none set.
    pub v4_defaultroute_advmss: Option<u32>,
    /// Which translator moves the packets.
    pub translator: TranslatorChoice,
    /// Which packet filter is told to let the CLAT's packets through.
    pub firewall: FirewallChoice,
    /// Where the daemon serves metrics by HTTP.
    pub metrics_listen: Option<std::net::SocketAddr>,
    /// The group whose members may ask the daemon for its status.
    pub control_group: Option<String>,
    /// Whether the daemon gives up the rights that it does not need.
    pub hardening: bool,
    /// What an instance does when there is nothing to do; none = wait under a service manager and with instance
    /// files, else exit.
    pub when_idle: Option<WhenIdle>,
    /// Packet queues (threads) of the userspace translator; 0 = one per core.
    pub translator_queues: u32,
    /// RFC 7757 explicit address mappings besides the CLAT's own.
    pub map: Vec<MapEntry>,
    /// The translator's own IPv6 address: source of its ICMPv6 errors; none = the CLAT's.
    pub translator_v6_addr: Option<Ipv6Addr>,
    /// RFC 7915 lowest-ipv6-mtu in bytes.
    pub lowest_ipv6_mtu: u32,
    /// What becomes of UDP over IPv4 without a checksum.
    pub udp_zero_checksum: UdpZeroChecksum,
    /// The IPv6 traffic class of what was IPv4.
    pub traffic_class: Tos,
    /// The IPv4 TOS octet of what was IPv6.
    pub tos: Tos,
    /// How many ICMP errors a second the translator sends.
    pub icmp_error_rate: IcmpErrorRate,
    /// RFC 6052 section 3.1: no non-global IPv4 addresses in the well-known prefix.
    pub wkp_strict: bool,
    /// What becomes of an IPv4 source or IPv6 destination without a mapping.
    pub unmapped_source: UnmappedSource,
}

/// Seconds that a script may take where nothing else is said.
pub const SCRIPT_TIMEOUT: u32 = 60;

impl Default for Settings {
    fn default() -> Self {
        Self {
            quiet: 0,
            debug: 0,
            script_up: None,
            script_down: None,
            script_timeout: SCRIPT_TIMEOUT,
            script_user: None,
            clat_dev: "clat".into(),
            clat_v4_addr: Ipv4Addr::new(192, 0, 0, 1),
            clat_v6_addr: ClatV6Addr::Derived,
            ctmark: None,
            route_table: 0xc1a7,
            rule_priority: None,
            dns64_servers: Vec::new(),
            clat_v4_pool: ipnet::Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 0, 0), 29),
            cmd_ip: "ip".into(),
            cmd_ip6tables: "ip6tables".into(),
            cmd_networkctl: "networkctl".into(),
            cmd_nft: "nft".into(),
            cmd_ufw: "ufw".into(),
            cmd_tayga: "tayga".into(),
            forwarding_enable: true,
            ip6tables_enable: None,
            plat_dev: None,
            plat_prefix: None,
            discovery: vec![DiscoveryWay::Ra, DiscoveryWay::Dns],
            plat_check: PlatCheck::Auto,
            plat_fallback_prefix: None,
            proxynd_enable: true,
            nd: NdChoice::Auto,
            tayga_conffile: None,
            tayga_v4_addr: Ipv4Addr::new(192, 0, 0, 2),
            v4_conncheck_enable: true,
            v4_conncheck_delay: None,
            v4_conncheck_scope: ConncheckScope::Host,
            v4_defaultroute_enable: true,
            v4_defaultroute_replace: false,
            v4_defaultroute_metric: None,
            v4_defaultroute_mtu: RouteMtu::Auto,
            v4_defaultroute_advmss: None,
            translator: TranslatorChoice::Auto,
            firewall: FirewallChoice::Auto,
            metrics_listen: None,
            control_group: None,
            hardening: true,
            when_idle: None,
            translator_queues: 0,
            map: Vec::new(),
            translator_v6_addr: None,
            lowest_ipv6_mtu: 1280,
            udp_zero_checksum: UdpZeroChecksum::Compute,
            traffic_class: Tos::Copy,
            tos: Tos::Copy,
            icmp_error_rate: IcmpErrorRate::default(),
            wkp_strict: false,
            unmapped_source: UnmappedSource::Drop,
        }
    }
}

impl Settings {
    /// The TCP MSS of a default route with this MTU: the configured one, else what fits; `None` = the kernel decides.
    pub fn advmss(&self, mtu: Option<u32>) -> Option<u32> {
        match self.v4_defaultroute_advmss {
            Some(0) => None,
            Some(mss) => Some(mss),
            None => mtu?.checked_sub(40).filter(|&mss| mss > 0),
        }
    }

    /// Each setting as text, by key: what the scripts' environment and `clatd plan` show. Unset = empty.
    pub fn to_text(&self) -> BTreeMap<String, String> {
        let value = serde_json::to_value(self).unwrap_or_default();
        let fields = value.as_object().cloned().unwrap_or_default();
        fields
            .into_iter()
            .map(|(key, value)| (key, setting_text(&value)))
            .collect()
    }
}

fn setting_text(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::Bool(true) => "1".into(),
        serde_json::Value::Bool(false) => "0".into(),
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(items) => items.iter().map(setting_text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Implements serde by `Display` and `FromStr`, so that a value looks the same in every file and output.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(de::Error::custom)
            }
        }
    };
}

/// Declares a setting with a closed set of words.
macro_rules! word_setting {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }
        impl $name {
            /// The words that the setting takes, in the order of the manual.
            pub const WORDS: &'static [&'static str] = &[$($word),+];
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),+ })
            }
        }
        impl FromStr for $name {
            type Err = ExpectedValue;
            fn from_str(text: &str) -> Result<Self, ExpectedValue> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(ExpectedValue(format!("one of {}", Self::WORDS.join(", ")))),
                }
            }
        }
        serde_as_text!($name);
    };
}

/// What a value should have been. The caller knows its file, line and key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct ExpectedValue(pub String);

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
        /// The best that works here; for now userspace.
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

/// `v4-defaultroute-mtu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteMtu {
    /// So many bytes; 0 = none set.
    Bytes(u32),
    /// The IPv6 MTU of the uplink, less 20 bytes for the larger IPv6 header; less 8 more where fragments pass the
    /// translator uncut.
    Auto,
}

impl fmt::Display for RouteMtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => bytes.fmt(f),
            Self::Auto => f.write_str("auto"),
        }
    }
}

impl FromStr for RouteMtu {
    type Err = ExpectedValue;
    fn from_str(text: &str) -> Result<Self, ExpectedValue> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => text
                .parse()
                .map(Self::Bytes)
                .map_err(|_| ExpectedValue("auto or a number of bytes".into())),
        }
    }
}
serde_as_text!(RouteMtu);

/// `traffic-class` and `tos` (RFC 7915 sections 4.1 and 5.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tos {
    /// As received, all eight bits.
    #[default]
    Copy,
    /// Always this value.
    Value(u8),
}

impl fmt::Display for Tos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copy => f.write_str("copy"),
            Self::Value(value) => value.fmt(f),
        }
    }
}

impl FromStr for Tos {
    type Err = ExpectedValue;
    fn from_str(text: &str) -> Result<Self, ExpectedValue> {
        match text {
            "copy" => Ok(Self::Copy),
            _ => text
                .parse()
                .map(Self::Value)
                .map_err(|_| ExpectedValue("copy or a number from 0 to 255".into())),
        }
    }
}
serde_as_text!(Tos);

/// `icmp-error-rate` (RFC 7915 sections 4.4 and 5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcmpErrorRate {
    /// As many as there are reasons.
    Unlimited,
    /// So many a second on average; with 0 none are sent.
    PerSecond(u32),
}

impl Default for IcmpErrorRate {
    fn default() -> Self {
        Self::PerSecond(1000)
    }
}

impl fmt::Display for IcmpErrorRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("unlimited"),
            Self::PerSecond(rate) => rate.fmt(f),
        }
    }
}

impl FromStr for IcmpErrorRate {
    type Err = ExpectedValue;
    fn from_str(text: &str) -> Result<Self, ExpectedValue> {
        match text {
            "unlimited" => Ok(Self::Unlimited),
            _ => text
                .parse()
                .map(Self::PerSecond)
                .map_err(|_| ExpectedValue("unlimited or a number".into())),
        }
    }
}
serde_as_text!(IcmpErrorRate);

/// `plat-check`: RFC 7050 section 3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlatCheck {
    /// The PLAT is probed where packets go out and nothing comes back.
    Auto,
    /// The PLAT is believed in.
    No,
    /// The server that the network itself names must answer.
    Yes,
    /// This IPv4 address must answer: by ICMPv6 echo, or by TCP on this port.
    Address {
        /// The address probed, embedded in the prefix.
        address: Ipv4Addr,
        /// The TCP port; `None` = ICMPv6 echo.
        port: Option<u16>,
    },
}

impl fmt::Display for PlatCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::No => f.write_str("no"),
            Self::Yes => f.write_str("yes"),
            Self::Address { address, port: None } => address.fmt(f),
            Self::Address {
                address,
                port: Some(port),
            } => write!(f, "{address}:{port}"),
        }
    }
}

impl FromStr for PlatCheck {
    type Err = ExpectedValue;
    fn from_str(text: &str) -> Result<Self, ExpectedValue> {
        let expected = || {
            ExpectedValue(
                "auto, yes, no, an IPv4 address to ping through the PLAT, or address:port to connect to".into(),
            )
        };
        match text {
            "auto" => return Ok(Self::Auto),
            "no" => return Ok(Self::No),
            "yes" => return Ok(Self::Yes),
            _ => {}
        }
        let (address, port) = match text.split_once(':') {
            Some((address, port)) => (address, Some(port.parse().map_err(|_| expected())?)),
            None => (text, None),
        };
        let address: Ipv4Addr = address.parse().map_err(|_| expected())?;
        if crate::discovery::WELL_KNOWN_ADDRESSES.contains(&address) {
            return Err(ExpectedValue(
                "another address than those of ipv4only.arpa, which must not be probed (RFC 7050 section 3.2.1)".into(),
            ));
        }
        Ok(Self::Address { address, port })
    }
}
serde_as_text!(PlatCheck);

/// `clat-v6-addr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClatV6Addr {
    /// Derived from an address of the uplink, as the 2016 clatd did.
    Derived,
    /// Derived from the uplink's prefix by a hash (RFC 7217): the same after a restart.
    Stable,
    /// Like `stable`, and chosen so that translation leaves transport checksums as they are.
    ChecksumNeutral,
    /// In a prefix delegated by DHCPv6 (RFC 8415).
    Pd,
    /// The host's own address. Conntrack marks distinguish the flows, as in clatd 2.x.
    Shared,
    /// This one.
    Address(Ipv6Addr),
}

impl ClatV6Addr {
    /// The words that it takes besides an address, in the order of the manual.
    pub const WORDS: &'static [&'static str] = &["derived", "stable", "checksum-neutral", "shared", "pd"];
}

impl fmt::Display for ClatV6Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Derived => f.write_str("derived"),
            Self::Stable => f.write_str("stable"),
            Self::ChecksumNeutral => f.write_str("checksum-neutral"),
            Self::Pd => f.write_str("pd"),
            Self::Shared => f.write_str("shared"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl FromStr for ClatV6Addr {
    type Err = ExpectedValue;
    fn from_str(text: &str) -> Result<Self, ExpectedValue> {
        match text {
            "derived" => Ok(Self::Derived),
            "stable" => Ok(Self::Stable),
            "checksum-neutral" => Ok(Self::ChecksumNeutral),
            "pd" => Ok(Self::Pd),
            "shared" => Ok(Self::Shared),
            _ => text
                .parse()
                .map(Self::Address)
                .map_err(|_| ExpectedValue(format!("an IPv6 address, or one of {}", Self::WORDS.join(", ")))),
        }
    }
}
serde_as_text!(ClatV6Addr);

/// `plat-prefix`: an RFC 6052 prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pref64Setting(pub Pref64);

impl fmt::Display for Pref64Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl FromStr for Pref64Setting {
    type Err = ExpectedValue;
    fn from_str(text: &str) -> Result<Self, ExpectedValue> {
        text.parse().map(Self).map_err(|error| {
            ExpectedValue(format!(
                "an RFC 6052 prefix with length 32, 40, 48, 56, 64 or 96, such as 64:ff9b::/96 ({error})"
            ))
        })
    }
}
serde_as_text!(Pref64Setting);

/// One of `dns64-servers`: an address, a link-local one with its `%device`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsServer {
    /// The server's address.
    pub address: IpAddr,
    /// The device of a link-local address.
    pub device: Option<String>,
}

impl fmt::Display for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.device {
            Some(device) => write!(f, "{}%{device}", self.address),
            None => self.address.fmt(f),
        }
    }
}
impl FromStr for DnsServer {
    type Err = ExpectedValue;
    fn from_str(text: &str) -> Result<Self, ExpectedValue> {
        let (address, device) = match text.split_once('%') {
            Some((address, device)) if !device.is_empty() => (address, Some(device.to_owned())),
            Some((address, _)) => (address, None),
            None => (text, None),
        };
        let address = address
            .parse()
            .map_err(|_| ExpectedValue("IP addresses of DNS servers, separated by commas".into()))?;
        Ok(Self { address, device })
    }
}
serde_as_text!(DnsServer);

/// One `map`: an IPv4 prefix and the IPv6 prefix of the same suffix length (RFC 7757 section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapEntry {
    /// The IPv4 side.
    pub v4: ipnet::Ipv4Net,
    /// The IPv6 side.
    pub v6: ipnet::Ipv6Net,
}

impl fmt::Display for MapEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.v4, self.v6)
    }
}
impl FromStr for MapEntry {
    type Err = ExpectedValue;
    fn from_str(text: &str) -> Result<Self, ExpectedValue> {
        let expected = || {
            ExpectedValue(
                "an IPv4 prefix and an IPv6 prefix separated by a blank, such as 192.0.2.1/32 2001:db8::1/128".into(),
            )
        };
        let mut words = text.split_whitespace();
        let (Some(v4), Some(v6), None) = (words.next(), words.next(), words.next()) else {
            return Err(expected());
        };
        let v4: ipnet::Ipv4Net = with_length(v4, 32).parse().map_err(|_| expected())?;
        let v6: ipnet::Ipv6Net = with_length(v6, 128).parse().map_err(|_| expected())?;
        if v4.trunc() != v4 || v6.trunc() != v6 {
            return Err(ExpectedValue("prefixes without host bits".into()));
        }
        if 32 - v4.prefix_len() > 128 - v6.prefix_len() {
            return Err(ExpectedValue(
                "an IPv6 suffix at least as long as the IPv4 suffix (RFC 7757 section 3.1)".into(),
            ));
        }
        Ok(Self { v4, v6 })
    }
}
serde_as_text!(MapEntry);

fn with_length(text: &str, length: u8) -> String {
    if text.contains('/') {
        text.to_owned()
    } else {
        format!("{text}/{length}")
    }
}
