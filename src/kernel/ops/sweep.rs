//! Removes everything with our label that is in no journal. What has a label, and how it is found, is in the file of each
//! family.

use clatd_stages::op::Op;
use clatd_stages::settings::Settings;

use super::super::cleanup::Report;
use super::super::failure::Failure;
use super::super::netlink::Netlink;
use super::{device, fast_path, firewall, neighbour, route, rule};
use crate::report::chain;

/// The step that corrects the rule of table local, if no journal has it.
pub(super) const LOCAL_RULE_BACK: &str = "move the IPv6 rule of table local back to priority 0";

/// The kernel's metric of an IPv6 route without one.
const DEFAULT_METRIC6: &str = " metric 1024";

/// A look for everything with our label.
pub(crate) struct Sweep<'a> {
    pub(super) netlink: &'a Netlink,
    pub(super) settings: &'a Settings,
    dry_run: bool,
    report: &'a mut Report,
}

impl<'a> Sweep<'a> {
    pub(crate) fn new(netlink: &'a Netlink, settings: &'a Settings, dry_run: bool, report: &'a mut Report) -> Self {
        Self {
            netlink,
            settings,
            dry_run,
            report,
        }
    }

    /// Looks for what each family leaves, and removes it. Goes on past errors.
    pub(crate) async fn all(mut self) {
        // Things on a device of ours go with it, but rules, and routes by other devices, do not.
        let sweeps = [
            ("policy rules", rule::sweep(&mut self).await),
            ("routes", route::sweep(&mut self).await),
            ("proxy neighbour entries", neighbour::sweep(&mut self).await),
            ("nft rules and tables", firewall::sweep_nft(&mut self).await),
            ("ip6tables rules", firewall::sweep_ip6tables(&mut self).await),
            ("programs of the fast path", fast_path::sweep(&mut self).await),
            ("network devices", device::sweep(&mut self).await),
        ];
        for (what, swept) in sweeps {
            if let Err(failure) = swept {
                let why = chain(&*failure.into_source());
                self.report.errors.push(format!("looking for {what} of clatd's: {why}"));
            }
        }
    }

    /// Removes one thing, unless this is a dry run.
    pub(super) async fn remove(&mut self, what: String, removal: impl Future<Output = Result<(), Failure>>) {
        let result = if self.dry_run { Ok(()) } else { removal.await };
        self.note(what, result);
    }

    /// Notes the result of one removal. In a dry run everything in the journals still exists, and was printed
    /// already.
    pub(super) fn note(&mut self, what: String, result: Result<(), Failure>) {
        if self.dry_run && self.report.done.iter().any(|told| is_same(told, &what)) {
            return;
        }
        match result {
            Ok(()) => self.report.done.push(what),
            Err(failure) => self
                .report
                .errors
                .push(format!("cannot {what}: {}", chain(&*failure.into_source()))),
        }
    }
}

/// Whether a step of a journal (`WHAT (instance NAME)`, perhaps with more) already undoes what the sweep found.
fn is_same(told: &str, found: &str) -> bool {
    if found == LOCAL_RULE_BACK {
        return told.starts_with(&Op::ReleaseLocalRule {}.to_string());
    }
    let goes_on = |found: &str| told.strip_prefix(found).is_some_and(|rest| rest.starts_with(' '));
    goes_on(found) || found.strip_suffix(DEFAULT_METRIC6).is_some_and(goes_on)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_journal_tells_is_not_told_again() {
        for (told, found) in [
            (
                "remove rule IPv6 priority 467 (instance clat)",
                "remove rule IPv6 priority 467",
            ),
            (
                "stop answering neighbour solicitations for 2001:db8::1 on wan0 (instance clat)",
                "stop answering neighbour solicitations for 2001:db8::1",
            ),
            (
                "remove route default via fe80::1 dev up0 table 49575 (instance clat)",
                "remove route default via fe80::1 dev up0 table 49575 metric 1024",
            ),
            ("delete TUN device clat (instance clat)", "delete TUN device clat"),
            (
                "make the IPv6 rule of table local the first one again (instance clat)",
                LOCAL_RULE_BACK,
            ),
        ] {
            assert!(is_same(told, found), "{told}");
        }
        let other = "delete TUN device clat0 (instance clat0)";
        assert!(!is_same(other, "delete TUN device clat"));
    }
}
