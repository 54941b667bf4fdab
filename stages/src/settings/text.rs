//! Settings as text: for the environment of scripts, and for everything that people read.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::Ipv4Net;

/// A type of settings as scripts see it.
pub(super) trait AsText {
    /// Unset = empty, yes = 1, no = 0; the items of a list are separated by commas.
    fn text(&self) -> String;
}

impl AsText for bool {
    fn text(&self) -> String {
        u8::from(*self).to_string()
    }
}

impl<T: AsText> AsText for Option<T> {
    fn text(&self) -> String {
        self.as_ref().map(AsText::text).unwrap_or_default()
    }
}

impl<T: AsText> AsText for Vec<T> {
    fn text(&self) -> String {
        self.iter().map(AsText::text).collect::<Vec<_>>().join(",")
    }
}

/// A type whose text is its `Display`.
macro_rules! displayed {
    ($($type:ty),+) => {
        $(impl $crate::settings::text::AsText for $type {
            fn text(&self) -> String {
                self.to_string()
            }
        })+
    };
}

displayed!(u32, String, Ipv4Addr, Ipv6Addr, SocketAddr, Ipv4Net);

/// A type of our own, whose `Display` and `FromStr` make it look the same everywhere, serde included.
macro_rules! as_text {
    ($type:ty) => {
        $crate::settings::text::displayed!($type);
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(super) use {as_text, displayed};
