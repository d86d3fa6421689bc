//! Selects the backups to copy to a place, and those to remove there. Pure.

use super::records::CopyRecord;
use jiff::{SignedDuration, Timestamp};
use leoflow_base::home::backup_names::is_history_archive;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// A backup in the home, or at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub name: String,
    pub created_at: Option<Timestamp>,
}

impl Candidate {
    /// True if it holds removed history, which no newer backup has.
    fn is_history(&self) -> bool {
        is_history_archive(Path::new(&self.name))
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Selection {
    /// Names of backups in the home.
    pub send: HashSet<String>,
    /// Names of backups at the place, oldest first.
    pub remove: Vec<String>,
}

/// Dates up to this far in the future are accepted; others were written while the clock was ahead.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_hours(24);

/// A place has the newest `keep` backups of those in the home and those that it has already, and all archives of removed
/// history. `present` are the copies of this home at the place. A date in the future counts as the oldest.
pub fn select(
    local: impl IntoIterator<Item = Candidate>,
    present: &[CopyRecord],
    keep: u64,
    now: Timestamp,
) -> Selection {
    let removable: HashSet<&str> =
        present.iter().filter(|record| !record.was_there).map(|record| record.name.as_str()).collect();
    let there: HashSet<&str> = present.iter().map(|record| record.name.as_str()).collect();
    let known = present.iter().map(|record| Candidate { name: record.name.clone(), created_at: record.created_at });
    let all: BTreeMap<String, Candidate> =
        known.chain(local).map(|candidate| (candidate.name.clone(), candidate)).collect();
    let (history, mut backups): (Vec<_>, Vec<_>) = all.into_values().partition(Candidate::is_history);
    let latest = now.checked_add(CLOCK_TOLERANCE).unwrap_or(Timestamp::MAX);
    let age = |candidate: &Candidate| (candidate.created_at.filter(|time| *time <= latest), candidate.name.clone());
    backups.sort_by_key(|candidate| std::cmp::Reverse(age(candidate)));
    let excess = backups.split_off(backups.len().min(usize::try_from(keep).unwrap_or(usize::MAX)));
    let send = history.into_iter().chain(backups).filter(|candidate| !there.contains(candidate.name.as_str()));
    let is_removable = |candidate: &Candidate| removable.contains(candidate.name.as_str());
    Selection {
        send: send.map(|candidate| candidate.name).collect(),
        remove: excess.into_iter().rev().filter(is_removable).map(|candidate| candidate.name).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_keeps_its_own_number_of_the_newest() {
        let now = Timestamp::from_second(20 * 86_400).unwrap();
        let time = |day: i64| Timestamp::from_second(day * 86_400).ok();
        let backup = |day: i64| Candidate { name: day.to_string(), created_at: time(day) };
        let history = Candidate { name: "history-1.tar.zst".to_owned(), created_at: time(1) };
        let record = |day: i64| CopyRecord {
            to: "/usb".to_owned(),
            name: day.to_string(),
            size: 1,
            sha256: String::new(),
            created_at: time(day),
            copied_at: Some(now),
            was_there: day == 3,
        };
        let selected = |local: &[Candidate], present: &[i64], keep| {
            let present: Vec<CopyRecord> = present.iter().map(|day| record(*day)).collect();
            let Selection { send, remove } = select(local.to_vec(), &present, keep, now);
            let mut send: Vec<String> = send.into_iter().collect();
            send.sort();
            (send.join(" "), remove.join(" "))
        };
        let local = [backup(9), backup(8), history];
        assert_eq!(selected(&local, &[], 30), ("8 9 history-1.tar.zst".to_owned(), String::new()));
        // Backups that the home has no more stay there.
        assert_eq!(selected(&local, &[2, 4, 8], 30).0, "9 history-1.tar.zst");
        assert_eq!(selected(&local, &[2, 4, 8], 3), ("9 history-1.tar.zst".to_owned(), "2".to_owned()));
        assert_eq!(selected(&local, &[2, 4], 1), ("9 history-1.tar.zst".to_owned(), "2 4".to_owned()));
        assert_eq!(selected(&local, &[2, 3], 1).1, "2", "3 was there before");
        // An old backup in the home is not sent only to be removed.
        assert_eq!(selected(&[backup(1)], &[2, 4], 2), (String::new(), String::new()));
        assert_eq!(selected(&[], &[2, 4], 1), (String::new(), "2".to_owned()), "the newest stays");
        // One from the year 2030 does not keep out those of today.
        assert_eq!(selected(&[backup(9)], &[22_000], 1), ("9".to_owned(), "22000".to_owned()));
    }
}
