//! What every request may need.

use super::change_feed::Changes;
use super::dag_files::asked::Asked;
use super::database::Database;
use super::environments::Environments;
use super::logins::Logins;
use super::newest_release::NewestRelease;
use super::own_program::OwnProgram;
use super::provider_cache::ProviderCache;
use super::questions::Questions;
use super::revoked::Revoked;
use super::ui_component::UiComponent;
use crate::auth::cipher::Cipher;
use crate::auth::token::{Claims, Signer};
use crate::config::{self, Loaded, SecretPlace};
use crate::engine::store::structures::Structures;
use crate::home::{Home, config_files};
use crate::python::SharedInterpreter;
use crate::sys::clock;
use jiff::Timestamp;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;
use tokio::sync::{Notify, watch};

pub struct AppState {
    pub home: Home,
    pub started_at: Timestamp,
    pub port: u16,
    pub version: &'static str,
    pub database: Arc<Database>,
    pub cipher: Cipher,
    pub changes: Arc<Changes>,
    /// A DAG whose file may still be there was deleted.
    pub dag_deleted: Notify,
    /// Files to parse again.
    pub asked_files: Asked,
    /// A Variable or Connection is not as it was.
    pub store_changed: Notify,
    /// Whether the DAG files that were there at the start have been parsed, or have had their time.
    pub first_look: watch::Sender<bool>,
    /// Whether requests come over the listeners; on trial only those over the private socket do.
    pub doors: watch::Sender<bool>,
    /// Where a server on trial is asked.
    pub private_socket: Option<PathBuf>,
    /// When the scheduler was last at work or saw that there is none, as the one that leads.
    pub scheduler_beat: SchedulerBeat,
    /// For the code of DAG files: set where there is a workspace, once runs go on.
    pub questions: OnceLock<Questions>,
    /// Held while one runs.
    pub trial_task: tokio::sync::Mutex<()>,
    pub interpreter: Arc<SharedInterpreter>,
    pub environments: Arc<Environments>,
    pub providers: ProviderCache,
    secrets: Mutex<Secrets>,
    pub logins: Logins,
    pub revoked: Revoked,
    pub ui: Arc<UiComponent>,
    pub own_program: Arc<OwnProgram>,
    pub newest_release: Arc<NewestRelease>,
    /// Of the DAGs that lists have shown.
    pub structures: Structures,
}

/// Seconds since 1970; 0 before the first.
#[derive(Default)]
pub struct SchedulerBeat(AtomicI64);

impl SchedulerBeat {
    /// An idle scheduler wakes at least once a minute.
    const SILENCE_LIMIT: i64 = 90;

    pub fn beat(&self) {
        self.0.store(clock::unix_seconds(), Ordering::Relaxed);
    }

    pub fn last(&self) -> Option<jiff::Timestamp> {
        jiff::Timestamp::from_second(self.0.load(Ordering::Relaxed)).ok().filter(|at| at.as_second() > 0)
    }

    pub fn is_alive(&self) -> bool {
        clock::unix_seconds() - self.0.load(Ordering::Relaxed) < Self::SILENCE_LIMIT
    }
}

/// What of `config.yaml` logins depend on. Read again when the file changes, so that a password
/// reset works at once.
pub struct Secrets {
    path: PathBuf,
    /// What they were read from, as it was then.
    read: Vec<(PathBuf, Stamp)>,
    pub admin_email: String,
    pub admin_password_hash: String,
    pub epoch: u64,
    signer: Signer,
}

impl Secrets {
    /// `Err` names the key that is missing.
    pub fn new(path: PathBuf, loaded: &Loaded) -> Result<Self, &'static str> {
        let config = &loaded.config;
        let secret = config.jwt_secret.as_deref().ok_or("jwt_secret")?;
        let hash = config.admin_password_hash.clone().ok_or("admin_password_hash")?;
        Ok(Self {
            // Never looked at yet, so the first request reads the file again.
            read: vec![(path.clone(), None)],
            path,
            admin_email: config.admin_email.clone(),
            admin_password_hash: hash,
            epoch: config.session_epoch,
            signer: Signer::new(secret),
        })
    }

    fn refresh(&mut self) {
        if self.read.iter().all(|(path, then)| then.is_some() && stamp(path) == *then) {
            return;
        }
        // Before they are read: a change in between is seen the next time. A file that is new or gone changes the folder.
        let mut paths: Vec<PathBuf> = self.path.parent().map(Path::to_owned).into_iter().collect();
        paths.push(self.path.clone());
        paths.extend(config_files::over(&self.path).unwrap_or_default());
        let places = config::read_file(&self.path).ok().flatten().map(|loaded| loaded.places()).unwrap_or_default();
        paths.extend(places.into_iter().filter_map(|(_, place)| match place {
            SecretPlace::File(path) => Some(path),
            SecretPlace::Variable(_) => None,
        }));
        let before = paths.into_iter().map(|path| (path.clone(), stamp(&path))).collect();
        // A file that is broken meanwhile changes nothing: the last good one stays in force.
        if let Ok(Some(loaded)) = config::load_with_secrets(&self.path)
            && let Ok(new) = Self::new(self.path.clone(), &loaded)
        {
            *self = Self { read: before, ..new };
        }
    }
}

type Stamp = Option<(SystemTime, u64)>;

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.ino()))
}

impl AppState {
    pub fn new(
        home: Home,
        port: u16,
        version: &'static str,
        database: Database,
        (cipher, secrets): (Cipher, Secrets),
        private_socket: Option<PathBuf>,
        python: Option<PathBuf>,
    ) -> Self {
        let (database, changes) = (Arc::new(database), Arc::new(Changes::new()));
        let interpreter = Arc::new(SharedInterpreter::new(home.clone(), python));
        Self {
            environments: Arc::new(Environments::new(
                home.clone(),
                interpreter.clone(),
                database.clone(),
                changes.clone(),
            )),
            interpreter,
            home,
            started_at: Timestamp::now(),
            port,
            version,
            database,
            cipher,
            changes,
            dag_deleted: Notify::new(),
            asked_files: Asked::default(),
            store_changed: Notify::new(),
            first_look: watch::Sender::new(false),
            doors: watch::Sender::new(private_socket.is_none()),
            private_socket,
            scheduler_beat: SchedulerBeat::default(),
            questions: OnceLock::new(),
            trial_task: tokio::sync::Mutex::default(),
            secrets: Mutex::new(secrets),
            logins: Logins::new(),
            own_program: Arc::default(),
            newest_release: Arc::default(),
            revoked: Revoked::default(),
            ui: Arc::default(),
            structures: Structures::default(),
            providers: ProviderCache::default(),
        }
    }

    /// Where what is started by this server, now, finds it.
    pub fn own_socket(&self) -> PathBuf {
        match &self.private_socket {
            Some(private) if !*self.doors.borrow() => private.clone(),
            _ => self.home.api_socket(),
        }
    }

    pub fn secrets(&self) -> MutexGuard<'_, Secrets> {
        // Nothing that holds it can panic half way through a change.
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.refresh();
        secrets
    }

    /// Whatever their files look like. `Err` names what is not to be had, and all stays as it was.
    pub fn read_secrets_again(&self) -> Result<(), &'static str> {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = config::load_with_secrets(&secrets.path).ok().flatten().ok_or("a secret")?;
        *secrets = Secrets::new(secrets.path.clone(), &loaded)?;
        Ok(())
    }

    pub fn issue_token(&self, epoch: u64) -> String {
        let secrets = self.secrets();
        secrets.signer.issue(&secrets.admin_email, epoch, clock::unix_seconds())
    }

    pub fn check_token(&self, token: &str) -> Option<Claims> {
        let secrets = self.secrets();
        let claims = secrets.signer.check(token, secrets.epoch, clock::unix_seconds());
        claims.filter(|_| !self.revoked.has(token))
    }

    /// Cookies know no ports: two instances on one machine must not share a name.
    pub fn cookie_name(&self) -> String {
        format!("leoflow_session_{}", self.port)
    }
}
