//! Levels over each other, and where a setting comes from.

use clatd::config::{Place, load_for_translating};
use clatd_stages::settings::RouteMtu;

use super::*;

#[test]
fn the_command_line_wins_over_instance_file_and_clatd_conf() {
    let tree = Tree::new(&[
        (
            "clatd.conf",
            "v4-conncheck-delay=1\nv4-defaultroute-mtu=1300\nv4-defaultroute-advmss=1000\n",
        ),
        ("wan0.conf", "\nv4-conncheck-delay=2\nv4-defaultroute-mtu=1400\n"),
    ]);
    let loaded = tree.load(&["v4-conncheck-delay=3"]).unwrap();
    let configured = &loaded.instances[0];
    let settings = &configured.instance.settings;
    assert_eq!(settings.ipv4.v4_conncheck_delay, Some(3));
    assert_eq!(settings.ipv4.v4_defaultroute_mtu, RouteMtu::Bytes(1400));
    assert_eq!(settings.ipv4.v4_defaultroute_advmss, Some(1000));
    let place = |key| tree.relative(&configured.origins[key].place.to_string());
    assert_eq!(place("v4-conncheck-delay"), "command line");
    assert_eq!(place("v4-defaultroute-mtu"), "instances.d/wan0.conf:3");
    assert_eq!(place("v4-defaultroute-advmss"), "clatd.conf:3");
    assert_eq!(place("plat-dev"), "default");
    assert_eq!(place("clat-dev"), "allotted");
    assert_eq!(
        configured.file.as_deref(),
        Some(tree.path().join("instances.d/wan0.conf").as_path())
    );
}

#[test]
fn flags_count_and_win_over_files() {
    let loaded = Tree::new(&[("clatd.conf", "debug=0\nquiet=2\n")])
        .load(&["-dd", "-q"])
        .unwrap();
    assert_eq!((loaded.base.general.debug, loaded.base.general.quiet), (2, 1));
    assert_eq!(loaded.instances[0].origins["debug"].place, Place::CommandLine);
    let loaded = Tree::new(&[("clatd.conf", "debug=1\n")]).load(&[]).unwrap();
    assert_eq!((loaded.base.general.debug, loaded.base.general.quiet), (1, 0));
    // A setting says it more exactly than a flag.
    let loaded = Tree::new(&[]).load(&["-d", "debug=2"]).unwrap();
    assert_eq!(loaded.base.general.debug, 2);
}

#[test]
fn the_last_of_a_repeated_key_wins() {
    assert_eq!(single("clat-dev=a\nclat-dev=b\n", &[]).clat.clat_dev, "b");
    assert_eq!(single("", &["clat-dev=a", "clat-dev=b"]).clat.clat_dev, "b");
}

#[test]
fn another_file_takes_the_place_of_the_usual_one() {
    let tree = Tree::new(&[("clatd.conf", "clat-dev=usual\nv4-conncheck-delay=1\n")]);
    let other = tree.path().join("other.conf");
    fs::write(&other, "clat-dev=other\n").unwrap();
    let settings = &tree.load(&["-c", other.to_str().unwrap()]).unwrap().instances[0]
        .instance
        .settings;
    assert_eq!(
        (settings.clat.clat_dev.as_str(), settings.ipv4.v4_conncheck_delay),
        ("other", Some(10))
    );
}

#[test]
fn no_file_at_all_is_the_default() {
    let loaded = Tree::new(&[]).load(&[]).unwrap();
    assert!(!loaded.from_instance_files);
    assert_eq!(loaded.warnings, Vec::<String>::new());
    assert_eq!(loaded.instances[0].instance.name, "clat");
    assert_eq!(loaded.instances[0].file, None);
    assert_eq!(loaded.instances[0].instance.runtime_dir, "/run/clatd");
}

#[test]
fn the_runtime_directory_is_absolute() {
    let tree = Tree::new(&[]);
    let paths = Paths {
        runtime_dir: "run".into(),
        ..tree.paths()
    };
    let errors = load_from(&options(&[]), &paths).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "CLATD_RUNTIME_DIR: expected an absolute path in UTF-8, not \"run\""
    );
}

/// As Debian's clatd@.service does: the common file, and one of the instance, which need not be there.
#[test]
fn of_several_files_the_later_wins_and_some_may_be_missing() {
    let tree = Tree::new(&[("clatd.conf", "clat-dev=usual\nroute-table=7\n")]);
    let path = |name: &str| tree.path().join(name);
    std::fs::write(path("other.conf"), "clat-dev=other\n").unwrap();
    let load = |names: &[&str]| {
        let options = Options {
            config: names.iter().map(|name| path(name)).collect(),
            ..options(&[])
        };
        load_from(&options, &tree.paths())
    };
    let loaded = load(&["clatd.conf", "other.conf"]).unwrap();
    let settings = &loaded.instances[0].instance.settings;
    assert_eq!(
        (settings.clat.clat_dev.as_str(), settings.clat.route_table),
        ("other", 7)
    );
    assert_eq!(loaded.warnings, [""; 0]);
    assert_eq!(
        load(&["other.conf", "clatd.conf"]).unwrap().instances[0]
            .instance
            .settings
            .clat
            .clat_dev,
        "usual"
    );

    let loaded = load(&["clatd.conf", "none.conf"]).unwrap();
    assert_eq!(loaded.instances[0].instance.settings.clat.clat_dev, "usual");
    let warnings: Vec<String> = loaded.warnings.iter().map(|warning| tree.relative(warning)).collect();
    assert_eq!(
        warnings,
        ["none.conf: cannot read the configuration file: No such file or directory (os error 2)"]
    );
    assert!(load(&["none.conf"]).is_err(), "the only one must be there");
    let errors = load(&["clatd.conf", "instances.d"]);
    std::fs::create_dir_all(path("instances.d")).unwrap();
    assert!(
        errors.is_ok() && load(&["clatd.conf", "instances.d"]).is_err(),
        "a directory is no file"
    );
}

#[test]
fn all_errors_come_at_once() {
    let tree = Tree::new(&[
        ("clatd.conf", "clat-dev=a/b\nquite=1\nplat-prefix=x\n"),
        ("wan0.conf", "what\n"),
    ]);
    let errors = tree.load(&["v4-conncheck-delay=x"]).unwrap_err();
    assert_eq!((errors.errors.len(), errors.warnings.len()), (4, 1));
    assert_eq!(errors.to_string().lines().count(), 4);
}

#[test]
fn a_file_for_translate_needs_a_prefix() {
    let tree = Tree::new(&[
        ("clatd.conf", "clat-v6-addr=2001:db8::46\n"),
        ("wan0.conf", "plat-dev=wan0\n"),
    ]);
    let of_file = |words: &[&str]| Options {
        config: vec![tree.path().join("clatd.conf")],
        ..options(words)
    };
    let errors = load_for_translating(&of_file(&[])).unwrap_err();
    assert_eq!(
        tree.relative(&errors.to_string()),
        "clatd.conf: expected plat-prefix to be set (such as plat-prefix=64:ff9b::/96)"
    );
    let loaded = load_for_translating(&of_file(&["plat-prefix=64:ff9b::/96"])).unwrap();
    assert!(!loaded.from_instance_files);
    assert_eq!(
        loaded.instances[0]
            .instance
            .settings
            .plat
            .plat_prefix
            .unwrap()
            .to_string(),
        "64:ff9b::/96"
    );
    let loaded = load_for_translating(&of_file(&["plat-prefix=2001:db8::/32"])).unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(|warning| tree.relative(warning)).collect();
    assert_eq!(
        warnings,
        ["clatd.conf:1: clat-v6-addr=2001:db8::46: is inside of plat-prefix (command line)"]
    );
}
