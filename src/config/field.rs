//! The way from the text of a value into its field of the settings, and back. The type of a field has one grammar; its
//! key only says which numbers or texts it takes.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use clatd_stages::settings::{
    ClatV6Addr, ConncheckScope, DiscoveryWay, DnsServer, FirewallChoice, IcmpErrorRate, MapEntry, NdChoice, PlatCheck,
    Pref64Setting, RouteMtu, Settings, TosSetting, TranslatorChoice, UdpZeroChecksum, UnmappedSource, WhenIdle,
};
use ipnet::Ipv4Net;

use super::keys::{Number, Text, ValueKind};
use super::prefix;
use super::value::{self, Invalid};

/// A field of the settings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    /// What its values look like.
    pub(super) kind: fn() -> ValueKind,
    /// Reads a text into it. An error leaves it as it was.
    pub(super) read: fn(&mut Settings, &str) -> Result<(), Invalid>,
    /// Its value as one would write it; empty = unset.
    pub(super) write: fn(&Settings) -> String,
    /// Takes its value over from the first settings to the second.
    pub(super) take_over: fn(&Settings, &mut Settings),
}

/// The field of a section, and where its type leaves it open, what its key takes.
macro_rules! field {
    ($section:ident . $field:ident) => {
        $crate::config::field::field!($section.$field, ())
    };
    ($section:ident . $field:ident, $takes:expr) => {
        $crate::config::field::Field {
            kind: || $crate::config::field::kind_of(|settings| &settings.$section.$field, $takes),
            read: |settings, text| $crate::config::field::read(&mut settings.$section.$field, text, $takes),
            write: |settings| $crate::config::field::Value::write(&settings.$section.$field, $takes),
            take_over: |from, to| to.$section.$field.clone_from(&from.$section.$field),
        }
    };
}
pub(super) use field;

impl Field {
    /// What the table's template has before it names a field.
    pub(super) const NONE: Self = Self {
        kind: || ValueKind::Bool,
        read: |_, _| Ok(()),
        write: |_| String::new(),
        take_over: |_, _| (),
    };

    /// Whether an empty text unsets it.
    #[cfg(test)]
    pub(super) fn may_be_empty(&self) -> bool {
        (self.read)(&mut Settings::default(), "").is_ok()
    }
}

/// A type of settings, as it is written in the configuration.
pub(super) trait Value: Sized {
    /// What a key says beyond the type.
    type Takes: Copy;

    /// What its values look like.
    fn kind(takes: Self::Takes) -> ValueKind;

    /// Reads a text that is not empty, or that must not be.
    fn parse(text: &str, takes: Self::Takes) -> Result<Self, Invalid>;

    /// What an empty text means, where it may be empty.
    fn unset(takes: Self::Takes) -> Option<Self>;

    /// The value as one would write it; empty = unset.
    fn write(&self, takes: Self::Takes) -> String;

    /// Puts a value that was read into its field.
    fn put(self, field: &mut Self) {
        *field = self;
    }
}

/// The kind of a field that is named by a way to it.
pub(super) fn kind_of<T: Value>(_: fn(&Settings) -> &T, takes: T::Takes) -> ValueKind {
    T::kind(takes)
}

/// Reads a text into a field.
pub(super) fn read<T: Value>(field: &mut T, text: &str, takes: T::Takes) -> Result<(), Invalid> {
    match T::unset(takes).filter(|_| text.is_empty()) {
        Some(unset) => *field = unset,
        None => T::parse(text, takes)?.put(field),
    }
    Ok(())
}

impl<T: Value> Value for Option<T> {
    type Takes = T::Takes;

    fn kind(takes: T::Takes) -> ValueKind {
        T::kind(takes)
    }

    fn parse(text: &str, takes: T::Takes) -> Result<Self, Invalid> {
        T::parse(text, takes).map(Some)
    }

    fn unset(_: T::Takes) -> Option<Self> {
        Some(None)
    }

    fn write(&self, takes: T::Takes) -> String {
        self.as_ref().map(|value| value.write(takes)).unwrap_or_default()
    }
}

impl Value for bool {
    type Takes = ();

    fn kind((): ()) -> ValueKind {
        ValueKind::Bool
    }

    fn parse(text: &str, (): ()) -> Result<Self, Invalid> {
        value::boolean(text)
    }

    fn unset((): ()) -> Option<Self> {
        None
    }

    fn write(&self, (): ()) -> String {
        if *self { "yes" } else { "no" }.to_owned()
    }
}

impl Value for u32 {
    type Takes = Number;

    fn kind(takes: Number) -> ValueKind {
        ValueKind::Number(takes)
    }

    fn parse(text: &str, takes: Number) -> Result<Self, Invalid> {
        match takes {
            Number::Range(min, max) => value::integer(text, false, min, max),
            Number::ZeroOr(min, max) => value::integer(text, true, min, max),
            Number::RouteTable => value::route_table(text),
        }
    }

    fn unset(_: Number) -> Option<Self> {
        None
    }

    fn write(&self, takes: Number) -> String {
        match takes {
            Number::Range(..) | Number::ZeroOr(..) => self.to_string(),
            Number::RouteTable => format!("{self:#x}"),
        }
    }
}

impl Value for String {
    type Takes = Text;

    fn kind(takes: Text) -> ValueKind {
        ValueKind::Text(takes)
    }

    fn parse(text: &str, takes: Text) -> Result<Self, Invalid> {
        match takes {
            Text::Shell => Ok(text.to_owned()),
            Text::Program | Text::FormerProgram => value::program(text),
            Text::Path => value::path(text),
            Text::NewDevice => value::new_device(text),
            Text::Device => value::device_or_pattern(text),
            Text::Group => value::name_of(text, "the name of a group of users, such as adm"),
            Text::User => value::name_of(text, "the name of a user, such as nobody"),
        }
    }

    fn unset(takes: Text) -> Option<Self> {
        (takes == Text::FormerProgram).then(Self::new)
    }

    fn write(&self, _: Text) -> String {
        self.clone()
    }
}

impl Value for Vec<MapEntry> {
    type Takes = ();

    fn kind((): ()) -> ValueKind {
        ValueKind::Maps
    }

    fn parse(text: &str, (): ()) -> Result<Self, Invalid> {
        value::map(text).map(|entry| vec![entry])
    }

    fn unset((): ()) -> Option<Self> {
        Some(Self::new())
    }

    fn write(&self, (): ()) -> String {
        joined(self)
    }

    /// The key may be repeated.
    fn put(self, field: &mut Self) {
        field.extend(self);
    }
}

fn joined(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Types whose values look the same whatever the key, and are written by their `Display`.
macro_rules! values {
    ($($type:ty: $kind:expr, $parse:expr, $unset:expr, $write:expr;)+) => {
        $(impl Value for $type {
            type Takes = ();

            fn kind((): ()) -> ValueKind {
                $kind
            }

            fn parse(text: &str, (): ()) -> Result<Self, Invalid> {
                $parse(text)
            }

            fn unset((): ()) -> Option<Self> {
                $unset
            }

            fn write(&self, (): ()) -> String {
                $write(self)
            }
        })+
    };
}

values! {
    Ipv4Addr: ValueKind::Ipv4, value::ipv4, None, ToString::to_string;
    Ipv6Addr: ValueKind::Ipv6, |text| value::ipv6(text, "an IPv6 address"), None, ToString::to_string;
    SocketAddr: ValueKind::Socket, value::socket, None, ToString::to_string;
    Ipv4Net: ValueKind::Pool, value::pool, None, ToString::to_string;
    ClatV6Addr: ValueKind::ClatV6, value::clat_v6, Some(Self::Derived), ToString::to_string;
    Pref64Setting: ValueKind::Prefix, prefix::parse, None, ToString::to_string;
    PlatCheck: ValueKind::PlatCheck, value::plat_check, None, ToString::to_string;
    RouteMtu: ValueKind::Mtu, value::mtu, None, ToString::to_string;
    TosSetting: ValueKind::WordOr { word: "copy", min: 0, max: 255 }, value::tos, None, ToString::to_string;
    IcmpErrorRate: ValueKind::WordOr { word: "unlimited", min: 0, max: 1_000_000 }, value::error_rate, None,
        ToString::to_string;
    Vec<DnsServer>: ValueKind::DnsServers, value::dns_servers, Some(Self::new()), |items: &Self| joined(items);
    Vec<DiscoveryWay>: ValueKind::WordList(DiscoveryWay::WORDS), |text| value::word_list(text, DiscoveryWay::WORDS), None,
        |items: &Self| joined(items);
}

/// Types with a closed set of words.
macro_rules! words {
    ($($type:ty),+) => {
        values! { $($type: ValueKind::Words(Self::WORDS), |text| value::word(text, Self::WORDS), None, ToString::to_string;)+ }
    };
}

words!(
    ConncheckScope,
    FirewallChoice,
    NdChoice,
    TranslatorChoice,
    UdpZeroChecksum,
    UnmappedSource,
    WhenIdle
);
