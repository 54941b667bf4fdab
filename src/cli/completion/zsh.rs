//! For zsh.

use super::{
    COMMANDS, DEVICES, INSTANCES, OPTIONS, Values, keys, keys_by_values, options_with_argument, quoted, spellings,
    words_of,
};

/// Completion for zsh.
pub fn zsh() -> String {
    let skipped: Vec<String> = options_with_argument()
        .flat_map(|(option, _)| spellings(option))
        .collect();
    let mut text = format!(
        "#compdef clatd\n\
         # zsh completion for clatd; made from its tables, see tests/manual.rs\n\
         _clatd_devices() {{ compadd \"$@\" -- ${{(f)\"$({DEVICES})\"}} }}\n\
         _clatd_instances() {{ compadd \"$@\" -- ${{(f)\"$({INSTANCES})\"}} }}\n\
         \n\
         _clatd() {{\n\
         \x20   local -a commands keys options\n\
         \x20   local command at\n\
         \x20   commands=(\n{}    )\n\
         \x20   keys=(\n{}    )\n\
         \x20   for ((at = 2; at < CURRENT; at++)); do\n\
         \x20       case $words[at] in\n\
         \x20           ({}) ((at++)) ;;\n\
         \x20           (-*|*=*) ;;\n\
         \x20           (*) command=$words[at]; break ;;\n\
         \x20       esac\n\
         \x20   done\n\
         \x20   case $words[CURRENT-1] in\n",
        described(COMMANDS.iter().map(|command| (command.name.to_owned(), command.brief))),
        described(keys::all().map(|key| (format!("{}=", key.name), key.brief))),
        skipped.join("|"),
    );
    for (option, values) in options_with_argument() {
        text += &format!(
            "        ({}) {}; return ;;\n",
            spellings(option).join("|"),
            reply(&values)
        );
    }
    text += "    esac\n    case $PREFIX in\n        (-*)\n            case $command in\n";
    for command in COMMANDS {
        let fitting = OPTIONS
            .iter()
            .filter(|option| option.commands.is_empty() || option.commands.contains(&command.name));
        text += &format!("                ({}) options=({}) ;;\n", command.name, options(fitting));
    }
    text += &format!("                (*) options=({}) ;;\n", options(OPTIONS.iter()));
    text += "            esac\n            _describe -o option options ;;\n";
    text += "        (*=*) _clatd_value ;;\n        (*)\n            case $command in\n";
    text += "                ('') _describe command commands; _describe key keys -S '' ;;\n";
    for command in COMMANDS {
        let mut answers: Vec<String> = words_of(command).map(|values| reply(&values)).into_iter().collect();
        if command.settings {
            answers.push("_describe key keys -S ''".into());
        }
        text += &format!("                ({}) {} ;;\n", command.name, answers.join("; "));
    }
    text += "            esac ;;\n    esac\n}\n\n_clatd_value() {\n    local key=${PREFIX%%=*}\n    compset -P '*='\n    case $key in\n";
    for (values, keys) in keys_by_values() {
        text += &format!("        ({}) {} ;;\n", keys.join("|"), reply(&values));
    }
    text += "    esac\n}\n\n_clatd \"$@\"\n";
    text
}

fn described(entries: impl Iterator<Item = (String, &'static str)>) -> String {
    entries
        .map(|(name, brief)| format!("        {}\n", quoted(&format!("{}:{brief}", name.replace(':', "\\:")))))
        .collect()
}

fn options<'a>(options: impl Iterator<Item = &'a super::OptionSpec>) -> String {
    let entries: Vec<String> = options
        .flat_map(|option| {
            spellings(option)
                .into_iter()
                .map(|name| quoted(&format!("{name}:{}", option.brief)))
        })
        .collect();
    entries.join(" ")
}

/// A command that completes such values.
fn reply(values: &Values) -> String {
    match values {
        Values::Words(words) => format!("compadd -- {}", words.join(" ")),
        Values::List(words) => format!("compset -P '*,'; compadd -- {}", words.join(" ")),
        Values::Devices => "_clatd_devices".into(),
        Values::Instances => "_clatd_instances".into(),
        Values::Files => "_files".into(),
        Values::Folders => "_files -/".into(),
        Values::Programs => "_command_names -e".into(),
        Values::Anything => ":".into(),
    }
}
