//! Detects Leoflow's backups in a workspace, by their name or content, so that a backup does not contain earlier ones.

use crate::backup::format::archive::{Hashed, zstd_decoder};
use crate::backup::format::manifest::MANIFEST;
use crate::backup::retain::notes;
use leoflow_base::home::Home;
use leoflow_base::sys::fs::beneath::{Entry, Folder, Kind};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

#[derive(Debug, Default)]
pub struct OwnBackups {
    /// Size in bytes and SHA-256 of the encrypted backups made on this machine.
    encrypted: Vec<(u64, String)>,
}

/// Size of a tar header and the first block of content, in bytes.
const HEAD_SIZE: usize = 1024;
/// Occurs at the start of each manifest.
const MANIFEST_MARKER: &[u8] = b"\"leoflow_version\"";

impl OwnBackups {
    pub fn of(home: &Home) -> Self {
        let records = notes::encrypted_records(home).unwrap_or_default();
        Self { encrypted: records.into_iter().map(|backup| (backup.size, backup.sha256)).collect() }
    }

    /// True if the entry is a backup.
    pub fn has(&self, folder: &Folder, entry: &Entry) -> bool {
        // An unreadable file does not count as a backup; `collect` then reports the error.
        entry.kind == Kind::File
            && (has_our_name(&entry.name.to_string_lossy()) || self.is_backup(folder, entry).unwrap_or(false))
    }

    fn is_backup(&self, folder: &Folder, entry: &Entry) -> io::Result<bool> {
        let mut file = folder.open_file(&entry.name)?;
        let mut start = [0; 4];
        if let Err(error) = file.read_exact(&mut start) {
            return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(false) } else { Err(error) };
        }
        file.rewind()?;
        match start {
            [0x28, 0xb5, 0x2f, 0xfd] => starts_with_manifest(zstd_decoder(BufReader::new(file))?),
            [0x1f, 0x8b, ..] => starts_with_manifest(flate2::bufread::MultiGzDecoder::new(BufReader::new(file))),
            [b'a', b'g', b'e', b'-'] => self.is_encrypted_backup(file, entry.size),
            _ => Ok(false),
        }
    }

    /// Compares size and hash with the recorded ones, because an encrypted file reveals nothing about its content.
    fn is_encrypted_backup(&self, file: File, size: u64) -> io::Result<bool> {
        if !self.encrypted.iter().any(|(other, _)| *other == size) {
            return Ok(false);
        }
        let mut hashed = Hashed::new(file);
        io::copy(&mut hashed, &mut io::sink())?;
        let sha256 = hashed.sha256().to_string();
        Ok(self.encrypted.iter().any(|(_, other)| *other == sha256))
    }
}

fn starts_with_manifest(mut content: impl Read) -> io::Result<bool> {
    let mut head = [0; HEAD_SIZE];
    content.read_exact(&mut head)?;
    let is_named = head.starts_with(MANIFEST.as_bytes()) && head[MANIFEST.len()] == 0;
    Ok(is_named && head[HEAD_SIZE / 2..].windows(MANIFEST_MARKER.len()).any(|window| window == MANIFEST_MARKER))
}

fn has_our_name(name: &str) -> bool {
    name.trim_start_matches('.').starts_with("leoflow-backup-")
        && (name.contains(".tar.zst") || name.contains(".tar.gz"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::format::archive::{ArchiveWriter, Compression};
    use crate::backup::format::manifest::tests::manifest;

    #[test]
    fn detects_backups_by_content() {
        let tree = tempfile::tempdir().unwrap();
        let text = serde_json::to_vec(&manifest(vec![])).unwrap();
        let write = |name: &str, compression, text: &[u8]| {
            let archive = ArchiveWriter::begin(Vec::new(), compression, text, 0).unwrap();
            std::fs::write(tree.path().join(name), archive.finish().unwrap()).unwrap();
        };
        write("monday.tar.zst", Compression::Zstd, &text);
        write("picture.jpg", Compression::Gzip, &text);
        write("other.tar.zst", Compression::Zstd, b"{\"manifest_version\": 3}");
        std::fs::write(tree.path().join("mine.age"), "age-encryption.org/v1\nX").unwrap();
        std::fs::write(tree.path().join("tiny"), "x").unwrap();
        let folder = Folder::open(tree.path()).unwrap();
        let sha256 = {
            let mut hashed = Hashed::new(File::open(tree.path().join("mine.age")).unwrap());
            io::copy(&mut hashed, &mut io::sink()).unwrap();
            hashed.sha256().to_string()
        };
        let known = OwnBackups { encrypted: vec![(23, sha256)] };
        let names = |own: &OwnBackups| -> Vec<String> {
            let all = folder.entries().unwrap().into_iter();
            all.filter(|entry| own.has(&folder, entry)).map(|entry| entry.name.into_string().unwrap()).collect()
        };
        assert_eq!(names(&OwnBackups::default()), ["monday.tar.zst", "picture.jpg"]);
        assert_eq!(names(&known), ["mine.age", "monday.tar.zst", "picture.jpg"]);
    }
}
