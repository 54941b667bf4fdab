//! Instance files: which there are, and what each instance gets.

use clatd_stages::settings::{ClatV6Addr, WhenIdle};

use super::*;

fn column<T>(loaded: &LoadedConfig, of: impl Fn(&clatd_stages::settings::Settings) -> T) -> Vec<T> {
    loaded
        .instances
        .iter()
        .map(|configured| of(&configured.instance.settings))
        .collect()
}

#[test]
fn a_file_is_an_instance() {
    let tree = Tree::new(&[
        ("b.toml", "plat-dev = \"wan1\""),
        ("a.conf", "plat-dev=wan0"),
        ("README", "not a configuration"),
        (".hidden.conf", "nor this"),
        ("a.conf~", "nor this"),
        ("c.conf.dpkg-old", "nor this"),
    ]);
    let loaded = tree.load(&[]).unwrap();
    assert!(loaded.from_instance_files);
    let names: Vec<&str> = loaded
        .instances
        .iter()
        .map(|configured| configured.instance.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(column(&loaded, |s| s.plat.plat_dev.clone().unwrap()), ["wan0", "wan1"]);
}

#[test]
fn each_gets_its_own_of_everything() {
    let files: Vec<(String, String)> = (0..7)
        .map(|n| (format!("wan{n}.conf"), format!("plat-dev=wan{n}\n")))
        .collect();
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    let loaded = Tree::new(&files).load(&[]).unwrap();
    assert_eq!(
        column(&loaded, |s| s.clat.clat_v4_addr.to_string()),
        [
            "192.0.0.1",
            "192.0.0.3",
            "192.0.0.4",
            "192.0.0.5",
            "192.0.0.6",
            "192.0.0.7",
            "192.0.0.0"
        ]
    );
    let devices: Vec<String> = (0..7).map(|n| format!("clat-wan{n}")).collect();
    assert_eq!(column(&loaded, |s| s.clat.clat_dev.clone()), devices);
    assert_eq!(
        column(&loaded, |s| s.ipv4.v4_defaultroute_metric),
        [None; 7],
        "it follows the order of the uplinks"
    );
    let tables: Vec<u32> = (0xc1a7..0xc1a7 + 7).collect();
    assert_eq!(column(&loaded, |s| s.clat.route_table), tables);
    let ordinals = loaded.instances.iter().map(|configured| configured.instance.ordinal);
    assert_eq!(ordinals.collect::<Vec<_>>(), (0..7).collect::<Vec<u32>>());
    assert_eq!(loaded.warnings, Vec::<String>::new());
    assert!(loaded.unable.is_empty());
}

#[test]
fn what_is_set_is_not_allotted_to_others() {
    let loaded = Tree::new(&[
        ("a.conf", "plat-dev=wan0\n"),
        (
            "b.conf",
            "plat-dev=wan1\nclat-v4-addr=192.0.0.1\nroute-table=0xc1a7\nv4-defaultroute-metric=2048\nclat-dev=clat-a\n",
        ),
        ("c.conf", "plat-dev=wan2\ntayga-v4-addr=192.0.0.4\n"),
    ])
    .load(&[])
    .unwrap();
    assert_eq!(
        column(&loaded, |s| s.clat.clat_v4_addr.to_string()),
        ["192.0.0.3", "192.0.0.1", "192.0.0.5"]
    );
    assert_eq!(
        column(&loaded, |s| s.clat.clat_dev.clone()),
        ["clat-a2", "clat-a", "clat-c"]
    );
    assert_eq!(column(&loaded, |s| s.clat.route_table), [0xc1a8, 0xc1a7, 0xc1a9]);
    assert_eq!(
        column(&loaded, |s| s.ipv4.v4_defaultroute_metric),
        [None, Some(2048), None]
    );
}

#[test]
fn device_names_are_shortened_without_clashes() {
    let loaded = Tree::new(&[
        ("enterprise-one.conf", "plat-dev=wan0"),
        ("enterprise-two.conf", "plat-dev=wan1"),
        ("enterprise-zwei.conf", "plat-dev=clat-enterpris3"),
        ("exactly-10.conf", "plat-dev=wan3"),
    ])
    .load(&[])
    .unwrap();
    assert_eq!(
        column(&loaded, |s| s.clat.clat_dev.clone()),
        [
            "clat-enterprise",
            "clat-enterpris2",
            "clat-enterpris4",
            "clat-exactly-10"
        ]
    );
}

#[test]
fn an_instance_without_address_leaves_the_others_alone() {
    let files: Vec<(String, String)> = (0..9)
        .map(|n| (format!("wan{n}.conf"), format!("plat-dev=wan{n}\n")))
        .collect();
    let mut files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    files[8].1 = "plat-dev=wan8\nclat-v4-addr=198.51.100.1\n";
    let tree = Tree::new(&files);
    let loaded = tree.load(&[]).unwrap();
    assert_eq!(loaded.instances.len(), 8);
    assert_eq!(loaded.unable.len(), 1);
    assert_eq!(loaded.unable[0].name, "wan7");
    assert_eq!(
        tree.relative(&loaded.unable[0].error.to_string()),
        "instances.d/wan7.conf: no address of 192.0.0.0/29 (clat-v4-pool) is left for instance wan7 (set clat-v4-addr in its file, or clat-v4-pool to a larger prefix that is used nowhere else)"
    );
}

#[test]
fn marks_are_distinct_where_addresses_are_shared() {
    let loaded = Tree::new(&[
        ("clatd.conf", "clat-v6-addr=shared\n"),
        ("a.conf", "plat-dev=wan0"),
        ("b.conf", "plat-dev=wan1"),
        ("c.conf", "plat-dev=wan2\nclat-v6-addr=derived\n"),
    ])
    .load(&[])
    .unwrap();
    assert_eq!(column(&loaded, |s| s.clat.ctmark), [Some(0xc1a7), Some(0xc1a8), None]);
    assert_eq!(column(&loaded, |s| s.clat.proxynd_enable), [false, false, true]);
    assert_eq!(
        loaded.instances[2].instance.settings.clat.clat_v6_addr,
        ClatV6Addr::Derived
    );
}

/// Native IPv4 that comes later is followed where it waits, so there is no reason to give it time at the start.
#[test]
fn what_waits_does_not_delay_the_start() {
    let delay = |words: &[&str]| single("", words).ipv4.v4_conncheck_delay;
    assert_eq!(delay(&[]), Some(10));
    assert_eq!(delay(&["when-idle=wait"]), Some(0));
    assert_eq!(delay(&["when-idle=wait", "v4-conncheck-delay=7"]), Some(7));
    let loaded = Tree::new(&[("a.conf", ""), ("b.conf", "when-idle=exit\nplat-dev=wan0\n")])
        .load(&[])
        .unwrap();
    assert_eq!(column(&loaded, |s| s.ipv4.v4_conncheck_delay), [Some(0), Some(10)]);
}

#[test]
fn a_service_manager_wants_it_to_wait() {
    let tree = Tree::new(&[]);
    let settings = |words: &[&str]| {
        let paths = Paths {
            has_service_manager: true,
            ..tree.paths()
        };
        let loaded = load_from(&options(words), &paths).unwrap();
        loaded.instances[0].instance.settings.clone()
    };
    let (default, exit) = (settings(&[]), settings(&["when-idle=exit"]));
    assert_eq!(
        (default.general.when_idle, default.ipv4.v4_conncheck_delay),
        (Some(WhenIdle::Wait), Some(0))
    );
    assert_eq!(
        (exit.general.when_idle, exit.ipv4.v4_conncheck_delay),
        (Some(WhenIdle::Exit), Some(10))
    );
    // The rest is that of a single CLAT.
    assert_eq!(default.ipv4.v4_defaultroute_metric, Some(2048));
}

#[test]
fn instances_wait_and_a_single_clat_exits() {
    assert_eq!(single("", &[]).general.when_idle, Some(WhenIdle::Exit));
    assert_eq!(single("when-idle=wait", &[]).general.when_idle, Some(WhenIdle::Wait));
    let loaded = Tree::new(&[("a.conf", ""), ("b.conf", "plat-dev=wan0\nwhen-idle=exit\n")])
        .load(&[])
        .unwrap();
    assert_eq!(
        column(&loaded, |s| s.general.when_idle),
        [Some(WhenIdle::Wait), Some(WhenIdle::Exit)]
    );
}

#[test]
fn a_single_clat_is_named_after_its_device() {
    let loaded = Tree::new(&[("clatd.conf", "clat-dev=xlat0\n")]).load(&[]).unwrap();
    assert_eq!(loaded.instances[0].instance.name, "xlat0");
    assert_eq!(loaded.instances[0].instance.settings.clat.clat_dev, "xlat0");
}

#[test]
fn the_samples_load_without_a_warning() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("instances.d");
    let load = |files: &[&str]| {
        let tree = Tree::new(&[]);
        for file in files {
            tree.write(file, &fs::read(samples.join(file)).unwrap());
        }
        let loaded = tree.load(&[]).unwrap();
        assert_eq!(loaded.warnings, Vec::<String>::new());
        assert_eq!(loaded.instances.len() + loaded.templates.len(), files.len());
        loaded
    };
    let sets: &[&[&str]] = &[
        &["modem0.conf", "modem1.conf"],
        &["fibre.toml", "lte.toml"],
        &["edge-relay.conf"],
        &["uplink.conf"],
        &["any-modem.conf"],
    ];
    for set in sets {
        load(set);
    }
    let mut named: Vec<String> = sets.concat().iter().map(|name| (*name).to_owned()).collect();
    let mut found: Vec<String> = fs::read_dir(&samples)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README")
        .collect();
    named.sort();
    found.sort();
    assert_eq!(named, found, "every sample is loaded here");
    let readme = fs::read_to_string(samples.join("README")).unwrap();
    assert!(
        found.iter().all(|name| readme.contains(name)),
        "instances.d/README names every sample"
    );
    assert!(
        load(&["edge-relay.conf"]).instances[0]
            .instance
            .settings
            .translator
            .map
            .len()
            > 1
    );
}

#[test]
fn a_pool_of_ones_own_has_room_for_more() {
    let files: Vec<(String, String)> = (0..16)
        .map(|n| (format!("wan{n:02}.conf"), format!("plat-dev=wan{n}\n")))
        .collect();
    let mut files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    files.push(("clatd.conf", "clat-v4-pool=100.64.46.0/24\n"));
    let loaded = Tree::new(&files).load(&[]).unwrap();
    assert!(loaded.unable.is_empty());
    let addresses = column(&loaded, |s| s.clat.clat_v4_addr.to_string());
    assert_eq!(addresses.len(), 16);
    assert_eq!(
        (addresses[0].as_str(), addresses[15].as_str()),
        ("100.64.46.1", "100.64.46.16")
    );
}

#[test]
fn a_pattern_makes_an_instance_for_each_uplink() {
    let loaded = Tree::new(&[("fibre.conf", "plat-dev=wan0\n"), ("modems.conf", "plat-dev=wwan*\n")])
        .load(&[])
        .unwrap();
    assert_eq!(loaded.instances.len(), 1);
    let [template] = loaded.templates.as_slice() else {
        panic!("one template")
    };
    assert!(template.matches("wwan7") && !template.matches("wan0"));
    let mut instances = vec![loaded.instances[0].instance.clone()];
    for device in ["wwan1", "wwan0"] {
        instances.push(
            clatd::config::instance_for(template, device, &instances)
                .unwrap()
                .instance,
        );
    }
    let shown: Vec<_> = instances
        .iter()
        .map(|i| {
            (
                i.name.as_str(),
                i.settings.clat.clat_dev.as_str(),
                i.settings.clat.clat_v4_addr.to_string(),
                i.settings.clat.route_table,
                i.ordinal,
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("fibre", "clat-fibre", "192.0.0.1".to_owned(), 0xc1a7, 0),
            ("modems@wwan1", "clat-wwan1", "192.0.0.3".to_owned(), 0xc1a8, 1),
            ("modems@wwan0", "clat-wwan0", "192.0.0.4".to_owned(), 0xc1a9, 2),
        ]
    );
}

#[test]
fn a_pattern_alone_needs_no_instance_file() {
    let loaded = Tree::new(&[("clatd.conf", "plat-dev=*\n")]).load(&[]).unwrap();
    assert!(loaded.instances.is_empty());
    assert_eq!(loaded.templates[0].instance_name("wan0"), "clat@wan0");
    assert_eq!(
        loaded.templates[0].configured.instance.settings.general.when_idle,
        Some(clatd_stages::settings::WhenIdle::Wait)
    );
}
