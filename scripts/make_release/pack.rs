//! Writes reproducible archives: entries are sorted and have no owners and times.

use super::{Outcome, macho};
use flate2::Compression;
use flate2::write::GzEncoder;
use leoflow::components::archive;
use leoflow::postgres::install::tools;
use leoflow::web_ui::files_below;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One file or link of an archive.
pub struct Entry {
    path: String,
    executable: bool,
    content: Content,
}

enum Content {
    Bytes(Vec<u8>),
    File(PathBuf),
    Link(PathBuf),
}

impl Entry {
    pub fn file(path: String, from: &Path, executable: bool) -> Outcome<Self> {
        if !from.is_file() {
            return Err(format!("{} is not a file", from.display()));
        }
        Ok(Self { path, executable, content: Content::File(from.to_owned()) })
    }

    pub fn bytes(path: String, bytes: Vec<u8>) -> Self {
        Self { path, executable: false, content: Content::Bytes(bytes) }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

pub fn tar_gz(path: &Path, entries: Vec<Entry>, quick: bool) -> Outcome<()> {
    let file = BufWriter::new(File::create(path).map_err(text)?);
    // `GzEncoder` writes no name and no time.
    let encoder = tar(GzEncoder::new(file, if quick { Compression::none() } else { Compression::best() }), entries)
        .map_err(text)?;
    encoder.finish().and_then(|mut file| file.flush()).map_err(text)
}

pub fn tar_zst(path: &Path, entries: Vec<Entry>, quick: bool) -> Outcome<()> {
    let file = BufWriter::new(File::create(path).map_err(text)?);
    let mut encoder = zstd::Encoder::new(file, if quick { 1 } else { 19 }).map_err(text)?;
    encoder.include_checksum(true).map_err(text)?;
    encoder.long_distance_matching(true).map_err(text)?;
    let encoder = tar(encoder, entries).map_err(text)?;
    encoder.finish().and_then(|mut file| file.flush()).map_err(text)
}

fn tar<W: Write>(target: W, mut entries: Vec<Entry>) -> io::Result<W> {
    entries.sort_by(|one, other| one.path.cmp(&other.path));
    let mut archive = tar::Builder::new(target);
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(if entry.executable { 0o755 } else { 0o644 });
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        match entry.content {
            Content::Bytes(bytes) => {
                header.set_size(bytes.len() as u64);
                archive.append_data(&mut header, &entry.path, &bytes[..])?;
            }
            Content::File(from) => {
                let file = File::open(from)?;
                header.set_size(file.metadata()?.len());
                archive.append_data(&mut header, &entry.path, file)?;
            }
            Content::Link(to) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                archive.append_link(&mut header, &entry.path, to)?;
            }
        }
    }
    archive.into_inner()
}

/// A component: `(version, files, unpacked size in bytes)`.
pub type Packed = (String, Vec<Entry>, u64);

/// Lists all files of a folder, and their total size in bytes.
pub fn folder(root: &Path) -> Outcome<(Vec<Entry>, u64)> {
    let (mut entries, mut size) = (Vec::new(), 0);
    for path in files_below(root).map_err(text)? {
        let relative = path.strip_prefix(root).map_err(text)?.to_string_lossy().into_owned();
        size += fs::metadata(&path).map_err(text)?.len();
        entries.push(Entry::file(relative, &path, false)?);
    }
    Ok((entries, size))
}

/// The needed files of a PostgreSQL from a folder or an archive. The archive is unpacked into `folder`. `version` is given
/// for programs that this machine cannot run.
pub fn postgres(from: &Path, folder: &Path, target: &str, version: Option<&str>) -> Outcome<Packed> {
    let root = if from.is_dir() {
        from.to_owned()
    } else {
        archive::unpack(from, folder).map_err(|error| format!("{}: {error}", from.display()))?;
        folder.to_owned()
    };
    let root = without_wrapping(root);
    let bin = archive::find_bin(&root).ok_or_else(|| format!("there is no bin/postgres in {}", from.display()))?;
    if (target == macho::TARGET) != macho::is_for_macs(&bin.join("postgres"))? {
        return Err(format!("{} is no PostgreSQL for {target}", from.display()));
    }
    let version = match version {
        Some(version) => version.to_owned(),
        None => tools::postgres_version(&bin).map_err(|error| error.to_string())?.1,
    };
    tools::check_complete(&bin).map_err(|error| error.to_string())?;
    let mut entries = Vec::new();
    let mut size = 0;
    walk(&root, &root, &bin, &mut entries, &mut size)?;
    Ok((version, entries, size))
}

/// Descends through folders that contain only one folder.
fn without_wrapping(root: PathBuf) -> PathBuf {
    let entries: Vec<PathBuf> = fs::read_dir(&root).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    match entries.as_slice() {
        [only] if only.is_dir() && !only.ends_with("bin") => without_wrapping(only.clone()),
        _ => root,
    }
}

fn walk(root: &Path, folder: &Path, bin: &Path, entries: &mut Vec<Entry>, size: &mut u64) -> Outcome<()> {
    for found in fs::read_dir(folder).map_err(text)? {
        let path = found.map_err(text)?.path();
        let relative = path.strip_prefix(root).map_err(text)?.to_string_lossy().into_owned();
        let meta = fs::symlink_metadata(&path).map_err(text)?;
        if !is_needed(&relative, &path, bin) {
            continue;
        }
        if meta.is_dir() {
            walk(root, &path, bin, entries, size)?;
        } else if meta.is_symlink() {
            let to = fs::read_link(&path).map_err(text)?;
            entries.push(Entry { path: relative, executable: false, content: Content::Link(to) });
        } else {
            let executable = meta.permissions().mode() & 0o111 != 0 || path.starts_with(bin);
            *size += meta.len();
            entries.push(Entry::file(relative, &path, executable)?);
        }
    }
    Ok(())
}

/// Returns false for headers, static libraries, documentation and translations, which a server does not need.
fn is_needed(relative: &str, path: &Path, bin: &Path) -> bool {
    const UNNEEDED: [&str; 7] = ["include", "pkgconfig", "pgxs", "doc", "man", "locale", "leoflow-install.json"];
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if UNNEEDED.contains(&name.as_ref()) || relative.ends_with(".a") {
        return false;
    }
    path.parent() != Some(bin) || name == "postgres" || tools::NEEDED.contains(&name.as_ref())
}

pub fn sha256(path: &Path) -> Outcome<(String, u64)> {
    let mut file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let (mut hash, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 256 * 1024]);
    loop {
        let length = file.read(&mut buffer).map_err(text)?;
        if length == 0 {
            return Ok((hex::encode(hash.finalize()), size));
        }
        hash.update(&buffer[..length]);
        size += length as u64;
    }
}

/// The text of SHA256SUMS, in the format of `sha256sum`, without signature files.
pub fn sums(folder: &Path) -> Outcome<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .map_err(text)?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.ends_with(".minisig") && name != "SHA256SUMS")
        .collect();
    names.sort();
    names.iter().map(|name| Ok(format!("{}  {name}\n", sha256(&folder.join(name))?.0))).collect()
}

pub fn output(program: &Path, arguments: &[&str]) -> Outcome<Vec<u8>> {
    let output = Command::new(program).args(arguments).output().map_err(text)?;
    if output.status.success() { Ok(output.stdout) } else { Err(format!("{} {arguments:?} failed", program.display())) }
}

pub fn make_executable(path: &Path) -> Outcome<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(text)
}
