//! Instance files: which there are, and what each instance gets.

use clatd_stages::settings::{ClatV6Addr, WhenIdle};

use super::*;

fn column<T>(loaded: &Loaded, of: impl Fn(&clatd_stages::settings::Settings) -> T) -> Vec<T> {
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
    assert_eq!(column(&loaded, |s| s.plat_dev.clone().unwrap()), ["wan0", "wan1"]);
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
        column(&loaded, |s| s.clat_v4_addr.to_string()),
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
    assert_eq!(column(&loaded, |s| s.clat_dev.clone())[..2], ["clat-wan0", "clat-wan1"]);
    assert_eq!(
        column(&loaded, |s| s.v4_defaultroute_metric),
        [2048, 2049, 2050, 2051, 2052, 2053, 2054]
    );
    assert_eq!(column(&loaded, |s| s.route_table)[..3], [0xc1a7, 0xc1a8, 0xc1a9]);
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
        column(&loaded, |s| s.clat_v4_addr.to_string()),
        ["192.0.0.3", "192.0.0.1", "192.0.0.5"]
    );
    assert_eq!(column(&loaded, |s| s.clat_dev.clone()), ["clat-a2", "clat-a", "clat-c"]);
    assert_eq!(column(&loaded, |s| s.route_table), [0xc1a8, 0xc1a7, 0xc1a9]);
    assert_eq!(column(&loaded, |s| s.v4_defaultroute_metric), [2049, 2048, 2050]);
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
        column(&loaded, |s| s.clat_dev.clone()),
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
        "instances.d/wan7.conf: no address of 192.0.0.0/29 (RFC 7335) is left for instance wan7 (set clat-v4-addr in its file, or remove other instances)"
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
    assert_eq!(column(&loaded, |s| s.ctmark), [Some(0xc1a7), Some(0xc1a8), None]);
    assert_eq!(column(&loaded, |s| s.proxynd_enable), [false, false, true]);
    assert_eq!(loaded.instances[2].instance.settings.clat_v6_addr, ClatV6Addr::Derived);
}

#[test]
fn instances_wait_and_a_single_clat_exits() {
    assert_eq!(single("", &[]).when_idle, Some(WhenIdle::Exit));
    assert_eq!(single("when-idle=wait", &[]).when_idle, Some(WhenIdle::Wait));
    let loaded = Tree::new(&[("a.conf", ""), ("b.conf", "plat-dev=wan0\nwhen-idle=exit\n")])
        .load(&[])
        .unwrap();
    assert_eq!(
        column(&loaded, |s| s.when_idle),
        [Some(WhenIdle::Wait), Some(WhenIdle::Exit)]
    );
}

#[test]
fn a_single_clat_is_named_after_its_device() {
    let loaded = Tree::new(&[("clatd.conf", "clat-dev=xlat0\n")]).load(&[]).unwrap();
    assert_eq!(loaded.instances[0].instance.name, "xlat0");
    assert_eq!(loaded.instances[0].instance.settings.clat_dev, "xlat0");
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
        assert_eq!(loaded.instances.len(), files.len());
        loaded
    };
    let sets: &[&[&str]] = &[
        &["modem0.conf", "modem1.conf"],
        &["fibre.toml", "lte.toml"],
        &["edge-relay.conf"],
        &["uplink.conf"],
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
    assert!(load(&["edge-relay.conf"]).instances[0].instance.settings.map.len() > 1);
}
