//! Ownership of a database on an external server: a row in `instance_fact` names the home that uses it, so that two
//! homes cannot share it.

use crate::location::Location;
use crate::{PgError, instance_fact};
use leoflow_base::home::Home;
use leoflow_base::sys::{clock, user};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

const NAME: &str = "home";
/// Query for the id of the home that claims the database, for a script; fails without the table.
pub const OWNER: &str = "SELECT pg_catalog.convert_from(value, 'UTF8')::jsonb->>'home_id' FROM public.instance_fact
    WHERE name = 'home'";

/// Content of the row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub home_id: String,
    /// Machine of the home, shown to users like `path` and `since` (RFC 3339).
    pub host: String,
    pub path: String,
    pub since: String,
    /// New location of the data, if they moved; the database keeps its state from before the move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<String>,
}

impl Claim {
    pub fn of(home: &Home, location: &Location) -> Self {
        Self {
            home_id: location.home_id.clone(),
            host: user::host_name(),
            path: home.root().display().to_string(),
            since: clock::now_rfc3339(),
            moved_to: None,
        }
    }

    /// SQL that records the claim, safe in a script.
    pub fn statement(&self) -> String {
        // Escapes dollar signs in the JSON, because they could end the dollar-quoted string around it.
        instance_fact::statement(NAME, &serde_json::to_string(self).unwrap_or_default().replace('$', "\\u0024"))
    }
}

/// Reads the claim; `None` if the database is unclaimed.
pub async fn read(client: &Client) -> Result<Option<Claim>, PgError> {
    let value = instance_fact::read(client, NAME).await?;
    // A claim in a later format counts as another home's.
    Ok(value.map(|value| serde_json::from_slice(&value).unwrap_or_else(|_| unknown())))
}

/// Reads the claim. If this role may not read the table, which then belongs to another role, the database counts as
/// claimed.
pub(crate) async fn read_if_allowed(client: &Client) -> Result<Option<Claim>, PgError> {
    let query = "SELECT has_table_privilege('public.instance_fact', 'SELECT')";
    match client.query_one(query, &[]).await?.get(0) {
        true => read(client).await,
        false => Ok(Some(unknown())),
    }
}

/// Claim of a home that cannot be identified.
fn unknown() -> Claim {
    let unknown = |what: &str| format!("(unknown {what})");
    Claim {
        home_id: String::new(),
        host: unknown("machine"),
        path: unknown("path"),
        since: unknown("time"),
        moved_to: None,
    }
}

/// Claims an unclaimed database. Returns the claim in effect, which may be another home's.
pub async fn take(client: &Client, claim: &Claim) -> Result<Claim, PgError> {
    let value = serde_json::to_vec(claim).unwrap_or_default();
    instance_fact::add(client, NAME, &value).await?;
    Ok(read(client).await?.unwrap_or_else(|| claim.clone()))
}
