//! Secret values of Connections and Variables, which must be masked in logs and other output.

use super::{connections, variables};
use crate::store::Result;
use leoflow_base::auth::cipher::Cipher;
use leoflow_base::auth::masking::{Masker, is_sensitive};
use leoflow_postgres::GenericClient;
use serde_json::Value;

/// Returns a masker for all stored secrets: passwords, and values with a sensitive name.
pub async fn stored(client: &impl GenericClient, cipher: &Cipher) -> Result<Masker> {
    let mut masker = Masker::default();
    // A value that cannot be decrypted cannot leak, so it needs no masking.
    for connection in connections::all_readable(client, cipher).await? {
        connection.password.iter().for_each(|password| masker.add(password));
        if let Some(Ok(extra)) = connection.extra.as_deref().map(serde_json::from_str::<Value>) {
            masker.add_named("extra", &extra);
        }
    }
    for variable in variables::all_readable(client, cipher).await? {
        add_variable(&mut masker, &variable.key, &variable.value);
    }
    Ok(masker)
}

/// Masks the whole value of a variable with a sensitive key, otherwise the parts with sensitive names.
fn add_variable(masker: &mut Masker, key: &str, value: &str) {
    let parsed = serde_json::from_str::<Value>(value).unwrap_or_default();
    if is_sensitive(key) {
        masker.add(value);
        masker.add_texts(&parsed);
    } else {
        masker.add_named(key, &parsed);
    }
}
