//! Lite's own processes, described for the supervisor: Postgres, the one-shot migrator, the server,
//! the agent, in that order.

use super::spec::{LastWords, Launch, Outlook, Plan, Probe, ProbeResult, Readiness, Spec};
use crate::home::Home;
use crate::postgres::words::{self, Cause, Words};
use crate::postgres::{self, Credentials, Endpoint, Installation, PgError, leftovers, private};
use crate::protocol::child;
use crate::sys::process::Signal;
use crate::sys::user_namespace::Identity;
use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Everything the descriptions are made of.
#[derive(Clone)]
pub struct Instance {
    pub home: Home,
    pub installation: Installation,
    pub endpoint: Endpoint,
    pub credentials: Credentials,
    pub port: u16,
    /// Whether its processes say for their logs what helps to find out.
    pub verbose: bool,
    /// What migrator, server and agent are started from.
    pub program: SharedProgram,
}

/// A program that an upgrade may change.
pub type SharedProgram = Rc<RefCell<PathBuf>>;

/// The program that this process runs, also after its file was replaced.
pub fn own_program() -> SharedProgram {
    Rc::new(RefCell::new(PathBuf::from("/proc/self/exe")))
}

const SECOND: Duration = Duration::from_secs(1);
/// How long a server that is elsewhere is waited for at a start: a machine that has just come up has no network yet.
const FIRST_ANSWER: Duration = Duration::from_secs(15);

impl Instance {
    pub fn specs(&self) -> Vec<Spec> {
        vec![self.postgres(), self.migrate(), self.server(), self.agent()]
    }

    /// Stopped by a fast shutdown, which writes a checkpoint; when that takes too long, by an
    /// immediate one, which the next start recovers from.
    fn postgres(&self) -> Spec {
        let instance = self.clone();
        let home = self.home.clone();
        Spec {
            plan: Plan {
                name: "postgres",
                one_shot: false,
                // Counted anew from each word that it is recovering.
                start_limit: 300 * SECOND,
                // A busy machine's datastore may take longer to answer than a process of ours to say that it runs.
                silence_limit: child::silence_limit() * 9 / 4,
                stop: vec![(Signal::Interrupt, 20 * SECOND), (Signal::Quit, 3 * SECOND), (Signal::Kill, 3 * SECOND)],
                stop_now_at: 1,
            },
            readiness: Readiness::Probe(match self.credentials.has_superuser() {
                true => self.postgres_probe(),
                false => self.relay_probe(),
            }),
            launch: Box::new(move || instance.launch_postgres()),
            clean_up: Some(Box::new(move || {
                // What cannot be ended now is ended by the next start.
                let _ = leftovers::end(&home);
            })),
            words: words_of_postgres,
        }
    }

    fn launch_postgres(&self) -> Result<Launch, String> {
        leftovers::end(&self.home).map_err(|error| error.to_string())?;
        self.endpoint.prepare().map_err(|error| error.to_string())?;
        // An upgrade may have brought a newer one, or taken one back.
        let installation = postgres::install::installed(&self.home).unwrap_or_else(|| self.installation.clone());
        let command = postgres::server::command(&self.home, &installation, &self.endpoint);
        let identity = command.identity();
        if matches!(identity, Identity::Impossible) {
            return Err(
                "PostgreSQL refuses to run as this user, and the machine has no other user to show it".to_owned()
            );
        }
        Ok(Launch {
            program: command.program,
            called: command.called,
            arguments: command.arguments,
            environment: command.environment,
            single_user: identity.single_user().cloned(),
            parent_death: Some(Signal::Interrupt),
            speaks_protocol: false,
            listens: false,
        })
    }

    fn postgres_probe(&self) -> Probe {
        let (endpoint, credentials) = (self.endpoint.clone(), self.credentials.clone());
        Rc::new(move || {
            let (endpoint, credentials) = (endpoint.clone(), credentials.clone());
            Box::pin(async move {
                match private::probe(&endpoint, &credentials).await {
                    Ok(()) => match private::checksum_failures(&endpoint, &credentials).await {
                        Ok(count @ 1..) => ProbeResult::Damaged(format!(
                            "the datastore is damaged: {count} page(s) are not what was written. A backup brings it \
                             back: leoflow lite backups list, then leoflow lite restore --input FILE --force"
                        )),
                        // It answers; that this could not be asked is no reason to end it.
                        _ => ProbeResult::Ready,
                    },
                    Err(PgError::Recovering) => ProbeResult::Busy("recovering".to_owned()),
                    Err(PgError::Unreachable(_) | PgError::Timeout(_) | PgError::Far(_)) => ProbeResult::NotYet,
                    Err(PgError::Query(error)) if error.as_db_error().is_none() => ProbeResult::NotYet,
                    // It is short of memory or connections, or is being stopped: that says nothing of whose it is.
                    Err(error) if error.passes() => ProbeResult::NotYet,
                    Err(error) => ProbeResult::Unfit(error.to_string()),
                }
            })
        })
    }

    /// Of a server that is elsewhere. Before it has answered once, that it does not is a reason to give up, and said.
    /// Afterwards it comes back when it does: the relay is not what is to be ended for it.
    fn relay_probe(&self) -> Probe {
        let (endpoint, credentials) = (self.endpoint.clone(), self.credentials.clone());
        let (answered, begun) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(None::<Instant>)));
        Rc::new(move || {
            let (endpoint, credentials) = (endpoint.clone(), credentials.clone());
            let (answered, begun) = (answered.clone(), begun.clone());
            Box::pin(async move {
                let error = match private::probe(&endpoint, &credentials).await {
                    Ok(()) => {
                        answered.set(true);
                        return ProbeResult::Ready;
                    }
                    Err(error) => error,
                };
                let waits = begun.get().unwrap_or_else(Instant::now);
                begun.set(Some(waits));
                match error {
                    // The relay itself.
                    PgError::Unreachable(_) => ProbeResult::NotYet,
                    // The relay answers before this, where the server does not: it is frozen, or one of the two hangs.
                    PgError::Timeout(_) if answered.get() || waits.elapsed() < FIRST_ANSWER => ProbeResult::NotYet,
                    error if answered.get() => ProbeResult::Away(error.to_string()),
                    error @ (PgError::Recovering | PgError::Far(_)) if waits.elapsed() < FIRST_ANSWER => {
                        ProbeResult::Busy(format!("waiting: {error}"))
                    }
                    error @ (PgError::Recovering | PgError::Far(_) | PgError::Timeout(_)) => {
                        ProbeResult::Unanswered(error.to_string())
                    }
                    error if error.passes() => ProbeResult::Unanswered(error.to_string()),
                    error => ProbeResult::Unfit(error.to_string()),
                }
            })
        })
    }

    fn migrate(&self) -> Spec {
        // A migration may rewrite tables; what ends it is its own lock timeout.
        let plan = own_plan("migrate", true, 3600 * SECOND);
        self.own(plan, "leoflow", &["migrate-db", "--supervised"], false)
    }

    fn server(&self) -> Spec {
        let port = self.port.to_string();
        let arguments = ["--port", port.as_str()];
        self.own(own_plan("server", false, 30 * SECOND), "leoflow-server", &arguments, true)
    }

    fn agent(&self) -> Spec {
        self.own(own_plan("agent", false, 30 * SECOND), "leoflow-agent", &[], false)
    }

    fn own(&self, plan: Plan, called: &'static str, arguments: &[&str], listens: bool) -> Spec {
        let mut all: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        all.push("--home".into());
        all.push(self.home.root().into());
        if self.verbose {
            all.push("--verbose".into());
        }
        let program = self.program.clone();
        Spec {
            plan,
            readiness: Readiness::Notify,
            launch: Box::new(move || {
                Ok(Launch {
                    program: program.borrow().clone(),
                    called: Some(called.into()),
                    arguments: all.clone(),
                    environment: child::environment(),
                    single_user: None,
                    parent_death: None,
                    speaks_protocol: true,
                    listens,
                })
            }),
            clean_up: None,
            words: words_of_own,
        }
    }
}

fn words_of_postgres(lines: &[String]) -> Option<LastWords> {
    let Words { text, cause } = words::last(lines)?;
    Some(match cause {
        Cause::DiskFull => LastWords { text: format!("{text}. {MAKE_ROOM}"), outlook: Outlook::Passes },
        Cause::Damaged => LastWords {
            text: format!(
                "the datastore is damaged: {text}. A backup brings it back: leoflow lite backups list, then leoflow \
                 lite restore --input FILE --force"
            ),
            outlook: Outlook::Lasts,
        },
        Cause::Other => LastWords { text, outlook: Outlook::Unknown },
    })
}

const MAKE_ROOM: &str = "Free some space; it goes on by itself";

/// Of our own processes only what may pass is of interest: otherwise they say themselves why they end.
fn words_of_own(lines: &[String]) -> Option<LastWords> {
    let line = lines.iter().rev().find(|line| words::cause_of(line) == Cause::DiskFull)?;
    Some(LastWords { text: format!("{}. {MAKE_ROOM}", line.trim()), outlook: Outlook::Passes })
}

fn own_plan(name: &'static str, one_shot: bool, start_limit: Duration) -> Plan {
    Plan {
        name,
        one_shot,
        start_limit,
        silence_limit: child::silence_limit(),
        stop: vec![(Signal::Terminate, 8 * SECOND), (Signal::Kill, 5 * SECOND)],
        stop_now_at: 1,
    }
}
