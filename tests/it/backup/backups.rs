//! Backups: their content, concurrent writes, verification, and failures.

use crate::support::archive::Unpacked;
use crate::support::{TestHome, wait_until};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;
use tar::EntryType;

#[test]
fn a_backup_is_one_private_file_under_any_umask() {
    let test = TestHome::started();
    test.run_dag("hello");
    test.run(&["variables", "set", "a", "secret-value"]).expect(0);
    let output = test.folder().join("b.tar.zst");
    let leoflow = test.command(&["lite", "backup", "--json", "--output", output.to_str().unwrap()]);
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", "umask 000; exec \"$@\"", "sh"]).arg(leoflow.get_program()).args(leoflow.get_args()).env_clear();
    shell.envs(leoflow.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let done = crate::support::CommandOutput::from(shell.output().unwrap()).expect(0);
    let report = done.json();
    let meta = fs::metadata(&output).unwrap();
    assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
    assert_eq!(report["size_bytes"], meta.len());
    assert_eq!(report["sha256"], crate::support::archive::hash(&fs::read(&output).unwrap()));
    assert_eq!(report["path"], output.to_str().unwrap());
    assert_eq!(report["schema_version"], crate::support::newest());
    assert_eq!(report["tables"]["dag_run"], 1);
    assert_eq!(report["skipped"], serde_json::json!([]));

    let backup = Unpacked::open(&output);
    for path in ["config.yaml", "setup.json", "datastore.dump.zst", "task-logs", "workspace/hello/dag.py"] {
        assert!(backup.paths().contains(&path), "{path} in {:?}", backup.paths());
    }
    assert!(backup.paths().iter().any(|path| path.starts_with("task-logs/hello/") && path.ends_with("/1.log")));
    let manifest = &backup.manifest;
    assert_eq!((&manifest["manifest_version"], &manifest["tables"]["variable"]), (&1.into(), &1.into()));
    assert!(manifest["postgres_version"].as_str().unwrap().starts_with("18."));
    let text = fs::read(&output).unwrap();
    assert!(!String::from_utf8_lossy(&text).contains("secret-value"));
}

#[test]
fn backups_agree_stopped_or_running_and_in_both_formats() {
    let test = TestHome::started();
    test.run_dag("hello");
    let running = Unpacked::open(&test.backup("running.tar.zst")).manifest;
    test.run(&["lite", "stop"]).expect(0);
    let stopped = Unpacked::open(&test.backup("stopped.tar.gz")).manifest;
    assert_eq!(running["tables"], stopped["tables"]);
    test.assert_nothing_runs();
    // The default output folder is the home's `backups`.
    let done = test.command(&["lite", "backup", "--json"]).current_dir(test.folder()).output().unwrap();
    let path = crate::support::CommandOutput::from(done).expect(0).json()["path"].as_str().unwrap().to_owned();
    assert!(Path::new(&path).starts_with(test.home.join("backups")) && path.contains("/leoflow-backup-20"), "{path}");
    assert!(path.ends_with("Z.tar.zst"));
    let wrong = test.run(&["lite", "backup", "--output", "x.zip"]).expect(2);
    assert!(wrong.stderr.contains(".tar.zst"), "{}", wrong.stderr);
}

#[test]
fn row_counts_and_dump_agree_under_concurrent_writes() {
    let test = TestHome::started();
    test.sql("CREATE TABLE mine (n bigint GENERATED ALWAYS AS IDENTITY, t text)");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let rounds_written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut rounds = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                test.sql("INSERT INTO mine (t) SELECT repeat('x', 200) FROM generate_series(1, 500)");
                rounds += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            rounds
        });
        for number in 0..2 {
            let file = test.backup(&format!("{number}.tar.zst"));
            test.run(&["lite", "backups", "verify", file.to_str().unwrap()]).expect(0);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        writer.join().unwrap()
    });
    assert!(rounds_written > 3, "too few concurrent writes");
    assert!(test.restore_leftovers().is_empty(), "{:?}", test.restore_leftovers());
}

#[test]
fn skipped_files_are_listed_and_links_are_not_followed() {
    let test = TestHome::started();
    let workspace = test.workspace();
    let outside = test.folder().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "not mine to copy").unwrap();
    for (target, name) in
        [(outside.to_str().unwrap(), "absolute"), ("../../outside/secret", "escapes"), ("hello/dag.py", "inside")]
    {
        symlink(target, workspace.join(name)).unwrap();
    }
    nix::unistd::mkfifo(&workspace.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let _socket = UnixListener::bind(workspace.join("socket")).unwrap();
    fs::write(workspace.join("new\nline"), "x").unwrap();
    fs::write(workspace.join("leoflow-backup-20260101T000000Z.tar.zst"), "an older one").unwrap();
    fs::write(workspace.join("run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(workspace.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(workspace.join(".env"), "KEY=1").unwrap();
    fs::set_permissions(workspace.join(".env"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir_all(workspace.join("p/.git")).unwrap();
    fs::create_dir_all(workspace.join("p/env")).unwrap();
    fs::write(workspace.join("p/env/pyvenv.cfg"), "").unwrap();
    fs::create_dir_all(workspace.join("p/__pycache__")).unwrap();
    let long = format!("p/{}/{}", "d".repeat(120), "f".repeat(120));
    fs::create_dir_all(workspace.join(&long).parent().unwrap()).unwrap();
    fs::write(workspace.join(&long), "long").unwrap();
    let output = test.folder().join("b.tar.zst");
    let report = test.run(&["lite", "backup", "--json", "--output", output.to_str().unwrap()]).expect(0).json();
    let skipped: Vec<&str> =
        report["skipped"].as_array().unwrap().iter().map(|s| s["path"].as_str().unwrap()).collect();
    let expected = ["absolute", "escapes", "fifo", "leoflow-backup-20260101T000000Z.tar.zst", "new\nline", "socket"];
    assert_eq!(skipped, expected.map(|name| format!("workspace/{name}")));
    let backup = Unpacked::open(&output);
    assert_eq!(backup.manifest["skipped"], report["skipped"]);
    assert_eq!(
        backup.manifest["left_out"],
        serde_json::json!(["workspace/p/.git", "workspace/p/__pycache__", "workspace/p/env"])
    );
    let inside = backup.parts.iter().find(|part| part.path == "workspace/inside").unwrap();
    assert_eq!((inside.kind, inside.target.as_str()), (EntryType::Symlink, "hello/dag.py"));
    assert!(!backup.parts.iter().any(|part| part.bytes.starts_with(b"not mine")));
    assert!(backup.paths().contains(&format!("workspace/{long}").as_str()));
    // A restore brings back the link, the long path and the permissions.
    let other = TestHome::new();
    other.restore(&output, &[]).expect(0);
    assert_eq!(fs::read_to_string(other.workspace().join(&long)).unwrap(), "long");
    assert_eq!(fs::read_link(other.workspace().join("inside")).unwrap(), Path::new("hello/dag.py"));
    assert_eq!(fs::metadata(other.workspace().join("run.sh")).unwrap().permissions().mode() & 0o100, 0o100);
    assert_eq!(fs::metadata(other.workspace().join(".env")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(other.workspace().join("hello/dag.py")).unwrap().permissions().mode() & 0o111, 0);
}

#[test]
fn a_backup_skips_or_refuses_foreign_database_objects() {
    let test = TestHome::started();
    test.sql("CREATE TABLE mine (id int PRIMARY KEY, t text); CREATE INDEX mine_t ON mine (t); CREATE INDEX extra ON dag_run (state, run_id)");
    test.sql("CREATE VIEW seen AS SELECT * FROM mine; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TYPE mood AS ENUM ('fine')");
    test.sql("CREATE TABLE \"Odd \"\"Name\" (id serial PRIMARY KEY, up int REFERENCES \"Odd \"\"Name\"); INSERT INTO \"Odd \"\"Name\" DEFAULT VALUES");
    test.sql("CREATE TABLE other (id int DEFAULT f()); INSERT INTO mine VALUES (1, 'x')");
    let output = test.folder().join("b.tar.zst");
    let report = test.run(&["lite", "backup", "--json", "--output", output.to_str().unwrap()]).expect(0).json();
    let skipped: Vec<&str> =
        report["skipped"].as_array().unwrap().iter().map(|s| s["path"].as_str().unwrap()).collect();
    assert_eq!(skipped, ["database/other", "database/seen", "database/function f()", "database/type mood"]);
    assert_eq!(report["tables"]["mine"], 1);
    test.run(&["lite", "backups", "verify", output.to_str().unwrap()]).expect(0);
    // A backup cannot skip changes of Leoflow's own tables, so it is refused.
    test.sql("CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER mine BEFORE INSERT ON variable FOR EACH ROW EXECUTE FUNCTION t()");
    let before = fs::read(&output).unwrap();
    let refused = || test.run(&["lite", "backup", "--output", output.to_str().unwrap()]).expect(1).stderr;
    assert!(refused().contains("trigger mine on variable"), "{}", refused());
    test.sql("DROP TRIGGER mine ON variable");
    for (change, named, undo) in [
        ("ALTER TABLE dag_run ADD COLUMN note2 text", "dag_run column note2", "ALTER TABLE dag_run DROP COLUMN note2"),
        (
            "DROP INDEX dag_run_recent",
            "no dag_run index",
            "CREATE INDEX dag_run_recent ON dag_run (dag_id, run_after DESC)",
        ),
        ("CREATE UNIQUE INDEX odd ON xcom (key)", "xcom index", "DROP INDEX odd"),
        (
            "ALTER TABLE dag ADD CONSTRAINT mine CHECK (dag_id <> '')",
            "dag constraint mine",
            "ALTER TABLE dag DROP CONSTRAINT mine",
        ),
        ("COMMENT ON TABLE dag IS 'mine'", "dag comment", "COMMENT ON TABLE dag IS NULL"),
    ] {
        test.sql(change);
        assert!(refused().contains(named), "{change}: {}", refused());
        test.sql(undo);
    }
    assert_eq!(fs::read(&output).unwrap(), before);
}

#[test]
fn a_killed_backup_keeps_the_old_file_whole() {
    let test = TestHome::started();
    let output = test.backup("b.tar.zst");
    let before = fs::read(&output).unwrap();
    for name in ["backup.begun", "backup.dumped", "backup.collected", "backup.written"] {
        let arguments = ["lite", "backup", "--output", output.to_str().unwrap()];
        let killed = test.command(&arguments).env("LEOFLOW_KILL_AT", name).output().unwrap().status;
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed), Some(9), "{name}");
        assert_eq!(fs::read(&output).unwrap(), before, "{name}");
    }
    test.backup("b.tar.zst");
    assert_ne!(fs::read(&output).unwrap(), before);
    let files: Vec<_> = fs::read_dir(test.folder()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!files.iter().any(|name| name.to_string_lossy().contains(".tmp-")), "{files:?}");
    wait_until("pg_dump has ended", Duration::from_secs(5), || {
        test.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_dump'") == "0"
    });
}

#[test]
fn verify_detects_any_changed_byte_and_records_its_result() {
    let test = TestHome::started();
    fs::create_dir_all(test.home.join("backups")).unwrap();
    let file = test.home.join("backups/mine.tar.zst");
    test.run(&["lite", "backup", "--output", file.to_str().unwrap()]).expect(0);
    let listed =
        |field: &str| test.run(&["lite", "backups", "list", "--json"]).expect(0).json()["backups"][0][field].clone();
    assert!(listed("last_verified").is_null());
    assert_eq!(listed("automatic"), false);
    test.run(&["lite", "backups", "verify"]).expect(0);
    assert_eq!((&listed("last_verified")["ok"], &listed("last_verified")["quick"]), (&true.into(), &false.into()));
    let good = fs::read(&file).unwrap();
    let plain = zstd::decode_all(&good[..]).unwrap();
    let bad = test.folder().join("bad.tar.zst");
    for index in (0..good.len()).step_by(good.len() / 60) {
        let mut bytes = good.clone();
        bytes[index] ^= 0x10;
        fs::write(&bad, &bytes).unwrap();
        let verified = test.run(&["lite", "backups", "verify", "--quick", bad.to_str().unwrap()]);
        // Some flipped bits decode to the same bytes with a valid checksum; then the backup is still good.
        let is_same = zstd::decode_all(&bytes[..]).is_ok_and(|text| text == plain);
        assert_eq!(
            verified.code,
            Some(if is_same { 0 } else { 1 }),
            "byte {index} of {}: {}",
            good.len(),
            verified.stdout
        );
    }
    for end in [0, 1, 4, good.len() / 2, good.len() - 1] {
        fs::write(&bad, &good[..end]).unwrap();
        test.run(&["lite", "backups", "verify", "--quick", bad.to_str().unwrap()]).expect(1);
    }
    // A changed file loses its verification.
    fs::write(&file, &good[..good.len() - 1]).unwrap();
    assert!(listed("last_verified").is_null());
    let all = test.run(&["lite", "backups", "verify", "--all", "--json"]).expect(1).json();
    assert_eq!(all["backups"][0]["last_verified"]["ok"], false);
    assert!(test.restore_leftovers().is_empty());
}

#[test]
fn a_backup_names_the_session_whose_lock_it_waits_for() {
    let test = TestHome::started_with(&[("LEOFLOW_LOCK_LIMIT", "0.5")]);
    test.sql("CREATE TABLE orders (id serial)");
    for lock in ["ALTER TABLE orders ADD note text", "ALTER SEQUENCE orders_id_seq RENAME TO numbers"] {
        let held = test.hold_lock(lock);
        for command in [["lite", "backup"].as_slice(), &["lite", "backup", "--scheduled"]] {
            let failed = test.run(command).expect(1).stderr;
            assert!(failed.contains(lock) && failed.contains("in a transaction since"), "{failed}");
            assert!(failed.contains("SELECT pg_terminate_backend("), "{failed}");
        }
        held.assert_held();
    }
    test.run(&["lite", "backup"]).expect(0);
}

#[test]
fn folders_on_an_unmounted_disk_are_named_not_empty() {
    let test = TestHome::started();
    test.run(&["lite", "stop"]).expect(0);
    let target = test.folder().join("unmounted/disk");
    let link = |name: &str| {
        let link = test.home.join(name);
        let _ = fs::remove_dir_all(&link);
        symlink(&target, &link).unwrap();
        format!("{} is a link to {}, which does not exist", link.display(), target.display())
    };
    let text = link("backups");
    for command in [
        &["lite", "backup"][..],
        &["lite", "backups"],
        &["lite", "backups", "list", "--json"],
        &["lite", "backups", "verify", "--quick"],
        &["lite", "backups", "prune", "--yes"],
    ] {
        let failed = test.run(command).expect(1);
        assert!(failed.stderr.contains(&text) && failed.stderr.contains("mount the disk"), "{command:?}: {failed:?}");
    }
    let status = test.run(&["lite", "status"]);
    assert!(status.stderr.contains(&format!("the backups cannot be read: {text}")), "{status:?}");
    let text = link("restore");
    let undo = test.run(&["lite", "restore", "--undo", "--yes"]).expect(1);
    assert!(undo.stderr.contains(&text), "{undo:?}");
    let text = link("task-logs");
    let output = test.folder().join("b.tar.zst");
    let made = test.run(&["lite", "backup", "--json", "--output", output.to_str().unwrap()]).expect(0).json();
    let skipped = serde_json::json!([{"path": "task-logs", "reason": format!("cannot read it: {text}")}]);
    assert_eq!(made["skipped"], skipped);
    assert!(!target.exists(), "nothing is created in its place");
}

#[test]
fn a_migration_of_a_non_empty_database_makes_a_backup() {
    let test = TestHome::started();
    test.run(&["variables", "set", "a", "b"]).expect(0);
    test.run(&["lite", "stop"]).expect(0);
    let count = || test.run(&["lite", "backups", "--json"]).expect(0).json()["backups"].as_array().unwrap().len();
    assert_eq!(count(), 0);
    let newest = crate::support::newest();
    let rolled_back = test.run(&["migrate-db", "rollback", &newest.to_string(), "--yes"]).expect(0);
    assert!(rolled_back.stderr.contains("Created a backup before the rollback"), "{}", rolled_back.stderr);
    assert_eq!(count(), 1);
    // The supervisor's migrator makes a backup too.
    test.start();
    assert_eq!(count(), 2);
    let listed = test.run(&["lite", "backups", "--json"]).expect(0).json();
    for (backup, schema) in listed["backups"].as_array().unwrap().iter().zip([newest - 1, newest]) {
        assert_eq!((&backup["automatic"], &backup["schema_version"]), (&true.into(), &schema.into()));
    }
    test.run(&["lite", "backups", "verify", "--all"]).expect(0);
    // An instance without user data starts again without its workspace.
    let empty = TestHome::started();
    empty.run(&["lite", "stop"]).expect(0);
    fs::remove_dir_all(empty.workspace()).unwrap();
    empty.start();
    empty.run(&["dags", "list"]).expect(0);
}
