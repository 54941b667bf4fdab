//! nftables, by `nft -j`. Other programs' rules are read as plain JSON values, since the types of the nftables crate
//! do not know every statement. The stages use these types for our own statements.

use std::borrow::Cow;

use clatd_stages::journal::{Left, Outcome};
use clatd_stages::net::ALIAS_PREFIX;
use clatd_stages::op::{NewNftTable, NftRule};
use serde_json::{Value, json};

use super::command::{self, CommandError};
use super::failure::{Failure, NOTHING, OpResult};

/// An nft command that failed.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program could not be run, or it failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Its output is not the JSON that was asked for.
    #[error("the output of `{command} -j` is not JSON; clatd needs an nft that was built with JSON support")]
    Json {
        /// The program.
        command: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

impl NftError {
    /// Whether this kernel has no nf_tables.
    pub(crate) fn is_unsupported(&self) -> bool {
        matches!(self, Self::Command(CommandError::Failed { stderr, .. }) if stderr.contains("not supported"))
    }
}

/// Lists something as libnftables JSON; `None` = there is no such thing.
pub(crate) async fn list(command: &str, what: &[&str]) -> Result<Option<Value>, NftError> {
    list_with(command, &["-j", "-a", "list"], what).await
}

/// The same without the elements of sets and maps, of which there may be very many.
pub(crate) async fn list_tersely(command: &str, what: &[&str]) -> Result<Option<Value>, NftError> {
    list_with(command, &["-j", "-t", "-a", "list"], what).await
}

async fn list_with(command: &str, how: &[&str], what: &[&str]) -> Result<Option<Value>, NftError> {
    let arguments: Vec<&str> = how.iter().chain(what).copied().collect();
    let ended = command::run(command, &arguments, None).await?;
    if !ended.status.success() && ended.stderr.contains("No such file or directory") {
        return Ok(None);
    }
    let text = ended.output()?;
    parse(command, &text).map(Some)
}

/// The objects of one kind in a listing.
pub(crate) fn objects<'a>(listing: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    listing["nftables"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(move |object| object.get(kind))
}

/// Inserts a rule at the head of its chain. The outcome has its handle.
pub(crate) async fn insert(command: &str, rule: &NftRule) -> OpResult {
    let mut object = json!({ "family": rule.family, "table": rule.table, "chain": rule.chain });
    object["expr"] = rule.statements.clone();
    object["comment"] = json!(rule.comment);
    let batch = json!({ "nftables": [{ "insert": { "rule": object } }] });
    let echo = command::run(command, &["-j", "-e", "-a", "-f", "-"], Some(&batch.to_string()))
        .await
        .and_then(|e| e.output());
    let echo = parse(command, &echo.map_err(|error| explain(error.into()))?)?;
    let inserted = echo["nftables"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|object| ["insert", "add"].iter().find_map(|verb| object[*verb].get("rule")));
    let handle = inserted
        .filter(|found| found["comment"] == rule.comment.as_str())
        .find_map(|found| found["handle"].as_u64());
    match handle {
        Some(handle) => Ok(Left::Rule(handle).into()),
        // Without an echo, only the comment can find the rule again.
        None => Ok(NOTHING),
    }
}

/// Removes the rules of the chain that have our comment and, if the handle is known, that handle.
pub(crate) async fn remove(command: &str, rule: &NftRule, outcome: Option<&Outcome>) -> OpResult {
    let Some(listing) = list(command, &["chain", &rule.family, &rule.table, &rule.chain]).await? else {
        return Ok(NOTHING);
    };
    let known = match outcome.map(|outcome| &outcome.left) {
        Some(Left::Rule(handle)) => Some(*handle),
        Some(_) | None => None,
    };
    let handles = objects(&listing, "rule")
        .filter(|found| found["comment"] == rule.comment.as_str())
        .filter_map(|found| found["handle"].as_u64())
        .filter(|handle| known.is_none_or(|known| known == *handle));
    for handle in handles {
        delete_rule(command, &rule.family, &rule.table, &rule.chain, handle).await?;
    }
    Ok(NOTHING)
}

/// Deletes one rule. It is no error if it is gone already.
pub(crate) async fn delete_rule(
    command: &str,
    family: &str,
    table: &str,
    chain: &str,
    handle: u64,
) -> Result<(), NftError> {
    let rule = json!({ "family": family, "table": table, "chain": chain, "handle": handle });
    apply(command, &json!({ "nftables": [{ "delete": { "rule": rule } }] })).await
}

/// Creates a table of ours. The ruleset is one transaction. A leftover table of that name is replaced if it is ours.
pub(crate) async fn create_table(new: &NewNftTable) -> OpResult {
    let NewNftTable {
        command,
        family,
        table,
        ruleset,
    } = new;
    let commands = match ruleset {
        Value::Array(commands) => commands.clone(),
        other => other["nftables"]
            .as_array()
            .cloned()
            .unwrap_or_else(|| vec![other.clone()]),
    };
    if let Some(listing) = list(command, &["table", family, table]).await?
        && !is_ours(&listing, family, table)
    {
        let failure = Failure::new("a table of this name exists already, and clatd did not make it");
        return Err(failure.hint(format!(
            "delete it with `nft delete table {family} {table}`, or set another route-table, which names the table"
        )));
    }
    let ours = json!({ "table": { "family": family, "name": table } });
    // With an add in front, the delete succeeds whether the table existed or not.
    let mut batch = vec![
        json!({ "add": ours }),
        json!({ "delete": ours }),
        json!({ "add": ours }),
    ];
    batch.extend(commands.into_iter().filter(|command| command.get("metainfo").is_none()));
    apply(command, &json!({ "nftables": batch })).await.map_err(explain)?;
    Ok(NOTHING)
}

/// Deletes a table. It is no error if it is gone already. With `only_if_empty` a table that another program uses
/// stays.
pub(crate) async fn delete_table(command: &str, family: &str, table: &str, only_if_empty: bool) -> OpResult {
    let Some(listing) = list(command, &["table", family, table]).await? else {
        return Ok(NOTHING);
    };
    if !only_if_empty && !is_ours(&listing, family, table) {
        tracing::info!(family, table, "nft table kept: nothing in it is clatd's");
        return Ok(NOTHING);
    }
    if only_if_empty && in_use(&listing) {
        tracing::info!(family, table, "nft table kept: somebody uses it");
        return Ok(NOTHING);
    }
    apply(
        command,
        &json!({ "nftables": [{ "delete": { "table": { "family": family, "name": table } } }] }),
    )
    .await?;
    Ok(NOTHING)
}

/// Whether a table still has all chains and rules of these commands. A comment identifies each rule.
pub(crate) fn has_all(listing: &Value, ruleset: &Value) -> bool {
    let has = |kind: &str, keys: &[&str], wanted: &Value| {
        objects(listing, kind).any(|found| keys.iter().all(|key| found.get(*key) == wanted.get(*key)))
    };
    let added = ruleset.as_array().into_iter().flatten().map(|command| &command["add"]);
    added
        .into_iter()
        .all(|added| match (added.get("chain"), added.get("rule")) {
            (Some(chain), _) => has("chain", &["name", "hook"], chain),
            (None, Some(rule)) => has("rule", &["chain", "comment"], rule),
            (None, None) => true,
        })
}

/// Comments of the rules in our tables, including those of older versions of clatd.
const OUR_COMMENTS: [&str; 3] = [
    ALIAS_PREFIX,
    "flows of the CLAT",
    "replies to the CLAT, and errors about its packets",
];

/// Whether a table has our label in one of its rules, or has no rules. nft does not print the comment of a table
/// itself.
pub(crate) fn is_ours(listing: &Value, family: &str, table: &str) -> bool {
    let rules = objects(listing, "rule").filter(|rule| rule["family"] == family && rule["table"] == table);
    let mut rules = rules.peekable();
    let is_empty = rules.peek().is_none();
    is_empty
        || rules.any(|rule| {
            let comment = rule["comment"].as_str().unwrap_or_default();
            OUR_COMMENTS.iter().any(|ours| comment.starts_with(ours))
        })
}

/// A table with only base chains that accept counts as empty.
fn in_use(listing: &Value) -> bool {
    listing["nftables"].as_array().into_iter().flatten().any(|object| {
        let chain = object.get("chain");
        let idle_chain = chain.is_some_and(|chain| chain.get("hook").is_some() && chain["policy"] == "accept");
        !(idle_chain || object.get("metainfo").is_some() || object.get("table").is_some())
    })
}

/// Applies a batch as one transaction. It is no error if what is to be deleted is gone already.
async fn apply(command: &str, batch: &Value) -> Result<(), NftError> {
    let deletes_only = objects(batch, "delete").count() == batch["nftables"].as_array().map_or(0, Vec::len);
    let ended = command::run(command, &["-j", "-f", "-"], Some(&batch.to_string())).await?;
    if deletes_only && ended.stderr.contains("No such file or directory") {
        return Ok(());
    }
    ended.output()?;
    Ok(())
}

fn parse(command: &str, text: &str) -> Result<Value, NftError> {
    if text.trim().is_empty() {
        return Ok(json!({ "nftables": [] }));
    }
    serde_json::from_str(text).map_err(|source| NftError::Json {
        command: command.to_owned(),
        source,
    })
}

fn explain(error: NftError) -> Failure {
    let hint: Option<Cow<'static, str>> = match &error {
        NftError::Command(CommandError::NotFound { .. }) => {
            Some("install nftables, set cmd-nft, or use firewall=none".into())
        }
        NftError::Command(CommandError::Failed { stderr, .. }) if stderr.contains("not permitted") => {
            Some("run clatd as root or with CAP_NET_ADMIN".into())
        }
        _ => None,
    };
    let failure = Failure::new(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_idle_base_chains_is_not_in_use() {
        let idle = json!({ "nftables": [
            { "metainfo": {} },
            { "table": { "family": "ip6", "name": "filter" } },
            { "chain": { "name": "FORWARD", "hook": "forward", "policy": "accept" } },
        ]});
        assert!(!in_use(&idle));
        for used in [
            json!({ "chain": { "name": "FORWARD", "hook": "forward", "policy": "drop" } }),
            json!({ "chain": { "name": "mine" } }),
            json!({ "rule": { "chain": "FORWARD" } }),
            json!({ "set": { "name": "s" } }),
        ] {
            assert!(in_use(&json!({ "nftables": [used] })));
        }
    }
}
