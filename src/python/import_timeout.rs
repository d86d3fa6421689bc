//! Airflow's `[core] dagbag_import_timeout`, measured in processor time: on a busy machine a correct import is slow.
//! <https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#dagbag-import-timeout>

use super::dotenv::{self, InvalidVariable};
use super::interpreter::Job;
use std::path::PathBuf;
use std::time::Duration;

pub const VARIABLE: &str = "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT";
/// Airflow's default.
const DEFAULT: Duration = Duration::from_secs(30);
/// Wall time that an import may take, as a multiple of the timeout: it may wait for a slow disk or a network.
const WALL_TIME_FACTOR: u32 = 3;
/// How often a child's processor time is checked.
const TICK: Duration = Duration::from_secs(1);
const SHORTEST_TICK: Duration = Duration::from_millis(50);

/// Time that a child has spent since its start.
#[derive(Debug, Clone, Copy, Default)]
pub struct TimeSpent {
    /// Wall time.
    pub elapsed: Duration,
    /// Processor time of all its processes.
    pub processor: Duration,
    /// Time in which the child was runnable but waited for a processor.
    pub queued: Duration,
}

/// The timeout. A setting of zero or less means no limit: `None`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImportTimeout(Option<Duration>);

impl ImportTimeout {
    /// Reads the folders' `.env`, nearest first, or our own environment.
    pub fn read(folders: &[PathBuf]) -> Result<Self, InvalidVariable> {
        Self::parse(&dotenv::variable(folders, VARIABLE).unwrap_or_default())
    }

    fn parse(text: &str) -> Result<Self, InvalidVariable> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self(Some(DEFAULT)));
        }
        match text.parse::<f64>() {
            Ok(seconds) if seconds <= 0.0 => Ok(Self(None)),
            // A number too large for a duration is no limit either.
            Ok(seconds) if !seconds.is_nan() => Ok(Self(Duration::try_from_secs_f64(seconds).ok())),
            _ => {
                let (name, value) = (VARIABLE.to_owned(), text.to_owned());
                Err(InvalidVariable { name, value, problem: "not a number of seconds" })
            }
        }
    }

    /// True if a child has used the timeout both in processor time and in wall time, or more wall time (without the
    /// time queued for a processor) than `WALL_TIME_FACTOR` allows.
    pub fn has_expired(self, job: Job, spent: TimeSpent) -> bool {
        let Some(limit) = self.0 else { return false };
        // A child with several threads uses processor time faster than wall time; both must reach the limit.
        let is_used_up = spent.elapsed >= limit && spent.processor >= limit;
        is_used_up || spent.elapsed.saturating_sub(spent.queued) >= wall_time_limit(limit, job)
    }

    /// Time until a child's next check.
    pub fn next_check_in(self, elapsed: Duration) -> Duration {
        let left = self.0.map_or(TICK, |limit| limit.saturating_sub(elapsed));
        // After the limit the child can expire at any time, so it is checked more often.
        if left.is_zero() { TICK / 2 } else { left.clamp(SHORTEST_TICK, TICK) }
    }

    /// True if enough wall time has passed that a child can have exceeded the timeout.
    pub fn may_have_expired(self, elapsed: Duration) -> bool {
        self.0.is_some_and(|limit| elapsed >= limit)
    }

    /// `RLIMIT_CPU` of each process, in seconds: a backstop for children whose parent was killed. It is above the
    /// timeout, so the regular check expires first.
    pub fn cpu_rlimit(self, processors: usize) -> Option<u64> {
        let limit = self.0?;
        let seconds = limit.as_secs().saturating_add(1).saturating_mul(u64::from(WALL_TIME_FACTOR));
        // setrlimit(2) takes a signed number.
        Some(seconds.saturating_mul(processors as u64).saturating_add(5)).filter(|seconds| *seconds < 1 << 32)
    }

    /// The message for the user when the timeout has expired.
    pub fn message(self, job: Job, spent: TimeSpent) -> String {
        let action = if job == Job::Ask { "Answering" } else { "Importing the file" };
        let limit = self.0.unwrap_or_default().as_secs_f64();
        format!(
            "{action} took longer than {limit} s and was stopped: it used {:.1} s of processor time in {:.0} s. \
             {VARIABLE} in the project's .env sets the limit.",
            spent.processor.as_secs_f64(),
            spent.elapsed.as_secs_f64(),
        )
    }
}

/// Limit of wall time. `Job::Ask` gets no extra time, because an HTTP request waits for the answer.
fn wall_time_limit(limit: Duration, job: Job) -> Duration {
    if job == Job::Ask { limit } else { limit.saturating_mul(WALL_TIME_FACTOR) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn spent(elapsed: u64, processor: u64, queued: u64) -> TimeSpent {
        TimeSpent { elapsed: seconds(elapsed), processor: seconds(processor), queued: seconds(queued) }
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
            assert!(ImportTimeout::parse(text).unwrap_err().to_string().contains(VARIABLE), "{text:?}");
        }
    }

    #[test]
    fn counts_processor_time_but_not_queueing() {
        let limit = ImportTimeout(Some(seconds(30)));
        let has_expired = |elapsed, processor, queued| limit.has_expired(Job::Parse, spent(elapsed, processor, queued));
        assert!(!has_expired(29, 29, 0));
        assert!(has_expired(30, 30, 0));
        assert!(!has_expired(10, 80, 0), "with many threads, within the time");
        assert!(!has_expired(300, 29, 260), "on a busy machine");
        assert!(has_expired(300, 30, 260));
        assert!(!has_expired(89, 1, 0));
        assert!(has_expired(90, 1, 0), "it sleeps");
        assert!(limit.has_expired(Job::Ask, spent(30, 1, 0)), "a request waits");
        assert!(!ImportTimeout(None).has_expired(Job::Parse, spent(9999, 9999, 0)));
    }

    #[test]
    fn a_short_limit_is_checked_in_time() {
        let limit = ImportTimeout(Some(Duration::from_millis(300)));
        assert_eq!(limit.next_check_in(Duration::ZERO), Duration::from_millis(300));
        assert_eq!(limit.next_check_in(Duration::from_millis(299)), SHORTEST_TICK);
        assert_eq!(ImportTimeout(None).next_check_in(seconds(50)), TICK);
        assert_eq!(ImportTimeout(None).cpu_rlimit(2), None);
        assert_eq!(ImportTimeout(Some(seconds(30))).cpu_rlimit(2), Some(31 * 3 * 2 + 5));
    }
}
