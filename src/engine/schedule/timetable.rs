//! When the next run of a DAG is due. Pure, but for the user's own classes, which somebody else asks.
//!
//! The rules are those of Airflow's timetables:
//! <https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/timetable.html>

use super::crontab::Crontab;
use super::partition_key;
use super::partition_mapper::Mappers;
use super::partition_ticks::PartitionTicks;
pub use super::run_dates::{Delta, Info, Interval, Partition, Restriction, TimetableProblem, zone};
use super::series::{CronSeries, DeltaSeries, covered, triggered};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// As the DAG file describes it.
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
    /// A run for each partition for which those of its assets are there.
    PartitionedAsset(Mappers),
    /// Its runs are started by hand; their tasks say which partitions they have made.
    PartitionedAtRuntime,
    AssetOrTime {
        timetable: Box<Timetable>,
    },
    /// A class of the user's own.
    Custom {
        class: String,
    },
}

impl Timetable {
    /// Whether it makes runs by itself.
    pub fn can_be_scheduled(&self) -> bool {
        match self {
            Self::Null | Self::Asset | Self::PartitionedAsset(_) | Self::PartitionedAtRuntime => false,
            Self::AssetOrTime { timetable } => timetable.can_be_scheduled(),
            _ => true,
        }
    }

    /// Whether its runs are of intervals that can be counted up: then they can be made for the past too.
    pub fn is_periodic(&self) -> bool {
        match self {
            Self::Null | Self::Once | Self::Continuous | Self::Asset => false,
            Self::CronPartition { .. } | Self::PartitionedAsset(_) | Self::PartitionedAtRuntime => false,
            Self::AssetOrTime { timetable } => timetable.is_periodic(),
            _ => true,
        }
    }

    /// Whether its runs are of partitions that are known before they begin.
    pub fn is_partitioned(&self) -> bool {
        matches!(self, Self::CronPartition { .. } | Self::PartitionedAsset(_))
    }

    /// In which the days of its partitions begin.
    pub fn zone_of_partitions(&self) -> TimeZone {
        match self {
            Self::CronPartition { ticks } => ticks.zone(),
            _ => TimeZone::UTC,
        }
    }

    /// Whether a run that is started by hand may be given one.
    pub fn takes_partition(&self) -> bool {
        self.is_partitioned() || matches!(self, Self::PartitionedAtRuntime)
    }

    /// The partition of a run that is started by hand, from the key that it was given; `assets` are the names of those
    /// that the DAG waits for. Errors are Airflow's words.
    pub fn partition(&self, key: &str, assets: &[&str]) -> Result<Partition, String> {
        partition_key::check(key)?;
        let date = match self {
            Self::CronPartition { ticks } => Some(ticks.date_of(key)?),
            Self::PartitionedAsset(mappers) => {
                let dates = mappers.dates(assets, key);
                let dates = dates.map_err(|error| {
                    format!("Partition key {key:?} is invalid for this timetable's mappers: {error}")
                })?;
                dates.first().filter(|_| dates.len() == 1).copied()
            }
            _ => None,
        };
        Ok(Partition { key: key.to_owned(), date })
    }

    /// The partition of a run that its schedule makes.
    pub fn partition_at(&self, run_after: Timestamp) -> Option<Partition> {
        match self {
            Self::CronPartition { ticks } => ticks.info(run_after).ok()?.partition,
            _ => None,
        }
    }

    /// The one that is a class of the user's own, if any is.
    pub fn is_custom(&self) -> bool {
        match self {
            Self::Custom { .. } => true,
            Self::AssetOrTime { timetable } => timetable.is_custom(),
            _ => false,
        }
    }

    /// What is wrong with it.
    pub fn check(&self) -> Result<(), TimetableProblem> {
        match self {
            Self::CronTrigger { cron, .. } | Self::CronInterval(cron) => cron.schedule().map(|_| ()),
            Self::CronPartition { ticks } => ticks.check(),
            Self::MultipleCronTrigger { parts } => parts.iter().try_for_each(Self::check),
            Self::AssetOrTime { timetable } => timetable.check(),
            _ => Ok(()),
        }
    }

    /// The run after the one of `last`, which is the newest that was made by itself.
    pub fn next(
        &self,
        last: Option<Interval>,
        restriction: Restriction,
        now: Timestamp,
    ) -> Result<Option<Info>, TimetableProblem> {
        let Restriction { earliest, latest, catchup } = restriction;
        let in_time = |info: Info, at: Timestamp| (latest.is_none_or(|latest| at <= latest)).then_some(info);
        Ok(match self {
            Self::Null | Self::Asset | Self::PartitionedAsset(_) | Self::PartitionedAtRuntime => None,
            Self::CronPartition { ticks } => match triggered(&ticks.series()?, last, restriction, now)? {
                Some(at) => in_time(ticks.info(at)?, at),
                None => None,
            },
            Self::AssetOrTime { timetable } => timetable.next(last, restriction, now)?,
            Self::Custom { .. } => return Err(TimetableProblem::Custom),
            Self::Once if last.is_some() => None,
            Self::Once => {
                let at = earliest.unwrap_or(now);
                in_time(Info::exact(at), at)
            }
            Self::Continuous => {
                let first = earliest.unwrap_or(now);
                let (start, end) = match last {
                    None => (first, first.max(now)),
                    Some(last) if last.end > now && first > now => (first, first + last.end.duration_since(last.start)),
                    // A clock that was ahead made it, and has been set back since. The run after this one begins where this
                    // one ends, and needs another logical date.
                    Some(last) if last.end > now => {
                        (now.checked_sub(SignedDuration::from_micros(1)).unwrap_or(now), now)
                    }
                    Some(last) => (last.end, now),
                };
                in_time(Info::interval(start, end), end)
            }
            Self::CronTrigger { cron, interval, run_immediately } => {
                let series = CronSeries { cron: cron.schedule()?, run_immediately };
                triggered(&series, last, restriction, now)?
                    .and_then(|at| in_time(Info::interval(interval.before(at), at), at))
            }
            Self::DeltaTrigger { delta, interval } => triggered(&DeltaSeries(*delta), last, restriction, now)?
                .and_then(|at| in_time(Info::interval(interval.before(at), at), at)),
            Self::MultipleCronTrigger { parts } => {
                let mut infos = Vec::new();
                for part in parts {
                    infos.extend(part.next(last, restriction, now)?);
                }
                if catchup {
                    infos.into_iter().min_by_key(Info::logical_date)
                } else {
                    // The newest of those that are due, or else the first of those to come.
                    let past = infos.iter().filter(|info| info.run_after <= now).max_by_key(|info| info.run_after);
                    past.or_else(|| infos.iter().min_by_key(|info| info.run_after)).cloned()
                }
            }
            Self::CronInterval(cron) => {
                let series = CronSeries { cron: cron.schedule()?, run_immediately: &Value::Null };
                covered(&series, last, restriction, now)?
            }
            Self::DeltaInterval { delta } => covered(&DeltaSeries(*delta), last, restriction, now)?,
            Self::Events { dates, .. } => {
                let from = if catchup { earliest } else { Some(earliest.map_or(now, |earliest| earliest.max(now))) };
                let next = dates
                    .iter()
                    .find(|date| from.is_none_or(|from| **date >= from) && last.is_none_or(|last| **date > last.end));
                next.and_then(|at| in_time(Info::exact(*at), *at))
            }
        })
    }

    /// The interval of a run that is started by hand.
    pub fn manual(&self, run_after: Timestamp) -> Result<Interval, TimetableProblem> {
        let exact = Interval { start: run_after, end: run_after };
        Ok(match self {
            Self::Null | Self::Once | Self::Continuous | Self::Asset => exact,
            Self::CronPartition { .. } | Self::PartitionedAsset(_) | Self::PartitionedAtRuntime => exact,
            Self::AssetOrTime { timetable } => timetable.manual(run_after)?,
            Self::Custom { .. } => return Err(TimetableProblem::Custom),
            Self::CronTrigger { interval, .. } | Self::DeltaTrigger { interval, .. } => {
                Interval { start: interval.before(run_after), end: run_after }
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
            Self::DeltaInterval { delta } => Interval { start: delta.before(run_after), end: run_after },
            Self::Events { dates, restrict_to_events } if *restrict_to_events => {
                let last = dates.iter().rev().find(|date| **date <= run_after).or(dates.first());
                last.map_or(exact, |at| Interval { start: *at, end: *at })
            }
            Self::Events { .. } => exact,
        })
    }
}

#[cfg(test)]
#[path = "timetable_tests.rs"]
mod tests;
