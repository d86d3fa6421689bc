//! Keys of task instances as parameters of SQL statements.

use crate::model::keys::InstanceKey;
use tokio_postgres::types::ToSql;

/// Instance keys as one array per column, for `unnest`.
pub(crate) struct KeyColumns<'a> {
    dags: Vec<&'a str>,
    runs: Vec<&'a str>,
    tasks: Vec<&'a str>,
    map_indexes: Vec<i32>,
}

impl<'a> KeyColumns<'a> {
    pub fn new(keys: impl IntoIterator<Item = &'a InstanceKey>) -> Self {
        let mut columns = Self { dags: vec![], runs: vec![], tasks: vec![], map_indexes: vec![] };
        for InstanceKey { run, task_id, map_index } in keys {
            columns.dags.push(&run.dag_id);
            columns.runs.push(&run.run_id);
            columns.tasks.push(task_id);
            columns.map_indexes.push(*map_index);
        }
        columns
    }

    pub fn parameters(&self) -> [&(dyn ToSql + Sync); 4] {
        [&self.dags, &self.runs, &self.tasks, &self.map_indexes]
    }
}
