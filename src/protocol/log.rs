//! What a process says for its log, by `tracing`: a line of one format, on standard error. The supervisor keeps what
//! its children print.

use crate::sys::clock;
use std::fmt::{self, Write as _};
use std::io;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The levels of `log_level`, from the one that says least.
pub const LEVELS: &[(&str, Level)] = &[
    ("error", Level::ERROR),
    ("warn", Level::WARN),
    ("info", Level::INFO),
    ("debug", Level::DEBUG),
    ("trace", Level::TRACE),
];

/// `None` for a word that is none of `LEVELS`.
pub fn level(word: &str) -> Option<Level> {
    LEVELS.iter().find(|(name, _)| *name == word).map(|(_, level)| *level)
}

/// From here on, what this process and its libraries say at `level` or above goes to standard error. Only the first
/// call of a process counts.
pub fn start(process: &'static str, level: Level) {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        // That a line cannot be said is nothing that can be said: the disk may be full, the reader gone.
        .log_internal_errors(false)
        .event_format(Format { process, level })
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// `2026-11-21T18:30:00.042Z WARN  server: text`
pub fn line(level: Level, process: &str, text: impl fmt::Display) -> String {
    format!("{} {level:<5} {process}: {text}", clock::now_with_milliseconds())
}

struct Format {
    process: &'static str,
    level: Level,
}

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let meta = event.metadata();
        let is_ours = meta.target().starts_with("leoflow");
        // Libraries have levels of their own mind: their debugging is ours only where everything is asked for.
        if !is_ours && *meta.level() > Level::WARN && self.level < Level::TRACE {
            return Ok(());
        }
        let mut text = Text(String::new());
        if !is_ours {
            let _ = write!(text.0, "{}: ", meta.target());
        }
        event.record(&mut text);
        writeln!(writer, "{}", line(*meta.level(), self.process, text.0))
    }
}

/// The message, then the fields by name.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn said(level: Level, say: impl FnOnce()) -> Vec<String> {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(move || writer.clone())
            .event_format(Format { process: "server", level })
            .finish();
        tracing::subscriber::with_default(subscriber, say);
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        // Without the time.
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn a_line_has_time_level_process_and_text() {
        let lines = said(Level::INFO, || {
            tracing::warn!(dag_id = "d", "it is late");
            tracing::info!("{} of {}", 1, 2);
            tracing::debug!("not asked for");
        });
        assert_eq!(lines, ["WARN  server: it is late dag_id=\"d\"", "INFO  server: 1 of 2"]);
        let line = line(Level::ERROR, "agent", "text");
        assert!(line.split(' ').next().unwrap().parse::<jiff::Timestamp>().is_ok(), "{line}");
    }

    #[test]
    fn libraries_are_heard_when_they_warn_or_when_everything_is_asked_for() {
        let say = || {
            tracing::debug!(target: "hyper::client", "chatter");
            tracing::error!(target: "hyper::client", "broken");
        };
        assert_eq!(said(Level::DEBUG, say), ["ERROR server: hyper::client: broken"]);
        assert_eq!(said(Level::TRACE, say).len(), 2);
    }

    #[test]
    fn only_the_words_of_the_table_are_levels() {
        assert_eq!(level("debug"), Some(Level::DEBUG));
        for wrong in ["", "1", "DEBUG", "verbose"] {
            assert_eq!(level(wrong), None, "{wrong}");
        }
    }
}
