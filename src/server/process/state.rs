//! State shared by all requests.

use super::change_feed::Changes;
use super::database::Database;
use super::newest_release::NewestRelease;
use super::own_program::OwnProgram;
use super::ui_component::UiComponent;
use crate::dag_code::questions::Questions;
use crate::dag_files::parse_requests::ParseRequests;
use crate::environments::Environments;
use crate::environments::provider_cache::ProviderCache;
use crate::login::logins::Logins;
use crate::login::revoked::Revoked;
use jiff::Timestamp;
use leoflow_base::auth::cipher::Cipher;
use leoflow_base::auth::token::{Claims, Signer};
use leoflow_base::config::{self, Loaded, SecretReference};
use leoflow_base::home::{Home, config_files};
use leoflow_base::sys::clock;
use leoflow_engine::store::dag::structures::Structures;
use leoflow_python::SharedInterpreter;
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
    /// Notified when a DAG is deleted whose file may still exist.
    pub dag_deleted: Notify,
    /// Files to parse again on request.
    pub parse_requests: ParseRequests,
    /// Notified when a Variable or Connection changes.
    pub store_changed: Notify,
    /// True once the DAG files found at the start are parsed, or after a timeout.
    pub initial_parse: watch::Sender<bool>,
    /// True once the public listeners are served. A server on trial, as during an upgrade, serves only a private
    /// socket.
    pub doors: watch::Sender<bool>,
    /// The socket of a server on trial.
    pub private_socket: Option<PathBuf>,
    /// When the scheduler was last active, or saw that another server leads.
    pub scheduler_beat: SchedulerBeat,
    /// Asks the code of DAG files; set when there is a workspace and the scheduler has started.
    pub questions: OnceLock<Questions>,
    /// Held while a trial task runs: an empty task that tests the whole way through scheduler, agent and Python.
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
    /// Structures of DAGs that lists have returned.
    pub structures: Structures,
}

/// When the scheduler last gave a sign of life: seconds since the Unix epoch; 0 before the first one.
#[derive(Default)]
pub struct SchedulerBeat(AtomicI64);

impl SchedulerBeat {
    /// An idle scheduler wakes at least once a minute.
    const SILENCE_LIMIT: i64 = 90;

    pub fn beat(&self) {
        self.0.store(clock::unix_seconds(), Ordering::Relaxed);
    }

    pub fn last(&self) -> Option<jiff::Timestamp> {
        jiff::Timestamp::from_second(self.0.load(Ordering::Relaxed)).ok().filter(|time| time.as_second() > 0)
    }

    pub fn is_alive(&self) -> bool {
        clock::unix_seconds() - self.0.load(Ordering::Relaxed) < Self::SILENCE_LIMIT
    }
}

/// The parts of `config.yaml` that logins depend on. Reloaded when the file changes, so that a password reset takes
/// effect at once.
pub struct Secrets {
    path: PathBuf,
    /// Files they were read from, with their stamps.
    read_files: Vec<(PathBuf, Stamp)>,
    pub admin_email: String,
    pub admin_password_hash: String,
    pub epoch: u64,
    signer: Signer,
}

impl Secrets {
    /// `Err` names the missing key.
    pub fn new(path: PathBuf, loaded: &Loaded) -> Result<Self, &'static str> {
        let config = &loaded.config;
        let secret = config.jwt_secret.as_deref().ok_or("jwt_secret")?;
        let hash = config.admin_password_hash.clone().ok_or("admin_password_hash")?;
        Ok(Self {
            // No stamp yet, so the first request reloads the file.
            read_files: vec![(path.clone(), None)],
            path,
            admin_email: config.admin_email.clone(),
            admin_password_hash: hash,
            epoch: config.session_epoch,
            signer: Signer::new(secret),
        })
    }

    /// Reads the secrets again if a file that they come from has changed.
    fn refresh(&mut self) {
        if self.read_files.iter().all(|(path, read_stamp)| read_stamp.is_some() && stamp(path) == *read_stamp) {
            return;
        }
        // Stamped before they are read, so that a change in between is noticed next time. A new or removed file changes
        // the folder.
        let mut paths: Vec<PathBuf> = self.path.parent().map(Path::to_owned).into_iter().collect();
        paths.push(self.path.clone());
        paths.extend(config_files::over(&self.path).unwrap_or_default());
        let references =
            config::read_file(&self.path).ok().flatten().map(|loaded| loaded.secret_references()).unwrap_or_default();
        paths.extend(references.into_iter().filter_map(|(_, reference)| match reference {
            SecretReference::File(path) => Some(path),
            SecretReference::Variable(_) => None,
        }));
        let read_files = paths.into_iter().map(|path| (path.clone(), stamp(&path))).collect();
        // A broken file is ignored: the last valid settings stay in effect.
        if let Ok(Some(loaded)) = config::load_with_secrets(&self.path)
            && let Ok(new) = Self::new(self.path.clone(), &loaded)
        {
            *self = Self { read_files, ..new };
        }
    }
}

/// Modification time and inode; `None` for a missing file.
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
            parse_requests: ParseRequests::default(),
            store_changed: Notify::new(),
            initial_parse: watch::Sender::new(false),
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

    /// Returns the socket at which processes started by this server can reach it now.
    pub fn own_socket(&self) -> PathBuf {
        match &self.private_socket {
            Some(private) if !*self.doors.borrow() => private.clone(),
            _ => self.home.api_socket(),
        }
    }

    pub fn secrets(&self) -> MutexGuard<'_, Secrets> {
        // No holder can panic halfway through a change.
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.refresh();
        secrets
    }

    /// Reloads the secrets unconditionally. `Err` names the missing one; then nothing changes.
    pub fn reload_secrets(&self) -> Result<(), &'static str> {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = config::load_with_secrets(&secrets.path).ok().flatten().ok_or("a secret")?;
        *secrets = Secrets::new(secrets.path.clone(), &loaded)?;
        Ok(())
    }

    pub fn issue_token(&self, epoch: u64) -> String {
        let secrets = self.secrets();
        secrets.signer.issue(&secrets.admin_email, epoch, clock::unix_seconds())
    }

    /// Returns the claims of a valid token that is not revoked.
    pub fn check_token(&self, token: &str) -> Option<Claims> {
        let secrets = self.secrets();
        let claims = secrets.signer.check(token, secrets.epoch, clock::unix_seconds());
        claims.filter(|_| !self.revoked.has(token))
    }

    /// Returns the name of the session cookie. It contains the port, since cookies ignore ports and two instances on
    /// one machine need different names.
    pub fn cookie_name(&self) -> String {
        format!("leoflow_session_{}", self.port)
    }
}
