//! The daemon itself, and the scripts.

use std::net::SocketAddr;

use super::WhenIdle;

/// Seconds that a script may take where nothing else is said.
pub const SCRIPT_TIMEOUT: u32 = 60;

section! {
    /// The daemon itself, and the scripts.
    General {
        /// 1 suppresses normal output, 2 warnings and errors too.
        quiet: u32 = 0,
        /// 1 prints debugging output, 2 more of it.
        debug: u32 = 0,
        /// Shell command run as the last step before the translator starts.
        script_up: Option<String> = None,
        /// Shell command run right after the translator has stopped.
        script_down: Option<String> = None,
        /// Seconds that a script or a helper program may take.
        script_timeout: u32 = SCRIPT_TIMEOUT,
        /// Who runs the scripts and helper programs; none = the user that the daemon runs as.
        script_user: Option<String> = None,
        /// Where the daemon serves metrics by HTTP.
        metrics_listen: Option<SocketAddr> = None,
        /// The group whose members may ask the daemon for its status.
        control_group: Option<String> = None,
        /// Whether the daemon gives up the rights that it does not need.
        hardening: bool = true,
        /// What an instance does when there is nothing to do; none = wait under a service manager and with instance
        /// files, else exit.
        when_idle: Option<WhenIdle> = None,
    }
}
