//! What `doctor` says of Python, and of the environments of projects.

use super::check::Check;
use crate::home::Home;
use crate::python::notes::{self, Note};
use crate::python::{self, environments};
use jiff::Timestamp;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What a running server says of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServersPython {
    /// The one that it has for DAGs.
    pub python: Option<PathBuf>,
    /// Environments that could not be made.
    pub failed: Vec<Failed>,
}

#[derive(Debug, Deserialize)]
pub struct Failed {
    files: Vec<String>,
    detail: String,
}

pub fn python_found(known: Option<&Path>) -> Check {
    match python::find(known) {
        Ok(python) => Check::ok("python", format!("{} ({})", python.path.display(), python.version)),
        Err(reason) => Check::warning(
            "python",
            reason,
            "install Python 3.10 or newer, or name one: leoflow config set python PATH",
        ),
    }
}

/// What is wrong for now with warm Pythons and the processes of triggers of a running instance.
pub fn processes(home: &Home) -> Check {
    from_notes(&notes::of_running(home))
}

fn from_notes(notes: &[Note]) -> Check {
    const NAME: &str = "processes";
    if notes.is_empty() {
        return Check::ok(NAME, "warm Pythons and triggers: no failure noted");
    }
    let lines: Vec<String> = notes.iter().map(in_words).collect();
    let remedy = "leoflow lite logs agent and leoflow lite logs server say more; nothing else has to be done where a next \
                  try is named";
    Check::warning(NAME, lines.join("\n"), remedy)
}

fn in_words(note: &Note) -> String {
    let second = |at: Timestamp| at.round(jiff::Unit::Second).unwrap_or(at);
    let next = note.next_try.map(|at| format!("; next try: from {} on, when it is needed", second(at)));
    format!(
        "{} ({}): {} since {}, because {}{}",
        note.subject,
        note.program.display(),
        note.effect,
        second(note.since),
        note.reason,
        next.unwrap_or_default(),
    )
}

pub fn environments(home: &Home, failed: &[Failed]) -> Check {
    const NAME: &str = "environments";
    if let Some(one) = failed.first() {
        let first = one.detail.lines().next().unwrap_or_default();
        let detail = format!("that of {} could not be made: {first}", one.files.join(", "));
        return Check::warning(NAME, detail, "leoflow env list shows all of it; change what the project wants");
    }
    let built = environments::count(home);
    let with = environments::find_uv(home).map_or("uv is got when it is needed".to_owned(), |uv| uv.to_string());
    Check::ok(NAME, format!("{built} built; {with}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::check::Verdict;

    #[test]
    fn a_note_says_which_since_when_why_and_when_next() {
        assert_eq!(from_notes(&[]).verdict, Verdict::Ok);
        let note = Note {
            subject: "the warm Python for tasks".to_owned(),
            program: "/h/venvs/1/bin/python".into(),
            effect: "is without pandas".to_owned(),
            reason: "it starts threads, which no fork has: worker".to_owned(),
            since: "2026-11-25T11:00:00Z".parse().unwrap(),
            next_try: Some("2026-11-25T11:10:00.5Z".parse().unwrap()),
        };
        let check = from_notes(&[note]);
        assert_eq!(check.verdict, Verdict::Warning);
        assert_eq!(
            check.detail,
            "the warm Python for tasks (/h/venvs/1/bin/python): is without pandas since 2026-11-25T11:00:00Z, because \
             it starts threads, which no fork has: worker; next try: from 2026-11-25T11:10:01Z on, when it is needed"
        );
    }
}
