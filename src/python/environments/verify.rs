//! Compares the files of an environment with the hashes in the RECORD files of its packages.

use super::installed::site_packages;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use leoflow_base::components::wheel;
use std::path::{Path, PathBuf};

/// The result for one environment.
#[derive(Debug, Default)]
pub struct Verified {
    /// Number of files that were compared.
    pub files: usize,
    /// Files that are missing, or have other contents.
    pub damaged: Vec<PathBuf>,
}

/// Reads all files of the packages in an environment, which takes seconds for a large environment.
pub fn verify(folder: &Path) -> Verified {
    let mut verified = Verified::default();
    for packages in site_packages(folder) {
        let entries = std::fs::read_dir(&packages).into_iter().flatten().flatten().map(|entry| entry.path());
        for info in entries.filter(|path| path.extension().is_some_and(|extension| extension == "dist-info")) {
            let record = info.join("RECORD");
            let Ok(text) = std::fs::read_to_string(&record) else {
                verified.damaged.push(record);
                continue;
            };
            for (path, hash) in text.lines().filter_map(recorded) {
                verified.files += 1;
                let file = packages.join(path);
                if wheel::sha256_of(&file).map_or(true, |actual| actual != hash) {
                    verified.damaged.push(file);
                }
            }
        }
    }
    verified.damaged.sort();
    verified
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
        let verified = verify(folder.path());
        assert_eq!((verified.files, verified.damaged.clone()), (3, vec![packages.join("gone.py")]));
        write("x.py", "2");
        assert_eq!(verify(folder.path()).damaged, [packages.join("gone.py"), packages.join("x.py")]);
        std::fs::remove_file(info.join("RECORD")).unwrap();
        assert_eq!(verify(folder.path()).damaged, [info.join("RECORD")]);
    }
}
