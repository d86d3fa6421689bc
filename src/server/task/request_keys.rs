//! The header `Idempotency-Key`: tasks and triggers repeat a request whose answer was lost.
//! <https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>

use crate::http::api_error::ApiError;
use axum::http::HeaderMap;
use deadpool_postgres::Transaction;
use leoflow_engine::store::request_keys::{self, Attempt};

const HEADER: &str = "idempotency-key";
/// Longest accepted key, in bytes.
const MAX_KEY_BYTES: usize = 100;

/// Records the key of a request in the transaction that carries it out. A request without a key counts as the first:
/// tasks of an older release send none.
pub async fn record(transaction: &Transaction<'_>, headers: &HeaderMap) -> Result<Attempt, ApiError> {
    let Some(key) = headers.get(HEADER) else { return Ok(Attempt::First) };
    match key.to_str() {
        Ok(key) if key.len() <= MAX_KEY_BYTES => Ok(request_keys::record(transaction, key).await?),
        _ => {
            let detail = format!("The header Idempotency-Key must have at most {MAX_KEY_BYTES} ASCII characters");
            Err(ApiError::bad_request(detail))
        }
    }
}
