//! The parts of the UI about deadlines of runs and the alerts that define them.

use super::calendar;
use super::structure::not_found;
use crate::api::instance::task_logs::{Log, accepts_lines, message, respond};
use crate::api::prelude::*;
use crate::api::run::dag_runs::run_not_found;
use crate::api::views::{stamp, uuid};
use axum::http::HeaderMap;
use leoflow_engine::model::dag::DeadlineAlert;
use leoflow_engine::store::dag::{dags, versions};
use leoflow_engine::store::list::column::Order;
use leoflow_engine::store::run::deadline_lists::{self, Deadline, DeadlineField, DeadlineFilter};
use leoflow_engine::store::run::deadlines::CallbackState;
use leoflow_engine::store::run::runs;
use std::cmp::Ordering;

/// Stands for all DAGs, or all runs, in a path.
const ALL: &str = "~";
/// Names of the processes that call back, in Airflow. Here it is always a process of the server.
const ASYNC: &str = "triggerer";
const SYNC: &str = "executor";

const FIELDS: Fields<DeadlineField> = Fields {
    order: &[
        ("id", DeadlineField::Id),
        ("deadline_time", DeadlineField::DueAt),
        ("created_at", DeadlineField::CreatedAt),
        ("last_updated_at", DeadlineField::UpdatedAt),
        ("missed", DeadlineField::Missed),
        ("dag_id", DeadlineField::DagId),
        ("dag_run_id", DeadlineField::RunId),
        ("alert_name", DeadlineField::AlertName),
        ("callback_state", DeadlineField::CallbackState),
        ("callback_type", DeadlineField::CallbackType),
    ],
    ranges: &[("deadline_time", DeadlineField::DueAt), ("last_updated_at", DeadlineField::UpdatedAt)],
    ..Fields::NONE
};

/// `/ui/dags/{dag_id}/dagRuns/{run_id}/deadlines`.
pub async fn list(
    Datastore(client): Datastore,
    Segments((dag_id, run_id)): Segments<RunPath>,
    params: Params,
) -> JsonResult<Value> {
    if dag_id == ALL && run_id != ALL {
        return Err(ApiError::bad_request("dag_id is required when dag_run_id is specified"));
    }
    let mut listing = params.listing(&FIELDS)?;
    listing.order_by_default(Order::ascending(DeadlineField::DueAt));
    if let Some(missed) = params.flag("missed")? {
        listing.test(DeadlineField::Missed, FieldTest::OneOf(vec![missed.to_string()]));
    }
    let named = |name: &String| (name != ALL).then(|| name.clone());
    listing.filter = DeadlineFilter { dag_id: named(&dag_id), run_id: named(&run_id) };
    let page = deadline_lists::list(&*client, listing).await?;
    if page.total == 0 && run_id != ALL {
        let key = RunKey { dag_id, run_id };
        runs::get(&*client, &key, ReadFor::Reading).await.map_err(run_not_found(&key))?;
    }
    let views: Vec<Value> = page.rows.iter().map(view).collect();
    Ok(Json(json!({"deadlines": views, "total_entries": page.total})))
}

fn view(deadline: &Deadline) -> Value {
    let dag_id = &deadline.run.dag_id;
    json!({
        "id": deadline.id, "deadline_time": stamp(deadline.due_at),
        "missed": deadline.state != CallbackState::Scheduled, "created_at": stamp(deadline.created_at),
        "dag_id": dag_id, "dag_run_id": deadline.run.run_id,
        "alert_id": alert_id(dag_id, deadline.version_number, deadline.alert), "alert_name": deadline.alert_name,
        "team_name": null, "callback_id": deadline.id, "callback_type": if deadline.is_async { ASYNC } else { SYNC },
        "callback_state": deadline.state, "callback_path": deadline.callback,
    })
}

fn alert_id(dag_id: &str, version_number: i32, alert: i32) -> String {
    uuid(&["deadline_alert", dag_id, &version_number.to_string(), &alert.to_string()])
}

/// `/ui/dags/{dag_id}/deadlineAlerts`: the alerts of a version of a DAG, the newest by default.
pub async fn alerts(Datastore(client): Datastore, Id(dag_id): Id, params: Params) -> JsonResult<Value> {
    let dag = dags::get(&*client, &dag_id).await.map_err(|_| not_found(&dag_id))?;
    let order = params.order(&[
        ("id", AlertField::Constant),
        ("created_at", AlertField::Constant),
        ("name", AlertField::Name),
    ])?;
    let number = params.integer("version_number")?.unwrap_or(dag.version_number);
    let structure = versions::structure(&*client, &dag_id, number).await?;
    let version = versions::named(&*client, &dag_id, number).await?;
    let (Some(structure), Some(version)) = (structure, version) else {
        let detail = format!("Dag with id {dag_id} and version number {number} was not found");
        return Err(ApiError::not_found(detail));
    };
    let mut alerts: Vec<_> = (1..).zip(&structure.deadlines).collect();
    for order in order.iter().rev() {
        alerts.sort_by(|(_, first), (_, second)| {
            order.compare(|field| match field {
                AlertField::Constant => Ordering::Equal,
                AlertField::Name => first.name.cmp(&second.name),
            })
        });
    }
    let created_at = stamp(version.created_at);
    let view = |(number_in_dag, alert): (i32, &DeadlineAlert)| {
        json!({
            "id": alert_id(&dag_id, number, number_in_dag), "name": alert.name,
            "reference_type": alert.reference["reference_type"],
            // As in Airflow, not that of a Variable.
            "interval": alert.interval.filter(|_| alert.variable.is_none()), "created_at": created_at,
        })
    };
    let total = alerts.len();
    let views: Vec<Value> = params.page()?.of(alerts).rows.into_iter().map(view).collect();
    Ok(Json(json!({"deadline_alerts": views, "total_entries": total})))
}

/// Fields that alerts are ordered by.
#[derive(Clone, Copy)]
enum AlertField {
    /// All alerts of a version have been created at once, in their order in the DAG.
    Constant,
    Name,
}

/// `/ui/calendar/{dag_id}/deadlines`: the number of deadlines per day or hour, of those that were missed and others.
pub async fn calendar(Datastore(client): Datastore, Id(dag_id): Id, params: Params) -> JsonResult<Value> {
    let granularity = calendar::granularity(&params)?;
    let counts = deadline_lists::calendar(&*client, &dag_id, granularity, params.times("deadline_time")?).await?;
    let views: Vec<Value> = counts
        .iter()
        .map(|counted| json!({"date": stamp(counted.at), "missed": counted.missed, "count": counted.count}))
        .collect();
    Ok(Json(json!({"total_entries": views.len(), "deadlines": views})))
}

/// `/ui/dags/{dag_id}/dagRuns/{run_id}/callbacks/{callback_id}/logs`: what the callback of a deadline printed.
pub async fn callback_log(
    Datastore(client): Datastore,
    Segments((dag_id, run_id, callback_id)): Segments<TaskPath>,
    headers: HeaderMap,
) -> ApiResult<Log> {
    let as_lines = accepts_lines(&headers)?;
    let key = RunKey { dag_id, run_id };
    let log = deadline_lists::log(&*client, &key, &callback_id).await?.ok_or_else(|| {
        ApiError::not_found(format!(
            "Callback `{callback_id}` with a deadline for DagRun `{}` of Dag `{}` was not found",
            key.run_id, key.dag_id
        ))
    })?;
    Ok(respond(as_lines, log.lines().map(message).collect()))
}
