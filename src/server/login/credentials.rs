//! Logins: the administrator's credentials, tokens, the throttling of logins, and revoked tokens.

use super::logins::Logins;
use super::revoked::Revoked;
use crate::state::Core;
use leoflow_base::auth::api_token::{ApiToken, ApiTokens};
use leoflow_base::auth::token::{Bearer, Binding, Claims, Signer};
use leoflow_base::config::{self, Loaded, SecretReference};
use leoflow_base::home::{Home, config_files};
use leoflow_base::sys::clock;
use leoflow_base::sys::mutex::lock;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;
use tracing::warn;

pub struct Auth {
    pub core: Arc<Core>,
    secrets: Mutex<Secrets>,
    pub logins: Logins,
    pub revoked: Revoked,
}

impl Auth {
    pub fn new(core: Arc<Core>, secrets: Secrets) -> Self {
        Self { core, secrets: Mutex::new(secrets), logins: Logins::new(), revoked: Revoked::default() }
    }

    pub fn secrets(&self) -> MutexGuard<'_, Secrets> {
        let mut secrets = lock(&self.secrets);
        secrets.refresh();
        secrets
    }

    /// Returns the name under which changes by the administrator are recorded.
    pub fn admin_email(&self) -> String {
        self.secrets().admin_email.clone()
    }

    /// Reloads the secrets unconditionally. `Err` names the missing one, or says "a secret" if the files cannot be
    /// read; then nothing changes.
    pub fn reload_secrets(&self) -> Result<(), &'static str> {
        let mut secrets = lock(&self.secrets);
        let loaded = config::load_with_secrets(&secrets.home.config()).ok().flatten().ok_or("a secret")?;
        *secrets = Secrets::new(secrets.home.clone(), &loaded)?;
        Ok(())
    }

    pub fn issue_token(&self, bearer: Bearer, binding: &Binding) -> String {
        let secrets = self.secrets();
        secrets.signer.issue(&secrets.admin_email, bearer, binding, clock::unix_seconds())
    }

    /// Returns the claims of a valid token that is not revoked.
    pub fn check_token(&self, token: &str) -> Option<Claims> {
        let secrets = self.secrets();
        let claims = secrets.signer.check(token, &secrets.binding, clock::unix_seconds());
        claims.filter(|_| !self.revoked.has(token))
    }

    /// Returns the valid API token with this text.
    pub fn api_token(&self, text: &str) -> Option<ApiToken> {
        let secrets = self.secrets();
        secrets.api_tokens.as_ref()?.find(text, &secrets.signer, secrets.epoch).cloned()
    }

    /// Returns the name of the session cookie. It contains the port, since cookies ignore ports and two instances on
    /// one machine need different names.
    pub fn cookie_name(&self) -> String {
        format!("leoflow_session_{}", self.core.phase.port)
    }
}

/// The parts of `config.yaml` that logins depend on. Reloaded when the file changes, so that a password reset takes
/// effect at once.
pub struct Secrets {
    home: Home,
    /// The files that the secrets were read from and the folder of `config.yaml`, with their stamps.
    read_files: Vec<(PathBuf, Stamp)>,
    pub admin_email: String,
    pub admin_password_hash: String,
    epoch: u64,
    /// What valid tokens are bound to.
    pub binding: Binding,
    signer: Signer,
    /// `None` if the file cannot be read.
    api_tokens: Option<ApiTokens>,
}

impl Secrets {
    /// `Err` names the missing key.
    pub fn new(home: Home, loaded: &Loaded) -> Result<Self, &'static str> {
        let config = &loaded.config;
        let secret = config.jwt_secret.as_deref().ok_or("jwt_secret")?;
        let hash = config.admin_password_hash.clone().ok_or("admin_password_hash")?;
        let (epoch, signer) = (config.session_epoch, Signer::new(secret));
        Ok(Self {
            api_tokens: read_api_tokens(&home, &signer, epoch),
            // Without a stamp, the first `refresh` reads the file again.
            read_files: vec![(home.config(), None)],
            home,
            admin_email: config.admin_email.clone(),
            binding: signer.binding(epoch, &hash),
            admin_password_hash: hash,
            epoch,
            signer,
        })
    }

    /// Returns what tokens will be bound to once `hash`, another hash of the same password, is in effect.
    pub fn binding_with(&self, hash: &str) -> Binding {
        self.signer.binding(self.epoch, hash)
    }

    /// Reads the secrets again if a file that they come from has changed.
    fn refresh(&mut self) {
        if self.read_files.iter().all(|(path, read_stamp)| read_stamp.is_some() && stamp(path) == *read_stamp) {
            return;
        }
        // Takes the stamps before the files are read, so that the next call notices a change in between. A new, replaced
        // or removed file changes the stamp of the folder.
        let config = self.home.config();
        let mut paths: Vec<PathBuf> = vec![self.home.root().to_owned(), config.clone()];
        paths.extend(Some(self.home.api_tokens()).filter(|path| path.exists()));
        paths.extend(config_files::override_files(&config).unwrap_or_default());
        let references =
            config::read_file(&config).ok().flatten().map(|loaded| loaded.secret_references()).unwrap_or_default();
        paths.extend(references.into_iter().filter_map(|(_, reference)| match reference {
            SecretReference::File(path) => Some(path),
            SecretReference::Variable(_) => None,
        }));
        let read_files = paths.into_iter().map(|path| (path.clone(), stamp(&path))).collect();
        // A broken file is ignored: the last valid settings stay in effect.
        match config::load_with_secrets(&config).ok().flatten().map(|loaded| Self::new(self.home.clone(), &loaded)) {
            Some(Ok(new)) => *self = Self { read_files, ..new },
            _ => self.api_tokens = read_api_tokens(&self.home, &self.signer, self.epoch),
        }
    }
}

/// Reads the API tokens; none is accepted if that fails.
fn read_api_tokens(home: &Home, signer: &Signer, epoch: u64) -> Option<ApiTokens> {
    ApiTokens::read(&home.api_tokens(), signer, epoch)
        .inspect_err(|error| warn!("API tokens are refused: {error}"))
        .ok()
}

/// Modification time and inode; `None` for a missing file.
type Stamp = Option<(SystemTime, u64)>;

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.ino()))
}
