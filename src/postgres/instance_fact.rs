//! Rows of `instance_fact` that describe the database itself.

use super::PgError;
use tokio_postgres::GenericClient;

/// False in an empty database and before the table's migration.
pub(crate) async fn exist(client: &impl GenericClient) -> Result<bool, PgError> {
    Ok(client.query_one("SELECT to_regclass('public.instance_fact') IS NOT NULL", &[]).await?.get(0))
}

/// Reads a fact; `None` also if the table is missing.
pub async fn read(client: &impl GenericClient, name: &str) -> Result<Option<Vec<u8>>, PgError> {
    if !exist(client).await? {
        return Ok(None);
    }
    let row = client.query_opt("SELECT value FROM public.instance_fact WHERE name = $1", &[&name]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// Adds a fact; an existing one stays.
pub(crate) async fn add(client: &impl GenericClient, name: &str, value: &[u8]) -> Result<(), PgError> {
    let insert = "INSERT INTO public.instance_fact (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
    client.execute(insert, &[&name, &value]).await?;
    Ok(())
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
