//! Where packets stop, in words. [`examine()`] reads and probes along their path; [`judge()`] says what the results mean,
//! and is pure.
//!
//! The path of a packet: this host's IPv4 routes, the CLAT device, the translator, forwarding and packet filters, the
//! uplink, its router, the PLAT, the IPv4 internet. A check that cannot reach its object says that it was not made,
//! so that one fault is reported once.

mod examine;
mod judge;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use examine::{Examined, Large, Plat, RunningInstance, examine};
pub use judge::judge;

/// What is looked at, in the order of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// The daemon and this instance of it.
    Daemon,
    /// The uplink.
    Uplink,
    /// Its carrier.
    Carrier,
    /// Its IPv6 addresses.
    Address,
    /// Its router.
    Gateway,
    /// DNS64.
    Dns64,
    /// The PLAT prefix.
    Prefix,
    /// The PLAT.
    Plat,
    /// The CLAT's IPv6 address, and who answers for it.
    Claim,
    /// The CLAT's device.
    Device,
    /// Forwarding and the sysctls that it needs.
    Forwarding,
    /// Packet filters.
    Filter,
    /// Routes and rules.
    Route,
    /// Sizes of packets.
    Mtu,
    /// IPv4 all the way.
    Ipv4,
    /// The host that was named.
    Host,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Daemon => "daemon",
            Self::Uplink => "uplink",
            Self::Carrier => "carrier",
            Self::Address => "address",
            Self::Gateway => "gateway",
            Self::Dns64 => "dns64",
            Self::Prefix => "prefix",
            Self::Plat => "plat",
            Self::Claim => "claim",
            Self::Device => "device",
            Self::Forwarding => "forwarding",
            Self::Filter => "filter",
            Self::Route => "route",
            Self::Mtu => "mtu",
            Self::Ipv4 => "ipv4",
            Self::Host => "host",
        })
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// Packets stop here, or will.
    Wrong,
    /// It was not examined, or could not be.
    Unknown,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// How it is.
    pub verdict: Judgement,
    /// What was found, in words.
    pub what: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// The findings about one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The instance's name.
    pub name: String,
    /// Whether something is wrong.
    pub wrong: bool,
    /// What was found, in the order of a packet's path.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// The diagnosis of an instance.
    pub fn new(name: &str, findings: Vec<Finding>) -> Self {
        Self {
            name: name.to_owned(),
            wrong: findings.iter().any(|finding| finding.verdict == Judgement::Wrong),
            findings,
        }
    }
}

/// What `clatd doctor --json` prints. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorDocument {
    /// Version of this format.
    pub version: u32,
    /// Whether something is wrong.
    pub wrong: bool,
    /// One for each instance.
    pub instances: Vec<Diagnosis>,
}

impl DoctorDocument {
    /// Version of the JSON format.
    pub const VERSION: u32 = 1;

    /// The document of these diagnoses.
    pub fn new(instances: Vec<Diagnosis>) -> Self {
        Self {
            version: Self::VERSION,
            wrong: instances.iter().any(|diagnosis| diagnosis.wrong),
            instances,
        }
    }
}

impl fmt::Display for DoctorDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnosis in &self.instances {
            let first = diagnosis
                .findings
                .iter()
                .find(|finding| finding.verdict == Judgement::Wrong);
            match first {
                Some(first) => writeln!(f, "{}: {}", diagnosis.name, first.what)?,
                None => writeln!(f, "{}: nothing is wrong", diagnosis.name)?,
            }
            for finding in &diagnosis.findings {
                let word = match finding.verdict {
                    Judgement::Good => "ok",
                    Judgement::Note => "note",
                    Judgement::Wrong => "WRONG",
                    Judgement::Unknown => "-",
                };
                writeln!(f, "  {word:<6} {:<11} {}", finding.check, finding.what)?;
                if let Some(advice) = &finding.advice {
                    writeln!(f, "  {:<6} {:<11} -> {advice}", "", "")?;
                }
            }
        }
        Ok(())
    }
}
