//! Identifiers of runs, task instances and tries.

use leoflow_base::home::Home;
use leoflow_base::protocol::task_log;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// The map index of a task that is not mapped, as in Airflow.
pub const NOT_MAPPED: i32 = -1;

/// Which of a task's instances in a run: the one of a map index, of an iteration of a loop, or of both.
///
/// Stored as one integer, in the columns `map_index`, so that keys are the same with and without loops. Outside of loops
/// it is the map index. In a loop it is below -1: the iteration is in the upper bits, and the map index plus 1 in the lower
/// 16 bits, so that the order is by iteration, then by map index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "PositionParts", into = "PositionParts")]
pub struct Position(i32);

/// A position in JSON. Outside of loops it is that of earlier releases.
#[derive(Serialize, Deserialize)]
struct PositionParts {
    map_index: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iteration: Option<i32>,
}

impl From<Position> for PositionParts {
    fn from(position: Position) -> Self {
        Self { map_index: position.map_index(), iteration: position.iteration() }
    }
}

/// A position that cannot exist.
#[derive(Debug, thiserror::Error)]
#[error("no task instance has the iteration {iteration:?} and the map index {map_index}")]
struct UnknownPosition {
    iteration: Option<i32>,
    map_index: i32,
}

impl TryFrom<PositionParts> for Position {
    type Error = UnknownPosition;

    fn try_from(PositionParts { map_index, iteration }: PositionParts) -> Result<Self, UnknownPosition> {
        Self::checked(iteration, map_index).ok_or(UnknownPosition { iteration, map_index })
    }
}

/// Number of lower bits of a position in a loop, for the map index.
const MAP_INDEX_BITS: u32 = 16;
/// Maximum number of iterations of a loop.
pub const MAX_ITERATIONS: i32 = (1 << (31 - MAP_INDEX_BITS)) - 1;
/// Maximum number of instances of a mapped task in an iteration of a loop.
pub(crate) const MAX_MAPPED_IN_LOOP: usize = (1 << MAP_INDEX_BITS) - 1;

impl Position {
    /// That of the only instance of a task.
    pub const ONLY: Self = Self(NOT_MAPPED);

    pub fn mapped(map_index: i32) -> Self {
        Self(map_index)
    }

    /// Checks what comes from outside: `None` if there is no such position.
    pub fn checked(iteration: Option<i32>, map_index: i32) -> Option<Self> {
        let largest = if iteration.is_some() { MAX_MAPPED_IN_LOOP as i32 - 1 } else { i32::MAX };
        let exists = iteration.is_none_or(|iteration| (0..MAX_ITERATIONS).contains(&iteration));
        (exists && (NOT_MAPPED..=largest).contains(&map_index)).then(|| Self::new(iteration, map_index))
    }

    /// `iteration` is below [`MAX_ITERATIONS`], `map_index` below [`MAX_MAPPED_IN_LOOP`].
    pub fn in_loop(iteration: i32, map_index: i32) -> Self {
        Self(i32::MIN + (iteration << MAP_INDEX_BITS) + (map_index + 1))
    }

    pub fn new(iteration: Option<i32>, map_index: i32) -> Self {
        iteration.map_or(Self(map_index), |iteration| Self::in_loop(iteration, map_index))
    }

    pub fn from_stored(stored: i32) -> Self {
        Self(stored)
    }

    /// The first and the last position in an iteration of a loop.
    pub fn bounds_of(iteration: i32) -> [Self; 2] {
        [NOT_MAPPED, MAX_MAPPED_IN_LOOP as i32 - 1].map(|map_index| Self::in_loop(iteration, map_index))
    }

    /// The stored integer.
    pub fn stored(self) -> i32 {
        self.0
    }

    /// The iteration of the loop, from 0; `None` outside of loops.
    pub fn iteration(self) -> Option<i32> {
        (self.0 < NOT_MAPPED).then(|| (self.0 - i32::MIN) >> MAP_INDEX_BITS)
    }

    /// `NOT_MAPPED` for a task that is not mapped.
    pub fn map_index(self) -> i32 {
        match self.0 < NOT_MAPPED {
            true => (self.0 & MAX_MAPPED_IN_LOOP as i32) - 1,
            false => self.0,
        }
    }

    /// The name of the folder for the instance's logs: `3`, or `0_3` in the iteration 0 of a loop.
    pub fn file_name(self) -> String {
        let map_index = self.map_index();
        self.iteration().map_or_else(|| map_index.to_string(), |iteration| format!("{iteration}_{map_index}"))
    }

    /// The same iteration with another map index.
    pub fn with_map_index(self, map_index: i32) -> Self {
        Self::new(self.iteration(), map_index)
    }
}

/// What follows the task's id in the name of an instance: `[3]`, `@0` in the iteration 0 of a loop, both, or nothing.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.map_index() >= 0 {
            write!(f, "[{}]", self.map_index())?;
        }
        self.iteration().map_or(Ok(()), |iteration| write!(f, "@{iteration}"))
    }
}

/// Identifies a DAG run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunKey {
    pub dag_id: String,
    pub run_id: String,
}

/// Identifies a task instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InstanceKey {
    #[serde(flatten)]
    pub run: RunKey,
    pub task_id: String,
    #[serde(flatten)]
    pub position: Position,
}

impl InstanceKey {
    pub fn new(run: RunKey, task_id: &str, position: Position) -> Self {
        Self { run, task_id: task_id.to_owned(), position }
    }

    /// The only instance of a task.
    pub fn only(run: RunKey, task_id: &str) -> Self {
        Self::new(run, task_id, Position::ONLY)
    }

    /// The folder with the logs of all tries.
    pub fn log_folder(&self, home: &Home) -> PathBuf {
        task_log::folder_of_task(home, &self.run.dag_id, &self.run.run_id, &self.task_id)
            .join(self.position.file_name())
    }
}

/// Identifies one try of a task instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TryKey {
    #[serde(flatten)]
    pub instance: InstanceKey,
    pub try_number: i32,
}

impl TryKey {
    /// The file with the first part of the try's log.
    pub fn log_path(&self, home: &Home) -> PathBuf {
        self.instance.log_folder(home).join(format!("{}.log", self.try_number))
    }
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}{} of {}", self.run.dag_id, self.task_id, self.position, self.run.run_id)
    }
}

impl fmt::Display for TryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, try {}", self.instance, self.try_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_in_loops_are_one_ordered_integer() {
        let last = MAX_MAPPED_IN_LOOP as i32 - 1;
        let parts =
            [(0, -1), (0, 0), (0, last), (1, -1), (7, 12), (MAX_ITERATIONS - 1, -1), (MAX_ITERATIONS - 1, last)];
        let positions = parts.map(|(iteration, map_index)| Position::in_loop(iteration, map_index));
        assert!(positions.is_sorted() && positions.iter().all(|position| *position < Position::ONLY));
        assert_eq!(positions.map(|position| (position.iteration().unwrap(), position.map_index())), parts);
        let outside = [Position::ONLY, Position::mapped(0), Position::mapped(100_000)];
        assert_eq!(
            outside.map(|position| (position.iteration(), position.map_index())),
            [(None, -1), (None, 0), (None, 100_000)]
        );
    }
}
