//! The key table against the typed settings.

use clatd::config::keys;
use clatd_stages::settings::Settings;

use super::*;

#[test]
fn its_keys_are_the_fields_of_the_settings() {
    let mut fields: Vec<String> = Settings::default().to_text().into_keys().collect();
    let mut names: Vec<String> = keys::all().map(|key| key.name.to_owned()).collect();
    fields.sort();
    names.sort();
    assert_eq!(names, fields);
}

#[test]
fn its_defaults_are_those_of_the_settings() {
    let conf: String = keys::all()
        .map(|key| format!("{}={}\n", key.name, key.default()))
        .collect();
    let mut settings = single(&conf, &[]);
    // Filled in for the supervisor, since they depend on there being instance files, or a service manager.
    assert_eq!(
        settings.general.when_idle.take(),
        Some(clatd_stages::settings::WhenIdle::Exit)
    );
    assert_eq!(settings.ipv4.v4_conncheck_delay.take(), Some(10));
    assert_eq!(settings.ipv4.v4_defaultroute_metric.take(), Some(2048));
    assert_eq!(settings, Settings::default());
}

#[test]
fn all_keys_of_the_clatds_of_2016_and_2_x_are_there() {
    let theirs = "quiet debug script-up script-down clat-dev clat-v4-addr clat-v6-addr dns64-servers cmd-ip cmd-ip6tables \
                  cmd-tayga forwarding-enable ip6tables-enable plat-dev plat-prefix proxynd-enable tayga-conffile \
                  tayga-v4-addr v4-conncheck-enable v4-conncheck-delay v4-defaultroute-enable v4-defaultroute-replace \
                  v4-defaultroute-metric v4-defaultroute-mtu v4-defaultroute-advmss";
    for name in theirs.split_whitespace() {
        assert_eq!(keys::find(name).unwrap().origin, keys::FirstIn::Clatd2016, "{name}");
    }
    for name in [
        "ctmark",
        "route-table",
        "plat-fallback-prefix",
        "cmd-nft",
        "cmd-ufw",
        "cmd-networkctl",
    ] {
        assert_eq!(keys::find(name).unwrap().origin, keys::FirstIn::Clatd2, "{name}");
    }
    assert_eq!(
        theirs.split_whitespace().count(),
        keys::all().filter(|key| key.origin == keys::FirstIn::Clatd2016).count()
    );
}

#[test]
fn keys_without_a_job_are_noted() {
    let tree = Tree::new(&[("clatd.conf", "cmd-ip=/sbin/ip\ncmd-ufw=\n")]);
    let loaded = tree.load(&["cmd-networkctl=/bin/true"]).unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let notes: Vec<String> = loaded.notes.iter().map(|note| tree.relative(note)).collect();
    assert_eq!(
        notes,
        [
            "clatd.conf:1: cmd-ip is given to scripts but otherwise unused: the kernel is spoken to by netlink",
            "command line: cmd-networkctl is given to scripts but otherwise unused: PLAT prefixes are found without networkctl",
            "clatd.conf:2: cmd-ufw is given to scripts but otherwise unused: UFW's chains are found like those of any other packet filter",
        ]
    );
    assert_eq!(loaded.instances[0].instance.settings.programs.cmd_ip, "/sbin/ip");
    assert_eq!(loaded.instances[0].instance.settings.programs.cmd_ufw, "");
}

/// A user who sees a word in `clatd help KEY` finds in the text what it does.
#[test]
fn every_word_of_a_value_is_explained() {
    for key in keys::all() {
        let words: Vec<&str> = match key.kind() {
            keys::ValueKind::Words(words) | keys::ValueKind::WordList(words) => words.to_vec(),
            keys::ValueKind::WordOr { word, .. } => vec![word],
            keys::ValueKind::Bool
            | keys::ValueKind::Number(_)
            | keys::ValueKind::Text(_)
            | keys::ValueKind::Ipv4
            | keys::ValueKind::Ipv6
            | keys::ValueKind::ClatV6
            | keys::ValueKind::Prefix
            | keys::ValueKind::Pool
            | keys::ValueKind::Mtu
            | keys::ValueKind::PlatCheck
            | keys::ValueKind::DnsServers
            | keys::ValueKind::Socket
            | keys::ValueKind::Maps => continue,
        };
        for word in words {
            assert!(key.full.contains(&format!("`{word}`")), "{}: {word}", key.name);
        }
    }
}
