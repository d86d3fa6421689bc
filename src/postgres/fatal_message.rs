//! Finds the last fatal message in PostgreSQL's log, and its cause.

/// Cause of a fatal message, or of the error of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// May resolve itself once disk space is freed.
    DiskFull,
    /// /dev/shm is full, or the kernel's limit of shared memory is reached; the disk may have space.
    SharedMemoryFull,
    /// The data files are damaged.
    Damaged,
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FatalMessage {
    /// The message, without time and process.
    pub text: String,
    pub cause: Cause,
}

/// Parts of fatal messages that concern a single client or that a healthy server writes.
const IRRELEVANT: &[&str] = &[
    "the database system is",
    "not yet accepting connections",
    "terminating connection",
    "does not exist",
    "canceling statement",
];
/// Beginnings of messages about the login of a client, who chooses the names in them.
const LOGINS: &[&str] = &["password authentication failed", "role \"", "database \""];
const FULL: &[&str] = &["No space left on device", "Disk quota exceeded"];
/// The kernel's answer is ENOSPC for these, too: shm_open(3), shmget(2), semget(2).
const SHARED_MEMORY: &[&str] = &["shared memory segment", "create semaphores"];
const DAMAGED: &[&str] = &[
    "checkpoint record",
    "control file",
    "global/pg_control",
    "incompatible with server",
    "required WAL",
    "pg_wal\" does not exist",
    "invalid page",
    "pg_xact",
    "access status of transaction",
    "checksum",
];

/// Answers of the operating system that say nothing about the content of a file.
const SYSTEM: &[&str] = &[
    "Permission denied",
    "Operation not permitted",
    "Read-only file system",
    "Too many open files",
    "Cannot allocate memory",
    "Input/output error",
];

/// Returns the last fatal message among lines of the log, with its detail.
pub fn last(lines: &[String]) -> Option<FatalMessage> {
    lines.iter().enumerate().rev().find_map(|(index, line)| {
        let text = ["FATAL:", "PANIC:"].iter().find_map(|level| message_of(line, level))?;
        let detail = lines.get(index + 1).and_then(|line| message_of(line, "DETAIL:"));
        let text =
            detail.map_or_else(|| text.to_owned(), |detail| format!("{text} ({})", detail.trim_end_matches('.')));
        if LOGINS.iter().any(|start| text.starts_with(start)) {
            return None;
        }
        let cause = cause_of(&text);
        let is_irrelevant = cause == Cause::Other && IRRELEVANT.iter().any(|part| text.contains(part));
        (!is_irrelevant).then_some(FatalMessage { text, cause })
    })
}

/// The message of a line of this level, which follows the pid in brackets; other lines may quote a level. Before it has
/// read its settings, PostgreSQL writes neither time nor pid.
fn message_of<'a>(line: &'a str, level: &str) -> Option<&'a str> {
    let after_pid = line.split_once("] ").map_or(line, |(_, text)| text);
    [line, after_pid].into_iter().find_map(|text| text.strip_prefix(level)).map(str::trim)
}

/// Classifies a message, with its detail if there is one.
pub fn cause_of(text: &str) -> Cause {
    let text = &with_shortened_paths(text);
    let contains_any = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    if contains_any(FULL) && contains_any(SHARED_MEMORY) {
        Cause::SharedMemoryFull
    } else if contains_any(FULL) {
        Cause::DiskFull
    } else if contains_any(SYSTEM) {
        Cause::Other
    } else if contains_any(DAMAGED) || is_missing_file(text) {
        Cause::Damaged
    } else {
        Cause::Other
    }
}

/// The message with only the last two names of each quoted absolute path, enough to recognize `global/pg_control`: the
/// others are the user's folders, which say nothing about the cause.
fn with_shortened_paths(text: &str) -> String {
    let shorten = |(index, part): (usize, &str)| match part.rmatch_indices('/').nth(1) {
        Some((folder, _)) if index % 2 == 1 && part.starts_with('/') => part[folder + 1..].to_owned(),
        _ => part.to_owned(),
    };
    text.split('"').enumerate().map(shorten).collect::<Vec<_>>().join("\"")
}

/// True if a file or folder of the data directory is missing: of a table, of a catalogue, or one of the server's own,
/// such as `pg_xact`.
fn is_missing_file(text: &str) -> bool {
    let is_in_data_directory = ["\"base/", "\"global/", "\"pg_"].iter().any(|part| text.contains(part));
    is_in_data_directory && text.contains("No such file or directory")
}

/// Removes lines with PostgreSQL's advice to run commands that would destroy the data. Keeps lines that only contain the
/// commands' names, for example in a path.
pub fn without_bad_advice(lines: Vec<String>) -> Vec<String> {
    let names_command = |line: &String| {
        let is_punctuation = |c: char| c.is_ascii_punctuation() && c != '/';
        line.split_whitespace().any(|word| ["initdb", "pg_resetwal"].contains(&word.trim_matches(is_punctuation)))
    };
    lines.into_iter().filter(|line| !names_command(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_of(text: &str) -> Option<(String, Cause)> {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        last(&lines).map(|message| (message.text, message.cause))
    }

    #[test]
    fn finds_the_last_fatal_message_of_the_server() {
        let full = "2026-01-01 [1] PANIC:  could not write to file \"pg_wal/xlogtemp.1\": No space left on device";
        let text = format!("{full}\n2026-01-01 [2] FATAL:  the database system is in recovery mode\nLOG:  done");
        let message = "could not write to file \"pg_wal/xlogtemp.1\": No space left on device";
        assert_eq!(last_of(&text), Some((message.to_owned(), Cause::DiskFull)));
        let shared =
            "could not resize shared memory segment \"/PostgreSQL.41\" to 196736 bytes: No space left on device";
        assert_eq!(last_of(&format!("[1] FATAL:  {shared}")).unwrap().1, Cause::SharedMemoryFull);
        assert_eq!(last_of("LOG:  all is well"), None);
        assert_eq!(last_of("[1] FATAL:  could not locate a valid checkpoint record").unwrap().1, Cause::Damaged);
        assert_eq!(last_of("[1] FATAL:  required WAL directory \"pg_wal\" does not exist").unwrap().1, Cause::Damaged);
        let missing_file = "[1] FATAL:  could not open file \"global/1262\": No such file or directory";
        assert_eq!(last_of(missing_file).unwrap().1, Cause::Damaged);
        let forbidden_file = "[1] FATAL:  could not open file \"global/1262\": Permission denied";
        assert_eq!(last_of(forbidden_file).unwrap().1, Cause::Other);
        let status =
            "[1] FATAL:  could not access status of transaction 0\n[1] DETAIL:  Could not open file \"pg_xact/0000\": ";
        let (text, cause) = last_of(&format!("{status}No such file or directory.")).unwrap();
        assert_eq!(cause, Cause::Damaged);
        assert!(text.ends_with("(Could not open file \"pg_xact/0000\": No such file or directory)"), "{text}");
        assert_eq!(last_of(&format!("{status}Too many open files.")).unwrap().1, Cause::Other);
        let no_control_file = "[1] PANIC:  could not open file \"global/pg_control\": Permission denied";
        assert_eq!(last_of(no_control_file).unwrap().1, Cause::Other);
        let missing_folder = "[1] FATAL:  could not open directory \"pg_notify\": No such file or directory";
        assert_eq!(last_of(missing_folder).unwrap().1, Cause::Damaged);
        let shared = "could not create shared memory segment: No space left on device";
        let no_ids =
            format!("[1] FATAL:  {shared}\n[1] DETAIL:  Failed system call was shmget(key=1, size=56, 03600).");
        assert_eq!(last_of(&no_ids).unwrap().1, Cause::SharedMemoryFull);
        assert_eq!(last_of("[1] FATAL:  could not map anonymous shared memory").unwrap().1, Cause::Other);
    }

    #[test]
    fn names_and_texts_of_clients_are_no_fatal_message() {
        for text in [
            "role \"x\" does not exist",
            "database \"checksum\" does not exist",
            "password authentication failed for user \"pg_xact\"",
        ] {
            assert_eq!(last_of(&format!("2026-01-01 [1] FATAL:  {text}")), None);
        }
        assert_eq!(last_of("2026-01-01 [1] ERROR:  invalid input: \"PANIC:  checksum\""), None);
        let before_settings = "FATAL:  data directory \"/u/home/data\" has invalid permissions";
        assert_eq!(last_of(before_settings).unwrap().1, Cause::Other);
    }

    #[test]
    fn the_folder_of_the_home_does_not_decide_the_cause() {
        let lock_file = |home: &str, answer: &str| {
            cause_of(&format!("could not write lock file \"{home}/run/.s.PGSQL.5432.lock\": {answer}"))
        };
        assert_eq!(lock_file("/dev/shm/home", "No space left on device"), Cause::DiskFull);
        assert_eq!(lock_file("/srv/shared memory segment", "No space left on device"), Cause::DiskFull);
        assert_eq!(lock_file("/home/ada/checksum", "No such file or directory"), Cause::Other);
        let unquoted = "/mnt/a: No space left on device; see /c/d";
        assert_eq!(cause_of(unquoted), Cause::DiskFull);
        let control_file = "could not open file \"/home/ada/data/global/pg_control\": No such file or directory";
        assert_eq!(cause_of(control_file), Cause::Damaged);
    }

    #[test]
    fn removes_destructive_advice() {
        let advice = [
            "It looks like you need to initdb or pg_basebackup.",
            "HINT:  It looks like you need to recompile or initdb.",
            "Run initdb or pg_basebackup to initialize a PostgreSQL data directory.",
            "HINT:  You may need to run \"pg_resetwal\".",
        ];
        let kept =
            "FATAL:  could not write lock file \"/srv/initdb-test/run/.s.PGSQL.5432.lock\": Read-only file system";
        let lines = advice.iter().chain([&kept]).map(|line| (*line).to_owned()).collect();
        assert_eq!(without_bad_advice(lines), [kept]);
    }
}
