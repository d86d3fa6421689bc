//! The tries that the agent has running, and those that have ended and are not recorded yet.

use super::adopt::Boot;
use crate::keeper::TaskFolder;
use leoflow_base::sys::process::ProcessId;
use leoflow_base::sys::process::reaper::Exit;
use leoflow_engine::model::keys::TryKey;
use leoflow_python::Interpreter;
use std::rc::Rc;

/// A running try.
pub(super) struct Running {
    pub(super) folder: TaskFolder,
    /// The process that keeps the try.
    pub(super) keeper: ProcessId,
    /// The Python that runs the try; unknown for an adopted try.
    pub(super) interpreter: Option<Rc<Interpreter>>,
    pub(super) stop_requested: bool,
}

impl Running {
    pub(super) fn new(folder: TaskFolder, keeper: ProcessId, interpreter: Option<Rc<Interpreter>>) -> Self {
        Self { folder, keeper, interpreter, stop_requested: false }
    }
}

/// A try that has ended.
pub(super) struct EndedTry {
    pub(super) key: TryKey,
    pub(super) folder: TaskFolder,
    pub(super) interpreter: Option<Rc<Interpreter>>,
    /// `None` if no keeper took the try.
    pub(super) keeper: Option<ProcessId>,
    /// How the keeper ended, if it did so before the try.
    pub(super) keeper_exit: Option<Exit>,
    /// The boot in which the try's files were written. After a crash of the machine, their last writes may be missing.
    pub(super) boot: Boot,
}

impl EndedTry {
    pub(super) fn adopted(key: &TryKey, folder: &TaskFolder, keeper: Option<ProcessId>, boot: Boot) -> Self {
        Self { key: key.clone(), folder: folder.clone(), interpreter: None, keeper, keeper_exit: None, boot }
    }

    pub(super) fn of(key: TryKey, Running { folder, keeper, interpreter, .. }: Running) -> Self {
        Self { key, folder, interpreter, keeper: Some(keeper), keeper_exit: None, boot: Boot::Current }
    }

    pub(super) fn with_keeper_exit(self, keeper_exit: Option<Exit>) -> Self {
        Self { keeper_exit, ..self }
    }
}
