//! From words to a [`Command`].

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::table::{Action, COMMANDS, CommandSpec, OPTIONS, OptionSpec};
use super::{Command, Options, UsageError};
use crate::config::keys::{self, nearest};

/// Makes a command out of the arguments, without the program's own name. Pure.
pub fn parse<I, A>(args: I) -> Result<Command, UsageError>
where
    I: IntoIterator<Item = A>,
    A: Into<OsString>,
{
    let mut scan = Scan::default();
    let mut args = args.into_iter().map(Into::into);
    let mut only_words = false;
    while let Some(arg) = args.next() {
        let bytes = arg.as_bytes();
        if only_words || bytes.first() != Some(&b'-') || bytes == b"-" {
            scan.word(text(arg)?)?;
        } else if bytes == b"--" {
            only_words = true;
        } else if let Some(long) = bytes.strip_prefix(b"--") {
            scan.long(long, &mut args)?;
        } else {
            scan.short(&bytes[1..], &mut args)?;
        }
        // As with the 2016 clatd, these answer at once, whatever other words there are.
        if scan.help || scan.version {
            return Ok(if scan.help {
                Command::Help { topic: None }
            } else {
                Command::Version
            });
        }
    }
    scan.command()
}

/// What has been met so far.
#[derive(Default)]
struct Scan {
    options: Options,
    words: Vec<String>,
    flags: Vec<&'static OptionSpec>,
    mtu4: Option<u32>,
    mtu6: Option<u32>,
    help: bool,
    version: bool,
}

impl Scan {
    /// A word that is not an option. It is a setting if it has a `=`.
    fn word(&mut self, word: String) -> Result<(), UsageError> {
        let Some((key, value)) = word.split_once('=') else {
            self.words.push(word);
            return Ok(());
        };
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() {
            return Err(self.without_key(&word, value));
        }
        if keys::find(key).is_none() {
            let error = UsageError::new(format!("unknown key {key:?} in {word:?}"));
            return Err(match nearest(key, keys::all().map(|key| key.name)) {
                Some(meant) => error.hint(format!("did you mean {meant}?")),
                None => error.hint("clatd --help lists the keys"),
            });
        }
        self.options.settings.push((key.to_owned(), value.to_owned()));
        Ok(())
    }

    /// A word that begins with `=`: mostly `KEY = VALUE`, which the shell passes as three words.
    fn without_key(&self, word: &str, value: &str) -> UsageError {
        let error = UsageError::new(format!("no key in front of the \"=\" in {word:?}"));
        let before = self.words.last().filter(|before| keys::find(before).is_some());
        let key = before.map_or("KEY", String::as_str);
        let value = if value.is_empty() { "VALUE" } else { value };
        error.hint(format!("write {key}={value}, without blanks"))
    }

    fn long(&mut self, body: &[u8], rest: &mut impl Iterator<Item = OsString>) -> Result<(), UsageError> {
        let (name, value) = match body.iter().position(|byte| *byte == b'=') {
            Some(at) => (&body[..at], Some(OsString::from_vec(body[at + 1..].to_vec()))),
            None => (body, None),
        };
        let name = String::from_utf8_lossy(name).into_owned();
        let Some(option) = OPTIONS.iter().find(|option| option.long == Some(name.as_str())) else {
            let error = UsageError::new(format!("unknown option --{name}"));
            let meant = nearest(&name, OPTIONS.iter().filter_map(|option| option.long));
            return Err(match meant {
                Some(meant) => error.hint(format!("did you mean --{meant}?")),
                None if keys::find(&name).is_some() => error.hint(format!("a setting has no dashes: {name}=VALUE")),
                None => error,
            });
        };
        let spelled = format!("--{name}");
        match (option.argument, value) {
            (None, None) => self.act(option, &spelled, OsString::new()),
            (None, Some(_)) => Err(UsageError::new(format!("{spelled} takes no argument"))),
            (Some(_), Some(value)) => self.act(option, &spelled, value),
            (Some(argument), None) => {
                let value = rest.next().ok_or_else(|| missing(&spelled, argument))?;
                self.act(option, &spelled, value)
            }
        }
    }

    /// Short options may stand together: `-qd`. An option with an argument takes the rest of its word, or the next
    /// word.
    fn short(&mut self, body: &[u8], rest: &mut impl Iterator<Item = OsString>) -> Result<(), UsageError> {
        for (at, byte) in body.iter().enumerate() {
            let option = OPTIONS
                .iter()
                .find(|option| option.short.is_some_and(|short| short == char::from(*byte)));
            let Some(option) = option else {
                let whole = String::from_utf8_lossy(body);
                let letter = whole.chars().nth(at).unwrap_or('?');
                let inside = if whole.chars().count() > 1 {
                    format!(" in \"-{whole}\"")
                } else {
                    String::new()
                };
                return Err(UsageError::new(format!("unknown option -{letter}{inside}")));
            };
            let spelled = format!("-{}", char::from(*byte));
            let Some(argument) = option.argument else {
                self.act(option, &spelled, OsString::new())?;
                continue;
            };
            let value = match &body[at + 1..] {
                [] => rest.next().ok_or_else(|| missing(&spelled, argument))?,
                value => OsString::from_vec(value.to_vec()),
            };
            return self.act(option, &spelled, value);
        }
        Ok(())
    }

    fn act(&mut self, option: &'static OptionSpec, spelled: &str, value: OsString) -> Result<(), UsageError> {
        if let (Some(argument), true) = (option.argument, value.is_empty()) {
            return Err(missing(spelled, argument));
        }
        // Only the option for configuration files may be repeated.
        if option.argument.is_some() && option.action != Action::Config && self.flags.contains(&option) {
            return Err(UsageError::new(format!("{spelled} is given twice")).hint("once is enough"));
        }
        self.flags.push(option);
        match option.action {
            Action::Quiet => self.options.quiet += 1,
            Action::Debug => self.options.debug += 1,
            Action::Config => self.options.config.push(value.into()),
            Action::InstancesDir => self.options.instances_dir = Some(value.into()),
            Action::Mtu4 => self.mtu4 = Some(mtu(spelled, value, 68)?),
            Action::Mtu6 => self.mtu6 = Some(mtu(spelled, value, 1280)?),
            Action::Help => self.help = true,
            Action::Version => self.version = true,
            Action::DryRun | Action::Json | Action::Watch => {}
        }
        Ok(())
    }

    fn has(&self, action: Action) -> bool {
        self.flags.iter().any(|option| option.action == action)
    }

    /// The command that all words together mean.
    fn command(mut self) -> Result<Command, UsageError> {
        let spec = self.spec()?;
        self.check(spec)?;
        let (json, dry_run) = (self.has(Action::Json), self.has(Action::DryRun));
        let watch = self.has(Action::Watch);
        let mut words = std::mem::take(&mut self.words).into_iter();
        let options = self.options;
        Ok(match spec.name {
            "plan" => Command::Plan {
                options,
                json,
                instance: words.next(),
            },
            "check" => Command::Check(options),
            "discover" => Command::Discover {
                options,
                json,
                device: words.next(),
            },
            "status" => Command::Status {
                options,
                json,
                watch,
                instance: words.next(),
            },
            "doctor" => Command::Doctor {
                options,
                json,
                instance: words.next(),
            },
            "events" => Command::Events { options, json },
            "metrics" => Command::Metrics(options),
            "help" => Command::Help {
                topic: words.next().map(topic).transpose()?,
            },
            "version" => Command::Version,
            "reload" => Command::Reload(options),
            "cleanup" => Command::Cleanup { options, dry_run },
            "translate" => {
                if options.config.is_empty() {
                    return Err(
                        UsageError::new("translate needs --config FILE").hint("a clatd.conf with at least plat-prefix")
                    );
                }
                let mut path = || PathBuf::from(words.next().unwrap_or_default());
                let (input, output) = (path(), path());
                Command::Translate {
                    options,
                    mtu4: self.mtu4,
                    mtu6: self.mtu6,
                    input,
                    output,
                }
            }
            _ => Command::Run(options),
        })
    }

    /// Whether all that was typed goes with the command.
    fn check(&self, spec: &CommandSpec) -> Result<(), UsageError> {
        if let Some(option) = self
            .flags
            .iter()
            .find(|option| !option.commands.is_empty() && !option.commands.contains(&spec.name))
        {
            let spelled = option.long.map(|long| format!("--{long}")).unwrap_or_default();
            return Err(UsageError::new(format!("{spelled} does not go with {}", spec.name))
                .hint(format!("it goes with {}", option.commands.join(", "))));
        }
        if let (Some((key, value)), false) = (self.options.settings.first(), spec.settings) {
            return Err(UsageError::new(format!(
                "{} takes no settings, such as \"{key}={value}\"",
                spec.name
            )));
        }
        if let Some(word) = self.words.get(spec.words.len()) {
            return Err(UsageError::new(format!("unexpected word {word:?} after {}", spec.name)));
        }
        if self.words.len() < spec.required {
            return Err(UsageError::new(format!(
                "{} needs {}",
                spec.name,
                spec.words.join(" and ")
            )));
        }
        Ok(())
    }

    /// The command that the first word names. Without one, a dry run is a plan and all else a run.
    fn spec(&mut self) -> Result<&'static CommandSpec, UsageError> {
        let without = if self.has(Action::DryRun) { "plan" } else { "run" };
        let named = |name: &str| COMMANDS.iter().find(|command| command.name == name);
        let found = match self.words.first() {
            Some(word) => match named(word) {
                Some(spec) => {
                    self.words.remove(0);
                    // clatd run --dry-run is a plan too.
                    if spec.name == "run" { named(without) } else { Some(spec) }
                }
                None if without == "plan" => named(without),
                None => {
                    let error = UsageError::new(format!("unknown command {word:?}"));
                    let meant = nearest(word, COMMANDS.iter().map(|command| command.name));
                    // `clat-dev= x`: the shell made two words of it.
                    let torn = self.options.settings.last().filter(|(_, value)| value.is_empty());
                    return Err(match meant {
                        _ if torn.is_some() => {
                            let key = torn.map(|(key, _)| key.as_str()).unwrap_or_default();
                            error.hint(format!("write {key}={word}, without blanks"))
                        }
                        Some(meant) => error.hint(format!("did you mean {meant}?")),
                        None if keys::find(word).is_some() => error.hint(format!("write {word}=VALUE")),
                        None => error,
                    });
                }
            },
            None => named(without),
        };
        found.ok_or_else(|| UsageError::new("no command"))
    }
}

/// The name of a command or a key.
fn topic(word: String) -> Result<String, UsageError> {
    let commands = || COMMANDS.iter().map(|command| command.name);
    if commands().any(|name| name == word) || keys::find(&word).is_some() {
        return Ok(word);
    }
    let error = UsageError::new(format!("there is no command and no key {word:?}"));
    let meant = nearest(&word, commands().chain(keys::all().map(|key| key.name)));
    Err(match meant {
        Some(meant) => error.hint(format!("did you mean {meant}?")),
        None => error,
    })
}

fn missing(option: &str, argument: &str) -> UsageError {
    UsageError::new(format!("{option} needs an argument")).hint(format!("write {option} {argument}"))
}

fn mtu(option: &str, value: OsString, min: u32) -> Result<u32, UsageError> {
    let value = text(value)?;
    let number = value.parse().ok().filter(|mtu| (min..=65535).contains(mtu));
    number.ok_or_else(|| {
        UsageError::new(format!(
            "{option} {value}: expected a number of bytes from {min} to 65535"
        ))
    })
}

fn text(word: OsString) -> Result<String, UsageError> {
    word.into_string()
        .map_err(|word| UsageError::new(format!("\"{}\" is not UTF-8", word.to_string_lossy())))
}
