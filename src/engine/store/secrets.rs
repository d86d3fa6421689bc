//! The values of Connections and Variables that nobody is to see where something else is shown.

use super::StoreError;
use super::connections;
use super::listing::Listing;
use super::variables;
use crate::auth::cipher::Cipher;
use crate::auth::masking::{Masker, is_sensitive};
use crate::postgres::GenericClient;
use serde_json::Value;

/// All that are stored now: passwords, and what is secret by its name.
pub async fn stored(client: &impl GenericClient, cipher: &Cipher) -> Result<Masker, StoreError> {
    let mut masker = Masker::default();
    // What cannot be opened can be shown by nobody either.
    let readable = |error: StoreError| if let StoreError::Sealed { .. } = error { Ok(()) } else { Err(error) };
    match connections::list(client, cipher, Listing::default()).await {
        Ok(all) => all.rows.iter().for_each(|connection| {
            connection.password.iter().for_each(|password| masker.add(password));
            if let Some(Ok(extra)) = connection.extra.as_deref().map(serde_json::from_str::<Value>) {
                masker.add_named("extra", &extra);
            }
        }),
        Err(error) => readable(error)?,
    }
    match variables::list(client, cipher, Listing::default()).await {
        Ok(all) => all.rows.iter().for_each(|variable| add_variable(&mut masker, &variable.key, &variable.value)),
        Err(error) => readable(error)?,
    }
    Ok(masker)
}

/// All of one that is secret by its own name, else what is by the names inside of it.
fn add_variable(masker: &mut Masker, key: &str, value: &str) {
    let parsed = serde_json::from_str::<Value>(value).unwrap_or_default();
    if is_sensitive(key) {
        masker.add(value);
        masker.add_texts(&parsed);
    } else {
        masker.add_named(key, &parsed);
    }
}
