//! Measures when IPv4 works: UDP echo every ten milliseconds.

use std::fs::File;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::bed::{Lab, SERVER, poll};

const NET_CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab-net.py");

/// A running measurement.
pub struct Meter {
    child: Child,
    out: std::path::PathBuf,
}

impl Meter {
    /// Returns when it measures.
    pub fn start(lab: &Lab) -> Self {
        let out = lab.file("meter");
        let mut command = lab.command("host");
        command.args([NET_CLIENT, "outage", SERVER]);
        let child = command
            .stdout(File::create(&out).unwrap())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("python3 starts");
        let meter = Self { child, out };
        assert!(poll(Duration::from_secs(10), || meter.read().contains("begun")));
        meter
    }

    /// When the first answer came, in seconds since 1970; waits for it.
    pub fn wait_up(&mut self) -> f64 {
        let up = || self.changes().into_iter().find(|(up, _)| *up);
        assert!(poll(Duration::from_secs(30), || up().is_some()), "no answer ever comes");
        up().unwrap().1
    }

    /// How long each outage was that has ended, in seconds, from the last answer to the next.
    pub fn outages(&self) -> Vec<f64> {
        let changes = self.changes();
        let pairs = changes.windows(2).filter(|pair| !pair[0].0 && pair[1].0);
        pairs.map(|pair| pair[1].1 - pair[0].1).collect()
    }

    /// The longest time between two answers, in seconds; at most some 0.01 while nothing happens.
    pub fn longest_gap(&self) -> f64 {
        let text = self.read();
        let gaps = text.lines().filter_map(|line| line.strip_prefix("gap ")?.parse().ok());
        gaps.fold(0.0, f64::max)
    }

    /// Whether answers come now.
    pub fn is_up(&self) -> bool {
        self.changes().last().is_some_and(|(up, _)| *up)
    }

    /// Up or down, and when.
    fn changes(&self) -> Vec<(bool, f64)> {
        let text = self.read();
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        lines
            .filter_map(|(what, time)| match what {
                "up" | "down" => Some((what == "up", time.parse().ok()?)),
                _ => None,
            })
            .collect()
    }

    fn read(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
