//! Tells those who listen on a link (`src/ra`, `src/dhcp6`) of its changes: of the device itself, and of its link-local
//! addresses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use super::Netlink;
use super::change::NetworkChange;
use crate::util::lock;

/// What happened to the links.
#[derive(Debug, Default)]
pub(crate) struct LinkEvents {
    listeners: Mutex<BTreeMap<String, watch::Sender<u64>>>,
    carriers: Mutex<Carriers>,
}

/// How often each carrier was lost. The state of a link alone does not show a short loss, after which another network
/// may be behind the link.
#[derive(Debug, Default)]
struct Carriers {
    lost: BTreeMap<u32, u64>,
    /// Events that the kernel could not deliver. Each may have concerned any device.
    unknown: u64,
}

impl LinkEvents {
    /// Hears of all changes until the last of its handles is gone.
    pub(super) fn follow(netlink: &Netlink) -> Arc<Self> {
        let events = Arc::new(Self::default());
        let heard = Arc::downgrade(&events);
        netlink.listen(move |change| match heard.upgrade() {
            Some(events) => {
                events.take(change);
                true
            }
            None => false,
        });
        events
    }

    /// A count that goes up with every event of a device.
    pub(crate) fn subscribe(&self, device: &str) -> watch::Receiver<u64> {
        let mut listeners = self.listeners();
        listeners.retain(|_, listener| !listener.is_closed());
        listeners.entry(device.to_owned()).or_default().subscribe()
    }

    /// How often the carrier of a device went, at most.
    pub(crate) fn carrier_losses(&self, index: u32) -> u64 {
        let carriers = lock(&self.carriers);
        carriers.unknown + carriers.lost.get(&index).copied().unwrap_or_default()
    }

    fn carriers(&self, change: impl FnOnce(&mut Carriers)) {
        change(&mut lock(&self.carriers));
    }

    /// Takes in a change of the network.
    fn take(&self, change: &NetworkChange) {
        match change {
            NetworkChange::Link(change) => {
                let index = change.link.index;
                self.carriers(|carriers| {
                    if change.gone {
                        carriers.lost.remove(&index);
                    } else if change.lost_carrier {
                        *carriers.lost.entry(index).or_default() += 1;
                    }
                });
                self.tell(Some(&change.link.name));
                self.tell(change.former_name.as_ref());
            }
            NetworkChange::Address {
                v6: true,
                link_local: true,
                device,
                ..
            } => self.tell(device.as_ref()),
            NetworkChange::Anything => {
                self.carriers(|carriers| carriers.unknown += 1);
                for listener in self.listeners().values() {
                    listener.send_modify(|count| *count += 1);
                }
            }
            NetworkChange::Address { .. }
            | NetworkChange::Route { .. }
            | NetworkChange::Rule { .. }
            | NetworkChange::Neighbour { .. }
            | NetworkChange::Settings { .. } => {}
        }
    }

    fn tell(&self, device: Option<&String>) {
        if let Some(listener) = device.and_then(|device| self.listeners().get(device).cloned()) {
            listener.send_modify(|count| *count += 1);
        }
    }

    fn listeners(&self) -> MutexGuard<'_, BTreeMap<String, watch::Sender<u64>>> {
        lock(&self.listeners)
    }
}

#[cfg(test)]
mod tests {
    use clatd_stages::net::Link;

    use super::*;
    use crate::netlink::LinkChange;

    fn change(index: u32, gone: bool, carrier: bool) -> NetworkChange {
        let link = Link {
            index,
            name: format!("up{index}"),
            mtu: 1500,
            up: true,
            carrier,
            alias: None,
            master: None,
            vrf_table: None,
        };
        NetworkChange::Link(LinkChange {
            link,
            former_name: None,
            gone,
            lost_carrier: !carrier,
            news: true,
        })
    }

    #[test]
    fn every_loss_of_a_carrier_counts() {
        let events = LinkEvents::default();
        let heard = events.subscribe("up3");
        for (index, carrier) in [(3, false), (3, true), (4, true), (3, false)] {
            events.take(&change(index, false, carrier));
        }
        assert_eq!(events.carrier_losses(3), 2);
        assert_eq!(events.carrier_losses(4), 0);
        assert_eq!(*heard.borrow(), 3, "those of its own device");
        events.take(&NetworkChange::Anything);
        assert_eq!(events.carrier_losses(4), 1);
        events.take(&change(3, true, false));
        assert_eq!(events.carrier_losses(3), 1, "the index may be given to another");
    }
}
