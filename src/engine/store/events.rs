//! How the processes wake one another: Postgres's LISTEN and NOTIFY. A notification carries no
//! decision; whoever is woken looks at the tables, so one that is lost with its connection costs
//! nothing but the look that every new connection begins with.

use crate::engine::keys::RunKey;
use crate::postgres::GenericClient;
use serde::{Deserialize, Serialize};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// Something in this run may let something else begin.
    Plan(RunKey),
    /// A run may begin.
    Sweep,
    /// This run is not as it was; for those who show it.
    Changed(RunKey),
    /// The list of DAGs or import errors is not as it was, which may let runs begin.
    Dags,
    /// Tasks were queued.
    Queued,
    /// Running tasks are to be ended.
    Stop,
    /// What triggers wait for is not as it was.
    Triggers,
    /// There may be room for what waits for it.
    Room,
    /// A DAG's own callback is to be called.
    Callback,
    /// Assets have been updated.
    Assets,
    /// A data migration was resumed, or has rows again.
    Migrations,
}

/// For the scheduler and the pages.
pub const ENGINE: &str = "leoflow_engine";
/// For the agent.
pub const AGENT: &str = "leoflow_agent";

impl Event {
    fn channel(&self) -> &'static str {
        match self {
            Self::Queued | Self::Stop | Self::Triggers => AGENT,
            _ => ENGINE,
        }
    }

    pub fn payload(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// `None` for a payload of another version.
    pub fn parse(payload: &str) -> Option<Self> {
        serde_json::from_str(payload).ok()
    }
}

/// Tells it when the current transaction commits; several times the same is told once.
pub async fn notify(client: &impl GenericClient, event: &Event) -> Result<(), tokio_postgres::Error> {
    client.execute("SELECT pg_notify($1, $2)", &[&event.channel(), &event.payload()]).await.map(drop)
}
