//! The plan: facts and steps of one instance. The same value is printed, journalled, executed and snapshot-tested.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::op::{Op, Undo};

/// The stages, in pipeline order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageName {
    /// Is there native IPv4?
    Conncheck,
    /// Which PLAT prefix, by which uplink?
    Discovery,
    /// Which IPv6 address for the CLAT?
    Address,
    /// The TUN device.
    Device,
    /// Forwarding, accept_ra, proxy_ndp.
    Sysctl,
    /// Proxy neighbour discovery for the CLAT's address.
    ProxyNd,
    /// Packet filters.
    Firewall,
    /// IPv4 and IPv6 routes.
    Route,
    /// script-up and script-down.
    Script,
    /// The translator.
    Translator,
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Conncheck => "conncheck",
            Self::Discovery => "discovery",
            Self::Address => "address",
            Self::Device => "device",
            Self::Sysctl => "sysctl",
            Self::ProxyNd => "proxy-nd",
            Self::Firewall => "firewall",
            Self::Route => "route",
            Self::Script => "script",
            Self::Translator => "translator",
        })
    }
}

/// An operation, its undo, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The stage that planned it.
    pub stage: StageName,
    /// Why it is done, for people.
    pub why: String,
    /// The change.
    pub apply: Op,
    /// How it is taken back.
    pub undo: Undo,
}

impl Step {
    /// A step that `undo` takes back.
    pub fn new(stage: StageName, why: impl Into<String>, apply: Op, undo: Op) -> Self {
        Self {
            stage,
            why: why.into(),
            apply,
            undo: Undo::Op(undo),
        }
    }

    /// A step that the kernel undoes when `device` goes.
    pub fn on_device(stage: StageName, why: impl Into<String>, apply: Op, device: &str) -> Self {
        Self {
            stage,
            why: why.into(),
            apply,
            undo: Undo::goes_with(device),
        }
    }
}

/// A step that is usually done and is not needed here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotNeeded {
    /// The stage that would have planned it.
    pub stage: StageName,
    /// What it is, for people.
    pub what: String,
    /// Why it is not needed.
    pub why: String,
}

/// Facts and steps of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The instance's name.
    pub instance: String,
    /// What was observed.
    pub facts: Facts,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// What is left undone, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_needed: Vec<NotNeeded>,
}

/// How many first steps are the same: these stay when the steps of a new plan replace those that were done.
pub fn common_head<'a>(done: impl IntoIterator<Item = &'a Step>, new: &[Step]) -> usize {
    let pairs = done.into_iter().zip(new);
    pairs
        .take_while(|(done, new)| done.apply == new.apply && done.undo == new.undo)
        .count()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "instance {}", self.instance)?;
        writeln!(f, "  facts:")?;
        for line in fact_lines(&self.facts) {
            writeln!(f, "    {line}")?;
        }
        writeln!(f, "  steps:")?;
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "    {:>2}. [{}] {}", number + 1, step.stage, step.apply)?;
            writeln!(f, "        why:  {}", step.why)?;
            writeln!(f, "        undo: {}", step.undo)?;
        }
        if !self.not_needed.is_empty() {
            writeln!(f, "  not needed:")?;
        }
        for left in &self.not_needed {
            writeln!(f, "    [{}] {}", left.stage, left.what)?;
            writeln!(f, "        why:  {}", left.why)?;
        }
        Ok(())
    }
}

fn fact_lines(facts: &Facts) -> Vec<String> {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(facts) else {
        return Vec::new();
    };
    fields
        .iter()
        .flat_map(|(name, value)| lines_of(&name.replace('_', "-"), value))
        .collect()
}

fn lines_of(name: &str, value: &serde_json::Value) -> Vec<String> {
    match (name, value) {
        ("shared", shared) => return vec![format!("{name}: {shared} (the CLAT's address is the host's own)")],
        // The fact `neighbours` says it.
        ("anycast", _) => return Vec::new(),
        ("on-link", addresses) => return vec![format!("{name}: {} (prefixes of the uplink)", brief(addresses))],
        _ => {}
    }
    match value {
        serde_json::Value::Array(items) => items.iter().flat_map(|item| lines_of(name, item)).collect(),
        serde_json::Value::Object(fields) => match (fields.get("value"), fields.get("source")) {
            (Some(value), Some(source)) => {
                let lifetime = fields
                    .get("lifetime_s")
                    .map(|seconds| format!(", for {seconds} s"))
                    .unwrap_or_default();
                vec![format!("{name}: {} ({}{lifetime})", brief(value), brief(source))]
            }
            _ if name == "fast-path" => {
                let field = |key: &str| fields.get(key).map(brief).unwrap_or_default();
                vec![format!(
                    "{name}: by {}, link header {} (kernel: kind of the uplink)",
                    field("attachment"),
                    field("header")
                )]
            }
            _ if name == "sysctls" => fields
                .iter()
                .map(|(key, value)| format!("sysctl {key}: {}", brief(value)))
                .collect(),
            _ if fields.contains_key("hook") => {
                let field = |key: &str| fields.get(key).map(brief).unwrap_or_default();
                vec![format!(
                    "nft chain {} {} {}: hook {}, {}",
                    field("family"),
                    field("table"),
                    field("chain"),
                    field("hook"),
                    field("reason")
                )]
            }
            _ => fields
                .iter()
                .flat_map(|(inner, value)| lines_of(&format!("{name} {inner}"), value))
                .collect(),
        },
        other => vec![format!("{name}: {}", brief(other))],
    }
}

/// A value in one line: a device by its name, a route as `ip` writes it.
fn brief(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(items) if items.is_empty() => "none".into(),
        serde_json::Value::Array(items) => items.iter().map(brief).collect::<Vec<_>>().join("; "),
        serde_json::Value::Object(fields) => {
            if let Ok(route) = serde_json::from_value::<crate::net::Route>(value.clone()) {
                return route.to_string();
            }
            match (fields.get("name"), fields.get("mtu")) {
                (Some(name), Some(mtu)) => format!("{}, MTU {mtu}", brief(name)),
                _ => value.to_string(),
            }
        }
        other => other.to_string(),
    }
}

/// An instance that has nothing to do, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Idle {
    /// The instance's name.
    pub instance: String,
    /// Why it has nothing to do.
    pub reason: String,
}

/// The plans of all instances: what `clatd plan --json` prints. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanDocument {
    /// Version of this format.
    pub version: u32,
    /// Instances with something to do.
    pub instances: Vec<Plan>,
    /// Instances without.
    pub idle: Vec<Idle>,
}

impl PlanDocument {
    /// Version of the JSON format.
    pub const VERSION: u32 = 1;
}

impl fmt::Display for PlanDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for plan in &self.instances {
            plan.fmt(f)?;
        }
        for idle in &self.idle {
            writeln!(f, "instance {}: nothing to do: {}", idle.instance, idle.reason)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_head_ends_where_steps_or_their_undos_differ() {
        let remove = |path: &str| Op::RemoveFile { path: path.to_owned() };
        let step = |path: &str, undo: Undo| Step {
            stage: StageName::Device,
            why: "a test".into(),
            apply: remove(path),
            undo,
        };
        let plan = |steps| Plan {
            instance: "clat".into(),
            facts: Facts::default(),
            steps,
            not_needed: Vec::new(),
        };
        let nothing = || Undo::nothing("a test");
        let ours = plan(vec![step("a", nothing()), step("b", nothing()), step("c", nothing())]);
        assert_eq!(common_head(&ours.steps, &ours.steps), 3);
        assert_eq!(common_head(&ours.steps, &ours.steps[..1]), 1);
        assert_eq!(
            common_head(&ours.steps, &[step("a", nothing()), step("x", nothing())]),
            1
        );
        // The same change with another undo.
        let other = [step("a", nothing()), step("b", Undo::Op(remove("b")))];
        assert_eq!(common_head(&ours.steps, &other), 1);
        // Why it is done does not matter.
        let mut reworded = ours.clone();
        reworded.steps[0].why = "another reason".into();
        assert_eq!(common_head(&ours.steps, &reworded.steps), 3);
    }
}
