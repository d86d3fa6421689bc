//! Examining a home. Changes nothing; what can be mended without losing anything carries its mend.

use super::check::{Check, Mend};
use super::doctor_python::{self, ServersPython};
use super::facts::config_is_blank;
use super::other_copy::other_copy;
use super::service;
use super::{doctor_backups, doctor_postgres, install_self};
use crate::config::{self, Config};
use crate::home::{Home, journal, lock};
use crate::postgres::acquire::Sources;
use crate::postgres::cluster::{self, ClusterState};
use crate::protocol::control;
use crate::protocol::status::InstanceState;
use crate::python;
use crate::schema::{self, State, data_migration};
use crate::supervisor;
use crate::sys::user_namespace::Identity;
use crate::sys::{disk, files, ports, user};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// A first start needs some 150 MB, a busy one more.
const SPACE_WANTED: u64 = 1024 * 1024 * 1024;
const SPACE_NEEDED: u64 = 300 * 1024 * 1024;
const MIB: u64 = 1024 * 1024;

/// What the database says of itself.
#[derive(Debug)]
pub struct SchemaFound {
    /// How it compares with this release.
    pub state: State,
    /// A data migration that has failed.
    pub failed: Option<data_migration::Progress>,
    /// As the server says, perhaps with the name of its packager.
    pub server_version: Option<String>,
}

/// Why the database does not say what it is, and what to do about it.
#[derive(Debug)]
pub struct Unasked {
    pub reason: String,
    pub remedy: String,
}

/// Every check, in the order a reader would want them. `schema` is what the database was found to
/// be; `None` when there is none yet.
/// `servers` is what a running server says.
pub fn examine(
    home: &Home,
    sources: &Sources,
    schema: Option<Result<SchemaFound, Unasked>>,
    servers: &ServersPython,
) -> Vec<Check> {
    let running = lock::is_held(home).unwrap_or(false);
    let loaded = config::load(&home.config());
    let config = loaded.as_ref().ok().and_then(Option::as_ref).map(|loaded| loaded.config.clone());
    let mut checks = vec![platform(), home_folder(home), owner(home), space(home)];
    checks.extend(permissions(home));
    checks.push(configuration(home, &loaded));
    checks.push(port(home, config.as_ref(), running));
    let server = schema.as_ref().and_then(|found| found.as_ref().ok()?.server_version.clone());
    checks.push(doctor_postgres::programs(home, sources, server.as_deref()));
    checks.push(doctor_postgres::datastore(home, server.as_deref()));
    checks.extend(instance(home));
    match journal::change_under_way(home) {
        // What the schema is meanwhile says nothing.
        Some(change) => checks.push(Check::warning("upgrade", change.to_string(), "leoflow upgrade --resume")),
        None => checks.push(schema_check(schema)),
    }
    checks.push(binaries(home));
    checks.extend(path(home));
    checks.extend(doctor_backups::backups(home, config.as_ref()));
    checks.extend(service(home));
    let configured = config.as_ref().and_then(|config| config.python.as_deref());
    checks.push(doctor_python::python_found(servers.python.as_deref().or(configured)));
    checks.push(doctor_python::environments(home, &servers.failed));
    checks.push(doctor_python::processes(home));
    checks.extend(config.as_ref().and_then(|config| workspace(config.workspace.as_deref()?)));
    checks.push(remains(home, running));
    checks
}

/// What starts it at login, where that is installed.
fn service(home: &Home) -> Option<Check> {
    let service = service::installed(home).ok().flatten()?;
    let again = "leoflow service install";
    Some(match service.is_enabled() {
        Err(error) => Check::warning("service", format!("{}: {error}", service.unit()), "leoflow service status"),
        Ok(false) => Check::warning("service", format!("{} is disabled", service.unit()), again),
        Ok(true) if !service.is_current() => {
            Check::warning("service", format!("{} is not as this release writes it", service.file.display()), again)
        }
        Ok(true) => Check::ok("service", format!("{}, {}", service.unit(), service::starts_in_words(&service))),
    })
}

/// What of the workspace the server cannot see.
fn workspace(folder: &Path) -> Option<Check> {
    let found = python::scan(folder, python::Syntax::from_environment(), python::LIMITS, &BTreeMap::new());
    Some(match found {
        Err(error) => Check::problem(
            "workspace",
            format!("{} cannot be read: {error}", folder.display()),
            "its DAGs stay as they were until it can be; or name another folder as `workspace` in config.yaml",
        ),
        Ok(scan) => match scan.unseen.iter().next() {
            None => Check::ok("workspace", format!("{}, {} Python file(s)", folder.display(), scan.files.len())),
            Some((place, reason)) => Check::warning(
                "workspace",
                format!(
                    "{} of its folders were not looked through whole, such as {}",
                    scan.unseen.len(),
                    place.display()
                ),
                reason.clone(),
            ),
        },
    })
}

fn platform() -> Check {
    let platform = format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH);
    match Identity::for_postgres() {
        Identity::Own => Check::ok("platform", platform),
        Identity::Mapped(single) => match single.check_allowed() {
            Ok(()) => Check::ok("platform", format!("{platform}; PostgreSQL runs in a user namespace")),
            Err(error) => Check::problem(
                "platform",
                format!("{platform}; PostgreSQL needs a user namespace to run for this user: {error}"),
                "run as an ordinary user, or allow user namespaces",
            ),
        },
        Identity::Impossible => {
            let uid = user::effective_uid();
            Check::problem(
                "platform",
                format!("{platform}; user {uid} has no passwd entry, nor has anybody else"),
                "run as an ordinary user",
            )
        }
    }
}

fn home_folder(home: &Home) -> Check {
    let path = home.root().display();
    if home.exists() {
        Check::ok("home", path.to_string())
    } else {
        Check::warning("home", format!("{path} does not exist yet"), "leoflow setup")
    }
}

/// Files of another user, such as a command run as root leaves: the user's own commands cannot change them.
fn owner(home: &Home) -> Check {
    let own = user::effective_uid();
    let name = |uid| user::login_name(uid).unwrap_or_else(|| format!("user {uid}"));
    let owner_of = |path: &Path| fs::symlink_metadata(path).ok().map(|meta| meta.uid());
    let folders = [home.root().to_owned(), home.run(), home.logs(), home.backups(), home.postgres()];
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let strange = entries.map(|entry| entry.path()).find(|path| owner_of(path).is_some_and(|uid| uid != own));
    match strange {
        None => Check::ok("owner", name(own)),
        Some(path) => Check::problem(
            "owner",
            format!("{} belongs to {}", path.display(), owner_of(&path).map(name).unwrap_or_default()),
            format!("sudo chown -hR {own} '{}'", home.root().display()),
        ),
    }
}

fn space(home: &Home) -> Check {
    match disk::free_bytes(home.root()) {
        Ok(free) if free < SPACE_NEEDED => Check::problem(
            "space",
            format!("{} MiB free", free / MIB),
            format!("free at least {} MiB", SPACE_NEEDED / MIB),
        ),
        Ok(free) if free < SPACE_WANTED => {
            Check::warning("space", format!("{} MiB free", free / MIB), "free some space before the datastore needs it")
        }
        Ok(free) => Check::ok("space", format!("{} MiB free", free / MIB)),
        Err(error) => {
            Check::warning("space", format!("cannot be told: {error}"), "check that the home's disk is mounted")
        }
    }
}

/// What must be readable by nobody else.
fn permissions(home: &Home) -> Vec<Check> {
    let private = [
        (home.root().to_owned(), 0o700),
        (home.run(), 0o700),
        (home.config(), 0o600),
        (home.postgres_credentials(), 0o600),
    ];
    let open: Vec<Check> = private
        .into_iter()
        .filter_map(|(path, wanted)| {
            let mode = files::mode(&path).ok()?;
            (mode & 0o077 != 0).then(|| {
                let detail = format!("{} can be read by others (mode {mode:04o})", path.display());
                let remedy = format!("chmod {wanted:o} '{}'", path.display());
                Check::problem("permissions", detail, remedy).with_mend(Mend::RestrictPermissions(path, wanted))
            })
        })
        .collect();
    if open.is_empty() { vec![Check::ok("permissions", "private files are private")] } else { open }
}

fn configuration(home: &Home, loaded: &Result<Option<config::Loaded>, config::ConfigError>) -> Check {
    match loaded {
        Ok(None) if cluster::state(home) == ClusterState::Ready => {
            Check::problem("config", "config.yaml is gone, and with it the key to the datastore", KEY_LOST)
        }
        Ok(None) => Check::warning("config", "no config.yaml yet", "leoflow setup"),
        Ok(Some(_)) if config_is_blank(home) => Check::problem("config", "config.yaml is empty", KEY_LOST),
        Ok(Some(loaded)) if !loaded.told(&home.config()).is_empty() => {
            Check::warning("config", loaded.told(&home.config()).join("; "), "leoflow verify-config")
        }
        Ok(Some(_)) => Check::ok("config", home.config().display().to_string()),
        Err(error @ config::ConfigError::Io { path, .. }) if *path == home.config() => {
            Check::problem("config", error.to_string(), KEY_LOST)
        }
        Err(error @ config::ConfigError::Io { .. }) => {
            Check::problem("config", error.to_string(), "make it readable, or move it away")
        }
        Err(error) => Check::problem("config", error.to_string(), "leoflow verify-config names each line"),
    }
}

fn port(home: &Home, config: Option<&Config>, running: bool) -> Check {
    let port = config.map_or(config::DEFAULT_PORT, |config| config.port);
    if running {
        let url = lock::holder(home).and_then(|holder| holder.url).unwrap_or_else(|| format!("port {port}"));
        return Check::ok("port", format!("serving {url}"));
    }
    let host = config.map_or(std::net::Ipv4Addr::LOCALHOST, |config| config.host);
    match crate::sys::listener::bind_at(host, port) {
        Ok(_) => Check::ok("port", format!("{port} is free")),
        Err(error) => {
            let who = ports::listening_process(port)
                .map_or_else(|| error.to_string(), |(pid, line)| format!("taken by {line} (pid {pid})"));
            Check::problem(
                "port",
                format!("{port}: {who}"),
                "leoflow lite --port ANOTHER, or change port in config.yaml",
            )
        }
    }
}

const KEY_LOST: &str = "put it back from a copy: a new one would have another encryption key; or bring back a backup: \
                        leoflow lite restore --input FILE --force, which keeps what is there";
/// An instance that runs and cannot do its work, with the reason of `lite status`.
fn instance(home: &Home) -> Option<Check> {
    let status = control::status_of(home)?;
    let is_unwell = matches!(status.state, InstanceState::Degraded | InstanceState::Failed);
    is_unwell.then(|| {
        let reason = status.reason.unwrap_or_else(|| status.state.to_string());
        Check::problem("instance", reason, "leoflow lite status, then leoflow lite logs")
    })
}

fn schema_check(schema: Option<Result<SchemaFound, Unasked>>) -> Check {
    match schema {
        None => Check::ok("schema", "no datastore yet"),
        Some(Ok(SchemaFound { failed: Some(failed), .. })) => Check::warning(
            "schema",
            format!("data migration {} has failed: {}", failed.migration, failed.error.unwrap_or_default()),
            format!("mend the cause, then: leoflow data-migrate resume {}", failed.version),
        ),
        Some(Ok(found)) => schema_verdict(&found.state),
        Some(Err(unasked)) => Check::problem("schema", unasked.reason, unasked.remedy),
    }
}

fn schema_verdict(state: &State) -> Check {
    match (state, schema::refusal(state)) {
        (State::Newer { database, binary }, _) => Check::problem(
            "schema",
            format!(
                "the database is at version {database} and this program knows up to {binary}: it is an older copy of leoflow; \
                 the data is whole"
            ),
            "run a newer one: leoflow versions lists those that are kept",
        ),
        (_, Some(error)) => Check::problem("schema", error.to_string(), "leoflow migrate-db status"),
        (State::Current { version }, None) => Check::ok("schema", format!("version {version}")),
        (State::Pending { versions, .. }, None) => Check::warning(
            "schema",
            format!("{} migrations pending", versions.len()),
            "leoflow migrate-db, or the next start",
        ),
        (_, None) => Check::ok("schema", "not created yet; the next start does it"),
    }
}

fn binaries(home: &Home) -> Check {
    match install_self::installed_version(home) {
        Some(version) => Check::ok("binary", format!("{version} in {}", home.bin().display())),
        None => match newest_version(home) {
            Some(version) => Check::warning("binary", "the links in bin/ are not complete", "leoflow doctor --fix")
                .with_mend(Mend::LinkBinaries(version)),
            None => Check::warning("binary", "not installed into the home", "leoflow setup"),
        },
    }
}

fn path(home: &Home) -> Option<Check> {
    let other = other_copy(home)?;
    let remedy = format!("remove it, or put {} first on the PATH", home.bin().display());
    Some(Check::warning("path", other.warning(home), remedy))
}

fn newest_version(home: &Home) -> Option<String> {
    let mut versions: Vec<(std::time::SystemTime, String)> = fs::read_dir(home.versions())
        .ok()?
        .flatten()
        .filter(|entry| entry.path().join("leoflow").is_file())
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.file_name().into_string().ok()?)))
        .collect();
    versions.sort();
    versions.pop().map(|(_, name)| name)
}

/// Of processes that died, when none should be there.
fn remains(home: &Home, running: bool) -> Check {
    if running {
        return Check::ok("leftovers", "none looked for while it runs");
    }
    let left = match supervisor::find_leftovers(home) {
        Ok(left) if left.is_empty() => return Check::ok("leftovers", "none"),
        Ok(left) => left,
        Err(error) => {
            let detail = format!("cannot read {}: {error}", home.processes().display());
            return Check::problem("leftovers", detail, "check the disk, then leoflow doctor");
        }
    };
    let pids: Vec<String> = left.iter().map(|(name, process)| format!("{name} {}", process.pid)).collect();
    Check::warning(
        "leftovers",
        format!("processes of a run that was killed: {}", pids.join(", ")),
        "the next start ends them, or leoflow doctor --fix",
    )
    .with_mend(Mend::EndLeftovers)
}

/// Does one mend. The caller holds the home's lock.
pub fn mend(home: &Home, mend: &Mend) -> std::io::Result<()> {
    match mend {
        Mend::RestrictPermissions(path, mode) => fs::set_permissions(path, Permissions::from_mode(*mode)),
        Mend::EndLeftovers => supervisor::end_leftovers(home).map(drop),
        Mend::LinkBinaries(version) => install_self::link(home, version),
    }
}
