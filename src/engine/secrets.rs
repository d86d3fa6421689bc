//! The values of Connections and Variables that nobody is to see where something else is shown.

use super::connections;
use super::store::{ALL, StoreError};
use super::variables;
use crate::auth::cipher::Cipher;
use crate::auth::masking::{Masker, is_sensitive};
use serde_json::Value;
use tokio_postgres::GenericClient;

/// All that are stored now: passwords, and what is secret by its name.
pub async fn stored(client: &impl GenericClient, cipher: &Cipher) -> Result<Masker, StoreError> {
    let mut masker = Masker::default();
    for connection in connections::list(client, cipher, &ALL).await?.0 {
        connection.password.iter().for_each(|password| masker.add(password));
        if let Some(Ok(extra)) = connection.extra.as_deref().map(serde_json::from_str::<Value>) {
            masker.add_named("extra", &extra);
        }
    }
    for variable in variables::list(client, cipher, &ALL).await?.0 {
        match serde_json::from_str::<Value>(&variable.value) {
            Ok(value @ (Value::Object(_) | Value::Array(_))) => masker.add_named(&variable.key, &value),
            _ if is_sensitive(&variable.key) => masker.add(&variable.value),
            _ => {}
        }
    }
    Ok(masker)
}
