//! What PostgreSQL said last, before it ended: why, and whether that may pass.

/// What kind of trouble it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It may pass: somebody makes room.
    DiskFull,
    /// The files are not what they were.
    Damaged,
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// The message, without its time and process.
    pub text: String,
    pub cause: Cause,
}

/// What is said to one client, or while all is well.
const OF_NO_MEANING: &[&str] = &[
    "the database system is",
    "not yet accepting connections",
    "terminating connection",
    "does not exist",
    "password authentication",
    "role \"",
    "canceling statement",
];
const FULL: &[&str] = &["No space left on device", "Disk quota exceeded"];
const DAMAGED: &[&str] = &[
    "checkpoint record",
    "control file",
    "global/pg_control",
    "incompatible with server",
    "required WAL",
    "pg_wal\" does not exist",
    "invalid page",
    "pg_xact",
    "checksum",
];

/// The last message for which it ended, of lines as they are in its log.
pub fn last(lines: &[String]) -> Option<Words> {
    lines.iter().rev().find_map(|line| {
        let text = ["FATAL:", "PANIC:"].iter().find_map(|level| line.split_once(level)).map(|(_, text)| text.trim())?;
        let cause = cause_of(text);
        let means_nothing = cause == Cause::Other && OF_NO_MEANING.iter().any(|part| text.contains(part));
        (!means_nothing).then(|| Words { text: text.to_owned(), cause })
    })
}

pub fn cause_of(text: &str) -> Cause {
    let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    if has(FULL) {
        Cause::DiskFull
    } else if has(DAMAGED) || is_missing_table(text) {
        Cause::Damaged
    } else {
        Cause::Other
    }
}

/// A file of a table or a catalogue is gone; that it may not be read, or that too many are open, is no damage.
fn is_missing_table(text: &str) -> bool {
    let place = ["could not open file \"base/", "could not open file \"global/"];
    place.iter().any(|part| text.contains(part)) && text.contains("No such file or directory")
}

/// The lines without PostgreSQL's advice that would make an end of the data.
pub fn without_bad_advice(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().filter(|line| !line.contains("initdb") && !line.contains("pg_resetwal")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<(String, Cause)> {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        last(&lines).map(|words| (words.text, words.cause))
    }

    #[test]
    fn the_last_reason_counts_and_what_clients_were_told_does_not() {
        let full = "2026-01-01 [1] PANIC:  could not write to file \"pg_wal/xlogtemp.1\": No space left on device";
        let text = format!("{full}\n2026-01-01 [2] FATAL:  the database system is in recovery mode\nLOG:  done");
        let said = "could not write to file \"pg_wal/xlogtemp.1\": No space left on device";
        assert_eq!(of(&text), Some((said.to_owned(), Cause::DiskFull)));
        assert_eq!(of("LOG:  all is well"), None);
        assert_eq!(of("x FATAL:  could not locate a valid checkpoint record").unwrap().1, Cause::Damaged);
        assert_eq!(of("x FATAL:  required WAL directory \"pg_wal\" does not exist").unwrap().1, Cause::Damaged);
        let gone = "x FATAL:  could not open file \"global/1262\": No such file or directory";
        assert_eq!(of(gone).unwrap().1, Cause::Damaged);
        let shut = "x FATAL:  could not open file \"global/1262\": Permission denied";
        assert_eq!(of(shut).unwrap().1, Cause::Other);
        assert_eq!(of("x FATAL:  role \"x\" does not exist"), None);
        assert_eq!(of("x FATAL:  could not map anonymous shared memory").unwrap().1, Cause::Other);
    }

    #[test]
    fn advice_that_would_end_the_data_is_not_passed_on() {
        let lines = ["It looks like you need to initdb or pg_basebackup.", "FATAL:  x"].map(str::to_owned).to_vec();
        assert_eq!(without_bad_advice(lines), ["FATAL:  x"]);
    }
}
