//! The points in time that a timetable is made of, and which of them is next. Pure.

use super::cron::Schedule;
use super::run_dates::{Delta, Info, Interval, Restriction, TimetableProblem};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// Points in time that follow one another.
pub trait Series {
    fn next(&self, at: Timestamp) -> Result<Timestamp, TimetableProblem>;
    fn align_next(&self, at: Timestamp) -> Result<Timestamp, TimetableProblem>;
    fn align_previous(&self, at: Timestamp) -> Result<Timestamp, TimetableProblem>;
    /// Of a DAG that says nothing about when it began.
    fn first(&self, now: Timestamp) -> Result<Timestamp, TimetableProblem>;
    /// The beginning of the newest interval that has ended.
    fn latest(&self, earliest: Option<Timestamp>, now: Timestamp) -> Result<Timestamp, TimetableProblem>;
}

pub struct CronSeries<'a> {
    pub cron: &'a Schedule,
    pub run_immediately: &'a Value,
}

/// The least time after a tick in which a new DAG still takes it.
const GRACE: SignedDuration = SignedDuration::from_mins(5);

impl Series for CronSeries<'_> {
    fn next(&self, at: Timestamp) -> Result<Timestamp, TimetableProblem> {
        Ok(self.cron.next(at)?)
    }

    fn align_next(&self, at: Timestamp) -> Result<Timestamp, TimetableProblem> {
        Ok(self.cron.align_next(at)?)
    }

    fn align_previous(&self, at: Timestamp) -> Result<Timestamp, TimetableProblem> {
        Ok(self.cron.align_previous(at)?)
    }

    fn first(&self, now: Timestamp) -> Result<Timestamp, TimetableProblem> {
        let (past, next) = (self.cron.align_previous(now)?, self.cron.align_next(now)?);
        if self.run_immediately == &Value::Bool(true) {
            return Ok(past);
        }
        let grace = match self.run_immediately.as_f64() {
            Some(seconds) => SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::MAX),
            None => (next.duration_since(past) / 10).max(GRACE),
        };
        Ok(if now.duration_since(past) <= grace { past } else { next })
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

pub struct DeltaSeries(pub Delta);

impl Series for DeltaSeries {
    fn next(&self, at: Timestamp) -> Result<Timestamp, TimetableProblem> {
        Ok(self.0.after(at))
    }

    fn align_next(&self, at: Timestamp) -> Result<Timestamp, TimetableProblem> {
        Ok(at)
    }

    fn align_previous(&self, at: Timestamp) -> Result<Timestamp, TimetableProblem> {
        Ok(at)
    }

    fn first(&self, now: Timestamp) -> Result<Timestamp, TimetableProblem> {
        Ok(now)
    }

    fn latest(&self, earliest: Option<Timestamp>, now: Timestamp) -> Result<Timestamp, TimetableProblem> {
        let newest = self.0.before(self.0.floor(now, earliest.unwrap_or(now)));
        Ok(earliest.map_or(newest, |earliest| newest.max(earliest)))
    }
}

/// A run at each tick.
pub fn triggered(
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

/// A run for each interval, once it has ended.
pub fn covered(
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
