//! Whose a database on somebody else's server is: a row among the facts of the instance says which home uses it, so that
//! no two homes do.

use super::place::Place;
use super::{PgError, instance_fact};
use crate::home::Home;
use crate::sys::{clock, user};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

const NAME: &str = "home";

/// What the row says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub home_id: String,
    /// For people.
    pub host: String,
    pub path: String,
    pub since: String,
    /// Where the data went; what is here is as it was then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<String>,
}

impl Claim {
    pub fn of(home: &Home, place: &Place) -> Self {
        Self {
            home_id: place.home_id.clone(),
            host: user::host_name(),
            path: home.root().display().to_string(),
            since: clock::now_rfc3339(),
            moved_to: None,
        }
    }

    /// As a statement that is safe in a script.
    pub fn statement(&self) -> String {
        // As JSON has a dollar sign, which would end the quotes around it.
        instance_fact::statement(NAME, &serde_json::to_string(self).unwrap_or_default().replace('$', "\\u0024"))
    }
}

/// What is there; `None` where nobody has said anything.
pub async fn read(client: &Client) -> Result<Option<Claim>, PgError> {
    let value = instance_fact::read(client, NAME).await?;
    // One of a later release that this one cannot read is somebody's, too.
    Ok(value.map(|value| serde_json::from_slice(&value).unwrap_or_else(|_| unknown())))
}

/// The same of one that may be another role's: then it is somebody's.
pub async fn read_if_allowed(client: &Client) -> Result<Option<Claim>, PgError> {
    let query = "SELECT has_table_privilege('public.instance_fact', 'SELECT')";
    match client.query_one(query, &[]).await?.get(0) {
        true => read(client).await,
        false => Ok(Some(unknown())),
    }
}

fn unknown() -> Claim {
    let unknown = || "an unknown place".to_owned();
    Claim { home_id: String::new(), host: unknown(), path: unknown(), since: unknown(), moved_to: None }
}

/// Takes a database that is nobody's. Returns whose it is.
pub async fn take(client: &Client, claim: &Claim) -> Result<Claim, PgError> {
    let value = serde_json::to_vec(claim).unwrap_or_default();
    let insert = "INSERT INTO public.instance_fact (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
    client.execute(insert, &[&NAME, &value]).await?;
    Ok(read(client).await?.unwrap_or_else(|| claim.clone()))
}
