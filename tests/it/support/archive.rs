//! Unpacks a backup and packs it again with changes, to test archives that Leoflow itself never writes.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use tar::{EntryType, Header};

/// An entry of the archive other than the manifest.
#[derive(Clone)]
pub struct Part {
    pub path: String,
    pub kind: EntryType,
    /// The target of a link; empty for other entries.
    pub target: String,
    pub bytes: Vec<u8>,
}

impl Part {
    pub fn file(path: &str, bytes: &[u8]) -> Self {
        Self { path: path.into(), kind: EntryType::Regular, target: String::new(), bytes: bytes.to_vec() }
    }

    pub fn with_kind(path: &str, kind: EntryType, target: &str) -> Self {
        Self { path: path.into(), kind, target: target.into(), bytes: Vec::new() }
    }
}

#[derive(Clone)]
pub struct Unpacked {
    pub manifest: Value,
    pub parts: Vec<Part>,
}

/// Returns the SHA-256 in hexadecimal.
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Unpacked {
    pub fn open(path: &Path) -> Self {
        let raw = fs::read(path).unwrap();
        let tar_bytes = if path.extension().unwrap() == "gz" {
            let mut tar_bytes = Vec::new();
            flate2::read::GzDecoder::new(&raw[..]).read_to_end(&mut tar_bytes).unwrap();
            tar_bytes
        } else {
            zstd::decode_all(&raw[..]).unwrap()
        };
        let mut tar = tar::Archive::new(&tar_bytes[..]);
        let mut parts: Vec<Part> = tar
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                Part {
                    path: entry.path().unwrap().to_str().unwrap().trim_end_matches('/').to_owned(),
                    kind: entry.header().entry_type(),
                    target: entry.link_name().unwrap().map(|t| t.to_str().unwrap().to_owned()).unwrap_or_default(),
                    bytes,
                }
            })
            .collect();
        let manifest = serde_json::from_slice(&parts.remove(0).bytes).unwrap();
        Self { manifest, parts }
    }

    pub fn part(&mut self, path: &str) -> &mut Part {
        self.parts.iter_mut().find(|part| part.path == path).unwrap()
    }

    pub fn paths(&self) -> Vec<&str> {
        self.parts.iter().map(|part| part.path.as_str()).collect()
    }

    /// Updates the manifest's entries to match the parts.
    pub fn update_manifest(&mut self) {
        let entries: Vec<Value> = self
            .parts
            .iter()
            .map(|part| match part.kind {
                EntryType::Directory => json!({"path": part.path, "type": "directory"}),
                EntryType::Symlink => json!({"path": part.path, "type": "symlink", "target": part.target}),
                _ => json!({"path": part.path, "type": "file", "size": part.bytes.len(), "sha256": hash(&part.bytes)}),
            })
            .collect();
        self.manifest["entries"] = entries.into();
    }

    /// Returns the database dump as `pg_dump -Fc -Z0` wrote it.
    pub fn dump(&mut self) -> Vec<u8> {
        zstd::decode_all(&self.part("datastore.dump.zst").bytes[..]).unwrap()
    }

    pub fn set_dump(&mut self, dump: &[u8]) {
        self.part("datastore.dump.zst").bytes = zstd::encode_all(dump, 3).unwrap();
        self.manifest["database"]["dump_bytes"] = dump.len().into();
        self.update_manifest();
    }

    pub fn tar(&self) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let manifest = serde_json::to_vec(&self.manifest).unwrap();
        append(&mut tar, &Part::file("MANIFEST.json", &manifest));
        self.parts.iter().for_each(|part| append(&mut tar, part));
        tar.into_inner().unwrap()
    }

    pub fn save(&self, path: &Path) {
        save(path, &self.tar());
    }
}

pub fn save(path: &Path, tar: &[u8]) {
    let mut encoder = zstd::Encoder::new(fs::File::create(path).unwrap(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(tar).unwrap();
    encoder.finish().unwrap();
}

/// Appends an entry whose path and link target are not checked, because the tar crate refuses some that tests need.
fn append(tar: &mut tar::Builder<Vec<u8>>, part: &Part) {
    let mut header = Header::new_gnu();
    header.set_entry_type(part.kind);
    header.set_size(part.bytes.len() as u64);
    header.set_mode(0o4755);
    let put = |field: &mut [u8], text: &str| field[..text.len()].copy_from_slice(text.as_bytes());
    assert!(part.path.len() < 100, "{}", part.path);
    put(&mut header.as_gnu_mut().unwrap().name, &part.path);
    put(&mut header.as_gnu_mut().unwrap().linkname, &part.target);
    header.set_cksum();
    tar.append(&header, &part.bytes[..]).unwrap();
}

/// Replaces a string of the dump's table of contents, found by its beginning. A string is stored as a sign byte, four
/// bytes of length, and the text. A dump written to a pipe contains no offsets, so the length of a string may change.
pub fn replace_in_dump(dump: &mut Vec<u8>, beginning: &str, replace: impl FnOnce(&str) -> String) {
    let needle = beginning.as_bytes();
    let length_before = |index: usize| -> Option<usize> {
        let prefix = dump.get(index.checked_sub(5)?..index)?;
        let length = u32::from_le_bytes(prefix[1..].try_into().ok()?) as usize;
        (prefix[0] == 0 && length >= needle.len() && length < 100_000).then_some(length)
    };
    let start = (0..dump.len() - needle.len())
        .find(|index| dump[*index..].starts_with(needle) && length_before(*index).is_some())
        .unwrap_or_else(|| panic!("no string in the dump begins with {beginning:?}"));
    let length = length_before(start).unwrap();
    let new = replace(std::str::from_utf8(&dump[start..start + length]).unwrap());
    let mut bytes = vec![0];
    bytes.extend((new.len() as u32).to_le_bytes());
    bytes.extend(new.as_bytes());
    dump.splice(start - 5..start + length, bytes);
}
