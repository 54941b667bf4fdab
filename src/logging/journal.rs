//! Events as entries of the journal, by its own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): a datagram of fields
//! for each. The message begins with the instance, as on a terminal; the fields have it, too.

use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Where journald listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// Who speaks.
const IDENTIFIER: &str = "clatd";
/// For how long a journal that does not read may delay us. Then the entry is lost.
const PATIENCE: Duration = Duration::from_millis(100);
/// Longest text of an entry in bytes: a datagram has its limits.
const LONGEST: usize = 32 * 1024;

/// The journal.
#[derive(Debug)]
pub(super) struct SystemdJournal(UnixDatagram);

impl SystemdJournal {
    /// Connects to whoever listens there.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(socket))
    }
}

/// The instance that a span is about.
struct InstanceName(String);

impl<S> Layer<S> for SystemdJournal
where
    S: Subscriber + for<'l> LookupSpan<'l>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut found = Fields::default();
        attributes.record(&mut found);
        let name = found.others.into_iter().find(|(field, _)| *field == "name");
        if let (Some(span), Some((_, name))) = (context.span(id), name) {
            span.extensions_mut().insert(InstanceName(name));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let instance = context.event_scope(event).and_then(|mut scope| {
            scope.find_map(|span| span.extensions().get::<InstanceName>().map(|name| name.0.clone()))
        });
        // A lost entry must not cause another one.
        let _ = self.0.send(&entry(event, &fields, instance.as_deref()));
    }
}

/// What an event says.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => _ = write!(self.message, "{value:?}"),
            name if name.starts_with("log.") => {}
            name => self.others.push((name, format!("{value:?}"))),
        }
    }
}

fn entry(event: &Event<'_>, fields: &Fields, instance: Option<&str>) -> Vec<u8> {
    let metadata = event.metadata();
    let priority = match *metadata.level() {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "5",
        Level::DEBUG => "6",
        Level::TRACE => "7",
    };
    let mut message = instance.map(|name| format!("{name}: ")).unwrap_or_default();
    message += &fields.message;
    for (name, value) in &fields.others {
        let _ = write!(message, " {name}={value}");
    }
    let mut entry = Vec::new();
    put(&mut entry, "PRIORITY", priority);
    put(&mut entry, "SYSLOG_IDENTIFIER", IDENTIFIER);
    put(&mut entry, "TARGET", metadata.target());
    if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
        put(&mut entry, "CODE_FILE", file);
        put(&mut entry, "CODE_LINE", &line.to_string());
    }
    if let Some(name) = instance {
        put(&mut entry, "CLATD_NAME", name);
        put(&mut entry, "CLATD_INSTANCE", name);
    }
    for (name, value) in &fields.others {
        let letters = name.chars().map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        });
        put(&mut entry, &format!("CLATD_{}", letters.collect::<String>()), value);
    }
    put(&mut entry, "MESSAGE", &message);
    entry
}

/// `NAME=value`, or with its length where the value has several lines.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    let end = (0..=value.len().min(LONGEST))
        .rev()
        .find(|end| value.is_char_boundary(*end));
    let value = &value[..end.unwrap_or(0)];
    entry.extend(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend((value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// The datagrams that a journal gets of this.
    fn entries(speak: impl FnOnce()) -> Vec<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        journald.set_nonblocking(true).unwrap();
        let subscriber = tracing_subscriber::registry().with(SystemdJournal::connect(&path).unwrap());
        tracing::subscriber::with_default(subscriber, speak);
        let mut buffer = vec![0; 256 * 1024];
        std::iter::from_fn(|| journald.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec())).collect()
    }

    fn lines(entry: &[u8]) -> Vec<String> {
        String::from_utf8_lossy(entry).lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_message_begins_with_the_instance() {
        let entries = entries(|| {
            let span = tracing::info_span!("instance", name = "wan0");
            let _entered = span.enter();
            tracing::warn!(device = "clat", "no answer");
        });
        let lines = lines(&entries[0]);
        for expected in [
            "PRIORITY=4",
            "SYSLOG_IDENTIFIER=clatd",
            "CLATD_INSTANCE=wan0",
            "CLATD_NAME=wan0",
            "CLATD_DEVICE=clat",
            "MESSAGE=wan0: no answer device=clat",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{expected}: {lines:?}");
        }
    }

    #[test]
    fn what_is_about_no_instance_names_none() {
        let entries = entries(|| tracing::info!("starting"));
        let lines = lines(&entries[0]);
        assert!(lines.contains(&"MESSAGE=starting".to_owned()), "{lines:?}");
        assert!(!lines.iter().any(|line| line.starts_with("CLATD_")), "{lines:?}");
    }

    #[test]
    fn several_lines_have_a_length() {
        let entries = entries(|| tracing::error!("one\ntwo"));
        let text = b"MESSAGE\n\x07\0\0\0\0\0\0\0one\ntwo\n";
        assert!(entries[0].ends_with(text), "{:?}", lines(&entries[0]));
    }

    #[test]
    fn a_very_long_text_is_cut() {
        let entries = entries(|| tracing::error!("{}", "\u{e4}".repeat(LONGEST)));
        assert_eq!(entries.len(), 1);
        assert!(entries[0].len() < LONGEST + 1024);
    }

    #[test]
    fn a_journal_that_does_not_read_holds_nothing_up_for_long() {
        let begun = std::time::Instant::now();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _journald = UnixDatagram::bind(&path).unwrap();
        let full = UnixDatagram::unbound().unwrap();
        full.set_nonblocking(true).unwrap();
        while full.send_to(b"X=1\n", &path).is_ok() {}
        let subscriber = tracing_subscriber::registry().with(SystemdJournal::connect(&path).unwrap());
        tracing::subscriber::with_default(subscriber, || tracing::error!("lost"));
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
