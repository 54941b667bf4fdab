//! Completion for bash, zsh and fish, made from the tables of commands, options and keys. `tests/manual.rs` compares
//! the files in `completions/` with what comes out of here.

mod bash;
mod fish;
mod zsh;

use std::collections::BTreeMap;

use clatd_stages::settings::ClatV6Addr;

use super::table::{COMMANDS, CommandSpec, OPTIONS, OptionSpec};
use crate::config::keys::{self, Key, Kind, Text};

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
            Kind::Bool => Self::Words(vec!["yes", "no"]),
            Kind::Words(words) => Self::Words(words.to_vec()),
            Kind::WordList(words) => Self::List(words.to_vec()),
            Kind::ClatV6 => Self::Words(ClatV6Addr::WORDS.to_vec()),
            Kind::Mtu => Self::Words(vec!["auto"]),
            Kind::WordOr { word, .. } => Self::Words(vec![word]),
            Kind::PlatCheck => Self::Words(vec!["yes", "no"]),
            Kind::Text(Text::Device) => Self::Devices,
            Kind::Text(Text::Path) => Self::Files,
            Kind::Text(Text::Program | Text::FormerProgram | Text::Shell) => Self::Programs,
            Kind::Text(Text::NewDevice | Text::Group | Text::User)
            | Kind::Number(_)
            | Kind::Ipv4
            | Kind::Ipv6
            | Kind::Prefix
            | Kind::Pool
            | Kind::DnsServers
            | Kind::Socket
            | Kind::Maps => Self::Anything,
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
