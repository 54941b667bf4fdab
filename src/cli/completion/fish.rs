//! For fish.

use super::{COMMANDS, DEVICES, INSTANCES, OPTIONS, Values, keys, keys_by_values, quoted, words_of};

/// Completion for fish.
pub fn fish() -> String {
    let mut text = functions();
    text += "\ncomplete -c clatd -f\n";
    let commands: Vec<&str> = COMMANDS.iter().map(|command| command.name).collect();
    let none = quoted(&format!("not __fish_seen_subcommand_from {}", commands.join(" ")));
    for command in COMMANDS {
        text += &format!(
            "complete -c clatd -n {none} -a {} -d {}\n",
            command.name,
            quoted(command.brief)
        );
    }
    text += &format!("complete -c clatd -n {none} -a '(__clatd_settings)'\n");
    for command in COMMANDS {
        let seen = quoted(&format!("__fish_seen_subcommand_from {}", command.name));
        if let Some(values) = words_of(command) {
            text += &format!("complete -c clatd -n {seen} {}\n", argument(&values));
        }
        if command.settings {
            text += &format!("complete -c clatd -n {seen} -a '(__clatd_settings)'\n");
        }
    }
    text + &options()
}

/// What the rest calls.
fn functions() -> String {
    let mut text = format!(
        "# fish completion for clatd; made from its tables, see tests/manual.rs\n\
         function __clatd_devices\n    {DEVICES}\nend\n\
         function __clatd_instances\n    {}\nend\n\
         \n\
         # Keys with =, or what may stand behind the = that is there.\n\
         function __clatd_settings\n\
         \x20   set -l token (commandline -ct)\n\
         \x20   set -l key (string split -m 1 = -- $token)[1]\n\
         \x20   if not string match -q '*=*' -- $token\n\
         \x20       printf '%s\\t%s\\n'",
        INSTANCES.replace("; ", "\n    "),
    );
    for key in keys::all() {
        text += &format!(
            " \\\n            {} {}",
            quoted(&format!("{}=", key.name)),
            quoted(key.brief)
        );
    }
    text += "\n        return\n    end\n    switch $key\n";
    for (values, keys) in keys_by_values() {
        text += &format!("        case {}\n            {}\n", keys.join(" "), settings(&values));
    }
    text + "    end\nend\n"
}

fn options() -> String {
    let mut text = String::new();
    for option in OPTIONS {
        let short = option.short.map(|short| format!(" -s {short}")).unwrap_or_default();
        let long = option.long.map(|long| format!(" -l {long}")).unwrap_or_default();
        let values = option.argument.map(Values::of_argument);
        let takes = values
            .map(|values| format!(" -r {}", argument(&values)))
            .unwrap_or_default();
        let with = match option.commands {
            [] => String::new(),
            commands => format!(
                " -n {}",
                quoted(&format!("__fish_seen_subcommand_from {}", commands.join(" ")))
            ),
        };
        text += &format!(
            "complete -c clatd{with}{short}{long}{} -d {}\n",
            takes.trim_end(),
            quoted(option.brief)
        );
    }
    text
}

/// What `complete` says of an argument or a word.
fn argument(values: &Values) -> String {
    match values {
        Values::Words(words) | Values::List(words) => format!("-a {}", quoted(&words.join(" "))),
        Values::Devices => "-a '(__clatd_devices)'".into(),
        Values::Instances => "-a '(__clatd_instances)'".into(),
        Values::Files => "-F".into(),
        Values::Folders => "-a '(__fish_complete_directories)'".into(),
        Values::Programs => "-a '(__fish_complete_command)'".into(),
        Values::Anything => String::new(),
    }
}

/// A command that prints whole words `KEY=VALUE`.
fn settings(values: &Values) -> String {
    match values {
        Values::Words(words) => format!("printf '%s\\n' $key={{{}}}", words.join(",")),
        Values::List(words) => format!(
            "printf '%s\\n' (string replace -r '[^=,]*$' '' -- $token){{{}}}",
            words.join(",")
        ),
        Values::Devices => "printf '%s\\n' $key=(__clatd_devices)".into(),
        Values::Instances => "printf '%s\\n' $key=(__clatd_instances)".into(),
        Values::Files | Values::Folders => {
            "printf '%s\\n' $key=(__fish_complete_path (string split -m 1 = -- $token)[2] | string replace -r '\\t.*' '')".into()
        }
        Values::Programs => "printf '%s\\n' $key=(complete -C(string split -m 1 = -- $token)[2] | string replace -r '\\t.*' '')".into(),
        Values::Anything => String::new(),
    }
}
