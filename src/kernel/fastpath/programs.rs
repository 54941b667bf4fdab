//! The programs in the kernel, and the maps by which they know the instances. They are loaded once for all instances.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};
#[cfg(feature = "testing")]
use std::time::Duration;

use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, LpmTrie, MapData, MapError, PerCpuHashMap, PerCpuValues};
use aya::programs::tc::SchedClassifier;
use aya::programs::{ProgramError, ProgramFd};
#[cfg(feature = "testing")]
use aya::programs::{TestRun, TestRunOptions};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfError, EbpfLoader};
use clatd_stages::fast_path::{FastPathSpec, LinkHeader};
use clatd_stages::settings::MapEntry;
use ipnet::Ipv6Net;

use super::super::netlink::Hook;
use super::counted::{Counted, WORDS};
use super::flows::Flows;
use super::layout::{self, CLAT, KEY4, KEY6, NextHop, TO4, TO6};
use crate::hardening;
use crate::util::lock;

const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/clat.bpf.o"));
/// Lines of the verifier's that tell why it refused a program.
const VERIFIER_LINES: usize = 20;
/// Flag of a map's: an entry that is there already is an error.
const NO_EXIST: u64 = 1;

/// One of the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// At the egress of a CLAT device: IPv4 to IPv6.
    Out,
    /// At the ingress of a CLAT device: the engine's IPv6 to the uplink.
    Back,
    /// At the ingress of an uplink: IPv6 to IPv4.
    In,
}

impl Program {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Out, Self::Back, Self::In];

    /// Its name in the object, in the kernel, and on a filter.
    pub fn name(self) -> &'static str {
        match self {
            Self::Out => "clatd_out",
            Self::Back => "clatd_back",
            Self::In => "clatd_in",
        }
    }

    /// Where on a device it looks at packets.
    pub(super) fn hook(self) -> Hook {
        match self {
            Self::Out => Hook::Egress,
            Self::Back | Self::In => Hook::Ingress,
        }
    }
}

/// Why the programs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No thread could be started.
    #[error("starting a thread that loads the fast path")]
    Thread(#[source] io::Error),
    /// The object could not be read, or its maps not be made.
    #[error("making the maps of the fast path")]
    Object(#[source] EbpfError),
    /// It lacks something that it should have.
    #[error("the fast path was built without {0}")]
    Missing(&'static str),
    /// A map is not what it should be.
    #[error("a map of the fast path")]
    Map(#[source] MapError),
    /// The kernel refused a program.
    #[error("loading the program {name}: {source}")]
    Program {
        /// Its name.
        name: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// A program is not what it should be.
    #[error("the program {0}")]
    Other(&'static str, #[source] ProgramError),
    /// The processors could not be counted.
    #[error("counting the processors")]
    Processors(#[source] io::Error),
}

/// The loaded programs and their maps. All of it goes when this is dropped.
pub struct Programs {
    loaded: Loaded,
    clats: HashMap<MapData, u32, [u8; CLAT]>,
    ours4: LpmTrie<MapData, [u8; KEY4], [u8; TO6]>,
    ours6: LpmTrie<MapData, [u8; KEY6], [u8; TO4]>,
    theirs6: LpmTrie<MapData, [u8; KEY6], u32>,
    flows: Flows,
    /// The CLAT devices of the instances that share an address with the host, by uplink and address.
    sharers: BTreeMap<(u32, Ipv6Net), BTreeSet<u32>>,
    counted: PerCpuHashMap<MapData, u32, [u64; WORDS]>,
    processors: usize,
}

/// The devices of an instance, by their indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Devices {
    /// The CLAT device.
    pub clat: u32,
    /// The uplink.
    pub uplink: u32,
    /// What stands in front of the packets of the CLAT device.
    pub clat_header: LinkHeader,
}

impl Programs {
    /// Loads them into the kernel.
    pub fn load() -> Result<Self, LoadError> {
        // No part of them depends on the layout of the kernel's own structures, so the kernel's type information is not
        // needed. But a new loader reads all of it (17 MiB of memory) before one can say so. The loader is made on a thread
        // that can open no file, so it goes without.
        let mut loader = hardening::without_files(EbpfLoader::new).map_err(LoadError::Thread)?;
        let mut ebpf = loader.btf(None).load(OBJECT).map_err(LoadError::Object)?;
        let mut numbers = [0; 3];
        for (program, number) in Program::ALL.into_iter().zip(&mut numbers) {
            *number = load(&mut ebpf, program.name())?;
        }
        let mut map = |name| ebpf.take_map(name).ok_or(LoadError::Missing(name));
        let (clats, ours4, ours6, counted) = (map("clats")?, map("ours4")?, map("ours6")?, map("counted")?);
        let (theirs6, flows_of) = (map("theirs6")?, map("flows_of")?);
        Ok(Self {
            clats: clats.try_into().map_err(LoadError::Map)?,
            ours4: ours4.try_into().map_err(LoadError::Map)?,
            ours6: ours6.try_into().map_err(LoadError::Map)?,
            theirs6: theirs6.try_into().map_err(LoadError::Map)?,
            flows: Flows::new(flows_of.try_into().map_err(LoadError::Map)?),
            sharers: BTreeMap::new(),
            counted: counted.try_into().map_err(LoadError::Map)?,
            loaded: Loaded {
                ebpf: Arc::new(Mutex::new(ebpf)),
                numbers,
            },
            processors: nr_cpus().map_err(|(_, error)| LoadError::Processors(error))?,
        })
    }

    /// Enters an instance; its packets are translated once [`Programs::take_in`] says so.
    pub fn enter(&mut self, devices: Devices, spec: &FastPathSpec, next_hop: Option<NextHop>) -> Result<(), MapError> {
        let zero = PerCpuValues::try_from(vec![[0; WORDS]; self.processors]);
        self.counted.insert(devices.clat, zero.map_err(MapError::from)?, 0)?;
        for map in &spec.translation.maps {
            let (length, key) = layout::key4(devices.clat, map.v4);
            self.ours4
                .insert(&Key::new(length, key), layout::to6(map.v4, map.v6), 0)?;
        }
        self.flows.enter(devices, spec)?;
        self.set(devices, spec, next_hop)
    }

    /// Says anew what an instance is to do.
    pub(super) fn set(
        &mut self,
        devices: Devices,
        spec: &FastPathSpec,
        next_hop: Option<NextHop>,
    ) -> Result<(), MapError> {
        let record = layout::clat(spec, devices.uplink, devices.clat_header, next_hop);
        self.clats.insert(devices.clat, record, 0)
    }

    /// Takes what the uplink brings for an instance.
    pub fn take_in(&mut self, devices: Devices, spec: &FastPathSpec) -> Result<(), MapError> {
        let mut insert = |network: Ipv6Net, value| {
            let (length, key) = layout::key6(devices.uplink, network);
            self.ours6.insert(&Key::new(length, key), value, NO_EXIST)
        };
        if let Some(network) = left_to_the_engine(spec) {
            insert(network, layout::to_engine(devices.clat))?;
        }
        for map in mappings(spec) {
            insert(map.v6, layout::to4(devices.clat, map.v4, map.v6))?;
        }
        match layout::shared(spec) {
            Some(shared) => self.share(devices, spec, shared.v6),
            None => Ok(()),
        }
    }

    /// The host has this address, too: takes those of the packets to it that belong to the instance.
    fn share(&mut self, devices: Devices, spec: &FastPathSpec, address: Ipv6Net) -> Result<(), MapError> {
        let (length, key) = layout::prefix_key(devices.uplink, spec);
        self.theirs6.insert(&Key::new(length, key), devices.clat, NO_EXIST)?;
        let sharers = self.sharers.entry((devices.uplink, address)).or_default();
        sharers.insert(devices.clat);
        if sharers.len() == 1 {
            let (length, key) = layout::key6(devices.uplink, address);
            self.ours6
                .insert(&Key::new(length, key), layout::to_sharers(), NO_EXIST)?;
        }
        Ok(())
    }

    /// The reverse; what is not there is no error.
    fn share_no_more(&mut self, devices: Devices, spec: &FastPathSpec, address: Ipv6Net) {
        let (length, key) = layout::prefix_key(devices.uplink, spec);
        let key = Key::new(length, key);
        // Another instance may have it.
        if self.theirs6.get(&key, 0).ok() == Some(devices.clat) {
            _ = self.theirs6.remove(&key);
        }
        let place = (devices.uplink, address);
        let Some(sharers) = self.sharers.get_mut(&place) else {
            return;
        };
        sharers.remove(&devices.clat);
        if sharers.is_empty() {
            self.sharers.remove(&place);
            let (length, key) = layout::key6(devices.uplink, address);
            let key = Key::new(length, key);
            if self.ours6.get(&key, 0).ok() == Some(layout::to_sharers()) {
                _ = self.ours6.remove(&key);
            }
        }
    }

    /// Forgets an instance; what is not there is no error.
    pub fn forget(&mut self, devices: Devices, spec: &FastPathSpec) {
        let networks: BTreeSet<Ipv6Net> = spec.networks().collect();
        for network in networks {
            let (length, key) = layout::key6(devices.uplink, network);
            let key = Key::new(length, key);
            // Another instance may have it.
            let clat = self.ours6.get(&key, 0).ok();
            if clat.is_some_and(|value| value.starts_with(&devices.clat.to_ne_bytes())) {
                _ = self.ours6.remove(&key);
            }
        }
        for map in &spec.translation.maps {
            let (length, key) = layout::key4(devices.clat, map.v4);
            _ = self.ours4.remove(&Key::new(length, key));
        }
        if let Some(shared) = layout::shared(spec) {
            self.share_no_more(devices, spec, shared.v6);
        }
        self.flows.forget(devices.clat);
        _ = self.clats.remove(&devices.clat);
        _ = self.counted.remove(&devices.clat);
    }

    /// What was counted for an instance.
    pub(super) fn counted(&self, clat: u32) -> Option<Counted> {
        let values = self.counted.get(&clat, 0).ok()?;
        let mut sum = Counted::default();
        for value in values.iter() {
            sum += Counted::from(*value);
        }
        Some(sum)
    }

    /// The programs themselves, to be attached.
    pub(super) fn loaded(&self) -> Loaded {
        self.loaded.clone()
    }

    /// Makes the flows of all instances older, as if there had been no packet for so many seconds.
    #[cfg(feature = "testing")]
    pub fn age_flows(&self, seconds: u32) -> Result<(), MapError> {
        self.flows.age(seconds)
    }

    /// Forgets all flows, as if others had driven them out.
    #[cfg(feature = "testing")]
    pub fn drive_flows_out(&self) -> Result<(), MapError> {
        self.flows.drive_out()
    }

    /// Runs a program on a packet with an Ethernet header; its verdict, and what the packet has become.
    #[cfg(feature = "testing")]
    pub fn try_on(&mut self, program: Program, packet: &[u8]) -> Result<(i32, Vec<u8>), ProgramError> {
        let (verdict, out, _) = self.time_on(program, packet)?;
        Ok((verdict, out))
    }

    /// As [`Self::try_on`], and also returns how long the program took.
    #[cfg(feature = "testing")]
    pub fn time_on(&mut self, program: Program, packet: &[u8]) -> Result<(i32, Vec<u8>, Duration), ProgramError> {
        let mut out = vec![0; packet.len() + 64];
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        };
        let result = self.loaded.with(program, |loaded| loaded.test_run(options))?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value.cast_signed(), out, result.duration))
    }
}

/// The programs without their maps, so that nobody who reads a map waits while one is attached. Clones share them.
#[derive(Clone)]
pub(super) struct Loaded {
    ebpf: Arc<Mutex<Ebpf>>,
    /// The kernel's, in the order of [`Program::ALL`].
    numbers: [u32; 3],
}

impl Loaded {
    /// The kernel's number of a program.
    pub(super) fn number(&self, program: Program) -> u32 {
        let [out, back, into] = self.numbers;
        match program {
            Program::Out => out,
            Program::Back => back,
            Program::In => into,
        }
    }

    /// A descriptor of one of them.
    pub(super) fn descriptor(&self, program: Program) -> Result<ProgramFd, ProgramError> {
        self.with(program, |loaded| Ok(loaded.fd()?.try_clone()?))
    }

    /// Does something with one of them.
    pub(super) fn with<T>(
        &self,
        program: Program,
        act: impl FnOnce(&mut SchedClassifier) -> Result<T, ProgramError>,
    ) -> Result<T, ProgramError> {
        let mut ebpf = lock(&self.ebpf);
        let found = ebpf.program_mut(program.name()).ok_or(ProgramError::NotLoaded)?;
        act(found.try_into()?)
    }
}

/// A delegated network, unless a mapping covers all of it.
fn left_to_the_engine(spec: &FastPathSpec) -> Option<Ipv6Net> {
    spec.delegated
        .filter(|network| !spec.translation.maps.iter().any(|map| map.v6 == *network))
}

/// The mappings by which addresses alone say whose a packet is.
fn mappings(spec: &FastPathSpec) -> impl Iterator<Item = &MapEntry> {
    let shared = usize::from(spec.shared.is_some());
    spec.translation.maps.iter().skip(shared)
}

/// Returns the kernel's number of the program.
fn load(ebpf: &mut Ebpf, name: &'static str) -> Result<u32, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
    let program: &mut SchedClassifier = program.try_into().map_err(|error| LoadError::Other(name, error))?;
    program.load().map_err(|error| match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(VERIFIER_LINES)..] {
                tracing::debug!(program = name, "verifier: {line}");
            }
            LoadError::Program { name, source: io_error }
        }
        other => LoadError::Other(name, other),
    })?;
    let info = program.info().map_err(|error| LoadError::Other(name, error))?;
    Ok(info.id())
}
