//! `/ui/calendar/{dag_id}`: run counts per day or hour, and planned runs of the current year.

use super::structure::not_found;
use crate::api::views::stamp;
use crate::http::api_error::ApiError;
use crate::http::request::{Params, Segments};
use crate::process::state::AppState;
use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use leoflow_engine::schedule::timetable::Interval;
use leoflow_engine::schedule::upcoming::upcoming;
use leoflow_engine::store::dag::dags::{self, Dag};
use leoflow_engine::store::list::overview::{self, Bounds, Day};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most planned dates.
const MAX_PLANNED: usize = 2000;
const SIGNS: [(&str, &str); 4] = [("_gte", ">="), ("_gt", ">"), ("_lte", "<="), ("_lt", "<")];

/// Parses the four bounds of a time.
fn bounds(params: &Params, name: &str) -> Result<Bounds, ApiError> {
    let mut bounds = Vec::new();
    for (suffix, sign) in SIGNS {
        if let Some(time) = params.time(&format!("{name}{suffix}"))? {
            bounds.push((sign, time));
        }
    }
    Ok(bounds)
}

/// True when the time satisfies all bounds.
fn holds(bounds: &Bounds, time: Timestamp) -> bool {
    bounds.iter().all(|(sign, bound)| match *sign {
        ">=" => time >= *bound,
        ">" => time > *bound,
        "<=" => time <= *bound,
        _ => time < *bound,
    })
}

/// Truncates a time to its hour, or else to its day.
fn truncate(time: Timestamp, is_hourly: bool) -> Timestamp {
    let seconds = if is_hourly { 3600 } else { 86_400 };
    let whole = time.as_second().div_euclid(seconds) * seconds;
    Timestamp::from_second(whole).unwrap_or(time)
}

pub async fn get(
    State(state): State<Arc<AppState>>,
    Segments(dag_id): Segments<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let is_hourly = match params.text("granularity") {
        None | Some("daily") => false,
        Some("hourly") => true,
        Some(_) => {
            let message = "Input should be 'hourly' or 'daily'";
            return Err(ApiError::unprocessable(&["query", "granularity"], "literal_error", message));
        }
    };
    let (logical, partition) = (bounds(&params, "logical_date")?, bounds(&params, "partition_date")?);
    let (column, bounds) = if partition.is_empty() { ("logical_date", logical) } else { ("partition_date", partition) };
    let client = state.database.get().await?;
    let dag = dags::get(&*client, &dag_id).await.map_err(|_| not_found(&dag_id))?;
    let unit = if is_hourly { "hour" } else { "day" };
    let days = overview::calendar(&*client, &dag_id, unit, (column, &bounds)).await?;
    drop(client);
    let mut entries: Vec<Value> =
        days.iter().map(|day| json!({"date": stamp(day.at), "state": day.state, "count": day.count})).collect();
    let planned = planned_counts(&dag, days.last(), &bounds, is_hourly);
    entries.extend(
        planned.into_iter().map(|(time, count)| json!({"date": stamp(time), "state": "planned", "count": count})),
    );
    Ok(Json(json!({"total_entries": entries.len(), "dag_runs": entries})))
}

/// Counts the planned dates per day or hour: those after the last run, in its year and within the bounds.
fn planned_counts(dag: &Dag, last: Option<&Day>, bounds: &Bounds, is_hourly: bool) -> BTreeMap<Timestamp, i64> {
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
        if holds(bounds, date) {
            *counts.entry(truncate(date, is_hourly)).or_insert(0) += 1;
        }
    }
    counts
}
