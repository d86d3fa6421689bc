//! The folder of one try, `run/tasks/<id>/`: how the agent, the process that keeps the task, and
//! the task itself tell one another things that outlive each of them.
//!
//! `spec.json` (agent) what to run; `began` (task) its own code runs; `process.json` (keeper) who runs it: whoever links it first does,
//! so that a try runs once however many keepers are started; `child.json` (keeper) the task's own
//! process; `result.json` (task) what became of it, whole or absent; `outcome.json` (keeper) how its
//! process ended. Keeper and task each write a reserve of `RESERVE` bytes when they begin, and put what they have to say
//! in its place: a disk that is full when the task ends loses neither.

use crate::engine::keys::TryKey;
use crate::engine::store::triggers::Deferral;
use crate::home::Home;
use crate::sys::files;
use crate::sys::process::ProcessId;
use crate::sys::reaper::Exit;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tracing::warn;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFolder(PathBuf);

/// What the keeper needs of `spec.json`; the rest is the task's.
#[derive(Debug, Serialize, Deserialize)]
pub struct Spec {
    #[serde(flatten)]
    pub key: TryKey,
    pub keeper: KeeperSpec,
    /// For the Python package.
    #[serde(flatten)]
    pub task: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct KeeperSpec {
    pub program: PathBuf,
    pub arguments: Vec<Argument>,
    /// The folder to work in.
    pub folder: PathBuf,
    pub log: PathBuf,
    /// Seconds after which the task is ended from outside, should it not end itself.
    pub time_limit: Option<f64>,
}

/// An argument as text, where it is one: as bytes it would be four times as long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Argument {
    Text(String),
    Bytes(OsString),
}

impl From<OsString> for Argument {
    fn from(argument: OsString) -> Self {
        argument.into_string().map_or_else(Self::Bytes, Self::Text)
    }
}

impl From<Argument> for OsString {
    fn from(argument: Argument) -> Self {
        match argument {
            Argument::Text(text) => text.into(),
            Argument::Bytes(bytes) => bytes,
        }
    }
}

/// How the task's process ended, as the keeper saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub exit: Option<Exit>,
    pub ended_at: Timestamp,
    pub cause: Option<Cause>,
    /// Why it never began.
    pub problem: Option<String>,
    /// True where it never began for a cause that passes: then the try is queued again.
    #[serde(default)]
    pub transient: bool,
}

impl Outcome {
    /// Of a task that never began.
    pub fn not_started(error: &io::Error, transient: bool) -> Self {
        let problem = Some(format!("the task could not be started: {error}"));
        Self { exit: None, ended_at: Timestamp::now(), cause: None, problem, transient }
    }
}

/// Why it ended, where that was not its own doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    Timeout,
    Stopped,
    Memory,
}

/// What the task itself says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    pub state: ResultState,
    #[serde(default = "yes")]
    pub retry: bool,
    #[serde(default)]
    pub reason: Option<String>,
    /// JSON texts by key.
    #[serde(default)]
    pub xcoms: BTreeMap<String, String>,
    /// Of a sensor that looks again later.
    #[serde(default)]
    pub due: Option<Timestamp>,
    /// Of a task that a trigger is to wake.
    #[serde(default)]
    pub deferral: Option<Deferral>,
    /// Of one that failed: seconds until it is tried again, in the place of its `retry_delay`.
    #[serde(default)]
    pub retry_delay: Option<f64>,
    /// Tasks that it has decided to skip at once.
    #[serde(default)]
    pub skipped_tasks: Vec<String>,
    #[serde(default)]
    pub asset_events: Option<serde_json::Value>,
    /// Its template fields as they were rendered, and the name of a mapped instance.
    #[serde(default)]
    pub rendered: Option<serde_json::Value>,
    #[serde(default)]
    pub map_index: Option<String>,
    /// Large libraries that it has loaded, which a warm Python may load ahead for those after it.
    #[serde(default)]
    pub libraries: Vec<String>,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultState {
    Success,
    Skipped,
    Failed,
    UpForReschedule,
    Deferred,
    AwaitingInput,
}

/// Bytes that the keeper keeps ready for its outcome, and the task for its result: more than an outcome ever has.
const RESERVE: usize = 4096;
const OUTCOME_RESERVE: &str = "outcome.reserve";
/// How much of a keeper's own log is looked at.
const KEEPER_LOG_BYTES: usize = 2048;

/// The most that is read of any file here: results have their own, lower limits.
const LARGEST_FILE: u64 = 256 * 1024 * 1024;

impl TaskFolder {
    /// The same for the same try.
    pub fn of(home: &Home, key: &TryKey) -> Self {
        let parts = [
            key.run.dag_id.as_str(),
            &key.run.run_id,
            &key.task_id,
            &key.map_index.to_string(),
            &key.try_number.to_string(),
        ];
        let hash = Sha256::digest(parts.join("\0").as_bytes());
        Self(home.running_tasks().join(hex::encode(&hash[..12])))
    }

    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// All that are there; none where the folder of folders is missing.
    pub fn all(home: &Home) -> io::Result<Vec<Self>> {
        let entries = match fs::read_dir(home.running_tasks()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        entries.map(|entry| Ok(Self(entry?.path()))).collect()
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What marks the processes of this try, in their environment.
    pub fn mark(&self) -> String {
        self.0.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Made by the task when its own code begins.
    pub fn began(&self) -> PathBuf {
        self.file("began")
    }

    pub fn write_spec(&self, spec: &Spec) -> io::Result<()> {
        files::create_private_dir(&self.0)?;
        self.write("spec.json", spec)
    }

    pub fn spec(&self) -> io::Result<Option<Spec>> {
        self.read("spec.json")
    }

    /// Takes the try for this process; `false` when another process has it.
    pub fn take(&self, process: &ProcessId) -> io::Result<bool> {
        let mine = self.file(&format!("process.{}", process.pid));
        fs::write(&mine, serde_json::to_vec(process)?)?;
        // A link is made or it is not: there is no moment with half a file.
        let taken = match fs::hard_link(&mine, self.file("process.json")) {
            Err(error) if has_no_links(&error) => self.take_without_links(&mine),
            other => other,
        };
        let removed = files::remove_any(&mine);
        match taken {
            Ok(()) => removed.map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Where the file system has no hard links: a file that only one process can create stands for the link.
    /// `warm_try.py` does the same.
    fn take_without_links(&self, mine: &Path) -> io::Result<()> {
        File::create_new(self.file("taken"))?;
        fs::rename(mine, self.file("process.json"))
    }

    /// Who has it, if anybody ever had.
    pub fn keeper(&self) -> io::Result<Option<ProcessId>> {
        self.read("process.json")
    }

    pub fn write_child(&self, process: &ProcessId) -> io::Result<()> {
        self.write("child.json", process)
    }

    pub fn child(&self) -> io::Result<Option<ProcessId>> {
        self.read("child.json")
    }

    /// Sets aside room for the outcome, so that a full disk does not lose it.
    pub fn reserve_outcome(&self) -> io::Result<()> {
        fs::write(self.file(OUTCOME_RESERVE), [0; RESERVE])
    }

    /// Uses the reserve where there is one.
    pub fn write_outcome(&self, outcome: &Outcome) -> io::Result<()> {
        let text = serde_json::to_vec(outcome)?;
        let in_reserve = || {
            let reserve = self.file(OUTCOME_RESERVE);
            let mut file = File::options().write(true).open(&reserve)?;
            file.write_all(&text)?;
            file.set_len(text.len() as u64)?;
            fs::rename(&reserve, self.file("outcome.json"))
        };
        if text.len() <= RESERVE && in_reserve().is_ok() {
            return Ok(());
        }
        self.write("outcome.json", outcome)
    }

    pub fn outcome(&self) -> io::Result<Option<Outcome>> {
        self.read("outcome.json")
    }

    pub fn result(&self) -> io::Result<Option<TaskResult>> {
        self.read("result.json")
    }

    /// What its keeper wrote of its own errors, the end of it, for a reason; empty where there is nothing to read.
    pub fn keeper_log(&self) -> String {
        let bytes = fs::read(self.file("keeper.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(KEEPER_LOG_BYTES)..]).into_owned();
        text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
    }

    pub fn exists(&self) -> io::Result<bool> {
        self.0.try_exists()
    }

    pub fn remove(&self) -> io::Result<()> {
        files::remove_any(&self.0)
    }

    /// Removes it, and only logs a failure: the folder is removed with the next look at all of them.
    pub fn discard(&self) {
        if let Err(error) = self.remove() {
            warn!("{} cannot be removed: {error}", self.path().display());
        }
    }

    /// Whole or absent for every process of this machine. Not fsynced: what a power loss takes with
    /// it is a task that runs, and those it takes too.
    fn write(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        let partial = self.file(&format!("{name}.{}", std::process::id()));
        fs::write(&partial, serde_json::to_vec(value)?)?;
        fs::rename(&partial, self.file(name))
    }

    /// `Ok(None)` for a file that is not there, or that a power loss cut short. Every other error says nothing about the
    /// file: the caller asks again.
    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let text = match files::read_text(&self.file(name), LARGEST_FILE) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
            Err(error) => return Err(error),
        };
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }
}

/// Errors of link(2) on a file system that knows no hard links, or where they are not allowed.
fn has_no_links(error: &io::Error) -> bool {
    use nix::libc::{EACCES, EMLINK, ENOSYS, ENOTSUP, EPERM};
    error.raw_os_error().is_some_and(|code| [EACCES, EMLINK, ENOSYS, ENOTSUP, EPERM].contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_try_is_taken_once_without_hard_links() {
        let folder = tempfile::tempdir().unwrap();
        let task = TaskFolder::at(folder.path().to_owned());
        let mine = |number: u32| {
            let path = folder.path().join(format!("process.{number}"));
            fs::write(&path, "{}").unwrap();
            path
        };
        task.take_without_links(&mine(1)).unwrap();
        let second = task.take_without_links(&mine(2)).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AlreadyExists);
        for code in [nix::libc::EPERM, nix::libc::EOPNOTSUPP] {
            assert!(has_no_links(&io::Error::from_raw_os_error(code)));
        }
        assert!(!has_no_links(&io::Error::from_raw_os_error(nix::libc::EEXIST)));
    }

    #[test]
    fn an_outcome_takes_the_place_of_its_reserve() {
        let folder = tempfile::tempdir().unwrap();
        let task = TaskFolder::at(folder.path().to_owned());
        let outcome = Outcome::not_started(&io::Error::other("x"), true);
        task.write_outcome(&outcome).unwrap();
        assert_eq!(task.outcome().unwrap(), Some(outcome.clone()), "also without a reserve");
        task.reserve_outcome().unwrap();
        let ended = Outcome { exit: Some(Exit::Code(3)), ..outcome };
        task.write_outcome(&ended).unwrap();
        assert_eq!(task.outcome().unwrap(), Some(ended));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the reserve is gone");
    }

    #[test]
    fn an_unreadable_file_is_an_error_and_not_a_missing_one() {
        let folder = tempfile::tempdir().unwrap();
        let task = TaskFolder::at(folder.path().to_owned());
        // Root may read every file: a folder in its place fails for all users.
        fs::create_dir(folder.path().join("outcome.json")).unwrap();
        assert!(task.outcome().is_err());
        assert_eq!(task.result().unwrap(), None);
    }

    #[test]
    fn a_try_is_taken_once() {
        let folder = tempfile::tempdir().unwrap();
        let task = TaskFolder::at(folder.path().to_owned());
        let me = ProcessId::current().unwrap();
        assert!(task.take(&me).unwrap());
        let other = ProcessId { pid: 1, ..me.clone() };
        assert!(!task.take(&other).unwrap());
        assert_eq!(task.keeper().unwrap(), Some(me));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left there");
    }

    #[test]
    fn a_file_that_was_cut_short_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let task = TaskFolder::at(folder.path().to_owned());
        fs::write(folder.path().join("result.json"), "{\"state\": \"succ").unwrap();
        assert_eq!(task.result().unwrap(), None);
        fs::write(folder.path().join("result.json"), "").unwrap();
        assert_eq!(task.result().unwrap(), None);
    }
}
