//! Wakes other processes through Postgres's LISTEN and NOTIFY. A notification is only a hint: the receiver then reads
//! the tables to find its work. It also does so after each connect, so notifications lost with a connection do no harm.

use super::Result;
use super::rows::execute;
use crate::model::keys::RunKey;
use leoflow_postgres::GenericClient;
use serde::{Deserialize, Serialize};

/// A notification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// The run must be planned: a task may be able to start.
    Plan(RunKey),
    /// A queued run may be able to start, or a due run may be created.
    Sweep,
    /// The run has changed, so displays must be updated.
    Changed(RunKey),
    /// DAGs, import errors or many runs have changed, so runs may be able to start.
    Dags,
    /// Tasks were queued.
    Queued,
    /// Running tasks must be stopped.
    Stop,
    /// The set of triggers to run has changed.
    Triggers,
    /// A DAG of this environment has a new version, so a task of it may soon run.
    Prepare { environment: Option<String> },
    /// Pool slots or limits may have capacity for waiting tasks.
    #[serde(rename = "room")]
    Capacity,
    /// A DAG-level callback must be called.
    Callback,
    /// Assets have been updated.
    Assets,
    /// A notification must be delivered.
    Notification,
    /// A data migration was resumed, or has new rows.
    Migrations,
}

/// Channel of the scheduler and of the server, for its pages, callbacks and migrations.
pub const ENGINE: &str = "leoflow_engine";
/// Channel of the agent.
pub const AGENT: &str = "leoflow_agent";

impl Event {
    fn channel(&self) -> &'static str {
        match self {
            Self::Queued | Self::Stop | Self::Triggers | Self::Prepare { .. } => AGENT,
            _ => ENGINE,
        }
    }

    pub fn payload(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Returns `None` for a payload that this version does not know.
    pub fn parse(payload: &str) -> Option<Self> {
        serde_json::from_str(payload).ok()
    }
}

/// Sends the event when the current transaction commits; Postgres drops duplicates within a transaction.
pub async fn notify(client: &impl GenericClient, event: &Event) -> Result<()> {
    execute(client, "SELECT pg_notify($1, $2)", &[&event.channel(), &event.payload()]).await
}

/// Sends several events.
pub(crate) async fn notify_all(client: &impl GenericClient, events: &[Event]) -> Result<()> {
    for event in events {
        notify(client, event).await?;
    }
    Ok(())
}
