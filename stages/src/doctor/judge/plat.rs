//! The PLAT: what tells its prefix, and whether it translates.

use super::Judge;
use crate::discovery::Checked;
use crate::doctor::{Check, Judgement, Plat};
use crate::facts::Source;
use crate::path::{farthest, through_plat};

impl Judge<'_> {
    pub(super) fn dns64(&mut self) {
        let seen = self.seen;
        let lies: Vec<&String> = seen
            .failures
            .iter()
            .filter(|failure| failure.contains("no DNS64 synthesised"))
            .collect();
        for lie in &lies {
            self.wrong(
                Check::Dns64,
                format!("a resolver gives false answers: {lie}"),
                "name another one by dns64-servers, or set plat-prefix",
            );
        }
        let by_dns = |source: &Source| matches!(source, Source::Dns64(_));
        let alive = seen
            .plats
            .iter()
            .find(|plat| through_plat(plat.prefix.value, &plat.answers).is_some());
        for plat in seen.plats.iter().filter(|plat| by_dns(&plat.prefix.source)) {
            let (prefix, source) = (plat.prefix.value, &plat.prefix.source);
            let answers = through_plat(prefix, &plat.answers).is_some();
            match alive {
                Some(alive) if !answers => self.wrong(
                    Check::Dns64,
                    format!(
                        "the {source} synthesises with {prefix}, where nothing answers, while {} answers: programs get \
                         addresses that cannot be reached",
                        alive.prefix.value
                    ),
                    "use another resolver, or tell its operator; the CLAT itself can be told by plat-prefix or dns64-servers",
                ),
                _ => self.say(
                    Check::Dns64,
                    Judgement::Good,
                    format!("the {source} synthesises with {prefix}"),
                ),
            }
        }
        if lies.is_empty() {
            for failure in seen.failures.iter().filter(|failure| !failure.contains("no router on")) {
                self.say(Check::Dns64, Judgement::Note, failure.clone());
            }
        }
    }

    pub(super) fn prefix(&mut self) {
        let Some(plat) = self.seen.plat() else {
            let why = self.seen.failures.join("; ");
            return self.wrong(
                Check::Prefix,
                format!("no PLAT prefix is known: {why}"),
                "the network must tell it by DNS64 or in router advertisements; or set plat-prefix, or dns64-servers to a public NAT64's",
            );
        };
        let others: Vec<String> = self.seen.plats[1..]
            .iter()
            .map(|plat| format!("{} ({})", plat.prefix.value, plat.prefix.source))
            .collect();
        let others = if others.is_empty() {
            String::new()
        } else {
            format!("; also {}", others.join(", "))
        };
        self.say(
            Check::Prefix,
            Judgement::Good,
            format!("{} ({}){others}", plat.prefix.value, plat.prefix.source),
        );
    }

    pub(super) fn plat(&mut self) {
        let Some(plat) = self.seen.plat() else { return };
        let prefix = plat.prefix.value;
        if !plat.route {
            return self.wrong(
                Check::Plat,
                format!(
                    "{} has no route to the PLAT prefix {prefix}: packets stop in this host",
                    self.uplink_name()
                ),
                "add an IPv6 default route, or one to the prefix, by this uplink",
            );
        }
        if let Some(hop) = through_plat(prefix, &plat.answers) {
            return self.say(
                Check::Plat,
                Judgement::Good,
                format!("the PLAT of {prefix} translates: {} answers from behind it", hop.from),
            );
        }
        if let Some(Checked::Answers(server)) = &self.seen.host {
            return self.say(
                Check::Plat,
                Judgement::Good,
                format!("the PLAT of {prefix} translates: {server} answers through it"),
            );
        }
        let far = match farthest(&plat.answers) {
            Some(hop) => format!("packets get as far as {} and no further", hop.from),
            None => "nobody on the way says anything".to_owned(),
        };
        let suspects = self.own_filters("ip6").filter(|_| plat.answers.is_empty());
        if self.works() {
            return self.say(
                Check::Plat,
                Judgement::Note,
                format!(
                    "the PLAT of {prefix} translates for the CLAT, but does not answer this host itself: {far}{}",
                    suspects.map_or_else(String::new, |suspects| format!("; {suspects} may drop the answers"))
                ),
            );
        }
        let advice = self.about_a_silent_plat(plat);
        let advice = match suspects {
            Some(suspects) => {
                format!("{suspects} may drop the answers: let ICMPv6 in and out; otherwise, {advice}")
            }
            None => advice,
        };
        self.wrong(
            Check::Plat,
            format!("the PLAT of {prefix} does not answer: {far}"),
            advice,
        );
    }

    /// What to do where a PLAT does not answer.
    fn about_a_silent_plat(&self, plat: &Plat) -> String {
        let answers = |plat: &&Plat| through_plat(plat.prefix.value, &plat.answers).is_some();
        let others = self
            .seen
            .plats
            .iter()
            .filter(|other| other.prefix.value != plat.prefix.value);
        let configured = plat.prefix.source == Source::Configuration;
        if let Some(other) = others.clone().find(answers) {
            let (prefix, source) = (other.prefix.value, &other.prefix.source);
            return match configured {
                true => format!(
                    "plat-prefix sets this prefix, but the network has another one, which answers: {prefix} ({source}); take \
                     plat-prefix out of the configuration, or set it to that"
                ),
                false => format!("another prefix of the network answers: set plat-prefix={prefix} ({source})"),
            };
        }
        let tell = "tell whoever runs the NAT64; meanwhile another uplink can be used";
        let told: Vec<String> = others
            .map(|other| format!("{} ({})", other.prefix.value, other.prefix.source))
            .collect();
        match (configured, told.is_empty()) {
            (true, true) => format!(
                "plat-prefix sets this prefix, and the network tells of none: check that it is right and belongs to \
                 this network; if so, {tell}"
            ),
            (true, false) => format!(
                "plat-prefix sets this prefix; the network tells of {}, which does not answer either: {tell}",
                told.join(" and ")
            ),
            (false, _) => format!("{tell}, or plat-prefix can be set to another prefix"),
        }
    }
}
