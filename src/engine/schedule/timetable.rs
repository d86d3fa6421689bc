//! Computes when the next run of a DAG is due. Pure, except that custom timetables are evaluated elsewhere.
//!
//! The rules are those of Airflow's timetables:
//! <https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/timetable.html>

use super::cron_text;
use super::partition_key::{self, PartitionError};
use super::partition_mapper::Mappers;
use super::partition_ticks::PartitionTicks;
use super::run_dates::Crontab;
pub use super::run_dates::{Delta, Info, Interval, Partition, Restriction, TimetableProblem};
use super::series::{CronSeries, DeltaSeries, next_interval, next_tick};
pub use super::zone::zone;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A timetable as the DAG file describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Timetable {
    Null,
    Once,
    Continuous,
    CronTrigger {
        #[serde(flatten)]
        cron: Crontab,
        interval: Delta,
        run_immediately: Value,
    },
    MultipleCronTrigger {
        parts: Vec<Timetable>,
    },
    CronInterval(Crontab),
    DeltaTrigger {
        delta: Delta,
        interval: Delta,
    },
    DeltaInterval {
        delta: Delta,
    },
    Events {
        dates: Vec<Timestamp>,
        restrict_to_events: bool,
    },
    Asset,
    /// A run for each partition, at the ticks of a cron expression.
    CronPartition {
        #[serde(flatten)]
        ticks: PartitionTicks,
    },
    /// A run for each partition, once the asset partitions that it needs have arrived.
    PartitionedAsset(Mappers),
    /// Runs are triggered manually; their tasks report the partitions that they produce.
    PartitionedAtRuntime,
    AssetOrTime {
        timetable: Box<Timetable>,
    },
    /// A run at each time, once its assets have been updated.
    AssetAndTime {
        timetable: Box<Timetable>,
    },
    /// A custom timetable class.
    Custom {
        class: String,
    },
}

impl Timetable {
    /// True if it creates scheduled runs.
    pub(crate) fn can_be_scheduled(&self) -> bool {
        match self {
            Self::Null | Self::Asset | Self::PartitionedAsset(_) | Self::PartitionedAtRuntime => false,
            Self::AssetOrTime { timetable } | Self::AssetAndTime { timetable } => timetable.can_be_scheduled(),
            _ => true,
        }
    }

    /// True if the data intervals of its runs can be enumerated.
    pub fn is_periodic(&self) -> bool {
        match self {
            Self::Null | Self::Once | Self::Continuous | Self::Asset => false,
            Self::CronPartition { .. } | Self::PartitionedAsset(_) | Self::PartitionedAtRuntime => false,
            Self::AssetOrTime { timetable } | Self::AssetAndTime { timetable } => timetable.is_periodic(),
            _ => true,
        }
    }

    /// True if the runs of a range of past dates can be enumerated: of logical dates, or of the dates of partitions.
    pub fn can_be_backfilled(&self) -> bool {
        self.is_periodic() || matches!(self, Self::CronPartition { .. })
    }

    /// True if the partition of a run is known before it starts.
    pub fn is_partitioned(&self) -> bool {
        matches!(self, Self::CronPartition { .. } | Self::PartitionedAsset(_))
    }

    /// Time zone of the partition dates.
    pub fn zone_of_partitions(&self) -> TimeZone {
        match self {
            Self::CronPartition { ticks } => ticks.zone(),
            _ => TimeZone::UTC,
        }
    }

    /// True if a triggered run may have a partition key.
    pub(crate) fn takes_partition(&self) -> bool {
        self.is_partitioned() || matches!(self, Self::PartitionedAtRuntime)
    }

    /// The partition of a triggered run with this key; `assets` are the names of the assets that the DAG
    /// waits for.
    pub fn partition(&self, key: &str, assets: &[&str]) -> Result<Partition, PartitionError> {
        partition_key::check(key)?;
        let date = match self {
            Self::CronPartition { ticks } => Some(ticks.date_of(key)?),
            Self::PartitionedAsset(mappers) => {
                let dates = mappers.dates(assets, key);
                let dates = dates
                    .map_err(|source| PartitionError::Mappers { key: key.to_owned(), source: Box::new(source) })?;
                dates.first().filter(|_| dates.len() == 1).copied()
            }
            _ => None,
        };
        Ok(Partition { key: key.to_owned(), date })
    }

    /// The partition of a scheduled run.
    pub(crate) fn partition_at(&self, run_after: Timestamp) -> Option<Partition> {
        match self {
            Self::CronPartition { ticks } => ticks.info(run_after).ok()?.partition,
            _ => None,
        }
    }

    /// Describes when it is due, in words; `None` for a timetable that describes itself when the DAG file is parsed.
    pub fn description(&self) -> Option<String> {
        match self {
            Self::CronTrigger { cron, .. } | Self::CronInterval(cron) => Some(cron_text::describe(cron.expression())),
            Self::CronPartition { ticks } => Some(cron_text::describe(ticks.expression())),
            Self::MultipleCronTrigger { parts } => {
                let parts: Option<Vec<String>> = parts.iter().map(Self::description).collect();
                Some(parts?.join(", "))
            }
            Self::AssetOrTime { timetable } => {
                timetable.description().map(|description| format!("Triggered by assets or {description}"))
            }
            Self::AssetAndTime { timetable } => {
                timetable.description().map(|description| format!("Triggered by assets and {description}"))
            }
            _ => None,
        }
    }

    /// True if the timetable is custom or contains a custom one.
    pub fn is_custom(&self) -> bool {
        match self {
            Self::Custom { .. } => true,
            Self::AssetOrTime { timetable } | Self::AssetAndTime { timetable } => timetable.is_custom(),
            _ => false,
        }
    }

    /// Validates the timetable.
    pub fn check(&self) -> Result<(), TimetableProblem> {
        match self {
            Self::CronTrigger { cron, .. } | Self::CronInterval(cron) => cron.schedule().map(|_| ()),
            Self::CronPartition { ticks } => ticks.check(),
            Self::MultipleCronTrigger { parts } => parts.iter().try_for_each(Self::check),
            Self::AssetOrTime { timetable } | Self::AssetAndTime { timetable } => timetable.check(),
            _ => Ok(()),
        }
    }

    /// The run after the newest scheduled run, whose data interval is `last`; `None` if there is no further run. The
    /// error for a custom timetable is `TimetableProblem::Custom`.
    pub fn next(
        &self,
        last: Option<Interval>,
        restriction: Restriction,
        now: Timestamp,
    ) -> Result<Option<Info>, TimetableProblem> {
        let within_end =
            |info: Info, date: Timestamp| restriction.latest.is_none_or(|latest| date <= latest).then_some(info);
        Ok(match self {
            Self::Null | Self::Asset | Self::PartitionedAsset(_) | Self::PartitionedAtRuntime => None,
            Self::CronPartition { ticks } => match next_tick(&ticks.series()?, last, restriction, now)? {
                Some(tick) => within_end(ticks.info(tick)?, tick),
                None => None,
            },
            Self::AssetOrTime { timetable } | Self::AssetAndTime { timetable } => {
                timetable.next(last, restriction, now)?
            }
            Self::Custom { .. } => return Err(TimetableProblem::Custom),
            Self::Once if last.is_some() => None,
            Self::Once => {
                let date = restriction.earliest.unwrap_or(now);
                within_end(Info::exact(date), date)
            }
            Self::Continuous => {
                let (start, end) = next_continuous(last, restriction.earliest.unwrap_or(now), now);
                within_end(Info::interval(start, end), end)
            }
            Self::CronTrigger { cron, interval, run_immediately } => {
                let series = CronSeries { cron: cron.schedule()?, run_immediately };
                next_tick(&series, last, restriction, now)?
                    .and_then(|tick| within_end(Info::interval(interval.subtract_from(tick), tick), tick))
            }
            Self::DeltaTrigger { delta, interval } => next_tick(&DeltaSeries(*delta), last, restriction, now)?
                .and_then(|tick| within_end(Info::interval(interval.subtract_from(tick), tick), tick)),
            Self::MultipleCronTrigger { parts } => next_of_parts(parts, last, restriction, now)?,
            Self::CronInterval(cron) => {
                let series = CronSeries { cron: cron.schedule()?, run_immediately: &Value::Null };
                next_interval(&series, last, restriction, now)?
            }
            Self::DeltaInterval { delta } => next_interval(&DeltaSeries(*delta), last, restriction, now)?,
            Self::Events { dates, .. } => {
                next_event(dates, last, restriction, now).and_then(|date| within_end(Info::exact(date), date))
            }
        })
    }

    /// The data interval of a triggered run.
    pub fn manual(&self, run_after: Timestamp) -> Result<Interval, TimetableProblem> {
        let exact = Interval { start: run_after, end: run_after };
        Ok(match self {
            Self::Null | Self::Once | Self::Continuous | Self::Asset => exact,
            Self::CronPartition { .. } | Self::PartitionedAsset(_) | Self::PartitionedAtRuntime => exact,
            Self::AssetOrTime { timetable } | Self::AssetAndTime { timetable } => timetable.manual(run_after)?,
            Self::Custom { .. } => return Err(TimetableProblem::Custom),
            Self::CronTrigger { interval, .. } | Self::DeltaTrigger { interval, .. } => {
                Interval { start: interval.subtract_from(run_after), end: run_after }
            }
            Self::MultipleCronTrigger { parts } => {
                let mut intervals = Vec::new();
                for part in parts {
                    intervals.push(part.manual(run_after)?);
                }
                intervals.into_iter().min_by_key(|interval| interval.start).unwrap_or(exact)
            }
            Self::CronInterval(cron) => {
                let cron = cron.schedule()?;
                let end = cron.align_previous(run_after)?;
                Interval { start: cron.previous(end)?, end }
            }
            Self::DeltaInterval { delta } => Interval { start: delta.subtract_from(run_after), end: run_after },
            Self::Events { dates, restrict_to_events } if *restrict_to_events => {
                let last = dates.iter().rev().find(|date| **date <= run_after).or(dates.first());
                last.map_or(exact, |date| Interval { start: *date, end: *date })
            }
            Self::Events { .. } => exact,
        })
    }
}

/// The data interval of the next run of a `@continuous` DAG; `first` is the start of the first one.
fn next_continuous(last: Option<Interval>, first: Timestamp, now: Timestamp) -> (Timestamp, Timestamp) {
    const TICK: SignedDuration = SignedDuration::from_micros(1);
    let after = |time: Timestamp| time.checked_add(TICK).unwrap_or(time);
    let (start, end) = match last {
        _ if first > now => (first, first),
        None => (first, now),
        // The last run was created by a clock that has been set back since.
        Some(last) if last.end > now => (now.checked_sub(TICK).unwrap_or(now), now),
        // Earlier releases created intervals of length 0.
        Some(last) => (last.end.max(after(last.start)), now),
    };
    // The next interval starts at this end and needs another logical date, so none has length 0.
    (start, end.max(after(start)))
}

/// The next run of several timetables together: with catchup the first by logical date, otherwise the newest that is
/// due or, if none is due, the next one.
fn next_of_parts(
    parts: &[Timetable],
    last: Option<Interval>,
    restriction: Restriction,
    now: Timestamp,
) -> Result<Option<Info>, TimetableProblem> {
    let mut infos = Vec::new();
    for part in parts {
        infos.extend(part.next(last, restriction, now)?);
    }
    if restriction.catchup {
        return Ok(infos.into_iter().min_by_key(Info::logical_date));
    }
    let due = infos.iter().filter(|info| info.run_after <= now).max_by_key(|info| info.run_after);
    Ok(due.or_else(|| infos.iter().min_by_key(|info| info.run_after)).cloned())
}

/// The first event after the last run; without catchup, the first that is not in the past.
fn next_event(
    dates: &[Timestamp],
    last: Option<Interval>,
    restriction: Restriction,
    now: Timestamp,
) -> Option<Timestamp> {
    let Restriction { earliest, catchup, .. } = restriction;
    let earliest_event = if catchup { earliest } else { Some(earliest.map_or(now, |earliest| earliest.max(now))) };
    let is_next = |date: &Timestamp| {
        earliest_event.is_none_or(|earliest_event| *date >= earliest_event) && last.is_none_or(|last| *date > last.end)
    };
    dates.iter().copied().find(is_next)
}

#[cfg(test)]
#[path = "timetable_tests.rs"]
mod tests;
