//! Which instance uses which uplink. What listens or asks on an uplink ends when no instance uses it any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::util::lock;

/// For how long clatd still listens on an uplink that no instance uses any more.
const BEFORE_LEAVING: Duration = Duration::from_secs(60);

/// The uplink of each instance. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Users(Arc<Mutex<BTreeMap<String, String>>>);

impl Users {
    /// The instance uses this uplink from now on. Returns its earlier uplink if nobody else uses that.
    pub(crate) fn uses(&self, instance: &str, uplink: &str) -> Option<String> {
        let mut users = self.lock();
        if users.get(instance).is_some_and(|used| used == uplink) {
            return None;
        }
        let left = users.insert(instance.to_owned(), uplink.to_owned())?;
        (!is_used(&users, &left)).then_some(left)
    }

    /// The instance has ended. Returns its uplink if nobody else uses that.
    pub(crate) fn ended(&self, instance: &str) -> Option<String> {
        let mut users = self.lock();
        let left = users.remove(instance)?;
        (!is_used(&users, &left)).then_some(left)
    }

    /// Whether any instance looks at this uplink.
    pub(crate) fn has(&self, uplink: &str) -> bool {
        is_used(&self.lock(), uplink)
    }

    /// Ends what was done on an uplink that was left, unless an instance uses it again soon.
    pub(crate) fn when_left<F>(&self, uplink: Option<String>, end: impl FnOnce(String) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        // There is none while the daemon ends, and nothing is left to be ended then.
        let (Some(uplink), Ok(runtime)) = (uplink, Handle::try_current()) else {
            return;
        };
        let users = self.clone();
        runtime.spawn(async move {
            sleep(BEFORE_LEAVING).await;
            if !users.has(&uplink) {
                end(uplink).await;
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        lock(&self.0)
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
