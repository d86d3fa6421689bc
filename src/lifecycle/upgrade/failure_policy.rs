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

/// The action after a failure at `step`. `may_undo` is true when a release that already has the listeners can be
/// rolled back and `--no-rollback` was not given.
pub fn after_failure(step: Step, may_undo: bool) -> FailureAction {
    match step {
        Step::Fetch | Step::Backup | Step::Rehearse => FailureAction::Discard,
        Step::Pause | Step::Snapshot | Step::Migrate | Step::Trial => FailureAction::RestoreSnapshot,
        Step::Open | Step::Smoke if may_undo => FailureAction::UndoMigrations,
        Step::Open | Step::Smoke | Step::Commit | Step::TakeOver | Step::Tidy => FailureAction::Complete,
    }
}

/// The action after the process was killed at `step`. `is_undoing` is true when it was already undoing the migrations.
pub fn after_interruption(step: Step, is_undoing: bool) -> FailureAction {
    if is_undoing { FailureAction::UndoMigrations } else { after_failure(step, false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discards_before_the_pause_and_restores_the_snapshot_after_it() {
        let action = |step| after_failure(step, true);
        assert_eq!([Step::Fetch, Step::Backup, Step::Rehearse].map(action), [FailureAction::Discard; 3]);
        assert_eq!(
            [Step::Pause, Step::Snapshot, Step::Migrate, Step::Trial].map(action),
            [FailureAction::RestoreSnapshot; 4]
        );
    }

    #[test]
    fn keeps_data_written_after_the_listeners_are_handed_over() {
        for step in Step::ALL.into_iter().filter(|step| *step >= Step::Open) {
            for may_undo in [true, false] {
                assert!(
                    matches!(after_failure(step, may_undo), FailureAction::UndoMigrations | FailureAction::Complete),
                    "{step:?}"
                );
            }
            assert_eq!(after_interruption(step, false), FailureAction::Complete, "{step:?}");
        }
        assert_eq!(after_failure(Step::Smoke, true), FailureAction::UndoMigrations);
        assert_eq!(after_failure(Step::Commit, true), FailureAction::Complete, "it is already installed");
    }

    #[test]
    fn an_interrupted_undo_is_resumed() {
        assert!(Step::ALL.into_iter().all(|step| after_interruption(step, true) == FailureAction::UndoMigrations));
    }
}
