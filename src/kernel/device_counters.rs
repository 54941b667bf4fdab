//! What the kernel counts of a device, for translators that do not count.

use std::io;
use std::sync::Mutex;

use clatd_stages::counters::{ClatDeviceCounters, Passed};
use nix::net::if_::if_indextoname;

use super::statistics::Totals;
use super::translators::Counting;
use crate::util::lock;

/// Of the network namespace of the thread that reads it. Reading it does not wait for those who change devices.
const LISTING: &str = "/proc/thread-self/net/dev";

/// Counters of a device, from a moment on.
#[derive(Debug)]
pub(super) struct DeviceCounters {
    index: u32,
    before: ClatDeviceCounters,
    /// What was read last: it stays when the device goes.
    last: Mutex<ClatDeviceCounters>,
}

impl DeviceCounters {
    pub(super) fn from_now_on(index: u32) -> Self {
        Self {
            index,
            before: read(index).unwrap_or_default(),
            last: Mutex::default(),
        }
    }
}

impl Counting for DeviceCounters {
    /// Packets of both directions pass the device.
    fn knows_directions(&self) -> bool {
        false
    }

    fn totals(&self) -> Totals {
        let mut last = lock(&self.last);
        match read(self.index) {
            Ok(now) => *last = since(now, self.before),
            Err(error) => tracing::debug!(%error, index = self.index, "reading the counters of a device"),
        }
        Totals {
            device: Some(*last),
            ..Totals::default()
        }
    }
}

fn read(index: u32) -> io::Result<ClatDeviceCounters> {
    let name = if_indextoname(index)?;
    let listing = std::fs::read_to_string(LISTING)?;
    let found = name.to_str().ok().and_then(|name| parse(&listing, name));
    found.ok_or_else(|| io::Error::other("it is not listed"))
}

/// One line for each device: its name, eight numbers of what it received and eight of what it sent. To us, a device
/// that is open as a file receives what the program writes.
fn parse(listing: &str, device: &str) -> Option<ClatDeviceCounters> {
    let mut lines = listing.lines().filter_map(|line| line.split_once(':'));
    let (_, numbers) = lines.find(|(name, _)| name.trim() == device)?;
    let numbers: Vec<u64> = numbers.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let passed = |at: usize| {
        Some(Passed {
            bytes: *numbers.get(at)?,
            packets: *numbers.get(at + 1)?,
            dropped: *numbers.get(at + 3)?,
        })
    };
    Some(ClatDeviceCounters {
        from_translator: passed(0)?,
        to_translator: passed(8)?,
    })
}

fn since(now: ClatDeviceCounters, before: ClatDeviceCounters) -> ClatDeviceCounters {
    let since = |now: Passed, before: Passed| Passed {
        packets: now.packets.saturating_sub(before.packets),
        bytes: now.bytes.saturating_sub(before.bytes),
        dropped: now.dropped.saturating_sub(before.dropped),
    };
    ClatDeviceCounters {
        to_translator: since(now.to_translator, before.to_translator),
        from_translator: since(now.from_translator, before.from_translator),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  clat:    1000      10    0    3    0     0          0         0     2000      20    0    4    0     0       0          0
";

    #[test]
    fn numbers_of_the_device_and_of_no_other() {
        let counted = parse(TEXT, "clat").unwrap();
        let passed = |packets, bytes, dropped| Passed {
            packets,
            bytes,
            dropped,
        };
        assert_eq!(counted.from_translator, passed(10, 1000, 3));
        assert_eq!(counted.to_translator, passed(20, 2000, 4));
        assert_eq!(parse(TEXT, "cla"), None);
        let later = ClatDeviceCounters {
            to_translator: passed(25, 2600, 4),
            ..counted
        };
        let both = since(later, counted);
        assert_eq!(
            (both.to_translator, both.from_translator),
            (passed(5, 600, 0), passed(0, 0, 0))
        );
    }
}
