//! Which instance has which IPv6 address. Several on one uplink would otherwise derive the same.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The address that each instance has or is about to take, and its device. Clones share the table.
#[derive(Debug, Clone, Default)]
pub struct Reservations(Arc<Mutex<BTreeMap<String, (String, Ipv6Addr)>>>);

impl Reservations {
    /// The address that the instance has on this device.
    pub fn of(&self, instance: &str, device: &str) -> Option<Ipv6Addr> {
        let table = self.lock();
        let (on, address) = table.get(instance)?;
        (on == device).then_some(*address)
    }

    /// Gives the instance this address and takes its earlier one. If another instance has the address, returns that
    /// one's name.
    pub fn reserve(&self, instance: &str, device: &str, address: Ipv6Addr) -> Option<String> {
        let mut table = self.lock();
        let wanted = (device.to_owned(), address);
        let other = table.iter().find(|(name, has)| *name != instance && **has == wanted);
        if let Some((other, _)) = other {
            return Some(other.clone());
        }
        table.insert(instance.to_owned(), wanted);
        None
    }

    /// The instance has ended.
    pub fn release(&self, instance: &str) {
        self.lock().remove(instance);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (String, Ipv6Addr)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_instances_until_it_takes_another_or_ends() {
        let table = Reservations::default();
        let [one, two] = ["2001:db8::1", "2001:db8::2"].map(|text| text.parse().unwrap());
        assert_eq!(table.reserve("a", "wan0", one), None);
        assert_eq!(table.reserve("a", "wan0", one), None);
        assert_eq!(table.reserve("b", "wan0", one).as_deref(), Some("a"));
        assert_eq!((table.of("a", "wan0"), table.of("b", "wan0")), (Some(one), None));
        // The same on another link is another address.
        assert_eq!(table.reserve("b", "wan1", one), None);
        assert_eq!((table.of("b", "wan1"), table.of("b", "wan0")), (Some(one), None));
        assert_eq!(table.reserve("a", "wan0", two), None);
        assert_eq!(table.reserve("b", "wan0", one), None);
        table.release("b");
        assert_eq!(table.reserve("a", "wan0", one), None);
    }
}
