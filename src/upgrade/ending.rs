//! Which end an upgrade comes to that does not go on, or was interrupted. Pure.

use super::steps::Step;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Nothing was changed yet: what was fetched and rehearsed goes.
    Forget,
    /// The release from before runs again, with its database, which comes back where it was copied already.
    GoBack,
    /// The migrations are undone, and the release from before runs again; what was written meanwhile stays.
    Leave,
    /// The new release stays, and its last steps are taken.
    Complete,
}

/// Of an upgrade that failed at `step`. `may_leave` is whether a release that was opened to everybody can be left
/// again, and whether that is wanted.
pub fn of_failure(step: Step, may_leave: bool) -> Ending {
    match step {
        Step::Fetch | Step::Backup | Step::Rehearse => Ending::Forget,
        Step::LetGo | Step::Snapshot | Step::Migrate | Step::Trial => Ending::GoBack,
        Step::Open | Step::Smoke if may_leave => Ending::Leave,
        Step::Open | Step::Smoke | Step::Commit | Step::TakeOver | Step::Tidy => Ending::Complete,
    }
}

/// Of an upgrade whose process was ended at `step`. `is_leaving` is whether it had decided to leave the new release.
pub fn of_interruption(step: Step, is_leaving: bool) -> Ending {
    if is_leaving { Ending::Leave } else { of_failure(step, false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_the_pause_it_is_forgotten_and_after_it_the_database_comes_back() {
        let at = |step| of_failure(step, true);
        assert_eq!([Step::Fetch, Step::Backup, Step::Rehearse].map(at), [Ending::Forget; 3]);
        assert_eq!([Step::LetGo, Step::Snapshot, Step::Migrate, Step::Trial].map(at), [Ending::GoBack; 4]);
    }

    #[test]
    fn once_it_is_open_to_everybody_nothing_that_was_written_is_lost() {
        for step in Step::ALL.into_iter().filter(|step| *step >= Step::Open) {
            for may_leave in [true, false] {
                assert!(matches!(of_failure(step, may_leave), Ending::Leave | Ending::Complete), "{step:?}");
            }
            assert_eq!(of_interruption(step, false), Ending::Complete, "{step:?}");
        }
        assert_eq!(of_failure(Step::Smoke, true), Ending::Leave);
        assert_eq!(of_failure(Step::Commit, true), Ending::Complete, "it is what is installed already");
    }

    #[test]
    fn what_has_decided_to_leave_goes_on_leaving() {
        assert!(Step::ALL.into_iter().all(|step| of_interruption(step, true) == Ending::Leave));
    }
}
