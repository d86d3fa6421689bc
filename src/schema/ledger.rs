//! Reading what the database records of its migrations. Everything is read as text, because it may
//! hold anything.

use super::SchemaError;
use super::classify::{Found, HistoryRow, LedgerRow, damage};
use super::embedded::known;
use crate::postgres::PgError;
use tokio_postgres::{GenericClient, Row};

/// The records as they are. Changes nothing.
pub async fn inspect(client: &impl GenericClient) -> Result<Found, SchemaError> {
    let tables = client
        .query_one(
            "SELECT to_regclass('public.refinery_schema_history') IS NOT NULL,
                    to_regclass('public.leoflow_ledger') IS NOT NULL,
                    EXISTS (SELECT FROM pg_tables WHERE schemaname = 'public'
                            AND tablename NOT IN ('refinery_schema_history', 'leoflow_ledger'))",
            &[],
        )
        .await?;
    let (has_history, has_ledger) = (tables.get::<_, bool>(0), tables.get::<_, bool>(1));
    let mut found = Found { has_tables: tables.get(2), ..Found::default() };
    if has_history {
        let query = "SELECT version::text, name::text, applied_on::text, checksum::text
                     FROM public.refinery_schema_history ORDER BY 1";
        found.history = readable(client.query(query, &[]).await, "refinery_schema_history", &mut found)?.map(history);
    }
    if has_ledger {
        let query = "SELECT version::text, sha256::text FROM public.leoflow_ledger ORDER BY 1";
        found.ledger = readable(client.query(query, &[]).await, "leoflow_ledger", &mut found)?.map(ledger);
    }
    Ok(found)
}

/// A table of that name that has not our columns is damage, not a failure of the question.
fn readable(
    rows: Result<Vec<Row>, tokio_postgres::Error>,
    table: &str,
    found: &mut Found,
) -> Result<Option<Vec<Row>>, SchemaError> {
    match rows {
        Ok(rows) => Ok(Some(rows)),
        Err(error) if error.as_db_error().is_some() => {
            found.unreadable = Some(format!("{table} cannot be read: {}", PgError::from(error)));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn history(rows: Vec<Row>) -> Vec<HistoryRow> {
    rows.iter()
        .map(|row| HistoryRow {
            version: row.get::<_, Option<String>>(0).and_then(|text| text.parse().ok()),
            name: row.get(1),
            applied_on: row.get(2),
            checksum: row.get(3),
        })
        .collect()
}

fn ledger(rows: Vec<Row>) -> Vec<LedgerRow> {
    rows.iter()
        .filter_map(|row| {
            let version = row.get::<_, Option<String>>(0)?.parse().ok()?;
            Some(LedgerRow { version, sha256: row.get::<_, Option<String>>(1).unwrap_or_default() })
        })
        .collect()
}

/// Versions with the sha256 of their files, oldest first; `Err` when the record is damaged.
pub fn applied(found: &Found) -> Result<Vec<(i64, String)>, String> {
    if let Some(reason) = damage(found) {
        return Err(reason);
    }
    let rows = found.ledger.iter().flatten();
    let mut applied: Vec<(i64, String)> = rows.map(|row| (row.version, row.sha256.clone())).collect();
    applied.sort_unstable();
    Ok(applied)
}

/// A migration as the ledger knows it: enough to undo it without its file.
#[derive(Debug, Clone)]
pub struct Undoable {
    pub version: i64,
    pub name: String,
    pub rollback_sql: Option<String>,
}

/// Makes the record carry this binary's own rollback of each migration that it knows: in a database that
/// came from elsewhere it may be anything, and a later rollback runs it as the owner of everything.
pub async fn own_rollbacks(client: &impl GenericClient) -> Result<(), SchemaError> {
    let update = "UPDATE public.leoflow_ledger SET name = $2::text, phase = $3::text, rollback_sql = $4::text
                  WHERE version::text = $1::text";
    for known in known() {
        let version = known.version.to_string();
        client.execute(update, &[&version, &known.name, &known.phase.name(), &known.rollback]).await?;
    }
    Ok(())
}

/// Every applied migration above `above`, newest first.
pub async fn undoable(client: &impl GenericClient, above: i64) -> Result<Vec<Undoable>, SchemaError> {
    let query = "SELECT version, name, rollback_sql FROM public.leoflow_ledger
                 WHERE version::bigint > $1 ORDER BY version DESC";
    let rows = client.query(query, &[&above]).await?;
    let undoable =
        |row: &Row| Undoable { version: row.get::<_, i32>(0).into(), name: row.get(1), rollback_sql: row.get(2) };
    Ok(rows.iter().map(undoable).collect())
}
