//! The ticks of a timetable, and the next run that follows from them. Pure.

use super::cron::Schedule;
use super::run_dates::{Delta, Info, Interval, Restriction, TimetableProblem};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// An ordered series of ticks.
pub trait Series {
    /// The first tick after `time`.
    fn next(&self, time: Timestamp) -> Result<Timestamp, TimetableProblem>;
    /// Returns `time` if it is a tick, otherwise the next tick.
    fn align_next(&self, time: Timestamp) -> Result<Timestamp, TimetableProblem>;
    /// Returns `time` if it is a tick, otherwise the previous tick.
    fn align_previous(&self, time: Timestamp) -> Result<Timestamp, TimetableProblem>;
    /// The first tick for a DAG without a start date.
    fn first(&self, now: Timestamp) -> Result<Timestamp, TimetableProblem>;
    /// The start of the newest interval that has ended, but not before `earliest`.
    fn latest(&self, earliest: Option<Timestamp>, now: Timestamp) -> Result<Timestamp, TimetableProblem>;
}

/// The ticks of a cron expression.
pub struct CronSeries<'a> {
    pub cron: &'a Schedule,
    /// Whether a new DAG without a start date runs for the tick before it was added: `true`, a maximum age of that tick
    /// in seconds, or another value for the default maximum.
    pub run_immediately: &'a Value,
}

/// By default, a new DAG without a start date runs for the previous tick if that is at most this old, or at most a
/// tenth of the time between ticks.
const GRACE: SignedDuration = SignedDuration::from_mins(5);

impl Series for CronSeries<'_> {
    fn next(&self, time: Timestamp) -> Result<Timestamp, TimetableProblem> {
        Ok(self.cron.next(time)?)
    }

    fn align_next(&self, time: Timestamp) -> Result<Timestamp, TimetableProblem> {
        Ok(self.cron.align_next(time)?)
    }

    fn align_previous(&self, time: Timestamp) -> Result<Timestamp, TimetableProblem> {
        Ok(self.cron.align_previous(time)?)
    }

    fn first(&self, now: Timestamp) -> Result<Timestamp, TimetableProblem> {
        let (previous, next) = (self.cron.align_previous(now)?, self.cron.align_next(now)?);
        if self.run_immediately == &Value::Bool(true) {
            return Ok(previous);
        }
        let grace = match self.run_immediately.as_f64() {
            Some(seconds) => SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::MAX),
            None => (next.duration_since(previous) / 10).max(GRACE),
        };
        Ok(if now.duration_since(previous) <= grace { previous } else { next })
    }

    fn latest(&self, earliest: Option<Timestamp>, now: Timestamp) -> Result<Timestamp, TimetableProblem> {
        let last = self.cron.previous(now)?;
        let newest = if self.cron.next(last)? == now { last } else { self.cron.previous(last)? };
        Ok(match earliest {
            None => newest,
            Some(earliest) => newest.max(self.cron.align_next(earliest)?),
        })
    }
}

/// Ticks that are one delta apart. The series may start at any time, so every time counts as aligned.
pub struct DeltaSeries(pub Delta);

impl Series for DeltaSeries {
    fn next(&self, time: Timestamp) -> Result<Timestamp, TimetableProblem> {
        Ok(self.0.add_to(time))
    }

    fn align_next(&self, time: Timestamp) -> Result<Timestamp, TimetableProblem> {
        Ok(time)
    }

    fn align_previous(&self, time: Timestamp) -> Result<Timestamp, TimetableProblem> {
        Ok(time)
    }

    fn first(&self, now: Timestamp) -> Result<Timestamp, TimetableProblem> {
        Ok(now)
    }

    fn latest(&self, earliest: Option<Timestamp>, now: Timestamp) -> Result<Timestamp, TimetableProblem> {
        let newest = self.0.subtract_from(self.0.floor(now, earliest.unwrap_or(now)));
        Ok(earliest.map_or(newest, |earliest| newest.max(earliest)))
    }
}

/// The tick of the next run, for a timetable with one run at each tick.
pub(crate) fn next_tick(
    series: &impl Series,
    last: Option<Interval>,
    restriction: Restriction,
    now: Timestamp,
) -> Result<Option<Timestamp>, TimetableProblem> {
    let Restriction { earliest, catchup, .. } = restriction;
    if catchup {
        return Ok(Some(match (last, earliest) {
            (Some(last), _) => series.next(last.end)?,
            (None, Some(earliest)) => series.align_next(earliest)?,
            (None, None) => series.first(now)?,
        }));
    }
    let mut latest = series.align_previous(now)?;
    match last {
        Some(last) => latest = latest.max(series.next(last.end)?),
        None if earliest.is_none() => latest = latest.max(series.first(now)?),
        None => {}
    }
    if let Some(earliest) = earliest {
        latest = latest.max(series.align_next(earliest)?);
    }
    Ok(Some(latest))
}

/// The next run, for a timetable with one run for each data interval, due when the interval ends.
pub fn next_interval(
    series: &impl Series,
    last: Option<Interval>,
    restriction: Restriction,
    now: Timestamp,
) -> Result<Option<Info>, TimetableProblem> {
    let Restriction { earliest, latest, catchup } = restriction;
    let earliest = match (catchup, earliest) {
        (false, earliest) => Some(series.latest(earliest, now)?),
        (true, Some(earliest)) => Some(series.align_next(earliest)?),
        (true, None) => None,
    };
    let start = match (last, earliest) {
        (None, None) => return Ok(None),
        (None, Some(earliest)) => earliest,
        (Some(last), earliest) => {
            let aligned = series.align_previous(last.end)?;
            let start = earliest.map_or(aligned, |earliest| aligned.max(earliest));
            if start <= last.start { series.next(start)? } else { start }
        }
    };
    if latest.is_some_and(|latest| start > latest) {
        return Ok(None);
    }
    Ok(Some(Info::interval(start, series.next(start)?)))
}
