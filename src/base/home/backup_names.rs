//! Names of backup archives.

/// True for an archive of a backup: `.tar.zst` or `.tar.gz`, optionally followed by `.age` if it is encrypted, and not
/// hidden.
pub fn is_archive_name(name: &str) -> bool {
    let archive = name.strip_suffix(".age").unwrap_or(name);
    !name.starts_with('.') && (archive.ends_with(".tar.zst") || archive.ends_with(".tar.gz"))
}
