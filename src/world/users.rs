//! Which instance uses which uplink. What listens or asks on an uplink ends when no instance uses it any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The uplink of each instance. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Users(Arc<Mutex<BTreeMap<String, String>>>);

impl Users {
    /// The instance uses this uplink from now on. Returns its earlier uplink if nobody else uses that.
    pub(super) fn uses(&self, instance: &str, uplink: &str) -> Option<String> {
        let mut users = self.lock();
        if users.get(instance).is_some_and(|used| used == uplink) {
            return None;
        }
        let left = users.insert(instance.to_owned(), uplink.to_owned())?;
        (!is_used(&users, &left)).then_some(left)
    }

    /// The instance has ended. Returns its uplink if nobody else uses that.
    pub(super) fn ended(&self, instance: &str) -> Option<String> {
        let mut users = self.lock();
        let left = users.remove(instance)?;
        (!is_used(&users, &left)).then_some(left)
    }

    /// Whether any instance looks at this uplink.
    pub(super) fn has(&self, uplink: &str) -> bool {
        is_used(&self.lock(), uplink)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_used(users: &BTreeMap<String, String>, uplink: &str) -> bool {
    users.values().any(|used| used == uplink)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uplink_is_left_when_the_last_leaves() {
        let users = Users::default();
        assert_eq!(users.uses("a", "wan0"), None);
        assert_eq!(users.uses("b", "wan0"), None);
        assert_eq!(users.uses("a", "wan1"), None, "b is still there");
        assert_eq!(users.uses("a", "wan1"), None);
        assert_eq!(users.uses("b", "wan1").as_deref(), Some("wan0"));
        assert!(!users.has("wan0") && users.has("wan1"));
        assert_eq!(users.ended("a"), None);
        assert_eq!(users.ended("b").as_deref(), Some("wan1"));
        assert_eq!(users.ended("b"), None);
    }
}
