//! Keys of requests that are carried out once, although their client repeats them when the answer is lost.

use super::Result;
use deadpool_postgres::Transaction;

/// Whether a request was carried out before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    First,
    Repeated,
}

/// Records a key, which the client chooses at random for each request. The transaction must be the one that carries out
/// the request: a request that fails leaves no key, and one that is repeated while it is carried out waits for its end.
/// Keys are deleted after a week; a client gives up within minutes, but the machine may sleep meanwhile.
pub async fn record(transaction: &Transaction<'_>, key: &str) -> Result<Attempt> {
    let query = "
        WITH expired AS (
            DELETE FROM request_key WHERE key IN (
                SELECT key FROM request_key WHERE created_at < now() - interval '7 days' FOR UPDATE SKIP LOCKED))
        INSERT INTO request_key (key) VALUES ($1) ON CONFLICT DO NOTHING";
    match transaction.execute(query, &[&key]).await? {
        0 => Ok(Attempt::Repeated),
        _ => Ok(Attempt::First),
    }
}
