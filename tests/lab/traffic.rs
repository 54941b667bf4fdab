//! Traffic by programs that know nothing of the CLAT.

use crate::bed::{ISP_V4, Lab, SERVER};

const NET_CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab-net.py");

pub fn ping(lab: &Lab) {
    lab.host(&format!("ping -n -c 3 -i 0.2 -W 2 {SERVER}"));
}

/// A file from the internet, compared by hash.
pub fn download(lab: &Lab, bytes: u64) {
    download_by(lab, None, bytes);
}

/// The words by which curl is bound to a device.
fn bound(device: Option<&str>) -> String {
    device.map(|device| format!("--interface {device}")).unwrap_or_default()
}

/// The same by one of several CLAT devices.
pub fn download_by(lab: &Lab, device: Option<&str>, bytes: u64) {
    let headers = format!("headers{}", device.unwrap_or_default());
    let line = format!(
        "curl -sSf -m 240 {} -D {} 'http://{SERVER}/blob?size={bytes}' | sha256sum",
        bound(device),
        lab.file(&headers).display()
    );
    let got = lab.host(&line);
    let headers = lab.read(&headers);
    let want = headers
        .lines()
        .find_map(|line| line.strip_prefix("X-SHA256: "))
        .expect("the server tells the hash");
    assert_eq!(
        got.split_whitespace().next(),
        Some(want.trim()),
        "{bytes} bytes downloaded"
    );
}

/// A file to the internet, compared by hash.
pub fn upload(lab: &Lab, bytes: u64) {
    upload_by(lab, None, bytes);
}

/// The same by one of several CLAT devices.
pub fn upload_by(lab: &Lab, device: Option<&str>, bytes: u64) {
    let file = lab.file(&format!("upload{}", device.unwrap_or_default()));
    let (file, bound) = (file.display(), bound(device));
    let line = format!(
        "head -c {bytes} /dev/urandom >{file}; sha256sum <{file}; curl -sSf -m 240 {bound} -T {file} http://{SERVER}/upload; rm {file}"
    );
    let hashes = lab.host(&line);
    let hashes: Vec<_> = hashes.lines().map(|line| line.trim_end_matches([' ', '-'])).collect();
    assert_eq!(hashes.len(), 2, "two hashes: {hashes:?}");
    assert_eq!(hashes[0], hashes[1], "{bytes} bytes uploaded");
}

/// UDP datagrams there and back, compared byte for byte.
pub fn udp(lab: &Lab, sizes: &[u32]) {
    let sizes: Vec<_> = sizes.iter().map(ToString::to_string).collect();
    lab.host(&format!("{NET_CLIENT} udp {SERVER} {}", sizes.join(" ")));
}

/// The same by one of several CLAT devices, with these further words to the client.
#[allow(dead_code, reason = "of tests/multi.rs")]
pub fn udp_by(lab: &Lab, device: &str, words: &str, sizes: &[u32]) {
    let sizes: Vec<_> = sizes.iter().map(ToString::to_string).collect();
    lab.host(&format!(
        "{NET_CLIENT} udp --device {device} {words} {SERVER} {}",
        sizes.join(" ")
    ));
}

/// The same, each at the first attempt.
#[allow(dead_code, reason = "of tests/links.rs")]
pub fn udp_at_once(lab: &Lab, sizes: &[u32]) {
    let sizes: Vec<_> = sizes.iter().map(ToString::to_string).collect();
    lab.host(&format!("{NET_CLIENT} udp --tries 1 {SERVER} {}", sizes.join(" ")));
}

/// The same with UDP checksum zero, which IPv6 does not allow: the translator must compute one.
pub fn udp_without_checksum(lab: &Lab, bytes: u32) {
    lab.host(&format!("{NET_CLIENT} udp --no-checksum {SERVER} {bytes}"));
}

/// The first hop is the translator itself, the last the server.
pub fn traceroute(lab: &Lab, first_hop: &str) {
    let shown = lab.host(&format!("traceroute -n -w 1 -q 2 -m 12 {SERVER}"));
    let hops: Vec<_> = shown.lines().skip(1).collect();
    assert!(
        hops.first().is_some_and(|hop| hop.contains(first_hop)),
        "first hop {first_hop}:\n{shown}"
    );
    assert!(
        hops.last().is_some_and(|hop| hop.contains(SERVER)),
        "{SERVER} reached:\n{shown}"
    );
}

/// The internet sees the ISP's IPv4 address.
pub fn whoami(lab: &Lab) {
    assert_eq!(
        lab.host(&format!("curl -sSf -m 10 http://{SERVER}/whoami")).trim(),
        ISP_V4
    );
}

/// A little of everything.
pub fn works(lab: &Lab) {
    ping(lab);
    whoami(lab);
    download(lab, 1_000_000);
    upload(lab, 1_000_000);
    udp(lab, &[1, 1200, 3000]);
}
