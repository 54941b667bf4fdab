//! Whatever stands in a file or on the command line: an answer, never a panic.

use clatd::config::keys;
use proptest::prelude::*;

use super::*;

/// Text that is often nearly a value.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9a-fx:./% ,*=\"'#-]{0,24}",
        "[a-z0-9:]{0,12}/[0-9]{1,3}",
        "[0-9.]{4,15}(/[0-9]{1,2})? [0-9a-f:]{2,20}(/[0-9]{1,3})?",
        any::<String>(),
    ]
}

fn key() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(keys::all().map(|key| key.name).collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn any_bytes(conf: Vec<u8>, toml: Vec<u8>) {
        let tree = Tree::new(&[]);
        tree.write("clatd.conf", &conf);
        tree.write("wan0.toml", &toml);
        let _ = tree.load(&[]);
    }

    #[test]
    fn any_value(settings in proptest::collection::vec((key(), value()), 1..6)) {
        let conf: String = settings.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        let toml: String = settings.iter().map(|(key, value)| format!("{key} = {value:?}\n")).collect();
        let tree = Tree::new(&[("clatd.conf", &conf), ("wan0.toml", &toml), ("wan1.conf", &conf)]);
        if let Err(errors) = tree.load(&[]) {
            prop_assert!(!errors.errors.is_empty());
            let shown = errors.to_string();
            prop_assert_eq!(shown.lines().count(), errors.errors.len(), "{}", shown);
        }
    }

    #[test]
    fn any_words(words in proptest::collection::vec(prop_oneof![any::<String>(), "-[a-zA-Z]{0,4}", "--[a-z0-9=-]{0,14}", "[a-z]{4,9}"], 0..6)) {
        match parse(&words) {
            Ok(_) => {}
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
