//! The commands in the documents that are not clatd's own, and where each is run.

/// Who runs a command as it stands in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunBy {
    /// `tests/lab/pages.rs`.
    Lab,
    /// `scripts/test-container`, in a container with systemd.
    Container,
    /// Nothing here can run it, for this reason.
    Nobody(&'static str),
}

/// Every such command, by page.
pub const COMMANDS: &[(&str, &str, RunBy)] = &[
    (
        "README.md",
        "./scripts/demo",
        RunBy::Nobody("README's own: raises a lab for a person"),
    ),
    ("README.md", "./scripts/test", RunBy::Nobody("it runs this test")),
    ("README.md", "./scripts/package deb", RunBy::Container),
    (
        "README.md",
        "apt-get install ./target/packages/clatd_1.0.0-1_amd64.deb",
        RunBy::Nobody("the next one, from another folder"),
    ),
    ("containers-and-lan.md", "sysctl -w net.ipv4.ip_forward=1", RunBy::Lab),
    (
        "containers-and-lan.md",
        "systemd-nspawn --boot --network-veth --bind=/dev/net/tun --capability=CAP_NET_ADMIN --directory=/var/lib/machines/one",
        RunBy::Nobody("would make a link to this machine's own network"),
    ),
    (
        "install.md",
        "apt-get install ./clatd_1.0.0-1_amd64.deb",
        RunBy::Container,
    ),
    ("install.md", "systemctl status clatd", RunBy::Container),
    (
        "install.md",
        "dnf install ./clatd-1.0.0-1.x86_64.rpm",
        RunBy::Nobody("needs Fedora"),
    ),
    ("install.md", "systemctl enable --now clatd", RunBy::Container),
    (
        "install.md",
        "tar -xzf clatd-1.0.0-linux-x86_64.tar.gz",
        RunBy::Container,
    ),
    (
        "install.md",
        "install -m 755 clatd-1.0.0-linux-x86_64/sbin/clatd /usr/sbin/clatd",
        RunBy::Container,
    ),
    (
        "install.md",
        "cargo install --locked --path .",
        RunBy::Nobody("builds for minutes"),
    ),
    (
        "install.md",
        "install -m 755 ~/.cargo/bin/clatd /usr/sbin/clatd",
        RunBy::Container,
    ),
    (
        "install.md",
        "install -m 644 scripts/systemd/clatd.service /etc/systemd/system/",
        RunBy::Container,
    ),
    ("install.md", "systemctl daemon-reload", RunBy::Container),
    ("install.md", "scripts/package deb", RunBy::Container),
    ("install.md", "scripts/package rpm", RunBy::Nobody("builds for minutes")),
    ("install.md", "scripts/package static", RunBy::Container),
    (
        "install.md",
        "scripts/package static aarch64",
        RunBy::Nobody("builds for minutes"),
    ),
    (
        "install.md",
        "scripts/package static armv7",
        RunBy::Nobody("builds for minutes"),
    ),
    (
        "ipv6-mostly.md",
        "nmcli connection modify home ipv4.dhcp-ipv6-only-preferred yes",
        RunBy::Nobody("needs a NetworkManager newer than Debian 12's"),
    ),
    (
        "migration.md",
        "apt-get install ./clatd_1.0.0-1_amd64.deb",
        RunBy::Container,
    ),
    ("multi-homing.md", "ping -I clat-lte 192.0.2.1", RunBy::Lab),
    (
        "multi-homing.md",
        "curl --interface clat-lte http://192.0.2.1/",
        RunBy::Lab,
    ),
    ("troubleshooting.md", "journalctl -u clatd", RunBy::Container),
    ("troubleshooting.md", "ip -6 route get 64:ff9b::c000:aa", RunBy::Lab),
    ("troubleshooting.md", "ping -6 -c 1 64:ff9b::808:808", RunBy::Lab),
    ("troubleshooting.md", "ip -4 route get 192.0.2.1", RunBy::Lab),
    (
        "troubleshooting.md",
        "tcpdump -ni any ip6 and net 64:ff9b::/96",
        RunBy::Lab,
    ),
    (
        "troubleshooting.md",
        "systemctl edit --runtime clatd",
        RunBy::Nobody("opens an editor"),
    ),
    ("troubleshooting.md", "systemctl restart clatd", RunBy::Container),
    ("upgrading.md", "systemctl restart clatd", RunBy::Container),
    ("upgrading.md", "systemctl disable --now clatd", RunBy::Container),
    (
        "upgrading.md",
        "rm -f /usr/local/sbin/clatd /etc/systemd/system/clatd.service",
        RunBy::Container,
    ),
    ("upgrading.md", "systemctl daemon-reload", RunBy::Container),
    (
        "upgrading.md",
        "apt-get install --allow-downgrades clatd/stable",
        RunBy::Nobody("needs Debian's archive"),
    ),
    (
        "CONTRIBUTING.md",
        "cargo install --locked cargo-nextest",
        RunBy::Nobody("builds for minutes"),
    ),
    (
        "CONTRIBUTING.md",
        "apt-get install build-essential clang mandoc zsh fish",
        RunBy::Nobody("changes this machine"),
    ),
    ("CONTRIBUTING.md", "scripts/quick", RunBy::Nobody("it runs this test")),
    ("CONTRIBUTING.md", "scripts/bless", RunBy::Nobody("changes the tree")),
    ("CONTRIBUTING.md", "git diff", RunBy::Nobody("a person reads it")),
];
