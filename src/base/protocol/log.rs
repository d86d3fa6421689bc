//! Log output of a process by `tracing`: lines in one format on standard error. The supervisor stores what its children
//! print.

use std::fmt::{self, Write as _};
use std::io;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Parses a value of `log_level`: `error`, `warn`, `info`, `debug` or `trace`.
pub fn level(value: &str) -> Option<Level> {
    value.parse().ok().filter(|level: &Level| level.as_str().to_ascii_lowercase() == value)
}

/// Starts to log to standard error: messages of this process at `level` or more severe, and warnings and errors of its
/// libraries; at `trace`, all messages. Only the first call in a process has an effect.
pub fn start(process: &'static str, level: Level) {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        // A failure to write a log line cannot be logged: the disk may be full, or the reader gone.
        .log_internal_errors(false)
        .event_format(Format { process, level })
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Formats a line: `2026-11-21T18:30:00.042Z WARN  server: text`.
pub fn line(level: Level, process: &str, text: impl fmt::Display) -> String {
    format!("{:.3} {level:<5} {process}: {text}", jiff::Timestamp::now())
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
        // Libraries log too much: their debug and info messages appear only at level `trace`.
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

/// The text of an event: the message and ` name=value` for each field.
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
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: Level, log: impl FnOnce()) -> Vec<String> {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(move || writer.clone())
            .event_format(Format { process: "server", level })
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        // Without the time.
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn a_line_has_time_level_process_and_text() {
        let lines = logged(Level::INFO, || {
            tracing::warn!(dag_id = "d", "it is late");
            tracing::info!("{} of {}", 1, 2);
            tracing::debug!("below the level");
        });
        assert_eq!(lines, ["WARN  server: it is late dag_id=\"d\"", "INFO  server: 1 of 2"]);
        let line = line(Level::ERROR, "agent", "text");
        assert!(line.split(' ').next().unwrap().parse::<jiff::Timestamp>().is_ok(), "{line}");
    }

    #[test]
    fn libraries_log_warnings_and_at_trace_everything() {
        let log = || {
            tracing::debug!(target: "hyper::client", "chatter");
            tracing::error!(target: "hyper::client", "broken");
        };
        assert_eq!(logged(Level::DEBUG, log), ["ERROR server: hyper::client: broken"]);
        assert_eq!(logged(Level::TRACE, log).len(), 2);
    }

    #[test]
    fn other_words_are_not_levels() {
        assert_eq!(level("debug"), Some(Level::DEBUG));
        for wrong in ["", "1", "DEBUG", "verbose"] {
            assert_eq!(level(wrong), None, "{wrong}");
        }
    }
}
