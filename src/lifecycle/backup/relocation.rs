//! Moves a home's data from one datastore to another: copies the data to the new datastore and verifies it, switches
//! the home's files to the new datastore, and marks the old one as moved. A move interrupted before the switch is
//! undone; one interrupted later is finished.

use super::content::{Content, ContentError, ExpectedOwner};
use super::restore::obstacles::{self, Obstacle};
use leoflow_base::config::{self, DatastoreSetting, ExternalUrl, UpdateError};
use leoflow_base::home::journal::{Entry, Journal, JournalError, Operation};
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::home::{Home, HomeError};
use leoflow_base::sys::fs::files;
use leoflow_base::sys::process::user_namespace::Identity;
use leoflow_base::sys::{checkpoint, clock, random};
use leoflow_postgres::cluster::private::{PrivateError, PrivateServer};
use leoflow_postgres::cluster::{self, ClusterError, leftovers, provision};
use leoflow_postgres::credentials::CredentialsError;
use leoflow_postgres::external::claim::{self, Claim};
use leoflow_postgres::external::container::ContainerError;
use leoflow_postgres::external::relay;
use leoflow_postgres::location::{self, Container, Kind, Location, LocationError};
use leoflow_postgres::{Access, Credentials, Endpoint, PgError};
use serde::{Deserialize, Serialize};
use serde_yaml::Value;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum RelocationError {
    #[error("cannot write or move {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} occupies the place of a new datastore under the home")]
    InTheWay(PathBuf),
    #[error("cannot read the plan in the journal: {0}")]
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
    Location(#[from] LocationError),
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

/// Plan of the move, stored in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relocation {
    /// Value of `datastore` in `config.yaml` before the move.
    from: Value,
    /// Value of `datastore` in `config.yaml` after the move.
    to: Value,
    /// `None` is the managed datastore.
    #[serde(rename = "from_place")]
    from_location: Option<Location>,
    #[serde(rename = "to_place")]
    to_location: Option<Location>,
    /// Path that the old data directory is renamed to, if the old datastore is the managed one.
    old_data: PathBuf,
    /// True if only the address or role of the database changes: no data is copied.
    #[serde(default)]
    is_same: bool,
}

const STEPS: [&str; 4] = ["prepare", "copy", "switch", "release"];
/// The first irreversible step.
const SWITCH: usize = 2;

/// Outcome of a resumed move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumed {
    Finished,
    Undone,
}

impl Relocation {
    /// Plans a move to a datastore that the caller has checked. Moves nothing, but may create the home's id.
    pub fn plan(home: &Home, to: &DatastoreSetting) -> Result<Self, RelocationError> {
        let io = |source| RelocationError::Io { path: home.postgres(), source };
        if location::recorded(home)?.is_none()
            && let Some(obstacle) = obstacles::find_in_cluster(home).map_err(io)?
        {
            return Err(obstacle.into());
        }
        if matches!((to.external(), to), (Ok(None), other) if *other != DatastoreSetting::Docker) {
            files::create_private_dir(&home.postgres()).map_err(io)?;
            if let Some(obstacle) = obstacles::find_between(&home.run(), &home.postgres()).map_err(io)? {
                return Err(obstacle.into());
            }
        }
        Self::planned(home, to)
    }

    /// Builds the plan, without the checks of the old datastore.
    fn planned(home: &Home, to: &DatastoreSetting) -> Result<Self, RelocationError> {
        // `config.yaml` is replaced after the irreversible step, so check now that this is possible.
        let io = |source| RelocationError::Io { path: home.config(), source };
        if let Some(obstacle) = obstacles::find_in_file(&home.config()).map_err(io)? {
            return Err(obstacle.into());
        }
        let to_location = match (to.external().map_err(LocationError::Url)?, to) {
            (Some(url), _) => Some(Location::external(home, &url)?),
            (None, DatastoreSetting::Docker) => {
                let container = Container::plan(home, &location::home_id(home)?)?;
                container.refuse_existing()?;
                Some(Location::docker(home, container)?)
            }
            (None, _) if home.postgres_data().exists() => {
                return Err(RelocationError::InTheWay(home.postgres_data()));
            }
            (None, _) => None,
        };
        // A unique path: two moves may start within one second.
        let suffix = format!("{}-{}", clock::now_rfc3339().replace(['-', ':'], ""), hex::encode(random::bytes::<2>()));
        Ok(Self {
            from: location::configured(home)?.to_value(),
            to: to.to_value(),
            from_location: location::recorded(home)?,
            to_location,
            old_data: home.postgres().join(format!("data.moved-{suffix}")),
            is_same: false,
        })
    }

    /// True when the target is the database that the home already uses.
    pub fn is_same(&self) -> bool {
        self.is_same
    }

    /// Plans a change of the address or role of the database that the home already uses.
    pub(crate) fn plan_address(home: &Home, to: &DatastoreSetting) -> Result<Self, RelocationError> {
        Ok(Self { is_same: true, ..Self::planned(home, to)? })
    }

    /// Description of the old datastore, for users.
    pub fn from_description(&self) -> String {
        description(self.from_location.as_ref())
    }

    /// Description of the new datastore, for users.
    pub fn to_description(&self) -> String {
        description(self.to_location.as_ref())
    }

    /// Location of the old data after the move.
    pub fn old_location(&self) -> String {
        self.from_location
            .as_ref()
            .map_or_else(|| self.old_data.display().to_string(), |location| location.display_text.clone())
    }
}

fn description(location: Option<&Location>) -> String {
    location.map_or_else(|| "the datastore under the home".to_owned(), |location| location.display_text.clone())
}

/// A temporary home inside the home, where the new datastore is created.
struct TemporaryHome(Home);

impl TemporaryHome {
    fn of(home: &Home) -> Result<Self, RelocationError> {
        Ok(Self(leoflow_base::home::resolve(Some(&home.run().join("move")))?))
    }

    fn io(&self) -> impl Fn(io::Error) -> RelocationError + '_ {
        |source| RelocationError::Io { path: self.0.root().to_owned(), source }
    }

    /// Ends the processes of the temporary home and removes its folder.
    fn remove(&self) -> Result<(), RelocationError> {
        if self.0.root().exists() {
            leftovers::end(&self.0).map_err(self.io())?;
            files::remove_any(self.0.root()).map_err(self.io())?;
        }
        Ok(())
    }

    /// File with the exported data.
    fn content(&self) -> PathBuf {
        self.0.root().join("run/content")
    }
}

/// Moves the data. `source` is the access to the old datastore, `server` the private server or relay behind it. The
/// caller ensures that no other process uses the home or is connected to the old datastore. Returns the number of
/// copied rows.
pub async fn relocate(
    home: &Home,
    (source, server): (&Access, Option<PrivateServer>),
    relocation: &Relocation,
    reporter: &dyn Reporter,
) -> Result<i64, RelocationError> {
    let mut journal = begin(home, relocation)?;
    let copied = fill(home, source, relocation, &mut journal, reporter).await;
    // Stops the server before its files are moved.
    drop(server);
    match copied {
        Ok(rows) => {
            finish(home, relocation, journal, reporter).await?;
            Ok(rows)
        }
        Err(error) => {
            // Report the first error; the next start repeats an undo that failed.
            if let Err(undo_error) = undo(home, relocation, reporter).and_then(|()| Ok(journal.remove()?)) {
                let text = format!("the failed move was not undone, the next start does it: {undo_error}");
                reporter.report(Progress::Warning(text));
            }
            Err(error)
        }
    }
}

/// Switches the home's files to another address or role of the same database.
pub(crate) async fn readdress(
    home: &Home,
    relocation: &Relocation,
    reporter: &dyn Reporter,
) -> Result<(), RelocationError> {
    let mut journal = begin(home, relocation)?;
    journal.set_at(SWITCH)?;
    finish(home, relocation, journal, reporter).await
}

/// Starts the journal.
fn begin(home: &Home, relocation: &Relocation) -> Result<Journal, RelocationError> {
    let plan = serde_json::to_value(relocation).map_err(|error| RelocationError::Plan(error.to_string()))?;
    Ok(Journal::begin_with(home, Operation::MoveDatastore, STEPS.map(str::to_owned).to_vec(), plan)?)
}

/// Resumes an interrupted move.
pub async fn resume(home: &Home, entry: Entry, reporter: &dyn Reporter) -> Result<Resumed, RelocationError> {
    let relocation: Relocation =
        serde_json::from_value(entry.plan.clone()).map_err(|error| RelocationError::Plan(error.to_string()))?;
    let step_index = entry.at;
    let journal = Journal::resume(home, entry);
    if step_index < SWITCH {
        undo(home, &relocation, reporter)?;
        journal.remove()?;
        return Ok(Resumed::Undone);
    }
    finish(home, &relocation, journal, reporter).await?;
    Ok(Resumed::Finished)
}

/// Creates the new datastore and copies the data into it. Returns the number of rows.
async fn fill(
    home: &Home,
    source: &Access,
    relocation: &Relocation,
    journal: &mut Journal,
    reporter: &dyn Reporter,
) -> Result<i64, RelocationError> {
    let temporary = TemporaryHome::of(home)?;
    prepare(home, &temporary, source, relocation, reporter)?;
    journal.advance()?;
    reporter.report(Progress::Started("Copying your data".to_owned()));
    let content = Content::write(source, &source.application(), &temporary.content()).await?;
    let inner_home = &temporary.0;
    let (endpoint, credentials) = (Endpoint::for_home(inner_home), Credentials::require(inner_home)?);
    let server = PrivateServer::start(inner_home, &source.installation, &endpoint, &credentials).await?;
    drop(provision::connect(&endpoint, &credentials).await?);
    let target = Access { endpoint, credentials, installation: source.installation.clone() };
    let external = relocation.to_location.as_ref().filter(|location| location.kind == Kind::External);
    let final_statements: Vec<String> =
        external.map(|location| Claim::of(home, location).statement()).into_iter().collect();
    let expected_owner = external.map_or(ExpectedOwner::Unclaimed, |location| ExpectedOwner::Home(&location.home_id));
    content.import_into(&target, &target.application(), expected_owner, &final_statements).await?;
    drop(server);
    let rows = content.facts.rows.values().sum();
    journal.advance()?;
    Ok(rows)
}

/// Creates the new datastore in the temporary home.
fn prepare(
    home: &Home,
    temporary: &TemporaryHome,
    source: &Access,
    relocation: &Relocation,
    reporter: &dyn Reporter,
) -> Result<(), RelocationError> {
    temporary.remove()?;
    let inner_home = &temporary.0;
    for path in [inner_home.root().to_owned(), inner_home.logs(), inner_home.run(), inner_home.postgres()] {
        files::create_private_dir(&path).map_err(temporary.io())?;
    }
    // The new server uses the passwords of the home's credentials.
    let credentials = Credentials::load_or_create(home)?;
    std::fs::copy(home.postgres_credentials(), inner_home.postgres_credentials()).map_err(temporary.io())?;
    let text = config::set_keys("", &[("datastore", relocation.to.clone())]).map_err(UpdateError::from)?;
    files::write_atomic(&inner_home.config(), text.as_bytes(), 0o600).map_err(temporary.io())?;
    let Some(location) = &relocation.to_location else {
        return Ok(cluster::create(inner_home, &source.installation, &credentials, &Identity::for_postgres())?);
    };
    location.write(inner_home)?;
    if let Some(container) = &location.container {
        reporter.report(Progress::Started(format!("Getting {}", Container::image())));
        container.refuse_existing()?;
        container.create(inner_home, &location.home_id, &credentials)?;
    }
    Ok(())
}

/// Removes the new datastore, except a database on an external server, whose content the next move replaces. If the
/// container runtime does not respond, only warns, so that the home stays usable: the container has the home's id, and
/// the next move reports it.
fn undo(home: &Home, relocation: &Relocation, reporter: &dyn Reporter) -> Result<(), RelocationError> {
    if let Some(location) = &relocation.to_location
        && let Some(container) = &location.container
        && let Err(error) = container.remove(&location.home_id)
    {
        reporter.report(Progress::Warning(format!("{} may still exist: {error}", location.display_text)));
    }
    TemporaryHome::of(home)?.remove()
}

/// Finishes the move from the switch on.
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
        reporter.report(Progress::Warning(format!(
            "cannot mark the old data at {} as moved: {error}",
            relocation.old_location()
        )));
    }
    TemporaryHome::of(home)?.remove()?;
    Ok(journal.finish()?)
}

/// Switches the home's files to the new datastore. Each part first checks whether it is already done.
fn switch(home: &Home, relocation: &Relocation) -> Result<(), RelocationError> {
    let temporary = TemporaryHome::of(home)?;
    let io = |source| RelocationError::Io { path: home.postgres(), source };
    let data = home.postgres_data();
    if relocation.from_location.is_none() && !relocation.old_data.exists() && data.exists() {
        files::rename_durably(&data, &relocation.old_data).map_err(io)?;
        checkpoint("move.left");
    }
    match &relocation.to_location {
        Some(location) => location.write(home)?,
        None => {
            let new_data = temporary.0.postgres_data();
            if new_data.exists() {
                files::rename_durably(&new_data, &data).map_err(io)?;
            }
            checkpoint("move.in-place");
            Location::managed(home)?.write(home)?;
        }
    }
    checkpoint("move.recorded");
    let to = relocation.to.clone();
    Ok(config::update(home, |_| vec![("datastore", to)])?)
}

/// Marks the old datastore as moved, if it is on an external server.
async fn release(relocation: &Relocation) -> Result<(), PgError> {
    let Some(location) = relocation.from_location.as_ref().filter(|location| location.kind == Kind::External) else {
        return Ok(());
    };
    let url = DatastoreSetting::read(&relocation.from).ok().and_then(|from| from.external().ok().flatten());
    let Some(url) = url else { return Err(PgError::ExternalServer("its URL is missing".to_owned())) };
    mark_as_moved(&url, location, &relocation.to_description()).await
}

/// Records in the claim of the old database that the data moved to `to`.
async fn mark_as_moved(url: &ExternalUrl, location: &Location, to: &str) -> Result<(), PgError> {
    let client = relay::connect_directly(url).await?;
    let claim = claim::read(&client).await?.filter(|claim| claim.home_id == location.home_id);
    match claim {
        Some(claim) => {
            let moved_claim = Claim { moved_to: Some(to.to_owned()), ..claim };
            Ok(client.batch_execute(&moved_claim.statement()).await?)
        }
        None => Ok(()),
    }
}
