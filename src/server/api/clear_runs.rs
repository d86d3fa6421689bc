//! Making whole runs run again: `clear`, `clearDagRuns`, `clearPartitions`.

use super::clear::{check_note, invalid, yes};
use super::dag_run_lists::unless_all;
use super::dag_runs::missing;
use super::dag_runs_bulk::BulkDAGRunBody;
use super::instance_views::{TaskInstanceResponse, instance};
use super::views::{self, DAGRunCollectionResponse, DAGRunResponse, Stamp};
use crate::engine::keys::RunKey;
use crate::engine::schedule::timetable::Timetable;
use crate::engine::store::ReadFor;
use crate::engine::store::clear::{self, Clearing, Selection};
use crate::engine::store::dags;
use crate::engine::store::instances;
use crate::engine::store::partitions::{self, Which};
use crate::engine::store::runs;
use crate::server::api_error::ApiError;
use crate::server::body::Body;
use crate::server::listing::collection;
use crate::server::request::Segments;
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use deadpool_postgres::Transaction;
use jiff::civil::DateTime;
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

/// What is asked of one run, and of several.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DAGRunClearBody")]
pub struct Options {
    #[serde(default = "yes")]
    dry_run: bool,
    #[serde(default)]
    only_failed: bool,
    #[serde(default)]
    only_new: bool,
    #[serde(default, rename = "run_on_latest_version")]
    _run_on_latest_version: Option<bool>,
    #[serde(default)]
    #[schemars(length(max = 1000))]
    note: Option<String>,
}

/// What would run again: an instance, or a new task that there is none of yet.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Affected {
    Instance(Box<TaskInstanceResponse>),
    New(NewTaskResponse),
}

/// A task that the DAG has now and the run has not.
#[derive(Serialize, JsonSchema)]
pub struct NewTaskResponse {
    task_id: String,
    task_display_name: String,
}

collection! { ClearTaskInstanceCollectionResponse { task_instances: Affected } }

impl Options {
    fn check(&self) -> Result<(), ApiError> {
        check_note(self.note.as_deref())?;
        if self.only_new && self.only_failed {
            return Err(invalid("only_new and only_failed are mutually exclusive"));
        }
        Ok(())
    }

    fn selection(&self) -> Selection {
        Selection { only_failed: self.only_failed, ..Selection::default() }
    }

    /// What would run again; of new tasks there are no instances yet.
    async fn affected(
        &self,
        transaction: &Transaction<'_>,
        clearing: &Clearing<'_>,
        key: &RunKey,
    ) -> Result<Vec<Affected>, ApiError> {
        if self.only_new {
            let new = clear::new_tasks(transaction, key).await?.into_iter();
            let shown = new.map(|id| NewTaskResponse { task_display_name: id.clone(), task_id: id });
            return Ok(shown.map(Affected::New).collect());
        }
        let keys = clearing.select(transaction, key).await?;
        let found = instances::chosen(transaction, &keys).await?.into_iter();
        Ok(found.map(|one| Affected::Instance(Box::new(instance(one)))).collect())
    }

    async fn apply(
        &self,
        transaction: &Transaction<'_>,
        clearing: &Clearing<'_>,
        key: &RunKey,
    ) -> Result<(), ApiError> {
        if self.only_new {
            clear::add_new_tasks(transaction, key).await?;
        } else {
            let chosen = clearing.select(transaction, key).await?;
            clearing.clear(transaction, key, &chosen).await?;
        }
        if let Some(note) = &self.note {
            runs::set_note(transaction, key, Some(note.as_str()).filter(|note| !note.is_empty())).await?;
        }
        Ok(())
    }

    /// All of these runs, or none of them.
    async fn run(&self, state: &AppState, keys: &[RunKey]) -> Result<Outcome, ApiError> {
        let mut client = state.database.get().await?;
        let transaction = client.transaction().await?;
        let mut outcome = Outcome::default();
        if !self.dry_run {
            runs::lock(&transaction, keys).await?;
        }
        let which = self.selection();
        let mut of_dags: HashMap<&str, Clearing<'_>> = HashMap::new();
        for key in keys {
            runs::get(&transaction, key, ReadFor::Reading).await.map_err(|error| missing(error, key))?;
            let clearing = match of_dags.entry(&key.dag_id) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(Clearing::of(&transaction, &key.dag_id, &which).await?),
            };
            if self.dry_run {
                outcome.affected.extend(self.affected(&transaction, clearing, key).await?);
                continue;
            }
            self.apply(&transaction, clearing, key).await?;
            outcome.runs.push(views::run(runs::get(&transaction, key, ReadFor::Reading).await?));
        }
        transaction.commit().await?;
        Ok(outcome)
    }
}

#[derive(Default)]
struct Outcome {
    /// Of a dry run.
    affected: Vec<Affected>,
    runs: Vec<DAGRunResponse>,
}

impl Outcome {
    fn affected(self) -> ClearTaskInstanceCollectionResponse {
        self.affected.into_iter().collect()
    }
}

/// What would run again, where nothing is done yet, and else what runs again.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Cleared<T> {
    Tried(ClearTaskInstanceCollectionResponse),
    Done(T),
}

/// `POST …/dagRuns/{run_id}/clear`.
pub async fn one(
    State(state): Shared,
    Segments((dag_id, run_id)): Segments<(String, String)>,
    Body(options): Body<Options>,
) -> Result<Json<Cleared<DAGRunResponse>>, ApiError> {
    options.check()?;
    let mut outcome = options.run(&state, &[RunKey { dag_id, run_id }]).await?;
    Ok(Json(outcome.runs.pop().map_or_else(|| Cleared::Tried(outcome.affected()), Cleared::Done)))
}

/// Runs of partitions: of one, or of a time, whose ends count too and are read on the clock of the DAG's zone.
struct Partitions {
    key: Option<String>,
    from: Option<DateTime>,
    to: Option<DateTime>,
}

impl Partitions {
    fn of(key: Option<String>, from: Option<&str>, to: Option<&str>) -> Result<Self, ApiError> {
        let clock = |name: &str, text: Option<&str>| {
            let read = |text: &str| -> Result<DateTime, jiff::Error> {
                let pieces = DateTimeParser::new().parse_pieces(text)?;
                Ok(pieces.date().to_datetime(pieces.time().unwrap_or_default()))
            };
            let refuse = |error: jiff::Error| ApiError::unprocessable(&["body", name], "datetime_parsing", error);
            text.map(read).transpose().map_err(refuse)
        };
        let (from, to) = (clock("partition_date_start", from)?, clock("partition_date_end", to)?);
        if from.zip(to).is_some_and(|(from, to)| from > to) {
            return Err(invalid("partition_date_start must be on or before partition_date_end."));
        }
        Ok(Self { key, from, to })
    }

    /// Exactly one way to say which.
    fn check(&self, has_other: bool, other: &str) -> Result<(), ApiError> {
        let ways = [has_other, self.key.is_some(), self.from.or(self.to).is_some()];
        if ways.into_iter().filter(|said| *said).count() == 1 {
            return Ok(());
        }
        Err(invalid(&format!(
            "Exactly one of {other}, partition_key, or a partition date window (partition_date_start / \
             partition_date_end) must be provided."
        )))
    }

    fn which(&self, timetable: Option<&Timetable>) -> Result<Which, ApiError> {
        if let Some(key) = &self.key {
            return Ok(Which::Key(key.clone()));
        }
        let zone = timetable.map_or(TimeZone::UTC, Timetable::zone_of_partitions);
        // One that cannot be told must not be taken for none: that would be all of them.
        let moment = |name: &str, clock: Option<DateTime>| {
            let zoned = clock.map(|clock| clock.to_zoned(zone.clone())).transpose();
            let refuse = |error| ApiError::unprocessable(&["body", name], "datetime_parsing", error);
            zoned.map(|zoned| zoned.map(|zoned| zoned.timestamp())).map_err(refuse)
        };
        Ok(Which::Window(moment("partition_date_start", self.from)?, moment("partition_date_end", self.to)?))
    }
}

/// Which runs are meant, and the options.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkDAGRunClearBody {
    #[serde(default)]
    dag_runs: Vec<BulkDAGRunBody>,
    #[serde(default)]
    partition_key: Option<String>,
    #[serde(default)]
    #[schemars(with = "Option<Stamp>")]
    partition_date_start: Option<String>,
    #[serde(default)]
    #[schemars(with = "Option<Stamp>")]
    partition_date_end: Option<String>,
    #[serde(default = "yes")]
    dry_run: bool,
    #[serde(default)]
    only_failed: bool,
    #[serde(default)]
    only_new: bool,
    #[serde(default)]
    run_on_latest_version: Option<bool>,
    #[serde(default)]
    #[schemars(length(max = 1000))]
    note: Option<String>,
}

/// `POST …/clearDagRuns`.
pub async fn several(
    State(state): Shared,
    Segments(dag_id): Segments<String>,
    Body(body): Body<BulkDAGRunClearBody>,
) -> Result<Json<Cleared<DAGRunCollectionResponse>>, ApiError> {
    let options = Options {
        dry_run: body.dry_run,
        only_failed: body.only_failed,
        only_new: body.only_new,
        _run_on_latest_version: body.run_on_latest_version,
        note: body.note,
    };
    options.check()?;
    let partitions =
        Partitions::of(body.partition_key, body.partition_date_start.as_deref(), body.partition_date_end.as_deref())?;
    partitions.check(!body.dag_runs.is_empty(), "dag_runs (non-empty)")?;
    let keys = if body.dag_runs.is_empty() {
        let Some(dag_id) = unless_all(&dag_id) else {
            let detail = "Partition selectors require a concrete dag_id; '~' is not supported.";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, detail));
        };
        let client = state.database.get().await?;
        let dag = dags::get(&*client, dag_id).await?;
        let found = partitions::runs(&*client, dag_id, &partitions.which(dag.structure.timetable.as_ref())?).await?;
        found.into_iter().map(|one| one.key).collect()
    } else {
        keys_of(&dag_id, body.dag_runs)?
    };
    let outcome = options.run(&state, &keys).await?;
    if options.dry_run {
        return Ok(Json(Cleared::Tried(outcome.affected())));
    }
    Ok(Json(Cleared::Done(outcome.runs.into_iter().collect())))
}

/// Each of them once, in the order in which they were named.
fn keys_of(dag_id: &str, named: Vec<BulkDAGRunBody>) -> Result<Vec<RunKey>, ApiError> {
    let refuse = |detail: String| Err(ApiError::new(StatusCode::BAD_REQUEST, detail));
    let (mut keys, mut seen): (Vec<RunKey>, HashSet<RunKey>) = (Vec::new(), HashSet::new());
    for BulkDAGRunBody { dag_run_id: run_id, dag_id: own, .. } in named {
        let key = match (unless_all(dag_id), own.filter(|own| !own.is_empty())) {
            (None, Some(own)) if own != "~" => RunKey { dag_id: own, run_id },
            (None, _) => {
                return refuse(format!(
                    "When the URL dag_id is '~', every entry must provide a concrete dag_id (missing on dag_run_id: \
                     '{run_id}')."
                ));
            }
            (Some(dag_id), Some(own)) if own != dag_id => {
                return refuse(format!("Entry dag_id '{own}' does not match the URL dag_id '{dag_id}'."));
            }
            (Some(dag_id), _) => RunKey { dag_id: dag_id.to_owned(), run_id },
        };
        if seen.insert(key.clone()) {
            keys.push(key);
        }
    }
    Ok(keys)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClearPartitionsBody {
    #[serde(default)]
    run_id: Option<String>,
    #[serde(default)]
    partition_key: Option<String>,
    #[serde(default)]
    #[schemars(with = "Option<Stamp>")]
    partition_date_start: Option<String>,
    #[serde(default)]
    #[schemars(with = "Option<Stamp>")]
    partition_date_end: Option<String>,
    #[serde(default)]
    clear_task_instances: bool,
    #[serde(default = "yes")]
    dry_run: bool,
}

#[derive(Serialize, JsonSchema)]
pub struct ClearPartitionsResponse {
    dag_runs_cleared: usize,
    task_instances_cleared: usize,
    dry_run: bool,
}

/// `POST …/clearPartitions`: the runs are of no partition from then on.
pub async fn partitions(
    State(state): Shared,
    Segments(dag_id): Segments<String>,
    Body(body): Body<ClearPartitionsBody>,
) -> Result<Json<ClearPartitionsResponse>, ApiError> {
    let partitions =
        Partitions::of(body.partition_key, body.partition_date_start.as_deref(), body.partition_date_end.as_deref())?;
    partitions.check(body.run_id.is_some(), "run_id")?;
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let dag = dags::get(&transaction, &dag_id).await?;
    let which = match body.run_id {
        Some(run_id) => Which::Run(run_id),
        None => partitions.which(dag.structure.timetable.as_ref())?,
    };
    let mut counts = ClearPartitionsResponse { dag_runs_cleared: 0, task_instances_cleared: 0, dry_run: body.dry_run };
    let all = Selection::default();
    let clearing = Clearing::of(&transaction, &dag_id, &all).await?;
    let runs = partitions::runs(&transaction, &dag_id, &which).await?;
    if !body.dry_run {
        let keys: Vec<RunKey> = runs.iter().map(|found| found.key.clone()).collect();
        runs::lock(&transaction, &keys).await?;
    }
    for found in runs {
        if found.has_partition {
            counts.dag_runs_cleared += 1;
            if !body.dry_run {
                partitions::forget(&transaction, &found.key).await?;
            }
        }
        if body.clear_task_instances {
            let chosen = clearing.select(&transaction, &found.key).await?;
            counts.task_instances_cleared += chosen.len();
            if !body.dry_run {
                clearing.clear(&transaction, &found.key, &chosen).await?;
            }
        }
    }
    transaction.commit().await?;
    Ok(Json(counts))
}
