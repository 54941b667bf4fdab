//! Kea as the server.

use std::path::PathBuf;
use std::process::Child;

use serde_json::{Value, json};

use super::bed::{Bed, wait_until};

/// What to serve.
pub struct Serve {
    /// Tells servers apart.
    pub server: &'static str,
    /// Pool, its length, and that of what is delegated; `None` = nothing to delegate.
    pub pool: Option<(&'static str, u8, u8)>,
    /// T1, T2, preferred and valid lifetime.
    pub times: [u32; 4],
    pub rapid_commit: bool,
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            server: "AA01",
            pool: Some(("2001:db8:100::", 48, 64)),
            times: [1000, 2000, 3000, 4000],
            rapid_commit: false,
        }
    }
}

/// A Kea that runs until it is dropped.
pub struct Kea {
    process: Child,
    directory: PathBuf,
}

impl Kea {
    pub fn start(bed: &Bed, serve: &Serve) -> Self {
        let directory = bed.path().join(format!("kea-{}", serve.server));
        std::fs::create_dir_all(&directory).unwrap();
        let file = |name: &str| directory.join(name).to_str().unwrap().to_owned();
        std::fs::write(file("kea.conf"), configuration(serve, &file("leases.csv")).to_string()).unwrap();
        let log = std::fs::File::create(file("log")).unwrap();
        let process = bed
            .command_there("kea-dhcp6")
            .args(["-c", &file("kea.conf")])
            .env("KEA_PIDFILE_DIR", &directory)
            .env("KEA_LOCKFILE_DIR", &directory)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("nsenter: {error}"));
        let mut kea = Self { process, directory };
        wait_until("kea-dhcp6 (package kea-dhcp6-server)", || {
            assert!(
                kea.process.try_wait().unwrap().is_none(),
                "kea-dhcp6 (package kea-dhcp6-server) does not run:\n{}",
                kea.read("log")
            );
            kea.read("log").contains("DHCP6_STARTED")
        });
        kea
    }

    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// The prefixes that it has delegated and that have neither ended nor been given back.
    pub fn leases(&self) -> Vec<String> {
        let text = self.read("leases.csv");
        let mut lines = text.lines();
        let names: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
        let column = |name: &str| names.iter().position(|other| *other == name).unwrap();
        let (address, length) = (column("address"), column("prefix_len"));
        let (valid, state) = (column("valid_lifetime"), column("state"));
        // A journal: the last line on a prefix is what holds.
        let mut leases = std::collections::BTreeMap::new();
        for line in lines {
            let fields: Vec<&str> = line.split(',').collect();
            let prefix = format!("{}/{}", fields[address], fields[length]);
            leases.insert(prefix, fields[valid] != "0" && fields[state] == "0");
        }
        leases
            .into_iter()
            .filter(|(_, held)| *held)
            .map(|(prefix, _)| prefix)
            .collect()
    }

    /// How often the log has this.
    pub fn logged(&self, what: &str) -> usize {
        self.read("log").matches(what).count()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.join(name)).unwrap_or_default()
    }
}

impl Drop for Kea {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("{}", self.read("log"));
        }
    }
}

fn configuration(serve: &Serve, leases: &str) -> Value {
    let [t1, t2, preferred, valid] = serve.times;
    let pools: Vec<Value> = serve
        .pool
        .map(|(prefix, length, delegated)| json!({"prefix": prefix, "prefix-len": length, "delegated-len": delegated}))
        .into_iter()
        .collect();
    json!({"Dhcp6": {
        "interfaces-config": {"interfaces": ["isp0"]},
        "server-id": {"type": "EN", "enterprise-id": 2495, "identifier": serve.server, "persist": false},
        "lease-database": {"type": "memfile", "persist": true, "name": leases, "lfc-interval": 0},
        "renew-timer": t1, "rebind-timer": t2, "preferred-lifetime": preferred, "valid-lifetime": valid,
        "expired-leases-processing": {"hold-reclaimed-time": 0},
        "subnet6": [{
            "id": 1, "subnet": "2001:db8:0:1::/64", "interface": "isp0",
            "rapid-commit": serve.rapid_commit, "pd-pools": pools,
        }],
        "loggers": [{"name": "kea-dhcp6", "severity": "DEBUG", "debuglevel": 50,
            "output_options": [{"output": "stdout", "flush": true}]}],
    }})
}
