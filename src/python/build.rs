//! Embeds the Python package.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

const FOLDER: &str = "package";

fn main() {
    println!("cargo:rerun-if-changed={FOLDER}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("python_package.rs"), python_package()).expect("write the list of Python files");
}

/// Returns Rust source text: a slice of `(path in the package, text)` of every Python and text file, of `py.typed` and
/// of the commands in `bin`, sorted by path.
fn python_package() -> String {
    let mut files = Vec::new();
    collect(Path::new(FOLDER), &mut files);
    files.sort();
    let mut list = String::from("&[\n");
    let is_embedded = |file: &&PathBuf| {
        file.extension().is_some_and(|end| ["py", "txt", "typed"].iter().any(|kind| end == *kind))
            || file.parent().is_some_and(|folder| folder.ends_with("bin"))
    };
    for file in files.iter().filter(is_embedded) {
        let name = file.strip_prefix(FOLDER).expect("collected from the package folder");
        // `env!` makes the path absolute at compile time: a checkout that moves with its target folder keeps working.
        let path = format!("/{}", file.display());
        writeln!(list, "({name:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {path:?}))),")
            .expect("write to a string");
    }
    list.push(']');
    list
}

/// Adds all files in a folder and its subfolders. An unreadable folder adds none.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.ends_with("__pycache__") {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
