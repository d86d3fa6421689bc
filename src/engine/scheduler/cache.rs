//! State that the scheduler keeps in memory between transactions.

use super::file_sensors::FileSensors;
use super::live_run::{Graphs, LiveRuns};
use super::totals::Totals;
use crate::model::state::TaskState;
use crate::planner::pool_limits::Waiting;
use std::collections::HashSet;

#[derive(Default)]
pub struct Cache {
    pub graphs: Graphs,
    pub runs: LiveRuns,
    pub file_sensors: FileSensors,
    pub totals: Totals,
    /// Episodes of failures that may have begun: event and subject. Others have not, so that a success of something
    /// that did not fail before costs no statement.
    pub episodes: HashSet<(String, String)>,
}

impl Cache {
    /// Notes that instances of any runs were queued.
    pub fn mark_queued(&mut self, queued: &[Waiting]) {
        for waiting in queued {
            self.runs.set_state(&waiting.instance, TaskState::Queued);
        }
    }
}
