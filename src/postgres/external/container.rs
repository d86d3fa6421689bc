//! PostgreSQL in a container of our own, run with docker's or podman's command line: it has its own volume, and its
//! port is bound to localhost only.

use crate::location::Container;
use crate::{Credentials, INITDB, NEWEST, SETTINGS, SUPERUSER};
use leoflow_base::home::{Home, instances};
use leoflow_base::sys::fs::files;
use leoflow_base::sys::process::command;
use leoflow_base::sys::{env_vars, random};
use sha2::{Digest, Sha256};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error("neither docker nor podman is on the PATH")]
    NoRuntime,
    #[error("{runtime} {verb} failed: {stderr}")]
    Failed { runtime: String, verb: String, stderr: String },
    #[error("cannot run {runtime} {verb}: {source}")]
    DoesNotRun { runtime: String, verb: String, source: io::Error },
    #[error("a {kind} {name} exists already and does not belong to this home")]
    Taken { runtime: String, kind: &'static str, name: String },
    #[error("the {kind} {name} still exists and contains earlier data")]
    Exists { runtime: String, kind: &'static str, name: String },
    #[error("the volume {volume} is in use by the container {user}")]
    InUse { runtime: String, volume: String, user: String },
    #[error("cannot prepare the container: {0}")]
    Io(#[from] io::Error),
}

const RUNTIMES: [&str; 2] = ["docker", "podman"];
/// Digest of the image of `NEWEST` for all platforms, as recorded by the image's project:
/// <https://github.com/docker-library/repo-info/blob/master/repos/postgres/remote/18.6.md>.
const IMAGE_DIGEST: &str = "sha256:86c951e05bf56c93d95d397747fb8820ac76cc3bedb78f43abd83eedbe3666ae";
/// Label with the id of the owning home.
const LABEL: &str = "leoflow.home";
/// Data folder in the image of PostgreSQL 18: <https://hub.docker.com/_/postgres>.
const DATA: &str = "/var/lib/postgresql";
/// Time limit of a command of the runtime.
const LIMIT: Duration = Duration::from_secs(60);
/// Time limit for creating the container, which may have to download the image.
const CREATE_LIMIT: Duration = Duration::from_secs(900);
/// Time for the shutdown checkpoint, in seconds; then the container is killed.
pub(crate) const STOP_SECONDS: u32 = 15;

impl Container {
    /// Plans the container of this home, with the first runtime that answers. Changes nothing.
    pub fn plan(home: &Home, home_id: &str) -> Result<Self, ContainerError> {
        let instance = instances::name_of(home).unwrap_or_else(|| {
            // Homes in other places have no name; a moved home keeps the name in its record.
            hex::encode(&Sha256::digest(home.root().as_os_str().as_bytes())[..4])
        });
        let mut container = Self {
            runtime: String::new(),
            name: format!("leoflow-postgres-{instance}"),
            volume: format!("leoflow-data-{instance}"),
            port: free_port()?,
        };
        container.choose_runtime()?;
        match container.find(|owner| owner != home_id)? {
            Some((kind, name)) => Err(ContainerError::Taken { runtime: container.runtime, kind, name }),
            None => Ok(container),
        }
    }

    /// Selects the first runtime that answers, since a client may be installed without its daemon. If none answers, the
    /// first error is returned.
    fn choose_runtime(&mut self) -> Result<(), ContainerError> {
        let is_on_path = |name: &&str| env_vars::search_path().iter().any(|folder| folder.join(name).is_file());
        let mut first_error = None;
        for runtime in RUNTIMES.into_iter().filter(is_on_path) {
            runtime.clone_into(&mut self.runtime);
            match self.run(&["version", "--format", "{{.Server.Version}}"], LIMIT) {
                Ok(_) => return Ok(()),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or(ContainerError::NoRuntime))
    }

    /// Fails if the container or volume exists: it may contain the data of an earlier move.
    pub fn refuse_existing(&self) -> Result<(), ContainerError> {
        match self.find(|_| true)? {
            Some((kind, name)) => Err(ContainerError::Exists { runtime: self.runtime.clone(), kind, name }),
            None => Ok(()),
        }
    }

    /// Returns kind and name of the container or the volume that exists with such an owner.
    fn find(&self, is_sought: impl Fn(&str) -> bool) -> Result<Option<(&'static str, String)>, ContainerError> {
        for (kind, name) in [("container", &self.name), ("volume", &self.volume)] {
            if self.owner_of(kind, name)?.is_some_and(|owner| is_sought(&owner)) {
                return Ok(Some((kind, name.clone())));
            }
        }
        Ok(None)
    }

    /// The image of the version that this release runs. The digest selects it; the tag is informational.
    pub fn image() -> String {
        format!("docker.io/library/postgres:{NEWEST}@{IMAGE_DIGEST}")
    }

    /// Creates volume and container, which must not exist.
    pub fn create(&self, home: &Home, home_id: &str, credentials: &Credentials) -> Result<(), ContainerError> {
        let label = format!("{LABEL}={home_id}");
        self.run(&["volume", "create", "--label", &label, &self.volume], LIMIT)?;
        // An older release may have been killed before it removed this file with the password.
        files::remove_any(&home.run().join("container.env"))?;
        // The runtime takes the values from its own environment: every user of the machine could read a password in
        // argv, and a file would stay after a kill.
        let initdb = format!("{INITDB} --auth-host=scram-sha-256");
        let environment = [
            ("POSTGRES_USER", SUPERUSER),
            ("POSTGRES_PASSWORD", credentials.superuser_password().unwrap_or_default()),
            ("POSTGRES_DB", SUPERUSER),
            ("POSTGRES_INITDB_ARGS", initdb.as_str()),
        ];
        let mounted = format!("{}:{DATA}", self.volume);
        let published = format!("127.0.0.1:{}:5432", self.port);
        let image = Self::image();
        let mut arguments = vec!["create", "--name", &self.name, "--label", &label, "--volume", &mounted];
        arguments.extend(environment.iter().flat_map(|(name, _)| ["--env", name]));
        arguments.extend(["--publish", &published, "--shm-size", "128m", &image, "postgres"]);
        arguments.extend(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        self.run_with(&arguments, &environment, CREATE_LIMIT).map(drop)
    }

    /// Command that runs as long as the container and forwards its output.
    pub(crate) fn start_attached(&self) -> Command {
        let mut command = Command::new(&self.runtime);
        command.args(["start", "--attach", &self.name]);
        command
    }

    pub fn stop(&self) -> Result<(), ContainerError> {
        let seconds = STOP_SECONDS.to_string();
        self.run(&["stop", "--time", &seconds, &self.name], LIMIT).map(drop)
    }

    /// Fails if another container uses the volume, because removal would stop halfway.
    pub fn check_removable(&self) -> Result<(), ContainerError> {
        let filter = format!("volume={}", self.volume);
        let users = self.run(&["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"], LIMIT)?;
        match users.split_whitespace().find(|name| *name != self.name) {
            Some(user) => Err(ContainerError::InUse {
                runtime: self.runtime.clone(),
                volume: self.volume.clone(),
                user: user.to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// False only when the container certainly does not exist.
    pub fn may_exist(&self) -> bool {
        !matches!(self.owner_of("container", &self.name), Ok(None))
    }

    /// Removes container and volume if this home created them.
    pub fn remove(&self, home_id: &str) -> Result<(), ContainerError> {
        if self.owner_of("container", &self.name)?.as_deref() == Some(home_id) {
            self.run(&["rm", "--force", &self.name], LIMIT)?;
        }
        if self.owner_of("volume", &self.volume)?.as_deref() == Some(home_id) {
            self.run(&["volume", "rm", &self.volume], LIMIT)?;
        }
        Ok(())
    }

    /// Home id of the owner of a container or volume; `None` if it does not exist, empty if it has no label.
    fn owner_of(&self, kind: &str, name: &str) -> Result<Option<String>, ContainerError> {
        let format = match kind {
            "volume" => format!("{{{{index .Labels \"{LABEL}\"}}}}"),
            _ => format!("{{{{index .Config.Labels \"{LABEL}\"}}}}"),
        };
        match self.run(&[kind, "inspect", "--format", &format, name], LIMIT) {
            Ok(label) => Ok(Some(label.trim().to_owned())),
            // Both runtimes use these words; other errors do not prove that the object is absent.
            Err(ContainerError::Failed { stderr, .. }) if stderr.to_ascii_lowercase().contains("no such") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Runs a command of the runtime and returns its output.
    fn run(&self, arguments: &[&str], limit: Duration) -> Result<String, ContainerError> {
        self.run_with(arguments, &[], limit)
    }

    fn run_with(
        &self,
        arguments: &[&str],
        environment: &[(&str, &str)],
        limit: Duration,
    ) -> Result<String, ContainerError> {
        let runtime = self.runtime.clone();
        let verb = arguments.iter().take(2).copied().collect::<Vec<_>>().join(" ");
        let mut program = Command::new(&runtime);
        match command::output_within(program.args(arguments).envs(environment.iter().copied()), limit) {
            Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            Ok(output) => {
                let stderr = command::failure(&String::from_utf8_lossy(&output.stderr), output.status);
                Err(ContainerError::Failed { runtime, verb, stderr })
            }
            Err(source) => Err(ContainerError::DoesNotRun { runtime, verb, source }),
        }
    }
}

/// Picks a free port below the ephemeral range: a port of that range may be in use when the container starts again.
fn free_port() -> io::Result<u16> {
    let mut last_error = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..50 {
        let [high, low] = random::bytes::<2>();
        let port = 20_000 + u16::from_be_bytes([high, low]) % 12_000;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}
