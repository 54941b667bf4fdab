//! The results of the examination in words. Pure: findings depend on facts alone.

mod inside;
mod plat;

use std::net::IpAddr;

use super::examine::Examined;
use super::{Check, Finding, Judgement};
use crate::discovery::Checked;
use crate::path::{Hop, beyond_plat, through_plat};
use crate::route::default_route_mtu;
use crate::settings::TranslatorChoice;
use crate::stage::Instance;

/// An IPv6 header is larger than an IPv4 header by this many bytes.
const HEADER_DIFFERENCE: u32 = 20;

/// The findings about an instance, in the order of a packet's path to the PLAT and beyond.
pub fn judge(instance: &Instance, seen: &Examined) -> Vec<Finding> {
    let mut judge = Judge {
        instance,
        seen,
        findings: Vec::new(),
    };
    judge.daemon();
    let leads_out = judge.uplink() && judge.carrier() && judge.address() && judge.gateway();
    if leads_out {
        judge.dns64();
        judge.prefix();
        judge.plat();
    }
    judge.filters();
    judge.routes();
    if leads_out {
        judge.own_work();
        judge.mtu();
        judge.ipv4();
        judge.host();
    }
    judge.daemon_follows();
    for text in &seen.unreadable {
        judge.say(
            Check::Daemon,
            Judgement::Unknown,
            format!("not everything could be examined: {text}"),
        );
    }
    judge.findings
}

struct Judge<'a> {
    instance: &'a Instance,
    seen: &'a Examined,
    findings: Vec<Finding>,
}

impl Judge<'_> {
    fn say(&mut self, check: Check, verdict: Judgement, what: impl Into<String>) {
        self.findings.push(Finding {
            check,
            verdict,
            what: what.into(),
            advice: None,
        });
    }

    fn advise(&mut self, check: Check, verdict: Judgement, what: impl Into<String>, advice: impl Into<String>) {
        self.findings.push(Finding {
            check,
            verdict,
            what: what.into(),
            advice: Some(advice.into()),
        });
    }

    fn wrong(&mut self, check: Check, what: impl Into<String>, advice: impl Into<String>) {
        self.advise(check, Judgement::Wrong, what, advice);
    }

    fn uplink_name(&self) -> &str {
        self.seen.uplink.as_ref().map_or("", |uplink| uplink.name.as_str())
    }

    /// Who answers IPv4 from beyond the PLAT.
    fn beyond(&self, answers: &[Hop]) -> Option<Hop> {
        let settings = &self.instance.settings;
        beyond_plat(
            &[settings.translator.tayga_v4_addr, settings.clat.clat_v4_addr],
            answers,
        )
    }

    /// Whether the fast path translates.
    fn by_fast_path(&self) -> bool {
        let running = self.seen.running.as_ref().filter(|_| self.seen.is_up());
        running.is_some_and(|running| running.facts.chosen_translator() == TranslatorChoice::Ebpf)
    }

    /// Whether IPv4 was seen to work.
    fn works(&self) -> bool {
        let answers = self.seen.through_clat.as_deref();
        answers.is_some_and(|answers| self.beyond(answers).is_some())
    }

    fn daemon(&mut self) {
        let Some(running) = &self.seen.running else {
            return self.advise(
                Check::Daemon,
                Judgement::Note,
                "no clatd runs this instance, so this looks at what it would need",
                "start it: systemctl start clatd, or clatd in a terminal",
            );
        };
        let because = match running.reason.as_str() {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        match running.state.as_str() {
            "running" => self.say(Check::Daemon, Judgement::Good, "the instance runs"),
            "stuck" => self.wrong(
                Check::Daemon,
                format!(
                    "the instance is stuck, what it did could not be undone{}",
                    running
                        .last_error
                        .as_ref()
                        .map(|error| format!(": {error}"))
                        .unwrap_or_default()
                ),
                "stop clatd and run clatd cleanup, which tries again",
            ),
            // An error of the past is in its history, this one keeps it from starting.
            "idle" if running.last_error.as_deref() == Some(running.reason.as_str()) => self.wrong(
                Check::Daemon,
                format!("the instance cannot start{because}"),
                "mend that; the instance tries again by itself, or at once with systemctl restart clatd",
            ),
            "idle" if !self.seen.native4.is_empty() => {
                self.say(Check::Daemon, Judgement::Note, format!("the instance rests{because}"))
            }
            "idle" => self.wrong(
                Check::Daemon,
                format!("the instance has nothing to work with{because}"),
                "the findings below say what is missing; the instance starts by itself when that is there",
            ),
            state => {
                let error = running.last_error.as_ref();
                let error = error.map_or_else(String::new, |error| format!(" (its last error: {error})"));
                self.say(
                    Check::Daemon,
                    Judgement::Note,
                    format!("the instance is {state}{because}{error}; look again in a moment"),
                );
            }
        }
    }

    /// An instance has nothing to work with because of what is wrong on the way, and one fault is reported once.
    fn daemon_follows(&mut self) {
        let idle = self.seen.running.as_ref().is_some_and(|running| {
            running.state == "idle" && running.last_error.as_deref() != Some(running.reason.as_str())
        });
        let is_wrong = |finding: &Finding| finding.verdict == Judgement::Wrong;
        if idle && self.findings.iter().filter(|finding| is_wrong(finding)).count() > 1 {
            for finding in self
                .findings
                .iter_mut()
                .filter(|finding| finding.check == Check::Daemon)
            {
                finding.verdict = Judgement::Note;
            }
        }
    }

    fn uplink(&mut self) -> bool {
        let named = self.instance.settings.plat.plat_dev.as_deref();
        let Some(uplink) = &self.seen.uplink else {
            match named {
                Some(device) => self.wrong(
                    Check::Uplink,
                    format!("the uplink {device} (plat-dev) does not exist: packets cannot leave this host"),
                    "plug it in, or correct plat-dev; ip link lists the devices",
                ),
                None => self.wrong(
                    Check::Uplink,
                    "no device has an IPv6 default route: packets cannot leave this host",
                    "a router must advertise itself (see rdisc6, and accept_ra of the device), or whoever manages the \
                     network must set a default route",
                ),
            }
            return false;
        };
        let defaults: Vec<String> = self.seen.defaults6.iter().map(ToString::to_string).collect();
        let name = &uplink.name;
        match defaults.first() {
            Some(route) => self.say(
                Check::Uplink,
                Judgement::Good,
                format!("{name}, by the IPv6 route {route}"),
            ),
            None if self.instance.settings.plat.plat_prefix.is_some() => self.say(
                Check::Uplink,
                Judgement::Note,
                format!("{name}; it has no IPv6 default route"),
            ),
            None if !uplink.up || !uplink.carrier => self.say(Check::Uplink, Judgement::Good, name.clone()),
            None => {
                self.wrong(
                    Check::Uplink,
                    format!("{name} has no IPv6 default route: packets do not know where to go from here"),
                    "its router must advertise itself (rdisc6 shows what it says), and accept_ra of the device must be on",
                );
                return false;
            }
        }
        true
    }

    fn carrier(&mut self) -> bool {
        let Some(uplink) = &self.seen.uplink else { return false };
        let name = &uplink.name;
        if !uplink.up {
            self.wrong(
                Check::Carrier,
                format!("{name} is switched off: packets stop before they leave this host"),
                format!("switch it on: ip link set {name} up"),
            );
            return false;
        }
        if !uplink.carrier {
            self.wrong(
                Check::Carrier,
                format!("{name} has no carrier: packets cannot leave this host"),
                "check the cable, the radio, or the switch or modem at the other end",
            );
            return false;
        }
        self.say(
            Check::Carrier,
            Judgement::Good,
            format!("{name} has carrier, MTU {}", uplink.mtu),
        );
        true
    }

    fn address(&mut self) -> bool {
        let name = self.uplink_name().to_owned();
        let global = self.seen.addresses.iter().filter(|address| address.global);
        let global: Vec<_> = global.collect();
        let usable = global
            .iter()
            .find(|address| !address.tentative && !address.deprecated)
            .or(global.iter().find(|address| !address.tentative));
        match (usable, global.first()) {
            (Some(address), _) => {
                let old = if address.deprecated {
                    ", which is deprecated: its network may be gone"
                } else {
                    ""
                };
                self.say(
                    Check::Address,
                    if address.deprecated {
                        Judgement::Note
                    } else {
                        Judgement::Good
                    },
                    format!("{name} has {}/{}{old}", address.address, address.prefix_len),
                );
                true
            }
            (None, Some(address)) => {
                self.wrong(
                    Check::Address,
                    format!(
                        "{} on {name} is not usable: duplicate address detection has not ended, or found another node with it",
                        address.address
                    ),
                    "look again in a moment; if it stays so, find the other node (ip -6 address shows dadfailed)",
                );
                false
            }
            (None, None) => {
                self.wrong(
                    Check::Address,
                    format!("{name} has no global IPv6 address: nothing can answer what is sent from here"),
                    "the router must advertise a prefix (rdisc6 shows what it says), or DHCPv6 or the administrator give an address",
                );
                false
            }
        }
    }

    fn gateway(&mut self) -> bool {
        let name = self.uplink_name().to_owned();
        match self.seen.gateway {
            None => {
                self.say(
                    Check::Gateway,
                    Judgement::Note,
                    format!("{name} has no router: all is on its link"),
                );
                true
            }
            Some((gateway, Some(false))) => {
                self.wrong(
                    Check::Gateway,
                    format!("the router {gateway} of {name} does not answer: packets stop before the first hop"),
                    "check the router, and what is between it and this host; the PLAT cannot be asked until the router answers",
                );
                false
            }
            Some((gateway, answers)) => {
                let (verdict, how) = match answers {
                    Some(_) => (Judgement::Good, "answers"),
                    None => (Judgement::Unknown, "cannot be asked on this kind of link"),
                };
                self.say(Check::Gateway, verdict, format!("the router {gateway} of {name} {how}"));
                true
            }
        }
    }

    fn mtu(&mut self) {
        let Some(large) = &self.seen.large else { return };
        let name = self.uplink_name().to_owned();
        if large.answered {
            return self.say(
                Check::Mtu,
                Judgement::Good,
                format!(
                    "packets of {} bytes reach {}, or a router answers that they are too big",
                    large.length, large.from
                ),
            );
        }
        let facts = self.seen.running.as_ref().map(|running| &running.facts);
        let used = facts.and_then(|facts| default_route_mtu(&self.instance.settings, facts));
        let used = used.map(|mtu| mtu + HEADER_DIFFERENCE);
        let Some(fits) = large.fits else {
            return self.say(
                Check::Mtu,
                Judgement::Unknown,
                format!("{} no longer answers, so large packets could not be tried", large.from),
            );
        };
        let what = format!(
            "packets of {} bytes are lost between {name} and {}, and no error comes back (a black hole); {fits} bytes pass",
            large.length, large.from
        );
        match used {
            Some(used) if used <= u32::from(fits) => self.advise(
                Check::Mtu,
                Judgement::Note,
                format!("{what}. The CLAT sends {used} bytes at most, so IPv4 passes"),
                format!("other IPv6 traffic may hang: ip link set {name} mtu {fits}, until the network is mended"),
            ),
            _ => self.wrong(
                Check::Mtu,
                what,
                format!(
                    "ip link set {name} mtu {fits}, or for IPv4 alone v4-defaultroute-mtu={}",
                    u32::from(fits) - HEADER_DIFFERENCE
                ),
            ),
        }
    }

    /// IPv4 all the way, beginning at a socket of this host.
    fn ipv4(&mut self) {
        let Some(answers) = &self.seen.through_clat else { return };
        let clat = self.instance.settings.clat.clat_dev.clone();
        if let Some(hop) = self.beyond(answers) {
            return self.say(
                Check::Ipv4,
                Judgement::Good,
                format!("IPv4 works through {clat}: {} answers from beyond the PLAT", hop.from),
            );
        }
        let plat_answers = self
            .seen
            .plat()
            .is_some_and(|plat| through_plat(plat.prefix.value, &plat.answers).is_some());
        if !plat_answers {
            return self.say(
                Check::Ipv4,
                Judgement::Unknown,
                format!("nobody answers IPv4 through {clat}, as may be expected while the PLAT does not answer"),
            );
        }
        let translated = answers.iter().any(|hop| matches!(hop.from, IpAddr::V4(_)));
        let advice = match translated {
            true => self.where_translated_stops(&clat),
            false => self.where_ipv4_stops(&clat),
        };
        let place = match translated {
            true => "packets stop behind the translator",
            false => "packets stop in this host",
        };
        self.wrong(
            Check::Ipv4,
            format!("the PLAT answers, but nothing comes back through {clat}: {place}"),
            advice,
        );
    }

    /// What to look at where not even the translator answers.
    fn where_ipv4_stops(&self, clat: &str) -> String {
        if let Some((key, _)) = self.strict_filter() {
            return format!(
                "strict reverse-path filtering is on ({key}=1), which may drop the replies: set it to 2 or 0; else look for \
                 packet filters between this host and {clat}, both ways"
            );
        }
        match self.own_filters("ip") {
            Some(suspects) => format!(
                "not even the translator answers, and {suspects} may drop IPv4 of this host: let it pass to and from {clat}"
            ),
            None => format!(
                "not even the translator answers: look for packet filters (nft list ruleset), reverse-path filters and rules \
                 (ip -4 rule) between this host and {clat}, both ways"
            ),
        }
    }

    /// What to look at where the translator answers, and nobody behind it.
    fn where_translated_stops(&self, clat: &str) -> String {
        let facts = self.seen.running.as_ref().map(|running| &running.facts);
        let address = facts
            .filter(|facts| !facts.shared)
            .and_then(|facts| facts.clat_v6_addr.as_ref());
        let mut reasons = Vec::new();
        if let Some(address) = address {
            reasons.push(format!(
                "the network may drop packets from {}: some providers give a server one address and drop all others; \
                 try clat-v6-addr=shared",
                address.value
            ));
        }
        let uplink = self.uplink_name();
        let strict = self.strict_filter();
        let strict = strict.map_or_else(String::new, |(key, _)| format!(" ({key}=1)"));
        reasons.push(match self.by_fast_path() {
            true => format!(
                "see with tcpdump on {uplink} what comes back; packet filters of this host do not see these IPv6 packets, \
                 since the fast path hands them to the router itself"
            ),
            false => format!(
                "look for packet filters (nft list ruleset), reverse-path filters{strict} and rules (ip -6 rule) between \
                 {clat} and the uplink, both ways"
            ),
        });
        format!(
            "the translator answers, so packets are lost behind it: {}",
            reasons.join("; or ")
        )
    }

    fn strict_filter(&self) -> Option<(&String, &String)> {
        self.seen.sysctls.iter().find(|(_, value)| value.as_str() == "1")
    }

    /// The packet filters that may stop packets of this host's own, of a family (`ip` or `ip6`), in words.
    fn own_filters(&self, family: &str) -> Option<String> {
        let filters = self.seen.own_filters.iter();
        let named: Vec<String> = filters
            .filter(|chain| chain.family == family || chain.family == "inet")
            .map(inside::named)
            .collect();
        (!named.is_empty()).then(|| named.join(" and "))
    }

    fn host(&mut self) {
        match &self.seen.host {
            Some(Checked::Answers(server)) => self.say(
                Check::Host,
                Judgement::Good,
                format!("{server} answers through the PLAT"),
            ),
            Some(Checked::Silent(server)) => self.wrong(
                Check::Host,
                format!("{server} does not answer through the PLAT"),
                "try another IPv4 host: if it answers, the fault is at this one or its network, otherwise at the PLAT",
            ),
            Some(Checked::Unverified(_)) | None => {}
        }
    }
}
