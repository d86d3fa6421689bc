//! Damaged datastores: the damage is reported, and a good backup restores.

use crate::support::rounds::sample_rounds;
use crate::support::{TestHome, wait_until};
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Starts a home with a variable and makes a backup of it.
fn backed_up_home() -> (TestHome, PathBuf) {
    let test = TestHome::started_on_one_disk();
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    let backup = test.backup("good.tar.zst");
    (test, backup)
}

fn flip_a_byte(path: &Path, offset: u64) {
    let mut file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&[byte[0] ^ 0xff]).unwrap();
}

/// Counts the damaged data folders that restores have kept.
fn damaged_folders(test: &TestHome) -> usize {
    let entries = fs::read_dir(test.home.join("managed-postgres")).unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("data.damaged-")).count()
}

/// Asserts that a restore over the damage works and keeps the damaged data folder.
#[track_caller]
fn assert_restores(test: &TestHome, backup: &Path) {
    let done = test.restore(backup, &["--force", "--yes"]).expect(0);
    assert!(done.stderr.contains("cannot be read") && done.stderr.contains("unreadable datastore is kept"), "{done:?}");
    if test.state() != "healthy" {
        test.start();
    }
    assert_eq!(test.run(&["variables", "get", "kept"]).expect(0).stdout.trim(), "value");
    assert_eq!((damaged_folders(test), test.home.join("managed-postgres/set-aside.json").exists()), (1, false));
    let refused = test.run(&["lite", "restore", "--undo", "--yes"]).expect(3);
    assert!(refused.stderr.contains("data.damaged-"), "{refused:?}");
}

#[test]
fn a_flipped_bit_is_reported_as_damage_and_a_restore_works() {
    let (test, backup) = backed_up_home();
    let test = test.with_limit("LEOFLOW_ROUND", "1");
    let file = test.sql("SELECT pg_relation_filepath('variable')");
    test.run(&["lite", "stop"]).expect(0);
    flip_a_byte(&test.home.join("managed-postgres/data").join(file), 8000);
    test.start();
    let failed = test.run(&["variables", "list"]).expect(1);
    assert!(failed.stderr.contains("damaged") && failed.stderr.contains("restore --input"), "{failed:?}");
    wait_until("the status reports the damage", Duration::from_secs(30), || test.state() == "damaged");
    let doctor = test.run(&["doctor"]).expect(1);
    assert!(doctor.stdout.contains("damaged") && doctor.stdout.contains("restore --input"), "{doctor:?}");
    test.restore(&backup, &["--yes"]).expect(3);
    assert_restores(&test, &backup);
}

#[test]
fn a_backup_restores_over_a_broken_cluster() {
    for damage in ["pg_wal", "pg_control", "a catalogue"] {
        let (test, backup) = backed_up_home();
        test.run(&["lite", "stop"]).expect(0);
        let data = test.home.join("managed-postgres/data");
        match damage {
            "pg_wal" => {
                for entry in fs::read_dir(data.join("pg_wal")).unwrap().flatten().filter(|entry| entry.path().is_file())
                {
                    fs::remove_file(entry.path()).unwrap();
                }
            }
            // pg_database, which every connection reads.
            "a catalogue" => fs::remove_file(data.join("global/1262")).unwrap(),
            _ => fs::remove_file(data.join("global/pg_control")).unwrap(),
        }
        let code = if damage == "pg_control" { 3 } else { 1 };
        let refused = test.run(&["lite", "start", "--port", &test.port.to_string()]).expect(code);
        assert!(!refused.stderr.contains("initdb"), "{damage}: {refused:?}");
        assert!(
            ["damaged", "backups list", "restore --input"].iter().all(|text| refused.stderr.contains(text)),
            "{damage}: {refused:?}"
        );
        // Doctor reports the damage of a stopped datastore too.
        let doctor = test.run(&["doctor"]).expect(1);
        assert!(doctor.stdout.contains("restore --input"), "{damage}: {doctor:?}");
        assert_restores(&test, &backup);
    }
}

#[test]
fn a_killed_restore_over_a_damaged_datastore_is_undone() {
    let (test, backup) = backed_up_home();
    test.run(&["lite", "stop"]).expect(0);
    fs::write(test.home.join("managed-postgres/data/global/pg_control"), vec![0; 8192]).unwrap();
    let checkpoints =
        ["restore.set-aside-noted", "restore.set-aside", "setup.create-cluster", "restore.proven", "restore.stopped"];
    for checkpoint in sample_rounds(checkpoints, 2) {
        let arguments = ["lite", "restore", "--input", backup.to_str().unwrap(), "--force", "--yes"];
        let killed = test.command(&arguments).env("LEOFLOW_KILL_AT", checkpoint).output().unwrap();
        assert!(!killed.status.success(), "{checkpoint}: {killed:?}");
        // The next command undoes the restore; it does not create an empty instance.
        test.run(&["lite", "start", "--port", &test.port.to_string()]).expect(1);
        assert_eq!(damaged_folders(&test), 0, "{checkpoint}");
        assert!(test.home.join("managed-postgres/data/global/pg_control").exists(), "{checkpoint}");
    }
    assert_restores(&test, &backup);
}

/// Returns the content of the files that a refused or killed restore must not change.
fn files_of(test: &TestHome) -> Vec<Option<Vec<u8>>> {
    let names = ["config.yaml", "setup.json", "managed-postgres/credentials.json", "managed-postgres/data/PG_VERSION"];
    names.iter().map(|name| fs::read(test.home.join(name)).ok()).collect()
}

#[test]
fn a_restore_works_without_its_configuration_or_credentials() {
    let credentials = "managed-postgres/credentials.json";
    for (damage, file, code) in [
        ("binary", "config.yaml", 1),
        ("missing", "config.yaml", 3),
        ("binary", credentials, 3),
        ("missing", credentials, 3),
    ] {
        let (test, backup) = backed_up_home_with_own_workspace();
        test.run(&["lite", "stop"]).expect(0);
        let path = test.home.join(file);
        let good = fs::read(&path).unwrap();
        match damage {
            "missing" => fs::remove_file(&path).unwrap(),
            _ => fs::write(&path, [0xff; 64]).unwrap(),
        }
        let before = files_of(&test);
        let refused = test.run(&["lite", "start", "--port", &test.port.to_string()]).expect(code);
        assert!(refused.stderr.contains("restore --input"), "{file} {damage}: {refused:?}");
        let doctor = test.run(&["doctor"]).expect(1);
        assert!(doctor.stdout.contains("restore --input"), "{file} {damage}: {doctor:?}");
        let input = backup.to_str().unwrap();
        assert_ne!(test.run(&["lite", "restore", "--input", input, "--yes"]).code, Some(0));
        let dry_run = test.run(&["lite", "restore", "--input", input, "--force", "--dry-run"]).expect(0);
        assert!(dry_run.stderr.contains("cannot be read"), "{file} {damage}: {dry_run:?}");
        assert_eq!(files_of(&test), before, "{file} {damage}: a dry run changes nothing");
        if file == credentials {
            let arguments = ["lite", "restore", "--input", input, "--force", "--yes"];
            for checkpoint in sample_rounds(["restore.set-aside", "setup.create-cluster", "restore.proven"], 1) {
                let killed = test.command(&arguments).env("LEOFLOW_KILL_AT", checkpoint).output().unwrap();
                assert!(!killed.status.success(), "{checkpoint}: {killed:?}");
                // The next command undoes the restore, even though the damage remains.
                test.run(&["lite", "start", "--port", &test.port.to_string()]).expect(code);
                assert_eq!(files_of(&test), before, "{damage}, {checkpoint}");
            }
            // Recovery keeps credentials that the user puts back after a restore was killed.
            let killed = test.command(&arguments).env("LEOFLOW_KILL_AT", "restore.proven").output().unwrap();
            assert!(!killed.status.success(), "{killed:?}");
            fs::write(&path, &good).unwrap();
            test.start();
            assert_eq!(test.run(&["variables", "get", "kept"]).expect(0).stdout.trim(), "value");
            test.run(&["lite", "stop"]).expect(0);
            match damage {
                "missing" => fs::remove_file(&path).unwrap(),
                _ => fs::write(&path, [0xff; 64]).unwrap(),
            }
        }
        let done = test.restore(&backup, &["--force", "--yes"]).expect(0);
        assert!(done.stderr.contains("cannot be read"), "{file} {damage}: {done:?}");
        test.start();
        assert_eq!(test.run(&["variables", "get", "kept"]).expect(0).stdout.trim(), "value");
        test.wait_dag("there", 1);
        let name = path.file_name().unwrap().to_str().unwrap();
        let kept = fs::read_dir(test.home.join("managed-postgres")).unwrap().flatten().find_map(|entry| {
            let file_name = entry.file_name().into_string().unwrap();
            file_name.starts_with(&format!("{name}.damaged-")).then(|| fs::read(entry.path()).unwrap())
        });
        assert_eq!(kept.is_some(), damage == "binary", "{file} {damage}");
        assert!(kept.is_none_or(|kept| kept == [0xff; 64]), "{file} {damage}");
    }
}

/// Starts a home with a DAG in a workspace of the user's choice and makes a backup of it.
fn backed_up_home_with_own_workspace() -> (TestHome, PathBuf) {
    let test = TestHome::on_one_disk();
    let workspace = test.folder().join("elsewhere");
    let port = test.port.to_string();
    test.run(&["setup", "--port", &port, "--workspace", workspace.to_str().unwrap()]).expect(0);
    test.start();
    fs::write(workspace.join("there.py"), "from airflow.sdk import DAG\ndag = DAG('there')\n").unwrap();
    test.wait_dag("there", 1);
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    let backup = test.folder().join("elsewhere.tar.zst");
    test.run(&["lite", "backup", "--output", backup.to_str().unwrap()]).expect(0);
    (test, backup)
}

#[test]
fn an_invalid_config_line_stops_a_restore() {
    let (test, backup) = backed_up_home_with_own_workspace();
    test.run(&["lite", "stop"]).expect(0);
    let config = test.home.join("config.yaml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("port: ", "port: many")).unwrap();
    let before = files_of(&test);
    let refused = test.restore(&backup, &["--force", "--yes"]).expect(1);
    assert!(refused.stderr.contains("fix the line"), "{refused:?}");
    assert_eq!((files_of(&test), damaged_folders(&test)), (before, 0));
}
