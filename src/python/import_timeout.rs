//! Airflow's `[core] dagbag_import_timeout`, counted in processor time: a machine that is busy with other things, ours among them,
//! makes an import slow and not wrong.
//! <https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#dagbag-import-timeout>

use super::dotenv;
use super::interpreter::Job;
use std::path::PathBuf;
use std::time::Duration;

pub const VARIABLE: &str = "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT";
/// Airflow's default.
const DEFAULT: Duration = Duration::from_secs(30);
/// A parse may sleep so much longer than it may compute: it reads from a slow disk, or from a network.
const SLEEPING_PARSE: u32 = 3;
/// How often a child is looked at.
const TICK: Duration = Duration::from_secs(1);
const SHORTEST_TICK: Duration = Duration::from_millis(50);

/// What a child has spent since it began.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    pub elapsed: Duration,
    /// Processor time of all its processes.
    pub processor: Duration,
    /// Time in which it was ready to run and had no processor.
    pub queued: Duration,
}

/// Zero, like anything below it, is no limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImportTimeout(Option<Duration>);

impl ImportTimeout {
    /// What the folders' `.env` say, the nearest first, or our own environment. The error is for people.
    pub fn of(folders: &[PathBuf]) -> Result<Self, String> {
        Self::parse(&dotenv::variable(folders, VARIABLE).unwrap_or_default())
    }

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self(Some(DEFAULT)));
        }
        match text.parse::<f64>() {
            Ok(seconds) if seconds <= 0.0 => Ok(Self(None)),
            // Longer than anything lasts is no limit either.
            Ok(seconds) if !seconds.is_nan() => Ok(Self(Duration::try_from_secs_f64(seconds).ok())),
            _ => Err(format!("{VARIABLE}: {text:?} is no number of seconds")),
        }
    }

    /// Whether a child has taken too long: it has used the time up, or has slept for longer than it may.
    pub fn is_over(self, job: Job, spent: Spent) -> bool {
        let Some(limit) = self.0 else { return false };
        // Several threads use more processor time than passes.
        let is_used_up = spent.elapsed >= limit && spent.processor >= limit;
        is_used_up || spent.elapsed.saturating_sub(spent.queued) >= sleeping(limit, job)
    }

    /// When a child is to be looked at again.
    pub fn next_look(self, elapsed: Duration) -> Duration {
        let left = self.0.map_or(TICK, |limit| limit.saturating_sub(elapsed));
        if left.is_zero() { TICK / 2 } else { left.clamp(SHORTEST_TICK, TICK) }
    }

    /// Whether time enough has passed that a child can be over it.
    pub fn may_be_over(self, elapsed: Duration) -> bool {
        self.0.is_some_and(|limit| elapsed >= limit)
    }

    /// RLIMIT_CPU for each process, in seconds, behind what is counted: for children that nobody looks at any more.
    pub fn last_resort(self, processors: usize) -> Option<u64> {
        let limit = self.0?;
        let seconds = limit.as_secs().saturating_add(1).saturating_mul(u64::from(SLEEPING_PARSE));
        // setrlimit(2) takes a signed number.
        Some(seconds.saturating_mul(processors as u64).saturating_add(5)).filter(|seconds| *seconds < 1 << 32)
    }

    /// For people: what took longer, and the time that it took.
    pub fn message(self, job: Job, spent: Spent) -> String {
        let what = if job == Job::Ask { "The answer" } else { "Importing it" };
        let limit = self.0.unwrap_or_default().as_secs_f64();
        format!(
            "{what} took longer than {limit} s and was ended: it had used {:.1} s of processor time after {:.0} s. \
             {VARIABLE} in the project's .env sets the limit.",
            spent.processor.as_secs_f64(),
            spent.elapsed.as_secs_f64(),
        )
    }
}

/// Somebody waits for an answer.
fn sleeping(limit: Duration, job: Job) -> Duration {
    if job == Job::Ask { limit } else { limit.saturating_mul(SLEEPING_PARSE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn spent(elapsed: u64, processor: u64, queued: u64) -> Spent {
        Spent { elapsed: seconds(elapsed), processor: seconds(processor), queued: seconds(queued) }
    }

    #[test]
    fn the_setting_is_read_as_airflow_reads_it() {
        for (text, limit) in [
            ("", Some(DEFAULT)),
            ("120", Some(seconds(120))),
            (" 0.5 ", Some(Duration::from_millis(500))),
            ("0", None),
            ("-1.0", None),
            ("inf", None),
            ("1e300", None),
        ] {
            assert_eq!(ImportTimeout::parse(text), Ok(ImportTimeout(limit)), "{text:?}");
        }
        for text in ["half a minute", "nan", "30s"] {
            assert!(ImportTimeout::parse(text).unwrap_err().contains(VARIABLE), "{text:?}");
        }
    }

    #[test]
    fn processor_time_counts_and_not_waiting_for_a_processor() {
        let limit = ImportTimeout(Some(seconds(30)));
        let is_over = |elapsed, processor, queued| limit.is_over(Job::Parse, spent(elapsed, processor, queued));
        assert!(!is_over(29, 29, 0));
        assert!(is_over(30, 30, 0));
        assert!(!is_over(10, 80, 0), "with many threads, within the time");
        assert!(!is_over(300, 29, 260), "on a busy machine");
        assert!(is_over(300, 30, 260));
        assert!(!is_over(89, 1, 0));
        assert!(is_over(90, 1, 0), "it sleeps");
        assert!(limit.is_over(Job::Ask, spent(30, 1, 0)), "somebody waits");
        assert!(!ImportTimeout(None).is_over(Job::Parse, spent(9999, 9999, 0)));
    }

    #[test]
    fn a_short_limit_is_looked_at_in_time() {
        let limit = ImportTimeout(Some(Duration::from_millis(300)));
        assert_eq!(limit.next_look(Duration::ZERO), Duration::from_millis(300));
        assert_eq!(limit.next_look(Duration::from_millis(299)), SHORTEST_TICK);
        assert_eq!(ImportTimeout(None).next_look(seconds(50)), TICK);
        assert_eq!(ImportTimeout(None).last_resort(2), None);
        assert_eq!(ImportTimeout(Some(seconds(30))).last_resort(2), Some(31 * 3 * 2 + 5));
    }
}
