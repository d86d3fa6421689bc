//! Decides how an agent adopts the tries of an earlier agent that the datastore records as running. `decide` is pure.

use crate::keeper::TaskFolder;
use leoflow_base::sys::process::ProcessId;
use std::io;

/// Where a try was claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// In the current boot of this machine, for the current datastore.
    Current,
    /// In an earlier boot, or on another machine.
    Earlier,
    /// The datastore is not the one that the folders of tries belong to: it was restored or cloned.
    OtherDatastore,
}

/// From `process.json`: whether a keeper took the try, and whether it still runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeeperState {
    /// No keeper took the try.
    Never,
    Alive,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adoption {
    /// The try runs: watch its keeper as if this agent had started it.
    Watch,
    /// The try ended while no agent watched: record its outcome.
    Record,
    /// The try was claimed and no keeper took it, so no user code has run: start it. If another keeper is still starting
    /// it, only one of the two takes it.
    Start,
    /// The try began and is gone without a result: it has failed.
    Lost,
}

/// `has_ended` is true if `outcome.json` or `result.json` exists.
fn decide(keeper: KeeperState, has_ended: bool, boot: Boot) -> Adoption {
    match (keeper, boot) {
        // Also if there is an outcome, since the keeper is then about to exit.
        (KeeperState::Alive, _) => Adoption::Watch,
        _ if has_ended => Adoption::Record,
        (KeeperState::Never, Boot::Current) => Adoption::Start,
        // After a reboot, missing files prove nothing: the last writes may be lost. Nor does a missing folder for a
        // datastore that was restored or cloned.
        (KeeperState::Never | KeeperState::Gone, _) => Adoption::Lost,
    }
}

/// Decides from the files of a try that none of the connected keepers runs; returns its keeper too. An error proves
/// nothing about the try, so the caller retries later.
pub fn inspect(
    folder: &TaskFolder,
    boot: Boot,
    is_connected: impl Fn(&ProcessId) -> bool,
) -> io::Result<(Adoption, Option<ProcessId>)> {
    let process = folder.keeper()?;
    let keeper = match &process {
        None => KeeperState::Never,
        // The keeper of an earlier release, or one that does not answer now.
        Some(process) if process.is_alive() && !is_connected(process) => KeeperState::Alive,
        Some(_) => KeeperState::Gone,
    };
    let has_ended = folder.outcome()?.is_some() || folder.result()?.is_some();
    Ok((decide(keeper, has_ended, boot), process))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_try_is_adopted_exactly_once() {
        for boot in [Boot::Current, Boot::Earlier, Boot::OtherDatastore] {
            for has_ended in [true, false] {
                assert_eq!(decide(KeeperState::Alive, has_ended, boot), Adoption::Watch);
            }
            assert_eq!(decide(KeeperState::Gone, true, boot), Adoption::Record);
            assert_eq!(decide(KeeperState::Gone, false, boot), Adoption::Lost);
        }
        assert_eq!(decide(KeeperState::Never, false, Boot::Current), Adoption::Start);
        assert_eq!(decide(KeeperState::Never, false, Boot::Earlier), Adoption::Lost);
        assert_eq!(decide(KeeperState::Never, false, Boot::OtherDatastore), Adoption::Lost);
    }
}
