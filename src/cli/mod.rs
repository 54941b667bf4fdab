//! The command line: a table of commands and options, a pure parser, and the help text made from the tables.

pub mod completion;
mod help;
mod parse;
mod table;

use std::path::PathBuf;

pub use help::{help_text, topic_text, version_text};
pub use parse::parse;
pub use table::{COMMANDS, CommandSpec, OPTIONS, OptionSpec};

/// What every command understands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// How often `-q` was given.
    pub quiet: u32,
    /// How often `-d` was given.
    pub debug: u32,
    /// `-c FILE`, later ones override earlier ones; none = `/etc/clatd.conf` if it exists.
    pub config: Vec<PathBuf>,
    /// `--instances-dir DIR`; none = `/etc/clatd/instances.d` if it exists.
    pub instances_dir: Option<PathBuf>,
    /// `KEY=VALUE` words, in order. The keys exist; the values are not checked yet.
    pub settings: Vec<(String, String)>,
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run in the foreground.
    Run(Options),
    /// Observe, print the plan, change nothing.
    Plan {
        /// Options for every command.
        options: Options,
        /// As JSON.
        json: bool,
        /// This instance only.
        instance: Option<String>,
    },
    /// Read the configuration and say what is wrong with it.
    Check(Options),
    /// Look for PLAT prefixes.
    Discover {
        /// Options for every command.
        options: Options,
        /// As JSON.
        json: bool,
        /// On this device only.
        device: Option<String>,
    },
    /// Ask the running daemon how it is.
    Status {
        /// Options for every command.
        options: Options,
        /// As JSON.
        json: bool,
        /// Again and again.
        watch: bool,
        /// This instance only.
        instance: Option<String>,
    },
    /// Say where packets stop.
    Doctor {
        /// Options for every command.
        options: Options,
        /// As JSON.
        json: bool,
        /// This instance only.
        instance: Option<String>,
    },
    /// Follow what happens.
    Events {
        /// Options for every command.
        options: Options,
        /// As JSON.
        json: bool,
    },
    /// Print the metrics.
    Metrics(Options),
    /// Make the running daemon read its configuration again.
    Reload(Options),
    /// Undo what a killed daemon left behind.
    Cleanup {
        /// Options for every command.
        options: Options,
        /// Only say what would be undone.
        dry_run: bool,
    },
    /// Run packets of a file through the translator.
    Translate {
        /// Options for every command; `config` is set.
        options: Options,
        /// MTU of the IPv4 side.
        mtu4: Option<u32>,
        /// MTU of the IPv6 side.
        mtu6: Option<u32>,
        /// Packets to read.
        input: PathBuf,
        /// Packets to write.
        output: PathBuf,
    },
    /// Print [`help_text`], or [`topic_text`] about a command or a key.
    Help {
        /// The name of a command or a key.
        topic: Option<String>,
    },
    /// Print [`version_text`].
    Version,
}

/// A command line that makes no sense: one line with the word at fault, and a hint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem} ({hint})")]
pub struct UsageError {
    /// What is wrong.
    pub problem: String,
    /// What may help.
    pub hint: String,
}

impl UsageError {
    fn new(problem: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            hint: "try: clatd --help".into(),
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}
