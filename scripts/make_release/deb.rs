//! A Debian package with the program, its licences and its completions:
//! <https://www.debian.org/doc/debian-policy/>, and deb(5) for the format.

use super::Outcome;
use super::elf::Needs;
use super::packages::{self, Contents};
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use md5::{Digest, Md5};
use semver::Version;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

pub fn write(contents: &Contents<'_>, needs: &Needs, output: &Path) -> Outcome<()> {
    let version = debian_version(contents.version);
    let files = files(contents, &version)?;
    let size = files.iter().map(|file| file.bytes.len().div_ceil(1024)).sum::<usize>();
    let architecture = needs.machine.debian_name();
    let control = control(&version, architecture, size, &depends(needs));
    let sums: String =
        files.iter().map(|file| format!("{}  {}\n", hex::encode(Md5::digest(&file.bytes)), file.path)).collect();
    let controls = [DebFile::new("control", control.into_bytes()), DebFile::new("md5sums", sums.into_bytes())];
    let path = output.join(format!("leoflow_{version}_{architecture}.deb"));
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", tar_gz(&controls, contents).map_err(|error| error.to_string())?),
        ("data.tar.gz", tar_gz(&files, contents).map_err(|error| error.to_string())?),
    ];
    ar(&path, &members, contents.date).map_err(|error| format!("{}: {error}", path.display()))
}

struct DebFile {
    path: String,
    bytes: Vec<u8>,
    mode: u32,
}

impl DebFile {
    fn new(path: &str, bytes: Vec<u8>) -> Self {
        Self { path: path.to_owned(), bytes, mode: 0o644 }
    }
}

fn files(contents: &Contents<'_>, version: &str) -> Outcome<Vec<DebFile>> {
    let mut files = vec![DebFile { mode: 0o755, ..DebFile::new("usr/bin/leoflow", contents.program()?) }];
    for (shell, path) in [
        ("bash", "usr/share/bash-completion/completions/leoflow"),
        ("fish", "usr/share/fish/vendor_completions.d/leoflow.fish"),
        ("zsh", "usr/share/zsh/vendor-completions/_leoflow"),
    ] {
        files.extend(
            contents
                .completions
                .iter()
                .find(|(name, _)| *name == shell)
                .map(|(_, text)| DebFile::new(path, text.clone())),
        );
    }
    let doc = "usr/share/doc/leoflow";
    let changelog =
        gzip(changelog(contents, version).as_bytes(), Compression::best()).map_err(|error| error.to_string())?;
    files.push(DebFile::new(&format!("{doc}/changelog.gz"), changelog));
    files.push(DebFile::new(&format!("{doc}/copyright"), COPYRIGHT.as_bytes().to_vec()));
    for (name, text) in contents.licenses()? {
        // Policy 12.5: the licence itself is in /usr/share/common-licenses.
        if name != "LICENSE" {
            files.push(DebFile::new(&format!("{doc}/{name}"), text));
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

/// <https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/>
const COPYRIGHT: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Leoflow Lite

Files: *
Copyright: The Leoflow Lite authors
License: Apache-2.0
 On Debian systems, the full text of the Apache License version 2.0 is in
 /usr/share/common-licenses/Apache-2.0.
Comment: The linked libraries, with their licences, are listed in
 THIRD-PARTY-LICENSES.txt in this folder.
";

/// The maintainer is not a mailbox that could be guessed; a distributor sets its own.
const MAINTAINER: &str = "Leoflow Lite <maintainers@leoflow.invalid>";

fn control(version: &str, architecture: &str, size: usize, depends: &str) -> String {
    let description = packages::DESCRIPTION.replace('\n', "\n ");
    format!(
        "Package: leoflow\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: {MAINTAINER}\n\
         Installed-Size: {size}\nDepends: {depends}\nRecommends: ca-certificates\nSuggests: python3 (>= 3.10)\n\
         Section: utils\nPriority: optional\nDescription: {}\n {description}\n",
        packages::SUMMARY
    )
}

fn depends(needs: &Needs) -> String {
    let (major, minor) = needs.glibc;
    let gcc = needs.libraries.iter().any(|name| name == "libgcc_s.so.1");
    format!("libc6 (>= {major}.{minor}){}", if gcc { ", libgcc-s1" } else { "" })
}

/// `0.2.0-rc1` is `0.2.0~rc1`, which sorts before `0.2.0`.
fn debian_version(version: &Version) -> String {
    version.to_string().replacen('-', "~", 1)
}

/// deb-changelog(5): the release with its notes in the changelog's lines.
fn changelog(contents: &Contents<'_>, version: &str) -> String {
    let date = contents.date.strftime("%a, %d %b %Y %H:%M:%S +0000");
    format!(
        "leoflow ({version}) stable; urgency=medium\n\n  * {}\n\n -- {MAINTAINER}  {date}\n",
        "See leoflow docs changelog."
    )
}

/// A tar with every folder, all owned by root.
fn tar_gz(files: &[DebFile], contents: &Contents<'_>) -> io::Result<Vec<u8>> {
    let compression = if contents.quick { Compression::none() } else { Compression::best() };
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), compression));
    let mtime = u64::try_from(contents.date.as_second()).unwrap_or(0);
    let mut made: Vec<PathBuf> = Vec::new();
    for file in files {
        let mut folders: Vec<&Path> = Path::new(&file.path).ancestors().skip(1).collect();
        folders.reverse();
        for folder in folders {
            if !made.iter().any(|known| known == folder) {
                let header = header(tar::EntryType::Directory, 0o755, 0, mtime, &Path::new(".").join(folder).join(""))?;
                archive.append(&header, io::empty())?;
                made.push(folder.to_owned());
            }
        }
        let size = file.bytes.len() as u64;
        let header = header(tar::EntryType::Regular, file.mode, size, mtime, &Path::new(".").join(&file.path))?;
        archive.append(&header, &file.bytes[..])?;
    }
    archive.into_inner()?.finish()
}

/// A header whose path begins with `./`, as dpkg writes them; `append_data` would drop that.
fn header(kind: tar::EntryType, mode: u32, size: u64, mtime: u64, path: &Path) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(mtime);
    header.set_uid(0);
    header.set_gid(0);
    header.set_username("root")?;
    header.set_groupname("root")?;
    let name = path.to_string_lossy();
    let field = header.as_gnu_mut().map(|gnu| &mut gnu.name).ok_or(io::ErrorKind::InvalidInput)?;
    let place = field.get_mut(..name.len()).ok_or_else(|| io::Error::other(format!("{name} is too long for tar")))?;
    place.copy_from_slice(name.as_bytes());
    header.set_cksum();
    Ok(header)
}

fn gzip(bytes: &[u8], compression: Compression) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), compression);
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// ar(5): a magic line, then each member after a header of 60 bytes, padded to an even length.
fn ar(path: &Path, members: &[(&str, Vec<u8>)], date: Timestamp) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(b"!<arch>\n")?;
    for (name, bytes) in members {
        writeln!(file, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", date.as_second(), 0, 0, "100644", bytes.len())?;
        file.write_all(bytes)?;
        file.write_all(&b"\n"[..bytes.len() % 2])?;
    }
    file.flush()
}
