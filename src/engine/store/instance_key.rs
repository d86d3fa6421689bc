//! The key of a task instance, or of a try, in SQL: the only place that names its columns one by one. A statement has
//! the parameters of a key after all others, so that their numbers do not depend on the number of columns.

use crate::model::keys::{InstanceKey, MAX_MAPPED_IN_LOOP, Position, TryKey};
use tokio_postgres::types::ToSql;

type Parameter<'a> = &'a (dyn ToSql + Sync);

/// The columns of the key of a task instance.
pub(crate) const KEY: &str = "dag_id, run_id, task_id, map_index";
/// The columns of the key of a try.
pub(crate) const TRY_KEY: &str = "dag_id, run_id, task_id, map_index, try_number";

/// SQL condition on a row of a table with such a key: the instance is in a loop; see [`Position`].
pub(crate) const IN_LOOP: &str = "(map_index < -1)";

/// SQL expression: the loop that contains the task of a row of `alias`, in the version `v`.
pub(crate) fn loop_id(alias: &str) -> String {
    format!(
        "(CASE WHEN {alias}.map_index < -1 THEN (
              SELECT task->>'loop' FROM jsonb_array_elements(v.structure->'tasks') AS task
              WHERE task->>'task_id' = {alias}.task_id) END)"
    )
}

/// SQL expression: the map index of a position, also in a loop; see [`Position`].
pub(crate) fn map_index_of(column: &str) -> String {
    format!("(CASE WHEN {column} < -1 THEN ({column} & {MAX_MAPPED_IN_LOOP}) - 1 ELSE {column} END)")
}

/// The columns of a key, each with the name of its type.
pub(crate) struct SqlKey(&'static [(&'static str, &'static str)]);

pub(crate) const INSTANCE: SqlKey =
    SqlKey(&[("dag_id", "text"), ("run_id", "text"), ("task_id", "text"), ("map_index", "integer")]);
pub(crate) const TRY: SqlKey = SqlKey(&[
    ("dag_id", "text"),
    ("run_id", "text"),
    ("task_id", "text"),
    ("map_index", "integer"),
    ("try_number", "integer"),
]);

impl SqlKey {
    /// The columns of a table's alias.
    pub fn of(&self, alias: &str) -> String {
        self.join(|_, column, _| format!("{alias}.{column}"))
    }

    /// Condition: the rows of two aliases have the same key.
    pub fn same(&self, left: &str, right: &str) -> String {
        format!("({}) = ({})", self.of(left), self.of(right))
    }

    /// The numbers of the key's parameters, the first of which is `first`.
    pub fn parameters(&self, first: usize) -> String {
        self.join(|index, _, _| format!("${}", first + index))
    }

    /// Condition: the row of an alias has the key that the parameters from `first` on are.
    pub fn is(&self, alias: &str, first: usize) -> String {
        format!("({}) = ({})", self.of(alias), self.parameters(first))
    }

    /// The numbers of the parameters of [`KeyColumns`], the first of which is `first`.
    pub fn arrays(&self, first: usize) -> String {
        self.join(|index, _, kind| format!("${}::{kind}[]", first + index))
    }

    /// [`KeyColumns`] as a table of keys.
    pub fn unnest(&self, first: usize) -> String {
        format!("unnest({})", self.arrays(first))
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    fn join(&self, part: impl Fn(usize, &str, &str) -> String) -> String {
        let parts = self.0.iter().enumerate().map(|(index, (column, kind))| part(index, column, kind));
        parts.collect::<Vec<_>>().join(", ")
    }
}

impl InstanceKey {
    /// The parameters of a statement: the others, then those of the key.
    pub(crate) fn after<'a>(&'a self, others: &[Parameter<'a>]) -> Vec<Parameter<'a>> {
        let Self { run, task_id, position } = self;
        [others, &[&run.dag_id, &run.run_id, task_id, position]].concat()
    }
}

impl TryKey {
    /// The parameters of a statement: the others, then those of the key.
    pub(crate) fn after<'a>(&'a self, others: &[Parameter<'a>]) -> Vec<Parameter<'a>> {
        let mut parameters = self.instance.after(others);
        parameters.push(&self.try_number);
        parameters
    }
}

/// Keys of task instances as one array per column, for `unnest`.
pub(crate) struct KeyColumns<'a> {
    dags: Vec<&'a str>,
    runs: Vec<&'a str>,
    tasks: Vec<&'a str>,
    positions: Vec<Position>,
}

impl<'a> KeyColumns<'a> {
    pub fn new(keys: impl IntoIterator<Item = &'a InstanceKey>) -> Self {
        let mut columns = Self { dags: vec![], runs: vec![], tasks: vec![], positions: vec![] };
        for InstanceKey { run, task_id, position } in keys {
            columns.dags.push(&run.dag_id);
            columns.runs.push(&run.run_id);
            columns.tasks.push(task_id);
            columns.positions.push(*position);
        }
        columns
    }

    /// The parameters of a statement: the others, then these columns.
    pub fn after<'b>(&'b self, others: &[Parameter<'b>]) -> Vec<Parameter<'b>> {
        [others, &[&self.dags, &self.runs, &self.tasks, &self.positions]].concat()
    }
}
