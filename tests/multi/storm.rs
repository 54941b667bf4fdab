//! Events in random order, as the network, a user and somebody else on the host make them; then they calm down. Every
//! uplink's instance must run and leave by its own uplink, and after the stop the host must be as it was.
//!
//! `CLATD_SEED=N` runs another sequence; a failure prints what it did.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::bed::{Lab, Uplink, poll};
use crate::daemon::Daemon;
use crate::home::{
    assert_plainly_same, device, in_state, instance, isp_file, leaves_by, name, plain, raise, readvertise, seen,
    sorted_state, start, status, tool,
};

const EVENTS: usize = 20;
/// How long the network may take to be as before, and clatd to follow, on a busy machine.
const CALM: Duration = Duration::from_secs(75);
/// A host that lets nothing through but what is asked for.
const FIREWALL: &str =
    "table inet filter { chain forward { type filter hook forward priority filter; policy drop; }; }";
const TEMPLATE: &str = "plat-dev=up*\n";

macro_rules! events {
    ($($event:ident,)*) => {
        /// What becomes of an uplink, or of what clatd made for it. What stays broken is repaired by [`Storm::calm`].
        #[derive(Debug, Clone, Copy)]
        enum Event { $($event,)* }

        const ALL: &[Event] = &[$(Event::$event,)*];
    };
}

events! {
    CarrierLost,
    CarrierBack,
    Down,
    Up,
    AddressesGone,
    Advertised,
    PrefixDeprecated,
    RouterLeaves,
    AdvertisedAsBefore,
    DefaultRouteDeleted,
    OurTableFlushed,
    OurDefaultDeleted,
    OurRulesDeleted,
    OurDeviceDeleted,
    OurProxyDeleted,
    Unplugged,
    PluggedIn,
    ResolverSilent,
    ResolverBack,
    NativeV4,
    NoNativeV4,
    Reload,
    ChangedReload,
    FileOfItsOwn,
    NoFileOfItsOwn,
    OurAddressDeleted,
    SysctlsMeddledWith,
    AnotherRouter,
    RouterSilent,
    RouterAnswers,
    FirewallReloaded,
    Restarted,
    Killed,
}

use Event::*;

/// A small generator of numbers that a seed repeats (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).unwrap()
    }
}

struct Storm<'a> {
    lab: &'a Lab,
    daemon: Daemon,
    uplinks: usize,
    radvd: Vec<String>,
    macs: Vec<String>,
    done: Vec<String>,
}

impl Storm<'_> {
    fn host(&self, line: &str) {
        // Much of it fails where an earlier event took away what it is about.
        self.lab.run("host", line);
    }

    fn isp(&self, k: usize, line: &str) {
        self.lab.run(&format!("isp{k}"), line);
    }

    fn happen(&mut self, event: Event, k: usize) {
        self.done.push(format!("{event:?} {k}"));
        let table = format!("$(ip -4 rule | sed -nE 's/.* oif clat-up{k} .*lookup ([0-9]+).*/\\1/p')");
        match event {
            CarrierLost => self.isp(
                k,
                "sysctl -qw net.ipv6.conf.cust.keep_addr_on_down=1; ip link set cust down",
            ),
            CarrierBack => self.isp(k, "ip link set cust up"),
            Down => self.host(&format!("ip link set up{k} down")),
            Up => self.host(&format!("ip link set up{k} up")),
            AddressesGone => self.host(&format!("ip -6 address flush dev up{k} scope global")),
            Advertised => readvertise(self.lab, k),
            PrefixDeprecated => self.advertise(k, "AdvPreferredLifetime 14400;", "AdvPreferredLifetime 0;"),
            RouterLeaves => self.advertise(k, "AdvDefaultLifetime 3600;", "AdvDefaultLifetime 0;"),
            AdvertisedAsBefore => self.advertise(k, "", ""),
            DefaultRouteDeleted => self.host(&format!("ip -6 route del default dev up{k}")),
            OurTableFlushed => self.host(&format!("for t in {table}; do ip route flush table $t; ip -6 route flush table $t; done")),
            OurDefaultDeleted => self.host(&format!("ip route del default dev clat-up{k}")),
            OurRulesDeleted => self.host(&format!(
                "for t in {table}; do ip rule del table $t; ip -6 rule del table $t; done; ip -6 rule del iif clat-up{k}"
            )),
            OurDeviceDeleted => self.host(&format!("ip link del clat-up{k}")),
            OurProxyDeleted => self.host(&format!(
                "for a in $(ip -6 neigh show proxy dev up{k} | cut -d' ' -f1); do ip -6 neigh del proxy $a dev up{k}; done"
            )),
            Unplugged => self.host(&format!("ip link del up{k}")),
            PluggedIn => self.plug(k),
            ResolverSilent => self.isp(
                k,
                "nft 'table ip6 silent { chain in { type filter hook input priority 0; udp dport 53 drop; tcp dport 53 drop; }; }'",
            ),
            ResolverBack => self.isp(k, "nft delete table ip6 silent"),
            NativeV4 => self.host(&format!(
                "ip address add 192.168.{k}.2/24 dev up{k}; ip route add default via 192.168.{k}.1 dev up{k} metric {}",
                700 + k
            )),
            NoNativeV4 => self.host("for k in 0 1 2 3; do ip address del 192.168.$k.2/24 dev up$k; done"),
            Reload => self.daemon.signal(Signal::SIGHUP),
            ChangedReload => {
                let mtu = 1300 + self.done.len();
                instance(self.lab, "clat", &format!("{TEMPLATE}v4-defaultroute-mtu={mtu}\n"));
                tool(self.lab, &["reload"]);
            }
            FileOfItsOwn => {
                instance(self.lab, &format!("up{k}"), &format!("plat-dev=up{k}\n"));
                self.daemon.signal(Signal::SIGHUP);
            }
            NoFileOfItsOwn => {
                let _ = std::fs::remove_file(self.lab.file("instances.d").join(format!("up{k}.conf")));
                tool(self.lab, &["reload"]);
            }
            OurAddressDeleted => self.host(&format!("ip address flush dev clat-up{k}")),
            SysctlsMeddledWith => self.host(&format!(
                "cd /proc/sys/net/ipv6/conf/up{k} && echo 0 | tee forwarding force_forwarding proxy_ndp"
            )),
            AnotherRouter => {
                self.isp(
                    k,
                    "old=$(ip -6 -o address show dev cust scope link | sed -E 's/.*inet6 ([^ ]+).*/\\1/')
                     ip address add fe80::77/64 dev cust nodad && ip address del $old dev cust",
                );
                readvertise(self.lab, k);
            }
            RouterSilent => self.isp(
                k,
                "nft 'table netdev silent { chain in { type filter hook ingress device cust priority 0; drop; }; }'",
            ),
            RouterAnswers => self.isp(k, "nft delete table netdev silent"),
            FirewallReloaded => self.host(&format!("nft 'flush ruleset; {FIREWALL}'")),
            Restarted => {
                self.daemon.stop(Signal::SIGTERM);
                self.start_again();
            }
            Killed => {
                self.daemon.kill();
                self.start_again();
            }
        }
    }

    /// Events may come while it sets up, but no signal before it can take any: that would end every program.
    fn start_again(&mut self) {
        self.daemon = Daemon::start(self.lab, &[]);
        self.daemon
            .wait_for("control socket", || tool(self.lab, &["status"]).code == Some(0));
    }

    fn advertise(&self, k: usize, what: &str, instead: &str) {
        std::fs::write(
            isp_file(self.lab, k, "radvd.conf"),
            self.radvd[k].replace(what, instead),
        )
        .unwrap();
        readvertise(self.lab, k);
    }

    fn plug(&self, k: usize) {
        let host = format!("{}-host", name(self.lab));
        let (h, mac) = (k + 1, &self.macs[k]);
        self.isp(
            k,
            &format!(
                "ip link show cust >/dev/null 2>&1 && exit
                 ip link add cust address {mac} mtu 1500 type veth peer name up{k} mtu 1500 address 02:00:5e:00:{h:02x}:01 netns {host}
                 ip address add 3fff:{h:x}:0:1::1/64 dev cust nodad; ip link set cust up"
            ),
        );
        self.host(&format!("ip link set up{k} up"));
        readvertise(self.lab, k);
    }

    /// Repairs the network, and waits until all is well.
    fn calm(&mut self) {
        for k in 0..self.uplinks {
            for event in [NoNativeV4, ResolverBack, PluggedIn, RouterAnswers, CarrierBack, Up] {
                self.happen(event, k);
            }
        }
        for k in 0..self.uplinks {
            let usable = poll(CALM, || {
                self.advertise(k, "", "");
                std::thread::sleep(Duration::from_millis(500));
                let up = self.lab.host(&format!(
                    "ip -6 -o address show dev up{k} scope global; ip -6 route show default dev up{k}"
                ));
                up.contains("3fff:") && !up.contains("tentative") && up.contains("via fe80::")
            });
            assert!(usable, "the lab: up{k} does not come back\n{self}");
        }
        let mut last = String::new();
        let well = poll(CALM, || {
            last = format!("{:?}", in_state(self.lab, "running"));
            in_state(self.lab, "running").len() == self.uplinks
                && (0..self.uplinks).all(|k| seen(self.lab, Some(&device(k))) == Some(k))
        });
        assert!(well, "running: {last}\n{self}");
        for k in 0..self.uplinks {
            let status = status(self.lab);
            let instances = status["instances"].as_array().unwrap();
            let own = instances.iter().find(|one| one["device"] == device(k));
            let address = own.and_then(|one| one["addresses"][0].as_str());
            let address = address.unwrap_or_else(|| panic!("{status}")).to_owned();
            leaves_by(self.lab, Some(&address), k);
        }
    }
}

impl std::fmt::Display for Storm<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lab.run(
            "host",
            "ip -br address; ip rule; ip route show table all; ip -6 rule; ip -6 route show table all | grep -v 'table local'; ip -6 neigh; ip -6 neigh show proxy",
        );
        write!(
            f,
            "after {}\n{}\n{}",
            self.done.join(", "),
            tool(self.lab, &["status"]),
            state.out
        )
    }
}

fn storm(seed: u64, uplinks: &[Uplink]) {
    let seed = std::env::var("CLATD_SEED").map_or(seed, |text| text.parse().expect("CLATD_SEED is a number"));
    let mut dice = Dice(seed);
    let lab = raise(uplinks);
    instance(&lab, "clat", TEMPLATE);
    lab.host(&format!("nft '{FIREWALL}'"));
    let before = plain(sorted_state(&lab));
    let radvd = (0..uplinks.len())
        .map(|k| std::fs::read_to_string(isp_file(&lab, k, "radvd.conf")).unwrap())
        .collect();
    let mac = |k| {
        lab.run(&format!("isp{k}"), "cat /sys/class/net/cust/address")
            .ok("a MAC")
    };
    let macs = (0..uplinks.len()).map(|k| mac(k).trim().to_owned()).collect();
    let mut storm = Storm {
        daemon: start(&lab, &[], uplinks.len()),
        lab: &lab,
        uplinks: uplinks.len(),
        radvd,
        macs,
        done: vec![format!("seed {seed}")],
    };
    for _ in 0..2 {
        for _ in 0..EVENTS / 2 {
            let event = ALL[dice.below(ALL.len())];
            let k = dice.below(uplinks.len());
            storm.happen(event, k);
            // Half of them come at once after the one before.
            std::thread::sleep(Duration::from_millis(dice.below(3000).saturating_sub(1500) as u64));
        }
        storm.calm();
    }
    let ran = storm.daemon.stop(Signal::SIGTERM);
    assert_plainly_same(&lab, &before, &format!("after {}\n{ran}", storm.done.join(", ")));
    lab.assert_no_process_left("after the stop");
    running_is_over(&lab);
}

fn running_is_over(lab: &Lab) {
    assert_eq!(tool(lab, &["status"]).code, Some(1), "nobody answers any more");
}

/// Three ISPs with the same prefix.
#[test]
fn the_same_prefix_everywhere() {
    storm(13, &[Uplink::new(), Uplink::new(), Uplink::new()]);
}

/// Four ISPs, each with a prefix of its own.
#[test]
fn a_prefix_of_its_own_for_each() {
    storm(
        24,
        &[
            Uplink::new(),
            Uplink::new().plat("2001:db8:64::/96"),
            Uplink::new().plat("2001:db8:6464::/48"),
            Uplink::new().plat("2001:db8:46:46::/64"),
        ],
    );
}
