//! What the daemon tells those who ask: events, metrics, and who may ask.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::bed::{Lab, Ran, Uplink, poll};
use crate::daemon::program;
use crate::home::{EVERY_UPLINK, PATIENCE, raise, running, start, status, tool};

/// A clatd command as another user, in these groups.
fn as_nobody(lab: &Lab, groups: &str, words: &str) -> Ran {
    let line = format!(
        "CLATD_RUNTIME_DIR={} setpriv --reuid=65534 --regid=65534 {groups} {} {words}",
        lab.file("run").display(),
        program()
    );
    lab.run("host", &line)
}

#[test]
fn events_are_followed() {
    let lab = raise(&[Uplink::new()]);
    let mut daemon = start(&lab, &[EVERY_UPLINK], 1);
    let mut follower = lab
        .command("host")
        .arg("env")
        .arg(format!("CLATD_RUNTIME_DIR={}", lab.file("run").display()))
        .args([&program(), "events", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let (sender, events) = std::sync::mpsc::channel::<Value>();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let _ = sender.send(serde_json::from_str(&line).unwrap());
        }
    });
    std::thread::sleep(std::time::Duration::from_secs(1));
    lab.host("ip link set up0 down");
    let mut seen: Vec<Value> = Vec::new();
    let idle = poll(PATIENCE, || {
        seen.extend(events.try_iter());
        seen.iter()
            .any(|event| event["instance"] == "clat@up0" && (event["kind"] == "state" || event["text"] == "ended"))
    });
    assert!(idle, "{seen:?}\n{}", daemon.output());
    assert!(seen.iter().all(|event| event["time_ms"].as_u64().is_some()), "{seen:?}");
    lab.host("ip link set up0 up");
    running(&lab, &mut daemon, 1);
    let remembered = status(&lab)["instances"][0]["events"].clone();
    assert!(
        remembered
            .as_array()
            .is_some_and(|events| (1..=10).contains(&events.len())),
        "{remembered}"
    );
    assert!(remembered.to_string().contains("running"), "{remembered}");
    // The stop of the daemon is the end of the events.
    daemon.stop(Signal::SIGTERM);
    let ended = poll(PATIENCE, || follower.try_wait().unwrap().is_some());
    assert!(ended, "clatd events ends with the daemon");
}

#[test]
fn metrics_are_served_where_one_says() {
    let lab = raise(&[Uplink::new()]);
    let mut daemon = start(&lab, &[EVERY_UPLINK, "metrics-listen=127.0.0.1:9464"], 1);
    let text = lab.host("curl -sSf -m 5 http://127.0.0.1:9464/metrics");
    let up = "clatd_instance_up{clat=\"clat@up0\",uplink=\"up0\",prefix=\"64:ff9b::/96\"} 1";
    assert!(text.contains(up), "{text}");
    let printed = tool(&lab, &["metrics"]).ok("clatd metrics");
    let families = |text: &str| text.lines().filter(|line| line.starts_with("# TYPE")).count();
    assert_eq!(families(&text), families(&printed));
    let head = lab.host("curl -sS -m 5 -D - -o /dev/null http://127.0.0.1:9464/metrics");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    for (words, code) in [
        ("http://127.0.0.1:9464/", "404"),
        ("-X POST http://127.0.0.1:9464/metrics", "405"),
    ] {
        let got = lab.host(&format!("curl -sS -m 5 -o /dev/null -w '%{{http_code}}' {words}"));
        assert_eq!(got, code, "{words}");
    }
    // No other address serves metrics, and clients that never finish their request do not stop others from reading.
    let elsewhere = lab.run("host", "curl -sSf -m 2 'http://[::1]:9464/metrics'");
    assert_ne!(elsewhere.code, Some(0), "{elsewhere}");
    let script = "import socket, time\nc = [socket.create_connection(('127.0.0.1', 9464)) for _ in range(40)]\n[s.send(b'GET /met') for s in c]\ntime.sleep(20)";
    let mut rude = lab.command("host").args(["python3", "-c", script]).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let read = poll(PATIENCE, || {
        lab.run("host", "curl -sSf -m 30 http://127.0.0.1:9464/metrics").code == Some(0)
    });
    assert!(read, "{}", daemon.output());
    rude.kill().unwrap();
    rude.wait().unwrap();
    daemon.stop(Signal::SIGTERM);
}

/// The group may look, root may change, nobody else may do either.
#[test]
fn who_may_ask_for_what() {
    let lab = raise(&[Uplink::new()]);
    let folder = lab.file("run").parent().unwrap().to_owned();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711)).unwrap();
    let mut daemon = start(&lab, &[EVERY_UPLINK, "control-group=adm"], 1);
    for words in ["status --json", "metrics", "doctor"] {
        let ran = as_nobody(&lab, "--groups=4", words);
        assert_eq!(ran.code, Some(0), "{words}: {ran}");
        assert!(ran.out.contains("clat@up0"), "{words}: {ran}");
        let ran = as_nobody(&lab, "--clear-groups", words);
        assert_eq!(ran.code, Some(1), "{words}: {ran}");
        assert!(ran.err.contains("control-group"), "{words}: {ran}");
    }
    let events = as_nobody(&lab, "--groups=4", "events & sleep 1; kill $!; wait $!");
    assert!(!events.err.contains("may not"), "{events}");
    let ran = as_nobody(&lab, "--groups=4", "reload");
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.err.contains("only root may change anything"), "{ran}");
    // Nothing else in there is to be read.
    let ran = lab.run(
        "host",
        &format!(
            "setpriv --reuid=65534 --regid=65534 --groups=4 ls {}",
            lab.file("run").display()
        ),
    );
    assert_ne!(ran.code, Some(0), "{ran}");
    tool(&lab, &["reload"]).ok("root may");
    daemon.stop(Signal::SIGTERM);
    // Without the key only root may ask.
    let mut daemon = start(&lab, &[EVERY_UPLINK], 1);
    assert_eq!(as_nobody(&lab, "--groups=4", "status").code, Some(1));
    daemon.stop(Signal::SIGTERM);
}

/// A real Prometheus reads it, the alert rules and all that the dashboard asks for.
#[test]
fn prometheus_understands_it() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/examples/prometheus");
    let prometheus = unpacked("prometheus");
    let lab = raise(&[Uplink::new()]);
    let mut daemon = start(&lab, &[EVERY_UPLINK, "metrics-listen=127.0.0.1:9464"], 1);
    let checked = format!(
        "curl -sSf http://127.0.0.1:9464/metrics | {} check metrics",
        unpacked("promtool")
    );
    lab.host(&checked);
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [\"{examples}/clatd-alerts.yml\"]\n\
         scrape_configs: [{{job_name: clatd, static_configs: [{{targets: [\"127.0.0.1:9464\"]}}]}}]\n"
    );
    std::fs::write(lab.file("prometheus.yml"), config).unwrap();
    let mut server = lab
        .command("host")
        .arg(&prometheus)
        .arg(format!("--config.file={}", lab.file("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", lab.file("tsdb").display()))
        .arg("--web.listen-address=127.0.0.1:9090")
        .stderr(std::fs::File::create(lab.file("prometheus.err")).unwrap())
        .spawn()
        .unwrap();
    let query = |text: &str| -> Value {
        let asked = format!("curl -sS -m 5 --data-urlencode 'query={text}' http://127.0.0.1:9090/api/v1/query");
        serde_json::from_str(&lab.run("host", &asked).out).unwrap_or_default()
    };
    let scraped = poll(PATIENCE, || {
        let up = query("clatd_instance_up");
        let sample = &up["data"]["result"][0];
        sample["metric"]["clat"] == "clat@up0" && sample["value"][1] == "1"
    });
    assert!(scraped, "{}", lab.read("prometheus.err"));
    let evaluated = poll(PATIENCE, || {
        let rules = lab.run("host", "curl -sS -m 5 http://127.0.0.1:9090/api/v1/rules").out;
        rules.matches("\"health\":\"ok\"").count() == 3
    });
    assert!(evaluated, "{}", lab.read("prometheus.err"));
    let dashboard: Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{examples}/clatd-dashboard.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    for target in panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap()) {
        let expression = target["expr"].as_str().unwrap();
        let expression = expression.replace("$clat", ".*").replace("$__rate_interval", "1m");
        assert_eq!(query(&expression)["status"], "success", "{expression}");
    }
    server.kill().unwrap();
    server.wait().unwrap();
    daemon.stop(Signal::SIGTERM);
}

/// A program that scripts/test unpacks, or one of this machine.
fn unpacked(name: &str) -> String {
    let unpacked = concat!(env!("CARGO_MANIFEST_DIR"), "/target/lab-programs/usr/bin");
    let places = [unpacked, "/usr/bin"].map(|folder| format!("{folder}/{name}"));
    let found = places.iter().find(|path| std::path::Path::new(path).exists());
    found
        .unwrap_or_else(|| panic!("{name} is missing (Debian package prometheus); scripts/test unpacks it"))
        .clone()
}
