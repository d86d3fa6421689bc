//! Restores, their undoing, and moves to another datastore that did not come to their end.

use super::{Recovery, rollback_record};
use crate::backup::ExchangeError;
use crate::backup::exchange::{self, Resumed};
use crate::backup::relocation;
use crate::error::Error;
use crate::home::Home;
use crate::home::journal::{Entry, Operation};
use crate::home::progress::{Progress, Reporter};
use crate::upgrade::{snapshot, stage};
use std::fs;
use std::path::Path;

impl Recovery<'_> {
    pub(super) async fn finish_move(&self, entry: Entry) -> Result<(), Error> {
        self.end_leftovers()?;
        let text = match relocation::resume(self.home, entry, self.reporter).await? {
            relocation::Resumed::Finished => {
                // Copies from before an upgrade are where the data was; the next upgrade forgets them too.
                let _ = snapshot::forget_all(self.home);
                "finished the move to another datastore that was interrupted"
            }
            relocation::Resumed::TakenBack => {
                "took back the move to another datastore that was interrupted; everything is as it was before it"
            }
        };
        self.reporter.report(Progress::Note(text.to_owned()));
        Ok(())
    }

    pub(super) async fn finish_exchange(&self, entry: Entry) -> Result<(), Error> {
        self.end_leftovers()?;
        let (access, server) = self.private_server().await?;
        let what = match entry.operation {
            Operation::RestoreUndo => "undoing of a restore",
            _ => "restore",
        };
        let resumed = exchange::resume(self.home, &access, entry).await.map_err(|error| self.named_restorer(error))?;
        drop(server);
        let text = match resumed {
            Resumed::Finished => format!("finished the {what} that was interrupted"),
            Resumed::TakenBack(None) => {
                format!("took back the {what} that had failed; everything is as it was before it")
            }
            Resumed::TakenBack(Some(why)) => {
                format!("took back the {what} that was interrupted; everything is as it was before it: {why}")
            }
        };
        self.reporter.report(Progress::Note(text));
        tell_conflicts(self.home, self.reporter);
        Ok(())
    }
}

impl Recovery<'_> {
    /// In a rollback the older release restores: a newer one may not know its steps.
    fn named_restorer(&self, error: ExchangeError) -> Error {
        let is_of_another = matches!(error, ExchangeError::OtherSteps | ExchangeError::Plan(_));
        let record = rollback_record(self.home).ok().flatten().filter(|_| is_of_another);
        let mut error = Error::from(error);
        if let Some(record) = record {
            let program = stage::program_of(self.home, &record.to);
            error.hints.insert(0, format!("finish it with {}: {} lite start", record.to, program.display()));
        }
        error
    }
}

/// What was in the way of an exchange, by name.
pub fn tell_conflicts(home: &Home, reporter: &dyn Reporter) {
    for folder in exchange::conflicts(home) {
        let mut names: Vec<String> = files_below(&folder);
        let more = names.len().saturating_sub(NAMED);
        names.truncate(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let text =
            format!("what was in the way in the workspace is in {}: {}{more}", folder.display(), names.join(", "));
        reporter.report(Progress::Warning(text));
    }
}

const NAMED: usize = 20;

/// Relative paths of what is in a folder, a version control folder or the like as one.
fn files_below(folder: &Path) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            match is_folder && !entry.file_name().to_string_lossy().starts_with('.') && found.len() < 1000 {
                true => folders.push(path),
                false => found.extend(path.strip_prefix(folder).map(|path| path.display().to_string())),
            }
        }
    }
    found.sort();
    found
}
