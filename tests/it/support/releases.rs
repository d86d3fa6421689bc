//! Releases made for a test, of programs that stand for them, signed with a throwaway key.

use super::{LEOFLOW, postgres_archive};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, LazyLock, Mutex};
use tempfile::TempDir;

/// A release host as a folder, with the programs beside it.
pub struct Releases {
    folder: TempDir,
}

/// What a release is like beside its version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Release {
    pub version: &'static str,
    /// Of the migration that it adds.
    pub migration: Migration,
    /// `role: fault`, see `tests/releases/program.rs`.
    pub fault: Option<(&'static str, &'static str)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Migration {
    #[default]
    None,
    /// Adds a table, and can be undone.
    Adds,
    /// Changes rows, and cannot be undone.
    Data,
    /// What `Adds` does, and what `Data` does after it.
    AddsThenData,
    /// Takes minutes on the live database, and no time in the rehearsal.
    SlowWhereItMatters,
    /// Fails in its last statement.
    Fails,
    /// Adds a table, and fails to take it back.
    Stays,
    /// One of each phase, the contract after the data migration, which runs in batches.
    Phases,
}

pub const FIRST: Release = Release { version: "0.1.0", migration: Migration::None, fault: None };
pub const SECOND: Release = Release { version: "0.2.0", migration: Migration::Adds, fault: None };

impl Releases {
    /// The folder that `--from` takes.
    pub fn dist(&self) -> PathBuf {
        self.folder.path().join("dist")
    }

    pub fn key(&self) -> PathBuf {
        key().0.clone()
    }

    /// The program of a release, as it came out of its build.
    pub fn program(&self, version: &str) -> PathBuf {
        self.folder.path().join(format!("leoflow-{version}"))
    }
}

type Made = HashMap<Vec<Release>, Arc<Releases>>;

/// Made once for all tests that want the same.
pub fn releases(list: &[Release]) -> Arc<Releases> {
    static MADE: LazyLock<Mutex<Made>> = LazyLock::new(Mutex::default);
    made(list, &mut MADE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

/// The last one on top of those before it, which other lists begin with too.
fn made(list: &[Release], all: &mut Made) -> Arc<Releases> {
    if let Some(found) = all.get(list) {
        return found.clone();
    }
    let (last, before) = list.split_last().unwrap();
    let before = (!before.is_empty()).then(|| (made(before, all), before));
    let releases = Arc::new(make(last, before));
    all.insert(list.to_vec(), releases.clone());
    releases
}

fn make(release: &Release, before: Option<(Arc<Releases>, &[Release])>) -> Releases {
    let folder = tempfile::Builder::new().tempdir_in(of_this_run()).unwrap();
    let releases = Releases { folder };
    let mut more: Vec<OsString> = Vec::new();
    if let Some((before, list)) = &before {
        more.extend(["--from".into(), before.dist().into()]);
        for older in *list {
            fs::hard_link(before.program(older.version), releases.program(older.version)).unwrap();
        }
    }
    write_program(&releases.program(release.version), release);
    if release.fault.is_some_and(|(part, _)| part == "postgres") {
        let broken = releases.folder.path().join("postgres");
        write_broken_postgres(&broken);
        more.extend(["--postgres".into(), broken.into()]);
    }
    let more: Vec<&str> = more.iter().map(|argument| argument.to_str().unwrap()).collect();
    let done = make_release(&releases, release.version, &releases.dist(), &more);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    releases
}

/// One that says its version, and nothing else.
fn write_broken_postgres(folder: &Path) {
    fs::create_dir_all(folder.join("bin")).unwrap();
    let script = "#!/bin/sh\n[ \"$1\" = --version ] && echo 'postgres (PostgreSQL) 18.99' && exit 0\nexit 1\n";
    for name in ["postgres", "initdb", "psql", "pg_dump", "pg_restore"] {
        let path = folder.join("bin").join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// Runs the tool that makes releases; a `--postgres` among `more` comes before the usual one.
pub fn make_release(releases: &Releases, version: &str, output: &Path, more: &[&str]) -> Output {
    let changelog = output.with_extension("changelog");
    fs::write(&changelog, format!("# Changes\n\n## {version}\n\n- Something new in {version}.\n")).unwrap();
    let has_own = more.contains(&"--postgres");
    let usual_postgres =
        if has_own { vec![] } else { vec!["--postgres".into(), postgres_archive().clone().into_os_string()] };
    Command::new(example("make-release"))
        .args(["make", version, "--quick", "--date", "2026-11-20T00:00:00Z", "--sign"])
        .arg(releases.key())
        .arg("--program")
        .arg(releases.program(version))
        .args(usual_postgres)
        .arg("--changelog")
        .arg(&changelog)
        .arg("--output")
        .arg(output)
        .args(more)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap()
}

/// The program that stands for it, as `tests/releases/program.rs` describes.
pub fn write_program(path: &Path, release: &Release) {
    let newest = super::newest();
    let file = |name: &str| format!("V{:04}__{name}.sql", newest + 1);
    let adds = json!({
        "file": file("more"),
        "sql": "-- phase: expand\nCREATE TABLE more (id bigint PRIMARY KEY, note text);\n",
        "rollback": "DROP TABLE more;\n",
    });
    let data =
        |file: String| json!({"file": file, "sql": "-- phase: data\nUPDATE variable SET description = 'changed';\n"});
    let migrations = match release.migration {
        Migration::None => json!([]),
        Migration::Adds => json!([adds]),
        Migration::Data => json!([data(file("fixed"))]),
        Migration::AddsThenData => json!([adds, data(format!("V{:04}__fixed.sql", newest + 2))]),
        Migration::Stays => json!([{
            "file": file("more"),
            "sql": "-- phase: expand\nCREATE TABLE more (id bigint PRIMARY KEY);\n",
            "rollback": "SELECT 1 / 0;\n",
        }]),
        Migration::Phases => phases(newest + 1),
        Migration::SlowWhereItMatters => json!([{
            "file": file("slow"),
            "sql": "-- phase: expand\nCREATE TABLE more (id bigint);\n\
                    DO $$ BEGIN IF current_database() = 'leoflow' THEN PERFORM pg_sleep(120); END IF; END $$;\n",
            "rollback": "DROP TABLE more;\n",
        }]),
        Migration::Fails => json!([{
            "file": file("broken"),
            "sql": "-- phase: expand\nCREATE TABLE more (id bigint);\nSELECT 1 / 0;\n",
            "rollback": "DROP TABLE more;\n",
        }]),
    };
    let mut said = json!({"version": release.version, "public_key": key().1, "migrations": migrations});
    if let Some((role, fault)) = release.fault {
        said["faults"] = json!({role: fault});
    }
    append(path, &said);
}

/// Variables get a summary, from their descriptions; what only the release before needed goes in the end.
fn phases(first: i64) -> Value {
    let file = |ahead: i64, name: &str| format!("V{:04}__{name}.sql", first + ahead);
    json!([
        {
            "file": file(0, "summary"),
            "sql": "-- phase: expand\nALTER TABLE variable ADD COLUMN summary text;\nCREATE TABLE outdated (id bigint);\n",
            "rollback": "DROP TABLE outdated;\nALTER TABLE variable DROP COLUMN summary;\n",
        },
        {
            "file": file(1, "summaries"),
            "sql": "-- phase: data\n\
                -- step: batch\n\
                WITH part AS (SELECT key FROM variable WHERE key > coalesce($1::jsonb->>0, '') ORDER BY key LIMIT $2),\n\
                changed AS (UPDATE variable v SET summary = description FROM part\n\
                            WHERE v.key = part.key AND summary IS DISTINCT FROM description RETURNING 1)\n\
                SELECT (SELECT jsonb_build_array(max(key)) FROM part HAVING count(*) > 0), (SELECT count(*) FROM changed);\n\
                -- step: left\n\
                SELECT count(*) FROM variable WHERE summary IS DISTINCT FROM description;\n",
            "rollback": format!("DELETE FROM data_migration WHERE version = {};\n", first + 1),
        },
        {
            "file": file(2, "summary_index"),
            "sql": "-- phase: postdeploy\nCREATE INDEX variable_summary ON variable (summary);\n",
            "rollback": "DROP INDEX variable_summary;\n",
        },
        {
            "file": file(3, "outdated"),
            "sql": "-- phase: contract\nDROP TABLE outdated;\n",
        },
    ])
}

fn append(path: &Path, said: &Value) {
    let text = said.to_string();
    let length = u32::try_from(text.len()).unwrap();
    let trail = path.with_extension("trail");
    fs::write(&trail, [text.as_bytes(), &length.to_le_bytes(), b"LEOTRAIL"].concat()).unwrap();
    // By another process: a child that another test forks meanwhile would have a program of ours open for writing,
    // and then it cannot be run.
    let script = "cat \"$1\" \"$2\" > \"$3\" && chmod 755 \"$3\" && rm \"$2\"";
    let mut made = Command::new("/bin/sh");
    made.args(["-c", script, "sh"]).arg(program_without_symbols()).arg(&trail).arg(path);
    assert!(made.status().unwrap().success());
}

/// Half as large to pack, to hash and to copy. As it is where there is no `strip`.
fn program_without_symbols() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let (whole, stripped) = (example("release-under-test"), of_this_run().join("release-under-test"));
        let is_done = Command::new("strip").arg("-o").arg(&stripped).arg(&whole).status().is_ok_and(|it| it.success());
        if is_done { stripped } else { whole }
    });
    &PROGRAM
}

/// Statics are never dropped, so what test runs have left that are over is removed by the next one.
fn of_this_run() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("releases");
        for old in fs::read_dir(&all).into_iter().flatten().flatten() {
            let pid: Option<i32> = old.file_name().to_str().and_then(|name| name.parse().ok());
            if !pid.is_some_and(super::processes::is_alive) {
                let _ = fs::remove_dir_all(old.path());
            }
        }
        let own = all.join(std::process::id().to_string());
        fs::create_dir_all(&own).unwrap();
        own
    });
    &FOLDER
}

/// Secret and public half.
fn key() -> &'static (PathBuf, String) {
    static KEY: LazyLock<(PathBuf, String)> = LazyLock::new(|| {
        let path = of_this_run().join("key");
        new_key(&path);
        let public = Command::new(example("make-release")).arg("public-key").arg(&path).output().unwrap();
        (path, String::from_utf8(public.stdout).unwrap().trim().to_owned())
    });
    &KEY
}

pub fn new_key(path: &Path) {
    for old in [path.to_owned(), PathBuf::from(format!("{}.pub", path.display()))] {
        let _ = fs::remove_file(old);
    }
    let made = Command::new(example("make-release")).arg("keygen").arg(path).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Built by `cargo test` beside the program, unless a single test binary was asked for.
pub fn example(name: &str) -> PathBuf {
    let path = Path::new(LEOFLOW).parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is not there: cargo build --examples", path.display());
    path
}
