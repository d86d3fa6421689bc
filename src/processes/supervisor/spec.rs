//! Descriptions of the supervised processes: plain data and a few closures.

use leoflow_base::sys::process::Signal;
use leoflow_base::sys::process::reaper::Exit;
use leoflow_base::sys::process::spawn::{Spawn, SpawnError};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

/// The facts about a child that the policy needs.
#[derive(Debug, Clone)]
pub struct Plan {
    pub name: &'static str,
    /// True if the child runs once and must succeed before later children start.
    pub one_shot: bool,
    /// Time limit to become ready.
    pub start_limit: Duration,
    /// Time without a heartbeat or an answer after which a ready child is killed.
    pub silence_limit: Duration,
    /// The stop sequence: signals with the time each has to work. The last one is `Kill`. An immediate stop begins with
    /// the second.
    pub stop: Vec<(Signal, Duration)>,
}

/// How a child's readiness is determined.
pub enum Readiness {
    /// The child sends `READY=1`, then `WATCHDOG=1` regularly.
    Notify,
    /// The supervisor probes the child until it answers, then regularly.
    Probe(Probe),
}

/// Tests whether a child works.
pub type Probe = Rc<dyn Fn() -> Pin<Box<dyn Future<Output = ProbeResult>>>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeResult {
    Ready,
    /// The child does not answer yet.
    NotYet,
    /// The child answers, but its data is damaged.
    Damaged(String),
    /// The relay runs, but the external server behind it does not answer for now.
    Away(String),
    /// The child is not ready yet and reports why.
    Busy(String),
    /// The external server behind the relay has not answered since the start.
    Unanswered(String),
    /// The child does not belong to this instance.
    Unfit(String),
}

/// The command to execute.
pub struct Launch {
    /// The process, without the descriptors that the supervisor passes to it. Its `parent_death` is set if it does not
    /// watch the lifeline, the pipe that closes when the supervisor dies.
    pub spawn: Spawn<'static>,
    /// True when the program supports the process protocol: lifeline and notifications.
    pub speaks_protocol: bool,
    /// True when the child gets the listeners.
    pub listens: bool,
}

/// Why a child was not started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(transparent)]
    Prepare(#[from] io::Error),
    #[error("PostgreSQL refuses to run as this user, and the machine has no other user to run it as")]
    NoOtherUser,
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

impl LaunchError {
    /// True when a retry cannot help.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Spawn(SpawnError::UserNamespace(_)))
    }
}

/// The reason for a child's exit, from its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitReason {
    /// The reason and what the user can do about it.
    pub text: String,
    pub outlook: Outlook,
}

/// Whether another start may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// The cause is transient, such as a full disk.
    Passes,
    /// Another start fails too, for example with damaged files.
    Lasts,
    Unknown,
}

/// The description of a child.
pub struct Spec {
    pub plan: Plan,
    pub readiness: Readiness,
    /// Prepares a start or restart and returns the command.
    pub launch: Box<dyn Fn() -> Result<Launch, LaunchError>>,
    /// Runs after the exit of the child with this pid to remove what it left.
    pub clean_up: Option<Box<dyn Fn(i32, Exit)>>,
    /// Finds the reason for the child's exit in the last lines of its log.
    pub find_exit_reason: fn(&[String]) -> Option<ExitReason>,
}
