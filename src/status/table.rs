//! The status for people: first a line for each instance, then the details.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clatd_stages::health::Health;
use clatd_stages::status::{Event, InstanceStatus, State, StatusDocument};
use serde_json::Value;

/// What the text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Width of the terminal in characters.
    pub width: usize,
    /// The height of the terminal in lines; none = no terminal, so everything is shown.
    pub height: Option<usize>,
    /// Whether colours are wanted.
    pub colour: bool,
    /// Graphs of the last minutes instead of details.
    pub graphs: bool,
}

impl View {
    /// Of no terminal.
    pub const PLAIN: Self = Self {
        width: 100,
        height: None,
        colour: false,
        graphs: false,
    };
}

/// Up to so many instances have details on a terminal without being named.
const FEW: usize = 4;
/// Lines that the heading and the summary need.
const FRAME: usize = 4;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The text.
pub fn table(document: &StatusDocument, view: &View) -> String {
    if document.instances.is_empty() {
        return "no instances\n".to_owned();
    }
    let all: Vec<&InstanceStatus> = document.instances.iter().collect();
    let fits = view
        .height
        .is_none_or(|height| all.len() + FRAME <= height.max(FRAME + 1));
    let mut text = String::new();
    let shown = if fits {
        all
    } else {
        let most = view.height.unwrap_or(usize::MAX).saturating_sub(FRAME);
        summary(&mut text, &all);
        worst_first(all).into_iter().take(most).collect()
    };
    lines(&mut text, &shown, view);
    if !view.graphs && (view.height.is_none() || document.instances.len() <= FEW) {
        for instance in &document.instances {
            let _ = writeln!(text);
            details(&mut text, instance);
        }
    }
    text
}

/// The number of instances in each state, if they do not fit one by one.
fn summary(text: &mut String, all: &[&InstanceStatus]) {
    let mut parts = vec![format!("{} instances", all.len())];
    for state in State::ALL {
        let count = all.iter().filter(|instance| instance.state == state).count();
        if count > 0 {
            parts.push(format!("{count} {state}"));
        }
    }
    for health in [Health::Unanswered, Health::Silent] {
        let count = all.iter().filter(|instance| instance.health.state == health).count();
        if count > 0 {
            parts.push(format!("{count} {health}"));
        }
    }
    let _ = writeln!(text, "{}; the worst and the busiest:", parts.join(", "));
}

/// Instances with a problem come first, then the preferred one, then those that carry most.
fn worst_first(mut all: Vec<&InstanceStatus>) -> Vec<&InstanceStatus> {
    all.sort_by_key(|instance| {
        let well =
            instance.state == State::Running && !matches!(instance.health.state, Health::Unanswered | Health::Silent);
        let traffic = instance.rate.out_bits + instance.rate.in_bits;
        (well, !instance.preferred, std::cmp::Reverse(traffic))
    });
    all
}

fn lines(text: &mut String, shown: &[&InstanceStatus], view: &View) {
    let longest = |of: fn(&InstanceStatus) -> usize| shown.iter().map(|instance| of(instance)).max().unwrap_or(0);
    let name = longest(|instance| instance.name.len() + 1).max(4);
    let uplink = longest(|instance| instance.uplink.as_deref().unwrap_or("-").len()).max(6);
    let prefix = longest(|instance| instance.prefix.as_deref().unwrap_or("-").len()).max(6);
    let head = format!(
        "{:<name$} {:<9} {:<uplink$} {:<prefix$} {:<9} {:<22} HEALTH",
        "NAME", "STATE", "UPLINK", "PREFIX", "PREFERRED", "RATE OUT / IN"
    );
    put(text, &head, view, None);
    for instance in shown {
        let rate = format!(
            "{} / {}",
            amount(instance.rate.out_bits, "bit/s"),
            amount(instance.rate.in_bits, "bit/s")
        );
        let health = if view.graphs {
            graph(
                &instance.history,
                view.width.saturating_sub(head.len() - "HEALTH".len()),
            )
        } else if instance.state == State::Running {
            match instance.health.text.as_str() {
                "" => instance.health.state.to_string(),
                words => words.to_owned(),
            }
        } else {
            instance.reason.clone()
        };
        let line = format!(
            "{:<name$} {:<9} {:<uplink$} {:<prefix$} {:<9} {rate:<22} {health}",
            format!("{}:", instance.name),
            instance.state,
            instance.uplink.as_deref().unwrap_or("-"),
            instance.prefix.as_deref().unwrap_or("-"),
            if instance.preferred { "yes" } else { "-" },
        );
        put(text, &line, view, colour(instance));
    }
}

/// Green if all is well, red if packets are lost; 32 and 31 of ISO 6429.
fn colour(instance: &InstanceStatus) -> Option<u8> {
    match (instance.state, instance.health.state) {
        (State::Stuck, _) | (State::Running, Health::Silent) => Some(31),
        (State::Running, Health::Unanswered) => Some(33),
        (State::Running, Health::Good) => Some(32),
        (State::Running, Health::Idle | Health::Unknown)
        | (State::Observing | State::Idle | State::Applying | State::Unwinding, _) => None,
    }
}

fn put(text: &mut String, line: &str, view: &View, colour: Option<u8>) {
    let line = line.trim_end();
    let line: String = match view.height {
        Some(_) => line.chars().take(view.width).collect(),
        None => line.to_owned(),
    };
    let _ = match colour.filter(|_| view.colour) {
        Some(colour) => writeln!(text, "\x1b[{colour}m{line}\x1b[0m"),
        None => writeln!(text, "{line}"),
    };
}

/// One character for each value, the newest last.
fn graph(history: &[u64], width: usize) -> String {
    let newest = &history[history.len().saturating_sub(width)..];
    let most = newest.iter().copied().max().unwrap_or(0).max(1);
    let bar = |value: &u64| {
        let place = usize::try_from(u128::from(*value) * 7 / u128::from(most)).unwrap_or(0);
        BARS.get(place).copied().unwrap_or(' ')
    };
    newest.iter().map(bar).collect()
}

fn details(text: &mut String, instance: &InstanceStatus) {
    let _ = writeln!(text, "{}: {}", instance.name, instance.state);
    let seconds = |seconds: Option<u64>| seconds.map(|seconds| format!("{seconds} s")).unwrap_or_default();
    let translator = instance.translator.as_ref();
    let rows = [
        ("reason", instance.reason.clone()),
        ("device", instance.device.clone().unwrap_or_default()),
        ("addresses", instance.addresses.join(", ")),
        ("uplink", instance.uplink.clone().unwrap_or_default()),
        ("PLAT prefix", fact(&instance.facts["plat_prefix"])),
        ("prefix ends", seconds(instance.lifetimes.prefix_s)),
        ("address ends", seconds(instance.lifetimes.address_s)),
        ("router", fact(&instance.facts["plat_gateway"])),
        ("MTU", instance.mtu.map(|mtu| mtu.to_string()).unwrap_or_default()),
        ("metric", fact(&instance.facts["metric"])),
        (
            "translator",
            translator
                .map(|by| format!("{} ({})", by.kind, by.why))
                .unwrap_or_default(),
        ),
        ("health", health(instance)),
        ("uptime", seconds(instance.uptime_s)),
        ("last error", instance.last_error.clone().unwrap_or_default()),
    ];
    for (label, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "  {label:<12} {value}");
    }
    let counted = serde_json::to_value(&instance.counters).unwrap_or_default();
    for (counter, value) in counters(&counted) {
        let _ = writeln!(text, "  {counter:<32} {value}");
    }
    for event in &instance.events {
        let _ = writeln!(text, "  {}", line_of(event));
    }
}

fn health(instance: &InstanceStatus) -> String {
    match (instance.health.state, instance.health.text.as_str()) {
        (Health::Unknown, _) => String::new(),
        (state, "") => state.to_string(),
        (state, words) => format!("{state} ({words})"),
    }
}

/// An event in one line: the time of day (UTC), and what happened.
pub fn line_of(event: &Event) -> String {
    format!("{} {}: {}", time(event.time_ms), event.instance, event.text)
}

/// Date and time of day in UTC, as RFC 3339 writes them.
fn time(time_ms: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(time_ms);
    let seconds = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86400, seconds % 86400);
    // The civil date from a number of days, for years after 1970. Eras of 400 years begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// A number with a prefix of the SI.
fn amount(value: u64, unit: &str) -> String {
    let (scaled, prefix) = match value {
        0..1000 => return format!("{value} {unit}"),
        1000..1_000_000 => (value as f64 / 1e3, "k"),
        1_000_000..1_000_000_000 => (value as f64 / 1e6, "M"),
        _ => (value as f64 / 1e9, "G"),
    };
    format!("{scaled:.1} {prefix}{unit}")
}

fn fact(fact: &Value) -> String {
    let value = match &fact["value"] {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return String::new(),
    };
    match fact["source"].as_str() {
        Some(source) => format!("{value} ({source})"),
        None => value,
    }
}

/// Counters that are not zero; nested ones are joined by dots.
fn counters(value: &Value) -> Vec<(String, u64)> {
    let mut rows = Vec::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::Number(number) => rows.extend(
                number
                    .as_u64()
                    .filter(|&count| count > 0)
                    .map(|count| (key.clone(), count)),
            ),
            nested => rows.extend(
                counters(nested)
                    .into_iter()
                    .map(|(inner, count)| (format!("{key}.{inner}"), count)),
            ),
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(count: usize) -> StatusDocument {
        let one = |k: usize| {
            serde_json::json!({
                "name": format!("clat@wwan{k}"), "state": "running", "since": 1, "uptime_s": 9, "reason": "", "facts": {},
                "device": format!("clat-wwan{k}"), "addresses": ["192.0.0.1"], "uplink": format!("wwan{k}"),
                "counters": {"4to6": {"packets": {"tcp": 5}}}, "last_error": null, "prefix": "64:ff9b::/96",
                "preferred": k == 0, "rate": {"out_packets": 1, "out_bits": 1_500_000, "in_packets": 0, "in_bits": 8},
                "health": if k == 63 {
                    serde_json::json!({"state": "silent", "unanswered": 120,
                        "text": "sent 120, nothing came back for 30 s: the PLAT does not answer"})
                } else { serde_json::json!({"state": "good", "text": "", "unanswered": 0}) },
                "history": [0, 1, 7, 7], "history_step_s": 5,
                "events": [{"time_ms": 951_782_400_000_u64, "instance": "x", "kind": "state", "text": "running"}]})
        };
        let instances: Vec<_> = (0..count).map(one).collect();
        serde_json::from_value(serde_json::json!({"version": 1, "clatd": "0.1.0", "instances": instances})).unwrap()
    }

    #[test]
    fn a_line_for_each_comes_first_and_details_follow() {
        let text = table(&document(2), &View::PLAIN);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("NAME"), "{text}");
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(
            words.join(" "),
            "clat@wwan0: running wwan0 64:ff9b::/96 yes 1.5 Mbit/s / 8 bit/s good"
        );
        assert!(text.contains("  device       clat-wwan1\n"), "{text}");
        assert!(text.contains("  4to6.packets.tcp                 5\n"), "{text}");
        assert!(text.contains("2000-02-29T00:00:00Z x: running"), "{text}");
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn sixty_four_fit_one_screen_with_the_worst_on_top() {
        let view = View {
            width: 80,
            height: Some(24),
            colour: true,
            graphs: false,
        };
        let text = table(&document(64), &view);
        assert!(text.lines().count() <= 23, "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("64 instances, 64 running, 1 silent"), "{text}");
        assert!(
            lines[2].contains("clat@wwan63:") && lines[2].starts_with("\x1b[31m"),
            "{text}"
        );
        assert!(lines[3].contains("clat@wwan0:") && lines[3].contains(" yes "), "{text}");
        for line in lines {
            let shown = line
                .replace("\x1b[31m", "")
                .replace("\x1b[32m", "")
                .replace("\x1b[0m", "");
            assert!(shown.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn graphs_are_as_wide_as_there_is_room() {
        assert_eq!(graph(&[0, 1, 7, 7], 10), "▁▂██");
        assert_eq!(graph(&[0, 1, 7, 7], 2), "██");
        assert_eq!(graph(&[], 2), "");
        let view = View {
            graphs: true,
            ..View::PLAIN
        };
        let text = table(&document(1), &view);
        assert!(text.contains("▁▂██") && !text.contains("device"), "{text}");
    }
}
