//! The connections of the scheduler and the agent: how their statements are planned, and when their commits reach the disk.

use super::Result;
use super::rows::execute;
use deadpool_postgres::{ClientWrapper, Transaction};
use leoflow_postgres::{Endpoint, GenericClient};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_postgres::Config;

/// Prefers index scans. Without statistics, which a table gets about a minute after its first rows, Postgres would read all
/// task instances. A bitmap scan would visit the index entries of their earlier states each time until the next vacuum; an
/// index scan marks them at the first visit.
const PREFER_INDEXES: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off";

/// Connects, and listens on the channel.
pub async fn listen(
    endpoint: &Endpoint,
    config: &Config,
    channel: &str,
) -> Result<(ClientWrapper, UnboundedReceiver<String>)> {
    let (client, events) = endpoint.listen(config, channel).await?;
    client.batch_execute(PREFER_INDEXES).await?;
    Ok((client, events))
}

/// Makes the commit of a transaction not wait for the disk, for changes that would be made again after a crash of Postgres
/// or of the machine. A commit that follows from it reaches the disk after it.
pub(crate) async fn defer_flush(transaction: &Transaction<'_>) -> Result<()> {
    execute(transaction, "SET LOCAL synchronous_commit = off", &[]).await
}

/// Runs statements whose commits do not wait for the disk, and then waits for all of them.
pub(crate) async fn flush_once<T>(client: &impl GenericClient, statements: impl Future<Output = T>) -> Result<T> {
    execute(client, "SET synchronous_commit = off", &[]).await?;
    let done = statements.await;
    execute(client, "RESET synchronous_commit", &[]).await?;
    flush(client).await?;
    Ok(done)
}

/// Waits until all commits are on the disk: that of a message flushes those before it.
pub async fn flush(client: &impl GenericClient) -> Result<()> {
    execute(client, "SELECT pg_logical_emit_message(true, 'leoflow', 'flush')", &[]).await
}
