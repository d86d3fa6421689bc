//! A container image: an OCI archive that podman and docker load, from the release's own files and a tree of Debian, without
//! a daemon. <https://github.com/opencontainers/image-spec>

use super::elf::Machine;
use super::{Outcome, packages};
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use semver::Version;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use tar::{EntryType, Header};

pub struct Image<'a> {
    pub version: &'a Version,
    pub date: Timestamp,
    pub machine: Machine,
    /// A tar with the packages of Debian in `scripts/release`, unpacked.
    pub base: &'a Path,
    /// The tarball of the release.
    pub tarball: &'a Path,
    /// Files that are beside the program: PostgreSQL and the web UI, each in its archive.
    pub beside: &'a [PathBuf],
    /// The program uv, which installs packages of projects.
    pub uv: &'a Path,
    pub quick: bool,
}

/// Where the program is.
const FOLDER: &str = "usr/lib/leoflow";
/// The user that everything runs as.
const USER: u64 = 1000;
const USERS: &str = "root:x:0:0:root:/root:/bin/bash\nleoflow:x:1000:1000::/home/leoflow:/bin/bash\n\
                     nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUPS: &str = "root:x:0:\nleoflow:x:1000:\nnogroup:x:65534:\n";
/// Folders of Debian's packages that a container does not need, and devices, which its runtime makes.
const LEFT_OUT: [&str; 16] = [
    "dev/",
    "boot/",
    "etc/apt/",
    "usr/share/bash-completion/",
    "usr/share/debconf/",
    "usr/share/info/",
    "usr/share/lintian/",
    "usr/share/locale/",
    "usr/share/man/",
    "usr/share/perl5/",
    "usr/share/pixmaps/",
    "usr/share/applications/",
    "usr/lib/python3.13/pydoc_data/",
    "usr/lib/python3.13/turtledemo/",
    "var/cache/",
    "var/lib/apt/",
];
const CERTIFICATES: &str = "usr/share/ca-certificates/";

/// Writes `leoflow-VERSION-linux-ARCHITECTURE.oci.tar`; returns its path.
pub fn write(image: &Image<'_>, output: &Path) -> Outcome<PathBuf> {
    let architecture = image.machine.debian_name();
    let path = output.join(format!("leoflow-{}-linux-{architecture}.oci.tar", image.version));
    image.write(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// A file of an archive's `blobs` folder.
struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { digest: hex::encode(Sha256::digest(&bytes)), bytes }
    }

    fn json(value: &Value) -> io::Result<Self> {
        Ok(Self::new(serde_json::to_vec(value)?))
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    fn descriptor(&self, kind: &str) -> Value {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{}", self.digest),
            "size": self.bytes.len(),
        })
    }
}

impl Image<'_> {
    fn write(&self, path: &Path) -> io::Result<()> {
        let layers = [self.base_layer()?.finish()?, self.own_layer()?.finish()?];
        let config = Blob::json(&self.config(&layers))?;
        let layer_descriptors: Vec<Value> =
            layers.iter().map(|layer| layer.blob.descriptor("layer.v1.tar+gzip")).collect();
        let manifest = Blob::json(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor("config.v1+json"),
            "layers": layer_descriptors,
        }))?;
        let mut listed = manifest.descriptor("manifest.v1+json");
        // A tag has no `+`, which development builds have in their version.
        let tag = self.version.to_string().replace('+', "-");
        let name = format!("leoflow:{tag}");
        listed["platform"] = json!({"architecture": self.machine.debian_name(), "os": "linux"});
        listed["annotations"] = json!({
            "io.containerd.image.name": format!("docker.io/library/{name}"),
            "org.opencontainers.image.ref.name": tag,
        });
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [listed],
        });
        // Versions of docker before 25 read this file and not the index.
        let paths: Vec<String> = layers.iter().map(|layer| layer.blob.path()).collect();
        let docker = json!([{"Config": config.path(), "RepoTags": [name], "Layers": paths}]);
        let mut archive = tar::Builder::new(io::BufWriter::new(File::create(path)?));
        add(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        add(&mut archive, "index.json", &serde_json::to_vec(&index)?)?;
        add(&mut archive, "manifest.json", &serde_json::to_vec(&docker)?)?;
        for blob in [&config, &manifest].into_iter().chain(layers.iter().map(|layer| &layer.blob)) {
            add(&mut archive, &blob.path(), &blob.bytes)?;
        }
        archive.into_inner()?.flush()
    }

    /// Debian's files, in their order, and what the scripts of its packages would make.
    fn base_layer(&self) -> io::Result<Layer> {
        let mut layer = Layer::new(self.quick);
        let mut certificates = Vec::new();
        let mut archive = tar::Archive::new(BufReader::new(File::open(self.base)?));
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path_bytes().into_owned();
            let path = String::from_utf8_lossy(&path).trim_start_matches("./").to_owned();
            let is_doc = path.starts_with("usr/share/doc/") && !path.ends_with("/copyright");
            if path.is_empty() || is_doc || LEFT_OUT.iter().any(|folder| path.starts_with(folder)) {
                continue;
            }
            if path.starts_with(CERTIFICATES) && path.ends_with(".crt") {
                entry.read_to_end(&mut certificates)?;
                certificates.push(b'\n');
                continue;
            }
            layer.copy(&path, &mut entry)?;
        }
        layer.file("etc/passwd", 0o644, USERS.as_bytes())?;
        layer.file("etc/group", 0o644, GROUPS.as_bytes())?;
        layer.file("etc/ssl/certs/ca-certificates.crt", 0o644, &certificates)?;
        layer.link("usr/bin/awk", "mawk")?;
        Ok(layer)
    }

    /// The release, and the folders of its user.
    fn own_layer(&self) -> io::Result<Layer> {
        let mut layer = Layer::new(self.quick);
        layer.folder("home/leoflow/", 0o755, USER)?;
        layer.folder("workspace/", 0o755, USER)?;
        layer.folder(&format!("{FOLDER}/"), 0o755, 0)?;
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(BufReader::new(File::open(self.tarball)?)));
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            let inside: PathBuf = path.components().skip(1).collect();
            layer.copy(&format!("{FOLDER}/{}", inside.display()), &mut entry)?;
        }
        for file in self.beside {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            layer.file(&format!("{FOLDER}/{name}"), 0o644, &fs::read(file)?)?;
        }
        layer.file("usr/bin/uv", 0o755, &fs::read(self.uv)?)?;
        layer.link("usr/bin/leoflow", "../lib/leoflow/leoflow")?;
        Ok(layer)
    }

    fn config(&self, layers: &[FinishedLayer]) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", layer.diff_id)).collect();
        let created = self.date.to_string();
        let ui = self.beside.iter().filter_map(|file| file.file_name()?.to_str()).find(|name| name.contains("-ui-"));
        let mut variables = vec![
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            "LANG=C.UTF-8".to_owned(),
            "HOME=/home/leoflow".to_owned(),
            // Only what the container's owner publishes can be reached.
            "LEOFLOW_HOST=0.0.0.0".to_owned(),
        ];
        variables.extend(ui.map(|name| format!("LEOFLOW_UI=/{FOLDER}/{name}")));
        let history: Vec<Value> =
            ["Debian", "Leoflow Lite"].map(|made_by| json!({"created": created, "created_by": made_by})).into();
        json!({
            "created": created,
            "architecture": self.machine.debian_name(),
            "os": "linux",
            "config": {
                "User": format!("{USER}:{USER}"),
                "ExposedPorts": {"8088/tcp": {}},
                "Env": variables,
                "Entrypoint": ["leoflow"],
                "Cmd": ["lite", "--workspace", "/workspace"],
                "Volumes": {"/home/leoflow": {}},
                "WorkingDir": "/workspace",
                "StopSignal": "SIGTERM",
                "Labels": {
                    "org.opencontainers.image.title": "Leoflow Lite",
                    "org.opencontainers.image.description": packages::SUMMARY,
                    "org.opencontainers.image.version": self.version.to_string(),
                    "org.opencontainers.image.licenses": "Apache-2.0",
                },
            },
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        })
    }
}

/// A layer that is being written.
struct Layer {
    archive: tar::Builder<Hashing<GzEncoder<Vec<u8>>>>,
}

struct FinishedLayer {
    blob: Blob,
    /// The hash of the uncompressed tar.
    diff_id: String,
}

struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Layer {
    fn new(quick: bool) -> Self {
        // Every version of docker reads gzip; older ones do not read zstd.
        let compression = if quick { Compression::fast() } else { Compression::best() };
        let inner = GzEncoder::new(Vec::new(), compression);
        Self { archive: tar::Builder::new(Hashing { inner, hash: Sha256::new() }) }
    }

    fn finish(self) -> io::Result<FinishedLayer> {
        let Hashing { inner, hash } = self.archive.into_inner()?;
        Ok(FinishedLayer { blob: Blob::new(inner.finish()?), diff_id: hex::encode(hash.finalize()) })
    }

    /// Copies an entry of another archive, which belongs to root.
    fn copy<R: Read>(&mut self, path: &str, entry: &mut tar::Entry<'_, R>) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(entry.header().entry_type());
        header.set_mode(entry.header().mode()?);
        header.set_mtime(entry.header().mtime()?);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(entry.size());
        match entry.link_name()?.map(|to| to.into_owned()) {
            Some(to) if entry.header().entry_type() == EntryType::Link => {
                // A hard link names a path of the layer.
                self.archive.append_link(&mut header, path, to.strip_prefix("./").unwrap_or(&to))
            }
            Some(to) => self.archive.append_link(&mut header, path, to),
            None => self.archive.append_data(&mut header, path, entry),
        }
    }

    fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_mode(mode);
        header.set_size(bytes.len() as u64);
        self.archive.append_data(&mut header, path, bytes)
    }

    fn folder(&mut self, path: &str, mode: u32, owner: u64) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_size(0);
        self.archive.append_data(&mut header, path, io::empty())
    }

    fn link(&mut self, path: &str, to: &str) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        self.archive.append_link(&mut header, path, to)
    }
}

fn add(archive: &mut tar::Builder<impl Write>, path: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, path, bytes)
}
