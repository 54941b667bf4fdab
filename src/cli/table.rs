//! The commands and options, once: the parser, `clatd --help` and clatd(8) all come from here.

/// An option.
#[derive(Debug, PartialEq, Eq)]
pub struct OptionSpec {
    /// `-x`, without the dash.
    pub short: Option<char>,
    /// `--xyz`, without the dashes.
    pub long: Option<&'static str>,
    /// What its argument is called; none = it takes none.
    pub argument: Option<&'static str>,
    /// One line.
    pub brief: &'static str,
    /// The commands that take it; empty = all.
    pub commands: &'static [&'static str],
    /// What the parser does with it.
    pub(super) action: Action,
}

/// What the parser does with an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Quiet,
    Debug,
    Config,
    InstancesDir,
    DryRun,
    Json,
    Watch,
    Mtu4,
    Mtu6,
    Help,
    Version,
}

impl OptionSpec {
    /// As people write it.
    pub fn spelling(&self) -> String {
        let short = self.short.map(|short| format!("-{short}"));
        let long = self.long.map(|long| format!("--{long}"));
        let names: Vec<String> = short.into_iter().chain(long).collect();
        let argument = self.argument.map(|argument| format!(" {argument}")).unwrap_or_default();
        names.join(", ") + &argument
    }
}

const ALL: &[&str] = &[];

/// All options.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        short: Some('q'),
        long: None,
        argument: None,
        brief: "less output: once no normal output, twice no warnings and errors either",
        commands: ALL,
        action: Action::Quiet,
    },
    OptionSpec {
        short: Some('d'),
        long: None,
        argument: None,
        brief: "debugging output; twice for more",
        commands: ALL,
        action: Action::Debug,
    },
    OptionSpec {
        short: Some('c'),
        long: Some("config"),
        argument: Some("FILE"),
        brief: "configuration file, instead of /etc/clatd.conf; a later one wins over an earlier one",
        commands: ALL,
        action: Action::Config,
    },
    OptionSpec {
        short: None,
        long: Some("instances-dir"),
        argument: Some("DIR"),
        brief: "directory of instance files, instead of /etc/clatd/instances.d",
        commands: ALL,
        action: Action::InstancesDir,
    },
    OptionSpec {
        short: None,
        long: Some("dry-run"),
        argument: None,
        brief: "say what would be done, change nothing",
        commands: &["run", "plan", "cleanup"],
        action: Action::DryRun,
    },
    OptionSpec {
        short: None,
        long: Some("json"),
        argument: None,
        brief: "print JSON",
        commands: &["plan", "discover", "status", "doctor", "events"],
        action: Action::Json,
    },
    OptionSpec {
        short: None,
        long: Some("watch"),
        argument: None,
        brief: "show it again and again, with rates and graphs",
        commands: &["status"],
        action: Action::Watch,
    },
    OptionSpec {
        short: None,
        long: Some("mtu4"),
        argument: Some("N"),
        brief: "MTU of the IPv4 side in bytes, 1500 if not given",
        commands: &["translate"],
        action: Action::Mtu4,
    },
    OptionSpec {
        short: None,
        long: Some("mtu6"),
        argument: Some("N"),
        brief: "MTU of the IPv6 side in bytes, 1500 if not given",
        commands: &["translate"],
        action: Action::Mtu6,
    },
    OptionSpec {
        short: Some('h'),
        long: Some("help"),
        argument: None,
        brief: "print this and exit",
        commands: ALL,
        action: Action::Help,
    },
    OptionSpec {
        short: Some('V'),
        long: Some("version"),
        argument: None,
        brief: "print the version and exit",
        commands: ALL,
        action: Action::Version,
    },
];

/// A command.
#[derive(Debug, PartialEq, Eq)]
pub struct CommandSpec {
    /// The word; `run` is understood when there is none.
    pub name: &'static str,
    /// What the words after it are called, in order.
    pub words: &'static [&'static str],
    /// How many of them must be there.
    pub required: usize,
    /// Whether it takes `KEY=VALUE`.
    pub settings: bool,
    /// One line.
    pub brief: &'static str,
}

/// All commands.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        name: "run",
        words: &[],
        required: 0,
        settings: true,
        brief: "run in the foreground until SIGINT or SIGTERM (what clatd does without a command)",
    },
    CommandSpec {
        name: "plan",
        words: &["INSTANCE"],
        required: 0,
        settings: true,
        brief: "observe and print the plan, change nothing (also: clatd --dry-run)",
    },
    CommandSpec {
        name: "check",
        words: &[],
        required: 0,
        settings: true,
        brief: "read the configuration and print all that is wrong with it",
    },
    CommandSpec {
        name: "discover",
        words: &["DEV"],
        required: 0,
        settings: true,
        brief: "look for PLAT prefixes on each uplink, or on DEV",
    },
    CommandSpec {
        name: "status",
        words: &["INSTANCE"],
        required: 0,
        settings: false,
        brief: "show the state of the running daemon's instances",
    },
    CommandSpec {
        name: "doctor",
        words: &["INSTANCE"],
        required: 0,
        settings: true,
        brief: "walk the path of the packets, say where they stop and what to do",
    },
    CommandSpec {
        name: "events",
        words: &[],
        required: 0,
        settings: false,
        brief: "follow what happens to the running daemon's instances",
    },
    CommandSpec {
        name: "metrics",
        words: &[],
        required: 0,
        settings: false,
        brief: "print the running daemon's metrics as Prometheus text",
    },
    CommandSpec {
        name: "reload",
        words: &[],
        required: 0,
        settings: false,
        brief: "make the running daemon read its configuration again (also: SIGHUP)",
    },
    CommandSpec {
        name: "cleanup",
        words: &[],
        required: 0,
        settings: true,
        brief: "undo what a killed clatd left behind",
    },
    CommandSpec {
        name: "translate",
        words: &["IN.pcap", "OUT.pcap"],
        required: 2,
        settings: true,
        brief: "run the packets of a file through the translator; needs --config",
    },
    CommandSpec {
        name: "help",
        words: &["COMMAND"],
        required: 0,
        settings: false,
        brief: "print this, or what there is to know about a command or a key",
    },
    CommandSpec {
        name: "version",
        words: &[],
        required: 0,
        settings: false,
        brief: "print the version",
    },
];
