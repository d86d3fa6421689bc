//! `GET /metrics`: numbers for Prometheus, with the names of Airflow where Airflow has one. A scrape reads the current
//! state; what grows with each run is counted by the scheduler.

use crate::api::ops::health::ask_supervisor;
use crate::app_state::Shared;
use crate::http::api_error::ApiError;
use crate::state::Core;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use leoflow_base::home::upkeep;
use leoflow_base::protocol::status::{InstanceState, InstanceStatus};
use leoflow_base::sys::blocking;
use leoflow_base::sys::fs::disk;
use leoflow_engine::store::instance::tries;
use leoflow_engine::store::list::listing::Listing;
use leoflow_engine::store::metrics::{Numbers, numbers};
use leoflow_engine::store::pools::{self, Pool};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::fmt;
use std::hash::Hash;
use std::time::Duration;

/// How long a scrape waits for the datastore.
const DATASTORE_TIMEOUT: Duration = Duration::from_secs(2);
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PoolLabel {
    pool_name: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ProcessLabel {
    process: String,
}

pub async fn metrics(State(state): Shared) -> Result<Response, ApiError> {
    let text = text(&state.core, state.release.version).await.map_err(|error| ApiError::internal(&error))?;
    Ok(([(CONTENT_TYPE, OPENMETRICS)], text).into_response())
}

/// The metrics, as OpenMetrics text.
pub async fn text(core: &Core, version: &str) -> Result<String, fmt::Error> {
    let (datastore, status) =
        tokio::join!(tokio::time::timeout(DATASTORE_TIMEOUT, datastore(core)), ask_supervisor(core));
    let datastore = datastore.ok().and_then(Result::ok);
    let local = {
        let home = core.home.clone();
        blocking::run(move || (upkeep::read(&home), disk::free_bytes(home.root()).ok())).await
    };
    let mut airflow = Registry::with_prefix("airflow");
    core.totals.register(&mut airflow);
    let mut own = Registry::with_prefix("leoflow");
    let version = vec![("version".to_owned(), version.to_owned())];
    own.register("build", "The version that serves", Info::new(version));
    gauge(&mut own, "datastore_up", "1 if the datastore answers", i64::from(datastore.is_some()));
    let heartbeat = i64::from(core.phase.scheduler_beat.is_alive());
    gauge(&mut airflow, "scheduler_heartbeat", "1 while the scheduler works", heartbeat);
    if let Some((numbers, pools)) = &datastore {
        register_numbers(&mut airflow, &mut own, numbers);
        register_pools(&mut airflow, pools);
    }
    if let Ok(status) = &status {
        register_status(&mut own, status);
    }
    if let Ok((upkeep, free)) = local {
        let seconds = |time: Option<Timestamp>| time.map_or(0, Timestamp::as_second);
        let made = seconds(upkeep.as_ref().and_then(|known| known.backup.done_at));
        let restored = seconds(upkeep.as_ref().and_then(upkeep::Upkeep::last_test_restore));
        gauge(&mut own, "last_backup_timestamp_seconds", "When a scheduled backup last succeeded; 0 for never", made);
        gauge(
            &mut own,
            "last_test_restore_timestamp_seconds",
            "When a backup was last test-restored; 0 for never",
            restored,
        );
        let problems = upkeep.map_or(0, |known| known.problems().len());
        gauge(&mut own, "upkeep_problems", "Scheduled jobs that failed or cannot run", problems);
        if let Some(free) = free {
            gauge(&mut own, "disk_free_bytes", "Free space on the home's file system", free);
        }
    }
    let mut text = String::new();
    encode_registry(&mut text, &airflow)?;
    encode_registry(&mut text, &own)?;
    encode_eof(&mut text)?;
    Ok(text)
}

async fn datastore(core: &Core) -> Result<(Numbers, Vec<Pool>), ApiError> {
    let client = core.database.get().await?;
    let numbers = numbers(&*client).await?;
    Ok((numbers, pools::list(&*client, Listing::default()).await?.rows))
}

/// Registers a gauge without labels. A value that is too large for it counts as its maximum.
fn gauge(registry: &mut Registry, name: &str, help: &str, value: impl TryInto<i64>) {
    let gauge = Gauge::<i64>::default();
    gauge.set(value.try_into().unwrap_or(i64::MAX));
    registry.register(name, help, gauge);
}

/// Registers a gauge with a value for each label.
fn gauges<L: Clone + Hash + Eq + EncodeLabelSet + fmt::Debug + Send + Sync + 'static>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, i64)>,
) {
    let family = Family::<L, Gauge>::default();
    for (label, value) in values {
        family.get_or_create(&label).set(value);
    }
    registry.register(name, help, family);
}

fn register_numbers(airflow: &mut Registry, own: &mut Registry, numbers: &Numbers) {
    let slots = i64::try_from(tries::SLOTS).unwrap_or(i64::MAX);
    let occupied = numbers.running_instances;
    for (name, help, value) in [
        ("dagbag_size", "Active DAGs", numbers.dags),
        ("dag_processing_import_errors", "DAG files with import errors", numbers.import_errors),
        ("executor_open_slots", "Tasks that could start at once", (slots - occupied).max(0)),
        ("executor_queued_tasks", "Queued task instances", numbers.queued_instances),
        ("executor_running_tasks", "Running task instances", occupied),
        ("triggers_running", "Triggers that deferred tasks wait for", numbers.triggers),
    ] {
        gauge(airflow, name, help, value);
    }
    for (name, help, value) in [
        ("runs_queued", "Queued runs", numbers.queued_runs),
        ("runs_running", "Running runs", numbers.running_runs),
        ("environments", "Locked Python environments", numbers.environments),
        ("datastore_bytes", "Size of the database", numbers.database_bytes),
    ] {
        gauge(own, name, help, value);
    }
}

fn register_pools(registry: &mut Registry, pools: &[Pool]) {
    let mut slots = |name: &str, help: &str, value: fn(&Pool) -> i64| {
        let label = |pool: &Pool| (PoolLabel { pool_name: pool.name.clone() }, value(pool));
        gauges(registry, name, help, pools.iter().map(label));
    };
    slots("pool_open_slots", "Free slots; -1 is no limit", Pool::open);
    slots("pool_running_slots", "Slots of running tasks", |pool| pool.running);
    slots("pool_queued_slots", "Slots of queued tasks", |pool| pool.queued);
    slots("pool_scheduled_slots", "Slots that scheduled tasks wait for", |pool| pool.scheduled);
    slots("pool_deferred_slots", "Slots of deferred tasks", |pool| pool.deferred);
}

fn register_status(registry: &mut Registry, status: &InstanceStatus) {
    let is_healthy = i64::from(status.state == InstanceState::Healthy);
    gauge(registry, "healthy", "1 if every process is healthy", is_healthy);
    gauge(registry, "upgrade_in_progress", "1 during an upgrade or a rollback", i64::from(status.change.is_some()));
    let label = |name: &str| ProcessLabel { process: name.to_owned() };
    let memory = status.processes.iter().filter_map(|process| Some((label(&process.name), process.rss_bytes?)));
    let memory = memory.map(|(label, bytes)| (label, i64::try_from(bytes).unwrap_or(i64::MAX)));
    gauges(registry, "process_memory_bytes", "Memory of a process", memory);
    let restarts = status.processes.iter().map(|process| (label(&process.name), process.restarts.into()));
    gauges(registry, "process_restarts", "Restarts since the instance started", restarts);
}
