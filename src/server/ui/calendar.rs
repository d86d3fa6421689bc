//! `/ui/calendar/{dag_id}`: run counts per day or hour, and planned runs in the year of the last run.

use super::structure::not_found;
use crate::api::prelude::*;
use crate::api::views::stamp;
use jiff::tz::TimeZone;
use leoflow_engine::schedule::timetable::Interval;
use leoflow_engine::schedule::upcoming::upcoming;
use leoflow_engine::store::dag::dags::{self, Dag};
use leoflow_engine::store::list::filter::Range;
use leoflow_engine::store::list::overview::{self, CalendarCount, DateRange, Granularity};
use std::collections::BTreeMap;

/// Maximum number of planned dates.
const MAX_PLANNED: usize = 2000;

/// Truncates a time to its hour or day.
fn truncate(time: Timestamp, granularity: Granularity) -> Timestamp {
    let seconds = match granularity {
        Granularity::Hourly => 3600,
        Granularity::Daily => 86_400,
    };
    let whole = time.as_second().div_euclid(seconds) * seconds;
    Timestamp::from_second(whole).unwrap_or(time)
}

/// Reads the parameter `granularity`.
pub fn granularity(params: &Params) -> ApiResult<Granularity> {
    match params.text("granularity") {
        None | Some("daily") => Ok(Granularity::Daily),
        Some("hourly") => Ok(Granularity::Hourly),
        Some(_) => {
            let message = "Input should be 'hourly' or 'daily'";
            Err(ApiError::unprocessable(&["query", "granularity"], "literal_error", message))
        }
    }
}

pub async fn get(State(state): Shared, Id(dag_id): Id, params: Params) -> JsonResult<Value> {
    let granularity = granularity(&params)?;
    let (logical, partition) = (params.times("logical_date")?, params.times("partition_date")?);
    let (range, dates) = if partition.is_unbounded() {
        (logical, DateRange::Logical(logical))
    } else {
        (partition, DateRange::Partition(partition))
    };
    let client = state.core.database.get().await?;
    let dag = dags::get(&*client, &dag_id).await.map_err(|_| not_found(&dag_id))?;
    let days = overview::calendar(&*client, &dag_id, granularity, dates).await?;
    drop(client);
    let mut entries: Vec<Value> =
        days.iter().map(|day| json!({"date": stamp(day.at), "state": day.state, "count": day.count})).collect();
    let planned = planned_counts(&dag, days.last(), &range, granularity);
    entries.extend(
        planned.into_iter().map(|(time, count)| json!({"date": stamp(time), "state": "planned", "count": count})),
    );
    Ok(Json(json!({"total_entries": entries.len(), "dag_runs": entries})))
}

/// Counts the planned dates per day or hour: the dates after the last run, in its year and within the bounds.
fn planned_counts(
    dag: &Dag,
    last: Option<&CalendarCount>,
    range: &Range<Timestamp>,
    granularity: Granularity,
) -> BTreeMap<Timestamp, i64> {
    let mut counts = BTreeMap::new();
    let Some((start, end)) = last.and_then(|day| day.interval_start.zip(day.interval_end)) else { return counts };
    let (structure, year) = (&dag.structure, |time: Timestamp| time.to_zoned(TimeZone::UTC).year());
    let first = (end, Some(Interval { start, end }));
    let dates =
        upcoming(structure.timetable.as_ref(), structure.restriction(), first, MAX_PLANNED + 1, Timestamp::now());
    for date in dates.into_iter().skip(1).filter_map(|(_, date)| date) {
        if year(date) != year(end) {
            break;
        }
        if range.contains(&date) {
            *counts.entry(truncate(date, granularity)).or_insert(0) += 1;
        }
    }
    counts
}
