//! Embeds the migrations.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

const FOLDER: &str = "../../migrations";

fn main() {
    println!("cargo:rerun-if-changed={FOLDER}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("migrations.rs"), migrations()).expect("write the list of migrations");
}

/// Source text of a slice of `(file name, up SQL, rollback SQL)`, sorted by file name.
fn migrations() -> String {
    let mut names: Vec<String> = fs::read_dir(FOLDER)
        .expect("read migrations/")
        .map(|entry| entry.expect("read migrations/").file_name())
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.ends_with(".sql") && !name.ends_with(".rollback.sql"))
        .collect();
    names.sort();
    let mut list = String::from("&[\n");
    for name in names {
        // rustc evaluates the absolute path, so the generated file stays valid when the checkout and its target folder
        // move.
        let include = |path: &Path| {
            format!("include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {:?}))", format!("/{}", path.display()))
        };
        let up = Path::new(FOLDER).join(&name);
        let down = up.with_extension("rollback.sql");
        let rollback = if down.exists() { format!("Some({})", include(&down)) } else { "None".to_owned() };
        writeln!(list, "({name:?}, {}, {rollback}),", include(&up)).expect("write to a string");
    }
    list.push(']');
    list
}
