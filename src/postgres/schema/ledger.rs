//! Reads the database's migration records. Everything is read as text, because the content may be arbitrary.

use super::SchemaError;
use super::embedded::known;
use super::schema_state::{HistoryRow, LedgerRow, SchemaRecords, database_version};
use crate::PgError;
use tokio_postgres::{GenericClient, Row};

/// How often the records are read until both tables have the same versions.
const READS: usize = 4;

/// Reads the records. Read-only. A migration that another process commits between the reads of the two tables is in one
/// of them only, so they are read again; versions that still differ are damage.
pub async fn inspect(client: &impl GenericClient) -> Result<SchemaRecords, SchemaError> {
    let mut records = read_records(client).await?;
    for _ in 1..READS {
        if has_same_versions(&records) {
            break;
        }
        records = read_records(client).await?;
    }
    Ok(records)
}

/// The database's schema version.
pub async fn current_version(client: &impl GenericClient) -> Result<i64, SchemaError> {
    Ok(database_version(&inspect(client).await?))
}

fn has_same_versions(records: &SchemaRecords) -> bool {
    let (Some(history), Some(ledger)) = (&records.history, &records.ledger) else { return true };
    let mut applied: Vec<Option<i64>> = history.iter().map(|row| row.version).collect();
    let mut recorded: Vec<Option<i64>> = ledger.iter().map(|row| Some(row.version)).collect();
    applied.sort_unstable();
    recorded.sort_unstable();
    applied == recorded
}

async fn read_records(client: &impl GenericClient) -> Result<SchemaRecords, SchemaError> {
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
    let mut records = SchemaRecords { has_tables: tables.get(2), ..SchemaRecords::default() };
    if has_history {
        let query = "SELECT version::text, name::text, applied_on::text, checksum::text
                     FROM public.refinery_schema_history ORDER BY 1";
        records.history =
            rows_or_damage(client.query(query, &[]).await, "refinery_schema_history", &mut records)?.map(parse_history);
    }
    if has_ledger {
        let query = "SELECT version::text, sha256::text FROM public.leoflow_ledger ORDER BY 1";
        records.ledger =
            rows_or_damage(client.query(query, &[]).await, "leoflow_ledger", &mut records)?.map(parse_ledger);
    }
    Ok(records)
}

/// The rows of a record table. A table without the expected columns is recorded as damage instead of an error.
fn rows_or_damage(
    rows: Result<Vec<Row>, tokio_postgres::Error>,
    table: &str,
    records: &mut SchemaRecords,
) -> Result<Option<Vec<Row>>, SchemaError> {
    match rows {
        Ok(rows) => Ok(Some(rows)),
        Err(error) if error.as_db_error().is_some() => {
            records.unreadable = Some(format!("{table} cannot be read: {}", PgError::from(error)));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn parse_history(rows: Vec<Row>) -> Vec<HistoryRow> {
    rows.iter()
        .map(|row| HistoryRow {
            version: row.get::<_, Option<String>>(0).and_then(|text| text.parse().ok()),
            name: row.get(1),
            applied_on: row.get(2),
            checksum: row.get(3),
        })
        .collect()
}

fn parse_ledger(rows: Vec<Row>) -> Vec<LedgerRow> {
    rows.iter()
        .filter_map(|row| {
            let version = row.get::<_, Option<String>>(0)?.parse().ok()?;
            Some(LedgerRow { version, sha256: row.get::<_, Option<String>>(1).unwrap_or_default() })
        })
        .collect()
}

/// The applied versions with the sha256 of their files, oldest first.
pub fn applied(records: &SchemaRecords) -> Vec<(i64, String)> {
    let rows = records.ledger.iter().flatten();
    let mut applied: Vec<(i64, String)> = rows.map(|row| (row.version, row.sha256.clone())).collect();
    applied.sort_unstable();
    applied
}

/// The release that applied the newest migration; `None` without one.
pub async fn newest_release(client: &impl GenericClient) -> Result<Option<String>, SchemaError> {
    let query = "SELECT binary_version::text FROM public.leoflow_ledger ORDER BY version DESC LIMIT 1";
    Ok(client.query_opt(query, &[]).await?.and_then(|row| row.get(0)))
}

/// A migration as stored in the ledger: enough to undo it without its file.
#[derive(Debug, Clone)]
pub struct Undoable {
    pub version: i64,
    pub name: String,
    pub rollback_sql: Option<String>,
}

impl Undoable {
    /// The name with the version: `V0013__name`.
    pub(super) fn label(&self) -> String {
        format!("V{:04}__{}", self.version, self.name)
    }
}

/// Replaces the stored name, phase and rollback SQL of every known migration with this binary's own: a restored
/// database may hold arbitrary SQL there, which a later rollback would run as the database's owner.
pub async fn own_rollbacks(client: &impl GenericClient) -> Result<(), SchemaError> {
    let update = "UPDATE public.leoflow_ledger SET name = $2::text, phase = $3::text, rollback_sql = $4::text
                  WHERE version::text = $1::text";
    for known in known() {
        let version = known.version.to_string();
        client.execute(update, &[&version, &known.name, &known.phase.name(), &known.rollback]).await?;
    }
    Ok(())
}

/// The applied migrations with a version greater than `above`, newest first.
pub async fn undoable(client: &impl GenericClient, above: i64) -> Result<Vec<Undoable>, SchemaError> {
    let query = "SELECT version, name, rollback_sql FROM public.leoflow_ledger
                 WHERE version::bigint > $1 ORDER BY version DESC";
    let rows = client.query(query, &[&above]).await?;
    let undoable =
        |row: &Row| Undoable { version: row.get::<_, i32>(0).into(), name: row.get(1), rollback_sql: row.get(2) };
    Ok(rows.iter().map(undoable).collect())
}
