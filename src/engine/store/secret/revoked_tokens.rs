//! API tokens that were revoked by logout.

use crate::store::Result;
use crate::store::rows::{execute, fetch_all};
use crate::store::run::new_run;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;

/// Hashes of revoked tokens that have not expired, and when they expire.
pub async fn all(client: &impl GenericClient) -> Result<Vec<(Vec<u8>, Timestamp)>> {
    let query = "SELECT token_hash, expires_at FROM revoked_token WHERE expires_at > $1";
    fetch_all(client, query, &[&new_run::now()]).await
}

/// Revokes a token by its hash, and deletes expired entries.
pub async fn add(client: &impl GenericClient, hash: &[u8], expires_at: Timestamp) -> Result<()> {
    client.execute("DELETE FROM revoked_token WHERE expires_at <= $1", &[&new_run::now()]).await?;
    let query = "INSERT INTO revoked_token (token_hash, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    execute(client, query, &[&hash, &expires_at]).await
}
