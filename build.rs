//! Embeds the migrations and the Python package, and names the build: `0.1.0` for a release, `0.1.0+<hash8>` otherwise.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    for path in ["migrations", "src", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={path}");
    }
    println!("cargo:rerun-if-env-changed=LEOFLOW_RELEASE");

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("migrations.rs"), migrations()).expect("write the list of migrations");

    fs::write(out.join("python_package.rs"), python_package()).expect("write the list of Python files");

    let package = env::var("CARGO_PKG_VERSION").expect("cargo sets CARGO_PKG_VERSION");
    let version = match env::var("LEOFLOW_RELEASE") {
        Ok(release) if release == package => package,
        _ => format!("{package}+{:08x}", tree_hash() as u32),
    };
    println!("cargo:rustc-env=LEOFLOW_VERSION={version}");
    let target = env::var("TARGET").expect("cargo sets TARGET");
    println!("cargo:rustc-env=LEOFLOW_TARGET={target}");
    if target.contains("-linux-") {
        // At a fixed address there is nothing to relocate: some 200 pages less to touch for each process that starts,
        // of which there is one for each task, and as many less of its own for each that stays.
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}

/// A slice of `(file name, up SQL, rollback SQL)`, in file order.
fn migrations() -> String {
    let mut names: Vec<String> = fs::read_dir("migrations")
        .expect("read migrations/")
        .map(|entry| entry.expect("read migrations/").file_name())
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.ends_with(".sql") && !name.ends_with(".rollback.sql"))
        .collect();
    names.sort();
    let mut list = String::from("&[\n");
    for name in names {
        let up = absolute(&format!("migrations/{name}"));
        let down = up.with_extension("rollback.sql");
        let rollback = if down.exists() { format!("Some(include_str!({down:?}))") } else { "None".to_owned() };
        writeln!(list, "({name:?}, include_str!({up:?}), {rollback}),").expect("write to a string");
    }
    list.push(']');
    list
}

/// A slice of `(path below the package's root, text)` of the Python package, in order.
fn python_package() -> String {
    let mut files = Vec::new();
    collect(Path::new("src/python/package"), &mut files);
    files.sort();
    let mut list = String::from("&[\n");
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "py")) {
        let name = file.strip_prefix("src/python/package").expect("found below it");
        let path = absolute(&file.to_string_lossy());
        writeln!(list, "({name:?}, include_str!({path:?})),").expect("write to a string");
    }
    list.push(']');
    list
}

fn absolute(path: &str) -> PathBuf {
    Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR")).join(path)
}

/// One number for everything the binary is built from, so that two development builds that differ
/// are told apart.
fn tree_hash() -> u64 {
    let mut files = Vec::new();
    collect(Path::new("src"), &mut files);
    collect(Path::new("migrations"), &mut files);
    files.push(PathBuf::from("Cargo.lock"));
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.hash(&mut hasher);
        fs::read(&file).unwrap_or_default().hash(&mut hasher);
    }
    hasher.finish()
}

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
