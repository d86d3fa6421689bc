//! State that the scheduler keeps in memory between transactions.

use super::file_sensors::FileSensors;
use super::live_run::{Graphs, LiveRuns};
use crate::model::state::TaskState;
use crate::planner::pool_limits::Waiting;

#[derive(Default)]
pub struct Cache {
    pub graphs: Graphs,
    pub runs: LiveRuns,
    pub file_sensors: FileSensors,
}

impl Cache {
    /// Notes that instances of any runs were queued.
    pub fn mark_queued(&mut self, queued: &[Waiting]) {
        for waiting in queued {
            self.runs.set_state(&waiting.instance, TaskState::Queued);
        }
    }
}
