//! Decides how an agent adopts the tries of an earlier agent that the datastore records as running. `decide` is pure.

use super::folder::TaskFolder;
use leoflow_base::sys::process::ProcessId;
use std::io;

/// Evidence about a try, from its files and its keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// From `process.json`: whether a keeper took the try, and whether that keeper is alive.
    pub keeper: KeeperState,
    /// True if `outcome.json` or `result.json` exists.
    pub has_ended: bool,
    pub boot: Boot,
}

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeeperState {
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
    /// The try was claimed and no keeper took it, so no user code has run: start a keeper. If another keeper is still
    /// starting, one of the two takes the try and the other exits.
    Start,
    /// The try began and is gone without a result: it has failed.
    Lost,
}

pub fn decide(evidence: Evidence) -> Adoption {
    match evidence {
        // Also if there is an outcome, since the keeper is then about to exit.
        Evidence { keeper: KeeperState::Alive, .. } => Adoption::Watch,
        Evidence { has_ended: true, .. } => Adoption::Record,
        Evidence { keeper: KeeperState::Never, boot: Boot::Current, .. } => Adoption::Start,
        // After a reboot, missing files prove nothing: the last writes may be lost. Nor does a missing folder for a
        // datastore that was restored or cloned.
        Evidence { keeper: KeeperState::Never | KeeperState::Gone, .. } => Adoption::Lost,
    }
}

/// Reads the evidence about a try, and its keeper. An error proves nothing about the try, so the caller retries later.
pub fn inspect(folder: &TaskFolder, boot: Boot) -> io::Result<(Evidence, Option<ProcessId>)> {
    let process = folder.keeper()?;
    let keeper = match &process {
        None => KeeperState::Never,
        Some(process) if process.is_alive() => KeeperState::Alive,
        Some(_) => KeeperState::Gone,
    };
    let has_ended = folder.outcome()?.is_some() || folder.result()?.is_some();
    Ok((Evidence { keeper, has_ended, boot }, process))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_try_is_adopted_exactly_once() {
        let decide = |keeper, has_ended, boot| decide(Evidence { keeper, has_ended, boot });
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
