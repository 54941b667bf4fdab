//! Values, typed by their keys.

use std::net::Ipv4Addr;

use clatd_stages::settings::{ClatV6Addr, FirewallChoice, RouteMtu, Settings, TranslatorChoice, UnmappedSource};

use super::*;

#[test]
fn booleans_in_all_spellings() {
    for yes in ["1", "true", "on", "yes", "TRUE", "On", "yEs"] {
        assert!(
            single(&format!("v4-defaultroute-replace={yes}"), &[])
                .ipv4
                .v4_defaultroute_replace,
            "{yes}"
        );
    }
    for no in ["0", "false", "off", "no", "FALSE", "Off", "nO"] {
        assert!(
            !single(&format!("v4-conncheck-enable={no}"), &[])
                .ipv4
                .v4_conncheck_enable,
            "{no}"
        );
    }
}

#[test]
fn numbers_in_decimal_and_hex() {
    let settings = single(
        "route-table=0xC1A8\nctmark=0X10\nv4-defaultroute-metric=4294967295\nquiet=007\n",
        &[],
    );
    assert_eq!((settings.clat.route_table, settings.clat.ctmark), (0xc1a8, Some(16)));
    assert_eq!(
        (settings.ipv4.v4_defaultroute_metric, settings.general.quiet),
        (Some(u32::MAX), 7)
    );
}

#[test]
fn a_value_is_never_guessed() {
    let settings = single(
        "clat-dev=7\nplat-dev=1e3\nscript-up=true\nscript-down=0x10\ncmd-tayga=yes\n",
        &[],
    );
    assert_eq!(settings.clat.clat_dev, "7");
    assert_eq!(settings.plat.plat_dev.as_deref(), Some("1e3"));
    assert_eq!(settings.general.script_up.as_deref(), Some("true"));
    assert_eq!(settings.general.script_down.as_deref(), Some("0x10"));
    assert_eq!(settings.programs.cmd_tayga, "yes");
}

#[test]
fn an_empty_value_unsets() {
    let conf = "script-up=\nplat-dev=\nplat-prefix=  \nclat-v6-addr=\ndns64-servers=\nmap=\ntayga-conffile=\n\
                ip6tables-enable=\nv4-defaultroute-advmss=\nctmark=\ntranslator-v6-addr=\nwhen-idle=\n\
                v4-conncheck-delay=\n";
    let mut expected = Settings::default();
    expected.general.when_idle = Some(clatd_stages::settings::WhenIdle::Exit);
    expected.ipv4.v4_conncheck_delay = Some(10);
    expected.ipv4.v4_defaultroute_metric = Some(2048);
    assert_eq!(single(conf, &[]), expected);
    let words = ["plat-prefix=", "plat-dev=", "dns64-servers=", "map="];
    let settings = single(
        "plat-prefix=64:ff9b::/96\nplat-dev=wan0\ndns64-servers=::2\nmap=192.0.2.1 2001:db8::1\n",
        &words,
    );
    assert_eq!(settings, expected);
}

#[test]
fn lines_as_the_clatd_of_2016_reads_them() {
    let conf = "\u{feff}# comment\n; comment = x\n// clat-dev=no\n\n   \t\n  clat-dev  =  clat0 \t\r\n\tscript-up = ip route add x; echo \"a # b\" // c=d\t\n";
    let settings = single(conf, &[]);
    assert_eq!(settings.clat.clat_dev, "clat0");
    assert_eq!(
        settings.general.script_up.as_deref(),
        Some("ip route add x; echo \"a # b\" // c=d")
    );
}

#[test]
fn a_comment_may_be_in_any_encoding() {
    let tree = Tree::new(&[]);
    tree.write("clatd.conf", b"# gr\xfc\xdfe\nclat-dev=clat0");
    assert_eq!(
        tree.load(&[]).unwrap().instances[0].instance.settings.clat.clat_dev,
        "clat0"
    );
}

#[test]
fn addresses_prefixes_and_servers() {
    let settings = single(
        "clat-v4-addr=198.51.100.7\nclat-v6-addr=2001:DB8:0:0::46\nplat-prefix=2001:db8:64::/48\n\
         plat-fallback-prefix=64:ff9b::/96\ndns64-servers=2001:db8::53, fe80::1%wan0 ,192.0.2.53\n",
        &[],
    );
    assert_eq!(settings.clat.clat_v4_addr, Ipv4Addr::new(198, 51, 100, 7));
    assert_eq!(
        settings.clat.clat_v6_addr,
        ClatV6Addr::Address("2001:db8::46".parse().unwrap())
    );
    assert_eq!(settings.plat.plat_prefix.unwrap().to_string(), "2001:db8:64::/48");
    assert_eq!(
        settings.to_text()["dns64-servers"],
        "2001:db8::53,fe80::1%wan0,192.0.2.53"
    );
    assert_eq!(single("clat-v6-addr=Shared", &[]).clat.clat_v6_addr, ClatV6Addr::Shared);
    for prefix in [
        "2001:db8::/32",
        "2001:db8:100::/40",
        "2001:db8:1::/48",
        "2001:db8:1:100::/56",
        "2001:db8:1:1::/64",
        "2001:db8:1:1:0:1::/96",
    ] {
        assert_eq!(
            single(&format!("plat-prefix={prefix}"), &[])
                .plat
                .plat_prefix
                .unwrap()
                .to_string(),
            prefix
        );
    }
}

#[test]
fn words_in_any_case() {
    let settings = single("translator=TAYGA\nfirewall=None\nunmapped-source=prefix\n", &[]);
    assert_eq!(
        (settings.translator.translator, settings.clat.firewall),
        (TranslatorChoice::Tayga, FirewallChoice::None)
    );
    assert_eq!(settings.translator.unmapped_source, UnmappedSource::Prefix);
}

#[test]
fn a_check_of_the_plat_takes_words_and_addresses() {
    for (text, kept) in [
        ("YES", "yes"),
        ("on", "yes"),
        ("off", "no"),
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:443", "192.0.2.1:443"),
    ] {
        assert_eq!(
            single(&format!("plat-check={text}"), &[]).plat.plat_check.to_string(),
            kept
        );
    }
}

#[test]
fn maps_add_up_within_a_file() {
    let conf = "map=192.0.2.1 2001:db8::1\nquiet=0\nmap=198.51.100.8/30   2001:db8:46::8/126\n";
    assert_eq!(
        single(conf, &[]).to_text()["map"],
        "192.0.2.1/32 2001:db8::1/128,198.51.100.8/30 2001:db8:46::8/126"
    );
    // A weightier level takes the place of the others'.
    assert_eq!(
        single(conf, &["map=192.0.2.9 2001:db8::9"]).to_text()["map"],
        "192.0.2.9/32 2001:db8::9/128"
    );
}

#[test]
fn a_shared_address_needs_no_proxy_neighbour() {
    assert!(!single("clat-v6-addr=shared", &[]).clat.proxynd_enable);
    assert!(
        single("clat-v6-addr=shared\nproxynd-enable=yes", &[])
            .clat
            .proxynd_enable
    );
    assert!(single("clat-v6-addr=derived", &[]).clat.proxynd_enable);
}

#[test]
fn toml_with_native_types() {
    let toml = "# comment\nplat-dev = \"wan0\"\nv4_conncheck_enable = false\n\"v4-conncheck-delay\" = 3\nroute-table = 0x1000\n\
                proxynd-enable = \"Off\"\nforwarding-enable = 1\nv4-defaultroute-mtu = \"0x500\"\n\
                dns64-servers = [\"2001:db8::53\", \"2001:db8::54\"]\nmap = [\n  \"192.0.2.1 2001:db8::1\",\n  \"192.0.2.2 2001:db8::2\",\n]\n\
                script-up = '''\necho up\n'''\nplat-prefix = \"\"\n";
    let loaded = Tree::new(&[("wan0.toml", toml)]).load(&[]).unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let settings = &loaded.instances[0].instance.settings;
    assert_eq!(settings.plat.plat_dev.as_deref(), Some("wan0"));
    assert!(!settings.ipv4.v4_conncheck_enable && !settings.clat.proxynd_enable && settings.clat.forwarding_enable);
    assert_eq!(
        (
            settings.ipv4.v4_conncheck_delay,
            settings.clat.route_table,
            settings.ipv4.v4_defaultroute_mtu
        ),
        (Some(3), 0x1000, RouteMtu::Bytes(0x500))
    );
    assert_eq!(
        (settings.plat.dns64_servers.len(), settings.translator.map.len()),
        (2, 2)
    );
    assert_eq!(settings.general.script_up.as_deref(), Some("echo up"));
    assert_eq!(settings.plat.plat_prefix, None);
    let line = |key| {
        loaded.instances[0].origins[key]
            .place
            .to_string()
            .rsplit(':')
            .next()
            .map(str::to_owned)
            .unwrap()
    };
    assert_eq!(
        (
            line("v4-conncheck-enable"),
            line("v4-conncheck-delay"),
            line("script-up")
        ),
        ("3".into(), "4".into(), "14".into())
    );
}
