//! The translators, with packets: the PLAT's whole prefix is local, so that what leaves by IPv4 comes in by IPv6.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use clatd::kernel::TranslatorExit;
use clatd_stages::journal::Outcome;
use clatd_stages::net::Route;
use clatd_stages::op::{NewTun, Op};
use clatd_stages::settings::{Pref64Setting, Settings};
use clatd_stages::translator::{TaygaSpec, TranslatorSpec, UserspaceSpec};
use clatd_translator::{Direction, DropReason};

use crate::support::{Bed, assert_unchanged, chain, in_namespace, sh, state};

const CLAT6: &str = "2001:db8:1::c1a7";
/// An address on the IPv4 internet, and what the PLAT's prefix makes of it.
const REMOTE4: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);
const REMOTE6: &str = "64:ff9b::909:909";

/// Everything that the PLAT would answer for is answered for here.
fn plat() {
    // The kernel adds the route of an address a little later.
    sh(
        "ip -6 route replace local 64:ff9b::/96 dev lo; ip addr replace 64:ff9b::909:909/128 dev lo nodad
        for _ in $(seq 100); do
            ip -6 route show table local | grep -q 64:ff9b::909:909 && break
            sleep 0.02
        done",
    );
}

async fn device(bed: &mut Bed, persistent: bool, queues: u32) {
    plat();
    bed.apply(Op::CreateTun(NewTun {
        device: "clat".into(),
        alias: "clatd:test".into(),
        persistent,
        queues,
    }))
    .await;
    bed.apply(Op::SetDeviceSysctl {
        key: "net/ipv6/conf/clat/addr_gen_mode".into(),
        value: "1".into(),
    })
    .await;
    bed.apply(Op::SetLinkUp {
        device: "clat".into(),
        mtu: 1500,
    })
    .await;
    bed.apply(Op::AddAddress {
        device: "clat".into(),
        address: "192.0.0.1/32".parse().unwrap(),
    })
    .await;
    let mut default = Route::ours("0.0.0.0/0".parse().unwrap(), "clat");
    default.mtu = Some(1480);
    bed.apply(Op::AddRoute { route: default }).await;
    bed.apply(Op::AddRoute {
        route: Route::ours(format!("{CLAT6}/128").parse().unwrap(), "clat"),
    })
    .await;
}

fn userspace() -> Op {
    let Pref64Setting(prefix) = "64:ff9b::/96".parse().unwrap();
    let spec = UserspaceSpec::of(&Settings::default(), prefix, Some(CLAT6.parse().unwrap()), (1500, 1500));
    Op::StartTranslator {
        translator: TranslatorSpec::Userspace(spec),
    }
}

fn tayga(command: &str, arguments: &[&str]) -> Op {
    let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let spec = TaygaSpec {
        device: "clat".into(),
        command: command.into(),
        arguments,
    };
    Op::StartTranslator {
        translator: TranslatorSpec::Tayga(spec),
    }
}

fn stop() -> Op {
    Op::StopTranslator { device: "clat".into() }
}

fn delete() -> Op {
    Op::DeleteTun {
        device: "clat".into(),
        alias: "clatd:test".into(),
    }
}

async fn ping() {
    tokio::task::spawn_blocking(|| sh(&format!("ping -c 3 -i 0.05 -W 2 -q {REMOTE4}")))
        .await
        .unwrap();
}

async fn death(bed: &mut Bed) -> TranslatorExit {
    tokio::time::timeout(Duration::from_secs(3), bed.exits.recv())
        .await
        .expect("nobody told")
        .unwrap()
}

/// Sends this many bytes to the IPv6 side and back, and compares.
fn echo_by_tcp(length: usize) {
    let listener = TcpListener::bind((REMOTE6.parse::<Ipv6Addr>().unwrap(), 5000)).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), CLAT6.parse::<Ipv6Addr>().unwrap());
        let mut data = vec![0; length];
        stream.read_exact(&mut data).unwrap();
        stream.write_all(&data).unwrap();
    });
    let data: Vec<u8> = (0..length).map(|at| (at * 7 + at / 251) as u8).collect();
    let mut stream = TcpStream::connect(SocketAddr::from((REMOTE4, 5000))).unwrap();
    stream.write_all(&data).unwrap();
    let mut back = vec![0; length];
    stream.read_exact(&mut back).unwrap();
    assert!(back == data);
    server.join().unwrap();
}

fn echo_by_udp(length: usize) {
    let server = UdpSocket::bind((REMOTE6.parse::<Ipv6Addr>().unwrap(), 5001)).unwrap();
    let client = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    }
    let data: Vec<u8> = (0..length).map(|at| at as u8).collect();
    client.send_to(&data, (REMOTE4, 5001)).unwrap();
    let mut buffer = vec![0; length + 1];
    let (received, peer) = server.recv_from(&mut buffer).unwrap();
    assert!(buffer[..received] == data);
    server.send_to(&data, peer).unwrap();
    let (received, peer) = client.recv_from(&mut buffer).unwrap();
    assert!(buffer[..received] == data);
    assert_eq!(peer.ip(), REMOTE4);
}

#[test]
fn userspace_carries_traffic_and_stops() {
    in_namespace(|mut bed| async move {
        plat();
        let before = state();
        for queues in [1, 2] {
            device(&mut bed, false, queues).await;
            bed.apply(userspace()).await;
            ping().await;
            tokio::task::spawn_blocking(|| {
                echo_by_tcp(32 << 20);
                for length in [0, 1, 1400, 1472, 3000, 8000] {
                    echo_by_udp(length);
                }
            })
            .await
            .unwrap();
            bed.undo(stop(), &Outcome::NOTHING).await;
            bed.undo(delete(), &Outcome::NOTHING).await;
            assert_unchanged(&before);
        }
        // The counters outlive the translator.
        let statistics = bed.kernel.statistics();
        let counted = statistics.snapshot();
        assert!(counted.translation.packets(Direction::V4ToV6) > 100);
        assert!(counted.translation.bytes[1] > 64 << 20);
        assert_eq!(counted.write_errors, 0);
        let document = statistics.totals().document();
        assert_eq!(document.v4_to_v6.unwrap().packets["icmp"], 6);
        assert_eq!(
            document.device, None,
            "who counts by direction needs no counters of the device"
        );
        assert!(bed.exits.try_recv().is_err());
    });
}

#[test]
fn userspace_counts_drops_by_reason() {
    in_namespace(|mut bed| async move {
        device(&mut bed, false, 1).await;
        bed.apply(userspace()).await;
        sh("ip addr add 192.0.2.99/32 dev lo; ping -c 2 -i 0.05 -W 0.2 -I 192.0.2.99 9.9.9.9 || true");
        let drops = bed
            .kernel
            .statistics()
            .snapshot()
            .translation
            .drops(Direction::V4ToV6, DropReason::UnmappedSource);
        assert_eq!(drops, 2);
        let error = bed.fail(userspace()).await;
        assert!(chain(&error).contains("runs on clat already"));
        bed.apply(stop()).await;
        // The device is still open, so it can be started again.
        bed.apply(userspace()).await;
        ping().await;
        bed.apply(delete()).await;
    });
}

#[test]
fn the_death_of_the_userspace_translator_is_told() {
    in_namespace(|mut bed| async move {
        plat();
        let before = state();
        device(&mut bed, false, 1).await;
        bed.apply(userspace()).await;
        sh("ip link del clat");
        let exit = death(&mut bed).await;
        assert_eq!((exit.instance.as_str(), exit.device.as_str()), ("test", "clat"));
        assert!(exit.detail.contains("TUN device"), "{}", exit.detail);
        bed.undo(stop(), &Outcome::NOTHING).await;
        bed.undo(delete(), &Outcome::NOTHING).await;
        assert_unchanged(&before);
        let error = bed.fail(userspace()).await;
        assert!(chain(&error).contains("does not have clat open"), "{}", chain(&error));
    });
}

/// Each thread reports the end. Those that nobody read before the next start must not end that one, too.
#[test]
fn the_death_of_a_former_translator_is_not_that_of_the_next() {
    in_namespace(|mut bed| async move {
        plat();
        device(&mut bed, false, 2).await;
        bed.apply(userspace()).await;
        sh("ip link del clat");
        let first = death(&mut bed).await;
        assert!(!first.start.is_over(), "it is news until the translator is stopped");
        bed.undo(stop(), &Outcome::NOTHING).await;
        bed.undo(delete(), &Outcome::NOTHING).await;
        device(&mut bed, false, 2).await;
        bed.apply(userspace()).await;
        let second = death(&mut bed).await;
        assert!(
            second.start.is_over(),
            "the other thread's report of the first translator: {second:?}"
        );
        assert!(bed.exits.try_recv().is_err(), "the next translator runs");
        bed.undo(stop(), &Outcome::NOTHING).await;
        bed.undo(delete(), &Outcome::NOTHING).await;
    });
}

fn configuration() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!("tun-device clat\nprefix 64:ff9b::/96\nipv4-addr 192.0.0.2\nmap 192.0.0.1 {CLAT6}\n");
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn tayga_carries_traffic_and_stops() {
    in_namespace(|mut bed| async move {
        plat();
        let before = state();
        let file = configuration();
        device(&mut bed, true, 0).await;
        bed.apply(tayga(
            "tayga",
            &["--config", file.path().to_str().unwrap(), "--nodetach"],
        ))
        .await;
        ping().await;
        let statistics = bed.kernel.statistics();
        let counted = statistics.totals().document();
        assert_eq!((counted.v4_to_v6, counted.v6_to_v4), (None, None), "it does not tell");
        let device = counted.device.unwrap();
        // Each of three pings goes and comes back, by IPv4 and by IPv6.
        for passed in [device.to_translator, device.from_translator] {
            assert!(
                (6..16).contains(&passed.packets) && passed.bytes >= 6 * 84,
                "{passed:?}"
            );
        }
        tokio::task::spawn_blocking(|| echo_by_tcp(1 << 20)).await.unwrap();
        bed.undo(stop(), &Outcome::NOTHING).await;
        let in_all = statistics.totals().device.unwrap();
        // It goes there and back.
        assert!(in_all.to_translator.bytes > 2 << 20, "{in_all:?}");
        assert!(bed.exits.try_recv().is_err(), "a wanted end is not told");
        bed.undo(delete(), &Outcome::NOTHING).await;
        assert_unchanged(&before);
    });
}

#[test]
fn the_death_of_tayga_is_told_with_its_last_output() {
    in_namespace(|mut bed| async move {
        let file = configuration();
        let path = file.path().to_str().unwrap();
        device(&mut bed, true, 0).await;
        let script = format!("echo first words; echo $$ > {path}.pid; exec tayga --config {path} --nodetach");
        bed.apply(tayga("sh", &["-c", &script])).await;
        sh(&format!("kill -9 $(cat {path}.pid); rm {path}.pid"));
        let exit = death(&mut bed).await;
        assert!(exit.detail.starts_with("signal: 9"), "{}", exit.detail);
        assert!(exit.detail.contains("last output: first words"), "{}", exit.detail);
        bed.undo(stop(), &Outcome::NOTHING).await;
        bed.undo(delete(), &Outcome::NOTHING).await;
    });
}

/// A file for TAYGA's process number, which the next test names to its daemon.
const PID_FILE: &str = "CLATD_TEST_PID_FILE";

/// No test, but a process of the next one.
#[test]
#[ignore = "a process of tayga_does_not_outlive_a_killed_daemon"]
fn daemon_to_be_killed() {
    let pid_file = std::env::var(PID_FILE).expect("the next test starts it");
    in_namespace(|mut bed| async move {
        let file = configuration();
        device(&mut bed, true, 0).await;
        let script = format!("exec tayga --config {} --nodetach", file.path().display());
        bed.apply(tayga(
            "sh",
            &[
                "-c",
                &format!("echo $$ > {pid_file}.tmp; mv {pid_file}.tmp {pid_file}; {script}"),
            ],
        ))
        .await;
        tokio::time::sleep(Duration::from_secs(30)).await;
    });
}

#[test]
fn tayga_does_not_outlive_a_killed_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let pid_file = directory.path().join("pid");
    let mut daemon = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "translators::daemon_to_be_killed",
            "--nocapture",
        ])
        .env(PID_FILE, &pid_file)
        // The runner of tests has told its own of these.
        .env_remove("NEXTEST_EXECUTION_MODE")
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let wait_until = |what: &str, condition: &dyn Fn() -> bool| {
        let found = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(25));
            condition()
        });
        assert!(found, "{what}");
    };
    wait_until("TAYGA starts", &|| pid_file.exists());
    let name = format!("/proc/{}/comm", std::fs::read_to_string(&pid_file).unwrap().trim());
    let runs = || std::fs::read_to_string(&name).is_ok_and(|name| name == "tayga\n");
    wait_until("TAYGA runs", &runs);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    wait_until("TAYGA ends", &|| !runs());
}

#[test]
fn a_tayga_that_does_not_start_is_an_error_with_its_output() {
    in_namespace(|mut bed| async move {
        device(&mut bed, true, 0).await;
        let error = bed
            .fail(tayga("tayga", &["--config", "/no/such/file", "--nodetach"]))
            .await;
        assert!(
            chain(&error).contains("TAYGA ended at once") && chain(&error).contains("/no/such/file"),
            "{}",
            chain(&error)
        );
        let error = bed.fail(tayga("no-tayga", &[])).await;
        assert!(error.hint.unwrap().contains("cmd-tayga"));
        let error = bed
            .fail(tayga(
                "sh",
                &["-c", "trap '' TERM; echo idle; while :; do sleep 0.1; done"],
            ))
            .await;
        assert!(
            chain(&error).contains("did not open clat within 5 s; its last output: idle"),
            "{}",
            chain(&error)
        );
        bed.undo(stop(), &Outcome::NOTHING).await;
        bed.undo(delete(), &Outcome::NOTHING).await;
    });
}
