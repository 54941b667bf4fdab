//! Whatever happens, in whatever order: when all instances have ended, the system is as it was.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clatd::instance::Status;
use clatd::kernel::{Start, TranslatorExit};
use clatd_stages::apply;
use clatd_stages::journal::Journal;
use clatd_stages::op::Op;
use proptest::prelude::*;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::events::{happens, sysctls_of, two_uplinks};
use crate::shared::{SharedJournal, SharedSystem};
use crate::support::cases::settings;
use crate::support::living::{Beginning, Living};

/// Something that happens.
#[derive(Debug, Clone)]
enum Event {
    /// To the world, in the words of `events.rs`.
    World(String),
    /// Somebody undoes what operations with this text in them did.
    Undo(&'static str),
    /// The n-th next operation fails, of whichever instance.
    Fail(u8),
    /// The n-th next operation panics.
    Panic(u8),
    /// An instance's translator dies.
    Death(usize),
    /// An instance is stopped, or started if it is not there.
    Toggle(usize),
    /// Time passes.
    Wait(u16),
}

/// How the instances differ from the plainest ones.
#[derive(Debug, Clone)]
struct Setting {
    count: usize,
    /// Linux before 6.17: no `force_forwarding`, so all instances hold `all/forwarding`.
    old_kernel: bool,
    uplink_scope: bool,
    replace: bool,
    firewall: bool,
}

fn setting() -> impl Strategy<Value = Setting> {
    (1..=3_usize, any::<[bool; 4]>()).prop_map(|(count, flags)| Setting {
        count,
        old_kernel: flags[0],
        uplink_scope: flags[1],
        // Two that replace the same routes would fight for who gives them back.
        replace: flags[2] && count == 1,
        firewall: flags[3],
    })
}

fn event() -> impl Strategy<Value = Event> {
    let device = || prop_oneof![Just("wan0"), Just("wan1"), Just("wan2")];
    let worldly = prop_oneof![
        (
            device(),
            prop_oneof![Just("appears"), Just("vanishes"), Just("down"), Just("up")]
        )
            .prop_map(|(device, what)| format!("{device} {what}")),
        (device(), prop_oneof![Just("lost"), Just("back")])
            .prop_map(|(device, what)| format!("carrier {device} {what}")),
        (device(), 1..5_u8).prop_map(|(device, net)| format!("address {device} 2001:db8:{net}::211:22ff:fe33:4455")),
        (device(), 1..5_u8).prop_map(|(device, net)| format!("address {device} old:2001:db8:{net}::1 2001:db8:7::5")),
        (device(), 1..4_u8).prop_map(|(device, number)| format!("gateway {device} fe80::{number}")),
        Just("default routes wan0 wan1 wan2".to_owned()),
        Just("default routes wan2 wan0".to_owned()),
        device().prop_map(|device| format!("native {device}")),
        Just("native gone".to_owned()),
        Just("prefix 64:ff9b::/96 ttl 60".to_owned()),
        Just("prefix 2001:db8:64::/96 ttl 600".to_owned()),
        Just("no dns64".to_owned()),
        Just("dns fails".to_owned()),
        Just("unreadable routes4".to_owned()),
        Just("readable".to_owned()),
    ];
    let undone = prop_oneof![
        Just("route default dev clat-0"),
        Just("rule IPv6"),
        Just("rule IPv4 priority 465"),
        Just("proxy"),
        Just("address 192.0.0."),
        Just("nft"),
    ];
    prop_oneof![
        6 => worldly.prop_map(Event::World),
        1 => undone.prop_map(Event::Undo),
        2 => (0..40_u8).prop_map(Event::Fail),
        1 => (0..40_u8).prop_map(Event::Panic),
        1 => (0..3_usize).prop_map(Event::Death),
        3 => (0..3_usize).prop_map(Event::Toggle),
        2 => (0..100_u16).prop_map(Event::Wait),
    ]
}

/// What the next operations meet.
#[derive(Default)]
struct Trouble {
    fail: Option<u8>,
    panic: Option<u8>,
}

impl Trouble {
    fn meet(&mut self) -> Result<(), String> {
        let now = |count: &mut Option<u8>| match count.take() {
            Some(0) => true,
            Some(more) => {
                *count = Some(more - 1);
                false
            }
            None => false,
        };
        let panics = now(&mut self.panic);
        let fails = now(&mut self.fail);
        assert!(!panics, "a panic of this test's, as if clatd had a bug");
        if fails {
            Err("it fails in this test".into())
        } else {
            Ok(())
        }
    }
}

struct Host {
    setting: Setting,
    system: SharedSystem,
    trouble: Arc<Mutex<Trouble>>,
    changes: watch::Sender<u64>,
    journals: Vec<SharedJournal>,
    live: Vec<Option<Living>>,
}

impl Host {
    fn new(setting: Setting) -> Self {
        let mut world = two_uplinks();
        happens(&mut world, "wan2 appears");
        world.sysctls.extend(sysctls_of("wan2"));
        if setting.old_kernel {
            world.sysctls.retain(|key, _| !key.ends_with("force_forwarding"));
            // One that forwards already, and shall afterwards.
            world.links.push(crate::support::cases::link(40, "lan0", 1500));
            world.sysctls.extend(sysctls_of("lan0"));
            world.sysctls.remove("net/ipv6/conf/lan0/force_forwarding");
            world.sysctls.insert("net/ipv6/conf/lan0/forwarding".into(), "1".into());
        }
        if setting.replace {
            happens(&mut world, "native wan1");
        }
        if setting.firewall {
            world.nft = Some(
                json!({"nftables": [{"chain": {"family": "inet", "table": "fw", "name": "fwd", "handle": 1,
                "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}}]}),
            );
        }
        let trouble = Arc::new(Mutex::new(Trouble::default()));
        let meets = trouble.clone();
        let interference = Box::new(move |_: &str, _: &Op| {
            let mut trouble = meets.lock().unwrap_or_else(PoisonError::into_inner);
            trouble.meet()
        });
        let count = setting.count;
        let mut host = Self {
            setting,
            system: SharedSystem::new(world, interference),
            trouble,
            changes: watch::channel(0).0,
            journals: Vec::new(),
            live: Vec::new(),
        };
        for number in 0..count {
            host.journals.push(SharedJournal::default());
            host.live.push(None);
            host.start(number);
        }
        host
    }

    fn start(&mut self, number: usize) {
        let setting = &self.setting;
        let scope = if setting.uplink_scope { "uplink" } else { "host" };
        let address = ["192.0.0.1", "192.0.0.3", "192.0.0.4"][number];
        let settings = settings(&[
            ("plat-dev", json!(format!("wan{number}"))),
            ("clat-dev", json!(format!("clat-{number}"))),
            ("clat-v4-addr", json!(address)),
            ("route-table", json!(49575 + number)),
            ("v4-conncheck-delay", json!(0)),
            ("v4-conncheck-scope", json!(scope)),
            ("v4-defaultroute-replace", json!(setting.replace)),
            ("script-up", json!("up")),
            ("script-down", json!("down")),
        ]);
        let name = format!("i{number}");
        let beginning = Beginning {
            name: &name,
            number: u32::try_from(number).unwrap(),
            settings,
            waits: true,
            world: self.system.clone(),
            system: Box::new(self.system.of(&name)),
            journal: Box::new(self.journals[number].clone()),
            changes: self.changes.subscribe(),
            stop: CancellationToken::new(),
            status: watch::channel(Status::default()).0,
        };
        self.live[number] = Some(beginning.run());
    }

    /// Waits for the end of an instance; what one that panicked left is undone from its journal, as the supervisor does.
    async fn ends(&mut self, number: usize) {
        let Some(live) = self.live[number].take() else { return };
        let end = tokio::time::timeout(Duration::from_secs(600), live.task).await;
        if end.expect("it ends when it is stopped").is_err() {
            self.unwind(number).await;
        }
    }

    async fn unwind(&mut self, number: usize) {
        // One panic at a time: this is the supervisor's own task.
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).panic = None;
        let mut side = self.system.of(&format!("i{number}"));
        // Its descriptors are closed.
        side.device_is_gone(&format!("clat-{number}"));
        apply::unwind(&mut side, &mut self.journals[number], &[]).await;
    }

    async fn happens(&mut self, event: &Event) {
        match event {
            // The route that is replaced is the same from the beginning to the end.
            Event::World(words) if self.setting.replace && words.starts_with("native") => {}
            Event::World(words) => {
                self.system.change(|world| happens(world, words));
                self.changes.send_modify(|count| *count += 1);
            }
            Event::Undo(text) => {
                self.system.undo(text);
                self.changes.send_modify(|count| *count += 1);
            }
            Event::Fail(after) => self.trouble.lock().unwrap_or_else(PoisonError::into_inner).fail = Some(*after),
            Event::Panic(after) => self.trouble.lock().unwrap_or_else(PoisonError::into_inner).panic = Some(*after),
            Event::Death(number) => {
                if let Some(Some(live)) = self.live.get(*number) {
                    let _ = live.exits.send(TranslatorExit {
                        instance: format!("i{number}"),
                        device: format!("clat-{number}"),
                        detail: "killed".into(),
                        start: Start::default(),
                    });
                }
            }
            Event::Toggle(number) if *number < self.live.len() => {
                // One that panicked has no journal left when it is started again.
                if let Some(live) = &self.live[*number] {
                    live.stop.cancel();
                    self.ends(*number).await;
                } else {
                    self.start(*number);
                }
            }
            Event::Toggle(_) => {}
            Event::Wait(seconds) => tokio::time::sleep(Duration::from_secs((*seconds).into())).await,
        }
        // A few turns for the instances, so that events also come in the middle of what they do.
        for _ in 0..25 {
            tokio::task::yield_now().await;
        }
    }
}

async fn lives_through(setting: Setting, events: &[Event]) -> Result<(), TestCaseError> {
    let mut host = Host::new(setting);
    let before = host.system.state();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for event in events {
        host.happens(event).await;
    }
    *host.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Trouble::default();
    for live in host.live.iter().flatten() {
        live.stop.cancel();
    }
    for number in 0..host.live.len() {
        host.ends(number).await;
    }
    for number in 0..host.live.len() {
        // An undo that failed stays in the journal, for the next start or `clatd cleanup`.
        if !host.journals[number].pending().is_empty() {
            host.unwind(number).await;
        }
        prop_assert!(host.journals[number].pending().is_empty());
    }
    prop_assert_eq!(&host.system.state(), &before);
    prop_assert!(host.system.is_free(), "a hold is left");
    Ok(())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// Found by the random test: an instance that starts while another holds `all/forwarding` takes the devices' values,
/// which that hold has set, for those to be given back.
#[test]
fn whoever_leaves_last_gives_back_what_the_first_one_found() {
    let setting = Setting {
        count: 2,
        old_kernel: true,
        uplink_scope: false,
        replace: false,
        firewall: false,
    };
    block_on(lives_through(
        setting,
        &[Event::Toggle(0), Event::Toggle(0), Event::Toggle(1)],
    ))
    .unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_system_is_as_it_was(setting in setting(), events in prop::collection::vec(event(), 0..25)) {
        block_on(lives_through(setting, &events))?;
    }
}
