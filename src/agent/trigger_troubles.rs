//! Why processes of triggers have ended, for `doctor`: until one in the same place has an outcome.

use super::trigger_host::Place;
use crate::home::Home;
use crate::python::notes::{Note, Notes};
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use std::time::Duration;

pub(super) struct Troubles {
    notes: Notes,
    current: HashMap<Place, Note>,
}

impl Troubles {
    pub fn new(home: &Home) -> Self {
        Self { notes: Notes::new(home, "triggers"), current: HashMap::new() }
    }

    /// One has ended, or could not be started. `effect` is what that means for the tasks.
    pub fn add(&mut self, place: &Place, reason: String, effect: String, pause: Option<Duration>) {
        let now = Timestamp::now();
        let since = self.current.get(place).map_or(now, |note| note.since);
        let note = Note {
            subject: format!("the process of the triggers in {}", place.folder.display()),
            program: place.program.clone(),
            effect,
            reason,
            since,
            next_try: pause.map(|pause| now + SignedDuration::try_from(pause).unwrap_or_default()),
        };
        self.current.insert(place.clone(), note);
        self.write();
    }

    /// One works.
    pub fn remove(&mut self, place: &Place) {
        if self.current.remove(place).is_some() {
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
    use crate::python::notes;

    #[test]
    fn a_trouble_is_noted_from_the_first_until_one_works() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        let place = |folder: &str| Place { program: "/p".into(), folder: folder.into(), packages: None };
        let mut troubles = Troubles::new(&home);
        troubles.add(&place("/a"), "exit code 1: KeyError".to_owned(), "they wait".to_owned(), Some(Duration::ZERO));
        let first = notes::of_running(&home);
        troubles.add(&place("/a"), "exit code 1: TypeError".to_owned(), "2 failed".to_owned(), None);
        troubles.add(&place("/b"), "signal 9".to_owned(), "they wait".to_owned(), None);
        let both = notes::of_running(&home);
        assert_eq!((both.len(), both[0].since), (2, first[0].since));
        assert_eq!((both[0].reason.as_str(), both[0].next_try), ("exit code 1: TypeError", None));
        troubles.remove(&place("/a"));
        troubles.remove(&place("/b"));
        assert!(notes::of_running(&home).is_empty());
    }
}
