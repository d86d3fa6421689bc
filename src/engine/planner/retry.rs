//! When a try that failed is tried again.

use crate::engine::dag::Task;
use jiff::{SignedDuration, Timestamp};
use sha1::{Digest, Sha1};

/// Airflow's `max_task_retry_delay`: no delay that grows is longer. Seconds.
const LONGEST: f64 = 86_400.0;

/// Whether a task whose try of that number failed is tried again, as Airflow asks: the number against the most, which
/// clearing raises.
pub fn has_tries_left(try_number: i32, max_tries: i32) -> bool {
    max_tries > 0 && try_number <= max_tries
}

/// The most tries of an instance that is to run again after so many: clearing gives it all of its retries anew.
pub fn max_tries_again(task: &Task, try_number: i32) -> i32 {
    i32::try_from(task.retries).unwrap_or(i32::MAX).saturating_add(try_number).min(i32::MAX - 1)
}

/// When the try after `try_number`, which ended at `ended`, may begin. A delay that grows is spread by a
/// hash, so that tasks that failed together are not tried again together; the formula is that of
/// Airflow's `TaskInstance.next_retry_datetime`.
pub fn due(dag_id: &str, task: &Task, date: Option<Timestamp>, try_number: i32, ended: Timestamp) -> Timestamp {
    let seconds = match task.retry_backoff {
        Some(factor) if factor > 0.0 && factor != 1.0 => {
            let least = (task.retry_delay * factor.powi(try_number - 1)).ceil();
            let least = if least.is_finite() { least.clamp(1.0, LONGEST) } else { LONGEST };
            let spread = spread(dag_id, &task.task_id, date, try_number, least as u64);
            let whole = (least + spread as f64).min(LONGEST);
            task.max_retry_delay.map_or(whole, |most| whole.min(most))
        }
        _ => task.retry_delay,
    };
    later(ended, seconds)
}

/// A date that was worked out at `at`, by a clock that may have been set back since: then it comes as long after `now` as
/// it was to come after `at`.
pub fn set_right(date: Timestamp, at: Timestamp, now: Timestamp) -> Timestamp {
    if at <= now || date <= at { date } else { later(now, date.duration_since(at).as_secs_f64()) }
}

/// Less than `below`, and the same for the same try.
fn spread(dag_id: &str, task_id: &str, date: Option<Timestamp>, try_number: i32, below: u64) -> u64 {
    let text = format!("{dag_id}#{task_id}#{}#{try_number}", python_text(date));
    let hash = Sha1::digest(text.as_bytes());
    // The remainder of a number of 160 bits, byte by byte.
    hash.iter().fold(0, |rest, byte| (rest * 256 + u64::from(*byte)) % below.max(1))
}

/// As Python's `str()` has it.
fn python_text(date: Option<Timestamp>) -> String {
    let Some(date) = date else { return "None".to_owned() };
    let seconds = date.strftime("%Y-%m-%d %H:%M:%S");
    match date.subsec_microsecond() {
        0 => format!("{seconds}+00:00"),
        micros => format!("{seconds}.{micros:06}+00:00"),
    }
}

/// `seconds` after `at`, as far as the calendar goes.
pub fn later(at: Timestamp, seconds: f64) -> Timestamp {
    let delay = SignedDuration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(SignedDuration::MAX);
    at.checked_add(delay).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn delays(task: serde_json::Value) -> Vec<i64> {
        let task: Task = serde_json::from_value(task).unwrap();
        let delay = |number| due("d", &task, None, number, Timestamp::UNIX_EPOCH).as_millisecond();
        (1..=4).map(delay).collect()
    }

    #[test]
    fn a_delay_stays_as_it_is_or_grows_up_to_its_limit() {
        assert_eq!(delays(json!({"task_id": "t", "operator": "o", "retry_delay": 1.5})), [1500; 4]);
        let growing = json!({"task_id": "t", "operator": "o", "retry_delay": 10.0, "retry_backoff": 2.0});
        let found = delays(growing.clone());
        for (at, millis) in found.iter().enumerate() {
            let least = 10_000 << at;
            assert!((least..2 * least).contains(millis), "{found:?}");
        }
        assert_eq!(found, delays(growing), "the same for the same try");
        let limited = json!({
            "task_id": "t", "operator": "o", "retry_delay": 10.0, "retry_backoff": 2.0, "max_retry_delay": 15.0,
        });
        assert_eq!(delays(limited)[1..], [15_000; 3]);
        let huge = json!({"task_id": "t", "operator": "o", "retry_delay": 1e300, "retry_backoff": 1e300});
        assert_eq!(delays(huge), [86_400_000; 4]);
    }

    #[test]
    fn a_date_of_a_clock_that_was_ahead_comes_after_its_delay() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        assert_eq!(set_right(at(130), at(100), at(101)), at(130), "the clock went on");
        assert_eq!(set_right(at(10_930), at(10_900), at(100)), at(130), "it was set back");
        assert_eq!(set_right(at(115), at(10_900), at(100)), at(115), "only its beginning was ahead");
    }

    /// The number that Python's `int(sha1(…).hexdigest(), 16) % 10` gives.
    #[test]
    fn the_spread_is_airflows() {
        let date = "2024-01-01T00:00:00Z".parse().ok();
        assert_eq!(spread("d", "t", date, 1, 1_000_000), 987121);
    }
}
