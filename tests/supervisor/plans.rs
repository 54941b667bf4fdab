//! What several instances plan together: the document of `clatd plan`, with the holds that they share.

use clatd::cli::Options;
use clatd::config::{Paths, instance_for, load_from, template_for};
use clatd_stages::facts::Facts;
use clatd_stages::fixed_world::{FixedClaims, FixedWorld};
use clatd_stages::op::Op;
use clatd_stages::pipeline::{self, WithoutWaiting};
use clatd_stages::plan::{Idle, PlanDocument};
use clatd_stages::stage::{Instance, Readiness};

use crate::events::{happens, sysctls_of, two_uplinks};

/// Instance files: name and text.
type Files<'a> = &'a [(&'a str, &'a str)];

/// The instances of these files, templates unfolded over the world's uplinks.
async fn instances(files: Files<'_>, world: &FixedWorld) -> Vec<Instance> {
    let dir = tempfile::tempdir().unwrap();
    let instances_dir = dir.path().join("instances.d");
    std::fs::create_dir(&instances_dir).unwrap();
    std::fs::write(dir.path().join("clatd.conf"), "").unwrap();
    for (name, text) in files {
        std::fs::write(instances_dir.join(name), text).unwrap();
    }
    let paths = Paths {
        config: dir.path().join("clatd.conf"),
        instances_dir,
        runtime_dir: "/run/clatd".into(),
        has_service_manager: false,
    };
    let loaded = load_from(&Options::default(), &paths).unwrap();
    assert!(loaded.unable.is_empty());
    let mut instances: Vec<Instance> = loaded.instances.into_iter().map(|one| one.instance).collect();
    for uplink in clatd::uplinks::find(world).await.unwrap() {
        if let Some(template) = template_for(&loaded.templates, &uplink, &instances) {
            instances.push(instance_for(template, &uplink, &instances).unwrap().instance);
        }
    }
    // Random addresses are made out of it.
    for instance in &mut instances {
        instance.seed = 7;
    }
    instances
}

async fn document(files: Files<'_>, world: &FixedWorld) -> PlanDocument {
    let mut document = PlanDocument {
        version: PlanDocument::VERSION,
        instances: Vec::new(),
        idle: Vec::new(),
    };
    // They end together, so that none takes the address of one before it.
    let mut all_claims = Vec::new();
    for instance in instances(files, world).await {
        let claims = FixedClaims::new(world.clone(), &instance.name);
        let mut facts = Facts::default();
        let verdict = pipeline::observe(&instance, world, &claims, &mut facts, &mut WithoutWaiting)
            .await
            .unwrap();
        all_claims.push(claims);
        match verdict {
            Readiness::Ready => document.instances.push(pipeline::plan(&instance, facts).unwrap()),
            Readiness::Idle { reason } => document.idle.push(Idle {
                instance: instance.name,
                reason,
            }),
        }
    }
    document
}

/// Snapshots live beside this file.
macro_rules! snapshot {
    ($name:expr, $value:expr) => {
        insta::with_settings!({ snapshot_path => "plans", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!($name, $value);
        });
    };
}

/// A kernel before 6.17 has no `force_forwarding`: what all instances need is then shared.
fn old_kernel() -> FixedWorld {
    let mut world = two_uplinks();
    world.sysctls.retain(|key, _| !key.ends_with("force_forwarding"));
    world
}

#[tokio::test]
async fn several_instances_plan_together() {
    let two = [("a.conf", "plat-dev=wan0\n"), ("b.conf", "plat-dev=wan1\n")];
    let mut reversed = two_uplinks();
    happens(&mut reversed, "default routes wan1 wan0");
    let mut native = two_uplinks();
    happens(&mut native, "native wan1");
    let mut three = two_uplinks();
    happens(&mut three, "wan2 appears");
    happens(&mut three, "default routes wan2 wan0 wan1");
    three.sysctls.extend(sysctls_of("wan2"));
    let mut vrf = two_uplinks();
    vrf.links.push(clatd_stages::net::Link {
        vrf_table: Some(100),
        ..crate::support::cases::link(50, "blue", 65536)
    });
    for link in vrf.links.iter_mut().filter(|link| link.name == "wan1") {
        link.master = Some(50);
    }
    let other_prefix = [two[0], ("b.conf", "plat-dev=wan1\nplat-prefix=2001:db8:64::/96\n")];
    let scoped = [
        ("a.conf", "plat-dev=wan0\nv4-conncheck-scope=uplink\n"),
        ("b.conf", "plat-dev=wan1\nv4-conncheck-scope=uplink\n"),
    ];
    let one_uplink = [("a.conf", "plat-dev=wan0\n"), ("b.conf", "plat-dev=wan0\n")];
    let cases: [(&str, Files<'_>, FixedWorld); 9] = [
        ("same-prefix", &two, two_uplinks()),
        ("different-prefixes", &other_prefix, two_uplinks()),
        ("other-order-of-uplinks", &two, reversed),
        ("old-kernel-shares-forwarding", &two, old_kernel()),
        ("native-ipv4-on-one-uplink", &scoped, native.clone()),
        ("native-ipv4-idles-all", &two, native),
        ("template", &[("any.conf", "plat-dev=wan*\n")], three),
        ("two-on-one-uplink", &one_uplink, two_uplinks()),
        ("one-in-a-vrf", &two, vrf),
    ];
    for (name, files, world) in cases {
        let text = document(files, &world).await.to_string();
        snapshot!(name, text);
    }
}

/// The holds of all instances by sysctl: who shares what.
#[tokio::test]
async fn what_instances_share() {
    let two = [("a.conf", "plat-dev=wan0\n"), ("b.conf", "plat-dev=wan1\n")];
    for (name, world) in [("holds", two_uplinks()), ("holds-old-kernel", old_kernel())] {
        let document = document(&two, &world).await;
        let mut holders = std::collections::BTreeMap::<String, Vec<String>>::new();
        for plan in &document.instances {
            for step in &plan.steps {
                let held = match &step.apply {
                    Op::HoldSysctl { key, value, before } => vec![format!("{key}: {before} -> {value}")],
                    Op::HoldOnDevices(on) => {
                        let keys = on.keys();
                        keys.map(|key| format!("{key}: {} -> {}", on.before, on.value))
                            .collect()
                    }
                    _ => Vec::new(),
                };
                for hold in held {
                    holders.entry(hold).or_default().push(plan.instance.clone());
                }
            }
        }
        let lines: Vec<String> = holders
            .iter()
            .map(|(hold, instances)| format!("{hold}: {}", instances.join(", ")))
            .collect();
        snapshot!(name, lines.join("\n"));
    }
}

#[tokio::test]
async fn the_document_of_several_as_json() {
    let two = [("a.conf", "plat-dev=wan0\n"), ("b.conf", "plat-dev=wan7\n")];
    let document = document(&two, &two_uplinks()).await;
    snapshot!("json", serde_json::to_string_pretty(&document).unwrap());
}
