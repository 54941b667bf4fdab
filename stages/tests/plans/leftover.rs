//! Which devices may exist already where the CLAT makes its own.

use clatd_stages::device::DeviceStage;
use clatd_stages::facts::Facts;
use clatd_stages::fixed_world::{FixedClaims, FixedWorld};
use clatd_stages::net::Link;
use clatd_stages::stage::Stage;

use crate::support::cases::{Case, link, settings, world};

/// What an earlier run of the same instance left is used; a device of somebody else's, or of another instance, is not.
#[tokio::test]
async fn only_a_device_of_this_instance_may_exist() {
    for (alias, usable) in [(Some("clatd:clat"), true), (Some("clatd:other"), false), (None, false)] {
        let device = Link {
            alias: alias.map(str::to_owned),
            ..link(9, "clat", 1500)
        };
        let case = Case {
            name: "device",
            settings: settings(&[]),
            world: FixedWorld {
                links: vec![link(2, "wan0", 1500), device],
                ..world()
            },
        };
        let mut facts = Facts::default();
        let claims = FixedClaims::new(case.world.clone(), "clat");
        let instance = case.instance();
        assert_eq!(instance.alias(), "clatd:clat");
        let observed = DeviceStage.observe(&instance, &case.world, &claims, &mut facts).await;
        assert_eq!(observed.is_ok(), usable, "{alias:?}");
    }
}
