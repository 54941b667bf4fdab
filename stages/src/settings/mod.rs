//! The settings of one instance, typed, in the sections of the manual. `src/config` fills them from files and the
//! command line. Its key table documents each key, so a field here says only what the key does not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Declares a section: each setting with its type and its default. The name of a field is that of its key.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub struct $name { $($(#[$field_doc])* pub $field: $type),+ }
        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default),+ }
            }
        }
        impl $name {
            /// Each setting as text, by the name of its field.
            pub(super) fn texts(&self) -> Vec<(&'static str, String)> {
                vec![$((stringify!($field), $crate::settings::text::AsText::text(&self.$field))),+]
            }
        }
    };
}

/// Declares a type of settings with a closed set of words.
macro_rules! word_setting {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }
        impl $name {
            /// The words that the setting takes, in the order of the manual.
            pub const WORDS: &'static [&'static str] = &[$($word),+];
            /// What they mean, in the same order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
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
        $crate::settings::text::as_text!($name);
    };
}

mod clat;
mod general;
mod ipv4;
mod plat;
mod programs;
mod text;
mod translator;
mod values;
mod words;

pub use clat::Clat;
pub use general::{General, SCRIPT_TIMEOUT};
pub use ipv4::Ipv4;
pub use plat::Plat;
pub use programs::Programs;
pub use translator::Translator;
pub use values::{ClatV6Addr, DnsServer, IcmpErrorRate, MapEntry, PlatCheck, Pref64Setting, RouteMtu, TosSetting};
pub use words::{
    ConncheckScope, DiscoveryWay, FirewallChoice, NdChoice, TranslatorChoice, UdpZeroChecksum, UnmappedSource, WhenIdle,
};

/// Every setting of one instance. As JSON the keys stand side by side, without sections, as in the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The daemon itself, and the scripts.
    #[serde(flatten)]
    pub general: General,
    /// The CLAT: its device, addresses, rules and packet filters.
    #[serde(flatten)]
    pub clat: Clat,
    /// The PLAT: where it is and how it is found.
    #[serde(flatten)]
    pub plat: Plat,
    /// Native IPv4 connectivity and the IPv4 default route.
    #[serde(flatten)]
    pub ipv4: Ipv4,
    /// The translator.
    #[serde(flatten)]
    pub translator: Translator,
    /// Programs of others.
    #[serde(flatten)]
    pub programs: Programs,
}

impl Settings {
    /// The TCP MSS of a default route with this MTU: the configured one, else what fits; `None` = the kernel decides.
    pub fn advmss(&self, mtu: Option<u32>) -> Option<u32> {
        match self.ipv4.v4_defaultroute_advmss {
            Some(0) => None,
            Some(mss) => Some(mss),
            None => mtu?.checked_sub(40).filter(|&mss| mss > 0),
        }
    }

    /// Each setting as text, by key: what the scripts' environment and `clatd check -d` show. Unset = empty.
    pub fn to_text(&self) -> BTreeMap<String, String> {
        let Self {
            general,
            clat,
            plat,
            ipv4,
            translator,
            programs,
        } = self;
        let sections = [
            general.texts(),
            clat.texts(),
            plat.texts(),
            ipv4.texts(),
            translator.texts(),
            programs.texts(),
        ];
        sections
            .into_iter()
            .flatten()
            .map(|(field, text)| (field.replace('_', "-"), text))
            .collect()
    }
}

/// What a value should have been. The caller knows its file, line and key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct ExpectedValue(pub String);
