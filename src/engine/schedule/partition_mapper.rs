//! From the key of an asset's partition to those of the runs that it is for. Pure.
//!
//! The rules are Airflow's:
//! <https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/assets.html>

use super::partition_key;
use super::partition_window::{Period, Wait, Window, parts};
use super::run_dates::zone;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// How one key becomes others. What goes wrong is a text for people.
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
    /// Each part of a key has a mapper of its own.
    Product {
        mappers: Vec<Limited>,
        delimiter: String,
    },
    /// One after another.
    Chain {
        mappers: Vec<Limited>,
    },
    /// Many keys are for one run, which waits for them.
    Rollup {
        upstream: Box<Limited>,
        window: Window,
        wait: Wait,
    },
    /// One key is for many runs.
    FanOut {
        upstream: Box<Limited>,
        window: Window,
        downstream: Box<Limited>,
    },
}

/// A mapper with how many keys it may make of one.
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
    /// Of assets by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub named: BTreeMap<String, Limited>,
}

impl Mappers {
    /// Airflow looks for the name of an asset only, so that one which is given for a URI is never used.
    pub fn of(&self, asset_name: &str) -> &Mapper {
        &self.limited(asset_name).mapper
    }

    pub fn limited(&self, asset_name: &str) -> &Limited {
        self.named.get(asset_name).unwrap_or(&self.default)
    }

    /// What a run's key stands for, as the mappers of these assets have it: none of them may say another time.
    pub fn dates(&self, asset_names: &[&str], key: &str) -> Result<BTreeSet<Timestamp>, String> {
        let dates: Result<Vec<_>, _> = asset_names.iter().map(|name| self.of(name).date_of(key)).collect();
        Ok(dates?.into_iter().flatten().collect())
    }
}

/// Where nothing else is said.
const MOST_KEYS: usize = 1000;

/// To the beginning of the period that a date is in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartOf {
    period: Period,
    timezone: Value,
    input_format: String,
    output_format: String,
}

/// What a key means to a window.
enum Meaning {
    Date(DateTime),
    Text(String),
}

impl Limited {
    /// The runs that a key is for.
    pub fn to_downstream(&self, key: &str) -> Result<Vec<String>, String> {
        let keys = self.mapper.to_downstream(key)?;
        let most = self.max_downstream_keys.unwrap_or(MOST_KEYS);
        if keys.len() > most {
            return Err(format!("{key:?} is for {} runs, and {most} is the most that one key may be for", keys.len()));
        }
        keys.iter().try_for_each(|key| partition_key::check(key))?;
        Ok(keys)
    }
}

impl Mapper {
    fn to_downstream(&self, key: &str) -> Result<Vec<String>, String> {
        Ok(match self {
            Self::Identity => vec![key.to_owned()],
            Self::StartOf(start) => vec![start.to_downstream(key)?],
            Self::FixedKey { key } => vec![key.clone()],
            Self::AllowedKey { keys } if keys.iter().any(|allowed| allowed == key) => vec![key.to_owned()],
            Self::AllowedKey { keys } => return Err(format!("Key {key:?} not in allowed keys {keys:?}")),
            Self::Product { mappers, delimiter } => {
                let segments: Vec<&str> = key.split(delimiter.as_str()).collect();
                if segments.len() != mappers.len() {
                    return Err(format!("Expected {} segments in key, got {}", mappers.len(), segments.len()));
                }
                let each: Result<Vec<_>, _> =
                    mappers.iter().zip(segments).map(|(one, segment)| one.mapper.single(segment)).collect();
                vec![each?.join(delimiter)]
            }
            Self::Chain { mappers } => {
                let mut keys = vec![key.to_owned()];
                for one in mappers {
                    let next: Result<Vec<_>, _> = keys.iter().map(|key| one.mapper.to_downstream(key)).collect();
                    keys = next?.concat();
                }
                keys
            }
            Self::Rollup { upstream, .. } => upstream.mapper.to_downstream(key)?,
            Self::FanOut { upstream, window, downstream } => {
                let coarse = upstream.mapper.decode(&upstream.mapper.single(key)?)?;
                let fine = window.members(coarse)?;
                fine.into_iter().map(|one| downstream.mapper.format(one)).collect::<Result<_, _>>()?
            }
        })
    }

    /// Of one that makes one key only.
    fn single(&self, key: &str) -> Result<String, String> {
        let mut keys = self.to_downstream(key)?;
        match (keys.pop(), keys.is_empty()) {
            (Some(one), true) => Ok(one),
            _ => Err(format!("a mapper within another must make one key of {key:?}")),
        }
    }

    fn decode(&self, downstream: &str) -> Result<Meaning, String> {
        match self {
            Self::StartOf(start) => start.decode(downstream).map(Meaning::Date),
            _ => Ok(Meaning::Text(downstream.to_owned())),
        }
    }

    /// A member of a window as a key that is for a run.
    fn format(&self, one: Meaning) -> Result<String, String> {
        match (self, one) {
            (Self::StartOf(start), Meaning::Date(at)) => start.format(at),
            (_, Meaning::Date(at)) => Ok(at.to_string()),
            (_, Meaning::Text(text)) => Ok(text),
        }
    }

    /// The keys that a run waits for, and how many of them; `None` for one that goes with its first.
    pub fn expected(&self, downstream: &str) -> Result<Option<(BTreeSet<String>, Wait)>, String> {
        let Self::Rollup { upstream, window, wait } = self else { return Ok(None) };
        let encode = |one| match (&upstream.mapper, one) {
            (Self::StartOf(start), Meaning::Date(at)) => start.encode_upstream(at),
            (_, Meaning::Date(at)) => Ok(at.to_string()),
            (_, Meaning::Text(text)) => Ok(text),
        };
        let members = window.members(upstream.mapper.decode(downstream)?)?;
        Ok(Some((members.into_iter().map(encode).collect::<Result<_, _>>()?, *wait)))
    }

    /// The beginning of the time that a run's key stands for, if it stands for one.
    pub fn date_of(&self, downstream: &str) -> Result<Option<Timestamp>, String> {
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
                let dates: Result<Vec<_>, _> = pairs.map(|(one, segment)| one.mapper.date_of(segment)).collect();
                let mut dates = dates?.into_iter().flatten();
                // Two of them are none: nobody knows which one counts.
                dates.next().filter(|_| dates.next().is_none())
            }
            Self::Identity | Self::FixedKey { .. } | Self::AllowedKey { .. } => None,
        })
    }

    /// Whether the run's date is that of the run which made the asset: its key says nothing about it.
    pub fn carries_date(&self) -> bool {
        *self == Self::Identity
    }
}

impl Window {
    fn members(&self, of: Meaning) -> Result<Vec<Meaning>, String> {
        match (self, of) {
            (Self::Segments { segments }, _) => Ok(segments.iter().cloned().map(Meaning::Text).collect()),
            (Self::Time { period, backward }, Meaning::Date(start)) => {
                Ok(parts(*period, *backward, start)?.into_iter().map(Meaning::Date).collect())
            }
            (Self::Time { .. }, Meaning::Text(key)) => Err(format!("{key:?} is no date, as its window wants")),
        }
    }
}

impl StartOf {
    fn zone(&self) -> Result<TimeZone, String> {
        zone(&self.timezone).map_err(|error| error.to_string())
    }

    fn to_downstream(&self, key: &str) -> Result<String, String> {
        self.format(self.period.start(partition_key::read(key, &self.input_format, &self.zone()?)?))
    }

    fn format(&self, at: DateTime) -> Result<String, String> {
        let written = partition_key::write(at, &self.output_format, &self.zone()?)?;
        let quarter = (at.month() - 1) / 3 + 1;
        Ok(match self.period {
            Period::Quarter => written.replace("{quarter}", &quarter.to_string()),
            _ => written,
        })
    }

    fn decode(&self, downstream: &str) -> Result<DateTime, String> {
        let of_weeks = match self.period {
            Period::Week => true,
            Period::Quarter => false,
            _ => {
                // A clock's time, as it is written.
                let zone = if self.output_format.contains("%z") { self.zone()? } else { TimeZone::UTC };
                return partition_key::read(downstream, &self.output_format, &zone);
            }
        };
        let refuse = || {
            let wanted = if of_weeks { "%Y, %m and %d" } else { "%Y and {quarter}" };
            format!(
                "{downstream:?} cannot be read with output_format {:?}, which must include {wanted}",
                self.output_format
            )
        };
        let fields = partition_key::fields(downstream, &self.output_format).ok_or_else(refuse)?;
        let number = |name: &str| {
            let field = fields.iter().find(|(other, _)| other == name);
            field.and_then(|(_, digits)| digits.parse::<i16>().ok()).ok_or_else(refuse)
        };
        let small = |name: &str| number(name).and_then(|number| i8::try_from(number).map_err(|_| refuse()));
        let (month, day) = if of_weeks { (small("m")?, small("d")?) } else { (small("quarter")? * 3 - 2, 1) };
        let date = Date::new(number("Y")?, month, day).map_err(|_| refuse())?;
        Ok(date.at(0, 0, 0, 0))
    }

    fn encode_upstream(&self, at: DateTime) -> Result<String, String> {
        partition_key::write(at, &self.input_format, &self.zone()?)
    }

    fn date_of(&self, downstream: &str) -> Result<Timestamp, String> {
        partition_key::at(self.period.start(self.decode(downstream)?), &self.zone()?)
    }
}

#[cfg(test)]
#[path = "partition_mapper_tests.rs"]
mod tests;
