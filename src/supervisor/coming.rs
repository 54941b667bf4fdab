//! Instances that come and go: those of templates with their uplinks, and those that wait for others to end.

use clatd_stages::settings::Settings;
use tracing::{error, info};

use super::Supervisor;
use crate::config::{self, Configured};
use crate::report::chain;
use crate::uplinks;

impl Supervisor {
    /// Starts the instances that waited for one that has ended now.
    pub(super) fn start_waiting(&mut self) {
        for configured in std::mem::take(&mut self.waiting) {
            self.start_when_free(configured);
        }
    }

    /// Starts an instance: at once, or when those have ended that have its name, device, address, table or, for a
    /// template, its uplink.
    pub(super) fn start_when_free(&mut self, configured: Configured) {
        let wanted = &configured.instance;
        let mut free = true;
        for started in self.started.values() {
            let there = &started.configured.instance;
            let of_template = started.template.is_some() && same_uplink(&there.settings, &wanted.settings);
            if there.name == wanted.name || of_template || collide(&there.settings, &wanted.settings) {
                started.stop.cancel();
                free = false;
            }
        }
        if free {
            self.start(configured, None);
        } else {
            self.waiting.push(configured);
        }
    }

    /// Makes and ends the instances of templates as uplinks come and go.
    pub(super) async fn follow_uplinks(&mut self) {
        if self.templates.is_empty() || self.stop.is_cancelled() {
            return;
        }
        let uplinks = match uplinks::find(&*self.world).await {
            Ok(uplinks) => uplinks,
            Err(failure) => {
                error!("cannot look for uplinks: {}", chain(&failure));
                return;
            }
        };
        for (name, started) in &self.started {
            let device = started.configured.instance.settings.plat.plat_dev.as_ref();
            if started.template.is_some()
                && device.is_some_and(|device| !uplinks.contains(device))
                && !started.stop.is_cancelled()
            {
                info!("instance {name}: its uplink is gone");
                started.stop.cancel();
            }
        }
        for uplink in &uplinks {
            self.serve(uplink);
        }
    }

    /// Makes an instance for the uplink, unless it has one or no template matches.
    fn serve(&mut self, uplink: &str) {
        let started = self.started.values().map(|started| &started.configured);
        let others = started.chain(&self.waiting).map(|configured| &configured.instance);
        let Some(template) = config::template_for(&self.templates, uplink, others.clone()) else {
            return;
        };
        let name = template.instance_name(uplink);
        match config::instance_for(template, uplink, others) {
            Ok(configured) => {
                info!("instance {name}: uplink {uplink} is there");
                self.refused.remove(&name);
                let template = template.configured.instance.name.clone();
                self.start(configured, Some(template));
            }
            Err(problem) => {
                if self.refused.insert(name.clone()) {
                    error!("instance {name} cannot run: {problem}");
                }
            }
        }
    }
}

pub(super) fn same_uplink(a: &Settings, b: &Settings) -> bool {
    a.plat.plat_dev.is_some() && a.plat.plat_dev == b.plat.plat_dev
}

/// Whether two instances cannot be there at once.
pub(super) fn collide(a: &Settings, b: &Settings) -> bool {
    a.clat.clat_dev == b.clat.clat_dev
        || a.clat.clat_v4_addr == b.clat.clat_v4_addr
        || a.clat.route_table == b.clat.route_table
}
