//! Rules between the settings of one instance. Each setting alone has been checked by the kind of its key.

use std::net::Ipv4Addr;

use clatd_stages::fast_path;
use clatd_stages::settings::{ClatV6Addr, FirewallChoice, MapEntry, RouteMtu, TranslatorChoice};
use ipnet::{Ipv4Net, Ipv6Net};

use super::errors::{ConfigProblem, Findings, Place};
use super::layer::{Merged, Origin};

/// Reports what makes no sense together.
pub(super) fn validate(merged: &Merged, purpose: Purpose, findings: &mut Findings) {
    let mut judge = Validator {
        merged,
        purpose,
        findings,
    };
    judge.devices();
    judge.addresses();
    judge.prefix();
    judge.default_route();
    judge.firewall();
    judge.translator();
    judge.maps();
    judge.shared_address();
}

/// The IPv4 dummy address.
const DUMMY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// What the configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A host, where packets are routed too.
    Run,
    /// `clatd translate` works on a file, where a mapping inside of the prefix works.
    Translate,
}

struct Validator<'a> {
    merged: &'a Merged,
    purpose: Purpose,
    findings: &'a mut Findings,
}

impl Validator<'_> {
    fn origin(&self, key: &'static str) -> Origin {
        let unknown = || Origin::new(Place::Default, "");
        self.merged.origins.get(key).cloned().unwrap_or_else(unknown)
    }

    /// Whether the user, not clatd, set the key.
    fn is_set(&self, key: &'static str) -> bool {
        !matches!(self.origin(key).place, Place::Default | Place::Allotted)
    }

    /// Reports a contradiction between keys, at the first of them that the user set. Says nothing if one of them is
    /// invalid in any case.
    fn contradiction(&mut self, keys: &[&'static str], problem: String, hint: Option<&str>) {
        if keys.iter().any(|key| self.merged.invalid.contains(key)) {
            return;
        }
        let key = keys
            .iter()
            .copied()
            .find(|key| self.is_set(key))
            .or(keys.first().copied())
            .unwrap_or_default();
        let Origin { place, text, .. } = self.origin(key);
        let mut error = ConfigProblem::of(place, key, &text, problem);
        error.hint = hint.map(str::to_owned);
        self.findings.error(error);
    }

    fn warn(&mut self, key: &'static str, text: &str) {
        let Origin { place, text: value, .. } = self.origin(key);
        self.findings.warn(&place, format!("{key}={value}: {text}"));
    }

    /// Where another key of a contradiction was set, for the message.
    fn where_is(&self, key: &'static str) -> String {
        match self.origin(key).place {
            Place::Default => "by default".into(),
            place => place.to_string(),
        }
    }

    fn devices(&mut self) {
        let settings = &self.merged.settings;
        if settings.plat.plat_dev.as_ref() == Some(&settings.clat.clat_dev) {
            let problem = format!(
                "expected another device than plat-dev={} ({})",
                settings.clat.clat_dev,
                self.where_is("plat-dev")
            );
            self.contradiction(
                &["clat-dev", "plat-dev"],
                problem,
                Some("plat-dev is the uplink that exists, clat-dev the device that clatd makes"),
            );
        }
        if settings.plat.plat_dev.as_deref() == Some("lo") {
            self.contradiction(
                &["plat-dev"],
                "expected an uplink; the loopback device faces no PLAT".into(),
                None,
            );
        }
    }

    fn addresses(&mut self) {
        let settings = &self.merged.settings;
        if settings.clat.clat_v4_addr == DUMMY {
            let problem = format!(
                "expected another address than {DUMMY}, the source of errors that cannot be translated (RFC 7600)"
            );
            self.contradiction(&["clat-v4-addr"], problem, None);
        }
        if settings.clat.clat_v4_addr == settings.translator.tayga_v4_addr {
            let problem = format!(
                "expected different addresses for clat-v4-addr ({}) and tayga-v4-addr ({})",
                self.where_is("clat-v4-addr"),
                self.where_is("tayga-v4-addr")
            );
            self.contradiction(
                &["clat-v4-addr", "tayga-v4-addr"],
                problem,
                Some("one is the host's, the other the translator's own"),
            );
        }
        if let (ClatV6Addr::Address(clat), Some(own)) =
            (settings.clat.clat_v6_addr, settings.translator.translator_v6_addr)
            && clat == own
        {
            let problem = format!(
                "expected another address than clat-v6-addr ({})",
                self.where_is("clat-v6-addr")
            );
            self.contradiction(
                &["translator-v6-addr", "clat-v6-addr"],
                problem,
                Some("one is the translator's own, the other the host's"),
            );
        }
    }

    fn prefix(&mut self) {
        let settings = &self.merged.settings;
        let ClatV6Addr::Address(address) = settings.clat.clat_v6_addr else {
            return;
        };
        for (key, prefix) in [
            ("plat-prefix", settings.plat.plat_prefix),
            ("plat-fallback-prefix", settings.plat.plat_fallback_prefix),
        ] {
            let net = prefix.and_then(|prefix| prefix.to_string().parse::<Ipv6Net>().ok());
            if net.is_some_and(|net| net.contains(&address)) {
                let place = self.where_is(key);
                match self.purpose {
                    Purpose::Translate => self.warn("clat-v6-addr", &format!("is inside of {key} ({place})")),
                    Purpose::Run => {
                        let problem = format!("expected an address outside of {key} ({place}), which is the PLAT's");
                        self.contradiction(&["clat-v6-addr", key], problem, None);
                    }
                }
            }
        }
    }

    fn default_route(&mut self) {
        let settings = &self.merged.settings;
        let mtu = match settings.ipv4.v4_defaultroute_mtu {
            RouteMtu::Bytes(bytes) => bytes,
            RouteMtu::Auto => 0,
        };
        if let Some(advmss) = settings.ipv4.v4_defaultroute_advmss
            && mtu != 0
            && advmss > mtu.saturating_sub(40)
        {
            let problem = format!(
                "expected at most {}, which is v4-defaultroute-mtu={mtu} ({}) less 40 bytes of headers",
                mtu.saturating_sub(40),
                self.where_is("v4-defaultroute-mtu")
            );
            self.contradiction(&["v4-defaultroute-advmss", "v4-defaultroute-mtu"], problem, None);
        }
        if settings.ipv4.v4_defaultroute_replace && !settings.ipv4.v4_defaultroute_enable {
            self.warn(
                "v4-defaultroute-replace",
                "takes the IPv4 default routes away while v4-defaultroute-enable=no adds none",
            );
        }
    }

    fn firewall(&mut self) {
        let settings = &self.merged.settings;
        let (choice, place) = (settings.clat.firewall, self.where_is("firewall"));
        let problem = match (settings.clat.ip6tables_enable, choice) {
            (Some(true), FirewallChoice::Nftables | FirewallChoice::None) => {
                format!("expected no, since firewall={choice} ({place}) leaves ip6tables alone")
            }
            (Some(false), FirewallChoice::Ip6tables) => {
                format!("expected yes, since firewall={choice} ({place}) means ip6tables alone")
            }
            _ => return,
        };
        self.contradiction(
            &["ip6tables-enable", "firewall"],
            problem,
            Some("remove one of the two settings"),
        );
    }

    fn translator(&mut self) {
        let settings = &self.merged.settings;
        let tayga = fast_path::may_run(settings, TranslatorChoice::Tayga);
        if !tayga && settings.translator.tayga_conffile.is_some() {
            self.warn("tayga-conffile", "has no effect without translator=tayga");
        }
        if tayga && self.is_set("translator-queues") {
            self.warn("translator-queues", "has no effect with translator=tayga");
        }
    }

    fn maps(&mut self) {
        let settings = &self.merged.settings;
        let clat = Ipv4Net::from(settings.clat.clat_v4_addr);
        for (index, entry) in settings.translator.map.iter().enumerate() {
            for other in &settings.translator.map[..index] {
                self.map_pair(other, entry, index);
            }
            let is_clat6 =
                settings.clat.clat_v6_addr == ClatV6Addr::Address(entry.v6.network()) && entry.v6.prefix_len() == 128;
            if settings
                .plat
                .plat_prefix
                .is_some_and(|prefix| overlaps6(prefix.to_string().parse().ok(), entry.v6))
            {
                let (place, text) = self.map_place(index);
                let prefix = self.where_is("plat-prefix");
                self.findings.warn(
                    &place,
                    format!("map={text}: is inside of plat-prefix ({prefix}) and hides that part of it"),
                );
            }
            if entry.v4 == clat && !is_clat6 {
                self.map_contradiction(
                    index,
                    "clat-v4-addr",
                    "another IPv4 address than",
                    "which is mapped to clat-v6-addr",
                );
            }
            if entry.v4 != clat && is_clat6 {
                self.map_contradiction(
                    index,
                    "clat-v6-addr",
                    "another IPv6 address than",
                    "which is mapped to clat-v4-addr",
                );
            }
            if entry.v4 == Ipv4Net::from(settings.translator.tayga_v4_addr) {
                self.map_contradiction(
                    index,
                    "tayga-v4-addr",
                    "another IPv4 address than",
                    "which is the translator's own",
                );
            }
        }
    }

    /// Where one of the maps was set. All maps of a TOML array have the same place.
    fn map_place(&self, index: usize) -> (Place, String) {
        let origin = self.origin("map");
        let one_each = origin.parts.len() == self.merged.settings.translator.map.len();
        let part = origin.parts.get(index).filter(|_| one_each).cloned();
        part.unwrap_or_else(|| (origin.place, self.merged.settings.translator.map[index].to_string()))
    }

    fn map_contradiction(&mut self, index: usize, key: &'static str, expected: &str, why: &str) {
        if self.merged.invalid.contains(key) {
            return;
        }
        let (place, text) = self.map_place(index);
        let problem = format!("expected {expected} {key} ({}), {why}", self.where_is(key));
        match self.purpose {
            Purpose::Run => self.findings.error(ConfigProblem::of(place, "map", &text, problem)),
            Purpose::Translate => self.findings.warn(&place, format!("map={text}: {problem}")),
        }
    }

    fn map_pair(&mut self, one: &MapEntry, other: &MapEntry, index: usize) {
        let (place, text) = self.map_place(index);
        if one.v4 == other.v4 || one.v6 == other.v6 {
            let what = if one.v4 == other.v4 {
                one.v4.to_string()
            } else {
                one.v6.to_string()
            };
            let problem = format!("expected each prefix to be mapped once; {what} is in \"{one}\" too");
            self.findings.error(ConfigProblem::of(place, "map", &text, problem));
        } else if one.v4.contains(&other.v4) || other.v4.contains(&one.v4) || overlaps6(Some(one.v6), other.v6) {
            let odd = format!(
                "overlaps \"{one}\": the longest match wins, and an answer may get another address (RFC 7757 section 5)"
            );
            self.findings.warn(&place, format!("map={text}: {odd}"));
        }
    }

    fn shared_address(&mut self) {
        let settings = &self.merged.settings;
        if settings.clat.clat_v6_addr != ClatV6Addr::Shared {
            return;
        }
        if settings.clat.ctmark == Some(0) {
            self.contradiction(
                &["ctmark"],
                format!(
                    "expected a mark other than 0 with clat-v6-addr=shared ({})",
                    self.where_is("clat-v6-addr")
                ),
                Some("without it the host's own IPv6 connections to the PLAT would end up in the CLAT"),
            );
        }
        if settings.clat.proxynd_enable {
            self.warn(
                "proxynd-enable",
                "is not needed with clat-v6-addr=shared: the uplink has the address itself",
            );
        }
    }
}

fn overlaps6(one: Option<Ipv6Net>, other: Ipv6Net) -> bool {
    one.is_some_and(|one| one.contains(&other) || other.contains(&one))
}
