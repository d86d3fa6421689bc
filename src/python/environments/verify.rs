//! Compares the files of an environment with the hashes in the RECORD files of its packages.

use super::installed::site_packages;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use leoflow_components::wheel;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The result for one environment.
#[derive(Debug, Default)]
pub struct Verified {
    /// Number of files that were compared.
    pub files: usize,
    /// Files that are missing, or have other contents.
    pub damaged: Vec<PathBuf>,
    /// True if the time limit was reached before all files were compared.
    pub is_partial: bool,
}

/// Reads all files of the packages in an environment, which takes seconds for a large environment; stops at `deadline`.
pub fn verify(folder: &Path, deadline: Option<Instant>) -> Verified {
    let mut verified = Verified::default();
    for (file, hashes) in recorded_files(folder, &mut verified.damaged) {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            verified.is_partial = true;
            break;
        }
        verified.files += 1;
        if wheel::sha256_of(&file).map_or(true, |actual| !hashes.contains(&actual)) {
            verified.damaged.push(file);
        }
    }
    verified.damaged.sort();
    verified
}

/// The files of all packages with their hashes. Several packages may have installed the same file, of which the last
/// stays: then each hash is right. Unreadable records are added to `damaged`.
fn recorded_files(folder: &Path, damaged: &mut Vec<PathBuf>) -> BTreeMap<PathBuf, Vec<String>> {
    let mut files: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for packages in site_packages(folder) {
        let entries = std::fs::read_dir(&packages).into_iter().flatten().flatten().map(|entry| entry.path());
        for info in entries.filter(|path| path.extension().is_some_and(|extension| extension == "dist-info")) {
            let record = info.join("RECORD");
            let Ok(text) = std::fs::read_to_string(&record) else {
                damaged.push(record);
                continue;
            };
            for (path, hash) in text.lines().filter_map(recorded) {
                files.entry(packages.join(path)).or_default().push(hash);
            }
        }
    }
    files
}

/// Parses a line of a RECORD: the path, and the sha256 in hexadecimal. `None` for a file without a hash, such as a
/// compiled module: <https://packaging.python.org/en/latest/specifications/recording-installed-packages/>.
fn recorded(line: &str) -> Option<(String, String)> {
    let (rest, _size) = line.rsplit_once(',')?;
    let (path, hash) = rest.rsplit_once(',')?;
    let quoted = path.strip_prefix('"').and_then(|path| path.strip_suffix('"'));
    let path = quoted.map_or_else(|| path.to_owned(), |path| path.replace("\"\"", "\""));
    let digest = URL_SAFE_NO_PAD.decode(hash.strip_prefix("sha256=")?.trim_end_matches('=')).ok()?;
    Some((path, hex::encode(digest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn changed_and_missing_files_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let packages = folder.path().join("lib/python3.12/site-packages");
        let info = packages.join("x-1.dist-info");
        std::fs::create_dir_all(&info).unwrap();
        let write = |name: &str, text: &str| std::fs::write(packages.join(name), text).unwrap();
        let hash = |text: &str| URL_SAFE_NO_PAD.encode(Sha256::digest(text));
        let record = format!(
            "x.py,sha256={0},1\n\"a,b.py\",sha256={0}=,1\ngone.py,sha256={0},1\nx-1.dist-info/RECORD,,\n__pycache__/x.pyc,,\n",
            hash("1")
        );
        std::fs::write(info.join("RECORD"), record).unwrap();
        write("x.py", "1");
        write("a,b.py", "1");
        let verified = verify(folder.path(), None);
        assert_eq!((verified.files, verified.damaged.clone()), (3, vec![packages.join("gone.py")]));
        write("x.py", "2");
        assert_eq!(verify(folder.path(), None).damaged, [packages.join("gone.py"), packages.join("x.py")]);
        let partial = verify(folder.path(), Some(Instant::now()));
        assert_eq!((partial.files, partial.is_partial), (0, true));
        // Another package has overwritten the file.
        let other = packages.join("y-1.dist-info");
        std::fs::create_dir_all(&other).unwrap();
        std::fs::write(other.join("RECORD"), format!("x.py,sha256={},1\n", hash("2"))).unwrap();
        assert_eq!(verify(folder.path(), None).damaged, [packages.join("gone.py")]);
        std::fs::remove_file(info.join("RECORD")).unwrap();
        assert_eq!(verify(folder.path(), None).damaged, [info.join("RECORD")], "an unreadable record");
    }
}
