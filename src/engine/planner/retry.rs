//! Decides whether and when a failed try is retried.

use crate::model::dag::Task;
use jiff::{SignedDuration, Timestamp};
use sha1::{Digest, Sha1};

/// Upper limit of a growing delay: Airflow's `max_task_retry_delay`. Seconds.
const MAX_DELAY: f64 = 86_400.0;

/// True when a task instance is retried after its try `try_number` has failed. As in Airflow, the limit is `max_tries`,
/// which grows when a user clears the instance.
pub fn has_tries_left(try_number: i32, max_tries: i32) -> bool {
    max_tries > 0 && try_number <= max_tries
}

/// The new `max_tries` of an instance that is cleared or restored after `try_number` tries, so that it gets all its
/// retries again.
pub(crate) fn max_tries_after_clear(task: &Task, try_number: i32) -> i32 {
    i32::try_from(task.retries).unwrap_or(i32::MAX).saturating_add(try_number).min(i32::MAX - 1)
}

/// When the next try may start, after try `try_number` ended at `ended`. An exponential delay gets jitter from a hash,
/// so that tasks that failed together do not retry together; the formula is that of Airflow's
/// `TaskInstance.next_retry_datetime`.
pub fn due(dag_id: &str, task: &Task, logical_date: Option<Timestamp>, try_number: i32, ended: Timestamp) -> Timestamp {
    let seconds = match task.retry_backoff {
        Some(factor) if factor > 0.0 && factor != 1.0 => {
            let minimum = (task.retry_delay * factor.powi(try_number - 1)).ceil();
            let minimum = if minimum.is_finite() { minimum.clamp(1.0, MAX_DELAY) } else { MAX_DELAY };
            let spread = spread(dag_id, &task.task_id, logical_date, try_number, minimum as u64);
            let delay = (minimum + spread as f64).min(MAX_DELAY);
            task.max_retry_delay.map_or(delay, |maximum| delay.min(maximum))
        }
        _ => task.retry_delay,
    };
    add_seconds(ended, seconds)
}

/// Corrects a date that was computed at `computed_at`. If `computed_at` is after `now`, the clock has been set back
/// since: the result is then `now` plus the original delay, `date - computed_at`.
pub(crate) fn correct_for_clock_step(date: Timestamp, computed_at: Timestamp, now: Timestamp) -> Timestamp {
    if computed_at <= now || date <= computed_at {
        date
    } else {
        add_seconds(now, date.duration_since(computed_at).as_secs_f64())
    }
}

/// Returns a number below `limit`, always the same one for a try.
fn spread(dag_id: &str, task_id: &str, logical_date: Option<Timestamp>, try_number: i32, limit: u64) -> u64 {
    let text = format!("{dag_id}#{task_id}#{}#{try_number}", python_text(logical_date));
    let hash = Sha1::digest(text.as_bytes());
    // Remainder of a 160-bit number, computed byte by byte.
    hash.iter().fold(0, |remainder, byte| (remainder * 256 + u64::from(*byte)) % limit.max(1))
}

/// Formats a date like Python's `str()`.
fn python_text(date: Option<Timestamp>) -> String {
    let Some(date) = date else { return "None".to_owned() };
    let seconds = date.strftime("%Y-%m-%d %H:%M:%S");
    match date.subsec_microsecond() {
        0 => format!("{seconds}+00:00"),
        micros => format!("{seconds}.{micros:06}+00:00"),
    }
}

/// Adds `seconds` to `start`, up to the end of the calendar; a negative number counts as zero.
pub(crate) fn add_seconds(start: Timestamp, seconds: f64) -> Timestamp {
    let delay = SignedDuration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(SignedDuration::MAX);
    start.checked_add(delay).unwrap_or(Timestamp::MAX)
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
    fn a_delay_is_constant_or_grows_up_to_its_limit() {
        assert_eq!(delays(json!({"task_id": "t", "operator": "o", "retry_delay": 1.5})), [1500; 4]);
        let growing = json!({"task_id": "t", "operator": "o", "retry_delay": 10.0, "retry_backoff": 2.0});
        let growing_delays = delays(growing.clone());
        for (retry, millis) in growing_delays.iter().enumerate() {
            let minimum = 10_000 << retry;
            assert!((minimum..2 * minimum).contains(millis), "{growing_delays:?}");
        }
        assert_eq!(growing_delays, delays(growing), "the same for the same try");
        let limited = json!({
            "task_id": "t", "operator": "o", "retry_delay": 10.0, "retry_backoff": 2.0, "max_retry_delay": 15.0,
        });
        assert_eq!(delays(limited)[1..], [15_000; 3]);
        let huge = json!({"task_id": "t", "operator": "o", "retry_delay": 1e300, "retry_backoff": 1e300});
        assert_eq!(delays(huge), [86_400_000; 4]);
    }

    #[test]
    fn corrects_a_date_written_by_a_clock_that_was_ahead() {
        let second = |seconds| Timestamp::from_second(seconds).unwrap();
        assert_eq!(
            correct_for_clock_step(second(130), second(100), second(101)),
            second(130),
            "the clock was not set back"
        );
        assert_eq!(correct_for_clock_step(second(10_930), second(10_900), second(100)), second(130), "it was set back");
        assert_eq!(
            correct_for_clock_step(second(115), second(10_900), second(100)),
            second(115),
            "only the start time was ahead"
        );
    }

    /// The expected number was computed with Python's `int(sha1(…).hexdigest(), 16)`.
    #[test]
    fn the_spread_is_airflows() {
        let date = "2024-01-01T00:00:00Z".parse().ok();
        assert_eq!(spread("d", "t", date, 1, 1_000_000), 987121);
    }
}
