//! What a checkout of a repository lacks: submodules, files in Git LFS, and plugins that are packed in a zip file.

use super::plan::Decision;
use super::repository::Repository;
use super::survey::Fact;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::shell;
use leoflow_python::unzip_command;
use std::fs;
use std::path::{Path, PathBuf};

/// Size limit of `.gitmodules` and `.gitattributes`, bytes.
const LIMIT: u64 = 1024 * 1024;
/// First line of a pointer of the Git LFS specification, a file of less than 1024 bytes that stands for another one.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";
const POINTER_LIMIT: u64 = 1023;

pub fn missing(repository: &Repository) -> Vec<Decision> {
    let Repository { top, scanned: folders, zips, .. } = repository;
    let mut all = Vec::new();
    let submodules = submodules(top).into_iter().filter(|path| is_empty(&top.join(path))).collect::<Vec<_>>();
    if !submodules.is_empty() {
        let what = format!("git submodules that are not checked out: {}", submodules.join(", "));
        let remedy = match top.join(".git").exists() {
            true => format!("git -C {} submodule update --init --recursive", quoted(top)),
            false => "this copy is no git repository, so replace it: git clone --recurse-submodules URL".to_owned(),
        };
        all.push(Decision { fact: Fact::at(what, ".gitmodules"), remedy });
    }
    let uses_lfs = [top]
        .into_iter()
        .chain(folders)
        .any(|folder| text(&folder.join(".gitattributes")).is_some_and(|attributes| attributes.contains("filter=lfs")));
    let pointers = if uses_lfs { pointers(folders) } else { Vec::new() };
    if !pointers.is_empty() {
        let places = pointers.iter().map(|path| path.strip_prefix(top).unwrap_or(path).display().to_string());
        let what = "files in Git LFS that are not checked out".to_owned();
        let fact = Fact { what, count: pointers.len(), places: places.collect(), ..Fact::default() };
        all.push(Decision { fact, remedy: format!("git -C {} lfs pull", quoted(top)) });
    }
    let plugins = zips.iter().filter(|zip| zip.ends_with("plugins.zip") && !zip.with_extension("").is_dir());
    all.extend(plugins.map(|zip| {
        let place = zip.strip_prefix(top).unwrap_or(zip).display().to_string();
        let remedy = unzip_command(zip, &zip.with_extension(""));
        Decision { fact: Fact::at("plugins in a zip file, which are not loaded", place), remedy }
    }));
    all
}

/// The paths of the submodules that `.gitmodules` names.
fn submodules(top: &Path) -> Vec<String> {
    let text = text(&top.join(".gitmodules")).unwrap_or_default();
    let path = |line: &str| {
        Some(line.trim().strip_prefix("path")?.trim_start().strip_prefix('=')?.trim().trim_matches('"').to_owned())
    };
    text.lines().filter_map(path).collect()
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

fn pointers(folders: &[PathBuf]) -> Vec<PathBuf> {
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let small = entries
        .filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() <= POINTER_LIMIT));
    let is_pointer = |path: &PathBuf| {
        files::read_regular(path, POINTER_LIMIT).ok().flatten().is_some_and(|text| text.starts_with(POINTER))
    };
    let mut pointers: Vec<PathBuf> = small.map(|entry| entry.path()).filter(is_pointer).collect();
    pointers.sort();
    pointers
}

fn text(path: &Path) -> Option<String> {
    files::read_text(path, LIMIT).ok().flatten()
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    shell::word(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_a_checkout_lacks_with_commands() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path();
        for name in ["dags", "em pty", "full", ".git"] {
            fs::create_dir(top.join(name)).unwrap();
        }
        let modules = "[submodule \"a\"]\n\tpath = \"em pty\"\n\turl = u\n[submodule \"b\"]\n\tpath=full\n";
        let pointer = [POINTER, b"oid sha256:0\nsize 1\n"].concat();
        for (name, text) in [
            (".gitmodules", modules.as_bytes()),
            ("full/x", b""),
            ("dags/model.bin", &pointer),
            ("dags/small.txt", b"version 1\n"),
        ] {
            fs::write(top.join(name), text).unwrap();
        }
        let mut repository = Repository::find(top, None).unwrap();
        let found = |repository: &Repository| {
            let all = missing(repository).into_iter();
            all.map(|decision| (decision.fact.places[0].clone(), decision.remedy)).collect::<Vec<_>>()
        };
        let git = format!("git -C {}", top.display());
        let submodules = (".gitmodules".to_owned(), format!("{git} submodule update --init --recursive"));
        assert_eq!(found(&repository), std::slice::from_ref(&submodules));
        fs::remove_dir(top.join(".git")).unwrap();
        assert!(found(&repository)[0].1.ends_with("git clone --recurse-submodules URL"));
        fs::create_dir(top.join(".git")).unwrap();
        fs::write(top.join(".gitattributes"), "*.bin filter=lfs diff=lfs merge=lfs -text\n").unwrap();
        let zip = top.join("plugins.zip");
        let lfs = ("dags/model.bin".to_owned(), format!("{git} lfs pull"));
        let plugins = ("plugins.zip".to_owned(), unzip_command(&zip, &top.join("plugins")));
        repository.zips = vec![zip];
        assert_eq!(found(&repository), [submodules.clone(), lfs.clone(), plugins]);
        fs::create_dir(top.join("plugins")).unwrap();
        assert_eq!(found(&repository), [submodules, lfs]);
    }
}
