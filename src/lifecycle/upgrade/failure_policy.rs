//! Decides how `finish` ends an upgrade that failed or was interrupted. Pure.

use super::steps::Step;

/// How `finish` ends an upgrade, whether it succeeded or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishAction {
    /// Nothing was changed yet: removes the downloaded files and the rehearsal.
    Discard,
    /// Starts the previous release again; the database snapshot is restored if it was already taken.
    RestoreSnapshot,
    /// Undoes the migrations and starts the previous release again; newer data stays.
    UndoMigrations,
    /// Switches to the new release and runs the remaining steps: after a success, and after a failure that comes too
    /// late to return to the previous release.
    Complete,
}

/// Whether an upgrade can be rolled back after the new release got the listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undo {
    /// The migrations can be undone and `--no-rollback` was not given.
    Possible,
    Impossible,
}

/// Whether the undo of the migrations had begun when the process was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undoing {
    Begun,
    NotBegun,
}

/// The action after a failure at `step`.
pub(crate) fn after_failure(step: Step, undo: Undo) -> FinishAction {
    match step {
        Step::Fetch | Step::Backup | Step::Rehearse => FinishAction::Discard,
        Step::Pause | Step::Snapshot | Step::Migrate | Step::Trial => FinishAction::RestoreSnapshot,
        Step::Open | Step::Smoke if undo == Undo::Possible => FinishAction::UndoMigrations,
        Step::Open | Step::Smoke | Step::Commit | Step::TakeOver | Step::Tidy => FinishAction::Complete,
    }
}

/// The action after the process was killed at `step`.
pub(crate) fn after_interruption(step: Step, undoing: Undoing) -> FinishAction {
    match undoing {
        Undoing::Begun => FinishAction::UndoMigrations,
        Undoing::NotBegun => after_failure(step, Undo::Impossible),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discards_before_the_pause_and_restores_the_snapshot_after_it() {
        let action = |step| after_failure(step, Undo::Possible);
        assert_eq!([Step::Fetch, Step::Backup, Step::Rehearse].map(action), [FinishAction::Discard; 3]);
        assert_eq!(
            [Step::Pause, Step::Snapshot, Step::Migrate, Step::Trial].map(action),
            [FinishAction::RestoreSnapshot; 4]
        );
    }

    #[test]
    fn keeps_data_written_after_the_listeners_are_handed_over() {
        for step in Step::ALL.iter().copied().filter(|step| *step >= Step::Open) {
            for undo in [Undo::Possible, Undo::Impossible] {
                assert!(
                    matches!(after_failure(step, undo), FinishAction::UndoMigrations | FinishAction::Complete),
                    "{step:?}"
                );
            }
            assert_eq!(after_interruption(step, Undoing::NotBegun), FinishAction::Complete, "{step:?}");
        }
        assert_eq!(after_failure(Step::Smoke, Undo::Possible), FinishAction::UndoMigrations);
        assert_eq!(after_failure(Step::Commit, Undo::Possible), FinishAction::Complete, "it is already installed");
    }

    #[test]
    fn an_interrupted_undo_is_resumed() {
        assert!(Step::ALL.iter().all(|step| after_interruption(*step, Undoing::Begun) == FinishAction::UndoMigrations));
    }
}
