//! Embeds the documentation and names the build: `0.1.0` for a release, `0.1.0+<hash8>` otherwise.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    for path in [
        "migrations",
        "src",
        "docs",
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "Cargo.lock",
        "Cargo.toml",
        "build.rs",
    ] {
        println!("cargo:rerun-if-changed={path}");
    }
    println!("cargo:rerun-if-env-changed=LEOFLOW_RELEASE");

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("docs_pages.rs"), docs_pages()).expect("write the list of pages");
    fs::write(out.join("docs_pictures.rs"), docs_pictures()).expect("write the list of pictures");

    let package = env::var("CARGO_PKG_VERSION").expect("cargo sets CARGO_PKG_VERSION");
    let version = match env::var("LEOFLOW_RELEASE") {
        Ok(release) if release == package => package,
        _ => format!("{package}+{:08x}", tree_hash() as u32),
    };
    println!("cargo:rustc-env=LEOFLOW_VERSION={version}");
    let target = env::var("TARGET").expect("cargo sets TARGET");
    println!("cargo:rustc-env=LEOFLOW_TARGET={target}");
    if target.contains("-linux-") {
        // A non-PIE binary needs no relocations: each process dirties about 200 fewer private pages at its start, and
        // every task has a process.
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}

/// Pages outside `docs/`: the name that the program gives them, and their file.
const TOP_PAGES: [(&str, &str); 4] = [
    ("about", "README.md"),
    ("changelog", "CHANGELOG.md"),
    ("contributing", "CONTRIBUTING.md"),
    ("security", "SECURITY.md"),
];

/// Source text of a slice of `Page`s, sorted by name.
fn docs_pages() -> String {
    let mut pages: Vec<(String, PathBuf)> =
        TOP_PAGES.iter().map(|(name, path)| ((*name).to_owned(), PathBuf::from(path))).collect();
    let mut files = Vec::new();
    collect(Path::new("docs"), &mut files);
    for file in files.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "md")) {
        let name = file.strip_prefix("docs").expect("collected from docs").with_extension("");
        pages.push((name.to_string_lossy().into_owned(), file));
    }
    pages.sort();
    let mut list = String::from("&[\n");
    for (name, file) in pages {
        let path = in_package(&file);
        writeln!(list, "Page {{ name: {name:?}, markdown: include_str!({path}) }},").expect("write to a string");
    }
    list.push(']');
    list
}

/// Source text of a slice of `Picture`s: the PNG and SVG files below `docs/`, sorted by name.
fn docs_pictures() -> String {
    let mut files = Vec::new();
    collect(Path::new("docs"), &mut files);
    files.sort();
    let is_picture =
        |file: &&PathBuf| file.extension().is_some_and(|extension| extension == "png" || extension == "svg");
    let mut list = String::from("&[\n");
    for file in files.iter().filter(is_picture) {
        let name = file.strip_prefix("docs").expect("collected from docs").to_string_lossy();
        let path = in_package(file);
        writeln!(list, "Picture {{ name: {name:?}, bytes: include_bytes!({path}) }},").expect("write to a string");
    }
    list.push(']');
    list
}

/// Source text of an expression for the absolute path of a file in the package. rustc evaluates it, so the generated
/// file stays valid when the checkout and its target folder move.
fn in_package(file: &Path) -> String {
    format!("concat!(env!(\"CARGO_MANIFEST_DIR\"), {:?})", format!("/{}", file.display()))
}

/// Hashes the sources, migrations, documentation, manifest and lock file, so that different development builds get different
/// versions.
fn tree_hash() -> u64 {
    let mut files = Vec::new();
    collect(Path::new("src"), &mut files);
    collect(Path::new("migrations"), &mut files);
    collect(Path::new("docs"), &mut files);
    files.extend(TOP_PAGES.iter().map(|(_, path)| PathBuf::from(path)));
    files.extend(["Cargo.lock", "Cargo.toml", "build.rs"].map(PathBuf::from));
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.hash(&mut hasher);
        fs::read(&file).unwrap_or_default().hash(&mut hasher);
    }
    hasher.finish()
}

/// Adds all files in a folder and its subfolders, except `__pycache__`; none if the folder cannot be read.
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
