//! Selects the backups to copy to a place, and those to remove there. Pure.

use super::records::CopyRecord;
use jiff::Timestamp;
use leoflow_base::home::backup_names::is_history_archive;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// A backup in the home, or at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub name: String,
    pub size: u64,
    pub created_at: Option<Timestamp>,
    /// It holds removed history, which no newer backup has.
    pub is_history: bool,
}

impl From<&CopyRecord> for Candidate {
    fn from(record: &CopyRecord) -> Self {
        Self {
            name: record.name.clone(),
            size: record.size,
            created_at: record.created_at,
            is_history: is_history_archive(Path::new(&record.name)),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Selection {
    /// Names of backups in the home.
    pub send: HashSet<String>,
    /// Names of backups at the place, oldest first.
    pub remove: Vec<String>,
}

/// A place has the newest `keep` backups of those in the home and those that it has already, and all archives of removed
/// history. `present` are the copies of this home at the place.
pub fn select(local: impl IntoIterator<Item = Candidate>, present: &[CopyRecord], keep: u64) -> Selection {
    let there: HashSet<&str> = present.iter().map(|record| record.name.as_str()).collect();
    let mut all: BTreeMap<String, Candidate> =
        present.iter().map(|record| (record.name.clone(), record.into())).collect();
    all.extend(local.into_iter().map(|candidate| (candidate.name.clone(), candidate)));
    let (history, mut backups): (Vec<_>, Vec<_>) = all.into_values().partition(|candidate| candidate.is_history);
    backups.sort_by(|a, b| (b.created_at, &b.name).cmp(&(a.created_at, &a.name)));
    let count = backups.len().min(usize::try_from(keep).unwrap_or(usize::MAX));
    let excess = backups.split_off(count);
    let is_there = |candidate: &Candidate| there.contains(candidate.name.as_str());
    let send = history.into_iter().chain(backups).filter(|candidate| !is_there(candidate));
    Selection {
        send: send.map(|candidate| candidate.name).collect(),
        remove: excess.into_iter().rev().filter(is_there).map(|candidate| candidate.name).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_keeps_its_own_number_of_the_newest() {
        let candidate = |day: i64, is_history| Candidate {
            name: format!("{}{day}", if is_history { "history-" } else { "" }),
            size: 1,
            created_at: Timestamp::from_second(day * 86_400).ok(),
            is_history,
        };
        let record = |day: i64| CopyRecord {
            to: "/usb".to_owned(),
            name: day.to_string(),
            size: 1,
            sha256: String::new(),
            created_at: Timestamp::from_second(day * 86_400).ok(),
            copied_at: Timestamp::UNIX_EPOCH,
        };
        let selected = |local: &[Candidate], present: &[i64], keep| {
            let present: Vec<CopyRecord> = present.iter().map(|day| record(*day)).collect();
            let Selection { send, remove } = select(local.to_vec(), &present, keep);
            let mut send: Vec<String> = send.into_iter().collect();
            send.sort();
            (send.join(" "), remove.join(" "))
        };
        let local = [candidate(9, false), candidate(8, false), candidate(1, true)];
        assert_eq!(selected(&local, &[], 30), ("8 9 history-1".to_owned(), String::new()));
        // Backups that the home has no more stay there.
        assert_eq!(selected(&local, &[2, 3, 8], 30).0, "9 history-1");
        assert_eq!(selected(&local, &[2, 3, 8], 3), ("9 history-1".to_owned(), "2".to_owned()));
        assert_eq!(selected(&local, &[2, 3], 1), ("9 history-1".to_owned(), "2 3".to_owned()));
        // An old backup in the home is not sent only to be removed.
        assert_eq!(selected(&[candidate(1, false)], &[2, 3], 2), (String::new(), String::new()));
        assert_eq!(selected(&[], &[2, 3], 1), (String::new(), "2".to_owned()), "the newest stays");
    }
}
