//! The folder of one try, `run/tasks/<id>/`. The agent, the keeper and the task exchange files in it; the files
//! outlive each of the three processes.
//!
//! `spec.json`: the agent's description of what to run; `code.json`: the code of its version. `process.json`: the keeper of
//! the try, which later adds the task's process. Only the first keeper can link this file, so a try runs once no matter how
//! many keepers start. `result.json`: the task's result, complete or missing. `outcome.json`: how the task's process
//! ended, written by the keeper. Keeper and task each write a reserve of `RESERVE` bytes when they begin and overwrite it
//! with their report, so that no report is lost if the disk is full by then.
//!
//! The fewer files the better: ext4 examines each inode that was deleted in the last minutes whenever it creates one.

use super::task_files::{Outcome, Spec, TaskResult};
use leoflow_base::home::Home;
use leoflow_base::sys::fs::{files, folders};
use leoflow_base::sys::process::ProcessId;
use leoflow_engine::model::keys::{InstanceKey, TryKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tracing::warn;

/// The folder of one try; it need not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFolder(PathBuf);

/// The content of `process.json`.
#[derive(Serialize, Deserialize)]
struct Processes {
    /// Its fields are those of the file, because earlier releases wrote and read only them.
    #[serde(flatten)]
    keeper: ProcessId,
    #[serde(skip_serializing_if = "Option::is_none")]
    child: Option<ProcessId>,
}

/// The code of a DAG version, as its tasks read it.
pub(crate) struct Code {
    text: Vec<u8>,
    /// The file that the folders of its tries link to; it need not exist.
    shared: PathBuf,
}

impl Code {
    /// The shared file is named by the text, because another datastore may have the same version ids.
    pub(crate) fn new(text: Vec<u8>, folder: &Path) -> Self {
        let name = hex::encode(&Sha256::digest(&text)[..12]);
        Self { shared: folder.join(name), text }
    }
}

/// Bytes reserved for the keeper's outcome and for the task's result; more than an outcome ever needs.
const RESERVE: usize = 4096;
const OUTCOME_RESERVE: &str = "outcome.reserve";

/// Read limit for each file, in bytes; the writers of results enforce lower limits.
const LARGEST_FILE: u64 = 256 * 1024 * 1024;

impl TaskFolder {
    /// The folder of a try, named by a hash of its key.
    pub fn of(home: &Home, key: &TryKey) -> Self {
        let TryKey { instance: InstanceKey { run, task_id, position }, try_number } = key;
        let parts = [run.dag_id.as_str(), &run.run_id, task_id, &position.file_name(), &try_number.to_string()];
        let hash = Sha256::digest(parts.join("\0").as_bytes());
        Self(home.running_tasks().join(hex::encode(&hash[..12])))
    }

    /// The task folder with this path.
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Lists all task folders; empty when `run/tasks` is missing.
    pub fn all(home: &Home) -> io::Result<Vec<Self>> {
        Ok(folders::entries(&home.running_tasks())?.into_iter().map(Self).collect())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The mark of this try: an id in the environment of all its processes (`TASK_MARK`). By this mark, the processes
    /// are found even after they have left the task's process group. A hash of the folder's name and the home, whose path
    /// is resolved because it stays when `run` is removed: other instances of the user may run a try with the same key.
    pub fn mark(&self) -> String {
        let name = self.0.file_name().unwrap_or_default();
        let home = self.0.ancestors().nth(3).unwrap_or(&self.0);
        let path = home.canonicalize().unwrap_or_else(|_| home.to_owned()).join(name);
        hex::encode(&Sha256::digest(path.as_os_str().as_bytes())[..12])
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes what the task reads: the code of its version, and last the try itself.
    pub(crate) fn write_spec(&self, spec: &Spec, code: &Code) -> io::Result<()> {
        files::create_private_dir(&self.0)?;
        self.place_code(code)?;
        self.write("spec.json", spec)
    }

    /// Links the file that the tries of a version share, or else writes one and shares it.
    fn place_code(&self, Code { text, shared }: &Code) -> io::Result<()> {
        let own = self.file("code.json");
        // It may be shared, so it is never overwritten.
        files::remove_any(&own)?;
        if fs::hard_link(shared, &own).is_err() {
            fs::write(&own, text)?;
            // Fails on a file system without hard links.
            let _ = fs::hard_link(&own, shared);
        }
        Ok(())
    }

    pub fn spec(&self) -> io::Result<Option<Spec>> {
        self.read("spec.json")
    }

    /// Takes the try for this process; `false` when another process has it.
    pub fn take(&self, process: &ProcessId) -> io::Result<bool> {
        let own_file = self.file(&format!("process.{}", process.pid));
        fs::write(&own_file, serde_json::to_vec(&Processes { keeper: process.clone(), child: None })?)?;
        // link(2) is atomic: no process sees half a file.
        let taken = match fs::hard_link(&own_file, self.file("process.json")) {
            Err(error) if lacks_hard_links(&error) => self.take_without_links(&own_file),
            other => other,
        };
        let removed = files::remove_any(&own_file);
        match taken {
            Ok(()) => removed.map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes the try on a file system without hard links: an exclusively created file replaces the link.
    fn take_without_links(&self, own_file: &Path) -> io::Result<()> {
        File::create_new(self.file("taken"))?;
        fs::rename(own_file, self.file("process.json"))
    }

    /// The process that took the try, alive or not.
    pub fn keeper(&self) -> io::Result<Option<ProcessId>> {
        Ok(self.processes()?.map(|processes| processes.keeper))
    }

    /// The task's process, once it was started.
    pub fn child(&self) -> io::Result<Option<ProcessId>> {
        match self.processes()?.and_then(|processes| processes.child) {
            // Written by the keepers of earlier releases.
            None => self.read("child.json"),
            child => Ok(child),
        }
    }

    /// Reads `process.json`. A reader may see a part of what [`Self::write_child`] writes at the same moment, so an
    /// invalid text counts only if it does not change.
    fn processes(&self) -> io::Result<Option<Processes>> {
        let mut earlier = None;
        loop {
            let Some(text) = self.text("process.json")? else { return Ok(None) };
            match serde_json::from_str(&text) {
                Ok(processes) => return Ok(Some(processes)),
                Err(_) if earlier.as_ref() == Some(&text) => return Ok(None),
                Err(_) => earlier = Some(text),
            }
        }
    }

    /// Adds the task's process. Overwrites the file with a longer text that begins in the same way.
    pub(crate) fn write_child(&self, keeper: &ProcessId, child: ProcessId) -> io::Result<()> {
        let text = serde_json::to_vec(&Processes { keeper: keeper.clone(), child: Some(child) })?;
        File::options().write(true).open(self.file("process.json"))?.write_all(&text)
    }

    /// Reserves disk space for the outcome, so that a full disk does not lose it.
    pub(crate) fn reserve_outcome(&self) -> io::Result<()> {
        fs::write(self.file(OUTCOME_RESERVE), [0; RESERVE])
    }

    /// Writes the outcome into the reserve, if there is one.
    pub(crate) fn write_outcome(&self, outcome: &Outcome) -> io::Result<()> {
        let text = serde_json::to_vec(outcome)?;
        let write_into_reserve = || {
            let reserve = self.file(OUTCOME_RESERVE);
            let mut file = File::options().write(true).open(&reserve)?;
            file.write_all(&text)?;
            file.set_len(text.len() as u64)?;
            fs::rename(&reserve, self.file("outcome.json"))
        };
        if text.len() <= RESERVE && write_into_reserve().is_ok() {
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

    pub fn exists(&self) -> io::Result<bool> {
        self.0.try_exists()
    }

    pub fn remove(&self) -> io::Result<()> {
        files::remove_any(&self.0)
    }

    /// Removes the folder. A failure is only logged: the next take-over removes the folder.
    pub fn discard(&self) {
        if let Err(error) = self.remove() {
            warn!("cannot remove {}: {error}", self.path().display());
        }
    }

    /// Writes a file atomically: every process of this machine sees all of it or none. Not fsynced, because a power
    /// loss ends the running tasks anyway.
    fn write(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        let partial = self.file(&format!("{name}.{}", std::process::id()));
        fs::write(&partial, serde_json::to_vec(value)?)?;
        fs::rename(&partial, self.file(name))
    }

    /// `Ok(None)` for a file that is missing, or that a power loss truncated. Every other error proves nothing about
    /// the file, so the caller retries.
    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        Ok(self.text(name)?.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// The text of a file; `None` if it is missing or no text.
    fn text(&self, name: &str) -> io::Result<Option<String>> {
        match files::read_text(&self.file(name), LARGEST_FILE) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
            other => other,
        }
    }
}

/// True for the errors of link(2) on a file system without hard links, or where they are not permitted.
fn lacks_hard_links(error: &io::Error) -> bool {
    use nix::libc::{EACCES, EMLINK, ENOSYS, ENOTSUP, EPERM};
    error.raw_os_error().is_some_and(|code| [EACCES, EMLINK, ENOSYS, ENOTSUP, EPERM].contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use leoflow_base::sys::process::reaper::Exit;

    #[test]
    fn a_try_is_taken_once_without_hard_links() {
        let folder = tempfile::tempdir().unwrap();
        let task = TaskFolder::at(folder.path().to_owned());
        let own_file = |number: u32| {
            let path = folder.path().join(format!("process.{number}"));
            fs::write(&path, "{}").unwrap();
            path
        };
        task.take_without_links(&own_file(1)).unwrap();
        let second = task.take_without_links(&own_file(2)).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AlreadyExists);
        for code in [nix::libc::EPERM, nix::libc::EOPNOTSUPP] {
            assert!(lacks_hard_links(&io::Error::from_raw_os_error(code)));
        }
        assert!(!lacks_hard_links(&io::Error::from_raw_os_error(nix::libc::EEXIST)));
    }

    #[test]
    fn an_outcome_takes_the_place_of_its_reserve() {
        let folder = tempfile::tempdir().unwrap();
        let task = TaskFolder::at(folder.path().to_owned());
        let outcome = Outcome::not_started(&io::Error::other("x"));
        task.write_outcome(&outcome).unwrap();
        assert_eq!(task.outcome().unwrap(), Some(outcome.clone()), "without a reserve");
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
    fn the_tasks_process_is_added_to_that_of_its_keeper() {
        let folder = tempfile::tempdir().unwrap();
        let task = TaskFolder::at(folder.path().to_owned());
        let keeper = ProcessId::current().unwrap();
        let child = ProcessId { pid: 1, ..keeper.clone() };
        // A keeper of an earlier release writes the child into a file of its own.
        task.write("child.json", &child).unwrap();
        task.take(&keeper).unwrap();
        assert_eq!(task.child().unwrap(), Some(child.clone()));
        fs::remove_file(folder.path().join("child.json")).unwrap();
        assert_eq!(task.child().unwrap(), None);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| (0..2000).all(|_| task.keeper().unwrap() == Some(keeper.clone())));
            for _ in 0..500 {
                task.write_child(&keeper, child.clone()).unwrap();
                fs::write(folder.path().join("other"), serde_json::to_vec(&keeper).unwrap()).unwrap();
                fs::rename(folder.path().join("other"), folder.path().join("process.json")).unwrap();
            }
            assert!(reader.join().unwrap(), "every read finds the keeper");
        });
        task.write_child(&keeper, child.clone()).unwrap();
        assert_eq!((task.keeper().unwrap(), task.child().unwrap()), (Some(keeper.clone()), Some(child)));
        // Earlier releases read only the keeper.
        let text = fs::read(folder.path().join("process.json")).unwrap();
        assert_eq!(serde_json::from_slice::<ProcessId>(&text).unwrap(), keeper);
    }

    #[test]
    fn a_mark_names_the_home_by_its_real_path() {
        let folder = tempfile::tempdir().unwrap();
        let (home, link) = (folder.path().join("home"), folder.path().join("link"));
        fs::create_dir_all(home.join("run/tasks")).unwrap();
        std::os::unix::fs::symlink(&home, &link).unwrap();
        let mark = |home: &Path| TaskFolder::at(home.join("run/tasks/a")).mark();
        let marks = [mark(&home), mark(&link)];
        fs::remove_dir_all(home.join("run")).unwrap();
        assert_eq!([mark(&home), mark(&link)], [marks[0].clone(), marks[0].clone()]);
        assert_eq!(marks[0], marks[1]);
        assert_ne!(mark(folder.path()), marks[0], "another home");
    }

    #[test]
    fn tries_of_a_version_share_its_code() {
        use std::os::unix::fs::MetadataExt;

        let home = tempfile::tempdir().unwrap();
        let code = Code::new(b"text".to_vec(), &home.path().join("code"));
        let place = |name: &str| {
            let folder = home.path().join(name);
            fs::create_dir_all(&folder).unwrap();
            TaskFolder::at(folder.clone()).place_code(&code).unwrap();
            assert_eq!(fs::read(folder.join("code.json")).unwrap(), b"text");
            fs::metadata(folder.join("code.json")).unwrap().ino()
        };
        assert_ne!(place("a"), place("b"), "the folder for shared code is missing");
        fs::create_dir(home.path().join("code")).unwrap();
        let shared = place("a");
        assert_eq!([place("b"), place("c"), place("b")], [shared; 3]);
        assert_ne!(Code::new(b"other".to_vec(), &home.path().join("code")).shared, code.shared);
    }

    #[test]
    fn a_truncated_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let task = TaskFolder::at(folder.path().to_owned());
        fs::write(folder.path().join("result.json"), "{\"state\": \"succ").unwrap();
        assert_eq!(task.result().unwrap(), None);
        fs::write(folder.path().join("result.json"), "").unwrap();
        assert_eq!(task.result().unwrap(), None);
    }
}
