//! The spans of a run and of its tries, with Airflow's names. A span of a task's own process has that of its try as its
//! parent; both sides derive the ids from the names (`sdk/tracing.py`).

use super::otlp;
use jiff::Timestamp;
use leoflow_engine::model::keys::{InstanceKey, RunKey, TryKey};
use leoflow_engine::model::state::RunState;
use leoflow_engine::store::run::traces::{EndedRun, EndedTry};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Codes of the protocol.
const KIND_INTERNAL: u8 = 1;
const STATUS_OK: u8 = 1;
const STATUS_ERROR: u8 = 2;

/// The ids of one run's trace. A run that is cleared gets another trace, since it is queued again.
pub struct Trace {
    run: RunKey,
    queued_at: String,
}

impl Trace {
    pub fn new(run: &EndedRun) -> Self {
        Self { run: run.key.clone(), queued_at: run.queued_at.to_string() }
    }

    fn hash(&self, others: &[&str]) -> [u8; 32] {
        let names = [&[self.run.dag_id.as_str(), &self.run.run_id, &self.queued_at], others].concat();
        Sha256::digest(names.join("\0").as_bytes()).into()
    }

    fn id(&self) -> [u8; 16] {
        let hash = self.hash(&["trace"]);
        std::array::from_fn(|index| hash[index])
    }

    fn span_id(&self, others: &[&str]) -> String {
        hex::encode(&self.hash(others)[..8])
    }

    fn run_span(&self) -> String {
        self.span_id(&["run"])
    }

    fn try_span(&self, TryKey { instance, try_number }: &TryKey) -> String {
        let InstanceKey { task_id, position, .. } = instance;
        self.span_id(&["try", task_id, &position.file_name(), &try_number.to_string()])
    }

    /// True if the trace is one of the share `ratio` of all, by the rule of OpenTelemetry's sampler: the last half of
    /// the id, as a number, is below that share of all numbers.
    pub fn is_sampled(&self, ratio: f64) -> bool {
        let id = self.id();
        let half: [u8; 8] = std::array::from_fn(|index| id[8 + index]);
        // Both have 53 significant bits at most, which decides well enough.
        u64::from_be_bytes(half) as f64 <= ratio * u64::MAX as f64 && ratio > 0.0
    }
}

/// The spans of a run and of its tries.
pub fn spans(trace: &Trace, run: &EndedRun, tries: &[EndedTry]) -> Vec<Value> {
    let own = [run_span(trace, run)];
    own.into_iter().chain(tries.iter().map(|ended| try_span(trace, ended))).collect()
}

fn run_span(trace: &Trace, run: &EndedRun) -> Value {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    let attributes = [
        ("airflow.dag_id", Some(run.key.dag_id.clone())),
        ("airflow.dag_run.run_id", Some(run.key.run_id.clone())),
        ("airflow.dag_run.run_type", Some(run.run_type.as_str().to_owned())),
        ("airflow.dag_run.state", Some(run.state.as_str().to_owned())),
        ("airflow.dag_run.logical_date", time(run.logical_date)),
        ("airflow.dag_run.queued_at", time(Some(run.queued_at))),
        ("airflow.dag_run.start_date", time(run.start_date)),
        ("airflow.dag_run.end_date", time(Some(run.end_date))),
    ];
    let attributes = attributes.into_iter().filter_map(|(name, value)| Some(otlp::attribute(name, &value?)));
    json!({
        "traceId": hex::encode(trace.id()),
        "spanId": trace.run_span(),
        "name": format!("dag_run.{}", run.key.dag_id),
        "kind": KIND_INTERNAL,
        "startTimeUnixNano": otlp::nanoseconds(run.queued_at.min(run.end_date)),
        "endTimeUnixNano": otlp::nanoseconds(run.end_date),
        "attributes": attributes.collect::<Vec<_>>(),
        "status": {"code": if run.state == RunState::Success { STATUS_OK } else { STATUS_ERROR }},
    })
}

fn try_span(trace: &Trace, ended: &EndedTry) -> Value {
    let TryKey { instance: InstanceKey { run, task_id, position }, try_number } = &ended.key;
    let attributes = [
        otlp::attribute("airflow.dag_id", &run.dag_id),
        otlp::attribute("airflow.dag_run.run_id", &run.run_id),
        otlp::attribute("airflow.task_id", task_id),
        otlp::integer_attribute("airflow.task_instance.map_index", position.map_index()),
        otlp::integer_attribute("airflow.task_instance.try_number", *try_number),
        otlp::attribute("airflow.task_instance.state", &ended.state),
    ];
    json!({
        "traceId": hex::encode(trace.id()),
        "spanId": trace.try_span(&ended.key),
        "parentSpanId": trace.run_span(),
        "name": format!("task_run.{task_id}{position}"),
        "kind": KIND_INTERNAL,
        "startTimeUnixNano": otlp::nanoseconds(ended.start_date),
        "endTimeUnixNano": otlp::nanoseconds(ended.end_date.max(ended.start_date)),
        "attributes": attributes,
        "status": match ended.state.as_str() {
            "failed" => json!({"code": STATUS_ERROR, "message": ended.outcome.clone().unwrap_or_default()}),
            _ => json!({"code": STATUS_OK}),
        },
    })
}
