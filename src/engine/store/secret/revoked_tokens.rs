//! API tokens that were revoked by logout.

use crate::store::StoreError;
use crate::store::run::new_run;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;

/// Hashes of revoked tokens that have not expired, and when they expire.
pub async fn all(client: &impl GenericClient) -> Result<Vec<(Vec<u8>, Timestamp)>, StoreError> {
    let query = "SELECT token_hash, expires_at FROM revoked_token WHERE expires_at > $1";
    let rows = client.query(query, &[&new_run::now()]).await?;
    Ok(rows.iter().map(|row| (row.get("token_hash"), row.get("expires_at"))).collect())
}

/// Revokes a token by its hash, and deletes expired entries.
pub async fn add(client: &impl GenericClient, hash: &[u8], expires_at: Timestamp) -> Result<(), StoreError> {
    client.execute("DELETE FROM revoked_token WHERE expires_at <= $1", &[&new_run::now()]).await?;
    let query = "INSERT INTO revoked_token (token_hash, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    client.execute(query, &[&hash, &expires_at]).await?;
    Ok(())
}
