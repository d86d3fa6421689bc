//! Verifies that an encryption key (that of `config.yaml`, or that of a backup) is the one that this database was
//! written with, so that a wrong key is reported at startup or by a restore and not at the first secret that fails to
//! decrypt.

use crate::store::Result;
use leoflow_base::auth::cipher::{Cipher, CipherError};
use tokio_postgres::GenericClient;

/// Name of the row that stores `TEXT`, encrypted with the key.
const FACT: &str = "encryption_key_check";
const TEXT: &str = "leoflow";

/// Verifies the key. The first key that is used with this database is recorded. Fails with `CipherError::CannotOpen` if
/// the key is another one.
pub async fn check(client: &impl GenericClient, cipher: &Cipher) -> Result<()> {
    let sealed = cipher.seal(FACT, TEXT);
    let insert = "INSERT INTO instance_fact (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
    let select = "SELECT value FROM instance_fact WHERE name = $1";
    let row = match client.query_opt(select, &[&FACT]).await? {
        Some(row) => row,
        None => {
            client.execute(insert, &[&FACT, &sealed]).await?;
            client.query_one(select, &[&FACT]).await?
        }
    };
    match cipher.open(FACT, row.get(0)) {
        Ok(text) if text == TEXT => Ok(()),
        _ => Err(CipherError::CannotOpen.into()),
    }
}
