//! Shares compiled modules (`.pyc` files) between environments, because Airflow's take some five seconds to compile:
//! `save` stores the compiled modules of an environment as hard links, and `link_stored` links them into the next
//! environment that has the same source files. A compiled module is valid for a source with the modification time and
//! the size in its header; the name of the stored file contains both.

use super::installed::{History, site_packages};
use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tracing::debug;

const CACHE_FOLDER: &str = "__pycache__";

/// Path of the store: the folder of stored modules.
fn store(home: &Home) -> PathBuf {
    home.tools().join("uv/compiled")
}

/// Path of the count file, which has the number of compiled modules of a working environment. `name` is the
/// environment's folder name, which identifies its lock and its Python.
fn count_file(home: &Home, name: &OsStr) -> PathBuf {
    let mut name = name.to_owned();
    name.push(".complete");
    store(home).join(name)
}

/// Links stored modules into an environment where their sources match; Python compiles the other modules. Returns
/// `HasWorked` if it linked at least as many modules as an earlier working environment of the same name had.
pub fn link_stored(home: &Home, environment: &Path, name: &OsStr) -> History {
    let store = store(home);
    let mut linked = 0;
    for packages_folder in site_packages(environment) {
        let Some(tag) = cache_tag(&packages_folder) else { continue };
        each_file(&store, &mut |stored| {
            let Some((target, source, source_stamp)) = locate(&store, stored, &packages_folder) else { return };
            if !target.to_string_lossy().ends_with(&format!(".{tag}.pyc")) {
                return;
            }
            if fs::symlink_metadata(&source).is_ok_and(|meta| stamp_of_source(&meta) == source_stamp) {
                let _ = target.parent().map(fs::create_dir);
                linked += usize::from(fs::hard_link(stored, target).is_ok());
            }
        });
    }
    let earlier_count = fs::read_to_string(count_file(home, name)).ok().and_then(|text| text.parse::<usize>().ok());
    match earlier_count {
        Some(modules) if modules > 0 && linked >= modules => History::HasWorked,
        _ => History::New,
    }
}

/// Stores the compiled modules of a working environment, and writes its count file.
pub fn save(home: &Home, environment: &Path, name: &OsStr) {
    let store = store(home);
    let mut count = 0;
    for packages_folder in site_packages(environment) {
        each_file(&packages_folder, &mut |file| {
            if file.parent().and_then(Path::file_name) != Some(OsStr::new(CACHE_FOLDER)) {
                return;
            }
            match store_module(home, &store, &packages_folder, file) {
                Ok(is_stored) => count += usize::from(is_stored),
                Err(error) => debug!("{}: {error}", file.display()),
            }
        });
    }
    if let Err(error) = files::write_atomic(&count_file(home, name), count.to_string().as_bytes(), 0o600) {
        debug!("{}: {error}", store.display());
    }
}

/// Stores a compiled module; returns whether the store has it now.
fn store_module(home: &Home, store: &Path, packages_folder: &Path, file: &Path) -> io::Result<bool> {
    let Some((time, size)) = read_source_stamp(file)? else { return Ok(false) };
    let Ok(relative) = file.strip_prefix(packages_folder) else { return Ok(false) };
    let stored = store.join(format!("{}.{time}-{size}", relative.display()));
    if let Some(folder) = stored.parent() {
        home.create_folder(folder)?;
    }
    match fs::hard_link(file, stored) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(true),
        linked => linked.map(|()| true),
    }
}

/// Removes the store: its modules may have been compiled from damaged files.
pub fn remove_all(home: &Home) -> io::Result<()> {
    files::remove_any(&store(home))
}

/// Removes the files of the store that have no other hard link: modules that no environment has any more, and all count
/// files.
pub fn remove_unused(home: &Home) {
    each_file(&store(home), &mut |stored| {
        if fs::symlink_metadata(stored).is_ok_and(|meta| meta.nlink() == 1) {
            let _ = fs::remove_file(stored);
        }
    });
}

/// Reads the source's modification time and size from the header of a compiled module; `None` for a hash-based `.pyc`.
fn read_source_stamp(file: &Path) -> io::Result<Option<(u32, u32)>> {
    let mut header = [0u8; 16];
    File::open(file)?.read_exact(&mut header)?;
    let fields: Vec<u32> = header.as_chunks::<4>().0.iter().map(|field| u32::from_le_bytes(*field)).collect();
    // Magic number, flags (0: by time and size), time, size.
    Ok(match fields[..] {
        [_, 0, time, size] => Some((time, size)),
        _ => None,
    })
}

/// The source's modification time (seconds) and size (bytes) as Python compares them: the lower 32 bits of each.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn stamp_of_source(source: &Metadata) -> (u32, u32) {
    (source.mtime() as u32, source.len() as u32)
}

/// Maps a stored file to its path in an environment, the path of its source there, and the source's time and size.
fn locate(store: &Path, stored: &Path, packages_folder: &Path) -> Option<(PathBuf, PathBuf, (u32, u32))> {
    let target = packages_folder.join(stored.strip_prefix(store).ok()?);
    let (name, source_stamp) = target.file_name()?.to_str()?.rsplit_once('.')?;
    let (time, size) = source_stamp.split_once('-')?;
    let module = name.strip_suffix(".pyc")?.rsplit_once('.')?.0;
    let source = target.parent()?.with_file_name(format!("{module}.py"));
    Some((target.with_file_name(name), source, (time.parse().ok()?, size.parse().ok()?)))
}

/// The cache tag, `cpython-312`, for the packages below `lib/python3.12`.
fn cache_tag(packages_folder: &Path) -> Option<String> {
    let version = packages_folder.parent()?.file_name()?.to_str()?.strip_prefix("python")?;
    Some(format!("cpython-{}", version.replace('.', "")))
}

/// Visits all files. Skips unreadable and vanished ones; does not follow links.
fn each_file(folder: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => each_file(&entry.path(), visit),
            Ok(kind) if kind.is_file() => visit(&entry.path()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    /// An environment with one module, modified `seconds` after the epoch.
    fn environment(home: &Home, name: &str, seconds: u64) -> PathBuf {
        let package = home.root().join(name).join("lib/python3.12/site-packages/p");
        fs::create_dir_all(&package).unwrap();
        fs::write(package.join("m.py"), "A = 1\n").unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        File::options().write(true).open(package.join("m.py")).unwrap().set_modified(time).unwrap();
        package
    }

    #[test]
    fn environments_share_compiled_modules_of_equal_files() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        let first = environment(&home, "first", 1000);
        fs::create_dir(first.join(CACHE_FOLDER)).unwrap();
        let mut compiled = vec![1, 2, 3, 4, 0, 0, 0, 0];
        compiled.extend(1000u32.to_le_bytes());
        compiled.extend(6u32.to_le_bytes());
        fs::write(first.join("__pycache__/m.cpython-312.pyc"), &compiled).unwrap();
        // A hash-based module and a truncated one are not stored.
        compiled[4] = 1;
        fs::write(first.join("__pycache__/n.cpython-312.pyc"), &compiled).unwrap();
        fs::write(first.join("__pycache__/o.cpython-312.pyc"), "").unwrap();
        let name = OsStr::new("name");
        assert_eq!(link_stored(&home, &home.root().join("first"), name), History::New);
        save(&home, &home.root().join("first"), name);
        save(&home, &home.root().join("first"), name);

        let (same, newer) = (environment(&home, "same", 1000), environment(&home, "newer", 1001));
        let other_python = home.root().join("other/lib/python3.13/site-packages/p");
        fs::create_dir_all(&other_python).unwrap();
        fs::hard_link(first.join("m.py"), other_python.join("m.py")).unwrap();
        let linked = ["same", "newer", "other"].map(|folder| link_stored(&home, &home.root().join(folder), name));
        assert_eq!(linked, [History::HasWorked, History::New, History::New]);
        let cached = |package: &Path| {
            let entries = fs::read_dir(package.join(CACHE_FOLDER)).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(cached(&same), ["m.cpython-312.pyc"]);
        assert!(cached(&newer).is_empty() && cached(&other_python).is_empty());

        let count_stored = || {
            let mut count = 0;
            each_file(&store(&home), &mut |_| count += 1);
            count
        };
        remove_unused(&home);
        assert_eq!(count_stored(), 1, "the count file is removed");
        fs::remove_dir_all(home.root().join("first")).unwrap();
        fs::remove_dir_all(home.root().join("same")).unwrap();
        remove_unused(&home);
        assert_eq!(count_stored(), 0);
    }
}
