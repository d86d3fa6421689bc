//! Finishes or undoes interrupted restores, restore undos, and moves to another datastore.

use super::{Recovery, rollback_record};
use crate::error::Error;
use leoflow_base::home::Home;
use leoflow_base::home::journal::{Entry, Operation};
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_lifecycle::backup::ExchangeError;
use leoflow_lifecycle::backup::relocation;
use leoflow_lifecycle::backup::restore::exchange::{self, Resumed};
use leoflow_lifecycle::upgrade::release::stage;
use leoflow_lifecycle::upgrade::rollback::snapshot;
use std::fs;
use std::path::Path;

impl Recovery<'_> {
    /// Finishes or undoes a move to another datastore.
    pub(crate) async fn finish_move(&self, entry: Entry) -> Result<(), Error> {
        self.end_leftovers()?;
        let text = match relocation::resume(self.home, entry, self.reporter).await? {
            relocation::Resumed::Finished => {
                // Snapshots stay on the old server. If this fails, the next upgrade clears them.
                let _ = snapshot::forget_all(self.home);
                "finished the interrupted move to another datastore"
            }
            relocation::Resumed::Undone => "undid the interrupted move to another datastore; nothing has changed",
        };
        self.reporter.report(Progress::Note(text.to_owned()));
        Ok(())
    }

    /// Finishes or undoes the exchange of the current state with another one: a restore, or the undo of one.
    pub(crate) async fn finish_exchange(&self, entry: Entry) -> Result<(), Error> {
        self.end_leftovers()?;
        let (access, server) = self.private_server().await?;
        let operation = match entry.operation {
            Operation::RestoreUndo => "undo of a restore",
            _ => "restore",
        };
        let resumed =
            exchange::resume(self.home, &access, entry).await.map_err(|error| self.with_restorer_hint(error))?;
        drop(server);
        let text = match resumed {
            Resumed::Finished => format!("finished the interrupted {operation}"),
            Resumed::Undone(None) => {
                format!("reverted the failed {operation}; nothing has changed")
            }
            Resumed::Undone(Some(reason)) => {
                format!("reverted the interrupted {operation}; nothing has changed: {reason}")
            }
        };
        self.reporter.report(Progress::Note(text));
        report_conflicts(self.home, self.reporter);
        Ok(())
    }
}

impl Recovery<'_> {
    /// Adds a hint that names the older release's program: in a rollback, that program restores, and this release may
    /// not know its steps.
    fn with_restorer_hint(&self, error: ExchangeError) -> Error {
        let is_other_release = matches!(error, ExchangeError::OtherSteps | ExchangeError::Plan(_));
        let record = rollback_record(self.home).ok().flatten().filter(|_| is_other_release);
        let mut error = Error::from(error);
        if let Some(record) = record {
            let program = stage::program_of(self.home, &record.to);
            error.hints.insert(0, format!("finish it with {}: {} lite start", record.to, program.display()));
        }
        error
    }
}

/// Reports the files that were in the way of an exchange and where they were moved, and the folders that it left.
pub(crate) fn report_conflicts(home: &Home, reporter: &dyn Reporter) {
    for folder in exchange::fixed(home) {
        let text = format!("{} stays as it was: this user cannot move it, and no backup contains it", folder.display());
        reporter.report(Progress::Warning(text));
    }
    for folder in exchange::conflicts(home) {
        let mut names: Vec<String> = files_below(&folder);
        let unnamed_count = names.len().saturating_sub(MAX_NAMED);
        names.truncate(MAX_NAMED);
        let suffix = if unnamed_count > 0 { format!(" and {unnamed_count} more") } else { String::new() };
        let text = format!("files in the way were moved to {}: {}{suffix}", folder.display(), names.join(", "));
        reporter.report(Progress::Warning(text));
    }
}

/// Maximum number of files named in the message.
const MAX_NAMED: usize = 20;

/// Lists the relative paths of the files in a folder; a hidden folder such as `.git` counts as one.
fn files_below(folder: &Path) -> Vec<String> {
    let (mut paths, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(current) = folders.pop() {
        for entry in fs::read_dir(&current).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            match is_folder && !entry.file_name().to_string_lossy().starts_with('.') && paths.len() < 1000 {
                true => folders.push(path),
                false => paths.extend(path.strip_prefix(folder).map(|path| path.display().to_string())),
            }
        }
    }
    paths.sort();
    paths
}
