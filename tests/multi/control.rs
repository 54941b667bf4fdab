//! Status, plan and the control socket with several instances.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bed::Lab;
use crate::daemon::Daemon;
use crate::home::{EVERY_UPLINK, leaves_by, running, sorted_state, start, status, stop, three, tool};

fn connect(lab: &Lab) -> UnixStream {
    let stream = UnixStream::connect(lab.file("run").join("control.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    stream
}

/// One request, one answer.
fn ask(stream: &mut UnixStream, request: &[u8]) -> Value {
    stream.write_all(request).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

/// The document of status, and the table for people.
#[test]
fn status_tells_of_each_instance() {
    let lab = three();
    let before = sorted_state(&lab);
    assert_eq!(tool(&lab, &["status"]).code, Some(1), "no daemon");
    // Busy: each set-up takes a second, and status answers meanwhile.
    let mut daemon = Daemon::start(&lab, &[EVERY_UPLINK, "script-up=sleep 2"]);
    daemon.wait_for("three instances at work", || {
        status(&lab)["instances"]
            .as_array()
            .is_some_and(|all| all.iter().filter(|one| one["state"] == "applying").count() == 3)
    });
    running(&lab, &mut daemon, 3);
    leaves_by(&lab, Some("192.0.0.3"), 1);
    let document = status(&lab);
    assert_eq!(document["version"], 1);
    for instance in document["instances"].as_array().unwrap() {
        for key in [
            "name",
            "state",
            "since",
            "reason",
            "facts",
            "device",
            "addresses",
            "uplink",
            "counters",
            "last_error",
        ] {
            assert!(instance.get(key).is_some(), "{key}: {instance}");
        }
        let prefix = &instance["facts"]["plat_prefix"];
        assert!(
            prefix["source"].as_str().is_some_and(|source| source.contains("DNS64")),
            "{prefix}"
        );
        assert!(
            prefix["lifetime_s"].as_u64().is_some_and(|seconds| seconds <= 60),
            "{prefix}"
        );
    }
    let one = tool(&lab, &["status", "--json", "clat@up1"]).ok("status of one");
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!(one["instances"].as_array().map(Vec::len), Some(1), "{one}");
    assert_eq!(one["instances"][0]["name"], "clat@up1");
    let table = tool(&lab, &["status"]).ok("status");
    for k in 0..3 {
        assert!(
            table.contains(&format!("clat@up{k}")) && table.contains(&format!("clat-up{k}")),
            "{table}"
        );
    }
    stop(&lab, &mut daemon, &before, &[]);
}

/// Garbage, half requests, floods, clients that never read and more of them than are served at once.
#[test]
fn rude_clients_harm_nobody() {
    let lab = three();
    let before = sorted_state(&lab);
    let mut daemon = start(&lab, &[EVERY_UPLINK], 3);

    let mut stream = connect(&lab);
    for garbage in [
        &b"\n"[..],
        b"{}\n",
        b"[1,2\n",
        b"\xff\xfe\n",
        b"{\"request\":\"explode\"}\n",
    ] {
        assert!(ask(&mut stream, garbage)["error"].is_string(), "{garbage:?}");
    }
    assert_eq!(
        ask(&mut stream, b"{\"request\":\"status\"}\n")["version"],
        1,
        "the connection is good still"
    );

    // Too long a line is refused and the connection ended.
    let mut flood = connect(&lab);
    let _ = flood.write_all(&[b'x'; 100_000]);
    let mut answer = String::new();
    let _ = flood.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.contains("error"), "{answer}");

    // Half a request, and nobody reading the answers: each holds a place for a limited time only.
    let mut slow: Vec<UnixStream> = (0..30).map(|_| connect(&lab)).collect();
    for stream in &mut slow {
        stream.write_all(b"{\"request\":").unwrap();
    }
    let mut deaf: Vec<UnixStream> = (0..10).map(|_| connect(&lab)).collect();
    for stream in &mut deaf {
        stream.set_nonblocking(true).unwrap();
        for _ in 0..50 {
            let _ = stream.write_all(b"{\"request\":\"status\"}\n");
        }
    }
    let begin = Instant::now();
    assert_eq!(status(&lab)["instances"].as_array().map(Vec::len), Some(3));
    assert!(
        begin.elapsed() < Duration::from_secs(8),
        "status beside slow clients: {:?}",
        begin.elapsed()
    );

    // More than are served at once: the next waits until the slow ones have lost their patience's worth.
    let more: Vec<UnixStream> = (0..60).map(|_| connect(&lab)).collect();
    let served = crate::bed::poll(Duration::from_secs(40), || {
        status(&lab)["instances"].as_array().map(Vec::len) == Some(3)
    });
    assert!(served, "status is answered after the slow ones were dropped");
    drop((slow, deaf, more));
    leaves_by(&lab, Some("192.0.0.1"), 0);
    stop(&lab, &mut daemon, &before, &[]);
}

/// What is wrong with a request is said in words that name it and what would be right.
#[test]
fn a_wrong_request_is_told_what_is_wrong() {
    let lab = crate::home::raise(&[crate::bed::Uplink::new()]);
    let mut daemon = start(&lab, &[EVERY_UPLINK], 1);
    let mut stream = connect(&lab);
    for (request, names) in [
        (
            "{\"request\":\"status\",\"instance\":\"up0\"}",
            ["unknown field `instance`", "expected `request`"],
        ),
        (
            "{\"requst\":\"status\"}",
            ["unknown field `requst`", "expected `request`"],
        ),
        (
            "{\"request\":\"explode\"}",
            ["unknown request `explode`", "`status`, `doctor`, `events` or `reload`"],
        ),
        (
            "{\"request\":\"status\",\"request\":\"reload\"}",
            ["duplicate field", "`request`"],
        ),
        ("{\"request\":7}", ["integer `7`", "expected a string"]),
        ("{}", ["missing field", "`request`"]),
        ("[\"status\"]", ["expected an object", "\"request\":\"status\""]),
        ("\"status\"", ["expected an object", "\"request\":\"status\""]),
        ("{\"request\":\"status\"} {}", ["trailing characters", "not a request"]),
    ] {
        let answer = ask(&mut stream, format!("{request}\n").as_bytes());
        let error = answer["error"]
            .as_str()
            .unwrap_or_else(|| panic!("{request}: {answer}"));
        for name in names {
            assert!(error.contains(name), "{request}: {error}");
        }
    }
    assert_eq!(ask(&mut stream, b" {\"request\":\"status\"}\n")["version"], 1);
    daemon.stop(nix::sys::signal::Signal::SIGTERM);
}

/// Random bytes, huge lines, half requests and 200 clients that say nothing, while the daemon is busy with an uplink
/// that comes and goes: status answers at once, each time.
#[test]
fn status_answers_in_a_crowd() {
    let lab = crate::home::raise(&[crate::bed::Uplink::new(), crate::bed::Uplink::new()]);
    let mut daemon = start(&lab, &[EVERY_UPLINK], 2);
    let mut crowd: Vec<UnixStream> = Vec::new();
    let mut seed = 464_u64;
    let mut random = || {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    let mut slowest = Duration::ZERO;
    for round in 0..200 {
        let mut stream = UnixStream::connect(lab.file("run").join("control.sock")).unwrap();
        stream.set_nonblocking(true).unwrap();
        let length = match round % 4 {
            0 => 0,
            1 => random() % 300,
            2 => 100_000,
            _ => 5000,
        };
        let bytes: Vec<u8> = (0..length).map(|_| random() as u8).collect();
        let _ = stream.write_all(&bytes);
        let _ = stream.write_all(b"{\"request\":\"status\"");
        crowd.push(stream);
        if round % 10 == 0 {
            lab.host(if round % 20 == 0 {
                "ip link set up1 down"
            } else {
                "ip link set up1 up"
            });
        }
        if round % 5 == 0 || round == 199 {
            let begin = Instant::now();
            let document = ask(&mut connect(&lab), b"{\"request\":\"status\"}\n");
            assert_eq!(document["version"], 1, "round {round}");
            slowest = slowest.max(begin.elapsed());
        }
    }
    assert_eq!(crowd.len(), 200);
    assert!(slowest < Duration::from_secs(2), "the slowest answer took {slowest:?}");
    drop(crowd);
    lab.host("ip link set up1 up");
    running(&lab, &mut daemon, 2);
    daemon.stop(nix::sys::signal::Signal::SIGTERM);
}

/// `clatd plan` with a template: all instances, one document, nothing changed.
#[test]
fn the_plan_of_several_is_one_document() {
    let lab = three();
    let before = lab.state();
    let text = tool(&lab, &["plan", "--json", EVERY_UPLINK, "translator=userspace"]).ok("plan --json");
    let plan: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(plan["version"], 1);
    let instances = plan["instances"].as_array().unwrap();
    let names: Vec<_> = instances.iter().map(|one| one["instance"].as_str().unwrap()).collect();
    assert_eq!(names, ["clat@up0", "clat@up1", "clat@up2"]);
    assert_eq!(plan["idle"], serde_json::json!([]));
    let holds = |key: &str| {
        let steps = instances.iter().flat_map(|one| one["steps"].as_array().unwrap());
        steps
            .filter(|step| step["apply"]["op"] == "hold-sysctl" && step["apply"]["key"] == key)
            .count()
    };
    assert_eq!(
        holds("net/ipv6/conf/up1/proxy_ndp"),
        1,
        "an uplink's own sysctl is held by its instance alone"
    );
    let text = tool(&lab, &["plan", EVERY_UPLINK]).ok("plan");
    for k in 0..3 {
        assert!(text.contains(&format!("instance clat@up{k}")), "{text}");
    }
    lab.assert_state_is(&before, "after clatd plan");
}
