//! Packet filters: rules in chains of others, and tables of our own.

use clatd_stages::journal::Outcome;
use clatd_stages::net::ALIAS_PREFIX;
use clatd_stages::op::{NewNftTable, NftRule, NftTableDeletion};
use clatd_stages::world::WorldError;
use serde_json::Value;

use super::super::failure::{Failure, OpResult};
use super::super::{Kernel, command, ip6tables, nft};
use super::{Look, Nature, Operation, Sweep, UNDOING, failed};

/// Name of an nft table of ours, up to its instance.
const TABLE_PREFIX: &str = "clatd_";

pub(super) enum Change<'a> {
    InsertNft {
        command: &'a str,
        rule: &'a NftRule,
    },
    RemoveNft {
        command: &'a str,
        rule: &'a NftRule,
    },
    CreateTable(&'a NewNftTable),
    DeleteTable(&'a NftTableDeletion),
    InsertIp6 {
        command: &'a str,
        chain: &'a str,
        rule: &'a [String],
    },
    DeleteIp6 {
        command: &'a str,
        chain: &'a str,
        rule: &'a [String],
    },
}

impl<'a> Operation<'a> for Change<'a> {
    fn nature(&self) -> Nature {
        match self {
            Self::InsertNft { .. } | Self::CreateTable(_) | Self::InsertIp6 { .. } => Nature {
                untold: false,
                atomic: true,
                swept: true,
                outlives_device: false,
            },
            Self::RemoveNft { .. } | Self::DeleteTable(_) | Self::DeleteIp6 { .. } => UNDOING,
        }
    }

    fn device(&mut self) -> Option<&mut &'a str> {
        match self {
            Self::InsertNft { .. }
            | Self::RemoveNft { .. }
            | Self::CreateTable(_)
            | Self::DeleteTable(_)
            | Self::InsertIp6 { .. }
            | Self::DeleteIp6 { .. } => None,
        }
    }

    async fn carry_out(&self, _: &mut Kernel, outcome: Option<&Outcome>) -> OpResult {
        match *self {
            Self::InsertNft { command, rule } => nft::insert(command, rule).await,
            Self::RemoveNft { command, rule } => nft::remove(command, rule, outcome).await,
            Self::CreateTable(new) => nft::create_table(new).await,
            Self::DeleteTable(NftTableDeletion {
                command,
                family,
                table,
                only_if_empty,
            }) => nft::delete_table(command, family, table, *only_if_empty).await,
            Self::InsertIp6 { command, chain, rule } => ip6tables::insert(command, chain, rule).await,
            Self::DeleteIp6 { command, chain, rule } => ip6tables::delete(command, chain, rule).await,
        }
    }

    async fn stands(&self, look: &mut Look<'_>) -> Result<bool, WorldError> {
        match *self {
            Self::InsertNft { command, rule } => {
                let ruleset = look.world.nft_ruleset(command).await?;
                Ok(ruleset.is_none_or(|ruleset| has_rule(&ruleset, rule)))
            }
            Self::CreateTable(new) => {
                let listing = nft::list(&new.command, &["table", &new.family, &new.table]).await;
                let listing = listing.map_err(|error| failed("an nft table", error))?;
                Ok(listing.is_some_and(|listing| nft::has_all(&listing, &new.ruleset)))
            }
            Self::InsertIp6 { command, chain, rule } => {
                let saved = look.world.ip6tables_filter(command).await?;
                Ok(saved.is_none_or(|saved| {
                    let mut ours = saved.lines().filter_map(ip6tables::our_rule);
                    ours.any(|(found, words)| found == chain && words == rule)
                }))
            }
            Self::RemoveNft { .. } | Self::DeleteTable(_) | Self::DeleteIp6 { .. } => Ok(true),
        }
    }
}

/// Whether a ruleset has our rule. A chain that is gone stops no packets. If it comes back, the next plan finds it.
fn has_rule(ruleset: &Value, rule: &NftRule) -> bool {
    let is = |object: &Value, key: &str, name: &str| {
        object["family"] == rule.family.as_str()
            && object["table"] == rule.table.as_str()
            && object[key].as_str() == Some(name)
    };
    let is_ours = |found: &Value| is(found, "chain", &rule.chain) && found["comment"].as_str() == Some(&rule.comment);
    let has_chain = nft::objects(ruleset, "chain").any(|chain| is(chain, "name", &rule.chain));
    !has_chain || nft::objects(ruleset, "rule").any(is_ours)
}

/// Removes nft rules with our comment, and tables of ours.
pub(super) async fn sweep_nft(sweep: &mut Sweep<'_>) -> Result<(), Failure> {
    let program = sweep.settings.programs.cmd_nft.as_str();
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
        let what = format!("remove nft rule from {family} {table} {chain} ({comment})");
        let removed = async { Ok(nft::delete_rule(program, &family, &table, &chain, handle).await?) };
        sweep.remove(what, removed).await;
    }
    for table in nft::objects(&ruleset, "table") {
        let (family, name) = (word(table, "family"), word(table, "name"));
        if name.starts_with(TABLE_PREFIX) && nft::is_ours(&ruleset, &family, &name) {
            let deleted = async { nft::delete_table(program, &family, &name, false).await.map(drop) };
            sweep.remove(format!("delete nft table {family} {name}"), deleted).await;
        }
    }
    Ok(())
}

/// Removes ip6tables rules with our comment.
pub(super) async fn sweep_ip6tables(sweep: &mut Sweep<'_>) -> Result<(), Failure> {
    let program = sweep.settings.programs.cmd_ip6tables.as_str();
    let Some(saved) = ip6tables::save(program).await? else {
        return Ok(());
    };
    for (chain, rule) in saved.lines().filter_map(ip6tables::our_rule) {
        let what = format!("{program} -D {chain} {}", rule.join(" "));
        let deleted = async { ip6tables::delete(program, &chain, &rule).await.map(drop) };
        sweep.remove(what, deleted).await;
    }
    Ok(())
}
