//! Notes for `doctor` why trigger hosts ended or failed to start. A note is removed once a host with the same key
//! reports an outcome, or has run for a minute.

use super::trigger_host::HostKey;
use jiff::{SignedDuration, Timestamp};
use leoflow_base::home::Home;
use leoflow_python::notes::{Note, Notes};
use std::collections::HashMap;
use std::time::Duration;

pub(crate) struct HostProblems {
    notes: Notes,
    current: HashMap<HostKey, Note>,
}

impl HostProblems {
    pub fn new(home: &Home) -> Self {
        Self { notes: Notes::new(home, "triggers"), current: HashMap::new() }
    }

    /// Notes that a host ended or failed to start. `effect` is the consequence for the tasks; `pause` is the time until
    /// the next attempt, `None` if there is none.
    pub fn add(&mut self, host_key: &HostKey, reason: String, effect: String, pause: Option<Duration>) {
        let now = Timestamp::now();
        let since = self.current.get(host_key).map_or(now, |note| note.since);
        let note = Note {
            subject: format!("the trigger host for {}", host_key.folder.display()),
            program: host_key.program.clone(),
            effect,
            reason,
            since,
            next_try: pause.map(|pause| now + SignedDuration::try_from(pause).unwrap_or_default()),
        };
        self.current.insert(host_key.clone(), note);
        self.write();
    }

    /// Removes the note about a host that works again.
    pub fn remove(&mut self, host_key: &HostKey) {
        if self.current.remove(host_key).is_some() {
            self.write();
        }
    }

    fn write(&mut self) {
        let mut notes: Vec<Note> = self.current.values().cloned().collect();
        notes.sort_by(|a, b| (&a.subject, &a.program).cmp(&(&b.subject, &b.program)));
        self.notes.set(notes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leoflow_python::notes;

    #[test]
    fn a_failure_is_noted_until_a_host_works() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        let host_key = |folder: &str| HostKey { program: "/p".into(), folder: folder.into(), packages: None };
        let mut problems = HostProblems::new(&home);
        problems.add(&host_key("/a"), "exit code 1: KeyError".to_owned(), "they wait".to_owned(), Some(Duration::ZERO));
        let first = notes::of_running(&home);
        problems.add(&host_key("/a"), "exit code 1: TypeError".to_owned(), "2 failed".to_owned(), None);
        problems.add(&host_key("/b"), "signal 9".to_owned(), "they wait".to_owned(), None);
        let both = notes::of_running(&home);
        assert_eq!((both.len(), both[0].since), (2, first[0].since));
        assert_eq!((both[0].reason.as_str(), both[0].next_try), ("exit code 1: TypeError", None));
        problems.remove(&host_key("/a"));
        problems.remove(&host_key("/b"));
        assert!(notes::of_running(&home).is_empty());
    }
}
