//! What is to be supervised, as plain data and a few closures.

use crate::sys::process::Signal;
use crate::sys::user_namespace::SingleUser;
use std::ffi::OsString;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

/// A child's part in the policy: no processes, no closures.
#[derive(Debug, Clone)]
pub struct Plan {
    pub name: &'static str,
    /// Runs once and must succeed before those after it start.
    pub one_shot: bool,
    /// How long it may take to get ready.
    pub start_limit: Duration,
    /// How long it may be silent once it is ready.
    pub silence_limit: Duration,
    /// How it is stopped: each signal and how long it is given to work. The last is `Kill`.
    pub stop: Vec<(Signal, Duration)>,
    /// The step at which an impatient stop begins.
    pub stop_now_at: usize,
}

/// How a child is found to be ready.
pub enum Readiness {
    /// It says so (`READY=1`), and `WATCHDOG=1` from then on.
    Notify,
    /// It is asked, from its start until it answers and now and then from then on.
    Probe(Probe),
}

pub type Probe = Rc<dyn Fn() -> Pin<Box<dyn Future<Output = ProbeResult>>>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeResult {
    Ready,
    /// Nothing there yet.
    NotYet,
    /// There, and not all that it keeps is what was written.
    Damaged(String),
    /// Its part here runs, and what that stands for, which is elsewhere, does not answer for now.
    Away(String),
    /// There, and busy with something worth telling.
    Busy(String),
    /// What its part here stands for, which is elsewhere, has not answered since its start.
    Unanswered(String),
    /// It will never be what we need.
    Unfit(String),
}

/// What to execute.
pub struct Launch {
    pub program: PathBuf,
    pub called: Option<OsString>,
    pub arguments: Vec<OsString>,
    pub environment: Vec<(OsString, OsString)>,
    pub single_user: Option<SingleUser>,
    /// For a child that cannot watch the lifeline.
    pub parent_death: Option<Signal>,
    /// Whether it speaks the process protocol: lifeline and notifications.
    pub speaks_protocol: bool,
    /// Whether it gets the listeners.
    pub listens: bool,
}

/// Why a child ended, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastWords {
    /// For people, with what they can do about it.
    pub text: String,
    pub outlook: Outlook,
}

/// What a child's last words say about another start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// The cause may go away by itself, as a full disk does.
    Passes,
    /// Another start ends the same, as with damaged files.
    Lasts,
    Unknown,
}

/// One child.
pub struct Spec {
    pub plan: Plan,
    pub readiness: Readiness,
    /// Makes ready for a start (or a restart) and says what to execute.
    pub launch: Box<dyn Fn() -> Result<Launch, String>>,
    /// Run when the child has ended otherwise than by a clean exit: takes care that nothing of it is
    /// left.
    pub clean_up: Option<Box<dyn Fn()>>,
    /// Finds the reason of its end in the last lines of its log.
    pub words: fn(&[String]) -> Option<LastWords>,
}
