//! What translators count, as `clatd status --json` shows it. What nobody counts is absent.

use std::ops::AddAssign;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// Numbers by name, in the order in which they were given. What is not named did not occur.
pub type Counts = IndexMap<String, u64>;

/// The counters of one instance over its life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceCounters {
    /// From IPv4 to IPv6, by the userspace translator.
    #[serde(rename = "4to6", skip_serializing_if = "Option::is_none")]
    pub v4_to_v6: Option<Translated>,
    /// From IPv6 to IPv4, by the userspace translator.
    #[serde(rename = "6to4", skip_serializing_if = "Option::is_none")]
    pub v6_to_v4: Option<Translated>,
    /// IPv6 packets sent back to IPv6, by the userspace translator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hairpinned: Option<u64>,
    /// Packets of the userspace translator that the kernel did not take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_errors: Option<u64>,
    /// Of the fast path, if it was ever used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fast_path: Option<FastPathCounters>,
    /// Of the CLAT device, if a translator was used that does not count (TAYGA).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<ClatDeviceCounters>,
}

/// The userspace translator's counters of one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Translated {
    /// Packets by protocol.
    pub packets: Counts,
    /// Their octets as they came in.
    pub bytes: u64,
    /// Fragments made out of larger packets.
    pub fragments: u64,
    /// Packets dropped, by reason.
    pub dropped: Counts,
    /// ICMP errors sent.
    pub errors_sent: u64,
    /// ICMP errors not sent because of the rate limit.
    pub errors_suppressed: u64,
}

/// The fast path's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FastPathCounters {
    /// From IPv4 to IPv6.
    #[serde(rename = "4to6")]
    pub v4_to_v6: Fast,
    /// From IPv6 to IPv4.
    #[serde(rename = "6to4")]
    pub v6_to_v4: Fast,
    /// IPv6 packets of the userspace translator that left by the uplink.
    pub sent_for_userspace: u64,
}

/// The fast path's counters of one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fast {
    /// Packets by protocol.
    pub packets: Counts,
    /// Their octets as they came in.
    pub bytes: u64,
    /// Packets left to the userspace translator, by reason.
    pub left: Counts,
    /// Packets dropped, by reason.
    pub dropped: Counts,
}

/// Counters of the CLAT device. Packets of both directions pass it, so it cannot tell one from the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClatDeviceCounters {
    /// What went to the translator.
    pub to_translator: Passed,
    /// What came from it.
    pub from_translator: Passed,
}

/// What passed a device one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Passed {
    /// Packets.
    pub packets: u64,
    /// Their octets.
    pub bytes: u64,
    /// Packets that were lost there.
    pub dropped: u64,
}

impl AddAssign for ClatDeviceCounters {
    fn add_assign(&mut self, other: Self) {
        self.to_translator += other.to_translator;
        self.from_translator += other.from_translator;
    }
}

impl AddAssign for Passed {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.dropped += other.dropped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_devices_are_added() {
        let [a, b] = [1, 10_u64].map(|factor| {
            let passed = |first: u64| Passed {
                packets: first * factor,
                bytes: (first + 1) * factor,
                dropped: (first + 2) * factor,
            };
            ClatDeviceCounters {
                to_translator: passed(2),
                from_translator: passed(5),
            }
        });
        let mut sum = a;
        sum += b;
        let of = |passed: Passed| [passed.packets, passed.bytes, passed.dropped];
        assert_eq!(of(sum.to_translator), [22, 33, 44]);
        assert_eq!(of(sum.from_translator), [55, 66, 77]);
    }

    #[test]
    fn what_nobody_counts_is_absent_and_unknown_names_are_kept() {
        assert_eq!(
            serde_json::to_value(InstanceCounters::default()).unwrap(),
            serde_json::json!({})
        );
        let newer = serde_json::json!({"4to6": {"packets": {"udp": 1, "sctp": 2}, "dropped": {"some-reason": 3}}});
        let read: InstanceCounters = serde_json::from_value(newer).unwrap();
        let out = read.v4_to_v6.unwrap();
        let names: Vec<&str> = out.packets.keys().map(String::as_str).collect();
        assert_eq!(names, ["udp", "sctp"]);
        assert_eq!(out.dropped["some-reason"], 3);
        assert_eq!((read.v6_to_v4, read.hairpinned, read.device), (None, None, None));
    }
}
