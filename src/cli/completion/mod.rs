//! Completion for bash, zsh and fish, made from the tables of commands, options and keys. `tests/manual.rs` compares
//! the files in `completions/` with what comes out of here.

mod bash;
mod fish;
mod zsh;

use std::collections::BTreeMap;

use clatd_stages::settings::ClatV6Addr;

use super::table::{COMMANDS, CommandSpec, OPTIONS, OptionSpec};
use crate::config::keys::{self, Key, Text, ValueKind};

pub use bash::bash;
pub use fish::fish;
pub use zsh::zsh;

/// Prints the network devices.
const DEVICES: &str = "command ls /sys/class/net 2>/dev/null";
/// Prints the instances: those of the running daemon, and those that have files.
const INSTANCES: &str = "\
clatd status --json 2>/dev/null | sed -n 's/^      \"name\": \"\\(.*\\)\",*$/\\1/p'; \
command ls /etc/clatd/instances.d 2>/dev/null | sed -n 's/\\.\\(conf\\|toml\\)$//p'";

/// What may stand in one place of a command line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Values {
    /// One of these words, or something else.
    Words(Vec<&'static str>),
    /// Some of these words, separated by commas.
    List(Vec<&'static str>),
    /// A network device, or a pattern.
    Devices,
    /// An instance.
    Instances,
    /// A file.
    Files,
    /// A folder.
    Folders,
    /// A program.
    Programs,
    /// Nothing that could be listed.
    Anything,
}

impl Values {
    fn of_key(key: &Key) -> Self {
        match key.kind() {
            ValueKind::Bool => Self::Words(vec!["yes", "no"]),
            ValueKind::Words(words) => Self::Words(words.to_vec()),
            ValueKind::WordList(words) => Self::List(words.to_vec()),
            ValueKind::ClatV6 => Self::Words(ClatV6Addr::WORDS.to_vec()),
            ValueKind::Mtu => Self::Words(vec!["auto"]),
            ValueKind::WordOr { word, .. } => Self::Words(vec![word]),
            ValueKind::PlatCheck => Self::Words(vec!["yes", "no"]),
            ValueKind::Text(Text::Device) => Self::Devices,
            ValueKind::Text(Text::Path) => Self::Files,
            ValueKind::Text(Text::Program | Text::FormerProgram | Text::Shell) => Self::Programs,
            ValueKind::Text(Text::NewDevice | Text::Group | Text::User)
            | ValueKind::Number(_)
            | ValueKind::Ipv4
            | ValueKind::Ipv6
            | ValueKind::Prefix
            | ValueKind::Pool
            | ValueKind::DnsServers
            | ValueKind::Socket
            | ValueKind::Maps => Self::Anything,
        }
    }

    /// Of an argument, by what the tables call it.
    fn of_argument(name: &str) -> Self {
        match name {
            "DIR" => Self::Folders,
            "DEV" => Self::Devices,
            "INSTANCE" => Self::Instances,
            "COMMAND" => Self::Words(COMMANDS.iter().map(|command| command.name).collect()),
            name if name.starts_with("FILE") || name.ends_with(".pcap") => Self::Files,
            _ => Self::Anything,
        }
    }

    /// What there is nothing to say about is left out.
    fn is_known(&self) -> bool {
        *self != Self::Anything
    }
}

/// Keys by what their values are, so that those that take the same stand in one line.
fn keys_by_values() -> BTreeMap<Values, Vec<&'static str>> {
    let mut sorted = BTreeMap::<_, Vec<_>>::new();
    for key in keys::all() {
        sorted.entry(Values::of_key(key)).or_default().push(key.name);
    }
    sorted.retain(|values, _| values.is_known());
    sorted
}

/// Options that take an argument.
fn options_with_argument() -> impl Iterator<Item = (&'static OptionSpec, Values)> {
    OPTIONS
        .iter()
        .filter_map(|option| option.argument.map(|name| (option, Values::of_argument(name))))
}

/// `-c` and `--config`.
fn spellings(option: &OptionSpec) -> Vec<String> {
    let short = option.short.map(|short| format!("-{short}"));
    let long = option.long.map(|long| format!("--{long}"));
    short.into_iter().chain(long).collect()
}

/// What the words after a command are.
fn words_of(command: &CommandSpec) -> Option<Values> {
    command
        .words
        .first()
        .map(|name| Values::of_argument(name))
        .filter(Values::is_known)
}

/// Text inside single quotes of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
