//! A PostgreSQL in a container of our own, by the command line of docker or podman: made with a volume that is ours, its
//! port on this machine alone.

use super::NO_HUGE_PAGES;
use super::{APPLICATION_DATABASE, Credentials, NEWEST, SUPERUSER};
use crate::home::{Home, instances};
use crate::sys::{command, env_vars, files, random};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::time::Duration;

/// What `datastore.json` has of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// `docker` or `podman`, as it is found on the PATH.
    pub runtime: String,
    pub name: String,
    pub volume: String,
    /// On 127.0.0.1.
    pub port: u16,
}

#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error("neither docker nor podman is on the PATH")]
    NoRuntime,
    #[error("{runtime} {verb} failed: {said}")]
    Failed { runtime: String, verb: String, said: String },
    #[error("{runtime} {verb} does not run: {source}")]
    DoesNotRun { runtime: String, verb: String, source: io::Error },
    #[error("there is a {kind} {name} already, and this home has not made it")]
    Taken { runtime: String, kind: &'static str, name: String },
    #[error("the {kind} {name} is still there, with what was left in it")]
    Exists { runtime: String, kind: &'static str, name: String },
    #[error("the volume {volume} is in use by the container {user}")]
    InUse { runtime: String, volume: String, user: String },
    #[error("cannot prepare it: {0}")]
    Io(#[from] io::Error),
}

const RUNTIMES: [&str; 2] = ["docker", "podman"];
/// Of the image of `NEWEST` for all platforms, as the image's own project records it:
/// <https://github.com/docker-library/repo-info/blob/master/repos/postgres/remote/18.6.md>.
const IMAGE_DIGEST: &str = "sha256:86c951e05bf56c93d95d397747fb8820ac76cc3bedb78f43abd83eedbe3666ae";
/// Says whose a container or a volume is.
const LABEL: &str = "leoflow.home";
/// Where the image of PostgreSQL 18 keeps its data: <https://hub.docker.com/_/postgres>.
const DATA: &str = "/var/lib/postgresql";
const LIMIT: Duration = Duration::from_secs(60);
/// The image may have to be fetched.
const CREATE_LIMIT: Duration = Duration::from_secs(900);
/// For a checkpoint; then it is ended.
pub const STOP_SECONDS: u32 = 15;
/// As in the one under a home, for what is not its own there.
const SETTINGS: &[&str] =
    &["max_connections=60", "shared_buffers=64MB", "jit=off", "max_wal_size=512MB", "timezone=UTC", NO_HUGE_PAGES];
const INITDB: &str = "--data-checksums --encoding=UTF8 --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8 --auth-host=scram-sha-256 \
    -c huge_pages=off";

impl Container {
    /// One that this home would have, by the first runtime that answers. Nothing is changed.
    pub fn plan(home: &Home, home_id: &str) -> Result<Self, ContainerError> {
        let instance = instances::name_of(home).unwrap_or_else(|| {
            // Homes elsewhere have no name; one that is moved keeps what its record says.
            hex::encode(&Sha256::digest(home.root().as_os_str().as_bytes())[..4])
        });
        let mut container = Self {
            runtime: String::new(),
            name: format!("leoflow-postgres-{instance}"),
            volume: format!("leoflow-data-{instance}"),
            port: free_port()?,
        };
        container.choose_runtime()?;
        for (kind, name) in [("container", &container.name), ("volume", &container.volume)] {
            let whose = container.label_of(kind, name)?;
            if whose.is_some_and(|whose| whose != home_id) {
                return Err(ContainerError::Taken { runtime: container.runtime.clone(), kind, name: name.clone() });
            }
        }
        Ok(container)
    }

    /// The client of one may be there without its daemon; then the error of the first is told if no other answers.
    fn choose_runtime(&mut self) -> Result<(), ContainerError> {
        let is_found = |name: &&str| env_vars::search_path().iter().any(|folder| folder.join(name).is_file());
        let mut failed = None;
        for runtime in RUNTIMES.into_iter().filter(is_found) {
            runtime.clone_into(&mut self.runtime);
            match self.run(&["version", "--format", "{{.Server.Version}}"], LIMIT) {
                Ok(_) => return Ok(()),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or(ContainerError::NoRuntime))
    }

    /// An error where there is one: it may have what an earlier move has left.
    pub fn refuse_existing(&self) -> Result<(), ContainerError> {
        for (kind, name) in [("container", &self.name), ("volume", &self.volume)] {
            if self.label_of(kind, name)?.is_some() {
                return Err(ContainerError::Exists { runtime: self.runtime.clone(), kind, name: name.clone() });
            }
        }
        Ok(())
    }

    /// The image, with the version that this release runs. The digest decides which it is; the tag is for people.
    pub fn image() -> String {
        format!("docker.io/library/postgres:{NEWEST}@{IMAGE_DIGEST}")
    }

    /// Makes volume and container, which are not there.
    pub fn create(&self, home: &Home, home_id: &str, credentials: &Credentials) -> Result<(), ContainerError> {
        let label = format!("{LABEL}={home_id}");
        self.run(&["volume", "create", "--label", &label, &self.volume], LIMIT)?;
        // A password in argv could be read by every user of the machine.
        let environment = home.run().join("container.env");
        let text = format!(
            "POSTGRES_USER={SUPERUSER}\nPOSTGRES_PASSWORD={}\nPOSTGRES_DB={SUPERUSER}\nPOSTGRES_INITDB_ARGS={INITDB}\n",
            credentials.superuser_password().unwrap_or_default()
        );
        files::write_atomic(&environment, text.as_bytes(), 0o600)?;
        let mounted = format!("{}:{DATA}", self.volume);
        let published = format!("127.0.0.1:{}:5432", self.port);
        let (image, file) = (Self::image(), environment.display().to_string());
        let mut arguments = vec!["create", "--name", &self.name, "--label", &label, "--volume", &mounted];
        arguments.extend(["--publish", &published, "--env-file", &file, "--shm-size", "128m", &image, "postgres"]);
        arguments.extend(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        let created = self.run(&arguments, CREATE_LIMIT);
        files::remove_any(&environment)?;
        created.map(drop)
    }

    /// Its program, which runs as long as the container does and gives what that prints.
    pub fn start_attached(&self) -> Command {
        let mut command = Command::new(&self.runtime);
        command.args(["start", "--attach", &self.name]);
        command
    }

    pub fn stop(&self) -> Result<(), ContainerError> {
        let seconds = STOP_SECONDS.to_string();
        self.run(&["stop", "--time", &seconds, &self.name], LIMIT).map(drop)
    }

    /// Refuses where a container that is not ours uses the volume: then the removal would end half done.
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

    /// False where it is certain that the container is not there.
    pub fn may_exist(&self) -> bool {
        !matches!(self.label_of("container", &self.name), Ok(None))
    }

    /// Removes both, where this home has made them.
    pub fn remove(&self, home_id: &str) -> Result<(), ContainerError> {
        if self.label_of("container", &self.name)?.as_deref() == Some(home_id) {
            self.run(&["rm", "--force", &self.name], LIMIT)?;
        }
        if self.label_of("volume", &self.volume)?.as_deref() == Some(home_id) {
            self.run(&["volume", "rm", &self.volume], LIMIT)?;
        }
        Ok(())
    }

    /// Whose it is; `None` when there is none, and nothing where it says nothing.
    fn label_of(&self, kind: &str, name: &str) -> Result<Option<String>, ContainerError> {
        let format = match kind {
            "volume" => format!("{{{{index .Labels \"{LABEL}\"}}}}"),
            _ => format!("{{{{index .Config.Labels \"{LABEL}\"}}}}"),
        };
        match self.run(&[kind, "inspect", "--format", &format, name], LIMIT) {
            Ok(found) => Ok(Some(found.trim().to_owned())),
            // Both runtimes say so in these words; anything else says nothing of what there is.
            Err(ContainerError::Failed { said, .. }) if said.to_ascii_lowercase().contains("no such") => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn run(&self, arguments: &[&str], limit: Duration) -> Result<String, ContainerError> {
        let runtime = self.runtime.clone();
        let verb = arguments.iter().take(2).copied().collect::<Vec<_>>().join(" ");
        let mut program = Command::new(&runtime);
        match command::output_within(program.args(arguments), limit) {
            Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            Ok(output) => {
                let said = command::failure(&String::from_utf8_lossy(&output.stderr), output.status);
                Err(ContainerError::Failed { runtime, verb, said })
            }
            Err(source) => Err(ContainerError::DoesNotRun { runtime, verb, source }),
        }
    }

    /// For people.
    pub fn shown(&self) -> String {
        format!("the container {} with the volume {} ({})", self.name, self.volume, self.runtime)
    }

    /// As a URL, for the relay.
    pub fn url(&self) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{}/{APPLICATION_DATABASE}?sslmode=disable", self.port)
    }
}

/// Below those that connections of this machine are given, which would be in the way of a start.
fn free_port() -> io::Result<u16> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..50 {
        let [high, low] = random::bytes::<2>();
        let port = 20_000 + u16::from_be_bytes([high, low]) % 12_000;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => last = error,
        }
    }
    Err(last)
}
