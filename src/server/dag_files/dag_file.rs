//! The states of a DAG file: what happens to it now, and what its last parse found. Pure but for the task of a parse:
//! time is passed as a value.

use super::parse_file::{NoOutput, Parsed};
use crate::dag_code::slot_policy::Pace;
use leoflow_python::{NoResult, Stamp};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Maximum restarts of a running parse, because its inputs changed or another one was requested.
pub const MAX_RESTARTS: u32 = 3;
/// A file that is parsed again within this time after its last parse counts as parsed repeatedly.
const REPEAT_WINDOW: Duration = Duration::from_secs(5);
/// Longest delay of the retry after a transient failure.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(3600);

/// Returns the delay before the n-th repetition of a parse: none for the first three, then 2, 4 and at most 8 seconds.
pub fn pause_before_repeat(repeat_count: u32) -> Duration {
    match repeat_count {
        0..=3 => Duration::ZERO,
        count => Duration::from_secs(1 << (count - 3).min(3)),
    }
}

/// Returns the delay of the retry after the first transient failure. It doubles with each further failure in a row.
fn first_retry_delay() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_IMPORT_RETRY", Duration::from_secs(10))
}

fn retry_delay(failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    first_retry_delay().saturating_mul(factor).min(MAX_RETRY_DELAY)
}

/// What happens to a DAG file now.
#[derive(Default)]
pub enum Work {
    #[default]
    Idle,
    /// A parse waits or runs, and its result is not recorded.
    Parsing(Parse),
    /// The result of the last parse could not be written to the datastore yet.
    Unsaved(Box<Parsed>),
}

/// A parse that waits or runs; dropping this aborts it.
pub struct Parse {
    number: u64,
    task: JoinHandle<()>,
    /// Number of the last scan before the parse started.
    scan: u64,
    /// Stamp of the file when the parse started.
    stamp: Option<Stamp>,
    /// Parses replaced by a newer one since the last complete parse.
    restarts: u32,
    /// True when another parse was requested that must wait until this one is complete.
    must_repeat: bool,
}

impl Drop for Parse {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the last parse found.
#[derive(Debug, Default)]
pub enum Outcome {
    #[default]
    NotParsed,
    /// The file was not parsed, because its environment is not available yet.
    AwaitsEnvironment {
        began: SystemTime,
    },
    Imported(DagOwner),
    Failed(Failure),
}

/// The file that owns the DAGs which a file defines: the first one that defined them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DagOwner {
    ThisFile,
    /// Another file owns at least one of them.
    OtherFile,
}

/// A failed import.
#[derive(Debug)]
pub struct Failure {
    began: SystemTime,
    /// True without an environment: packages may be missing, so a new environment may fix the import.
    is_plain: bool,
    /// Set if the failure is transient.
    retry: Option<Retry>,
}

#[derive(Debug)]
struct Retry {
    /// Stamp of the DAG file at the failure. With another stamp, the next failure counts as the first one.
    stamp: Option<Stamp>,
    /// Number of consecutive failures, from which the delay is computed.
    failures: u32,
    due: Instant,
}

#[derive(Default)]
pub struct DagFile {
    pub work: Work,
    pub outcome: Outcome,
    /// Imported local modules and other files read by the last parse, with their stamps.
    pub imports: Vec<(PathBuf, Option<Stamp>)>,
    /// True when Variables or Connections affect its DAGs.
    pub uses_store: bool,
    /// True from the start of the server until a result of the file is recorded for the first time.
    pub is_initial: bool,
    /// Number of the last scan that noticed a change of the file or of what it imports.
    pub changed_in: u64,
    pace: Option<Pace>,
    last_parse: Option<LastParse>,
    /// Number of consecutive parses whose inputs changed meanwhile.
    outdated_count: u32,
}

/// The last complete parse.
struct LastParse {
    /// Stamp of the file.
    stamp: Option<Stamp>,
    ended_at: Instant,
    /// Number of consecutive parses without a change of the file itself.
    repeat_count: u32,
}

impl DagFile {
    /// Returns the pace of the last parse; `Quick` for a file that was not parsed yet.
    pub fn pace(&self) -> Pace {
        self.pace.unwrap_or(Pace::Quick)
    }

    /// Returns how long to wait before parsing the file, which has this stamp now. There is no wait unless the file is
    /// parsed repeatedly without a change of its own, such as a file that writes a module that it imports. `None` means
    /// that the current parse must complete first and is then repeated: if every change of an input restarted it, it
    /// might never complete.
    pub fn pause_before_parse(&mut self, stamp: Option<Stamp>) -> Option<Duration> {
        let repeat_count = self.last_parse.as_ref().map_or(0, |last| last.repeat_count);
        if let Work::Parsing(parse) = &mut self.work
            && parse.is_restart(stamp)
            && (parse.restarts >= MAX_RESTARTS || repeat_count > 0)
        {
            parse.must_repeat = true;
            return None;
        }
        Some(pause_before_repeat(repeat_count))
    }

    /// Registers a parse, which replaces an older one and a result that could not be written.
    pub fn start(&mut self, number: u64, task: JoinHandle<()>, scan: u64, stamp: Option<Stamp>) {
        let restarts = match &self.work {
            Work::Parsing(older) => older.restarts + u32::from(older.is_restart(stamp)),
            Work::Idle | Work::Unsaved(_) => 0,
        };
        self.work = Work::Parsing(Parse { number, task, scan, stamp, restarts, must_repeat: false });
    }

    /// True if no newer parse of the file has started. An older one may have sent its result before it was aborted.
    pub fn is_newest_parse(&self, number: u64) -> bool {
        matches!(&self.work, Work::Parsing(parse) if parse.number == number)
    }

    /// Ends the parse. `is_fresh` returns whether the inputs of a parse that started after a scan are unchanged. Returns
    /// false when the parse must be repeated, because an input changed or because it was requested again.
    pub fn end_parse(&mut self, is_fresh: impl FnOnce(u64) -> bool, now: Instant) -> bool {
        let Work::Parsing(parse) = std::mem::take(&mut self.work) else { return true };
        let repeat_count = match &self.last_parse {
            Some(last) if last.stamp == parse.stamp && now < last.repeat_end() => last.repeat_count + 1,
            _ => 0,
        };
        self.last_parse = Some(LastParse { stamp: parse.stamp, ended_at: now, repeat_count });
        let is_current = !parse.must_repeat && is_fresh(parse.scan);
        self.outdated_count = if is_current { 0 } else { self.outdated_count + 1 };
        is_current
    }

    /// True if the inputs of the last parses changed during each of them.
    pub fn is_always_outdated(&self) -> bool {
        self.outdated_count > 1
    }

    /// Records the result of a parse of the file with this stamp. Returns the delay until the retry of a transient
    /// failure. Another failure before the retry is due, for example of a parse after an imported module changed, is not
    /// counted, and the due time stays. If the DAG file itself changed, the failure counts as the first one.
    pub fn record(&mut self, parsed: &Parsed, stamp: Option<Stamp>, now: Instant) -> Option<Duration> {
        let began = parsed.began;
        if let Err(NoOutput::AwaitsEnvironment) = parsed.output {
            self.outcome = Outcome::AwaitsEnvironment { began };
            return None;
        }
        self.pace = Some(parsed.pace);
        if !parsed.has_failed() {
            self.outcome = Outcome::Imported(DagOwner::ThisFile);
            return None;
        }
        let is_transient =
            matches!(parsed.output, Err(NoOutput::NoResult(NoResult::Transient(_) | NoResult::TimedOut(_))));
        let retry = is_transient.then(|| self.next_retry(stamp, now));
        let delay = retry.as_ref().map(|retry| retry.due - now);
        self.outcome = Outcome::Failed(Failure { began, is_plain: parsed.environment.is_none(), retry });
        delay
    }

    fn next_retry(&self, stamp: Option<Stamp>, now: Instant) -> Retry {
        let previous = match &self.outcome {
            Outcome::Failed(Failure { retry: Some(retry), .. }) if retry.stamp == stamp => Some(retry),
            _ => None,
        };
        let failures = previous.map_or(1, |retry| retry.failures + u32::from(retry.due <= now));
        let due = previous.filter(|retry| retry.due > now).map_or(now + retry_delay(failures), |retry| retry.due);
        Retry { stamp, failures, due }
    }

    /// Returns when the retry is due; `None` without one, and while the file is parsed.
    pub fn retry_due(&self) -> Option<Instant> {
        match (&self.work, &self.outcome) {
            (Work::Idle | Work::Unsaved(_), Outcome::Failed(Failure { retry: Some(retry), .. })) => Some(retry.due),
            _ => None,
        }
    }

    /// Returns when the last parse started, if it failed. The next one may succeed after a change of any other file.
    pub fn failed_since(&self) -> Option<SystemTime> {
        match &self.outcome {
            Outcome::AwaitsEnvironment { began } | Outcome::Failed(Failure { began, .. }) => Some(*began),
            Outcome::NotParsed | Outcome::Imported(_) => None,
        }
    }

    /// True if the file must be parsed again when an environment changes.
    pub fn awaits_new_environment(&self) -> bool {
        let awaits = match &self.outcome {
            Outcome::AwaitsEnvironment { .. } => true,
            Outcome::Failed(failure) => failure.is_plain,
            Outcome::NotParsed | Outcome::Imported(_) => false,
        };
        awaits && !matches!(self.work, Work::Parsing(_))
    }

    pub fn has_other_owner(&self) -> bool {
        matches!(self.outcome, Outcome::Imported(DagOwner::OtherFile))
    }

    /// Takes a result that could not be written to the datastore.
    pub fn take_unsaved(&mut self) -> Option<Box<Parsed>> {
        match std::mem::take(&mut self.work) {
            Work::Unsaved(parsed) => Some(parsed),
            other => {
                self.work = other;
                None
            }
        }
    }
}

impl Parse {
    /// True if a parse of the file with this stamp would restart this one for a change of another file.
    fn is_restart(&self, stamp: Option<Stamp>) -> bool {
        !self.task.is_finished() && self.stamp == stamp
    }
}

impl LastParse {
    /// Returns until when another parse of the same file counts as a repetition.
    fn repeat_end(&self) -> Instant {
        self.ended_at + REPEAT_WINDOW + pause_before_repeat(self.repeat_count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the result of a parse with the plain interpreter.
    fn parsed(reason: NoOutput, pace: Pace) -> Parsed {
        Parsed {
            path: "/w/dag.py".into(),
            number: 1,
            began: SystemTime::now(),
            duration: Duration::ZERO,
            output: Err(reason),
            environment: None,
            adjacent_files: Default::default(),
            pace,
        }
    }

    fn transient() -> Parsed {
        parsed(NoOutput::NoResult(NoResult::Transient("It took too long.".to_owned())), Pace::Slow)
    }

    fn permanent() -> Parsed {
        parsed(NoOutput::NoResult(NoResult::Permanent("No file.".to_owned())), Pace::Quick)
    }

    fn start(file: &mut DagFile) {
        file.start(1, tokio::spawn(std::future::pending()), 0, None);
    }

    #[tokio::test]
    async fn retry_delays_grow_up_to_an_hour() {
        let (mut file, mut now) = (DagFile::default(), Instant::now());
        let mut delays = Vec::new();
        for _ in 0..12 {
            let delay = file.record(&transient(), None, now).unwrap();
            assert_eq!(file.retry_due(), Some(now + delay));
            now += delay;
            start(&mut file);
            assert_eq!(file.retry_due(), None, "it is running");
            file.end_parse(|_| true, now);
            delays.push(delay.as_secs());
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600]);
        assert_eq!(retry_delay(u32::MAX), MAX_RETRY_DELAY);
        assert_eq!(file.record(&permanent(), None, now), None);
        assert_eq!(file.record(&transient(), None, now), Some(first_retry_delay()), "after another result");
    }

    #[test]
    fn an_early_retry_keeps_the_next_due_time() {
        let (mut file, now) = (DagFile::default(), Instant::now());
        file.record(&transient(), None, now);
        let early = now + Duration::from_secs(4);
        assert_eq!(file.record(&transient(), None, early), Some(Duration::from_secs(6)));
        let changed = tempfile::NamedTempFile::new().unwrap();
        let stamp = Stamp::of_path(changed.path());
        assert_eq!(file.record(&transient(), stamp, early), Some(first_retry_delay()), "after a change");
    }

    #[test]
    fn remembers_the_pace_of_the_last_parse() {
        let mut file = DagFile::default();
        assert_eq!(file.pace(), Pace::Quick);
        file.record(&transient(), None, Instant::now());
        assert_eq!(file.pace(), Pace::Slow);
        file.record(&permanent(), None, Instant::now());
        assert_eq!(file.pace(), Pace::Quick);
    }

    #[tokio::test]
    async fn a_new_environment_may_fix_a_file_that_failed_without_one() {
        let mut file = DagFile::default();
        let mut results = [permanent(), parsed(NoOutput::AwaitsEnvironment, Pace::Quick), permanent()];
        results[2].environment = Some("hash".to_owned());
        let awaits = results.each_ref().map(|result| {
            file.record(result, None, Instant::now());
            (file.failed_since().is_some(), file.awaits_new_environment())
        });
        assert_eq!(awaits, [(true, true), (true, true), (true, false)]);
        file.record(&permanent(), None, Instant::now());
        start(&mut file);
        assert!(!file.awaits_new_environment(), "it is being parsed");
    }

    #[tokio::test]
    async fn a_new_parse_replaces_a_result_that_could_not_be_written() {
        let mut file = DagFile { work: Work::Unsaved(Box::new(permanent())), ..DagFile::default() };
        start(&mut file);
        assert!(file.take_unsaved().is_none() && file.is_newest_parse(1));
    }
}
