//! The key table and the command table as manual pages and sample configuration. `tests/manual.rs` compares the files
//! in `man/` with the result.

use std::fmt::Write;

use super::keys::{FirstIn, Key, Number, SECTIONS, ValueKind, all};
use crate::cli::{COMMANDS, OPTIONS};

/// Where a generated part of a manual page begins and ends: whole lines.
pub const BEGIN: &str = ".\\\" BEGIN generated: ";
/// See [`BEGIN`].
pub const END: &str = ".\\\" END generated";

/// The generated parts of the manual pages, by the name that stands after [`BEGIN`].
pub fn parts() -> Vec<(&'static str, String)> {
    vec![
        ("keys", keys()),
        ("commands", commands()),
        ("options", options()),
        ("variables", variables()),
    ]
}

/// A manual page with its generated parts renewed.
pub fn refresh(page: &str) -> String {
    let parts = parts();
    let mut fresh = String::new();
    let mut skipping = false;
    for line in page.lines() {
        if line == END {
            skipping = false;
        }
        if !skipping {
            fresh += line;
            fresh += "\n";
        }
        let named = line
            .strip_prefix(BEGIN)
            .and_then(|name| parts.iter().find(|(part, _)| *part == name));
        if let Some((_, text)) = named {
            fresh += text;
            skipping = true;
        }
    }
    fresh
}

/// The keys as mdoc lists, one for each section.
fn keys() -> String {
    let mut page = String::new();
    for section in SECTIONS {
        let _ = writeln!(page, ".Ss {}\n.Bl -tag -width Ds", section.title);
        for key in section.keys {
            let _ = writeln!(
                page,
                ".It Cm {} Ns = Ns Ar {}",
                key.name,
                literal(&key.kind().placeholder())
            );
            page += &mdoc(key.full);
            page += &numbers(key.kind());
            let _ = writeln!(page, ".br\nDefault: {}{}", shown_default(key), origin(key));
        }
        page += ".El\n";
    }
    page
}

/// The range of a number, where the text does not have it.
fn numbers(kind: ValueKind) -> String {
    match kind {
        ValueKind::Number(Number::Range(min, max)) => format!("From {min} to {max}.\n"),
        ValueKind::Number(Number::ZeroOr(min, max)) => format!("0, or from {min} to {max}.\n"),
        ValueKind::WordOr { min, max, .. } => format!("Numbers from {min} to {max}.\n"),
        ValueKind::Number(Number::RouteTable)
        | ValueKind::Bool
        | ValueKind::Text(_)
        | ValueKind::Ipv4
        | ValueKind::Ipv6
        | ValueKind::ClatV6
        | ValueKind::Prefix
        | ValueKind::Pool
        | ValueKind::Mtu
        | ValueKind::WordList(_)
        | ValueKind::PlatCheck
        | ValueKind::DnsServers
        | ValueKind::Socket
        | ValueKind::Words(_)
        | ValueKind::Maps => String::new(),
    }
}

fn shown_default(key: &Key) -> String {
    let default = key.default();
    if default.is_empty() {
        format!("{}.", roman(key.unset))
    } else {
        format!("\\fB{}\\fR.", literal(&default))
    }
}

fn origin(key: &Key) -> &'static str {
    match key.origin {
        FirstIn::Clatd2016 => "",
        FirstIn::Clatd2 => "\nAs in clatd 2.x.",
        FirstIn::Ours => "\nNot known to other clatds.",
    }
}

fn commands() -> String {
    let mut page = ".Bl -tag -width Ds\n".to_owned();
    for command in COMMANDS {
        let words = command.words.iter().enumerate().map(|(index, word)| {
            if index < command.required {
                format!(" Ar {word}")
            } else {
                format!(" Op Ar {word}")
            }
        });
        let settings = if command.settings {
            " Op Ar KEY Ns = Ns Ar VALUE ..."
        } else {
            ""
        };
        let _ = writeln!(
            page,
            ".It Cm {}{}{settings}\n{}",
            command.name,
            words.collect::<String>(),
            roman(&sentence(command.brief))
        );
    }
    page + ".El\n"
}

fn options() -> String {
    let mut page = ".Bl -tag -width Ds\n".to_owned();
    for option in OPTIONS {
        let short = option.short.map(|short| format!("Fl {short}"));
        let long = option.long.map(|long| format!("Fl \\-{}", literal(long)));
        let names: Vec<String> = short.into_iter().chain(long).collect();
        let argument = option
            .argument
            .map(|argument| format!(" Ar {argument}"))
            .unwrap_or_default();
        let _ = writeln!(
            page,
            ".It {}{argument}\n{}",
            names.join(" , "),
            roman(&sentence(option.brief))
        );
        if !option.commands.is_empty() {
            let _ = writeln!(page, "Goes with {}.", option.commands.join(", "));
        }
    }
    page + ".El\n"
}

/// The scripts' environment: a variable for each key.
fn variables() -> String {
    let names: Vec<String> = all().map(|key| format!(".Ev {}", key.variable())).collect();
    format!("{} .\n", names.join(" ,\n"))
}

fn sentence(brief: &str) -> String {
    let mut chars = brief.chars();
    let first = chars
        .next()
        .map(|first| first.to_uppercase().to_string())
        .unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}

/// Text of the table as mdoc: paragraphs, and bold for text in backticks.
fn mdoc(text: &str) -> String {
    text.lines()
        .map(|line| {
            if line.is_empty() {
                ".Pp\n".to_owned()
            } else {
                format!("{}\n", roman(line))
            }
        })
        .collect()
}

fn roman(line: &str) -> String {
    let pieces = line.split('`').enumerate().map(|(index, piece)| match index % 2 {
        1 => format!("\\fB{}\\fR", literal(piece)),
        _ => piece.replace('\\', "\\e"),
    });
    let mut page = String::new();
    wrap(&mut page, "", 80, &pieces.collect::<String>());
    // mdoc would take a line of text that begins like a macro for one.
    let lines = page.trim_end().lines().map(|line| {
        if line.starts_with(['.', '\'']) {
            format!("\\&{line}")
        } else {
            line.to_owned()
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn literal(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// A configuration with each key explained, commented out and set to its default.
pub fn sample() -> String {
    let mut text = String::from(
        "# Sample configuration of clatd: every key with its default. See clatd.conf(5).\n\
         # A comment has a line of its own and begins with \"#\", \";\" or \"//\".\n",
    );
    for section in SECTIONS {
        let _ = writeln!(text, "\n\n# ---- {} ----", section.title);
        for key in section.keys {
            text += "\n";
            for paragraph in key.full.split("\n\n") {
                wrap(&mut text, "# ", 100, &paragraph.replace('`', "\"").replace('\n', " "));
            }
            let default = key.default();
            if default.is_empty() {
                wrap(&mut text, "# ", 100, &format!("Unset: {}.", key.unset));
            }
            let _ = writeln!(text, "#{}={default}", key.name);
        }
    }
    text
}

/// Appends words in lines of at most `width` characters.
fn wrap(text: &mut String, prefix: &str, width: usize, words: &str) {
    let mut line = prefix.to_owned();
    for word in words.split(' ').filter(|word| !word.is_empty()) {
        if line.len() + word.len() > width && line != prefix {
            *text += line.trim_end();
            *text += "\n";
            prefix.clone_into(&mut line);
        }
        line += word;
        line += " ";
    }
    *text += line.trim_end();
    *text += "\n";
}
