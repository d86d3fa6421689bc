//! Rows of `instance_fact` that describe the database itself. Works without the table.

use super::PgError;
use tokio_postgres::Client;

/// Reads a fact; `None` also if the table is missing, as in an empty database or before its migration.
pub async fn read(client: &Client, name: &str) -> Result<Option<Vec<u8>>, PgError> {
    if client.query_one("SELECT to_regclass('public.instance_fact') IS NULL", &[]).await?.get(0) {
        return Ok(None);
    }
    let row = client.query_opt("SELECT value FROM public.instance_fact WHERE name = $1", &[&name]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// SQL for a script that sets a fact if the table exists. `value` must not contain a dollar sign.
pub fn statement(name: &str, value: &str) -> String {
    let value = value.replace('\'', "''");
    format!(
        "DO $facts$ BEGIN IF pg_catalog.to_regclass('public.instance_fact') IS NOT NULL THEN \
         INSERT INTO public.instance_fact (name, value) VALUES ('{name}', pg_catalog.convert_to('{value}', 'UTF8')) \
         ON CONFLICT (name) DO UPDATE SET value = excluded.value; END IF; END $facts$"
    )
}
