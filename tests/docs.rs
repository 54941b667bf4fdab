//! The documents for users: their configurations are read, their commands are parsed, their links lead somewhere.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clatd::cli::{self, Options};
use clatd::config::{Paths, keys, load_from};

#[path = "support/pages.rs"]
mod commands;
use commands::{COMMANDS, RunBy};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page, with its path.
fn pages() -> Vec<(PathBuf, String)> {
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let mut paths: Vec<PathBuf> = docs.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.extend(["README.md", "CONTRIBUTING.md"].map(|name| root().join(name)));
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// The blocks between lines of three backticks that are in this language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside: Option<(bool, String)> = None;
    for line in page.lines() {
        match (line.trim().strip_prefix("```"), inside.take()) {
            (Some(named), None) => inside = Some((named == language, String::new())),
            (Some(_), Some((wanted, text))) => found.extend(wanted.then_some(text)),
            (None, Some((wanted, text))) => inside = Some((wanted, text + line + "\n")),
            (None, None) => {}
        }
    }
    assert!(inside.is_none(), "a block has no end");
    found
}

/// What the files of `docs/` say `clatd.conf` may be.
#[test]
fn configurations_are_read_without_a_warning() {
    let mut count = 0;
    for (path, page) in pages() {
        for text in blocks(&page, "conf") {
            let dir = tempfile::tempdir().unwrap();
            let paths = Paths {
                config: dir.path().join("clatd.conf"),
                instances_dir: dir.path().join("instances.d"),
                ..Paths::default()
            };
            fs::write(&paths.config, &text).unwrap();
            let loaded = load_from(&Options::default(), &paths);
            let loaded = loaded.unwrap_or_else(|errors| panic!("{}:\n{text}{:?}", path.display(), errors.errors));
            assert_eq!(loaded.warnings, Vec::<String>::new(), "{}:\n{text}", path.display());
            count += 1;
        }
    }
    assert!(count >= 10, "{count} configurations");
}

/// What stands between single backticks.
fn quoted(page: &str) -> Vec<String> {
    page.split("```")
        .step_by(2)
        .flat_map(|text| text.split('`').skip(1).step_by(2).map(str::to_owned))
        .collect()
}

/// Every command that calls clatd, in a block or in a sentence, is one that clatd understands.
#[test]
fn commands_are_understood() {
    let mut seen = BTreeSet::new();
    for (path, page) in pages() {
        let blocks = blocks(&page, "sh");
        let lines = blocks.iter().flat_map(|block| block.lines()).map(str::to_owned);
        for line in lines.chain(quoted(&page)) {
            for part in line.split("&&") {
                let mut words = part.split_whitespace();
                if words.next() != Some("clatd") {
                    continue;
                }
                let words: Vec<OsString> = words.map(OsString::from).collect();
                // A sentence may name a command without what belongs to it.
                if words.len() == 1 && cli::COMMANDS.iter().any(|command| words[0] == command.name) {
                    continue;
                }
                if let Err(error) = cli::parse(words) {
                    panic!("{}: {line}: {error}", path.display());
                }
                seen.insert(part.trim().to_owned());
            }
        }
    }
    assert!(seen.len() >= 8, "{seen:?}");
}

/// Every other command is run somewhere as it stands, or says why not.
#[test]
fn other_commands_are_run() {
    let mut found = BTreeSet::new();
    for (path, page) in pages() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        for block in blocks(&page, "sh") {
            let lines = block.lines().filter(|line| !line.starts_with("clatd "));
            found.extend(lines.map(|line| (name.clone(), line.to_owned())));
        }
    }
    let listed: BTreeSet<_> = COMMANDS
        .iter()
        .map(|(page, line, _)| ((*page).to_owned(), (*line).to_owned()))
        .collect();
    assert_eq!(
        found, listed,
        "tests/support/pages.rs lists the commands of the documents"
    );

    let container = fs::read_to_string(root().join("scripts/test-container")).unwrap();
    for (page, line, by) in COMMANDS {
        match by {
            RunBy::Container => assert!(
                container.contains(line),
                "{page}: scripts/test-container does not run {line}"
            ),
            RunBy::Lab => {}
            RunBy::Nobody(reason) => assert!(!reason.is_empty(), "{page}: {line}"),
        }
    }
}

/// The program itself finds no fault in the configurations of the recipes.
#[test]
fn recipes_pass_the_check() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let recipes = blocks(&readme, "conf");
    assert_eq!(recipes.len(), 4);
    for text in recipes {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clatd.conf");
        fs::write(&file, &text).unwrap();
        fs::create_dir(dir.path().join("instances.d")).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_clatd"))
            .args(["check", "-c"])
            .arg(&file)
            .arg("--instances-dir")
            .arg(dir.path().join("instances.d"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{text}{output:?}");
        assert!(output.stderr.is_empty(), "{text}{output:?}");
    }
}

#[test]
fn the_readme_is_short() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let words = readme.split_whitespace().count();
    assert!(words < 900, "{words} words");
}

/// Files of packages that are named have the version of this program.
#[test]
fn packages_have_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let mut seen = 0;
    for (path, page) in pages() {
        for word in page.split(|c: char| c.is_whitespace() || "`()/".contains(c)) {
            if let Some(rest) = word.strip_prefix("clatd_").or_else(|| word.strip_prefix("clatd-"))
                && rest.starts_with(|c: char| c.is_ascii_digit())
            {
                assert!(rest.starts_with(version), "{}: {word}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 3, "{seen} names of packages");
}

/// A file of this tree that a command or a sentence names is there.
#[test]
fn files_are_there() {
    for (path, page) in pages() {
        for word in page.split(|c: char| c.is_whitespace() || "`()[]|,;\"".contains(c)) {
            let word = word.trim_start_matches("./").trim_end_matches(['.', ':']);
            let ours = ["scripts/", "instances.d/", "tests/", "docs/", "man/"]
                .iter()
                .any(|folder| word.starts_with(folder));
            if ours && !word.contains(['*', '<', '$']) {
                assert!(root().join(word).exists(), "{}: {word}", path.display());
            }
        }
    }
}

#[test]
fn links_lead_somewhere() {
    for (path, page) in pages() {
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, anchor) = link
                .split_once('#')
                .map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let target = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            let text =
                fs::read_to_string(&target).unwrap_or_else(|error| panic!("{}: {link}: {error}", path.display()));
            if let Some(anchor) = anchor {
                assert!(
                    headings(&text).contains(anchor),
                    "{}: no heading {link}",
                    path.display()
                );
            }
        }
    }
}

/// Both packages have the pages of docs/, and what these lead to outside of it.
#[test]
fn packages_have_what_the_pages_lead_to() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (deb, rpm) = manifest.split_once("[package.metadata.generate-rpm]").unwrap();
    for (path, page) in pages() {
        for link in page
            .split("](../")
            .skip(1)
            .filter_map(|rest| rest.split([')', '#']).next())
        {
            let folder = Path::new(link).parent().unwrap().join("*");
            let is_in = |list: &str| {
                [link, folder.to_str().unwrap()]
                    .iter()
                    .any(|name| list.contains(&format!("\"{name}\"")))
            };
            assert!(is_in(deb) && is_in(rpm), "{}: {link} is in no package", path.display());
        }
    }
}

/// The anchors of a page's headings.
fn headings(page: &str) -> BTreeSet<String> {
    let titles = page.lines().filter_map(|line| line.strip_prefix('#'));
    titles
        .map(|title| {
            let title = title.trim_start_matches('#').trim().to_lowercase();
            title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -".contains(*c))
                .collect::<String>()
                .replace(' ', "-")
        })
        .collect()
}

/// A setting in backticks is one that exists.
#[test]
fn keys_exist() {
    for (path, page) in pages() {
        for quoted in page.split('`').skip(1).step_by(2) {
            let Some((key, _)) = quoted.split_once('=') else {
                continue;
            };
            let looks_like_a_key = key.contains('-')
                && key
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
            assert!(
                !looks_like_a_key || keys::find(key).is_some(),
                "{}: `{quoted}` is no setting",
                path.display()
            );
        }
    }
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let contents = fs::read_to_string(root().join("docs/README.md")).unwrap();
    for (path, _) in pages() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let elsewhere = ["README.md", "CONTRIBUTING.md"].contains(&name.as_str());
        assert!(elsewhere || contents.contains(&format!("({name})")), "{name}");
    }
}

/// Every word of the manual page's file list, the unit files and the packages agrees on where files are.
#[test]
fn units_differ_in_what_they_must_only() {
    let read = |name: &str| fs::read_to_string(root().join("scripts/systemd").join(name)).unwrap();
    let (single, template) = (read("clatd.service"), read("clatd@.service"));
    let of_template: Vec<&str> = template
        .lines()
        .filter(|line| !single.lines().any(|other| other == *line))
        .collect();
    let allowed = [
        "Description=",
        "# One clatd serves",
        "Conflicts=clatd.service",
        "ExecStart=",
    ];
    for line in of_template {
        assert!(allowed.iter().any(|start| line.starts_with(start)), "{line}");
    }
    for line in single
        .lines()
        .filter(|line| !template.lines().any(|other| other == *line))
    {
        assert!(
            ["Description=", "ExecStart="]
                .iter()
                .any(|start| line.starts_with(start)),
            "{line}"
        );
    }
}

/// What preinst puts in the place of a changed file is what the package has there.
#[test]
fn preinst_has_the_conffile_of_the_package() {
    let read = |name: &str| fs::read_to_string(root().join("scripts/debian").join(name)).unwrap();
    assert!(read("preinst").contains(&format!("<<'CONF'\n{}CONF\n", read("clatd.conf"))));
    assert!(read("clatd.conf").lines().all(|line| line.starts_with('#')));
}

/// The version of the packages' change log is the program's.
#[test]
fn the_debian_changelog_has_this_version() {
    let changelog = fs::read_to_string(root().join("scripts/debian/changelog")).unwrap();
    assert!(changelog.starts_with(&format!("clatd (1:{}-1) ", env!("CARGO_PKG_VERSION"))));
}

/// Whether an attribute allows it, on one line or on several.
fn allows_unsafe_code(text: &str) -> bool {
    let attributes = text.split('#').filter_map(|rest| {
        let inside = rest.trim_start_matches('!').strip_prefix('[')?;
        Some(inside.split_once(']')?.0)
    });
    attributes
        .filter(|attribute| attribute.contains("unsafe_code"))
        .any(|attribute| !attribute.contains("forbid"))
}

#[test]
fn an_attribute_on_several_lines_is_seen() {
    let name = "unsafe_code";
    assert!(allows_unsafe_code(&format!("#[allow({name})]")));
    assert!(allows_unsafe_code(&format!(
        "#![allow(\n    {name},\n    reason = \"none\"\n)]"
    )));
    assert!(!allows_unsafe_code(&format!("#![forbid({name})]\n// {name}")));
}

/// Debian 12's cargo (1.65) cannot read `debug = "line-tables-only"`, and says only that. Without such a line it says that
/// it is older than the edition. So that line stands in .cargo/config.toml.
#[test]
fn an_older_cargo_says_that_it_is_too_old() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let unreadable = manifest.lines().find(|line| line.starts_with("debug = \""));
    assert_eq!(unreadable, None);
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The log shows no message below a warning whose target is not clatd's. So no message may name another target.
#[test]
fn messages_have_the_target_of_their_module() {
    let mut found = Vec::new();
    sources(&root().join("src"), &mut found);
    // Its tests make messages of libraries.
    found.retain(|path| !path.ends_with("src/logging.rs"));
    found.retain(|path| fs::read_to_string(path).unwrap().contains("!(target:"));
    assert_eq!(found, [] as [PathBuf; 0]);
}

/// The compiler denies `unsafe` where no attribute allows it. ARCHITECTURE.md says where that is.
#[test]
fn unsafe_code_is_in_one_folder_only() {
    let mut found = Vec::new();
    for dir in ["src", "stages", "tests"] {
        sources(&root().join(dir), &mut found);
    }
    found.retain(|path| allows_unsafe_code(&fs::read_to_string(path).unwrap()));
    let mut found: Vec<_> = found.iter().map(|path| path.strip_prefix(root()).unwrap()).collect();
    found.sort();
    // The second counts allocations, in a test.
    assert_eq!(
        found,
        [
            Path::new("src/sys/mod.rs"),
            Path::new("stages/translator/tests/allocation.rs")
        ]
    );
}
