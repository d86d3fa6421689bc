//! Restores, their undoing, and moves to another datastore that did not come to their end.

use super::Recovery;
use crate::backup::exchange::{self, Resumed};
use crate::backup::relocation;
use crate::error::Error;
use crate::home::Home;
use crate::home::journal::{Entry, Operation};
use crate::home::progress::{Progress, Reporter};
use crate::upgrade::snapshot;

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
        let resumed = exchange::resume(self.home, &access, entry).await?;
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

/// What had been put into the workspace while an exchange was interrupted, and was in its way.
pub fn tell_conflicts(home: &Home, reporter: &dyn Reporter) {
    for folder in exchange::conflicts(home) {
        reporter.report(Progress::Warning(format!("what was in the way in the workspace is in {}", folder.display())));
    }
}
