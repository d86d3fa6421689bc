//! The only module that writes to the terminal. Results go to stdout, everything else to stderr; a closed
//! stdout (`| head -1`) is not an error.

use super::home_hints::{home_option, with_home};
use crate::args::airflow::Rows;
use crate::args::{Global, OutputFormat};
use crate::error::Error;
use clap::Command;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use jiff::tz::TimeZone;
pub use leoflow_base::counted::counted;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::sys::env_vars;
pub(crate) use leoflow_base::sys::fs::disk::human_size;
use leoflow_base::sys::fs::permissions;
use serde::Serialize;
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub struct Printer {
    pub json: bool,
    pub verbose: bool,
    /// The option that chooses the home, for the commands in hints.
    home_option: Option<String>,
    /// The command line, whose commands hints may name.
    command: fn() -> Command,
    /// Zone of printed times: UTC or the system's.
    zone: TimeZone,
    /// Print JSON results as YAML.
    yaml: bool,
    /// Airflow's form of JSON results.
    rows: Option<Rows>,
    /// True when stdout takes colour.
    colour_out: bool,
    /// True when stderr takes colour.
    colour_err: bool,
    /// True when stderr is a terminal, which can show a progress bar.
    terminal: bool,
    stdout_closed: AtomicBool,
    bar: Mutex<Option<ProgressBar>>,
}

impl Printer {
    pub fn new(global: &Global, format: Option<OutputFormat>, command: fn() -> Command) -> Self {
        let zone = if global.utc { TimeZone::UTC } else { TimeZone::system() };
        let yaml = format == Some(OutputFormat::Yaml);
        let json = yaml || global.json || format == Some(OutputFormat::Json);
        let terminal = std::io::stderr().is_terminal() && env_vars::text("TERM").is_some_and(|term| term != "dumb");
        let colour = |enabled: bool| {
            enabled
                && format != Some(OutputFormat::Plain)
                && env_vars::text("TERM").is_some_and(|term| term != "dumb")
                && !env_vars::is_set("NO_COLOR")
        };
        let (colour_out, colour_err) = (colour(std::io::stdout().is_terminal()), colour(terminal));
        Self {
            json,
            verbose: global.verbose,
            home_option: home_option(global),
            command,
            zone,
            yaml,
            rows: None,
            colour_out,
            colour_err,
            terminal,
            stdout_closed: AtomicBool::new(false),
            bar: Mutex::new(None),
        }
    }

    /// Prints JSON results in Airflow's form.
    pub fn with_rows(self, rows: Option<Rows>) -> Self {
        Self { rows, ..self }
    }

    /// Prints one line of the result.
    pub fn line(&self, text: impl AsRef<str>) {
        self.end_bar();
        self.raw(&format!("{}\n", text.as_ref()));
    }

    /// Prints one line of the result that names commands: they act on the same home.
    pub(crate) fn advice(&self, text: impl AsRef<str>) {
        self.line(self.for_home(text.as_ref()));
    }

    /// True once stdout is closed.
    pub(crate) fn stdout_closed(&self) -> bool {
        self.stdout_closed.load(Ordering::Relaxed)
    }

    /// Prints text unchanged, without a newline.
    pub fn raw(&self, text: &str) {
        let mut stdout = std::io::stdout().lock();
        // A closed stdout means that the reader has read enough.
        if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
            self.stdout_closed.store(true, Ordering::Relaxed);
        }
    }

    /// Formats an RFC 3339 time for people: `2026-01-31 09:15:00 CET`; `-` for none.
    pub fn time(&self, text: Option<&str>) -> String {
        match text.and_then(|text| text.parse::<Timestamp>().ok()) {
            Some(timestamp) => self.format_time(timestamp),
            None => text.unwrap_or("-").to_owned(),
        }
    }

    pub(crate) fn format_time(&self, timestamp: Timestamp) -> String {
        timestamp.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
    }

    /// Formats a time close to `now` for people: `09:15:00`, with the date if it is on another day.
    pub(crate) fn clock_time(&self, timestamp: Timestamp, now: Timestamp) -> String {
        let (time, now) = (timestamp.to_zoned(self.zone.clone()), now.to_zoned(self.zone.clone()));
        let format = if time.date() == now.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
        time.strftime(format).to_string()
    }

    /// Prints the result as JSON on one line, so that several results form JSON lines; or as a YAML document.
    pub fn json(&self, value: &impl Serialize) -> Result<(), Error> {
        match &self.rows {
            Some(rows) => self.document(&rows.of(serde_json::to_value(value).map_err(Error::bug)?)),
            None => self.document(value),
        }
    }

    fn document(&self, value: &impl Serialize) -> Result<(), Error> {
        if self.yaml {
            let value = as_yaml(serde_json::to_value(value).map_err(Error::bug)?);
            // One document per result: some commands print several.
            self.line("---");
            self.raw(&serde_yaml::to_string(&value).map_err(Error::bug)?);
        } else {
            self.line(serde_json::to_string(value).map_err(Error::bug)?);
        }
        Ok(())
    }

    /// Prints the result of a command: `value` as JSON or YAML, or for people what `text` prints. Returns exit code 0.
    pub fn show<T: Printed>(&self, value: &impl Serialize, text: impl FnOnce(&Self) -> T) -> Result<u8, Error> {
        match self.json {
            true => self.json(value)?,
            false => text(self).into_result()?,
        }
        Ok(0)
    }

    /// Prints a part of the text of a result early. With `--json`, the one value of the result contains it.
    pub(crate) fn part(&self, print_text: impl FnOnce(&Self)) {
        if !self.json {
            print_text(self);
        }
    }

    /// Prints a note to stderr.
    pub fn note(&self, text: impl AsRef<str>) {
        self.to_stderr(&self.for_home(text.as_ref()));
    }

    pub fn warning(&self, text: impl AsRef<str>) {
        self.to_stderr(&format!("{} {}", self.paint_err("33;1", "warning:"), self.for_home(text.as_ref())));
    }

    /// Warns if other users can read a file with secrets, which was meant to be private.
    pub(crate) fn warn_if_readable_by_others(&self, path: &Path) {
        if permissions::is_readable_by_others(path) {
            self.warning(format!(
                "other users can read {}, which contains secrets: its file system does not keep permissions",
                path.display()
            ));
        }
    }

    /// Prints a note only with `--verbose`.
    pub fn detail(&self, text: impl AsRef<str>) {
        if self.verbose {
            self.to_stderr(text.as_ref());
        }
    }

    pub fn error(&self, error: &Error) {
        if self.json {
            let (message, cause) = (&error.message, &error.cause);
            let hints: Vec<String> = error.hints.iter().map(|hint| self.for_home(hint)).collect();
            let line = json!({"error": message, "cause": cause, "hints": hints, "exit_code": error.exit_code()});
            return self.to_stderr(&line.to_string());
        }
        self.to_stderr(&format!("{} {}", self.paint_err("31;1", "error:"), error.message));
        if let Some(cause) = &error.cause {
            for line in cause.lines() {
                self.to_stderr(&format!("  {line}"));
            }
        }
        for hint in &error.hints {
            self.to_stderr(&format!("{} {}", self.paint_err("36;1", "hint:"), self.for_home(hint)));
        }
    }

    /// Colours text for stdout if stdout takes colour.
    pub fn paint(&self, code: &str, text: &str) -> String {
        coloured(self.colour_out, code, text)
    }

    fn paint_err(&self, code: &str, text: &str) -> String {
        coloured(self.colour_err, code, text)
    }

    /// Prints a table: each column as wide as its widest cell, two spaces between.
    pub fn table<R: AsRef<[String]>>(&self, header: &[&str], rows: impl IntoIterator<Item = R>) {
        let rows: Vec<R> = rows.into_iter().collect();
        let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row.as_ref()) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let format = |cells: &mut dyn Iterator<Item = &str>| {
            let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            padded.join("  ").trim_end().to_owned()
        };
        self.line(format(&mut header.iter().copied()));
        for row in &rows {
            self.line(format(&mut row.as_ref().iter().map(String::as_str)));
        }
    }

    /// Adds the user's `--home` or `--instance` to the commands in `text`.
    pub(crate) fn for_home(&self, text: &str) -> String {
        with_home(text, self.home_option.as_deref(), self.command)
    }

    /// The option that makes another command act on the same home, with a leading blank; empty if none is needed.
    pub(crate) fn home_option(&self) -> String {
        self.home_option.as_ref().map(|option| format!(" {option}")).unwrap_or_default()
    }

    fn to_stderr(&self, text: &str) {
        self.end_bar();
        // A failure to write to stderr cannot be reported anywhere.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// Removes the progress bar.
    fn end_bar(&self) {
        if let Some(bar) = self.bar.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }

    /// Shows what the command does now in place of what it did before, on a terminal and without `--json`.
    pub(crate) fn progress(&self, text: &str) {
        if !self.json {
            self.show_bar(text, None);
        }
    }

    fn show_bar(&self, text: &str, bytes: Option<(u64, u64)>) {
        if !self.terminal {
            return;
        }
        let mut current_bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = current_bar.get_or_insert_with(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()));
        let template = match bytes {
            Some((_, 1..)) => "{spinner} {msg} [{bar:30}] {bytes}/{total_bytes} {eta}",
            Some(_) => "{spinner} {msg} {bytes}",
            None => "{spinner} {msg} {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        if let Some((done, total)) = bytes {
            if total > 0 {
                bar.set_length(total);
            }
            bar.set_position(done);
        }
        bar.set_message(text.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
    }
}

/// The outcome of a function that prints a result: nothing, or a `Result`.
pub trait Printed {
    fn into_result(self) -> Result<(), Error>;
}

impl Printed for () {
    fn into_result(self) -> Result<(), Error> {
        Ok(())
    }
}

impl Printed for Result<(), Error> {
    fn into_result(self) -> Self {
        self
    }
}

fn coloured(enabled: bool, code: &str, text: &str) -> String {
    if enabled { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Converts JSON to YAML. A number that YAML's types cannot hold exactly becomes a string.
fn as_yaml(value: serde_json::Value) -> serde_yaml::Value {
    use serde_json::Value;
    match value {
        Value::Null => serde_yaml::Value::Null,
        Value::Bool(flag) => flag.into(),
        Value::String(text) => text.into(),
        Value::Array(list) => serde_yaml::Value::Sequence(list.into_iter().map(as_yaml).collect()),
        Value::Object(map) => {
            serde_yaml::Value::Mapping(map.into_iter().map(|(key, value)| (key.into(), as_yaml(value))).collect())
        }
        Value::Number(number) => {
            let integer = number.as_i64().map(serde_yaml::Value::from).or_else(|| number.as_u64().map(Into::into));
            let float = || number.as_f64().filter(|float| float.to_string() == number.to_string()).map(Into::into);
            integer.or_else(float).unwrap_or_else(|| number.to_string().into())
        }
    }
}

impl Reporter for Printer {
    fn report(&self, progress: Progress) {
        match progress {
            Progress::Started(text) if self.terminal => self.show_bar(&text, None),
            Progress::Started(text) => self.note(format!("{text} ...")),
            Progress::Bytes { what, done, total } => self.show_bar(&what, Some((done, total))),
            Progress::Finished(text) => self.note(format!("{} {text}", self.paint_err("32;1", "ok"))),
            Progress::Note(text) => self.note(text),
            Progress::Warning(text) => self.warning(text),
            Progress::Detail(text) => self.detail(text),
        }
    }
}
