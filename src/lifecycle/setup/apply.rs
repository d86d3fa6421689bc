//! Applies a setup plan. Makes no decisions; each step is idempotent.

use super::extras::Extra;
use super::install_self::{self, InstallError};
use super::plan::{Plan, Request};
use super::receipt::{RECEIPT_VERSION, Receipt, ReceiptError};
use super::scaffold;
use super::step::Step;
use leoflow_base::auth::password::{self, HashError, Unacceptable};
use leoflow_base::config::{self, ConfigError, DatastoreSetting, EditError, UpdateError};
use leoflow_base::home::Home;
use leoflow_base::home::journal::{self, Journal, JournalError, Operation};
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::sys::process::user_namespace::Identity;
use leoflow_base::sys::{clock, env_vars, random};
use leoflow_postgres::acquire::{self, AcquireError, Sources};
use leoflow_postgres::cluster::{self, ClusterError};
use leoflow_postgres::credentials::CredentialsError;
use leoflow_postgres::external::container::ContainerError;
use leoflow_postgres::location::{self, Container, Location, LocationError};
use leoflow_postgres::{Credentials, Installation, NEWEST, install};
use serde_yaml::Value;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("cannot write {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error(transparent)]
    Update(#[from] UpdateError),
    #[error(transparent)]
    Hash(#[from] HashError),
    #[error("cannot read the admin password in {path}: {source}")]
    PasswordFile { path: PathBuf, source: io::Error },
    #[error("the admin password in {path} is not accepted: {source}")]
    Password { path: PathBuf, source: Unacceptable },
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Location(#[from] LocationError),
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    #[error("PostgreSQL's files are missing from {0}")]
    NoInstallation(PathBuf),
    #[error("PostgreSQL refuses to run as this user, and the machine has no other user to run it as")]
    NoIdentity,
}

/// Results for the caller that setup does not store.
#[derive(Debug, Default)]
pub struct Applied {
    /// New admin password, shown once.
    pub password: Option<String>,
}

/// Applies the steps in order; each is journaled before it acts. The caller holds the home's lock.
pub async fn apply(
    home: &Home,
    plan: &Plan,
    request: &Request,
    version: &str,
    sources: &Sources,
    reporter: &dyn Reporter,
) -> Result<Applied, ApplyError> {
    let mut applied = Applied::default();
    if plan.steps.is_empty() {
        if plan.resumes {
            journal::clear(home)?;
        }
        return Ok(applied);
    }
    let names = plan.steps.iter().map(|step| step.name().to_owned()).collect();
    let mut journal = Journal::begin(home, Operation::Setup, names)?;
    // These downloads run in parallel to the other steps.
    let (mut packages, mut ui) = Extra::begin(home, plan);
    for step in &plan.steps {
        match step {
            Step::WriteConfig => applied.password = write_config(home, plan, request)?,
            Step::CompleteConfig { keys } => applied.password = complete_config(home, plan, keys)?,
            Step::AcquirePostgres => drop(acquire::acquire(home, sources, reporter).await?),
            Step::UpdatePostgres { from } => update_postgres(home, from, sources, reporter).await,
            Step::AcquirePackages => Extra::report_result(packages.take(), reporter).await,
            Step::AcquireUi => Extra::report_result(ui.take(), reporter).await,
            Step::CreateCluster => create_cluster(home, reporter)?,
            Step::SetDatastore { setting } => config::update(home, |_| vec![("datastore", setting.to_value())])?,
            Step::UseDatastore { setting } => use_datastore(home, setting, reporter)?,
            Step::InstallBinary { version } => install_self::install(home, version)?,
            Step::SetPort { port } => config::update(home, |_| vec![("port", (*port).into())])?,
            Step::MakeWorkspace { path } | Step::AdoptWorkspace { path } => {
                scaffold::make(path).map_err(|source| ApplyError::Io { path: path.clone(), source })?;
            }
            Step::WriteReceipt => {
                write_receipt(home, plan, version, plan.password_known && applied.password.is_none())?;
            }
        }
        journal.advance()?;
    }
    journal.finish()?;
    Ok(applied)
}

/// Installs the parts of the plan that can be added while an instance runs.
pub async fn get_extras(home: &Home, plan: &Plan, sources: &Sources, reporter: &dyn Reporter) {
    let (packages, ui) = Extra::begin(home, plan);
    Extra::report_result(packages, reporter).await;
    Extra::report_result(ui, reporter).await;
    for step in &plan.steps {
        if let Step::UpdatePostgres { from } = step {
            update_postgres(home, from, sources, reporter).await;
        }
    }
}

/// Installs a newer minor version. A failure is only a warning, because the installed version works.
async fn update_postgres(home: &Home, from: &str, sources: &Sources, reporter: &dyn Reporter) {
    reporter.report(match acquire::update(home, sources, from, reporter).await {
        Ok(installed) => Progress::Finished(format!(
            "PostgreSQL {} is installed next to {from}; use it with: leoflow lite restart",
            installed.version
        )),
        Err(error) => Progress::Warning(format!("cannot install PostgreSQL {NEWEST}, {from} stays in use: {error}")),
    });
}

/// Value for a key that the config lacks.
fn new_value(key: &str, plan: &Plan, password: &str) -> Result<Value, ApplyError> {
    Ok(match key {
        "instance_name" => plan.instance_name.as_deref().unwrap_or(config::instance_name(None)).into(),
        "workspace" => plan.workspace.to_string_lossy().into_owned().into(),
        "admin_password_hash" => password::hash(password)?.into(),
        // jwt_secret and encryption_key
        _ => random::hex_256().into(),
    })
}

/// Comment at the start of a new `config.yaml`.
const HEADER: &str = "# Leoflow Lite. `leoflow config list --origin` shows the effective settings, `leoflow verify-config` checks them.\n\
                      # encryption_key and jwt_secret are secrets: without encryption_key, stored passwords cannot be decrypted.\n";

/// Variable with the path of a file whose first line is the admin password of a new instance.
const PASSWORD_FILE: &str = "LEOFLOW_ADMIN_PASSWORD_FILE";

/// A new admin password: the one in the file that the user names, otherwise a generated one, which must be shown.
struct NewPassword {
    text: String,
    is_generated: bool,
}

impl NewPassword {
    fn new() -> Result<Self, ApplyError> {
        let Some(path) = env_vars::path(PASSWORD_FILE) else {
            return Ok(Self { text: password::generate(), is_generated: true });
        };
        let mut text = String::new();
        let read = File::open(&path)
            .and_then(|file| BufReader::new(file.take(password::LONGEST as u64 + 2)).read_line(&mut text));
        read.map_err(|source| ApplyError::PasswordFile { path: path.clone(), source })?;
        let text = text.trim_end_matches(['\r', '\n']).to_owned();
        password::acceptable(&text).map_err(|source| ApplyError::Password { path, source })?;
        Ok(Self { text, is_generated: false })
    }

    fn into_shown(self) -> Option<String> {
        self.is_generated.then_some(self.text)
    }
}

/// Writes a complete config; returns the new admin password if it must be shown.
fn write_config(home: &Home, plan: &Plan, request: &Request) -> Result<Option<String>, ApplyError> {
    let new = NewPassword::new()?;
    let password = &new.text;
    let mut changes = Vec::new();
    for key in ["instance_name", "workspace"] {
        changes.push((key, new_value(key, plan, password)?));
    }
    changes.extend(request.datastore.as_ref().map(|setting| ("datastore", setting.to_value())));
    changes.push(("port", request.port.unwrap_or(config::DEFAULT_PORT).into()));
    changes.push(("admin_email", config::DEFAULT_ADMIN_EMAIL.into()));
    changes.push(("admin_password_hash", new_value("admin_password_hash", plan, password)?));
    changes.push(("session_epoch", 1.into()));
    for key in ["jwt_secret", "encryption_key"] {
        changes.push((key, new_value(key, plan, password)?));
    }
    config::replace(home, &config::set_keys(HEADER, &changes)?)?;
    Ok(new.into_shown())
}

/// Adds missing keys to the config; returns the new admin password if the config had none and it must be shown.
fn complete_config(home: &Home, plan: &Plan, keys: &[&'static str]) -> Result<Option<String>, ApplyError> {
    let is_new = keys.contains(&"admin_password_hash");
    let new = if is_new { Some(NewPassword::new()?) } else { None };
    let password = new.as_ref().map(|new| new.text.as_str()).unwrap_or_default();
    let mut changes = Vec::new();
    for key in keys {
        changes.push((*key, new_value(key, plan, password)?));
    }
    if is_new {
        // Write the receipt first: in the other order, a kill between the two writes leaves a password that counts as
        // shown although nobody saw it.
        Receipt::change(home, |receipt| receipt.password_shown = false)?;
    }
    config::update(home, |_| changes)?;
    Ok(new.and_then(NewPassword::into_shown))
}

fn create_cluster(home: &Home, reporter: &dyn Reporter) -> Result<(), ApplyError> {
    let installation = installation(home)?;
    let identity = Identity::for_postgres();
    if matches!(identity, Identity::Impossible) {
        return Err(ApplyError::NoIdentity);
    }
    let credentials = Credentials::load_or_create(home)?;
    reporter.report(Progress::Started("Creating the datastore".to_owned()));
    cluster::create(home, &installation, &credentials, &identity)?;
    reporter.report(Progress::Finished("Datastore created".to_owned()));
    Ok(())
}

/// Records the use of an external server, or creates a container. The caller has checked the datastore.
fn use_datastore(home: &Home, setting: &DatastoreSetting, reporter: &dyn Reporter) -> Result<(), ApplyError> {
    if let Some(url) = setting.external().map_err(LocationError::Url)? {
        return Ok(Location::external(home, &url)?.write(home)?);
    }
    let home_id = location::home_id(home)?;
    let container = Container::plan(home, &home_id)?;
    // Only a container left by an unfinished first setup is recreated: it has no data yet.
    let has_run = home.receipt().exists() || home.logs().join("server.log").exists();
    if !has_run {
        container.remove(&home_id)?;
    }
    container.refuse_existing()?;
    reporter.report(Progress::Started(format!("Getting {}", Container::image())));
    container.create(home, &home_id, &Credentials::load_or_create(home)?)?;
    reporter.report(Progress::Finished(format!("Created {}", container.description())));
    Ok(Location::docker(home, container)?.write(home)?)
}

fn installation(home: &Home) -> Result<Installation, ApplyError> {
    install::installed(home).ok_or_else(|| ApplyError::NoInstallation(home.postgres_installs()))
}

fn write_receipt(home: &Home, plan: &Plan, version: &str, password_shown: bool) -> Result<(), ApplyError> {
    let previous = Receipt::load(home)?;
    let receipt = Receipt {
        receipt_version: RECEIPT_VERSION,
        leoflow_version: version.to_owned(),
        set_up_at: previous.as_ref().map_or_else(clock::now_rfc3339, |previous| previous.set_up_at.clone()),
        home: home.root().to_owned(),
        workspace: plan.workspace.clone(),
        made_workspace: plan.made_workspace,
        password_shown,
        service: previous.as_ref().and_then(|previous| previous.service.clone()),
        shell_files: previous.map(|previous| previous.shell_files).unwrap_or_default(),
    };
    Ok(receipt.write(home)?)
}

/// Generates a new password if the last one was never shown because of a kill.
pub(crate) fn renew_unseen_password(home: &Home) -> Result<Option<String>, ApplyError> {
    if Receipt::load(home)?.is_none_or(|receipt| receipt.password_shown) {
        return Ok(None);
    }
    let Some(unseen_hash) = config::load(&home.config())?.map(|loaded| loaded.config.admin_password_hash) else {
        return Ok(None);
    };
    let new = NewPassword::new()?;
    let hash = password::hash(&new.text)?;
    let mut renewed = false;
    config::update(home, |loaded| {
        // A password that was set meanwhile is known to its user.
        renewed = loaded.config.admin_password_hash == unseen_hash;
        if renewed { vec![("admin_password_hash", hash.into())] } else { Vec::new() }
    })?;
    if !new.is_generated {
        mark_password_shown(home)?;
    }
    Ok(new.into_shown().filter(|_| renewed))
}

/// Records the installed version in the receipt.
pub(crate) fn record_version(home: &Home, version: &str) -> Result<(), ReceiptError> {
    Receipt::change(home, |receipt| receipt.leoflow_version = version.to_owned())
}

/// Records that the password was shown.
pub fn mark_password_shown(home: &Home) -> Result<(), ReceiptError> {
    Receipt::change(home, |receipt| receipt.password_shown = true)
}
