//! Whether the encryption key in `config.yaml` is the one this database was written with. Found
//! out at the start, not at the first secret that does not open.

use super::StoreError;
use crate::auth::cipher::{Cipher, CipherError};
use tokio_postgres::GenericClient;

const FACT: &str = "encryption_key_check";
const TEXT: &str = "leoflow";

/// Checks the key; the first one to be used is remembered.
pub async fn check(client: &impl GenericClient, cipher: &Cipher) -> Result<(), StoreError> {
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
