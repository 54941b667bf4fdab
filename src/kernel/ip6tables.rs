//! The ip6tables filter table, old or new style.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use clatd_stages::net::ALIAS_PREFIX;

use super::command::{self, CommandError, ProgramOutput};
use super::failure::{Failure, NOTHING, OpResult};
use super::netlink;

/// Legacy tables that this network namespace has.
const LEGACY_TABLES: &str = "/proc/thread-self/net/ip6_tables_names";

/// How often this process changed a table. The kernel reports no changes of legacy tables, so a cache of them must
/// compare this number to notice our own changes.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Another number = this process changed a table in between.
pub(crate) fn changes() -> u64 {
    CHANGES.load(Ordering::SeqCst)
}

/// Inserts a rule at the head of a chain.
pub(crate) async fn insert(command: &str, chain: &str, rule: &[String]) -> OpResult {
    let ended = ip6tables(command, "-I", chain, rule).await;
    match ended.and_then(ProgramOutput::output) {
        Ok(_) => Ok(NOTHING),
        Err(error @ CommandError::NotFound { .. }) => {
            Err(Failure::new(error).hint("install iptables, set cmd-ip6tables, or set ip6tables-enable=no"))
        }
        Err(error) => Err(error.into()),
    }
}

/// Deletes exactly that rule. `-C` comes first, since `-D` has the same status for "gone" and for "failed".
pub(crate) async fn delete(command: &str, chain: &str, rule: &[String]) -> OpResult {
    if !table_exists(command).await? {
        return Ok(NOTHING);
    }
    let check = ip6tables(command, "-C", chain, rule).await?;
    if !check.status.success() {
        // 1: no such rule or chain. Other codes, such as 4 for a missed lock, say nothing.
        if check.status.code() == Some(1) && !check.stderr.contains("Permission denied") {
            return Ok(NOTHING);
        }
        check.output()?;
    }
    ip6tables(command, "-D", chain, rule).await?.output()?;
    Ok(NOTHING)
}

/// What the save program prints for the filter table; `None` = no such program or no such table.
pub(crate) async fn save(command: &str) -> Result<Option<String>, Failure> {
    if command::find(command).is_none() {
        return Ok(None);
    }
    save_of(command, goes_by_nft(command).await?).await
}

/// The same for a program that exists, and of which is known whether it uses nf_tables.
pub(crate) async fn save_of(command: &str, by_nft: bool) -> Result<Option<String>, Failure> {
    if !has_table(by_nft).await? {
        return Ok(None);
    }
    let save = save_program(command);
    if command::find(&save).is_none() {
        return Ok(None);
    }
    Ok(Some(run(&save, &["-t", "filter"]).await?.output()?))
}

/// Whether there is a filter table. Both kinds of the program create it when they list it, or print one that does not
/// exist, so they cannot answer.
async fn table_exists(command: &str) -> Result<bool, Failure> {
    if command::find(command).is_none() {
        return Ok(false);
    }
    has_table(goes_by_nft(command).await?).await
}

/// Whether the program keeps its rules in nf_tables.
pub(crate) async fn goes_by_nft(command: &str) -> Result<bool, Failure> {
    let version = run(command, &["-V"]).await?.output()?;
    Ok(version.contains("nf_tables"))
}

async fn has_table(by_nft: bool) -> Result<bool, Failure> {
    if by_nft {
        return Ok(netlink::table_exists(true, "filter").await?);
    }
    match std::fs::read_to_string(LEGACY_TABLES) {
        Ok(names) => Ok(names.lines().any(|name| name == "filter")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// `ip6tables` -> `ip6tables-save`. A multi-call binary that is named after its back end becomes the same.
pub(crate) fn save_program(command: &str) -> String {
    format!("{command}-save")
}

/// Chain, matches and target of a saved rule whose comment is ours.
pub(crate) fn our_rule(line: &str) -> Option<(String, Vec<String>)> {
    let mut words = words(line.strip_prefix("-A ")?).into_iter();
    let chain = words.next()?;
    let rule: Vec<String> = words.collect();
    let comment = rule.iter().skip_while(|word| *word != "--comment").nth(1)?;
    comment.starts_with(ALIAS_PREFIX).then_some((chain, rule))
}

/// The words of a saved line: separated by blanks, in double quotes where they contain some.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().extend(characters.next()),
            ' ' if !quoted => words.extend(word.take()),
            character => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

async fn ip6tables(command: &str, verb: &str, chain: &str, rule: &[String]) -> Result<ProgramOutput, CommandError> {
    let words = ["-w", "5", "-t", "filter", verb, chain];
    let arguments: Vec<&str> = words.into_iter().chain(rule.iter().map(String::as_str)).collect();
    let ended = run(command, &arguments).await;
    CHANGES.fetch_add(1, Ordering::SeqCst);
    ended
}

/// The older kind keeps others of its kind away by a file of root's, so it runs as the daemon's own user.
async fn run(command: &str, arguments: &[&str]) -> Result<ProgramOutput, CommandError> {
    if command::find(command).is_some_and(|path| locks_a_file(&path)) {
        command::run_as_we_are(command, arguments).await
    } else {
        command::run(command, arguments, None).await
    }
}

/// Whether a program is of the older kind. The one that goes by nf_tables needs no lock.
pub(crate) fn locks_a_file(ip6tables: &Path) -> bool {
    let program = ip6tables.canonicalize().unwrap_or_else(|_| ip6tables.to_owned());
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    !name.contains("nft")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_rules_are_told_by_their_comment() {
        let (chain, rule) = our_rule("-A FORWARD -i clat -m comment --comment \"clatd:my wan:out\" -j ACCEPT").unwrap();
        assert_eq!(chain, "FORWARD");
        assert_eq!(
            rule,
            [
                "-i",
                "clat",
                "-m",
                "comment",
                "--comment",
                "clatd:my wan:out",
                "-j",
                "ACCEPT"
            ]
        );
        assert!(our_rule("-A FORWARD -m comment --comment clatd:wan0:in -j ACCEPT").is_some());
        assert!(our_rule("-A FORWARD -m comment --comment \"not clatd:x\" -j ACCEPT").is_none());
        assert!(our_rule(":FORWARD DROP [0:0]").is_none());
    }

    #[test]
    fn only_the_older_ip6tables_locks_a_file() {
        assert!(locks_a_file(Path::new("/usr/sbin/xtables-legacy-multi")));
        assert!(!locks_a_file(Path::new("/usr/sbin/xtables-nft-multi")));
    }

    #[test]
    fn the_save_program_is_the_siblings_name() {
        assert_eq!(save_program("ip6tables"), "ip6tables-save");
        assert_eq!(
            save_program("/usr/sbin/ip6tables-legacy"),
            "/usr/sbin/ip6tables-legacy-save"
        );
    }
}
