//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

/// Where a setting stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Nowhere: the default holds.
    Default,
    /// Nowhere: clatd gave each instance its own.
    Allotted,
    /// In a file. The line is unknown if the problem concerns the whole file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: Option<usize>,
    },
    /// On the command line.
    CommandLine,
}

impl Place {
    /// A whole file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File {
            path: path.into(),
            line: None,
        }
    }

    /// A line of a file.
    pub fn line(path: impl Into<PathBuf>, line: usize) -> Self {
        Self::File {
            path: path.into(),
            line: Some(line),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Allotted => f.write_str("allotted"),
            Self::CommandLine => f.write_str("command line"),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
        }
    }
}

/// One problem: where, which key and value, what was expected, and a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Where it stands.
    pub place: Place,
    /// The key and its value, unless the problem is not about a setting.
    pub setting: Option<(String, String)>,
    /// What was expected, or what is wrong.
    pub problem: String,
    /// What may help.
    pub hint: Option<String>,
}

impl ConfigProblem {
    /// A problem of a whole file or of one of its lines, and not of a setting.
    pub fn at(place: Place, problem: impl Into<String>) -> Self {
        Self {
            place,
            setting: None,
            problem: problem.into(),
            hint: None,
        }
    }

    /// A problem of a setting.
    pub fn of(place: Place, key: &str, value: &str, problem: impl Into<String>) -> Self {
        Self {
            place,
            setting: Some((key.to_owned(), value.to_owned())),
            problem: problem.into(),
            hint: None,
        }
    }

    /// With something that may help.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if let Some((key, value)) = &self.setting {
            write!(f, "{key}={}: ", value.escape_debug_unprintable())?;
        }
        f.write_str(&self.problem)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigProblem {}

/// All problems of a configuration, in the order of the files. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// What is wrong.
    pub errors: Vec<ConfigProblem>,
    /// What is odd besides.
    pub warnings: Vec<String>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.errors.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Errors and warnings, collected for the user.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) errors: Vec<ConfigProblem>,
    pub(super) warnings: Vec<String>,
}

impl Findings {
    /// Adds an error, but only once: a line of clatd.conf may be wrong for every instance in the same way.
    pub(super) fn error(&mut self, error: ConfigProblem) {
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// Adds a warning, once.
    pub(super) fn warn(&mut self, place: &Place, text: impl fmt::Display) {
        let warning = format!("{place}: {text}");
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}

trait Printable {
    fn escape_debug_unprintable(&self) -> String;
}

impl Printable for str {
    /// Escapes control characters, so that a message stays one line whatever a file contains.
    fn escape_debug_unprintable(&self) -> String {
        self.chars()
            .flat_map(|c| {
                if c.is_control() {
                    c.escape_debug().collect::<Vec<_>>()
                } else {
                    vec![c]
                }
            })
            .collect()
    }
}
