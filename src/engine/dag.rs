//! What parsing gives: the structure of a DAG, as it is stored in a version.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// A DAG. Versions that an older Leoflow stored may lack what was added since.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Structure {
    pub dag_id: String,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub doc_md: Option<String>,
    /// As people read it: a cron expression, a preset, an interval; none when only triggered by hand.
    #[serde(default)]
    pub schedule: Option<String>,
    #[serde(default)]
    pub start_date: Option<String>,
    #[serde(default)]
    pub end_date: Option<String>,
    #[serde(default)]
    pub catchup: bool,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    pub params: Map<String, Value>,
    #[serde(default)]
    pub owners: Vec<String>,
    /// Runs at once; 0 is no limit.
    #[serde(default = "sixteen")]
    pub max_active_runs: u32,
    /// Tasks at once in one run; 0 is no limit.
    #[serde(default = "sixteen")]
    pub max_active_tasks: u32,
    #[serde(default)]
    pub is_paused_upon_creation: Option<bool>,
    /// Each after those that it waits for.
    #[serde(default)]
    pub tasks: Vec<Task>,
}

fn sixteen() -> u32 {
    16
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    pub task_id: String,
    /// The operator's class, and what people call it.
    pub operator: String,
    #[serde(default)]
    pub operator_name: String,
    #[serde(default)]
    pub upstream: Vec<String>,
    #[serde(default)]
    pub retries: u32,
    /// Seconds.
    #[serde(default)]
    pub retry_delay: f64,
    /// Seconds.
    #[serde(default)]
    pub execution_timeout: Option<f64>,
    #[serde(default)]
    pub owner: String,
    #[serde(default)]
    pub doc_md: Option<String>,
}

impl Task {
    /// Airflow's scheduler ends these itself; they never run.
    pub fn is_empty(&self) -> bool {
        self.operator == "EmptyOperator"
    }
}

/// The arrows of a DAG, by place in its list of tasks.
#[derive(Debug)]
pub struct Graph {
    pub structure: Structure,
    places: HashMap<String, usize>,
    upstream: Vec<Vec<usize>>,
    is_leaf: Vec<bool>,
}

impl Graph {
    pub fn new(structure: Structure) -> Self {
        let places: HashMap<String, usize> =
            structure.tasks.iter().enumerate().map(|(place, task)| (task.task_id.clone(), place)).collect();
        let mut is_leaf = vec![true; structure.tasks.len()];
        let mut upstream = Vec::with_capacity(structure.tasks.len());
        for task in &structure.tasks {
            let up: Vec<usize> = task.upstream.iter().filter_map(|id| places.get(id).copied()).collect();
            up.iter().for_each(|place| is_leaf[*place] = false);
            upstream.push(up);
        }
        Self { structure, places, upstream, is_leaf }
    }

    pub fn len(&self) -> usize {
        self.structure.tasks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.structure.tasks.is_empty()
    }

    pub fn place(&self, task_id: &str) -> Option<usize> {
        self.places.get(task_id).copied()
    }

    pub fn task(&self, place: usize) -> &Task {
        &self.structure.tasks[place]
    }

    pub fn upstream(&self, place: usize) -> &[usize] {
        &self.upstream[place]
    }

    /// Whether no other task waits for it.
    pub fn is_leaf(&self, place: usize) -> bool {
        self.is_leaf[place]
    }
}
