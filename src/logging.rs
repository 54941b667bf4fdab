//! Logging: text on stderr in the style of clatd, or the journal if stderr is connected to it.
//!
//! `quiet` and `debug` are independent, as clatd documents them: `quiet=2 debug=1` prints debugging output alone.

mod journal;

use std::fmt;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::Path;

use journal::SystemdJournal;
use nix::sys::stat::fstat;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt as text};

/// What to print.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verbosity {
    /// 1: no normal output; 2: no warnings and errors either.
    pub quiet: u32,
    /// 1: debugging output; 2: more of it.
    pub debug: u32,
}

impl Verbosity {
    /// Whether an event is printed. Of libraries only warnings and errors are: `netlink_proto` and `hickory` would
    /// fill the log at debug level.
    pub fn prints(self, metadata: &Metadata<'_>) -> bool {
        let ours = metadata
            .target()
            .split("::")
            .next()
            .is_some_and(|root| root == "clatd" || root.starts_with("clatd_"));
        match *metadata.level() {
            Level::ERROR | Level::WARN => self.quiet < 2,
            Level::INFO => ours && self.quiet < 1,
            Level::DEBUG => ours && self.debug >= 1,
            Level::TRACE => ours && self.debug >= 2,
        }
    }

    fn filter(self) -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
        // Spans carry the instance's name, so all levels of them pass.
        FilterFn::new(move |metadata| metadata.is_span() || self.prints(metadata))
    }
}

/// Sets up logging for the whole process; once.
pub fn init(verbosity: Verbosity) -> Result<(), TryInitError> {
    let stderr = std::io::stderr();
    if stderr_is_journal()
        && let Ok(journal) = SystemdJournal::connect(Path::new(journal::SOCKET))
    {
        return tracing_subscriber::registry()
            .with(journal.with_filter(verbosity.filter()))
            .try_init();
    }
    let colour = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::registry()
        .with(human(verbosity, colour, std::io::stderr))
        .try_init()
}

/// The layer for people.
fn human<W>(verbosity: Verbosity, colour: bool, writer: W) -> impl Layer<Registry>
where
    W: for<'w> text::MakeWriter<'w> + Send + Sync + 'static,
{
    text::layer()
        .log_internal_errors(false)
        .with_ansi(colour)
        .with_writer(writer)
        .event_format(ClatdStyle)
        .with_filter(verbosity.filter())
}

/// systemd sets `JOURNAL_STREAM` to device and inode of the stream that it gave the service. stderr may have been
/// redirected since.
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(stat) = fstat(std::io::stderr().as_fd()) else {
        return false;
    };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

/// `instance: <warn> message field=value`, normal output without a tag.
struct ClatdStyle;

impl<S, N> FormatEvent<S, N> for ClatdStyle
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (tag, colour) = match *event.metadata().level() {
            Level::ERROR => ("<error> ", "\x1b[31m"),
            Level::WARN => ("<warn> ", "\x1b[33m"),
            Level::INFO => ("", ""),
            Level::DEBUG => ("<debug> ", "\x1b[2m"),
            Level::TRACE => ("<trace> ", "\x1b[2m"),
        };
        let colour = if writer.has_ansi_escapes() { colour } else { "" };
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            if let Some(fields) = extensions
                .get::<FormattedFields<N>>()
                .filter(|fields| !fields.is_empty())
            {
                write!(writer, "{}: ", instance_of(fields))?;
            }
        }
        write!(writer, "{colour}{tag}")?;
        let mut line = LogLine {
            writer: writer.by_ref(),
            result: Ok(()),
            first: true,
        };
        event.record(&mut line);
        line.result?;
        if !colour.is_empty() {
            writer.write_str("\x1b[0m")?;
        }
        writeln!(writer)
    }
}

/// The name in a span's fields `name="wan0"`, or all of them.
fn instance_of(fields: &str) -> &str {
    let unquoted = |text: &str| text.trim_matches('"').len();
    match fields.split_once("name=") {
        Some((_, name)) if unquoted(name) > 0 => name.split_whitespace().next().unwrap_or(name).trim_matches('"'),
        _ => fields,
    }
}

/// The message first, then the other fields as `name=value`.
struct LogLine<'w> {
    writer: Writer<'w>,
    result: fmt::Result,
    first: bool,
}

impl Visit for LogLine<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.result.is_err() || field.name().starts_with("log.") {
            return;
        }
        let blank = if self.first { "" } else { " " };
        self.first = false;
        self.result = match field.name() {
            "message" => write!(self.writer, "{blank}{value:?}"),
            name => write!(self.writer, "{blank}{name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn printed(verbosity: Verbosity, colour: bool) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::registry().with(human(verbosity, colour, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("instance", name = "wan0");
            let _entered = span.enter();
            tracing::error!("no device {}", "eth0");
            tracing::warn!(key = "clat-dev", "odd");
            tracing::info!("up");
            tracing::debug!("looking");
            tracing::trace!("closely");
            tracing::warn!(target: "netlink_proto::codec", "strange");
            tracing::info!(target: "hickory_proto", "chatter");
            tracing::debug!(target: "hickory_resolver::name_server", "chatter");
        });
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn lines(quiet: u32, debug: u32) -> Vec<String> {
        printed(Verbosity { quiet, debug }, false)
            .lines()
            .map(str::to_owned)
            .collect()
    }

    const ERROR: &str = "wan0: <error> no device eth0";
    const WARN: &str = "wan0: <warn> odd key=clat-dev";
    const INFO: &str = "wan0: up";
    const DEBUG: &str = "wan0: <debug> looking";
    const TRACE: &str = "wan0: <trace> closely";
    const LIBRARY: &str = "wan0: <warn> strange";

    #[test]
    fn quiet_and_debug_are_independent() {
        assert_eq!(lines(0, 0), [ERROR, WARN, INFO, LIBRARY]);
        assert_eq!(lines(1, 0), [ERROR, WARN, LIBRARY]);
        assert_eq!(lines(2, 0), Vec::<String>::new());
        assert_eq!(lines(0, 1), [ERROR, WARN, INFO, DEBUG, LIBRARY]);
        assert_eq!(lines(0, 2), [ERROR, WARN, INFO, DEBUG, TRACE, LIBRARY]);
        assert_eq!(lines(2, 1), [DEBUG]);
    }

    #[test]
    fn colour_only_where_asked_for() {
        assert!(!printed(Verbosity::default(), false).contains('\x1b'));
        assert!(printed(Verbosity::default(), true).contains("\x1b[31m<error> no device eth0\x1b[0m"));
    }
}
