//! Compiled modules that environments have in common. Airflow's take some five seconds to compile: what one environment has
//! compiled is kept as hard links, and the next that installs the same files begins with it. Python itself looks whether
//! each fits its source, by the time and the size that are in it; here these two are part of its name.

use super::installed::places;
use crate::home::Home;
use crate::sys::files;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tracing::debug;

const FOLDER: &str = "__pycache__";

fn store(home: &Home) -> PathBuf {
    home.tools().join("uv/compiled")
}

/// Of an environment of that name, which stands for its lock and its Python: how much it has compiled once it worked.
fn note(home: &Home, name: &OsStr) -> PathBuf {
    let mut name = name.to_owned();
    name.push(".complete");
    store(home).join(name)
}

/// Links what is kept for the sources in an environment. What cannot be given is compiled again. Returns whether all is
/// there that one of the same name had, which worked.
pub fn give(home: &Home, environment: &Path, name: &OsStr) -> bool {
    let store = store(home);
    let mut given = 0;
    for place in places(environment) {
        let Some(tag) = tag_of(&place) else { continue };
        each_file(&store, &mut |kept| {
            let Some((target, source, fit)) = meant_for(&store, kept, &place) else { return };
            let is_for_this_python = target.to_string_lossy().ends_with(&format!(".{tag}.pyc"));
            if is_for_this_python && fs::symlink_metadata(&source).is_ok_and(|meta| fit_of(&meta) == fit) {
                let _ = target.parent().map(fs::create_dir);
                given += usize::from(fs::hard_link(kept, target).is_ok());
            }
        });
    }
    let before = fs::read_to_string(note(home, name)).ok().and_then(|text| text.parse::<usize>().ok());
    before.is_some_and(|before| before > 0 && given >= before)
}

/// Keeps what an environment has compiled that works.
pub fn keep(home: &Home, environment: &Path, name: &OsStr) {
    let store = store(home);
    let mut count = 0;
    for place in places(environment) {
        each_file(&place, &mut |file| {
            if file.parent().and_then(Path::file_name) != Some(OsStr::new(FOLDER)) {
                return;
            }
            match keep_one(home, &store, &place, file) {
                Ok(is_kept) => count += usize::from(is_kept),
                Err(error) => debug!("{}: {error}", file.display()),
            }
        });
    }
    if let Err(error) = files::write_atomic(&note(home, name), count.to_string().as_bytes(), 0o600) {
        debug!("{}: {error}", store.display());
    }
}

fn keep_one(home: &Home, store: &Path, place: &Path, file: &Path) -> io::Result<bool> {
    let Some((time, size)) = header_of(file)? else { return Ok(false) };
    let Ok(relative) = file.strip_prefix(place) else { return Ok(false) };
    let kept = store.join(format!("{}.{time}-{size}", relative.display()));
    if let Some(folder) = kept.parent() {
        home.create_folder(folder)?;
    }
    match fs::hard_link(file, kept) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(true),
        linked => linked.map(|()| true),
    }
}

/// Forgets what no environment has any more, and which have worked.
pub fn forget_unused(home: &Home) {
    each_file(&store(home), &mut |kept| {
        if fs::symlink_metadata(kept).is_ok_and(|meta| meta.nlink() == 1) {
            let _ = fs::remove_file(kept);
        }
    });
}

/// The time and size of the source that a compiled module is of, as Python looks at them; `None` for one of another kind.
fn header_of(file: &Path) -> io::Result<Option<(u32, u32)>> {
    let mut header = [0u8; 16];
    File::open(file)?.read_exact(&mut header)?;
    let words: Vec<u32> = header.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    Ok(match words[..] {
        [_, 0, time, size] => Some((time, size)),
        _ => None,
    })
}

/// As Python compares them: the lower 32 bits of each.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn fit_of(source: &Metadata) -> (u32, u32) {
    (source.mtime() as u32, source.len() as u32)
}

/// For a kept file: its place in an environment, the source there, and the source's time and size.
fn meant_for(store: &Path, kept: &Path, place: &Path) -> Option<(PathBuf, PathBuf, (u32, u32))> {
    let target = place.join(kept.strip_prefix(store).ok()?);
    let (name, fit) = target.file_name()?.to_str()?.rsplit_once('.')?;
    let (time, size) = fit.split_once('-')?;
    let module = name.strip_suffix(".pyc")?.rsplit_once('.')?.0;
    let source = target.parent()?.with_file_name(format!("{module}.py"));
    Some((target.with_file_name(name), source, (time.parse().ok()?, size.parse().ok()?)))
}

/// `cpython-312`, for the packages below `lib/python3.12`.
fn tag_of(place: &Path) -> Option<String> {
    let version = place.parent()?.file_name()?.to_str()?.strip_prefix("python")?;
    Some(format!("cpython-{}", version.replace('.', "")))
}

/// What is unreadable, or gone meanwhile, is passed over; links are not followed.
fn each_file(folder: &Path, act: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => each_file(&entry.path(), act),
            Ok(kind) if kind.is_file() => act(&entry.path()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    /// An environment with one module, of that age.
    fn environment(home: &Home, name: &str, seconds: u64) -> PathBuf {
        let package = home.root().join(name).join("lib/python3.12/site-packages/p");
        fs::create_dir_all(&package).unwrap();
        fs::write(package.join("m.py"), "A = 1\n").unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        File::options().write(true).open(package.join("m.py")).unwrap().set_modified(time).unwrap();
        package
    }

    #[test]
    fn what_one_has_compiled_is_there_in_the_next_that_has_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        let first = environment(&home, "first", 1000);
        fs::create_dir(first.join(FOLDER)).unwrap();
        let mut compiled = vec![1, 2, 3, 4, 0, 0, 0, 0];
        compiled.extend(1000u32.to_le_bytes());
        compiled.extend(6u32.to_le_bytes());
        fs::write(first.join("__pycache__/m.cpython-312.pyc"), &compiled).unwrap();
        // One that is checked by its content, and one that is cut off.
        compiled[4] = 1;
        fs::write(first.join("__pycache__/n.cpython-312.pyc"), &compiled).unwrap();
        fs::write(first.join("__pycache__/o.cpython-312.pyc"), "").unwrap();
        let name = OsStr::new("name");
        assert!(!give(&home, &home.root().join("first"), name));
        keep(&home, &home.root().join("first"), name);
        keep(&home, &home.root().join("first"), name);

        let (same, newer) = (environment(&home, "same", 1000), environment(&home, "newer", 1001));
        let other_python = home.root().join("other/lib/python3.13/site-packages/p");
        fs::create_dir_all(&other_python).unwrap();
        fs::hard_link(first.join("m.py"), other_python.join("m.py")).unwrap();
        let given = ["same", "newer", "other"].map(|folder| give(&home, &home.root().join(folder), name));
        assert_eq!(given, [true, false, false]);
        let cached = |package: &Path| {
            let entries = fs::read_dir(package.join(FOLDER)).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(cached(&same), ["m.cpython-312.pyc"]);
        assert!(cached(&newer).is_empty() && cached(&other_python).is_empty());

        let kept = || {
            let mut count = 0;
            each_file(&store(&home), &mut |_| count += 1);
            count
        };
        forget_unused(&home);
        assert_eq!(kept(), 1, "the note is no compiled module, and not kept");
        fs::remove_dir_all(home.root().join("first")).unwrap();
        fs::remove_dir_all(home.root().join("same")).unwrap();
        forget_unused(&home);
        assert_eq!(kept(), 0);
    }
}
