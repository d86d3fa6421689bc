//! What the scheduler of this process has done, as metrics for Prometheus. They begin at zero with each process.

use crate::model::keys::RunKey;
use crate::model::state::{RunState, TaskState};
use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc;

/// Ended runs that wait to be read; more are left out.
const MAX_ENDED_RUNS: usize = 10_000;

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DagLabel {
    dag_id: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FinishLabels {
    dag_id: String,
    state: &'static str,
}

type Durations = Family<DagLabel, Histogram, fn() -> Histogram>;

/// Upper bounds of the durations of runs, in seconds.
fn run_durations() -> Histogram {
    Histogram::new([1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0])
}

/// Clones share the values.
#[derive(Debug, Clone)]
pub struct Totals {
    loops: Histogram,
    succeeded: Durations,
    failed: Durations,
    delays: Durations,
    finished: Family<FinishLabels, Counter>,
    /// The receiver of ended runs, if there is one.
    ended_runs: Arc<OnceLock<mpsc::Sender<RunKey>>>,
}

impl Default for Totals {
    fn default() -> Self {
        let durations = || Durations::new_with_constructor(run_durations);
        Self {
            loops: Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0]),
            succeeded: durations(),
            failed: durations(),
            delays: durations(),
            finished: Family::default(),
            ended_runs: Arc::default(),
        }
    }
}

impl Totals {
    /// Registers the metrics with Airflow's names.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("dagrun_duration_success", "Seconds that runs took which succeeded", self.succeeded.clone());
        registry.register("dagrun_duration_failed", "Seconds that runs took which failed", self.failed.clone());
        registry.register(
            "dagrun_schedule_delay",
            "Seconds from the due date of a scheduled run to its start",
            self.delays.clone(),
        );
        let loops = "Seconds that a round of the scheduler's work took";
        registry.register("scheduler_scheduler_loop_duration", loops, self.loops.clone());
        registry.register("ti_finish", "Task instances that reached a final state", self.finished.clone());
    }

    pub(crate) fn looped(&self, took: Duration) {
        self.loops.observe(took.as_secs_f64());
    }

    pub(crate) fn finished(&self, dag_id: &str, state: TaskState) {
        self.finished.get_or_create(&FinishLabels { dag_id: dag_id.to_owned(), state: state.as_str() }).inc();
    }

    /// Returns the runs that end from now on. Only the first receiver gets any.
    pub fn ended_runs(&self) -> mpsc::Receiver<RunKey> {
        let (sender, receiver) = mpsc::channel(MAX_ENDED_RUNS);
        // Fails for a second receiver, which is then closed.
        let _ = self.ended_runs.set(sender);
        receiver
    }

    /// Notes the end of a run; `due_at` is set for a scheduled one.
    pub(crate) fn run_ended(
        &self,
        key: &RunKey,
        state: RunState,
        due_at: Option<Timestamp>,
        (start, end): (Option<Timestamp>, Timestamp),
    ) {
        if let Some(reader) = self.ended_runs.get() {
            // Fails when too many wait.
            let _ = reader.try_send(key.clone());
        }
        let Some(start) = start else { return };
        let label = DagLabel { dag_id: key.dag_id.clone() };
        let family = if state == RunState::Success { &self.succeeded } else { &self.failed };
        family.get_or_create(&label).observe(end.duration_since(start).as_secs_f64().max(0.0));
        if let Some(due_at) = due_at {
            self.delays.get_or_create(&label).observe(start.duration_since(due_at).as_secs_f64().max(0.0));
        }
    }
}
