//! Builds releases for tests from stand-in programs, signed with a throwaway key.

use super::LEOFLOW;
use super::postgres::quick_tree;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, LazyLock};

/// A folder with a release host (`dist`) and the releases' programs.
pub struct Releases {
    folder: PathBuf,
}

/// A release's version, migration and fault.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Release {
    pub version: &'static str,
    /// The migration that the release adds.
    pub migration: Migration,
    /// Role and fault, see `tests/releases/program.rs`. A role `live-…` has no fault in the rehearsal; with the role
    /// `postgres` the release contains a PostgreSQL that does not start.
    pub fault: Option<(&'static str, &'static str)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Migration {
    #[default]
    None,
    /// Adds a table; can be rolled back.
    AddsTable,
    /// Changes rows; cannot be rolled back.
    Data,
    /// Two migrations: `AddsTable`, then `Data`.
    TableThenData,
    /// Takes minutes on the live database, but is instant in the rehearsal.
    SlowOnLiveDatabase,
    /// Renames variables.
    AltersVariables,
    /// Renames variables on the live database, but not in the rehearsal.
    AltersLiveDatabase,
    /// Fails in its last statement.
    Fails,
    /// Adds a table; its rollback fails.
    RollbackFails,
    /// A migration of each phase; the data migration runs in batches before the contract migration.
    Phases,
}

pub const FIRST: Release = Release { version: "0.1.0", migration: Migration::None, fault: None };
pub const SECOND: Release = Release { version: "0.2.0", migration: Migration::AddsTable, fault: None };

impl Releases {
    /// Returns the release host, the argument of `--from`.
    pub fn dist(&self) -> PathBuf {
        self.folder.join("dist")
    }

    pub fn key(&self) -> PathBuf {
        key().0.clone()
    }

    /// Returns the program of a release.
    pub fn program(&self, version: &str) -> PathBuf {
        self.folder.join(format!("leoflow-{version}"))
    }
}

/// Returns the releases of `list`, built once per test run for all tests that need the same list.
pub fn releases(list: &[Release]) -> Arc<Releases> {
    let _lock = super::cache_lock("lock-releases");
    get_or_make(list)
}

/// Builds the last release of the list on top of the shorter list without it, which other lists may share.
fn get_or_make(list: &[Release]) -> Arc<Releases> {
    let (last, before) = list.split_last().unwrap();
    let before = (!before.is_empty()).then(|| (get_or_make(before), before));
    let mut hasher = std::hash::DefaultHasher::new();
    list.hash(&mut hasher);
    let folder = run_dir().join(format!("{:x}", hasher.finish()));
    let completion_marker = folder.join("complete");
    let releases = Releases { folder };
    if !completion_marker.exists() {
        // A failed attempt may have left files.
        let _ = fs::remove_dir_all(&releases.folder);
        fs::create_dir(&releases.folder).unwrap();
        make(last, before, &releases);
        fs::write(completion_marker, "").unwrap();
    }
    Arc::new(releases)
}

fn make(release: &Release, before: Option<(Arc<Releases>, &[Release])>, releases: &Releases) {
    let mut more: Vec<OsString> = Vec::new();
    if let Some((before, list)) = &before {
        more.extend(["--from".into(), before.dist().into()]);
        for older in *list {
            fs::hard_link(before.program(older.version), releases.program(older.version)).unwrap();
        }
    }
    write_program(&releases.program(release.version), release);
    if release.fault.is_some_and(|(role, _)| role == "postgres") {
        let broken = releases.folder.join("postgres");
        write_broken_postgres(&broken);
        more.extend(["--postgres".into(), broken.into()]);
    }
    let more: Vec<&str> = more.iter().map(|argument| argument.to_str().unwrap()).collect();
    let done = make_release(releases, release.version, &releases.dist(), &more);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Writes a PostgreSQL whose programs print a version and fail at everything else.
fn write_broken_postgres(folder: &Path) {
    fs::create_dir_all(folder.join("bin")).unwrap();
    let script = "#!/bin/sh\n[ \"$1\" = --version ] && echo 'postgres (PostgreSQL) 18.99' && exit 0\nexit 1\n";
    for name in ["postgres", "initdb", "psql", "pg_dump", "pg_restore"] {
        let path = folder.join("bin").join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// Runs the tool that builds releases; `--postgres` in `more` replaces the default archive.
pub fn make_release(releases: &Releases, version: &str, output: &Path, more: &[&str]) -> Output {
    let changelog = output.with_extension("changelog");
    fs::write(&changelog, format!("# Changes\n\n## {version}\n\n- Something new in {version}.\n")).unwrap();
    let is_overridden = more.contains(&"--postgres");
    let default_postgres =
        if is_overridden { vec![] } else { vec!["--postgres".into(), quick_tree().clone().into_os_string()] };
    Command::new(example_program("make-release"))
        .args(["make", version, "--quick", "--date", "2026-11-20T00:00:00Z", "--sign"])
        .arg(releases.key())
        .arg("--program")
        .arg(releases.program(version))
        .args(default_postgres)
        .arg("--changelog")
        .arg(&changelog)
        .arg("--output")
        .arg(output)
        .args(more)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap()
}

/// Writes the contract of this checkout after `change` has edited its settings.
pub fn write_contract(path: &Path, change: impl FnOnce(&mut Value)) {
    let current = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/contract.json");
    let mut contract: Value = serde_json::from_slice(&fs::read(current).unwrap()).unwrap();
    change(&mut contract["sections"]["settings"]);
    fs::write(path, contract.to_string()).unwrap();
}

/// Writes the stand-in program of a release, which `tests/releases/program.rs` describes.
pub fn write_program(path: &Path, release: &Release) {
    let newest = super::newest();
    let file = |name: &str| format!("V{:04}__{name}.sql", newest + 1);
    let adds = json!({
        "file": file("more"),
        "sql": "-- phase: expand\nCREATE TABLE more (id bigint PRIMARY KEY, note text);\n",
        "rollback": "-- loses: table more\nDROP TABLE more;\n",
    });
    let data =
        |file: String| json!({"file": file, "sql": "-- phase: data\nUPDATE variable SET description = 'changed';\n"});
    let migrations = match release.migration {
        Migration::None => json!([]),
        Migration::AddsTable => json!([adds]),
        Migration::Data => json!([data(file("fixed"))]),
        Migration::AltersVariables => json!([{
            "file": file("altering"),
            "sql": "-- phase: data\nUPDATE variable SET key = 'altered ' || key;\n",
        }]),
        Migration::TableThenData => json!([adds, data(format!("V{:04}__fixed.sql", newest + 2))]),
        Migration::RollbackFails => json!([{
            "file": file("more"),
            "sql": "-- phase: expand\nCREATE TABLE more (id bigint PRIMARY KEY);\n",
            "rollback": "-- loses: nothing\nSELECT 1 / 0;\n",
        }]),
        Migration::Phases => phases(newest + 1),
        Migration::SlowOnLiveDatabase => json!([{
            "file": file("slow"),
            "sql": "-- phase: expand\nCREATE TABLE more (id bigint);\n\
                    DO $$ BEGIN IF current_database() = 'leoflow' THEN PERFORM pg_sleep(120); END IF; END $$;\n",
            "rollback": "-- loses: table more\nDROP TABLE more;\n",
        }]),
        Migration::AltersLiveDatabase => json!([{
            "file": file("altering"),
            "sql": "-- phase: expand\nDO $$ BEGIN IF current_database() = 'leoflow' THEN\n\
                    UPDATE variable SET key = 'altered ' || key; END IF; END $$;\n",
            "rollback": "-- loses: nothing\nSELECT 1;\n",
        }]),
        Migration::Fails => json!([{
            "file": file("broken"),
            "sql": "-- phase: expand\nCREATE TABLE more (id bigint);\nSELECT 1 / 0;\n",
            "rollback": "-- loses: table more\nDROP TABLE more;\n",
        }]),
    };
    let mut trailer = json!({"version": release.version, "public_key": key().1, "migrations": migrations});
    if let Some((role, fault)) = release.fault {
        trailer["faults"] = json!({role: fault});
    }
    append_trailer(path, &trailer);
}

/// Migrations that copy the variables' descriptions into a new column, then drop what only the older release needed.
fn phases(first: i64) -> Value {
    let file = |offset: i64, name: &str| format!("V{:04}__{name}.sql", first + offset);
    json!([
        {
            "file": file(0, "summary"),
            "sql": "-- phase: expand\nALTER TABLE variable ADD COLUMN summary text;\nCREATE TABLE outdated (id bigint);\n",
            "rollback": "-- loses: table outdated, column summary of variable\nDROP TABLE outdated;\nALTER TABLE variable DROP COLUMN summary;\n",
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

fn append_trailer(path: &Path, trailer: &Value) {
    let text = trailer.to_string();
    let length = u32::try_from(text.len()).unwrap();
    let trailer_file = path.with_extension("trail");
    fs::write(&trailer_file, [text.as_bytes(), &length.to_le_bytes(), b"LEOTRAIL"].concat()).unwrap();
    // A shell writes the program: if this process did, a child forked by another test could inherit the descriptor, and
    // executing the program would fail with ETXTBSY.
    let script = "cat \"$1\" \"$2\" > \"$3\" && chmod 755 \"$3\" && rm \"$2\"";
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script, "sh"]).arg(stripped_program()).arg(&trailer_file).arg(path);
    assert!(shell.status().unwrap().success());
}

/// Returns the program without symbols, half the size to pack, hash and copy; unchanged if there is no `strip`.
fn stripped_program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let (whole, stripped) = (example_program("release-under-test"), run_dir().join("release-under-test"));
        let _lock = super::cache_lock("lock-release-program");
        let mut strip = Command::new("strip");
        let is_stripped = stripped.exists()
            || strip.arg("-o").arg(&stripped).arg(&whole).status().is_ok_and(|status| status.success());
        if is_stripped { stripped } else { whole }
    });
    &PROGRAM
}

/// The folder of the releases of all runs.
const ALL_RUNS: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/releases");

/// Returns the folder of this run's releases, which is removed when the run ends.
fn run_dir() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        super::run::remove_stale(Path::new(ALL_RUNS), "");
        let run = Path::new(ALL_RUNS).join(super::run::id().to_string());
        // Each build has its own folder, because the program may be rebuilt during a run.
        let own = run.join(super::run::fingerprint(&example_program("release-under-test")));
        fs::create_dir_all(&own).unwrap();
        super::run::remove_at_end(&run);
        own
    });
    &FOLDER
}

/// Whether the program is one of the tests' releases.
pub fn is_release(program: &Path) -> bool {
    program.starts_with(ALL_RUNS)
}

/// Returns the path of the secret key and the text of the public key.
fn key() -> &'static (PathBuf, String) {
    static KEY: LazyLock<(PathBuf, String)> = LazyLock::new(|| {
        let path = run_dir().join("key");
        let _lock = super::cache_lock("lock-release-key");
        if !path.exists() {
            new_key(&path);
        }
        let public = Command::new(example_program("make-release")).arg("public-key").arg(&path).output().unwrap();
        (path, String::from_utf8(public.stdout).unwrap().trim().to_owned())
    });
    &KEY
}

pub fn new_key(path: &Path) {
    for old in [path.to_owned(), PathBuf::from(format!("{}.pub", path.display()))] {
        let _ = fs::remove_file(old);
    }
    let keygen = Command::new(example_program("make-release")).arg("keygen").arg(path).output().unwrap();
    assert!(keygen.status.success(), "{}", String::from_utf8_lossy(&keygen.stderr));
}

/// Returns a program of `examples`, which `cargo test` builds unless it is limited to one test binary.
pub fn example_program(name: &str) -> PathBuf {
    let path = Path::new(LEOFLOW).parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "{} does not exist: run cargo build --examples", path.display());
    path
}
