//! Names of backup archives.

use std::path::Path;

/// Beginning of the names of archives that hold removed history; the limits of automatic backups do not remove them.
pub const HISTORY_PREFIX: &str = "history-";

/// True for an archive of removed history.
pub fn is_history_archive(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(HISTORY_PREFIX) && is_archive_name(name))
}

/// True for an archive of a backup: `.tar.zst` or `.tar.gz`, optionally followed by `.age` if it is encrypted, and not
/// hidden.
pub fn is_archive_name(name: &str) -> bool {
    let archive = name.strip_suffix(".age").unwrap_or(name);
    !name.starts_with('.') && (archive.ends_with(".tar.zst") || archive.ends_with(".tar.gz"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_and_hidden_files_are_no_archives() {
        for (name, expected) in [
            ("a.tar.zst", true),
            ("a.tar.gz", true),
            ("a.tar.zst.age", true),
            ("a.tar.zst.part", false),
            (".a.tar.zst", false),
            ("verified.json", false),
        ] {
            assert_eq!(is_archive_name(name), expected, "{name}");
        }
    }
}
