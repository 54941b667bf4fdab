//! What the daemon, its threads and its programs may still do once it runs.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::bed::{Lab, Uplink, poll};
use crate::daemon::{Daemon, around, clatd, program};
use crate::traffic;

// capabilities(7), by their numbers.
const CHOWN: u32 = 0;
const DAC_OVERRIDE: u32 = 1;
const FOWNER: u32 = 3;
const KILL: u32 = 5;
const SETGID: u32 = 6;
const SETUID: u32 = 7;
const NET_BIND_SERVICE: u32 = 10;
const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// It runs nft, and needs no right to load programs.
const ENGINE: &str = "translator=userspace";

const NFT_DROPS: &str =
    "nft 'table inet closed { chain forward { type filter hook forward priority 0; policy drop; }; }'";

/// A set of capabilities as /proc shows it.
fn mask(capabilities: &[u32]) -> String {
    let bits: u64 = capabilities.iter().map(|capability| 1 << capability).sum();
    format!("{bits:016x}")
}

/// These, and what puts threads ahead of others where that cannot be allowed by a limit: setting RLIMIT_NICE takes
/// CAP_SYS_RESOURCE.
fn kept(capabilities: &[u32]) -> String {
    const SYS_NICE: u32 = 23;
    const SYS_RESOURCE: u32 = 24;
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = own.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let bits = u64::from_str_radix(effective.trim(), 16).unwrap();
    let nice: &[u32] = if bits >> SYS_RESOURCE & 1 == 1 {
        &[]
    } else {
        &[SYS_NICE]
    };
    mask(&[capabilities, nice].concat())
}

/// The fields of the status of each thread of a process, by the thread's name and number.
fn threads(pid: u32) -> BTreeMap<String, BTreeMap<String, String>> {
    let folders = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    folders
        .filter_map(|folder| {
            let folder = folder.unwrap();
            let text = std::fs::read_to_string(folder.path().join("status")).ok()?;
            let fields = fields(&text);
            Some((format!("{} {}", fields["Name"], folder.file_name().display()), fields))
        })
        .collect()
}

/// The fields of a status.
fn fields(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(field, value)| (field.to_owned(), value.trim().to_owned()))
        .collect()
}

/// All threads are behind the walls, and those that move packets have no capability left.
fn assert_walled(pid: u32, capabilities: &[u32]) {
    assert_has(pid, &kept(capabilities));
}

fn assert_has(pid: u32, kept: &str) {
    let mut movers = 0;
    for (name, fields) in threads(pid) {
        assert_eq!(fields["NoNewPrivs"], "1", "{name}");
        assert_eq!(fields["Seccomp"], "2", "{name}");
        assert_eq!(fields["CapBnd"], kept, "{name}");
        let moves_packets = name.starts_with("clat-");
        movers += usize::from(moves_packets);
        let has = if moves_packets { mask(&[]) } else { kept.to_owned() };
        assert_eq!([&fields["CapEff"], &fields["CapPrm"]], [&has, &has], "{name}");
        let filters: u32 = fields["Seccomp_filters"].parse().unwrap();
        assert_eq!(filters, 1 + u32::from(moves_packets), "{name}");
    }
    assert!(movers > 0, "no thread moves packets: {:?}", threads(pid).keys());
}

/// A program of this name comes first in PATH, which tries to write into the lab's folder, and then is the real one.
fn with_tattling(lab: &Lab, name: &str) -> String {
    let real = lab.host(&format!("command -v {name}"));
    std::fs::create_dir_all(lab.file("bin")).unwrap();
    let proof = lab.file("proof");
    let text = format!(
        "#!/bin/sh\necho ran >{}/$(basename $0).$$ 2>/dev/null\nexec {} \"$@\"\n",
        proof.display(),
        real.trim()
    );
    lab.program(&format!("bin/{name}"), &text);
    std::fs::create_dir_all(&proof).unwrap();
    format!("PATH={}:{}", lab.file("bin").display(), std::env::var("PATH").unwrap())
}

fn proofs(lab: &Lab) -> usize {
    std::fs::read_dir(lab.file("proof")).unwrap().count()
}

#[test]
fn a_running_daemon_has_only_what_it_needs() {
    let lab = Lab::raise(&Uplink::new());
    lab.host(NFT_DROPS);
    let path = with_tattling(&lab, "nft");
    let before = lab.state();
    let mut daemon = Daemon::up_in(&lab, &[path], &[ENGINE]);
    assert_walled(daemon.pid(), &[NET_ADMIN, NET_RAW]);
    traffic::works(&lab);
    assert_eq!(proofs(&lab), 0, "a program of the daemon's wrote a file");
    clatd(&lab, &["reload"]).ok("clatd reload");
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
}

#[test]
fn the_fast_path_keeps_what_loads_it() {
    let lab = Lab::raise(&Uplink::new());
    around(&lab, &[], |daemon| {
        assert_walled(daemon.pid(), &[NET_ADMIN, NET_RAW, PERFMON, BPF]);
        traffic::works(&lab);
    });
}

#[test]
fn each_setting_keeps_what_it_needs() {
    let lab = Lab::raise(&Uplink::new());
    let words = [ENGINE, "metrics-listen=[::1]:546", "control-group=daemon"];
    around(&lab, &words, |daemon| {
        assert_walled(daemon.pid(), &[CHOWN, NET_BIND_SERVICE, NET_ADMIN, NET_RAW]);
        lab.host("ss -Hltn 'sport = 546' | grep -q .");
    });
}

#[test]
fn without_hardening_nothing_is_given_up() {
    let lab = Lab::raise(&Uplink::new());
    lab.host(NFT_DROPS);
    let path = with_tattling(&lab, "nft");
    let before = lab.state();
    let mut daemon = Daemon::up_in(&lab, &[path], &[ENGINE, "hardening=no"]);
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    for (name, fields) in threads(daemon.pid()) {
        for field in ["CapEff", "CapBnd", "NoNewPrivs", "Seccomp"] {
            let line = format!("{field}:\t{}", fields[field]);
            assert!(own.contains(&line), "{name}: {line}");
        }
    }
    assert!(proofs(&lab) > 0, "the wrapper works");
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
}

#[test]
fn scripts_write_files_and_have_few_capabilities() {
    let lab = Lab::raise(&Uplink::new());
    let found = lab.file("found");
    let script = format!("script-up=grep -h ^Cap /proc/self/status >{}", found.display());
    around(&lab, &[ENGINE, &script], |_| {
        let text = lab.read("found");
        let kept = kept(&[CHOWN, DAC_OVERRIDE, FOWNER, SETGID, SETUID, NET_ADMIN, NET_RAW]);
        assert!(text.contains(&format!("CapEff:\t{kept}")), "{kept}: {text}");
        assert!(text.contains(&format!("CapBnd:\t{kept}")), "{kept}: {text}");
    });
}

#[test]
fn scripts_run_as_somebody_else() {
    let lab = Lab::raise(&Uplink::new());
    common_folder(&lab);
    let common = lab.file("common");
    let (up, down) = (common.join("up"), common.join("down"));
    let words = [
        ENGINE.to_owned(),
        "script-user=nobody".to_owned(),
        format!(
            "script-up=id -u >{0}; id -G >>{0}; grep ^CapEff /proc/self/status >>{0}",
            up.display()
        ),
        // Ending it takes a right of its own.
        format!("script-down=id -un >{}; sleep 100", down.display()),
        "script-timeout=1".to_owned(),
    ];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut daemon = Daemon::up(&lab, &words);
    let text = lab.read("common/up");
    let (uid, rest) = text.split_once('\n').unwrap();
    assert_eq!(uid, "65534", "{text}");
    assert_eq!(rest.lines().next().unwrap().split(' ').count(), 1, "one group: {text}");
    assert!(text.contains(&mask(&[])), "{text}");
    assert_walled(
        daemon.pid(),
        &[CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID, NET_ADMIN, NET_RAW],
    );
    daemon.signal(Signal::SIGTERM);
    let ran = daemon.wait_exit(std::time::Duration::from_secs(20));
    assert_eq!(lab.read("common/down"), "nobody\n", "{ran}");
    assert!(ran.err.contains("did not end within 1 s"), "{ran}");
    lab.assert_no_process_left("after the stop");

    let ran = clatd(&lab, &["script-user=no-such-user", "script-up=true"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("there is no user no-such-user (script-user)"), "{ran}");
}

/// A program that writes down who runs it, and then is the real one.
fn with_a_diary(lab: &Lab, name: &str) -> String {
    let real = lab.host(&format!("command -v {name}"));
    let diary = lab.file("common").join(name);
    let text = format!(
        "#!/bin/sh\ngrep -hE '^(Uid|Gid|Groups|Cap|NoNewPrivs)' /proc/self/status >{}.$$\nexec {} \"$@\"\n",
        diary.display(),
        real.trim()
    );
    lab.program(&format!("bin/{name}"), &text)
}

/// The fields that `with_a_diary` wrote, of each time that the program ran.
fn diary(lab: &Lab, name: &str) -> Vec<BTreeMap<String, String>> {
    let start = format!("{name}.");
    let pages = std::fs::read_dir(lab.file("common")).unwrap().map(Result::unwrap);
    pages
        .filter(|page| page.file_name().to_string_lossy().starts_with(&start))
        .map(|page| fields(&std::fs::read_to_string(page.path()).unwrap()))
        .collect()
}

/// `nobody`, with what changes the network and nothing else.
fn assert_is_network_admin(fields: &BTreeMap<String, String>) {
    assert_eq!(fields["Uid"], "65534\t65534\t65534\t65534");
    assert_eq!(fields["Gid"], "65534\t65534\t65534\t65534");
    assert_eq!(fields["Groups"], "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(fields[set], mask(&[NET_ADMIN]), "{set}");
    }
    assert_eq!(fields["NoNewPrivs"], "1");
}

/// A folder `common` in which everybody writes.
fn common_folder(lab: &Lab) {
    open_folder(lab, 0o755);
    let common = lab.file("common");
    std::fs::create_dir(&common).unwrap();
    std::fs::set_permissions(&common, std::fs::Permissions::from_mode(0o777)).unwrap();
    std::fs::create_dir(lab.file("bin")).unwrap();
}

#[test]
fn programs_run_as_script_user() {
    let lab = Lab::raise(&Uplink::new());
    lab.host(NFT_DROPS);
    lab.host("ip6tables-nft -P FORWARD DROP");
    common_folder(&lab);
    let nft = format!("cmd-nft={}", with_a_diary(&lab, "nft"));
    let ip6tables = format!("cmd-ip6tables={}", with_a_diary(&lab, "ip6tables-nft"));
    with_a_diary(&lab, "ip6tables-nft-save");
    let words = [ENGINE, "script-user=nobody", &nft, &ip6tables];
    around(&lab, &words, |_| traffic::works(&lab));
    for name in ["nft", "ip6tables-nft", "ip6tables-nft-save"] {
        let pages = diary(&lab, name);
        assert!(!pages.is_empty(), "{name} did not run");
        pages.iter().for_each(assert_is_network_admin);
    }
}

/// The file that ip6tables of the older kind locks is root's.
#[test]
fn the_older_ip6tables_keeps_the_daemons_user() {
    let lab = Lab::raise(&Uplink::new());
    lab.host("ip6tables-legacy -P FORWARD DROP");
    common_folder(&lab);
    let ip6tables = format!("cmd-ip6tables={}", with_a_diary(&lab, "ip6tables-legacy"));
    with_a_diary(&lab, "ip6tables-legacy-save");
    let words = [ENGINE, "script-user=nobody", "firewall=ip6tables", &ip6tables];
    around(&lab, &words, |_| traffic::works(&lab));
    let pages = diary(&lab, "ip6tables-legacy");
    assert!(!pages.is_empty());
    assert!(pages.iter().all(|page| page["Uid"] == "0\t0\t0\t0"), "{pages:?}");
}

/// What cannot be is said once, and IPv4 works.
#[test]
fn without_the_right_to_become_script_user_programs_run_as_the_daemons_user() {
    let lab = Lab::raise(&Uplink::new());
    lab.host(NFT_DROPS);
    around(&lab, &[ENGINE, "script-user=no-such-user"], |daemon| {
        clatd(&lab, &["reload"]).ok("clatd reload");
        let said = daemon.output().matches("there is no user no-such-user").count();
        assert_eq!(said, 1, "{}", daemon.output());
    });
}

#[test]
fn tayga_runs_as_script_user_and_ends_with_the_daemon() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let words = "translator=tayga script-user=nobody";
    let mut child = start_with_open_tun(&lab, "", words);
    let tayga = || {
        let listed = lab.run("host", &format!("pgrep -P {} tayga", child.id()));
        listed.out.trim().parse::<u32>().ok()
    };
    let running = tayga().unwrap_or_else(|| panic!("no TAYGA: {}", lab.read("clatd.log")));
    traffic::works(&lab);
    let status = std::fs::read_to_string(format!("/proc/{running}/status")).unwrap();
    assert_is_network_admin(&fields(&status));
    stop(child.id());
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}: {}", lab.read("clatd.log"));
    lab.assert_state_is(&before, "after the stop");

    let mut child = start_with_open_tun(&lab, "", words);
    child.kill().unwrap();
    child.wait().unwrap();
    lab.assert_no_process_left("after a kill");
    clatd(&lab, &["cleanup"]).ok("clatd cleanup");
    lab.assert_state_is(&before, "after the cleanup");
}

/// Rights come back by a restart only, and a reload that needs more says so.
#[test]
fn a_reload_that_needs_more_says_so() {
    let lab = Lab::raise(&Uplink::new());
    let mut daemon = Daemon::up(&lab, &[]);
    let text = lab.read("clatd.conf");
    std::fs::write(lab.file("clatd.conf"), format!("{text}script-up=true\n")).unwrap();
    clatd(&lab, &["reload"]).ok("clatd reload");
    let said = poll(std::time::Duration::from_secs(5), || {
        daemon
            .output()
            .contains("needs rights that were given up at the start (scripts")
    });
    assert!(said, "{}", daemon.output());
    daemon.wait_until_running(&lab);
    daemon.stop(Signal::SIGTERM);
}

/// As `User=` and `AmbientCapabilities=` of a systemd unit do.
#[test]
fn a_user_with_two_capabilities_can_run_it() {
    let lab = Lab::raise(&Uplink::new());
    lab.host(NFT_DROPS);
    let before = lab.state();
    open_folder(&lab, 0o755);
    std::fs::create_dir(lab.file("run")).unwrap();
    lab.host(&format!("chown 65534:65534 {}", lab.file("run").display()));
    let as_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all,+net_admin,+net_raw \
                     --ambient-caps=+net_admin,+net_raw --bounding-set=-all,+net_admin,+net_raw";
    let mut child = start_with_open_tun(&lab, as_nobody, ENGINE);
    traffic::works(&lab);
    assert_has(child.id(), &mask(&[NET_ADMIN, NET_RAW]));
    stop(child.id());
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}: {}", lab.read("clatd.log"));
    lab.assert_state_is(&before, "after the stop");
}

/// Starts clatd by `how`, and waits until IPv4 works. Everybody may open TUN devices, as udev has it, in the mounts of
/// this process alone.
fn start_with_open_tun(lab: &Lab, how: &str, words: &str) -> std::process::Child {
    let line = format!(
        "mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200 && \
         exec env CLATD_RUNTIME_DIR={} {how} {} -c {} {words}",
        lab.file("run").display(),
        program(),
        lab.file("clatd.conf").display()
    );
    let log = std::fs::File::create(lab.file("clatd.log")).unwrap();
    let mut command = lab.command("host");
    let child = command.args(["sh", "-c", &line]).stderr(log).spawn().unwrap();
    let works = poll(std::time::Duration::from_secs(30), || {
        lab.run("host", &format!("ping -n -c 1 -W 1 {}", crate::bed::SERVER))
            .code
            == Some(0)
    });
    assert!(works, "{}", lab.read("clatd.log"));
    child
}

fn open_folder(lab: &Lab, mode: u32) {
    let folder = lab.file("");
    std::fs::set_permissions(Path::new(&folder), std::fs::Permissions::from_mode(mode)).unwrap();
}

fn stop(pid: u32) {
    let status = Command::new("kill").arg(pid.to_string()).status().unwrap();
    assert!(status.success());
}
