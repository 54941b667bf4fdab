//! What an operation left for its undo. The journal has it, so its JSON never changes: each kind has fields of its own,
//! and the index of a device may stand beside them. Journals of older versions lack some of the fields.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What an operation left for its undo.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<Written>", into = "Option<Written>")]
pub struct Outcome {
    /// What it did.
    pub left: Left,
    /// The index of the device that it changed. The undo finds the device by it, whatever its name is then. Journals of
    /// older versions have none.
    pub device: Option<u32>,
}

/// What an operation did, as far as its undo must know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Left {
    /// What the plan says, no more.
    #[default]
    Nothing,
    /// Nothing: the object was there already and is not ours. The undo leaves it.
    Existed,
    /// Nothing: the object was not there. The undo does not make it.
    Gone,
    /// It made the device with this index.
    Device(u32),
    /// It inserted the rule with this handle.
    Rule(u64),
    /// It took a hold on a sysctl.
    Hold {
        /// The value from before the first hold.
        before: String,
        /// The devices whose sysctls the undo gives back, by the names that they had, with their indexes.
        devices: BTreeMap<String, u32>,
    },
    /// It took holds on these devices. They have the names and the indexes from then; none = the device went meanwhile.
    Holds(Arc<BTreeMap<String, Option<u32>>>),
    /// It attached programs to the classifier `clsact` of an uplink.
    Clsact {
        /// Whether it made the classifier.
        made: bool,
        /// The program there. Journals of older versions do not have it.
        program: Option<u64>,
    },
}

impl Outcome {
    /// Nothing that an undo must know.
    pub const NOTHING: Self = Self {
        left: Left::Nothing,
        device: None,
    };

    /// Whether the operation changed nothing, so that nothing is to be undone.
    pub fn changed_nothing(&self) -> bool {
        match self.left {
            Left::Existed | Left::Gone => true,
            Left::Nothing
            | Left::Device(_)
            | Left::Rule(_)
            | Left::Hold { .. }
            | Left::Holds(_)
            | Left::Clsact { .. } => false,
        }
    }

    /// The same on the device with this index.
    pub fn on(self, device: Option<u32>) -> Self {
        Self {
            device: device.or(self.device),
            ..self
        }
    }
}

impl From<Left> for Outcome {
    fn from(left: Left) -> Self {
        Self { left, device: None }
    }
}

/// The fields of the JSON object. Those that this version does not know are passed over.
#[derive(Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<Arc<BTreeMap<String, Option<u32>>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    made_clsact: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    existed: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    gone: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ifindex: Option<u32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    ifindexes: BTreeMap<String, u32>,
}

impl From<Option<Written>> for Outcome {
    fn from(written: Option<Written>) -> Self {
        let written = written.unwrap_or_default();
        let left = if written.existed {
            Left::Existed
        } else if written.gone {
            Left::Gone
        } else if let Some(index) = written.index {
            Left::Device(index)
        } else if let Some(handle) = written.handle {
            Left::Rule(handle)
        } else if let Some(before) = written.before {
            Left::Hold {
                before,
                devices: written.ifindexes,
            }
        } else if let Some(held) = written.held {
            Left::Holds(held)
        } else if let Some(made) = written.made_clsact {
            Left::Clsact {
                made,
                program: written.program,
            }
        } else {
            Left::Nothing
        };
        Self {
            left,
            device: written.ifindex,
        }
    }
}

impl From<Outcome> for Option<Written> {
    fn from(Outcome { left, device }: Outcome) -> Self {
        let mut written = Written {
            ifindex: device,
            ..Written::default()
        };
        match left {
            Left::Nothing => {}
            Left::Existed => written.existed = true,
            Left::Gone => written.gone = true,
            Left::Device(index) => written.index = Some(index),
            Left::Rule(handle) => written.handle = Some(handle),
            Left::Hold { before, devices } => {
                written.before = Some(before);
                written.ifindexes = devices;
            }
            Left::Holds(held) => written.held = Some(held),
            Left::Clsact { made, program } => {
                written.made_clsact = Some(made);
                written.program = program;
            }
        }
        (written != Written::default()).then_some(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Entry, Ledger, Line, encode};

    fn devices<T: Clone>(index: T) -> BTreeMap<String, T> {
        BTreeMap::from([("up0".to_owned(), index)])
    }

    /// What each operation has written since the first version, and what it is.
    #[test]
    fn the_json_of_each_kind_stays() {
        let hold = |devices| Left::Hold {
            before: "0".into(),
            devices,
        };
        let clsact = |program| Left::Clsact { made: true, program };
        for (json, left, device) in [
            ("null", Left::Nothing, None),
            (r#"{"ifindex":4}"#, Left::Nothing, Some(4)),
            (r#"{"existed":true}"#, Left::Existed, None),
            (r#"{"existed":true,"ifindex":3}"#, Left::Existed, Some(3)),
            (r#"{"gone":true}"#, Left::Gone, None),
            (r#"{"gone":true,"ifindex":3}"#, Left::Gone, Some(3)),
            (r#"{"index":4}"#, Left::Device(4), None),
            (r#"{"handle":7}"#, Left::Rule(7), None),
            (r#"{"before":"0"}"#, hold(BTreeMap::new()), None),
            (r#"{"before":"0","ifindex":3}"#, hold(BTreeMap::new()), Some(3)),
            (r#"{"before":"0","ifindexes":{"up0":3}}"#, hold(devices(3)), None),
            (r#"{"held":{}}"#, Left::Holds(Arc::default()), None),
            (r#"{"held":{"up0":3}}"#, Left::Holds(devices(Some(3)).into()), None),
            (r#"{"held":{"up0":null}}"#, Left::Holds(devices(None).into()), None),
            (r#"{"made_clsact":true}"#, clsact(None), None),
            (
                r#"{"made_clsact":true,"program":17188,"ifindex":3}"#,
                clsact(Some(17188)),
                Some(3),
            ),
        ] {
            let outcome = Outcome { left, device };
            assert_eq!(serde_json::from_str::<Outcome>(json).unwrap(), outcome, "{json}");
            assert_eq!(serde_json::to_string(&outcome).unwrap(), json);
        }
        let unknown = serde_json::from_str::<Outcome>(r#"{"from a later version":1}"#).unwrap();
        assert_eq!(unknown, Outcome::NOTHING);
    }

    #[test]
    fn the_device_of_an_outcome_is_the_last_one_told() {
        let outcome = Outcome::from(Left::Device(4));
        let told = outcome.clone().on(Some(3));
        assert_eq!((outcome.device, told.device), (None, Some(3)));
        assert_eq!(told.clone().on(None), told);
        assert_eq!(told.on(Some(5)).device, Some(5));
    }

    #[test]
    fn sample_journals_are_read_and_written_again_as_they_were() {
        let read = |name: &str| {
            let path = format!("{}/../tests/journals/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
            std::fs::read_to_string(path).unwrap()
        };
        for name in ["operations", "oldest"] {
            let text = read(name);
            assert!(!Ledger::parse(name, &text).unwrap().pending().is_empty());
            for line in text.lines() {
                let Line { event, .. } = serde_json::from_str(line).unwrap();
                // The oldest ones lack fields that have defaults.
                if name == "operations" || matches!(&event, Entry::Done { .. } if line.contains("outcome")) {
                    assert_eq!(encode(event).unwrap().trim_end(), line);
                }
            }
        }
    }
}
