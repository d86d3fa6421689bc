//! Describes Lite's processes for the supervisor: Postgres, the one-shot migrator, the server and the agent, in that
//! order.

use super::children::dag_file_processes;
use super::spec::{ExitReason, Launch, LaunchError, Outlook, Plan, Probe, ProbeResult, Readiness, Spec};
use leoflow_base::home::Home;
use leoflow_base::protocol::child;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::process::Signal;
use leoflow_base::sys::process::spawn::Spawn;
use leoflow_base::sys::process::user_namespace::Identity;
use leoflow_postgres::cluster::{leftovers, private};
use leoflow_postgres::fatal_message::{self, Cause, FatalMessage};
use leoflow_postgres::{self as postgres, Credentials, Endpoint, Installation, PgError};
use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The settings that the process descriptions are built from.
#[derive(Clone)]
pub struct Instance {
    pub home: Home,
    pub installation: Installation,
    pub endpoint: Endpoint,
    pub credentials: Credentials,
    pub port: u16,
    /// True for verbose logs of all processes.
    pub verbose: bool,
    /// The program of migrator, server and agent.
    pub program: SharedProgram,
}

/// A program that an upgrade may change.
pub type SharedProgram = Rc<RefCell<PathBuf>>;

/// The program of this process, even after its file was replaced.
pub fn own_program() -> SharedProgram {
    Rc::new(RefCell::new(env_vars::running_program().to_owned()))
}

const SECOND: Duration = Duration::from_secs(1);
/// How long a start waits for an external server: a machine that has just booted has no network yet.
const FIRST_ANSWER_LIMIT: Duration = Duration::from_secs(15);

impl Instance {
    pub(crate) fn specs(&self) -> Vec<Spec> {
        vec![
            self.postgres(),
            // A migration may rewrite tables; its own lock timeout normally ends a blocked one.
            self.own_process("migrate", 3600 * SECOND, &["migrate-db", "--supervised"]),
            self.own_process("server", 30 * SECOND, &["--port", &self.port.to_string()]),
            self.own_process("agent", 30 * SECOND, &[]),
        ]
    }

    /// The datastore: the managed server, or the relay to another one. A stop of the server is a fast shutdown, which
    /// writes a checkpoint; after its deadline, an immediate shutdown, from which the next start recovers.
    fn postgres(&self) -> Spec {
        let instance = self.clone();
        let home = self.home.clone();
        Spec {
            plan: Plan {
                name: "postgres",
                one_shot: false,
                // Each report that the server is recovering restarts this limit.
                start_limit: 300 * SECOND,
                // On a busy machine the datastore may answer a query later than our processes send their heartbeat.
                silence_limit: child::silence_limit() * 9 / 4,
                stop: vec![(Signal::Interrupt, 20 * SECOND), (Signal::Quit, 3 * SECOND), (Signal::Kill, 3 * SECOND)],
            },
            readiness: Readiness::Probe(self.probe()),
            launch: Box::new(move || instance.launch_postgres()),
            clean_up: Some(Box::new(move |_, exit| {
                if !exit.success() {
                    // If this fails, the next start retries it.
                    let _ = leftovers::end(&home);
                }
            })),
            find_exit_reason: postgres_exit_reason,
        }
    }

    fn launch_postgres(&self) -> Result<Launch, LaunchError> {
        leftovers::end(&self.home)?;
        self.endpoint.prepare()?;
        // An upgrade may have installed or removed a version.
        let installation = postgres::install::installed(&self.home).unwrap_or_else(|| self.installation.clone());
        let (spawn, identity) = postgres::cluster::server::command(&self.home, &installation, &self.endpoint);
        if matches!(identity, Identity::Impossible) {
            return Err(LaunchError::NoOtherUser);
        }
        Ok(Launch { spawn, speaks_protocol: false, listens: false })
    }

    fn probe(&self) -> Probe {
        let datastore = Rc::new(Prober {
            endpoint: self.endpoint.clone(),
            credentials: self.credentials.clone(),
            answered: Cell::new(false),
            first_probe: Cell::new(None),
        });
        Rc::new(move || {
            let datastore = datastore.clone();
            Box::pin(async move {
                match datastore.credentials.has_superuser() {
                    true => datastore.probe_server().await,
                    false => datastore.probe_relay().await,
                }
            })
        })
    }

    /// A process of our own program. The migrator is a command that must succeed before the others start; the server
    /// gets the listeners.
    fn own_process(&self, name: &'static str, start_limit: Duration, arguments: &[&str]) -> Spec {
        let is_migrator = name == "migrate";
        let argv0 = if is_migrator { "leoflow".to_owned() } else { format!("leoflow-{name}") };
        let mut all_arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        all_arguments.push("--home".into());
        all_arguments.push(self.home.root().into());
        if self.verbose {
            all_arguments.push("--verbose".into());
        }
        let program = self.program.clone();
        Spec {
            plan: Plan {
                name,
                one_shot: is_migrator,
                start_limit,
                silence_limit: child::silence_limit(),
                stop: vec![(Signal::Terminate, 8 * SECOND), (Signal::Kill, 5 * SECOND)],
            },
            readiness: Readiness::Notify,
            launch: Box::new(move || {
                let spawn = Spawn {
                    argv0: Some(argv0.clone().into()),
                    arguments: all_arguments.clone(),
                    environment: child::environment(),
                    ..Spawn::new(&*program.borrow())
                };
                Ok(Launch { spawn, speaks_protocol: true, listens: name == "server" })
            }),
            clean_up: (name == "server").then(|| Box::new(|pid, _| dag_file_processes::end_of(pid)) as _),
            find_exit_reason: own_exit_reason,
        }
    }
}

/// Tests whether the datastore answers.
struct Prober {
    endpoint: Endpoint,
    credentials: Credentials,
    /// True once an external server has answered.
    answered: Cell<bool>,
    first_probe: Cell<Option<Instant>>,
}

impl Prober {
    async fn probe_server(&self) -> ProbeResult {
        let error = match private::probe(&self.endpoint, &self.credentials).await {
            Ok(client) => {
                return match private::checksum_failures(&client, &self.credentials).await {
                    Ok(count @ 1..) => ProbeResult::Damaged(format!(
                        "the datastore is damaged: {count} page(s) have wrong checksums. {RESTORE}"
                    )),
                    // The server answers; if only the count of checksum errors fails, it keeps running.
                    _ => ProbeResult::Ready,
                };
            }
            Err(error) => error,
        };
        match error {
            PgError::Recovering => ProbeResult::Busy("recovering".to_owned()),
            PgError::Unreachable(_) | PgError::Timeout(_) | PgError::ExternalServer(_) => ProbeResult::NotYet,
            PgError::Query(error) if error.as_db_error().is_none() => ProbeResult::NotYet,
            // The server is out of memory or connections, or shuts down: it may still belong to this instance.
            error if error.is_transient() => ProbeResult::NotYet,
            error => ProbeResult::Unfit(error.to_string()),
        }
    }

    /// Probes an external server through the relay, the local process that forwards to it. A server that has never
    /// answered makes the start fail; one that has answered before is only reported as away, because restarting the
    /// relay does not help.
    async fn probe_relay(&self) -> ProbeResult {
        let error = match private::probe(&self.endpoint, &self.credentials).await {
            Ok(_) => {
                self.answered.set(true);
                return ProbeResult::Ready;
            }
            Err(error) => error,
        };
        let since = self.first_probe.get().unwrap_or_else(Instant::now);
        self.first_probe.set(Some(since));
        let is_starting = since.elapsed() < FIRST_ANSWER_LIMIT;
        match error {
            // The relay itself is not reachable.
            PgError::Unreachable(_) => ProbeResult::NotYet,
            // The relay reports a dead server earlier than this timeout, so the relay or the server hangs.
            PgError::Timeout(_) if self.answered.get() || is_starting => ProbeResult::NotYet,
            error if self.answered.get() => ProbeResult::Away(error.to_string()),
            error @ (PgError::Recovering | PgError::ExternalServer(_)) if is_starting => {
                ProbeResult::Busy(format!("waiting: {error}"))
            }
            error @ (PgError::Recovering | PgError::ExternalServer(_) | PgError::Timeout(_)) => {
                ProbeResult::Unanswered(error.to_string())
            }
            error if error.is_transient() => ProbeResult::Unanswered(error.to_string()),
            error => ProbeResult::Unfit(error.to_string()),
        }
    }
}

fn postgres_exit_reason(lines: &[String]) -> Option<ExitReason> {
    let FatalMessage { text, cause } = fatal_message::last(lines)?;
    let (text, outlook) = match cause {
        Cause::DiskFull => (format!("{text}. {MAKE_ROOM}"), Outlook::Passes),
        Cause::SharedMemoryFull => (format!("{text}. {MAKE_SHARED_MEMORY}"), Outlook::Passes),
        Cause::Damaged => (format!("the datastore is damaged: {text}. {RESTORE}"), Outlook::Lasts),
        Cause::Other => (text, Outlook::Unknown),
    };
    Some(ExitReason { text, outlook })
}

const RESTORE: &str = "Restore a backup: leoflow lite backups list, then leoflow lite restore --input FILE --force";
const MAKE_ROOM: &str =
    "Free some space, or files where it has no inode left (`df -i`); Leoflow then continues automatically";
const MAKE_SHARED_MEMORY: &str = "Shared memory is full, not the disk: free some of /dev/shm (for a container: \
    --shm-size); Leoflow then continues automatically";

/// Recognizes only a full disk: our own processes report all other reasons themselves.
fn own_exit_reason(lines: &[String]) -> Option<ExitReason> {
    let line = lines.iter().rev().find(|line| fatal_message::cause_of(line) == Cause::DiskFull)?;
    Some(ExitReason { text: format!("{}. {MAKE_ROOM}", line.trim()), outlook: Outlook::Passes })
}
