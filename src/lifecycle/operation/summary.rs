//! Summaries of an instance's state for the plan of a restore: what it replaces and what it restores.

use super::open::Datastore;
use super::{OperationContext, OperationError};
use crate::backup::create::dump;
use crate::backup::{Manifest, not_restored};
use leoflow_base::counted::counted;
use leoflow_engine::store::run::runs;
use leoflow_postgres::schema;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The summary of a state of an instance; by default, of an empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    instance: Option<String>,
    /// Time of the backup; `None` for the current state.
    taken_at: Option<String>,
    leoflow_version: Option<String>,
    schema_version: i64,
    newest_run: Option<String>,
    /// Number of rows by table.
    pub rows: BTreeMap<String, i64>,
    /// The tries that ran when the backup was made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub running_tries: Vec<String>,
    /// Objects and rights that backups do not contain: the user's own views, rights of other roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_behind: Vec<String>,
}

/// Tables shown in a summary, with their names for users.
const SHOWN_TABLES: [(&str, &str); 5] =
    [("dag", "DAG"), ("dag_run", "run"), ("xcom", "XCom"), ("variable", "variable"), ("connection", "connection")];

impl Summary {
    /// The summary of a backup.
    pub fn of(manifest: &Manifest) -> Self {
        Self {
            instance: Some(manifest.instance.clone()),
            taken_at: Some(manifest.created_at.clone()),
            leoflow_version: Some(manifest.leoflow_version.clone()),
            schema_version: manifest.schema_version,
            newest_run: None,
            rows: manifest.tables.clone(),
            running_tries: manifest.running.clone(),
            left_behind: Vec::new(),
        }
    }

    /// Summarizes the current state of the instance.
    pub async fn of_current(context: &OperationContext<'_>, datastore: &Datastore) -> Result<Self, OperationError> {
        let client = datastore.connect().await?;
        let schema_records = schema::inspect(&client).await?;
        let rows = datastore.access.explain(dump::count_all(&client).await).await?;
        let newest_run = match rows.get("dag_run") {
            Some(1..) => runs::newest_queued_at(&client).await?,
            _ => None,
        };
        Ok(Self {
            instance: context.config()?.and_then(|loaded| loaded.config.instance_name),
            taken_at: None,
            leoflow_version: Some(context.version.to_owned()),
            schema_version: schema::database_version(&schema_records),
            newest_run,
            rows,
            running_tries: Vec::new(),
            // A failure to list these objects must not prevent a restore.
            left_behind: not_restored(&client, &datastore.access).await.unwrap_or_default(),
        })
    }

    /// Formats the summary on one line. `format_time` formats an RFC 3339 time for the user.
    pub fn describe(&self, format_time: FormatTime<'_>) -> String {
        if self.schema_version == 0 {
            return "an empty instance".to_owned();
        }
        let mut parts = vec![self.instance.clone().unwrap_or_else(|| "an unnamed instance".to_owned())];
        parts.extend(self.taken_at.as_deref().map(|time| format!("of {}", format_time(time))));
        parts.extend(self.leoflow_version.as_ref().map(|version| format!("leoflow {version}")));
        parts.push(format!("schema {}", self.schema_version));
        for (table, name) in SHOWN_TABLES {
            parts.push(counted(self.rows.get(table).unwrap_or(&0), name));
        }
        parts.extend(self.newest_run.as_deref().map(|time| format!("newest run {}", format_time(time))));
        parts.join(", ")
    }
}

/// Formats an RFC 3339 time for the user.
pub type FormatTime<'a> = &'a (dyn Fn(&str) -> String + Sync);

/// Lists the first names and the number of others; `None` for an empty list.
pub fn list_names(all_names: &[String]) -> Option<String> {
    let names: Vec<String> = all_names.iter().take(MAX_NAMES).map(|name| name.escape_debug().to_string()).collect();
    match (names.is_empty(), all_names.len() - names.len()) {
        (true, _) => None,
        (false, 0) => Some(names.join(", ")),
        (false, surplus) => Some(format!("{} and {surplus} more", names.join(", "))),
    }
}

/// Maximum number of names in a message.
const MAX_NAMES: usize = 20;

/// Describes the difference between two row counts: `3 more rows in dag_run`.
pub fn changes(before: &BTreeMap<String, i64>, after: &BTreeMap<String, i64>) -> Vec<String> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| {
            let (before, after) = (before.get(name).unwrap_or(&0), after.get(name).unwrap_or(&0));
            match after - before {
                0 => None,
                surplus @ 1.. => Some(format!("{} in {name}", counted(surplus, "more row"))),
                fewer => Some(format!("{} in {name}", counted(-fewer, "fewer row"))),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_changes_by_table() {
        let rows = |list: &[(&str, i64)]| list.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect();
        let (before, after) = (rows(&[("a", 1), ("b", 2), ("c", 3)]), rows(&[("a", 1), ("b", 5), ("d", 1)]));
        assert_eq!(changes(&before, &after), ["3 more rows in b", "3 fewer rows in c", "1 more row in d"]);
    }
}
