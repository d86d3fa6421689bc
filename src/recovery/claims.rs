//! A database on somebody else's server is one home's, and no other's.

use crate::error::Error;
use crate::home::Home;
use crate::postgres::claim::{self, Claim};
use crate::postgres::place::{self, Kind, Place};
use crate::postgres::{MAJOR, PgError};
use tokio_postgres::Client;

/// Takes the one that the home uses, where it is nobody's. Refuses where it is another's, and one of another version.
pub async fn take(home: &Home, client: &Client) -> Result<(), Error> {
    let Some(place) = external(home)? else { return Ok(()) };
    let row = client.query_one("SELECT current_setting('server_version'), current_setting('server_version_num')", &[]);
    let row = row.await.map_err(PgError::from)?;
    let major = row.get::<_, String>(1).parse::<u32>().unwrap_or(0) / 10_000;
    if major != MAJOR {
        let (shown, version): (_, String) = (&place.shown, row.get(0));
        let text = format!("the datastore {shown} is of PostgreSQL {version}, and this release works with {MAJOR}");
        return Err(Error::refused(text).hint("a release that works with that: leoflow upgrade"));
    }
    let own = Claim::of(home, &place);
    let whose = claim::take(client, &own).await?;
    check(&place, &whose)?;
    if (&whose.host, &whose.path) == (&own.host, &own.path) {
        return Ok(());
    }
    refuse_copy(&place, &whose, client).await?;
    Ok(client.batch_execute(&own.statement()).await.map_err(PgError::from)?)
}

/// Refuses one that is another's. What is nobody's yet may be looked at.
pub async fn require(home: &Home, client: &Client) -> Result<(), Error> {
    let Some(place) = external(home)? else { return Ok(()) };
    let Some(whose) = claim::read(client).await? else { return Ok(()) };
    check(&place, &whose)?;
    let own = Claim::of(home, &place);
    match (&whose.host, &whose.path) == (&own.host, &own.path) {
        true => Ok(()),
        false => refuse_copy(&place, &whose, client).await,
    }
}

/// The home was moved, or this is a copy of it: then the first one works.
async fn refuse_copy(place: &Place, whose: &Claim, client: &Client) -> Result<(), Error> {
    let others = "SELECT count(*) FROM pg_stat_activity
                  WHERE datname = current_database() AND application_name = 'leoflow' AND pid <> pg_backend_pid()";
    let others: i64 = client.query_one(others, &[]).await.map_err(PgError::from)?.get(0);
    if others <= OWN_CONNECTIONS {
        return Ok(());
    }
    let Claim { path, host, .. } = whose;
    Err(Error::refused(format!("this is a copy of the home {path} on {host}, which works with {}", place.shown))
        .hint("stop that one first; of one that is gone, the server ends the connections within minutes")
        .hint("for two, make a copy of its data: leoflow instances clone NAME"))
}

/// What this process may have beside the one that asks.
const OWN_CONNECTIONS: i64 = 2;

fn external(home: &Home) -> Result<Option<Place>, Error> {
    Ok(place::recorded(home)?.filter(|place| place.kind == Kind::External))
}

fn check(place: &Place, whose: &Claim) -> Result<(), Error> {
    let Claim { path, host, since, .. } = whose;
    let is_ours = whose.home_id == place.home_id;
    match &whose.moved_to {
        None if is_ours => Ok(()),
        Some(to) if is_ours => Err(Error::refused(format!("the data of this home went from {} to {to}", place.shown))
            .hint("put datastore.json and what config.yaml said of the datastore back as that move left them")),
        _ => {
            Err(Error::refused(format!("the home {path} on {host} uses the datastore {}, since {since}", place.shown))
                .hint("another home needs a database of its own: set it up anew, and restore a backup into it"))
        }
    }
}
