//! Claims: a database on an external server belongs to exactly one home.

use leoflow_base::home::Home;
use leoflow_postgres::external::claim::{self, Claim};
use leoflow_postgres::location::{self, Kind, Location, LocationError};
use leoflow_postgres::{MAJOR, PgError};
use tokio_postgres::Client;

/// Why this home may not use its external database; `datastore` describes it.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("the datastore {datastore} runs PostgreSQL {version}, but this release needs {MAJOR}")]
    OtherMajor { datastore: String, version: String },
    #[error("this is a copy of the home {} on {}, which works with {datastore}", .original.path, .original.host)]
    Copy { original: Box<Claim>, datastore: String },
    #[error("the data of this home moved from {datastore} to {to}")]
    Moved { datastore: String, to: String },
    #[error("the home {} on {} uses the datastore {datastore}, since {}", .holder.path, .holder.host, .holder.since)]
    OtherHome { holder: Box<Claim>, datastore: String },
    #[error(transparent)]
    Location(#[from] LocationError),
    #[error(transparent)]
    Postgres(#[from] PgError),
}

leoflow_postgres::from_query_error!(ClaimError);

/// Claims the home's external database if it is unclaimed, and updates the claim of a home that was moved. Refuses a
/// database that another home has claimed, or that runs another major version of PostgreSQL.
pub async fn take(home: &Home, client: &Client) -> Result<(), ClaimError> {
    let Some(recorded_location) = external_location(home)? else { return Ok(()) };
    let query = "SELECT current_setting('server_version'), current_setting('server_version_num')";
    let row = client.query_one(query, &[]).await?;
    let major = row.get::<_, String>(1).parse::<u32>().unwrap_or(0) / 10_000;
    if major != MAJOR {
        return Err(ClaimError::OtherMajor { datastore: recorded_location.display_text, version: row.get(0) });
    }
    let own_claim = Claim::of(home, &recorded_location);
    let holder = claim::take(client, &own_claim).await?;
    match check(recorded_location, &own_claim, holder, client).await? {
        Place::Recorded => Ok(()),
        Place::Other => Ok(client.batch_execute(&own_claim.statement()).await?),
    }
}

/// Refuses a database that another home has claimed; an unclaimed one may be read.
pub async fn require(home: &Home, client: &Client) -> Result<(), ClaimError> {
    let Some(recorded_location) = external_location(home)? else { return Ok(()) };
    let Some(holder) = claim::read(client).await? else { return Ok(()) };
    let own_claim = Claim::of(home, &recorded_location);
    check(recorded_location, &own_claim, holder, client).await.map(drop)
}

/// The place of a home whose claim was found.
enum Place {
    Recorded,
    /// The home was moved since.
    Other,
}

/// Refuses a claim of another home, or one that says that the data was moved to another datastore; also a copy of a
/// home while the original is connected. Without connections, the home was moved.
async fn check(location: Location, own_claim: &Claim, holder: Claim, client: &Client) -> Result<Place, ClaimError> {
    let datastore = location.display_text;
    if holder.home_id != location.home_id {
        return Err(ClaimError::OtherHome { holder: Box::new(holder), datastore });
    }
    if let Some(to) = holder.moved_to {
        return Err(ClaimError::Moved { datastore, to });
    }
    if (&holder.host, &holder.path) == (&own_claim.host, &own_claim.path) {
        return Ok(Place::Recorded);
    }
    let query = "SELECT count(*) FROM pg_stat_activity
                  WHERE datname = current_database() AND application_name = 'leoflow' AND pid <> pg_backend_pid()";
    match client.query_one(query, &[]).await?.get::<_, i64>(0) > OWN_CONNECTIONS {
        true => Err(ClaimError::Copy { original: Box::new(holder), datastore }),
        false => Ok(Place::Other),
    }
}

/// Connections that this process may hold besides the one that runs the query.
const OWN_CONNECTIONS: i64 = 2;

/// The home's datastore, if it is external.
fn external_location(home: &Home) -> Result<Option<Location>, LocationError> {
    Ok(location::recorded(home)?.filter(|recorded_location| recorded_location.kind == Kind::External))
}
