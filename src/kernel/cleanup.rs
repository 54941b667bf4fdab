//! `clatd cleanup`: undoes what killed daemons left behind. First what the journals have, newest first; then
//! everything with our mark that is in no journal.

use std::cmp::Reverse;
use std::path::Path;

use clatd_stages::apply::{UndoError, unwind};
use clatd_stages::journal::{Journal, JournalError, undo_of};
use clatd_stages::net::{ALIAS_PREFIX, ROUTE_PROTOCOL};
use clatd_stages::op::Op;
use clatd_stages::settings::Settings;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
#[cfg(feature = "ebpf")]
use super::fastpath;
use super::local_rule;
use super::lock::LockError;
use super::netlink::{Netlink, raw_of};
use super::{FileJournal, Holds, Kernel, NamespaceLock, RuntimeLock, command, ip6tables, nft, tun};
use crate::report::chain;

/// Name of an nft table of ours, up to its instance.
const TABLE_PREFIX: &str = "clatd_";

/// The step that corrects the rule of table local, if no journal has it.
const LOCAL_RULE_BACK: &str = "move the IPv6 rule of table local back to priority 0";

/// The kernel's metric of an IPv6 route without one.
const DEFAULT_METRIC6: &str = " metric 1024";

/// Whether a step of a journal (`WHAT (instance NAME)`, perhaps with more) already undoes what the sweep found.
fn is_same(told: &str, found: &str) -> bool {
    if found == LOCAL_RULE_BACK {
        return told.starts_with(&Op::ReleaseLocalRule {}.to_string());
    }
    let goes_on = |found: &str| told.strip_prefix(found).is_some_and(|rest| rest.starts_with(' '));
    goes_on(found) || found.strip_suffix(DEFAULT_METRIC6).is_some_and(goes_on)
}

/// Nothing could be cleaned up at all.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// A clatd is running.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The journals cannot be listed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The kernel cannot be spoken to.
    #[error("opening a netlink socket")]
    Netlink(#[source] std::io::Error),
}

/// What was done, or would be.
#[derive(Debug, Default)]
pub struct Report {
    /// In order.
    pub done: Vec<String>,
    /// What could not be done, each with its causes.
    pub errors: Vec<String>,
}

/// Undoes everything, or only prints what it would undo. Refuses while a daemon runs with this runtime directory, or
/// with another one in this network namespace.
pub async fn run(runtime: &Path, settings: &Settings, dry_run: bool) -> Result<Report, CleanupError> {
    run_until(runtime, settings, dry_run, CancellationToken::new()).await
}

/// The same. When `stop` is asked for, scripts are ended and programs have less time.
pub async fn run_until(
    runtime: &Path,
    settings: &Settings,
    dry_run: bool,
    stop: CancellationToken,
) -> Result<Report, CleanupError> {
    command::set_limit(settings.general.script_timeout);
    // Without a runtime directory no daemon runs in it, and a dry run creates no lock file.
    let lock = match runtime.exists() && (!dry_run || RuntimeLock::exists(runtime)) {
        true => Some(RuntimeLock::acquire(runtime)?),
        false => None,
    };
    let alone = NamespaceLock::acquire(runtime).await?;
    let mut cleanup = Cleanup {
        netlink: Netlink::open().map_err(CleanupError::Netlink)?,
        dry_run,
        stop: stop.clone(),
        report: Report::default(),
    };
    let all = async {
        cleanup.journals(runtime).await?;
        cleanup.sweep(settings).await;
        Ok::<(), CleanupError>(())
    };
    let cleaned = command::stopped_by(stop, all).await;
    alone.release().await;
    drop(lock);
    cleaned.map(|()| cleanup.report)
}

struct Cleanup {
    netlink: Netlink,
    dry_run: bool,
    stop: CancellationToken,
    report: Report,
}

impl Cleanup {
    async fn journals(&mut self, runtime: &Path) -> Result<(), CleanupError> {
        let mut journals = Vec::new();
        for name in FileJournal::list(runtime)? {
            match FileJournal::open(runtime, &name) {
                Ok(journal) => journals.push((Reverse(journal.modified()), name, journal)),
                Err(error) => self.report.errors.push(chain(&error)),
            }
        }
        journals.sort_by(|left, right| (&left.0, &left.1).cmp(&(&right.0, &right.1)));
        // One table for all, as in the daemon that was killed.
        let holds = Holds::default();
        for (_, name, mut journal) in journals {
            let pending = journal.pending();
            let undone = if self.dry_run {
                Vec::new()
            } else {
                let (exits, _) = mpsc::unbounded_channel();
                let mut kernel =
                    Kernel::new(name.clone(), self.netlink.clone(), holds.clone(), exits).hurried_by(self.stop.clone());
                unwind(&mut kernel, &mut journal, 0).await
            };
            let stuck: Vec<u64> = journal.pending().iter().map(|pending| pending.seq).collect();
            for step in pending
                .iter()
                .rev()
                .filter(|step| self.dry_run || !stuck.contains(&step.seq))
            {
                if let Some(op) = undo_of(step) {
                    self.report.done.push(format!("{op} (instance {name})"));
                }
            }
            self.report.errors.extend(
                undone
                    .iter()
                    .map(|error: &UndoError| format!("instance {name}: {}", chain(error))),
            );
        }
        Ok(())
    }

    async fn sweep(&mut self, settings: &Settings) {
        // Things on a device of ours go with it, but rules, and routes by other devices, do not.
        let steps = [
            ("policy rules", self.rules().await),
            ("routes", self.routes().await),
            ("proxy neighbour entries", self.neighbours().await),
            ("nft rules and tables", self.nft(&settings.programs.cmd_nft).await),
            (
                "ip6tables rules",
                self.ip6tables(&settings.programs.cmd_ip6tables).await,
            ),
            ("programs of the fast path", self.fast_path().await),
            ("network devices", self.devices().await),
        ];
        for (what, result) in steps {
            if let Err(failure) = result {
                self.report.errors.push(format!(
                    "looking for {what} of clatd's: {}",
                    chain(&*failure.into_source())
                ));
            }
        }
    }

    /// Notes the result of one removal. In a dry run everything in the journals still exists, and was printed
    /// already.
    fn note(&mut self, what: String, result: Result<(), Failure>) {
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

    async fn rules(&mut self) -> Result<(), Failure> {
        if local_rule::is_moved(&self.netlink).await? {
            let result = match self.dry_run {
                true => Ok(()),
                false => local_rule::restore(&self.netlink).await.map(drop),
            };
            self.note(LOCAL_RULE_BACK.into(), result);
        }
        for v6 in [false, true] {
            for found in self
                .netlink
                .rules(v6)
                .await?
                .into_iter()
                .filter(|found| found.rule.protocol == ROUTE_PROTOCOL)
            {
                let result = if self.dry_run {
                    Ok(())
                } else {
                    self.netlink.delete_rule(&found).await.map_err(Failure::from)
                };
                self.note(format!("remove rule {}", found.rule), result);
            }
        }
        Ok(())
    }

    async fn routes(&mut self) -> Result<(), Failure> {
        for v6 in [false, true] {
            for route in self.netlink.routes_by_protocol(v6, ROUTE_PROTOCOL).await? {
                let result = match raw_of(&route) {
                    Some(raw) if !self.dry_run => self.netlink.delete_route(&raw).await.map_err(Failure::from),
                    _ => Ok(()),
                };
                self.note(format!("remove route {route}"), result);
            }
        }
        Ok(())
    }

    async fn neighbours(&mut self) -> Result<(), Failure> {
        for entry in self
            .netlink
            .proxy_neighbours()
            .await?
            .into_iter()
            .filter(|entry| entry.protocol == ROUTE_PROTOCOL)
        {
            let result = match self.dry_run {
                true => Ok(()),
                false => self
                    .netlink
                    .delete_proxy_neighbour(entry.index, entry.address)
                    .await
                    .map_err(Failure::from),
            };
            self.note(
                format!("stop answering neighbour solicitations for {}", entry.address),
                result,
            );
        }
        Ok(())
    }

    #[cfg(not(feature = "ebpf"))]
    #[allow(clippy::unused_async, reason = "the other one waits")]
    async fn fast_path(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    #[cfg(feature = "ebpf")]
    async fn fast_path(&mut self) -> Result<(), Failure> {
        for (link, filter) in fastpath::left_behind(&self.netlink).await? {
            let result = match self.dry_run {
                true => Ok(()),
                false => fastpath::take_away(&self.netlink, &link, &filter)
                    .await
                    .map_err(Failure::from),
            };
            self.note(format!("take the program {} off {}", filter.name, link.name), result);
        }
        Ok(())
    }

    async fn devices(&mut self) -> Result<(), Failure> {
        for link in self
            .netlink
            .links()
            .await?
            .into_iter()
            .filter(clatd_stages::net::Link::is_clat)
        {
            let result = match (tun::in_use(&self.netlink, link.index).await?, self.dry_run) {
                (true, _) => Err(Failure::new(tun::IN_USE)),
                (false, true) => Ok(()),
                (false, false) => self.netlink.delete_link(link.index).await.map_err(Failure::from),
            };
            self.note(format!("delete TUN device {}", link.name), result);
        }
        Ok(())
    }

    async fn nft(&mut self, program: &str) -> Result<(), Failure> {
        if command::find(program).is_none() {
            return Ok(());
        }
        let Some(ruleset) = nft::list(program, &["ruleset"]).await? else {
            return Ok(());
        };
        let word = |object: &Value, key: &str| object[key].as_str().unwrap_or_default().to_owned();
        for rule in nft::objects(&ruleset, "rule") {
            let comment = word(rule, "comment");
            let Some(handle) = rule["handle"].as_u64().filter(|_| comment.starts_with(ALIAS_PREFIX)) else {
                continue;
            };
            let (family, table, chain) = (word(rule, "family"), word(rule, "table"), word(rule, "chain"));
            let result = match self.dry_run {
                true => Ok(()),
                false => nft::delete_rule(program, &family, &table, &chain, handle)
                    .await
                    .map_err(Failure::from),
            };
            self.note(
                format!("remove nft rule from {family} {table} {chain} ({comment})"),
                result,
            );
        }
        for table in nft::objects(&ruleset, "table") {
            let (family, name) = (word(table, "family"), word(table, "name"));
            if !name.starts_with(TABLE_PREFIX) || !nft::is_ours(&ruleset, &family, &name) {
                continue;
            }
            let result = match self.dry_run {
                true => Ok(()),
                false => nft::delete_table(program, &family, &name, false).await.map(drop),
            };
            self.note(format!("delete nft table {family} {name}"), result);
        }
        Ok(())
    }

    async fn ip6tables(&mut self, program: &str) -> Result<(), Failure> {
        let Some(saved) = ip6tables::save(program).await? else {
            return Ok(());
        };
        for (chain, rule) in saved.lines().filter_map(ip6tables::our_rule) {
            let result = match self.dry_run {
                true => Ok(()),
                false => ip6tables::delete(program, &chain, &rule).await.map(drop),
            };
            self.note(format!("{program} -D {chain} {}", rule.join(" ")), result);
        }
        Ok(())
    }
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
