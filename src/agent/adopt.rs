//! What an agent does with the tries that the datastore takes for running: those of an agent before
//! it. `decide` is pure.

use super::folder::TaskFolder;
use crate::sys::process::ProcessId;
use std::io;

/// What can be seen of such a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// `process.json`: whether anybody has taken it, and still lives.
    pub keeper: KeeperState,
    /// `outcome.json`, or `result.json` of a task whose keeper is gone.
    pub has_ended: bool,
    /// Whether it was claimed since this machine started.
    pub same_boot: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeeperState {
    Never,
    Alive,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adoption {
    /// It runs: it is watched as if we had started it.
    Watch,
    /// It ended while nobody looked.
    Record,
    /// It was claimed and nobody took it: nothing of the user's has run. Should a keeper still be on
    /// its way, one of the two takes it and the other leaves.
    Start,
    /// It began, and is gone without a word: that try has failed.
    Lost,
}

pub fn decide(seen: Seen) -> Adoption {
    match seen {
        // Also one that has told its end: it is about to leave.
        Seen { keeper: KeeperState::Alive, .. } => Adoption::Watch,
        Seen { has_ended: true, .. } => Adoption::Record,
        Seen { keeper: KeeperState::Never, same_boot: true, .. } => Adoption::Start,
        // After a start of the machine the files may be older than what had happened.
        Seen { keeper: KeeperState::Never | KeeperState::Gone, .. } => Adoption::Lost,
    }
}

/// What can be seen of a try, and who keeps it. An error says nothing about the try: it is looked at again later.
pub fn look_at(folder: &TaskFolder, same_boot: bool) -> io::Result<(Seen, Option<ProcessId>)> {
    let process = folder.keeper()?;
    let keeper = match &process {
        None => KeeperState::Never,
        Some(process) if process.is_alive() => KeeperState::Alive,
        Some(_) => KeeperState::Gone,
    };
    let has_ended = folder.outcome()?.is_some() || folder.result()?.is_some();
    Ok((Seen { keeper, has_ended, same_boot }, process))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_runs_twice_and_nothing_is_forgotten() {
        let decide = |keeper, has_ended, same_boot| decide(Seen { keeper, has_ended, same_boot });
        for same_boot in [true, false] {
            for has_ended in [true, false] {
                assert_eq!(decide(KeeperState::Alive, has_ended, same_boot), Adoption::Watch);
            }
            assert_eq!(decide(KeeperState::Gone, true, same_boot), Adoption::Record);
            assert_eq!(decide(KeeperState::Gone, false, same_boot), Adoption::Lost);
        }
        assert_eq!(decide(KeeperState::Never, false, true), Adoption::Start);
        assert_eq!(decide(KeeperState::Never, false, false), Adoption::Lost);
    }
}
