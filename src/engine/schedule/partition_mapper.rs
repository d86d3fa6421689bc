//! Maps the partition key of an upstream asset to the partition keys of the downstream runs that need it. Pure.
//!
//! The rules are Airflow's:
//! <https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/assets.html>

use super::partition_key::{self, PartitionError};
use super::partition_window::{Period, Wait, Window, parts};
use super::zone::zone;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A mapping from one upstream key to downstream keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Mapper {
    Identity,
    StartOf(StartOf),
    FixedKey {
        key: String,
    },
    AllowedKey {
        keys: Vec<String>,
    },
    /// Applies one mapper to each segment of the key.
    Product {
        mappers: Vec<Limited>,
        delimiter: String,
    },
    /// Applies the mappers one after the other.
    Chain {
        mappers: Vec<Limited>,
    },
    /// Many upstream keys map to one run, which waits for them.
    Rollup {
        upstream: Box<Limited>,
        window: Window,
        wait: Wait,
    },
    /// One upstream key maps to many runs.
    FanOut {
        upstream: Box<Limited>,
        window: Window,
        downstream: Box<Limited>,
    },
}

/// A mapper with a limit on the number of downstream keys of one upstream key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limited {
    #[serde(flatten)]
    pub mapper: Mapper,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_downstream_keys: Option<usize>,
}

impl Default for Limited {
    fn default() -> Self {
        Self { mapper: Mapper::Identity, max_downstream_keys: None }
    }
}

/// The mappers of a DAG that waits for partitions.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Mappers {
    pub default: Limited,
    /// Mappers by asset name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub named: BTreeMap<String, Limited>,
}

impl Mappers {
    /// Looks up the mapper by asset name only, as Airflow does: a mapper given for a URI is never used.
    pub fn of(&self, asset_name: &str) -> &Mapper {
        &self.limited(asset_name).mapper
    }

    /// The mapper for an asset, with its limit.
    pub fn limited(&self, asset_name: &str) -> &Limited {
        self.named.get(asset_name).unwrap_or(&self.default)
    }

    /// The dates of a run's partition key, according to the mappers of these assets. More than one date is a conflict.
    pub fn dates(&self, asset_names: &[&str], key: &str) -> Result<BTreeSet<Timestamp>, PartitionError> {
        let dates: Result<Vec<_>, _> = asset_names.iter().map(|name| self.of(name).date_of(key)).collect();
        Ok(dates?.into_iter().flatten().collect())
    }
}

/// Default of `max_downstream_keys`.
const MAX_KEYS: usize = 1000;

/// Maps a date to the start of its period.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartOf {
    period: Period,
    timezone: Value,
    input_format: String,
    output_format: String,
}

/// A decoded partition key: a local date and time, or plain text.
enum Decoded {
    Date(DateTime),
    Text(String),
}

impl Limited {
    /// The keys of the runs that an upstream key maps to.
    pub(crate) fn to_downstream(&self, key: &str) -> Result<Vec<String>, PartitionError> {
        let keys = self.mapper.to_downstream(key)?;
        let limit = self.max_downstream_keys.unwrap_or(MAX_KEYS);
        if keys.len() > limit {
            return Err(PartitionError::TooManyRuns { key: key.to_owned(), count: keys.len(), limit });
        }
        keys.iter().try_for_each(|key| partition_key::check(key))?;
        Ok(keys)
    }
}

impl Mapper {
    fn to_downstream(&self, key: &str) -> Result<Vec<String>, PartitionError> {
        Ok(match self {
            Self::Identity => vec![key.to_owned()],
            Self::StartOf(start) => vec![start.to_downstream(key)?],
            Self::FixedKey { key } => vec![key.clone()],
            Self::AllowedKey { keys } if keys.iter().any(|allowed| allowed == key) => vec![key.to_owned()],
            Self::AllowedKey { keys } => {
                return Err(PartitionError::NotAllowed { key: key.to_owned(), allowed: keys.clone() });
            }
            Self::Product { mappers, delimiter } => {
                let segments: Vec<&str> = key.split(delimiter.as_str()).collect();
                if segments.len() != mappers.len() {
                    return Err(PartitionError::Segments { expected: mappers.len(), actual: segments.len() });
                }
                let mapped: Result<Vec<_>, _> =
                    mappers.iter().zip(segments).map(|(part, segment)| part.mapper.map_to_one(segment)).collect();
                vec![mapped?.join(delimiter)]
            }
            Self::Chain { mappers } => {
                let mut keys = vec![key.to_owned()];
                for step in mappers {
                    let next: Result<Vec<_>, _> = keys.iter().map(|key| step.mapper.to_downstream(key)).collect();
                    keys = next?.concat();
                }
                keys
            }
            Self::Rollup { upstream, .. } => upstream.mapper.to_downstream(key)?,
            Self::FanOut { upstream, window, downstream } => {
                let coarse = upstream.mapper.decode(&upstream.mapper.map_to_one(key)?)?;
                let fine = window.members(coarse)?;
                fine.into_iter().map(|member| downstream.mapper.format(member)).collect::<Result<_, _>>()?
            }
        })
    }

    /// Maps a key with a mapper that must return exactly one key.
    fn map_to_one(&self, key: &str) -> Result<String, PartitionError> {
        let mut keys = self.to_downstream(key)?;
        match (keys.pop(), keys.is_empty()) {
            (Some(single), true) => Ok(single),
            _ => Err(PartitionError::Nested(key.to_owned())),
        }
    }

    /// Parses a downstream key of this mapper.
    fn decode(&self, downstream: &str) -> Result<Decoded, PartitionError> {
        match self {
            Self::StartOf(start) => start.decode(downstream).map(Decoded::Date),
            _ => Ok(Decoded::Text(downstream.to_owned())),
        }
    }

    /// Formats a member of a window as a run key.
    fn format(&self, member: Decoded) -> Result<String, PartitionError> {
        match (self, member) {
            (Self::StartOf(start), Decoded::Date(date_time)) => start.format(date_time),
            (_, Decoded::Date(date_time)) => Ok(date_time.to_string()),
            (_, Decoded::Text(text)) => Ok(text),
        }
    }

    /// The upstream keys of a run's window, and how many of them the run waits for; `None` if the run waits for one key
    /// only.
    pub fn expected(&self, downstream: &str) -> Result<Option<(BTreeSet<String>, Wait)>, PartitionError> {
        let Self::Rollup { upstream, window, wait } = self else { return Ok(None) };
        let encode = |member| match (&upstream.mapper, member) {
            (Self::StartOf(start), Decoded::Date(date)) => {
                partition_key::write(date, &start.input_format, &zone(&start.timezone)?)
            }
            (mapper, member) => mapper.format(member),
        };
        let members = window.members(upstream.mapper.decode(downstream)?)?;
        Ok(Some((members.into_iter().map(encode).collect::<Result<_, _>>()?, *wait)))
    }

    /// The start of the period that the key of a run denotes; `None` if the key contains no date.
    pub(crate) fn date_of(&self, downstream: &str) -> Result<Option<Timestamp>, PartitionError> {
        Ok(match self {
            Self::StartOf(start) => Some(start.date_of(downstream)?),
            Self::Rollup { upstream, .. } => upstream.mapper.date_of(downstream)?,
            Self::FanOut { downstream: finer, .. } => finer.mapper.date_of(downstream)?,
            Self::Chain { mappers } => match mappers.last() {
                Some(last) => last.mapper.date_of(downstream)?,
                None => None,
            },
            Self::Product { mappers, delimiter } => {
                let segments: Vec<&str> = downstream.split(delimiter.as_str()).collect();
                if segments.len() != mappers.len() {
                    return Ok(None);
                }
                let pairs = mappers.iter().zip(segments);
                let dates: Result<Vec<_>, _> = pairs.map(|(part, segment)| part.mapper.date_of(segment)).collect();
                let mut dates = dates?.into_iter().flatten();
                // A key with two dates is ambiguous, so it has no date.
                dates.next().filter(|_| dates.next().is_none())
            }
            Self::Identity | Self::FixedKey { .. } | Self::AllowedKey { .. } => None,
        })
    }
}

impl Window {
    /// The finer partitions that make up a coarser one.
    fn members(&self, coarse: Decoded) -> Result<Vec<Decoded>, PartitionError> {
        match (self, coarse) {
            (Self::Segments { segments }, _) => Ok(segments.iter().cloned().map(Decoded::Text).collect()),
            (Self::Time { period, direction }, Decoded::Date(start)) => {
                Ok(parts(*period, *direction, start)?.into_iter().map(Decoded::Date).collect())
            }
            (Self::Time { .. }, Decoded::Text(key)) => Err(PartitionError::NoDate(key)),
        }
    }
}

impl StartOf {
    fn to_downstream(&self, key: &str) -> Result<String, PartitionError> {
        self.format(self.period.start(partition_key::read(key, &self.input_format, &zone(&self.timezone)?)?))
    }

    fn format(&self, date_time: DateTime) -> Result<String, PartitionError> {
        let written = partition_key::write(date_time, &self.output_format, &zone(&self.timezone)?)?;
        let quarter = (date_time.month() - 1) / 3 + 1;
        Ok(match self.period {
            Period::Quarter => written.replace("{quarter}", &quarter.to_string()),
            _ => written,
        })
    }

    fn decode(&self, downstream: &str) -> Result<DateTime, PartitionError> {
        let is_week = match self.period {
            Period::Week => true,
            Period::Quarter => false,
            _ => {
                // Without an offset in the format, the key is a local time and needs no conversion.
                let zone = if self.output_format.contains("%z") { zone(&self.timezone)? } else { TimeZone::UTC };
                return partition_key::read(downstream, &self.output_format, &zone);
            }
        };
        let rejection = || PartitionError::Unreadable {
            key: downstream.to_owned(),
            format: self.output_format.clone(),
            required: if is_week { "%Y, %m and %d" } else { "%Y and {quarter}" },
        };
        let fields = partition_key::fields(downstream, &self.output_format).ok_or_else(rejection)?;
        let parse_i16 = |name: &str| {
            let field = fields.iter().find(|(other, _)| other == name);
            field.and_then(|(_, digits)| digits.parse::<i16>().ok()).ok_or_else(rejection)
        };
        let parse_i8 = |name: &str| parse_i16(name).and_then(|number| i8::try_from(number).map_err(|_| rejection()));
        let (month, day) = if is_week { (parse_i8("m")?, parse_i8("d")?) } else { (parse_i8("quarter")? * 3 - 2, 1) };
        let date = Date::new(parse_i16("Y")?, month, day).map_err(|_| rejection())?;
        Ok(date.at(0, 0, 0, 0))
    }

    fn date_of(&self, downstream: &str) -> Result<Timestamp, PartitionError> {
        partition_key::to_timestamp(self.period.start(self.decode(downstream)?), &zone(&self.timezone)?)
    }
}

#[cfg(test)]
#[path = "partition_mapper_tests.rs"]
mod tests;
