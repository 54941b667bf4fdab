//! The status as Prometheus text (exposition format 0.0.4). docs/metrics.md lists the families.

use std::fmt::Write as _;

use clatd_translator::DropReason;

use crate::counters::{Counts, InstanceCounters, Translated};
use crate::health::Health;
use crate::status::{InstanceStatus, State, StatusDocument};

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All families: name, type, what it means.
pub const FAMILIES: &[(&str, &str, &str)] = &[
    (
        "clatd_info",
        "gauge",
        "Always 1; the label tells the version of the daemon.",
    ),
    (
        "clatd_instance_up",
        "gauge",
        "1 while the instance translates; labels tell its uplink and PLAT prefix.",
    ),
    (
        "clatd_instance_state",
        "gauge",
        "1 for the state in which the instance is, 0 for the others.",
    ),
    (
        "clatd_instance_since_seconds",
        "gauge",
        "When the instance came to its state, in seconds since 1970.",
    ),
    (
        "clatd_instance_preferred",
        "gauge",
        "1 for the running instance with the lowest metric.",
    ),
    (
        "clatd_instance_health",
        "gauge",
        "1 for the health that the instance has, 0 for the others.",
    ),
    (
        "clatd_unanswered_packets",
        "gauge",
        "Packets sent to the PLAT since something came back.",
    ),
    (
        "clatd_route_metric",
        "gauge",
        "Metric of the instance's IPv4 default route.",
    ),
    (
        "clatd_route_mtu_bytes",
        "gauge",
        "MTU of the instance's IPv4 default route.",
    ),
    (
        "clatd_prefix_lifetime_seconds",
        "gauge",
        "For how long the PLAT prefix holds from now; absent where it has no end.",
    ),
    (
        "clatd_packets_total",
        "counter",
        "Packets translated, by direction and protocol.",
    ),
    (
        "clatd_bytes_total",
        "counter",
        "Octets of the packets translated, as they came in.",
    ),
    (
        "clatd_fragments_total",
        "counter",
        "Fragments made out of larger packets.",
    ),
    (
        "clatd_dropped_packets_total",
        "counter",
        "Packets dropped, by direction and reason.",
    ),
    (
        "clatd_icmp_errors_sent_total",
        "counter",
        "ICMP errors sent, by the direction of the packet that caused them.",
    ),
    (
        "clatd_icmp_errors_suppressed_total",
        "counter",
        "ICMP errors not sent because of the rate limit.",
    ),
    (
        "clatd_hairpinned_packets_total",
        "counter",
        "IPv6 packets sent back to IPv6.",
    ),
    (
        "clatd_write_errors_total",
        "counter",
        "Translated packets that the kernel did not take.",
    ),
    (
        "clatd_device_packets_total",
        "counter",
        "Packets that passed the CLAT device, where the translator does not count (TAYGA), by way: to it, or from it.",
    ),
    ("clatd_device_bytes_total", "counter", "Octets of these packets."),
    (
        "clatd_device_dropped_packets_total",
        "counter",
        "Packets that were lost there, likewise.",
    ),
    (
        "clatd_fast_packets_total",
        "counter",
        "Packets translated by the in-kernel fast path, by direction and protocol.",
    ),
    (
        "clatd_fast_bytes_total",
        "counter",
        "Octets of the packets translated by the in-kernel fast path.",
    ),
];

const HEALTHS: [Health; 5] = [
    Health::Unknown,
    Health::Idle,
    Health::Good,
    Health::Unanswered,
    Health::Silent,
];

/// The text.
pub fn text(document: &StatusDocument) -> String {
    let mut text = String::new();
    for (name, kind, help) in FAMILIES {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        if *name == "clatd_info" {
            sample(&mut text, name, &[("version", &document.clatd)], 1);
            continue;
        }
        for instance in &document.instances {
            samples(&mut text, name, instance);
        }
    }
    text
}

fn samples(text: &mut String, family: &str, instance: &InstanceStatus) {
    let named = ("clat", instance.name.as_str());
    match family {
        "clatd_instance_up" => {
            let labels = [
                named,
                ("uplink", instance.uplink.as_deref().unwrap_or_default()),
                ("prefix", instance.prefix.as_deref().unwrap_or_default()),
            ];
            sample(text, family, &labels, u64::from(instance.state == State::Running));
        }
        "clatd_instance_state" => {
            for state in State::ALL {
                let word = state.to_string();
                let value = u64::from(state == instance.state);
                sample(text, family, &[named, ("state", &word)], value);
            }
        }
        "clatd_instance_since_seconds" => sample(text, family, &[named], instance.since),
        "clatd_instance_preferred" => sample(text, family, &[named], u64::from(instance.preferred)),
        "clatd_instance_health" => {
            for health in HEALTHS {
                let word = health.to_string();
                let value = u64::from(health == instance.health.state);
                sample(text, family, &[named, ("health", &word)], value);
            }
        }
        "clatd_unanswered_packets" => sample(text, family, &[named], instance.health.unanswered),
        "clatd_route_metric" => some(text, family, named, instance.metric.map(u64::from)),
        "clatd_route_mtu_bytes" => some(text, family, named, instance.mtu.map(u64::from)),
        "clatd_prefix_lifetime_seconds" => some(text, family, named, instance.lifetimes.prefix_s),
        "clatd_hairpinned_packets_total" => some(text, family, named, instance.counters.hairpinned),
        "clatd_write_errors_total" => some(text, family, named, instance.counters.write_errors),
        _ => counted(text, family, named, &instance.counters),
    }
}

fn counted(text: &mut String, family: &str, named: (&str, &str), counters: &InstanceCounters) {
    for (direction, of) in [("4to6", &counters.v4_to_v6), ("6to4", &counters.v6_to_v4)] {
        if let Some(of) = of {
            translated(text, family, &[named, ("direction", direction)], of);
        }
    }
    if let Some(fast_path) = &counters.fast_path {
        for (direction, of) in [("4to6", &fast_path.v4_to_v6), ("6to4", &fast_path.v6_to_v4)] {
            let labels = [named, ("direction", direction)];
            match family {
                "clatd_fast_packets_total" => by_name(text, family, &labels, "protocol", &of.packets),
                "clatd_fast_bytes_total" => sample(text, family, &labels, of.bytes),
                _ => {}
            }
        }
    }
    if let Some(device) = counters.device {
        for (way, of) in [("to", device.to_translator), ("from", device.from_translator)] {
            let labels = [named, ("way", way)];
            match family {
                "clatd_device_packets_total" => sample(text, family, &labels, of.packets),
                "clatd_device_bytes_total" => sample(text, family, &labels, of.bytes),
                "clatd_device_dropped_packets_total" => sample(text, family, &labels, of.dropped),
                _ => {}
            }
        }
    }
}

fn translated(text: &mut String, family: &str, labels: &[(&str, &str)], of: &Translated) {
    match family {
        "clatd_packets_total" => by_name(text, family, labels, "protocol", &of.packets),
        "clatd_bytes_total" => sample(text, family, labels, of.bytes),
        "clatd_fragments_total" => sample(text, family, labels, of.fragments),
        "clatd_dropped_packets_total" => {
            // The document has those that occurred.
            let all = DropReason::ALL.iter().map(|reason| reason.name());
            let counted = all.map(|name| (name.to_owned(), of.dropped.get(name).copied().unwrap_or(0)));
            by_name(text, family, labels, "reason", &counted.collect());
        }
        "clatd_icmp_errors_sent_total" => sample(text, family, labels, of.errors_sent),
        "clatd_icmp_errors_suppressed_total" => sample(text, family, labels, of.errors_suppressed),
        _ => {}
    }
}

fn by_name(text: &mut String, family: &str, labels: &[(&str, &str)], label: &str, counts: &Counts) {
    for (name, count) in counts {
        sample(text, family, &[labels, &[(label, name)]].concat(), *count);
    }
}

fn some(text: &mut String, family: &str, named: (&str, &str), value: Option<u64>) {
    if let Some(value) = value {
        sample(text, family, &[named], value);
    }
}

fn sample(text: &mut String, family: &str, labels: &[(&str, &str)], value: u64) {
    let labels: Vec<String> = labels
        .iter()
        .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
        .collect();
    let _ = writeln!(text, "{family}{{{}}} {value}", labels.join(","));
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_help_type_and_samples() {
        let document: StatusDocument = serde_json::from_value(serde_json::json!({
            "version": 1, "clatd": "0.1.0", "instances": [{
                "name": "a\"b\\c", "state": "running", "since": 7, "uptime_s": 1, "reason": "", "facts": {},
                "device": "clat", "addresses": [], "uplink": "up0", "last_error": null, "prefix": "64:ff9b::/96",
                "preferred": true, "metric": 2048, "mtu": 1260, "lifetimes": {"prefix_s": 60, "address_s": null},
                "counters": {"4to6": {"packets": {"tcp": 5}, "bytes": 300, "fragments": 0, "dropped": {"igmp": 1},
                                      "errors_sent": 0, "errors_suppressed": 0}, "hairpinned": 0, "write_errors": 0,
                             "fast_path": {"4to6": {"packets": {"tcp": 9}, "bytes": 900}},
                             "device": {"to_translator": {"packets": 3}}}}]
        }))
        .unwrap();
        let text = text(&document);
        for (name, kind, _) in FAMILIES {
            assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name}");
            assert!(text.contains(&format!("\n{name}{{")), "{name} has a sample:\n{text}");
        }
        for (reason, count) in [("igmp", 1), ("hop-limit", 0)] {
            let dropped = format!(r#"direction="4to6",reason="{reason}"}} {count}"#);
            assert!(text.contains(&dropped), "{text}");
        }
        let packets = r#"clatd_packets_total{clat="a\"b\\c",direction="4to6",protocol="tcp"} 5"#;
        assert!(text.contains(packets), "{text}");
        let page = include_str!("../../docs/metrics.md");
        for (name, kind, help) in FAMILIES {
            assert!(
                page.contains(&format!("| `{name}` | {kind} | ")) && page.contains(help),
                "docs/metrics.md: {name}"
            );
        }
        assert!(
            text.contains(r#"state="running"} 1"#) && text.contains(r#"state="idle"} 0"#),
            "{text}"
        );
    }
}
