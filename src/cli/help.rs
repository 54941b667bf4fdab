//! What `clatd --help` and `clatd --version` print.

use std::fmt::Write;

use super::table::{COMMANDS, CommandSpec, OPTIONS, OptionSpec};
use crate::config::keys::{self, Key, SECTIONS};

/// The version, in one line.
pub fn version_text() -> String {
    format!("clatd {}\n", env!("CARGO_PKG_VERSION"))
}

/// Commands, options and keys.
pub fn help_text() -> String {
    let mut text = String::from(
        "clatd: IPv4 over every IPv6-only uplink (464XLAT CLAT, SIIT-DC edge relay)\n\n\
         Usage: clatd [COMMAND] [OPTIONS] [KEY=VALUE ...]\n",
    );
    text += "\nCommands:\n";
    for command in COMMANDS {
        entry(&mut text, 2, 26, &usage(command), command.brief);
    }
    text += "\nOptions:\n";
    for option in OPTIONS {
        let with = match option.commands {
            [] => String::new(),
            commands => format!(" (with {})", commands.join(", ")),
        };
        option_entry(&mut text, option, &with);
    }
    text += "\nKeys, on the command line, in /etc/clatd.conf and in instance files, with their defaults:\n";
    for section in SECTIONS {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {}:", section.title);
        for key in section.keys {
            entry(
                &mut text,
                4,
                24,
                key.name,
                &format!("{} [{}]", key.brief, key.default_text()),
            );
        }
    }
    text += "\nExit status: 0 when all went well or there was nothing to do, else 1.\n\
             See clatd(8) and clatd.conf(5).\n";
    text
}

/// The text about a command or a key. The parser has checked that it exists.
pub fn topic_text(topic: &str) -> String {
    let command = COMMANDS.iter().find(|command| command.name == topic);
    match (command, keys::find(topic)) {
        (Some(command), _) => command_text(command),
        (None, Some(key)) => key_text(key),
        (None, None) => help_text(),
    }
}

fn command_text(command: &CommandSpec) -> String {
    let settings = if command.settings { " [KEY=VALUE ...]" } else { "" };
    let mut text = format!("Usage: clatd {} [OPTIONS]{settings}\n\n", usage(command));
    entry(&mut text, 1, 1, "", command.brief);
    text += "\nOptions:\n";
    let goes_with = |option: &&OptionSpec| option.commands.is_empty() || option.commands.contains(&command.name);
    for option in OPTIONS.iter().filter(goes_with) {
        option_entry(&mut text, option, "");
    }
    text += "\nSee clatd(8); clatd --help lists all commands and keys.\n";
    text
}

fn key_text(key: &Key) -> String {
    let mut text = format!("{}={}\n\n", key.name, key.kind().placeholder());
    for paragraph in key.full.split("\n\n") {
        entry(&mut text, 1, 1, "", &paragraph.replace('`', "").replace('\n', " "));
    }
    let _ = writeln!(text, "\nDefault: {}. See clatd.conf(5).", key.default_text());
    text
}

fn option_entry(text: &mut String, option: &OptionSpec, with: &str) {
    entry(text, 2, 26, &option.spelling(), &format!("{}{with}", option.brief));
}

/// A command with its words, as in a synopsis.
fn usage(command: &CommandSpec) -> String {
    let words = command.words.iter().enumerate().map(|(index, word)| {
        if index < command.required {
            format!(" {word}")
        } else {
            format!(" [{word}]")
        }
    });
    format!("{}{}", command.name, words.collect::<String>())
}

/// A term and its explanation in two columns, the second wrapped at the width of a terminal.
fn entry(text: &mut String, indent: usize, width: usize, term: &str, explanation: &str) {
    let column = indent + width;
    let mut line = format!("{:indent$}{term:width$}", "");
    if term.len() >= width {
        *text += line.trim_end();
        *text += "\n";
        line = " ".repeat(column);
    }
    for word in explanation.split(' ') {
        if line.len() + word.len() > 99 && line.trim_start() != "" {
            *text += line.trim_end();
            *text += "\n";
            line = " ".repeat(column);
        }
        line += word;
        line += " ";
    }
    *text += line.trim_end();
    *text += "\n";
}
