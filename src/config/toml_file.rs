//! TOML instance files: the same keys, with native types where a key has one.

use std::path::Path;

use figment::Profile;
use figment::Provider;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Num, Value};

use super::errors::{ConfigProblem, Findings, Place};
use super::keys::{Key, ValueKind};
use super::layer::Layer;
use super::value::Invalid;

/// Reads the settings of a TOML file.
pub(super) fn read(path: &Path, bytes: &[u8], findings: &mut Findings) -> Layer {
    let mut layer = Layer::new(Place::file(path));
    let Ok(text) = std::str::from_utf8(bytes) else {
        let valid = bytes
            .utf8_chunks()
            .next()
            .map(|chunk| chunk.valid())
            .unwrap_or_default();
        findings.error(ConfigProblem::at(
            Place::line(path, valid.matches('\n').count() + 1),
            "expected text in UTF-8",
        ));
        return layer;
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let dict = match parse(text) {
        Ok(dict) => dict,
        Err(error) => {
            findings.error(syntax_error(path, &error));
            return layer;
        }
    };
    let mut settings: Vec<_> = dict
        .iter()
        .map(|(name, value)| (line_of(text, name), name, value))
        .collect();
    settings.sort_by_key(|(line, ..)| *line);
    for (line, name, value) in settings {
        let place = Place::File {
            path: path.to_owned(),
            line,
        };
        let dashed = name.replace('_', "-");
        let Some(key) = layer.key(&place, &dashed, findings) else {
            continue;
        };
        layer.take(place, key, &shown(value), texts(key, value), findings);
    }
    layer
}

/// What is wrong comes as the TOML parser's text.
fn parse(text: &str) -> Result<Dict, String> {
    let mut profiles = Toml::string(text).data().map_err(|error| error.kind.to_string())?;
    Ok(profiles.remove(&Profile::Default).unwrap_or_default())
}

/// The TOML parser's own words without its drawing of the line, which Place names already.
fn syntax_error(path: &Path, text: &str) -> ConfigProblem {
    let line = text
        .split_once("at line ")
        .and_then(|(_, rest)| rest.split(',').next()?.trim().parse().ok());
    let drawing = |line: &&str| line.starts_with("TOML parse error") || line.contains('|') || line.trim().is_empty();
    let words: Vec<&str> = text.lines().filter(|line| !drawing(line)).map(str::trim).collect();
    let words = if words.is_empty() {
        "cannot be understood".to_owned()
    } else {
        words.join("; ")
    };
    ConfigProblem::at(
        Place::File {
            path: path.to_owned(),
            line,
        },
        format!("expected TOML; {words}"),
    )
    .hint("text, addresses and prefixes stand in quotation marks")
}

/// The line that sets a key: figment keeps none.
fn line_of(text: &str, name: &str) -> Option<usize> {
    let sets = |line: &str| {
        let line = line.trim_start();
        if let Some(table) = line.strip_prefix('[') {
            return table
                .trim_start_matches('[')
                .trim_start()
                .split([']', '.'])
                .next()
                .map(str::trim)
                == Some(name);
        }
        let key = line
            .split(['=', '.'])
            .next()
            .unwrap_or_default()
            .trim()
            .trim_matches(['"', '\'']);
        line.contains('=') && key == name
    };
    text.lines().position(sets).map(|index| index + 1)
}

/// A value as texts such as stand in the other files, if it has a type that its key can have in TOML. A list of maps is
/// several texts.
fn texts(key: &Key, value: &Value) -> Result<Vec<String>, Invalid> {
    match (key.kind(), value) {
        (_, Value::String(_, text)) => Ok(vec![text.trim().to_owned()]),
        (ValueKind::Bool, Value::Bool(..)) => Ok(vec![shown(value)]),
        (ValueKind::Bool | ValueKind::Number(_) | ValueKind::WordOr { .. } | ValueKind::Mtu, Value::Num(_, number))
            if is_integer(*number) =>
        {
            Ok(vec![shown(value)])
        }
        (ValueKind::DnsServers | ValueKind::WordList(_), Value::Array(_, items)) => {
            Ok(vec![strings(key, value, items)?.join(",")])
        }
        (ValueKind::Maps, Value::Array(_, items)) => {
            let items = strings(key, value, items)?.into_iter().map(str::trim);
            Ok(items.filter(|item| !item.is_empty()).map(str::to_owned).collect())
        }
        _ => Err(wrong_type(key, value)),
    }
}

fn strings<'a>(key: &Key, value: &Value, items: &'a [Value]) -> Result<Vec<&'a str>, Invalid> {
    let strings = items
        .iter()
        .map(|item| item.as_str().ok_or_else(|| wrong_type(key, value)));
    strings.collect()
}

fn is_integer(number: Num) -> bool {
    !matches!(number, Num::F32(_) | Num::F64(_))
}

/// The toml crate hands on a date as a table with one field of a reserved name.
fn is_date(fields: &Dict) -> bool {
    fields.keys().any(|field| field.contains("datetime"))
}

fn wrong_type(key: &Key, value: &Value) -> Invalid {
    let expected = match key.kind() {
        ValueKind::Bool => "true or false",
        ValueKind::Number(_) => "an integer",
        ValueKind::Mtu => "an integer or \"auto\"",
        ValueKind::WordOr { .. } => "an integer or a word in quotation marks",
        ValueKind::WordList(_) => "a string, or an array of strings",
        ValueKind::DnsServers => "a string, or an array of strings such as [\"2001:db8::53\"]",
        ValueKind::Maps => "a string, or an array of strings such as [\"192.0.2.1 2001:db8::1\"]",
        _ => "a string in quotation marks",
    };
    let found = match value {
        Value::Bool(..) => "a boolean",
        Value::Num(_, number) if is_integer(*number) => "an integer",
        Value::Num(..) => "a floating-point number",
        Value::Dict(_, fields) if is_date(fields) => "a date",
        Value::Dict(..) => "a table",
        Value::Array(_, items) if items.iter().any(|item| item.as_str().is_none()) => "an array of other things",
        Value::Array(..) => "an array",
        _ => "something else",
    };
    let invalid = Invalid::new(format!("expected {expected}, not {found}"));
    if found == "a table" {
        invalid.hint("an instance file has no tables; each instance has a file of its own")
    } else {
        invalid
    }
}

/// A TOML value as it would stand in a `key=value` file.
fn shown(value: &Value) -> String {
    match value {
        Value::String(_, text) => text.clone(),
        Value::Char(_, c) => c.to_string(),
        Value::Bool(_, yes) => yes.to_string(),
        Value::Num(_, number) => match (number.to_u128(), number.to_i128(), number.to_f64()) {
            (Some(number), ..) => number.to_string(),
            (_, Some(number), _) => number.to_string(),
            (.., Some(number)) => number.to_string(),
            _ => String::new(),
        },
        Value::Empty(..) => String::new(),
        Value::Dict(_, fields) if is_date(fields) => fields.values().map(shown).collect(),
        Value::Dict(_, fields) => {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| format!("{name} = {}", shown(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(_, items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
    }
}
