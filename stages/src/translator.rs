//! Stage translator: who moves the packets, and with which mappings. It is the last step, so that no packet moves
//! before everything else stands.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use async_trait::async_trait;
use clatd_translator::{Config, IcmpErrors, Pref64};
use serde::{Deserialize, Serialize};

use crate::claims::Claims;
use crate::facts::Facts;
use crate::fast_path;
use crate::op::{Op, Undo};
use crate::plan::{StageName, Step};
use crate::settings::{
    IcmpErrorRate, MapEntry, Pref64Setting, Settings, TosSetting, TranslatorChoice, UdpZeroChecksum, UnmappedSource,
};
use crate::stage::{Delay, Instance, ObserveError, PlanError, Readiness, Stage, world_error};
use crate::world::World;

impl TranslatorChoice {
    /// Whether this is a program of others. Such a program opens the device by name and counts nothing.
    pub fn is_external(self) -> bool {
        match self {
            Self::Auto | Self::Ebpf | Self::Userspace => false,
            Self::Tayga => true,
        }
    }
}

/// Who moves the packets of one device, and how: all that is needed to start it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum TranslatorSpec {
    /// Ours, in this process.
    Userspace(UserspaceSpec),
    /// The external TAYGA.
    Tayga(TaygaSpec),
}

impl TranslatorSpec {
    /// The CLAT device.
    pub fn device(&self) -> &str {
        match self {
            Self::Userspace(spec) => &spec.device,
            Self::Tayga(spec) => &spec.device,
        }
    }
}

/// The userspace translator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserspaceSpec {
    /// The CLAT device.
    pub device: String,
    /// Queues and threads; 0 = one per core.
    pub queues: u32,
    /// The PLAT prefix (RFC 6052).
    pub plat_prefix: Pref64Setting,
    /// Explicit mappings (RFC 7757), the CLAT's own first.
    pub maps: Vec<MapEntry>,
    /// Source of ICMPv4 errors.
    pub own_v4: Ipv4Addr,
    /// Source of ICMPv6 errors; none = `own_v4` in the PLAT prefix, where no CLAT address is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_v6: Option<Ipv6Addr>,
    /// MTU in bytes of the IPv4 side: the CLAT device's.
    pub mtu4: u32,
    /// MTU in bytes of the IPv6 side: the uplink's.
    pub mtu6: u32,
    /// RFC 7915 lowest-ipv6-mtu in bytes.
    pub lowest_ipv6_mtu: u32,
    /// UDP without checksum.
    pub udp_zero_checksum: UdpZeroChecksum,
    /// The IPv6 traffic class of what was IPv4.
    #[serde(default)]
    pub traffic_class: TosSetting,
    /// The IPv4 TOS octet of what was IPv6.
    #[serde(default)]
    pub tos: TosSetting,
    /// How many ICMP errors a second are sent.
    #[serde(default)]
    pub icmp_error_rate: IcmpErrorRate,
    /// RFC 6052 section 3.1.
    pub wkp_strict: bool,
    /// Addresses without mapping.
    pub unmapped_source: UnmappedSource,
}

impl UserspaceSpec {
    /// The translator's configuration; `seed` begins its fragment identifications.
    pub fn config(&self, seed: u32) -> Config {
        Config {
            pref64: Some(self.plat_prefix.0),
            maps: self.maps.iter().map(|map| (map.v4, map.v6)).collect(),
            own_v4: self.own_v4,
            own_v6: self.own_v6,
            lowest_ipv6_mtu: self.lowest_ipv6_mtu,
            mtu4: self.mtu4,
            mtu6: self.mtu6,
            udp_zero_checksum: match self.udp_zero_checksum {
                UdpZeroChecksum::Compute => clatd_translator::UdpZeroChecksum::Compute,
                UdpZeroChecksum::Drop => clatd_translator::UdpZeroChecksum::Drop,
                UdpZeroChecksum::Pass => clatd_translator::UdpZeroChecksum::Pass,
            },
            traffic_class: octet(self.traffic_class),
            tos: octet(self.tos),
            icmp_errors: icmp_errors(self.icmp_error_rate),
            wkp_strict: self.wkp_strict,
            unmapped_source: match self.unmapped_source {
                UnmappedSource::Drop => clatd_translator::UnmappedSource::Drop,
                UnmappedSource::Prefix => clatd_translator::UnmappedSource::Prefix,
            },
            identification_seed: seed,
            ..Config::default()
        }
    }

    /// The specification from these settings. It has the CLAT's mapping if `clat_v6` is known; `mtus` are those of
    /// the IPv4 and the IPv6 side in bytes.
    pub fn of(settings: &Settings, prefix: Pref64, clat_v6: Option<Ipv6Addr>, mtus: (u32, u32)) -> Self {
        Self {
            device: settings.clat.clat_dev.clone(),
            queues: settings.translator.translator_queues,
            plat_prefix: Pref64Setting(prefix),
            maps: clat_v6.map_or_else(
                || settings.translator.map.clone(),
                |clat_v6| mappings(settings, clat_v6),
            ),
            own_v4: settings.translator.tayga_v4_addr,
            // A PLAT discards packets whose source is in its own prefix (RFC 6146 section 3.5), so `own_v4` in the
            // prefix would not work.
            own_v6: settings.translator.translator_v6_addr.or(clat_v6),
            mtu4: mtus.0,
            mtu6: mtus.1,
            lowest_ipv6_mtu: settings.translator.lowest_ipv6_mtu,
            udp_zero_checksum: settings.translator.udp_zero_checksum,
            traffic_class: settings.translator.traffic_class,
            tos: settings.translator.tos,
            icmp_error_rate: settings.translator.icmp_error_rate,
            wkp_strict: settings.translator.wkp_strict,
            unmapped_source: settings.translator.unmapped_source,
        }
    }
}

fn octet(setting: TosSetting) -> clatd_translator::Tos {
    match setting {
        TosSetting::Copy => clatd_translator::Tos::Copy,
        TosSetting::Value(value) => clatd_translator::Tos::Fixed(value),
    }
}

fn icmp_errors(rate: IcmpErrorRate) -> IcmpErrors {
    match rate {
        IcmpErrorRate::Unlimited => IcmpErrors::Unlimited,
        IcmpErrorRate::PerSecond(0) => IcmpErrors::Off,
        IcmpErrorRate::PerSecond(per_second) => IcmpErrors::Limited {
            per_second,
            // The value of Linux (`icmp_msgs_burst`). A rate below it also limits the burst.
            burst: per_second.min(50),
        },
    }
}

/// The external TAYGA, in the foreground, on a persistent device of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaygaSpec {
    /// The CLAT device.
    pub device: String,
    /// The program.
    pub command: String,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl fmt::Display for TranslatorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Userspace(spec) => {
                write!(
                    f,
                    "userspace translator on {}: prefix {}",
                    spec.device, spec.plat_prefix
                )?;
                for map in &spec.maps {
                    write!(f, ", {} <-> {}", map.v4, map.v6)?;
                }
                Ok(())
            }
            Self::Tayga(spec) => write!(
                f,
                "TAYGA on {}: {} {}",
                spec.device,
                spec.command,
                spec.arguments.join(" ")
            ),
        }
    }
}

/// The mappings of an instance: the CLAT's own address pair, then `map`.
pub(crate) fn mappings(settings: &Settings, clat_v6: Ipv6Addr) -> Vec<MapEntry> {
    let own = MapEntry {
        v4: ipnet::Ipv4Net::from(settings.clat.clat_v4_addr),
        v6: ipnet::Ipv6Net::from(clat_v6),
    };
    std::iter::once(own)
        .chain(settings.translator.map.iter().copied().filter(|map| *map != own))
        .collect()
}

/// The stage.
pub struct TranslatorStage;

#[async_trait]
impl Stage for TranslatorStage {
    fn name(&self) -> StageName {
        StageName::Translator
    }

    fn delay(&self, _instance: &Instance) -> Option<Delay> {
        None
    }

    async fn observe(
        &self,
        instance: &Instance,
        world: &dyn World,
        _claims: &dyn Claims,
        facts: &mut Facts,
    ) -> Result<Readiness, ObserveError> {
        let settings = &instance.settings;
        let is_missing = match facts.chosen_translator() {
            TranslatorChoice::Auto | TranslatorChoice::Ebpf | TranslatorChoice::Userspace => false,
            TranslatorChoice::Tayga => {
                let found = world.program(&settings.programs.cmd_tayga).await;
                found.map_err(world_error(self.name()))?.is_none()
            }
        };
        if is_missing {
            return Err(self.unusable(format!(
                "the program `{}` was not found; install TAYGA, set cmd-tayga, or use translator=userspace",
                settings.programs.cmd_tayga
            )));
        }
        Ok(Readiness::Ready)
    }

    fn keep(&self, _old: &Facts, _new: &mut Facts) {}

    fn plan(&self, instance: &Instance, facts: &Facts) -> Result<Vec<Step>, PlanError> {
        let settings = &instance.settings;
        let missing = |what: &str| PlanError {
            stage: self.name(),
            what: format!("no {what} to translate with"),
        };
        let prefix = facts.plat_prefix.as_ref().ok_or_else(|| missing("PLAT prefix"))?.value;
        let clat_v6 = facts
            .clat_v6_addr
            .as_ref()
            .ok_or_else(|| missing("CLAT IPv6 address"))?
            .value;
        let uplink_mtu = facts.uplink.as_ref().ok_or_else(|| missing("uplink"))?.value.mtu;
        let device = settings.clat.clat_dev.clone();
        let start = |translator| {
            let stop = Op::StopTranslator { device: device.clone() };
            Step::new(
                self.name(),
                "moves the packets",
                Op::StartTranslator { translator },
                stop,
            )
        };
        Ok(match facts.chosen_translator() {
            TranslatorChoice::Auto | TranslatorChoice::Ebpf | TranslatorChoice::Userspace => {
                let mtus = (crate::device::mtu(uplink_mtu), uplink_mtu);
                let spec = UserspaceSpec::of(settings, prefix, Some(clat_v6), mtus);
                let mut steps = vec![start(TranslatorSpec::Userspace(spec.clone()))];
                steps.extend(fast_path::steps(instance, facts, spec));
                steps
            }
            TranslatorChoice::Tayga => {
                let file = tayga_file(instance, prefix, clat_v6);
                let mut arguments = vec!["--config".to_owned(), file.path.clone(), "--nodetach".to_owned()];
                if settings.general.debug > 0 {
                    arguments.push("-d".into());
                }
                let spec = TaygaSpec {
                    device: device.clone(),
                    command: settings.programs.cmd_tayga.clone(),
                    arguments,
                };
                vec![file.step, start(TranslatorSpec::Tayga(spec))]
            }
        })
    }
}

impl TranslatorStage {
    fn unusable(&self, what: String) -> ObserveError {
        ObserveError::Unusable {
            stage: self.name(),
            what,
        }
    }
}

/// How TAYGA's configuration begins where we wrote it.
pub const TAYGA_FILE_HEADING: &str = "# TAYGA configuration written by clatd";

struct TaygaFile {
    path: String,
    step: Step,
}

/// TAYGA's configuration. A file that the user named stays, as with the 2016 clatd. A temporary one is removed.
fn tayga_file(instance: &Instance, prefix: Pref64, clat_v6: Ipv6Addr) -> TaygaFile {
    let settings = &instance.settings;
    let mut contents = format!(
        "{TAYGA_FILE_HEADING} for instance {}\ntun-device {}\nprefix {prefix}\nipv4-addr {}\n",
        instance.name, settings.clat.clat_dev, settings.translator.tayga_v4_addr
    );
    if let Some(own_v6) = settings.translator.translator_v6_addr {
        contents.push_str(&format!("ipv6-addr {own_v6}\n"));
    }
    for map in mappings(settings, clat_v6) {
        let side = |address: IpAddr, length: u8, whole: u8| {
            if length == whole {
                address.to_string()
            } else {
                format!("{address}/{length}")
            }
        };
        let v4 = side(map.v4.addr().into(), map.v4.prefix_len(), 32);
        let v6 = side(map.v6.addr().into(), map.v6.prefix_len(), 128);
        contents.push_str(&format!("map {v4} {v6}\n"));
    }
    let path = settings
        .translator
        .tayga_conffile
        .clone()
        .unwrap_or_else(|| format!("{}/{}.tayga.conf", instance.runtime_dir, instance.name));
    let undo = match settings.translator.tayga_conffile {
        Some(_) => Undo::nothing("a file named by tayga-conffile is kept"),
        None => Undo::Op(Op::RemoveFile { path: path.clone() }),
    };
    let step = Step {
        stage: StageName::Translator,
        why: "TAYGA reads its addresses and prefix from a file".into(),
        apply: Op::WriteFile {
            path: path.clone(),
            contents,
        },
        undo,
    };
    TaygaFile { path, step }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(change: impl FnOnce(&mut Settings)) -> Config {
        let mut settings = Settings::default();
        change(&mut settings);
        UserspaceSpec::of(&settings, Pref64::WELL_KNOWN, None, (1480, 1500)).config(7)
    }

    #[test]
    fn every_setting_reaches_the_translator() {
        let plain = config(|_| ());
        let fixed = clatd_translator::Tos::Fixed;
        assert_eq!((plain.mtu4, plain.mtu6, plain.identification_seed), (1480, 1500, 7));
        assert_eq!(plain.pref64, Some(Pref64::WELL_KNOWN));
        let own: Ipv4Addr = "192.0.0.7".parse().unwrap();
        assert_eq!(config(|s| s.translator.tayga_v4_addr = own).own_v4, own);
        let own: Ipv6Addr = "2001:db8::7".parse().unwrap();
        assert_eq!(
            config(|s| s.translator.translator_v6_addr = Some(own)).own_v6,
            Some(own)
        );
        let map = MapEntry {
            v4: "198.51.100.8/30".parse().unwrap(),
            v6: "2001:db8:46::8/126".parse().unwrap(),
        };
        assert_eq!(config(|s| s.translator.map = vec![map]).maps, [(map.v4, map.v6)]);
        assert_eq!(config(|s| s.translator.lowest_ipv6_mtu = 1400).lowest_ipv6_mtu, 1400);
        for (setting, expected) in [
            (UdpZeroChecksum::Compute, clatd_translator::UdpZeroChecksum::Compute),
            (UdpZeroChecksum::Drop, clatd_translator::UdpZeroChecksum::Drop),
            (UdpZeroChecksum::Pass, clatd_translator::UdpZeroChecksum::Pass),
        ] {
            assert_eq!(
                config(|s| s.translator.udp_zero_checksum = setting).udp_zero_checksum,
                expected
            );
        }
        assert!(!plain.wkp_strict);
        assert!(config(|s| s.translator.wkp_strict = true).wkp_strict);
        assert_eq!(plain.unmapped_source, clatd_translator::UnmappedSource::Drop);
        let mapped = config(|s| s.translator.unmapped_source = UnmappedSource::Prefix).unmapped_source;
        assert_eq!(mapped, clatd_translator::UnmappedSource::Prefix);
        assert_eq!(
            (plain.traffic_class, plain.tos),
            (octet(TosSetting::Copy), octet(TosSetting::Copy))
        );
        assert_eq!(
            config(|s| s.translator.traffic_class = TosSetting::Value(0)).traffic_class,
            fixed(0)
        );
        assert_eq!(config(|s| s.translator.tos = TosSetting::Value(184)).tos, fixed(184));
    }

    #[test]
    fn the_rate_of_errors_begins_no_faster_than_it_goes_on() {
        let errors = |rate| config(|s| s.translator.icmp_error_rate = rate).icmp_errors;
        let limited = |per_second, burst| IcmpErrors::Limited { per_second, burst };
        assert_eq!(errors(IcmpErrorRate::default()), limited(1000, 50));
        assert_eq!(errors(IcmpErrorRate::PerSecond(3)), limited(3, 3));
        assert_eq!(errors(IcmpErrorRate::PerSecond(0)), IcmpErrors::Off);
        assert_eq!(errors(IcmpErrorRate::Unlimited), IcmpErrors::Unlimited);
    }

    #[test]
    fn a_journal_of_an_older_version_has_fewer_fields() {
        let spec = UserspaceSpec::of(&Settings::default(), Pref64::WELL_KNOWN, None, (1480, 1500));
        let mut json = serde_json::to_value(&spec).unwrap();
        for field in ["traffic_class", "tos", "icmp_error_rate"] {
            assert!(json.as_object_mut().unwrap().remove(field).is_some());
        }
        assert_eq!(serde_json::from_value::<UserspaceSpec>(json).unwrap(), spec);
    }
}
