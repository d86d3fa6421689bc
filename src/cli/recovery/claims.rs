//! Claims: a database on an external server belongs to exactly one home.

use crate::error::Error;
use leoflow_base::home::Home;
use leoflow_postgres::external::claim::{self, Claim};
use leoflow_postgres::location::{self, Kind, Location};
use leoflow_postgres::{MAJOR, PgError};
use tokio_postgres::Client;

/// Claims the home's external database if it is unclaimed, and updates the claim of a home that was moved. Refuses a
/// database that another home has claimed, or that runs another major version of PostgreSQL.
pub async fn take(home: &Home, client: &Client) -> Result<(), Error> {
    let Some(recorded_location) = external_location(home)? else { return Ok(()) };
    let row = client.query_one("SELECT current_setting('server_version'), current_setting('server_version_num')", &[]);
    let row = row.await.map_err(PgError::from)?;
    let major = row.get::<_, String>(1).parse::<u32>().unwrap_or(0) / 10_000;
    if major != MAJOR {
        let (shown, version): (_, String) = (&recorded_location.display_text, row.get(0));
        let text = format!("the datastore {shown} runs PostgreSQL {version}, but this release needs {MAJOR}");
        return Err(Error::refused(text).hint("install a release that supports that version: leoflow upgrade"));
    }
    let own_claim = Claim::of(home, &recorded_location);
    let holder = claim::take(client, &own_claim).await?;
    check(&recorded_location, &holder)?;
    if (&holder.host, &holder.path) == (&own_claim.host, &own_claim.path) {
        return Ok(());
    }
    refuse_copy(&recorded_location, &holder, client).await?;
    Ok(client.batch_execute(&own_claim.statement()).await.map_err(PgError::from)?)
}

/// Refuses a database that another home has claimed; an unclaimed one may be read.
pub async fn require(home: &Home, client: &Client) -> Result<(), Error> {
    let Some(recorded_location) = external_location(home)? else { return Ok(()) };
    let Some(holder) = claim::read(client).await? else { return Ok(()) };
    check(&recorded_location, &holder)?;
    let own_claim = Claim::of(home, &recorded_location);
    match (&holder.host, &holder.path) == (&own_claim.host, &own_claim.path) {
        true => Ok(()),
        false => refuse_copy(&recorded_location, &holder, client).await,
    }
}

/// Refuses a copy of a home while the original is connected. Without connections, the home was moved.
async fn refuse_copy(recorded_location: &Location, holder: &Claim, client: &Client) -> Result<(), Error> {
    let query = "SELECT count(*) FROM pg_stat_activity
                  WHERE datname = current_database() AND application_name = 'leoflow' AND pid <> pg_backend_pid()";
    let other_connections: i64 = client.query_one(query, &[]).await.map_err(PgError::from)?.get(0);
    if other_connections <= OWN_CONNECTIONS {
        return Ok(());
    }
    let Claim { path, host, .. } = holder;
    Err(Error::refused(format!(
        "this is a copy of the home {path} on {host}, which works with {}",
        recorded_location.display_text
    ))
    .hint("stop that instance first; if it no longer exists, the server closes its connections within minutes")
    .hint("to run both, clone the instance with its data: leoflow instances clone NAME"))
}

/// Connections that this process may hold besides the one that runs the query.
const OWN_CONNECTIONS: i64 = 2;

/// The home's datastore, if it is external.
fn external_location(home: &Home) -> Result<Option<Location>, Error> {
    Ok(location::recorded(home)?.filter(|recorded_location| recorded_location.kind == Kind::External))
}

/// Refuses a claim of another home, or a claim that says that the data was moved to another datastore.
fn check(recorded_location: &Location, holder: &Claim) -> Result<(), Error> {
    let Claim { path, host, since, .. } = holder;
    let is_ours = holder.home_id == recorded_location.home_id;
    match &holder.moved_to {
        None if is_ours => Ok(()),
        Some(to) if is_ours => {
            Err(Error::refused(format!("the data of this home moved from {} to {to}", recorded_location.display_text))
                .hint("restore datastore.json and the datastore setting in config.yaml to their state after the move"))
        }
        _ => Err(Error::refused(format!(
            "the home {path} on {host} uses the datastore {}, since {since}",
            recorded_location.display_text
        ))
        .hint("each home needs its own database: set up an empty one and restore a backup into it")),
    }
}
