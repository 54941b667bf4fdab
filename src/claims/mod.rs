//! What instances take for themselves on links: addresses, each checked, announced and defended, and prefixes that
//! DHCPv6 delegates.

use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use clatd_stages::claims::Claims;
use clatd_stages::facts::Fact;
use clatd_stages::reservations::Reservations;
use clatd_stages::world::WorldError;
use ipnet::Ipv6Net;

use crate::kernel::Netlink;
use crate::world::users::Users;
use crate::world::{OnChange, OnChangeOf};

mod delegations;
mod detection;

/// The claims of all instances of a daemon. Clones share them.
#[derive(Clone)]
pub struct AllClaims {
    detection: detection::Detection,
    reservations: Reservations,
    delegations: delegations::Delegations,
    users: Users,
    notify: OnChangeOf,
}

impl AllClaims {
    /// No claims yet. Leases of delegated prefixes are stored in the runtime directory. `notify` is called with the
    /// device when another node takes an address, or a lease changes.
    pub fn new(netlink: Netlink, runtime_dir: &Path, notify: impl Fn(Option<&str>) + Send + Sync + 'static) -> Self {
        Self {
            detection: detection::Detection::new(),
            reservations: Reservations::default(),
            delegations: delegations::Delegations::in_directory(netlink, runtime_dir),
            users: Users::default(),
            notify: Arc::new(notify),
        }
    }

    /// The claims of one instance.
    pub fn of(&self, instance: &str) -> InstanceClaims {
        InstanceClaims {
            all: self.clone(),
            instance: instance.to_owned(),
        }
    }

    /// Gives delegated prefixes back. Nothing may use them any more.
    pub async fn release_delegations(&self) {
        self.delegations.release().await;
    }

    /// Releases the prefix of an uplink that an instance has left, unless one wants it again soon.
    fn leave(&self, uplink: Option<String>) {
        let delegations = self.delegations.clone();
        self.users.when_left(uplink, async move |uplink: String| {
            delegations.release_one(&uplink).await
        });
    }

    /// Tells of a change on this device.
    fn notify_of(&self, device: &str) -> OnChange {
        let (notify, device) = (Arc::clone(&self.notify), device.to_owned());
        Arc::new(move || notify(Some(&device)))
    }
}

/// The claims of one instance. Others may take its address when they are dropped.
pub struct InstanceClaims {
    all: AllClaims,
    instance: String,
}

impl Drop for InstanceClaims {
    fn drop(&mut self) {
        self.all.reservations.release(&self.instance);
        self.all.leave(self.all.users.ended(&self.instance));
    }
}

#[async_trait]
impl Claims for InstanceClaims {
    async fn reserved(&self, device: &str) -> Result<Option<Ipv6Addr>, WorldError> {
        Ok(self.all.reservations.of(&self.instance, device))
    }

    async fn reserve(&self, device: &str, address: Ipv6Addr) -> Result<Option<String>, WorldError> {
        Ok(self.all.reservations.reserve(&self.instance, device, address))
    }

    async fn duplicate_of(&self, device: &str, address: Ipv6Addr) -> Result<Option<String>, WorldError> {
        let notify = self.all.notify_of(device);
        let duplicate = self.all.detection.duplicate_of(device, address, &notify).await;
        duplicate.map_err(|error| WorldError::new(format!("looking for duplicates of {address} on {device}"), error))
    }

    async fn give_back(&self, device: &str, address: Ipv6Addr) {
        self.all.detection.give_back(device, address);
    }

    async fn announce(&self, device: &str, address: Ipv6Addr) {
        self.all.detection.announce(device, address).await;
    }

    async fn delegated_prefix(&self, device: &str) -> Result<Option<Fact<Ipv6Net>>, WorldError> {
        self.all.leave(self.all.users.uses(&self.instance, device));
        let notify = self.all.notify_of(device);
        Ok(self.all.delegations.prefix(device, &notify).await)
    }
}

/// The claims of an instance in a dry run. Nobody on the link is asked and nothing is requested: addresses are
/// reserved among the instances of this run alone, and a prefix is that of an earlier run.
pub struct DryRun {
    reservations: Reservations,
    runtime_dir: PathBuf,
    instance: String,
}

impl DryRun {
    /// The claims of an instance. All instances of the run share the table.
    pub fn new(reservations: &Reservations, runtime_dir: &Path, instance: &str) -> Self {
        Self {
            reservations: reservations.clone(),
            runtime_dir: runtime_dir.to_owned(),
            instance: instance.to_owned(),
        }
    }
}

#[async_trait]
impl Claims for DryRun {
    async fn reserved(&self, device: &str) -> Result<Option<Ipv6Addr>, WorldError> {
        Ok(self.reservations.of(&self.instance, device))
    }

    async fn reserve(&self, device: &str, address: Ipv6Addr) -> Result<Option<String>, WorldError> {
        Ok(self.reservations.reserve(&self.instance, device, address))
    }

    async fn duplicate_of(&self, _device: &str, _address: Ipv6Addr) -> Result<Option<String>, WorldError> {
        Ok(None)
    }

    async fn give_back(&self, _device: &str, _address: Ipv6Addr) {}

    async fn announce(&self, _device: &str, _address: Ipv6Addr) {}

    async fn delegated_prefix(&self, device: &str) -> Result<Option<Fact<Ipv6Net>>, WorldError> {
        Ok(delegations::kept(device, &self.runtime_dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

    #[tokio::test]
    async fn claims_end_with_their_instance() {
        let all = AllClaims::new(Netlink::open().unwrap(), Path::new("/nonexistent"), |_| {});
        let (one, other) = (all.of("one"), all.of("other"));
        assert_eq!(one.reserve("up0", ADDRESS).await.unwrap(), None);
        assert_eq!(one.reserved("up0").await.unwrap(), Some(ADDRESS));
        assert_eq!(other.reserve("up0", ADDRESS).await.unwrap().as_deref(), Some("one"));
        drop(one);
        assert_eq!(other.reserve("up0", ADDRESS).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_dry_run_reserves_among_its_instances_and_asks_nobody() {
        let table = Reservations::default();
        let [one, other] = ["one", "other"].map(|name| DryRun::new(&table, Path::new("/nonexistent"), name));
        assert_eq!(one.reserve("up0", ADDRESS).await.unwrap(), None);
        assert_eq!(other.reserve("up0", ADDRESS).await.unwrap().as_deref(), Some("one"));
        // There is no such device, so a detection would fail.
        assert_eq!(one.duplicate_of("no such device", ADDRESS).await.unwrap(), None);
        assert_eq!(one.delegated_prefix("no such device").await.unwrap(), None);
    }
}
