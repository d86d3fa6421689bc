//! Moving the data of a home from one datastore to another. The new one is filled and counted while the old one stays as
//! it is; then the home's own files say where the data is; then what was left is named as that. Killed before the home
//! says so, it has not happened; afterwards it is finished.

use super::content::{Content, ContentError, Whose};
use super::obstacles::{self, Obstacle};
use crate::config::{self, DatastoreSetting, ExternalUrl, UpdateError};
use crate::home::journal::{Entry, Journal, JournalError, Operation};
use crate::home::progress::{Progress, Reporter};
use crate::home::{Home, HomeError};
use crate::postgres::claim::{self, Claim};
use crate::postgres::cluster::{self, ClusterError};
use crate::postgres::container::{Container, ContainerError};
use crate::postgres::credentials::CredentialsError;
use crate::postgres::place::{self, Kind, Place, PlaceError};
use crate::postgres::private::{PrivateError, PrivateServer};
use crate::postgres::{Access, Credentials, Endpoint, PgError, leftovers, provision, relay};
use crate::sys::user_namespace::Identity;
use crate::sys::{checkpoint, clock, files, random};
use serde::{Deserialize, Serialize};
use serde_yaml::Value;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum RelocationError {
    #[error("cannot write or move {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} is in the way of a new datastore under the home")]
    InTheWay(PathBuf),
    #[error("the plan in the journal cannot be read: {0}")]
    Plan(String),
    #[error(transparent)]
    Obstacle(#[from] Obstacle),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Config(#[from] UpdateError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Private(#[from] PrivateError),
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// What the journal carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relocation {
    /// As `config.yaml` says it, before and afterwards.
    from: Value,
    to: Value,
    /// `None` is under the home.
    from_place: Option<Place>,
    to_place: Option<Place>,
    /// Where what is under the home goes when it is left.
    old_data: PathBuf,
    /// The same database by another address or login: nothing is copied, and nothing left.
    #[serde(default)]
    is_same: bool,
}

const STEPS: [&str; 4] = ["prepare", "copy", "switch", "release"];
/// From here on it can only be finished.
const SWITCH: usize = 2;

/// What came of one that was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumed {
    Finished,
    TakenBack,
}

impl Relocation {
    /// To a datastore that was found to do. Changes nothing but the home's own id.
    pub fn plan(home: &Home, to: &DatastoreSetting) -> Result<Self, RelocationError> {
        let io = |source| RelocationError::Io { path: home.postgres(), source };
        if place::recorded(home)?.is_none()
            && let Some(obstacle) = obstacles::of_cluster(home).map_err(io)?
        {
            return Err(obstacle.into());
        }
        if matches!((to.external(), to), (Ok(None), other) if *other != DatastoreSetting::Docker) {
            files::create_private_dir(&home.postgres()).map_err(io)?;
            if let Some(obstacle) = obstacles::between(&home.run(), &home.postgres()).map_err(io)? {
                return Err(obstacle.into());
            }
        }
        Self::planned(home, to)
    }

    fn planned(home: &Home, to: &DatastoreSetting) -> Result<Self, RelocationError> {
        // Past the point of no return it has to be replaced.
        let io = |source| RelocationError::Io { path: home.config(), source };
        if let Some(obstacle) = obstacles::of_file(&home.config()).map_err(io)? {
            return Err(obstacle.into());
        }
        let to_place = match (to.external().map_err(PlaceError::Url)?, to) {
            (Some(url), _) => Some(Place::external(home, &url)?),
            (None, DatastoreSetting::Docker) => {
                let container = Container::plan(home, &place::home_id(home)?)?;
                container.refuse_existing()?;
                Some(Place::docker(home, container)?)
            }
            (None, _) if home.postgres_data().exists() => {
                return Err(RelocationError::InTheWay(home.postgres_data()));
            }
            (None, _) => None,
        };
        // A place that nothing has: two moves may begin in one second.
        let at = format!("{}-{}", clock::now_rfc3339().replace(['-', ':'], ""), hex::encode(random::bytes::<2>()));
        Ok(Self {
            from: place::configured(home)?.to_value(),
            to: to.to_value(),
            from_place: place::recorded(home)?,
            to_place,
            old_data: home.postgres().join(format!("data.moved-{at}")),
            is_same: false,
        })
    }

    /// Whether it leads to the database that the home uses already.
    pub fn is_same(&self) -> bool {
        self.is_same
    }

    /// The same for a URL that leads to the database that the home uses already.
    pub fn plan_address(home: &Home, to: &DatastoreSetting) -> Result<Self, RelocationError> {
        Ok(Self { is_same: true, ..Self::planned(home, to)? })
    }

    /// For people.
    pub fn from_shown(&self) -> String {
        shown(self.from_place.as_ref())
    }

    pub fn to_shown(&self) -> String {
        shown(self.to_place.as_ref())
    }

    /// Where the old data is afterwards.
    pub fn left_at(&self) -> String {
        self.from_place.as_ref().map_or_else(|| self.old_data.display().to_string(), |place| place.shown.clone())
    }
}

fn shown(place: Option<&Place>) -> String {
    place.map_or_else(|| "the datastore under the home".to_owned(), |place| place.shown.clone())
}

/// A home inside the home, whose datastore is the new one until it is this home's.
struct Inner(Home);

impl Inner {
    fn of(home: &Home) -> Result<Self, RelocationError> {
        Ok(Self(crate::home::resolve(Some(&home.run().join("move")))?))
    }

    fn io(&self) -> impl Fn(io::Error) -> RelocationError + '_ {
        |source| RelocationError::Io { path: self.0.root().to_owned(), source }
    }

    /// With everything that runs in it.
    fn remove(&self) -> Result<(), RelocationError> {
        if self.0.root().exists() {
            leftovers::end(&self.0).map_err(self.io())?;
            files::remove_any(self.0.root()).map_err(self.io())?;
        }
        Ok(())
    }

    fn content(&self) -> PathBuf {
        self.0.root().join("run/content")
    }
}

/// Moves. Nobody else uses the home or is connected to its datastore, which `source` leads to, with the server that runs
/// for it. Returns the rows of every table together, which are the same in both.
pub async fn relocate(
    home: &Home,
    (source, server): (&Access, Option<PrivateServer>),
    relocation: &Relocation,
    reporter: &dyn Reporter,
) -> Result<i64, RelocationError> {
    let mut journal = begin(home, relocation)?;
    let filled = fill(home, source, relocation, &mut journal, reporter).await;
    // Before its files are moved.
    drop(server);
    match filled {
        Ok(rows) => {
            finish(home, relocation, journal, reporter).await?;
            Ok(rows)
        }
        Err(error) => undo(home, relocation, reporter).and_then(|()| Ok(journal.remove()?)).and(Err(error)),
    }
}

/// Writes down another address of the same database.
pub async fn readdress(home: &Home, relocation: &Relocation, reporter: &dyn Reporter) -> Result<(), RelocationError> {
    let mut journal = begin(home, relocation)?;
    journal.set_at(SWITCH)?;
    finish(home, relocation, journal, reporter).await
}

fn begin(home: &Home, relocation: &Relocation) -> Result<Journal, RelocationError> {
    let plan = serde_json::to_value(relocation).map_err(|error| RelocationError::Plan(error.to_string()))?;
    Ok(Journal::begin_with(home, Operation::MoveDatastore, STEPS.map(str::to_owned).to_vec(), plan)?)
}

/// Goes on with one that was interrupted.
pub async fn resume(home: &Home, entry: Entry, reporter: &dyn Reporter) -> Result<Resumed, RelocationError> {
    let relocation: Relocation =
        serde_json::from_value(entry.plan.clone()).map_err(|error| RelocationError::Plan(error.to_string()))?;
    let at = entry.at;
    let journal = Journal::resume(home, entry);
    if at < SWITCH {
        undo(home, &relocation, reporter)?;
        journal.remove()?;
        return Ok(Resumed::TakenBack);
    }
    finish(home, &relocation, journal, reporter).await?;
    Ok(Resumed::Finished)
}

async fn fill(
    home: &Home,
    source: &Access,
    relocation: &Relocation,
    journal: &mut Journal,
    reporter: &dyn Reporter,
) -> Result<i64, RelocationError> {
    let inner = Inner::of(home)?;
    prepare(home, &inner, source, relocation, reporter)?;
    journal.advance()?;
    reporter.report(Progress::Started("Copying your data".to_owned()));
    let content = Content::write(source, &source.application(), &inner.content()).await?;
    let own = &inner.0;
    let (endpoint, credentials) = (Endpoint::for_home(own), Credentials::require(own)?);
    let server = PrivateServer::start(own, &source.installation, &endpoint, &credentials).await?;
    drop(provision::connect(&endpoint, &credentials).await?);
    let target = Access { endpoint, credentials, installation: source.installation.clone() };
    let external = relocation.to_place.as_ref().filter(|place| place.kind == Kind::External);
    let last: Vec<String> = external.map(|place| Claim::of(home, place).statement()).into_iter().collect();
    let whose = external.map_or(Whose::Nobodys, |place| Whose::Homes(&place.home_id));
    content.bring_into(&target, &target.application(), whose, &last).await?;
    drop(server);
    let rows = content.facts.rows.values().sum();
    journal.advance()?;
    Ok(rows)
}

fn prepare(
    home: &Home,
    inner: &Inner,
    source: &Access,
    relocation: &Relocation,
    reporter: &dyn Reporter,
) -> Result<(), RelocationError> {
    inner.remove()?;
    let own = &inner.0;
    for path in [own.root().to_owned(), own.logs(), own.run(), own.postgres()] {
        files::create_private_dir(&path).map_err(inner.io())?;
    }
    // Of the servers that are ours; the passwords stay what they are.
    let credentials = Credentials::load_or_create(home)?;
    std::fs::copy(home.postgres_credentials(), own.postgres_credentials()).map_err(inner.io())?;
    let text = config::set_keys("", &[("datastore", relocation.to.clone())]).map_err(UpdateError::from)?;
    files::write_atomic(&own.config(), text.as_bytes(), 0o600).map_err(inner.io())?;
    let Some(place) = &relocation.to_place else {
        return Ok(cluster::create(own, &source.installation, &credentials, &Identity::for_postgres())?);
    };
    place.write(own)?;
    if let Some(container) = &place.container {
        reporter.report(Progress::Started(format!("Getting {}", Container::image())));
        container.refuse_existing()?;
        container.create(own, &place.home_id, &credentials)?;
    }
    Ok(())
}

/// What the new datastore would have been goes; one on somebody else's server is ours to fill anew. A runtime that does
/// not answer is no reason to keep the home from its data: what stays bears the home's id, and is told at the next move.
fn undo(home: &Home, relocation: &Relocation, reporter: &dyn Reporter) -> Result<(), RelocationError> {
    if let Some(place) = &relocation.to_place
        && let Some(container) = &place.container
        && let Err(error) = container.remove(&place.home_id)
    {
        reporter.report(Progress::Warning(format!("{} may be left: {error}", place.shown)));
    }
    Inner::of(home)?.remove()
}

async fn finish(
    home: &Home,
    relocation: &Relocation,
    mut journal: Journal,
    reporter: &dyn Reporter,
) -> Result<(), RelocationError> {
    if journal.entry().at <= SWITCH {
        switch(home, relocation)?;
        journal.advance()?;
    }
    if !relocation.is_same
        && let Err(error) = release(relocation).await
    {
        reporter
            .report(Progress::Warning(format!("what was left at {} does not say so: {error}", relocation.left_at())));
    }
    Inner::of(home)?.remove()?;
    Ok(journal.finish()?)
}

/// Each part finds whether it was done.
fn switch(home: &Home, relocation: &Relocation) -> Result<(), RelocationError> {
    let inner = Inner::of(home)?;
    let io = |source| RelocationError::Io { path: home.postgres(), source };
    let data = home.postgres_data();
    if relocation.from_place.is_none() && !relocation.old_data.exists() && data.exists() {
        files::rename_durably(&data, &relocation.old_data).map_err(io)?;
        checkpoint("move.left");
    }
    match &relocation.to_place {
        Some(place) => place.write(home)?,
        None => {
            let made = inner.0.postgres_data();
            if made.exists() {
                files::rename_durably(&made, &data).map_err(io)?;
            }
            checkpoint("move.in-place");
            Place::managed(home)?.write(home)?;
        }
    }
    checkpoint("move.recorded");
    let to = relocation.to.clone();
    Ok(config::update(home, |_| vec![("datastore", to)])?)
}

/// Says in a database on somebody else's server that its data went on.
async fn release(relocation: &Relocation) -> Result<(), PgError> {
    let Some(place) = relocation.from_place.as_ref().filter(|place| place.kind == Kind::External) else {
        return Ok(());
    };
    let url = DatastoreSetting::read(&relocation.from).ok().and_then(|from| from.external().ok().flatten());
    let Some(url) = url else { return Err(PgError::Far("its URL is gone".to_owned())) };
    mark_as_left(&url, place, &relocation.to_shown()).await
}

async fn mark_as_left(url: &ExternalUrl, place: &Place, to: &str) -> Result<(), PgError> {
    let client = relay::connect_directly(url).await?;
    let claim = claim::read(&client).await?.filter(|claim| claim.home_id == place.home_id);
    match claim {
        Some(claim) => {
            let left = Claim { moved_to: Some(to.to_owned()), ..claim };
            Ok(client.batch_execute(&left.statement()).await?)
        }
        None => Ok(()),
    }
}
