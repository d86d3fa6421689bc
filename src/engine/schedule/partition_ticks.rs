//! Partitions enumerated by a cron expression. Pure.

use super::partition_key::{self, MAX_TICKS, PartitionError};
use super::run_dates::{Crontab, Info, Partition, TimetableProblem};
use super::series::CronSeries;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A cron expression with a run at each tick, and the rule that assigns a partition to each run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartitionTicks {
    #[serde(flatten)]
    cron: Crontab,
    run_immediately: Value,
    /// Number of ticks from the run to the date of its partition; may be negative.
    run_offset: i32,
    key_format: String,
}

impl PartitionTicks {
    pub(crate) fn series(&self) -> Result<CronSeries<'_>, TimetableProblem> {
        Ok(CronSeries { cron: self.cron.schedule()?, run_immediately: &self.run_immediately })
    }

    pub(crate) fn expression(&self) -> &str {
        self.cron.expression()
    }

    /// Time zone of the partition dates; UTC if the configured zone is invalid.
    pub fn zone(&self) -> TimeZone {
        self.cron.zone().unwrap_or(TimeZone::UTC)
    }

    pub fn check(&self) -> Result<(), TimetableProblem> {
        self.cron.schedule()?;
        if self.run_offset.unsigned_abs() > MAX_TICKS {
            return Err(PartitionError::RunOffset(self.run_offset).into());
        }
        self.key_of(Timestamp::UNIX_EPOCH)?;
        Ok(())
    }

    /// The run at a tick.
    pub fn info(&self, run_after: Timestamp) -> Result<Info, TimetableProblem> {
        self.info_of(run_after, self.ticks_after(run_after, self.run_offset)?)
    }

    /// The tick that is `count` ticks after another; before it if `count` is negative.
    fn ticks_after(&self, tick: Timestamp, count: i32) -> Result<Timestamp, TimetableProblem> {
        let cron = self.cron.schedule()?;
        let mut moved = tick;
        for _ in 0..count.unsigned_abs() {
            moved = if count > 0 { cron.next(moved)? } else { cron.previous(moved)? };
        }
        Ok(moved)
    }

    /// The run of the next partition whose date is in the range, after `last`. As in Airflow, the bounds are times of day in
    /// the zone of the partitions. The run is due when the schedule has it, so that the schedule continues after it.
    pub(crate) fn next_in(
        &self,
        (from, to): (Timestamp, Timestamp),
        last: Option<&Info>,
    ) -> Result<Option<Info>, TimetableProblem> {
        let (zone, cron) = (self.cron.zone()?, self.cron.schedule()?);
        let local = |bound: Timestamp| partition_key::to_timestamp(TimeZone::UTC.to_datetime(bound), &zone);
        let last = last.and_then(|last| last.partition.as_ref()).and_then(|partition| partition.date);
        let date = match last {
            Some(last) => cron.next(last)?,
            None => cron.align_next(local(from)?)?,
        };
        if date > local(to)? {
            return Ok(None);
        }
        self.info_of(self.ticks_after(date, -self.run_offset)?, date).map(Some)
    }

    fn info_of(&self, run_after: Timestamp, date: Timestamp) -> Result<Info, TimetableProblem> {
        let partition = Partition { key: self.key_of(date)?, date: Some(date) };
        Ok(Info { run_after, interval: None, run_id: None, partition: Some(partition) })
    }

    fn key_of(&self, date: Timestamp) -> Result<String, PartitionError> {
        let zone = self.cron.zone()?;
        partition_key::write(zone.to_datetime(date), &self.key_format, &zone)
    }

    /// Parses the date from a partition key that a user has given.
    pub(crate) fn date_of(&self, key: &str) -> Result<Timestamp, PartitionError> {
        let zone = self.cron.zone()?;
        let parsed = partition_key::read(key, &self.key_format, &zone);
        parsed.and_then(|civil| partition_key::to_timestamp(civil, &zone)).map_err(|source| PartitionError::KeyFormat {
            key: key.to_owned(),
            format: self.key_format.clone(),
            source: Box::new(source),
        })
    }
}
