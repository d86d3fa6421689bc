//! Examines a home without changing it. Findings that can be fixed without loss carry their fix.

mod backups;
mod instance;
mod postgres;
mod python;

pub use backups::overdue;
pub use postgres::RESTORE;
pub use python::ServerPython;

use super::check::{Check, Finding, Fix, ok, problem, warning};
use super::facts::config_is_blank;
use super::install_self;
use super::other_copy::other_copy;
use leoflow_base::config::{self, Config};
use leoflow_base::counted::counted;
use leoflow_base::home::{Home, LOST_AND_FOUND, disk_kinds, journal, lock};
use leoflow_base::protocol::control::StatusReply;
use leoflow_base::sys::fs::disk::{self, Shortage};
use leoflow_base::sys::fs::{files, folders};
use leoflow_base::sys::net::ports;
use leoflow_base::sys::process::user_namespace::Identity;
use leoflow_base::sys::{clock, user};
use leoflow_postgres::acquire::Sources;
use leoflow_postgres::cluster::{self, ClusterState};
use leoflow_postgres::schema::{self, State, data_migration};
use leoflow_processes::supervisor;
use leoflow_python::settings_without_effect;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Free disk space below which doctor reports a problem, in bytes; a first start needs about 150 MB.
const SPACE_REQUIRED: u64 = 300 * 1024 * 1024;
const MIB: u64 = 1024 * 1024;
/// Size of the history above which doctor names its limits, in bytes.
const LARGE_HISTORY: u64 = 1024 * MIB;

/// State of the database's schema.
#[derive(Debug)]
pub struct SchemaReport {
    /// Comparison with this release.
    pub state: State,
    /// A failed data migration.
    pub failed: Option<data_migration::Progress>,
    /// Version reported by the server, possibly with its packager's name.
    pub server_version: Option<String>,
}

/// Why the schema could not be read, and what to do.
#[derive(Debug)]
pub struct SchemaUnavailable {
    pub reason: String,
    pub remedy: String,
}

/// Runs all checks, in the order of the report. `schema` is `None` when there is no database yet. `server_python` is
/// empty when no server runs.
pub fn examine(
    home: &Home,
    sources: &Sources,
    schema: Option<Result<SchemaReport, SchemaUnavailable>>,
    server_python: &ServerPython,
    supervisor: &StatusReply,
) -> Vec<Check> {
    let status = supervisor.status();
    let running = lock::is_held(home).unwrap_or(false);
    let loaded = config::load(&home.config());
    let config = loaded.as_ref().ok().and_then(Option::as_ref).map(|loaded| loaded.config.clone());
    let config = config.as_ref();
    let configured_python = config.and_then(|config| config.python.as_deref());
    let server = schema.as_ref().and_then(|report| report.as_ref().ok()?.server_version.clone());
    let server = server.as_deref();
    let mut checks = Checks(Vec::new());
    checks.add("platform", [platform()]);
    checks.add("home", [home_folder(home)]);
    checks.add("owner", [owner(home)]);
    checks.add("space", [space(home)]);
    checks.add("history", history(home, config));
    checks.add("permissions", permissions(home));
    checks.add("config", [configuration(home, &loaded)]);
    checks.add("time zone", time_zone());
    checks.add("port", [port(home, config, running)]);
    checks.add("postgres", [postgres::programs(home, sources, server)]);
    checks.add("datastore", [postgres::datastore(home, server, status)]);
    checks.add("instance", instance::instance(home, supervisor));
    match journal::change_under_way(home) {
        // During an upgrade the schema's state is meaningless.
        Some(change) => checks.add("upgrade", [warning(change.to_string(), "leoflow upgrade --resume")]),
        None => checks.add("schema", [schema_check(schema)]),
    }
    checks.add("binary", [binaries(home)]);
    checks.add("path", path(home));
    checks.add("backups", backups::backups(home, config, status));
    checks.add("service", instance::service(home));
    checks.add("python", [python::python_found(server_python.python.as_deref().or(configured_python))]);
    checks.add("environments", [python::environments(home, server_python)]);
    checks.add("processes", [python::processes(home)]);
    checks.add("pools", python::pools(&server_python.unknown_pools));
    checks.add("schedules", python::schedules(&server_python.stalled_schedules));
    let workspace_folder = config.and_then(|config| config.workspace.as_deref());
    let of_server = server_python.without_effect.clone();
    let without_effect = of_server.map_or_else(|| settings_without_effect(home, workspace_folder), Ok);
    checks.add("settings", python::airflow_settings(without_effect));
    checks.add("workspace", workspace_folder.and_then(workspace));
    checks.add("leftovers", [leftovers(home, running)]);
    checks.0
}

/// The lines of the report so far.
struct Checks(Vec<Check>);

impl Checks {
    fn add(&mut self, name: &'static str, findings: impl IntoIterator<Item = Finding>) {
        self.0.extend(findings.into_iter().map(|finding| Check { name, finding }));
    }
}

fn time_zone() -> Option<Finding> {
    clock::unknown_time_zone().map(|text| warning(text, "set TZ to a name such as Europe/Berlin"))
}

/// Checks that the server can read the whole workspace.
fn workspace(folder: &Path) -> Option<Finding> {
    let scan = leoflow_python::scan(
        folder,
        leoflow_python::Syntax::from_environment(),
        leoflow_python::LIMITS,
        &BTreeMap::new(),
    );
    Some(match scan {
        Err(error) => problem(
            format!("cannot read {}: {error}", folder.display()),
            "make it readable (its DAGs stay unchanged until then), or set another `workspace` in config.yaml",
        ),
        Ok(scan) => match scan.unscanned.iter().next() {
            None => {
                let is_python = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "py");
                let count = scan.files.keys().filter(is_python).count();
                ok(format!("{}, {}", folder.display(), counted(count, "Python file")))
            }
            Some((folder, reason)) => warning(
                format!(
                    "{} of its folders were not scanned completely, such as {}",
                    scan.unscanned.len(),
                    folder.display()
                ),
                reason.to_string(),
            ),
        },
    })
}

/// Checks that PostgreSQL can run for this user.
fn platform() -> Finding {
    let platform = format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH);
    match Identity::for_postgres() {
        Identity::Own => ok(platform),
        Identity::Mapped(single) => match single.check_allowed() {
            Ok(()) => ok(format!("{platform}; PostgreSQL runs in a user namespace")),
            Err(error) => problem(
                format!("{platform}; PostgreSQL needs a user namespace to run for this user: {error}"),
                "run as an ordinary user, or allow user namespaces",
            ),
        },
        Identity::Impossible => {
            let uid = user::effective_uid();
            problem(
                format!("{platform}; user {uid} has no passwd entry, and neither has any other user"),
                "run as an ordinary user",
            )
        }
    }
}

fn home_folder(home: &Home) -> Finding {
    let path = home.root().display();
    let data_folders = [home.backups(), home.task_logs(), home.restore(), home.versions()];
    let unreadable = data_folders.iter().find_map(|folder| Some((folder, folders::entries(folder).err()?)));
    match unreadable {
        Some((folder, error)) => problem(
            format!("cannot read {}: {error}", folder.display()),
            "mount its disk, or make it readable (`ls -ld` shows the owner)",
        ),
        None if home.exists() => ok(path.to_string()),
        None => warning(format!("{path} does not exist yet"), "leoflow setup"),
    }
}

/// Checks for files that belong to another user, for example after a command ran as root: Leoflow cannot change them.
fn owner(home: &Home) -> Finding {
    let own_uid = user::effective_uid();
    let name = |uid| user::login_name(uid).unwrap_or_else(|| format!("user {uid}"));
    let owner_of = |path: &Path| fs::symlink_metadata(path).ok().map(|meta| meta.uid());
    let folders = [home.root().to_owned(), home.run(), home.logs(), home.backups(), home.postgres()];
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let mut paths = entries.map(|entry| entry.path()).filter(|path| !path.ends_with(LOST_AND_FOUND));
    let foreign = paths.find(|path| owner_of(path).is_some_and(|uid| uid != own_uid));
    match foreign {
        None => ok(name(own_uid)),
        Some(path) => problem(
            format!("{} belongs to {}", path.display(), owner_of(&path).map(name).unwrap_or_default()),
            format!("sudo chown -hR {own_uid} '{}'", home.root().display()),
        ),
    }
}

fn space(home: &Home) -> Finding {
    if disk::shortage(home.root()).is_ok_and(|shortage| shortage == Shortage::Files) {
        return problem("no inode is free", Shortage::Files.remedy(None));
    }
    match disk::free_bytes(home.root()) {
        Ok(free) if free < SPACE_REQUIRED => {
            problem(format!("{} MiB free", free / MIB), format!("free at least {} MiB", SPACE_REQUIRED / MIB))
        }
        Ok(free) if free < disk::LOW_SPACE => warning(format!("{} MiB free", free / MIB), "free some disk space"),
        Ok(free) => ok(format!("{} MiB free", free / MIB)),
        Err(error) => warning(format!("cannot read the free space: {error}"), "check that the home's disk is mounted"),
    }
}

/// Warns when the history is large and nothing limits it.
fn history(home: &Home, config: Option<&Config>) -> Option<Finding> {
    if config?.history.is_set() {
        return None;
    }
    let bytes = disk_kinds::measure_history(home, Duration::from_secs(2)).bytes;
    let remedy = "leoflow config set history.keep_days 90";
    let text = format!("runs and task logs take {}, and nothing limits them", disk::human_size(bytes));
    (bytes > LARGE_HISTORY).then(|| warning(text, remedy))
}

/// Checks that private files are readable by the owner only.
fn permissions(home: &Home) -> Vec<Finding> {
    let private = [
        (home.root().to_owned(), 0o700),
        (home.run(), 0o700),
        (home.config(), 0o600),
        (home.postgres_credentials(), 0o600),
    ];
    let open_files: Vec<Finding> = private
        .into_iter()
        .filter_map(|(path, expected)| {
            let mode = files::mode(&path).ok()?;
            (mode & 0o077 != 0).then(|| {
                let detail = format!("{} is readable by other users (mode {mode:04o})", path.display());
                let remedy = format!("chmod {expected:o} '{}'", path.display());
                problem(detail, remedy).with_fix(Fix::RestrictPermissions(path, expected))
            })
        })
        .collect();
    if open_files.is_empty() { vec![ok("private files are private")] } else { open_files }
}

/// Checks that the settings are valid, and that `config.yaml` exists if a datastore needs its encryption key.
fn configuration(home: &Home, loaded: &Result<Option<config::Loaded>, config::ConfigError>) -> Finding {
    match loaded {
        Ok(None) if cluster::state(home) == ClusterState::Ready => {
            problem("config.yaml is missing, and with it the encryption key of the datastore", KEY_LOST)
        }
        Ok(None) => warning("no config.yaml yet", "leoflow setup"),
        Ok(Some(_)) if config_is_blank(home) => problem("config.yaml is empty", KEY_LOST),
        Ok(Some(loaded)) if !loaded.warning_lines(&home.config()).is_empty() => {
            warning(loaded.warning_lines(&home.config()).join("; "), "leoflow verify-config")
        }
        Ok(Some(_)) => ok(home.config().display().to_string()),
        Err(error @ config::ConfigError::Io { path, .. }) if *path == home.config() => {
            problem(error.to_string(), KEY_LOST)
        }
        Err(error @ config::ConfigError::Io { .. }) => {
            problem(error.to_string(), "make it readable, or move it elsewhere")
        }
        Err(error) => problem(error.to_string(), "leoflow verify-config lists each line"),
    }
}

/// Checks that the port is free, unless the instance is running.
fn port(home: &Home, config: Option<&Config>, running: bool) -> Finding {
    let port = config.map_or(config::DEFAULT_PORT, |config| config.port);
    if running {
        let url = lock::holder(home).and_then(|holder| holder.url).unwrap_or_else(|| format!("port {port}"));
        return ok(format!("serving {url}"));
    }
    let host = config.map_or(std::net::Ipv4Addr::LOCALHOST, |config| config.host);
    match leoflow_base::sys::net::listener::bind_at(host, port) {
        Ok(_) => ok(format!("{port} is free")),
        Err(error) => {
            let occupant = ports::listening_process(port)
                .map_or_else(|| error.to_string(), |(pid, words)| format!("taken by {} (pid {pid})", words.join(" ")));
            problem(format!("{port}: {occupant}"), "leoflow lite --port ANOTHER, or change port in config.yaml")
        }
    }
}

/// Remedy for a missing config, which contains the encryption key.
const KEY_LOST: &str = "restore it from a copy, because a new one would have another encryption key; or restore a backup: \
                        leoflow lite restore --input FILE --force, which keeps the current data";

/// Checks the database's schema and data migrations.
fn schema_check(schema: Option<Result<SchemaReport, SchemaUnavailable>>) -> Finding {
    match schema {
        None => ok("not checked: no datastore, or another command uses it"),
        Some(Ok(SchemaReport { failed: Some(failed), .. })) => warning(
            format!("data migration {} failed: {}", failed.migration, failed.error.unwrap_or_default()),
            format!("fix the cause, then: leoflow data-migrate resume {}", failed.version),
        ),
        Some(Ok(report)) => schema_verdict(&report.state),
        Some(Err(unavailable)) => problem(unavailable.reason, unavailable.remedy),
    }
}

fn schema_verdict(state: &State) -> Finding {
    match (state, schema::refusal(state)) {
        (State::Newer { database, binary }, _) => problem(
            format!(
                "the database is at version {database} but this program only knows up to {binary}: it is an older leoflow; \
                 the data is intact"
            ),
            "run a newer one: leoflow versions lists the installed releases",
        ),
        (_, Some(error)) => problem(error.to_string(), "leoflow migrate-db status"),
        (State::Current { version }, None) => ok(format!("version {version}")),
        (State::Pending { versions, .. }, None) => {
            warning(format!("{} pending", counted(versions.len(), "migration")), "leoflow migrate-db, or start Leoflow")
        }
        (_, None) => ok("not created yet; the next start creates it"),
    }
}

/// Checks the links in `bin/`.
fn binaries(home: &Home) -> Finding {
    match install_self::installed_version(home) {
        Some(version) => ok(format!("{version} in {}", home.bin().display())),
        None => match newest_version(home) {
            Some(version) => {
                warning("the links in bin/ are incomplete", "leoflow doctor --fix").with_fix(Fix::LinkBinaries(version))
            }
            None => warning("not installed in the home", "leoflow setup"),
        },
    }
}

/// Warns about another `leoflow` that comes first on the PATH.
fn path(home: &Home) -> Option<Finding> {
    let other = other_copy(home)?;
    let remedy = format!("remove it, or put {} first on the PATH", home.bin().display());
    Some(warning(other.warning(home), remedy))
}

/// The version that was installed last.
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

/// Checks for leftover processes of a killed run.
fn leftovers(home: &Home, running: bool) -> Finding {
    if running {
        return ok("not checked while Leoflow runs");
    }
    let processes = match supervisor::find_leftovers(home) {
        Ok(processes) if processes.is_empty() => return ok("none"),
        Ok(processes) => processes,
        Err(error) => {
            let detail = format!("cannot read {}: {error}", home.processes().display());
            return problem(detail, "check the disk, then rerun leoflow doctor");
        }
    };
    let pids: Vec<String> = processes.iter().map(|(name, process)| format!("{name} {}", process.pid)).collect();
    warning(
        format!("processes of a killed run: {}", pids.join(", ")),
        "the next start ends them, or run leoflow doctor --fix",
    )
    .with_fix(Fix::EndLeftovers)
}

/// Applies one fix. For `EndLeftovers` the caller holds the home's lock.
pub fn fix(home: &Home, fix: &Fix) -> std::io::Result<()> {
    match fix {
        Fix::RestrictPermissions(path, mode) => fs::set_permissions(path, Permissions::from_mode(*mode)),
        Fix::EndLeftovers => supervisor::end_leftovers(home).map(drop),
        Fix::LinkBinaries(version) => install_self::link(home, version),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::*;

    #[test]
    fn a_folder_behind_a_dangling_link_is_a_problem() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        assert_eq!(home_folder(&home).verdict, Verdict::Ok);
        std::os::unix::fs::symlink("/unmounted/disk", home.backups()).unwrap();
        let check = home_folder(&home);
        assert_eq!(check.verdict, Verdict::Problem);
        assert!(check.detail.contains("is a link to /unmounted/disk, which does not exist"), "{}", check.detail);
    }

    #[test]
    fn settings_files_are_not_counted_as_python_files() {
        let folder = tempfile::tempdir().unwrap();
        let count = || workspace(folder.path()).unwrap().detail.rsplit_once(", ").unwrap().1.to_owned();
        assert_eq!(count(), "0 Python files");
        for name in ["dag.py", "leoflow.yaml"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(count(), "1 Python file");
    }
}
