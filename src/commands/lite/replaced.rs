//! What a restore replaces and what it brings, in a few numbers that a user knows.

use crate::backup::dump;
use crate::backup::{Manifest, left_behind};
use crate::commands::context::Context;
use crate::error::Error;
use crate::recovery::datastore::Datastore;
use crate::schema::{self, classify};
use serde::Serialize;
use std::collections::BTreeMap;

/// One state of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    instance: Option<String>,
    /// When it was taken; `None` for what is there now.
    taken_at: Option<String>,
    leoflow_version: Option<String>,
    schema_version: i64,
    newest_run: Option<String>,
    pub rows: BTreeMap<String, i64>,
    /// Objects and rights that backups do not contain: views of the user's own, rights of other roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_behind: Vec<String>,
}

/// Tables that users know by name.
const SHOWN: [(&str, &str); 5] =
    [("dag", "DAGs"), ("dag_run", "runs"), ("xcom", "XComs"), ("variable", "variables"), ("connection", "connections")];

impl Summary {
    pub fn nothing() -> Self {
        Self::default()
    }

    pub fn of(manifest: &Manifest) -> Self {
        Self {
            instance: Some(manifest.instance.clone()),
            taken_at: Some(manifest.created_at.clone()),
            leoflow_version: Some(manifest.leoflow_version.clone()),
            schema_version: manifest.schema_version,
            newest_run: None,
            rows: manifest.tables.clone(),
            left_behind: Vec::new(),
        }
    }
}

/// Of the instance that is there.
pub async fn summary(context: &Context<'_>, datastore: &Datastore) -> Result<Summary, Error> {
    let client = datastore.connect().await?;
    let found = schema::inspect(&client).await?;
    let rows = dump::count_all(&client).await?;
    let newest_run = match rows.get("dag_run") {
        Some(1..) => {
            let query =
                "SELECT to_char(max(queued_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') FROM dag_run";
            client.query_one(query, &[]).await.map_err(crate::postgres::PgError::from)?.get(0)
        }
        _ => None,
    };
    let config = context.config()?.map(|loaded| loaded.config);
    Ok(Summary {
        instance: config.and_then(|config| config.instance_name),
        taken_at: None,
        leoflow_version: Some(context.version.to_owned()),
        schema_version: classify::database_version(&found),
        newest_run,
        rows,
        // A plan that cannot name them is no reason not to restore.
        left_behind: left_behind(&client, datastore.access.is_ours()).await.unwrap_or_default(),
    })
}

/// The first of many names, and how many more there are; `None` without any.
pub fn named(all: &[String]) -> Option<String> {
    let names: Vec<String> = all.iter().take(NAMED).map(|name| name.escape_debug().to_string()).collect();
    match (names.is_empty(), all.len() - names.len()) {
        (true, _) => None,
        (false, 0) => Some(names.join(", ")),
        (false, more) => Some(format!("{} and {more} more", names.join(", "))),
    }
}

/// As many as a message lists.
const NAMED: usize = 20;

/// On one line.
pub fn in_words(summary: &Summary) -> String {
    if summary.schema_version == 0 {
        return "an empty instance".to_owned();
    }
    let mut parts = vec![summary.instance.clone().unwrap_or_else(|| "an instance without a name".to_owned())];
    if let Some(at) = &summary.taken_at {
        parts.push(format!("of {at}"));
    }
    if let Some(version) = &summary.leoflow_version {
        parts.push(format!("leoflow {version}"));
    }
    parts.push(format!("schema {}", summary.schema_version));
    for (table, name) in SHOWN {
        parts.push(format!("{} {name}", summary.rows.get(table).unwrap_or(&0)));
    }
    if let Some(run) = &summary.newest_run {
        parts.push(format!("the newest run of {run}"));
    }
    parts.join(", ")
}

/// What has come and gone between two counts, in words: `3 more in dag_run`.
pub fn changes(then: &BTreeMap<String, i64>, now: &BTreeMap<String, i64>) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| {
            let (then, now) = (then.get(name).unwrap_or(&0), now.get(name).unwrap_or(&0));
            match now - then {
                0 => None,
                more @ 1.. => Some(format!("{more} row(s) more in {name}")),
                fewer => Some(format!("{} row(s) fewer in {name}", -fewer)),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_by_table() {
        let rows = |list: &[(&str, i64)]| list.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect();
        let (then, now) = (rows(&[("a", 1), ("b", 2), ("c", 3)]), rows(&[("a", 1), ("b", 5), ("d", 1)]));
        assert_eq!(changes(&then, &now), ["3 row(s) more in b", "3 row(s) fewer in c", "1 row(s) more in d"]);
    }
}
