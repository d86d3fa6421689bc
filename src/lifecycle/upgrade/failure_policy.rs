//! Decides how an upgrade that failed or was interrupted is finished. Pure.

use super::steps::Step;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureAction {
    /// Nothing was changed yet: removes what was fetched and rehearsed.
    Discard,
    /// Starts the previous release again; the database snapshot is restored if it was already taken.
    RestoreSnapshot,
    /// Undoes the migrations and starts the previous release again; newer data stays.
    UndoMigrations,
    /// Keeps the new release and runs its last steps.
    Complete,
}

/// Whether a release that already has the listeners can be rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undo {
    /// Its migrations can be undone and `--no-rollback` was not given.
    Possible,
    Impossible,
}

/// Whether the undo of the migrations had begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undoing {
    Begun,
    NotBegun,
}

/// The action after a failure at `step`.
pub(crate) fn after_failure(step: Step, undo: Undo) -> FailureAction {
    match step {
        Step::Fetch | Step::Backup | Step::Rehearse => FailureAction::Discard,
        Step::Pause | Step::Snapshot | Step::Migrate | Step::Trial => FailureAction::RestoreSnapshot,
        Step::Open | Step::Smoke if undo == Undo::Possible => FailureAction::UndoMigrations,
        Step::Open | Step::Smoke | Step::Commit | Step::TakeOver | Step::Tidy => FailureAction::Complete,
    }
}

/// The action after the process was killed at `step`.
pub fn after_interruption(step: Step, undoing: Undoing) -> FailureAction {
    match undoing {
        Undoing::Begun => FailureAction::UndoMigrations,
        Undoing::NotBegun => after_failure(step, Undo::Impossible),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discards_before_the_pause_and_restores_the_snapshot_after_it() {
        let action = |step| after_failure(step, Undo::Possible);
        assert_eq!([Step::Fetch, Step::Backup, Step::Rehearse].map(action), [FailureAction::Discard; 3]);
        assert_eq!(
            [Step::Pause, Step::Snapshot, Step::Migrate, Step::Trial].map(action),
            [FailureAction::RestoreSnapshot; 4]
        );
    }

    #[test]
    fn keeps_data_written_after_the_listeners_are_handed_over() {
        for step in Step::ALL.into_iter().filter(|step| *step >= Step::Open) {
            for undo in [Undo::Possible, Undo::Impossible] {
                assert!(
                    matches!(after_failure(step, undo), FailureAction::UndoMigrations | FailureAction::Complete),
                    "{step:?}"
                );
            }
            assert_eq!(after_interruption(step, Undoing::NotBegun), FailureAction::Complete, "{step:?}");
        }
        assert_eq!(after_failure(Step::Smoke, Undo::Possible), FailureAction::UndoMigrations);
        assert_eq!(after_failure(Step::Commit, Undo::Possible), FailureAction::Complete, "it is already installed");
    }

    #[test]
    fn an_interrupted_undo_is_resumed() {
        assert!(
            Step::ALL.into_iter().all(|step| after_interruption(step, Undoing::Begun) == FailureAction::UndoMigrations)
        );
    }
}
