//! Policy rules, and their places among the rules of others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clatd_stages::journal::Outcome;
use clatd_stages::net::{LOCAL_TABLE, ROUTE_PROTOCOL, Rule};
use ipnet::IpNet;

use super::failure::{Failure, NOTHING, OpResult, changed_nothing, existed, gone};
use super::netlink::{FoundRule, Netlink, NetlinkError};

/// Our rules are numbered in blocks of this size, which begin at multiples of it. The order within a block stays.
const BLOCK: u32 = 4;

/// Adds a policy rule, or moves it to its place.
pub(crate) async fn add(netlink: &Netlink, rule: &Rule, outcome: Option<&Outcome>) -> OpResult {
    if changed_nothing(outcome) {
        return Ok(NOTHING);
    }
    if !rule.ahead {
        return add_at(netlink, rule).await;
    }
    let rules = netlink.rules(rule.v6).await?;
    let priority = match place(rule, &rules) {
        Placement::Stands => return Ok(NOTHING),
        Placement::Moves(priority) => priority,
        Placement::NoRoom => {
            say_that_there_is_no_room(rule);
            rule.priority
        }
    };
    let placed = Rule {
        priority,
        ahead: false,
        ..rule.clone()
    };
    let outcome = add_at(netlink, &placed).await?;
    // The old rule is deleted last, so that one exists at every moment.
    for old in copies(rule, &rules).filter(|old| old.rule.priority != priority) {
        delete(netlink, old).await?;
    }
    Ok(outcome)
}

/// Removes exactly this policy rule.
pub(crate) async fn remove(netlink: &Netlink, rule: &Rule, outcome: Option<&Outcome>) -> OpResult {
    if changed_nothing(outcome) {
        return Ok(NOTHING);
    }
    let rules = netlink.rules(rule.v6).await?;
    let mut found = copies(rule, &rules).peekable();
    if found.peek().is_none() {
        return Ok(gone());
    }
    for found in found {
        // The kernel deletes the first rule that has all given attributes. A request cannot say which attributes a
        // rule must not have.
        if rules
            .iter()
            .map(|rival| &**rival)
            .take_while(|rival| *rival != found)
            .any(|rival| rival.rule == found.rule)
        {
            let what = "the kernel would delete the rule before it in its place, which differs only in selecting more";
            let hint = format!("delete the other rule with priority {} first", found.rule.priority);
            return Err(Failure::new(what).hint(hint));
        }
        delete(netlink, found).await?;
    }
    Ok(NOTHING)
}

/// Whether the rule exists and, if it must, stands before those of others.
pub(crate) fn stands(rule: &Rule, rules: &[Arc<FoundRule>]) -> bool {
    let there = copies(rule, rules).next().is_some();
    if !(there && rule.ahead) {
        return there;
    }
    match place(rule, rules) {
        Placement::Stands => true,
        Placement::Moves(_) => false,
        Placement::NoRoom => {
            say_that_there_is_no_room(rule);
            true
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Placement {
    /// It is where it belongs.
    Stands,
    /// It belongs there.
    Moves(u32),
    /// No priority is free before the rules of others.
    NoRoom,
}

/// The place of a rule that stands before those of others. A rule that stands before them stays where it is: each
/// move uses up numbers, and makes other managers of rules move theirs. But it goes back if it is far from its usual
/// place and that is free.
fn place(rule: &Rule, rules: &[Arc<FoundRule>]) -> Placement {
    // Table local is looked up first, wherever its rule is.
    let local = rules.iter().find(|found| is_local(found));
    let after = local.map_or(0, |found| found.rule.priority);
    let first_rival = rules.iter().position(|found| is_rival(rule, found));
    let before = first_rival
        .and_then(|at| rules.get(at))
        .map(|found| found.rule.priority);
    let usual_is_free = before.is_none_or(|before| before > rule.priority) && rule.priority > after;
    let mut there = rules.iter().enumerate().filter(|(_, found)| is_copy(rule, found));
    if let (Some((at, found)), None) = (there.next(), there.next()) {
        let in_front = first_rival.is_none_or(|rival| at < rival) && found.rule.priority > after;
        let far_off = found.rule.priority < rule.priority / 2;
        if in_front && !(far_off && usual_is_free) {
            return Placement::Stands;
        }
    }
    if usual_is_free {
        return Placement::Moves(rule.priority);
    }
    let block = before.unwrap_or(rule.priority).saturating_sub(BLOCK) / BLOCK * BLOCK;
    let priority = block + rule.priority % BLOCK;
    if block > after {
        Placement::Moves(priority)
    } else {
        Placement::NoRoom
    }
}

/// The rule that leads everything to table local.
fn is_local(found: &FoundRule) -> bool {
    let rule = &found.rule;
    let selects = rule.from.is_some() || rule.to.is_some() || rule.iif.is_some() || rule.oif.is_some();
    found.plain && rule.table == LOCAL_TABLE && !selects && rule.fwmark.is_none()
}

/// Whether another program's rule could take packets that ours is for. A rule that selects by a mark stands there on
/// purpose: somebody set the mark.
fn is_rival(ours: &Rule, found: &FoundRule) -> bool {
    let theirs = &found.rule;
    if theirs.protocol == ROUTE_PROTOCOL || theirs.table == LOCAL_TABLE || found.idle {
        return false;
    }
    if found.inverted {
        return true;
    }
    let by_mark = theirs.fwmark.is_some_and(|mark| mark != 0);
    !by_mark
        && overlap(ours.from, theirs.from)
        && overlap(ours.to, theirs.to)
        && agree(ours.iif.as_deref(), theirs.iif.as_deref())
        && agree(ours.oif.as_deref(), theirs.oif.as_deref())
}

fn overlap(one: Option<IpNet>, other: Option<IpNet>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.contains(&other) || other.contains(&one),
        _ => true,
    }
}

fn agree(one: Option<&str>, other: Option<&str>) -> bool {
    one.is_none() || other.is_none() || one == other
}

fn copies<'a>(rule: &'a Rule, rules: &'a [Arc<FoundRule>]) -> impl Iterator<Item = &'a FoundRule> {
    let rules = rules.iter().map(|found| &**found);
    rules.filter(move |found| is_copy(rule, found))
}

fn is_copy(rule: &Rule, found: &FoundRule) -> bool {
    found.plain && (found.rule == *rule || rule.ahead && rule.is_at_any_place(&found.rule))
}

async fn add_at(netlink: &Netlink, rule: &Rule) -> OpResult {
    match netlink.add_rule(rule).await {
        Ok(()) => Ok(NOTHING),
        Err(error) if error.errno() == libc::EEXIST => {
            let rules = netlink.rules(rule.v6).await?;
            match copies(rule, &rules).next() {
                Some(_) if rule.protocol == ROUTE_PROTOCOL => Ok(NOTHING),
                Some(_) => Ok(existed()),
                None => Err(Failure::new(error)
                    .hint("a rule that differs only in its protocol number exists; delete it or leave the work to it")),
            }
        }
        Err(error) => Err(error.into()),
    }
}

async fn delete(netlink: &Netlink, found: &FoundRule) -> Result<(), NetlinkError> {
    match netlink.delete_rule(found).await {
        Err(error) if error.errno() == libc::ENOENT => Ok(()),
        other => other,
    }
}

/// Said once, since this is checked again and again.
fn say_that_there_is_no_room(rule: &Rule) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "another program's rule may take the CLAT's packets, and no priority before it is free: give that rule a higher \
             number, or set rule-priority if it is to come first: {rule}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(priority: u32) -> Rule {
        Rule {
            iif: Some("clat".into()),
            ahead: true,
            ..Rule::ours(true, priority, 49575)
        }
    }

    fn found(rule: Rule) -> Arc<FoundRule> {
        Arc::new(FoundRule::plain(Rule { ahead: false, ..rule }))
    }

    fn theirs(priority: u32) -> Arc<FoundRule> {
        found(Rule {
            protocol: 3,
            ..Rule::ours(true, priority, 51820)
        })
    }

    fn local(priority: u32) -> Arc<FoundRule> {
        found(Rule {
            protocol: 2,
            ..Rule::ours(true, priority, LOCAL_TABLE)
        })
    }

    #[test]
    fn the_usual_place_is_taken_where_it_is_free() {
        let rule = ours(467);
        assert_eq!(place(&rule, &[local(0), theirs(32766)]), Placement::Moves(467));
        assert_eq!(
            place(&rule, &[local(0), found(rule.clone()), theirs(32766)]),
            Placement::Stands
        );
        assert_eq!(
            place(&rule, &[local(0), theirs(467), theirs(32766)]),
            Placement::Moves(463)
        );
    }

    #[test]
    fn rules_that_come_before_are_overtaken_and_those_behind_left() {
        let rule = ours(467);
        let rules = [local(0), theirs(464), theirs(465), found(rule.clone()), theirs(32766)];
        assert_eq!(place(&rule, &rules), Placement::Moves(463));
        let moved = found(Rule {
            priority: 463,
            ..rule.clone()
        });
        assert_eq!(place(&rule, &[local(0), moved.clone(), theirs(464)]), Placement::Stands);
        assert_eq!(
            place(&rule, &[local(0), moved.clone(), theirs(32766)]),
            Placement::Stands,
            "no move without need"
        );
        // Of the same priority, the order in the list counts.
        assert_eq!(place(&rule, &[local(0), theirs(463), moved]), Placement::Moves(459));
    }

    #[test]
    fn numbers_are_given_back_when_nobody_is_in_the_way() {
        let rule = ours(467);
        let low = found(Rule {
            priority: 11,
            ..rule.clone()
        });
        assert_eq!(place(&rule, &[local(0), low.clone(), theirs(12)]), Placement::Stands);
        assert_eq!(
            place(&rule, &[local(0), low.clone(), theirs(32766)]),
            Placement::Moves(467)
        );
        assert_eq!(place(&rule, &[local(0), theirs(8), low.clone()]), Placement::Moves(7));
        assert_eq!(place(&rule, &[local(0), theirs(7), low]), Placement::NoRoom);
    }

    #[test]
    fn a_move_that_was_cut_short_is_ended() {
        let rule = ours(467);
        let copies = [
            local(0),
            found(Rule {
                priority: 463,
                ..rule.clone()
            }),
            theirs(464),
            found(rule.clone()),
        ];
        assert_eq!(place(&rule, &copies), Placement::Moves(463));
    }

    #[test]
    fn table_local_comes_first_wherever_it_is() {
        let rule = ours(467);
        assert_eq!(place(&rule, &[theirs(0), local(1), theirs(32766)]), Placement::NoRoom);
        assert_eq!(place(&rule, &[local(100), theirs(200)]), Placement::Moves(199));
        assert_eq!(place(&rule, &[local(100), theirs(104)]), Placement::NoRoom);
    }

    #[test]
    fn only_rules_for_the_same_packets_are_rivals() {
        let rule = ours(467);
        let other = |change: fn(&mut FoundRule)| {
            let mut found = theirs(100);
            change(Arc::make_mut(&mut found));
            is_rival(&rule, &found)
        };
        assert!(other(|_| {}));
        assert!(!other(|found| found.rule.iif = Some("eth0".into())));
        assert!(other(|found| found.rule.iif = Some("clat".into())));
        assert!(other(|found| found.rule.to = "64:ff9b::/96".parse().ok()));
        assert!(!other(|found| found.rule.fwmark = Some(1)), "marked on purpose");
        assert!(other(|found| (found.rule.fwmark, found.inverted) = (Some(51820), true)));
        assert!(!other(|found| found.idle = true));
        let from = |text: &str| Rule {
            from: text.parse().ok(),
            ..ours(464)
        };
        let mut found = theirs(100);
        Arc::make_mut(&mut found).rule.from = "10.0.0.0/8".parse().ok();
        assert!(!is_rival(&from("192.0.0.1/32"), &found));
        assert!(is_rival(&from("10.1.1.1/32"), &found));
    }
}
