//! For bash, also without the package bash-completion.

use super::{
    COMMANDS, DEVICES, INSTANCES, OPTIONS, Values, keys, keys_by_values, options_with_argument, spellings, words_of,
};

/// Completion for bash.
pub fn bash() -> String {
    let mut text = beginning();
    for (option, values) in options_with_argument() {
        let answer = reply(&values);
        text += &format!("        {}) {answer} return ;;\n", spellings(option).join(" | "));
    }
    text += "    esac\n    case $cur in\n";
    text += &options_of_commands();
    text += "        *=*) _clatd_value \"${cur%%=*}\" \"${cur#*=}\" ;;\n";
    text += &words_of_commands();
    text += "    esac\n";
    text += "    [[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace 2>/dev/null\n}\n\n";
    text + &values_of_keys()
}

/// The beginning of the script, up to where it looks at the word before the cursor.
fn beginning() -> String {
    let skipped: Vec<String> = options_with_argument()
        .flat_map(|(option, _)| spellings(option))
        .collect();
    format!(
        "# bash completion for clatd; made from its tables, see tests/manual.rs\n\
         _clatd_devices() {{ {DEVICES}; }}\n\
         _clatd_instances() {{ {INSTANCES}; }}\n\
         _clatd_commands=({})\n\
         _clatd_keys=({})\n\
         \n\
         # _clatd_match BEGINNING WORD... -> what fits. Not compgen -W, which would run what stands in a device's name.\n\
         _clatd_match()\n\
         {{\n\
         \x20   local word\n\
         \x20   for word in \"${{@:2}}\"; do\n\
         \x20       [[ $word != \"$1\"* ]] || COMPREPLY+=(\"$word\")\n\
         \x20   done\n\
         }}\n\
         \n\
         _clatd()\n\
         {{\n\
         \x20   # The words as people see them: bash itself also cuts at = and :.\n\
         \x20   local line=${{COMP_LINE:0:COMP_POINT}} words=() listed cur prev command='' at\n\
         \x20   read -ra words <<<\"$line\"\n\
         \x20   [[ $line != *[[:space:]] ]] || words+=('')\n\
         \x20   cur=${{words[-1]}} prev=${{words[-2]-}}\n\
         \x20   for ((at = 1; at < ${{#words[@]}} - 1; at++)); do\n\
         \x20       case ${{words[at]}} in\n\
         \x20           {}) ((at++)) ;;\n\
         \x20           -* | *=*) ;;\n\
         \x20           *) command=${{words[at]}}; break ;;\n\
         \x20       esac\n\
         \x20   done\n\
         \x20   COMPREPLY=()\n\
         \x20   case $prev in\n",
        names(COMMANDS.iter().map(|command| command.name.to_owned())),
        names(keys::all().map(|key| format!("{}=", key.name))),
        skipped.join(" | "),
    )
}

fn options_of_commands() -> String {
    let mut text = "        -*)\n            case $command in\n".to_owned();
    for command in COMMANDS {
        text += &format!(
            "                {}) {} ;;\n",
            command.name,
            words(&options(command.name))
        );
    }
    text += &format!(
        "                *) {} ;;\n            esac ;;\n",
        words(&names(OPTIONS.iter().flat_map(spellings)))
    );
    text
}

fn words_of_commands() -> String {
    let mut text = "        *)\n            case $command in\n".to_owned();
    text += &format!(
        "                '') {} ;;\n",
        words("\"${_clatd_commands[@]}\" \"${_clatd_keys[@]}\"")
    );
    for command in COMMANDS {
        let mut answer = words_of(command).map(|values| reply(&values)).unwrap_or_default();
        if command.settings {
            answer = format!("{answer} {}", words("\"${_clatd_keys[@]}\""));
        }
        text += &format!("                {}) {} ;;\n", command.name, or_nothing(&answer));
    }
    text + "            esac ;;\n"
}

fn values_of_keys() -> String {
    let mut text =
        "# _clatd_value KEY BEGINNING\n_clatd_value()\n{\n    local listed head='' cur=$2\n    case $1 in\n".to_owned();
    for (values, keys) in keys_by_values() {
        text += &format!("        {}) {} ;;\n", keys.join(" | "), reply(&values));
    }
    text += "    esac\n\
             \x20   COMPREPLY=(\"${COMPREPLY[@]/#/$head}\")\n\
             \x20   # Where bash cuts at =, it completes what is behind it.\n\
             \x20   [[ $COMP_WORDBREAKS == *=* ]] || COMPREPLY=(\"${COMPREPLY[@]/#/$1=}\")\n\
             }\n\
             complete -F _clatd clatd\n";
    text
}

fn names(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(" ")
}

fn or_nothing(answer: &str) -> &str {
    match answer.trim() {
        "" => ":",
        answer => answer,
    }
}

/// The options that go with a command.
fn options(command: &str) -> String {
    let fitting = OPTIONS
        .iter()
        .filter(|option| option.commands.is_empty() || option.commands.contains(&command));
    names(fitting.flat_map(spellings))
}

/// A statement that completes one of these words.
fn words(words: &str) -> String {
    format!("_clatd_match \"$cur\" {words}")
}

/// The statements that complete values of this kind.
fn reply(values: &Values) -> String {
    let listed = |list: &str| format!("mapfile -t listed < <({list}); {};", words("\"${listed[@]}\""));
    match values {
        Values::Words(list) => words(&list.join(" ")) + ";",
        Values::List(list) => format!(
            "[[ $cur != *,* ]] || head=${{cur%,*}},; cur=${{cur##*,}}; {};",
            words(&list.join(" "))
        ),
        Values::Devices => listed("_clatd_devices"),
        Values::Instances => listed("_clatd_instances"),
        Values::Files => listed("compgen -f -- \"$cur\""),
        Values::Folders => listed("compgen -d -- \"$cur\""),
        Values::Programs => listed("compgen -c -- \"$cur\""),
        Values::Anything => ":;".into(),
    }
}
