//! Upgrades under load with tasks running, and upgrades to faulty releases.

use crate::support::changing_release::{Load, assert_undisturbed, populated, started, upgrade, variable, version};
use crate::support::releases::{FIRST, Migration, Release, SECOND, make_release, releases, write_contract};
use crate::support::rounds::sample_rounds;
use crate::support::{TestHome, newest, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::thread::{self};
use std::time::Duration;

#[test]
fn an_upgrade_under_load_fails_no_request_and_loses_nothing() {
    let all = releases(&[FIRST, SECOND]);
    let (test, session, run) = populated(&all);
    let supervisor = test.pid("supervisor");
    let load = Load::start(test.port, &session.token);
    let done = upgrade(&test, &all, &[]).expect(0).json();
    let sent = load.sent();
    wait_until("more requests", Duration::from_secs(10), || load.sent() > sent + 20);
    load.end().assert_nothing_lost(&test);
    assert_eq!(done["status"], "upgraded");
    assert_eq!((&done["previous_version"], &done["new_version"]), (&json!("0.1.0"), &json!("0.2.0")));
    assert_eq!(done["migrations_run"].as_array().unwrap().len(), 1);
    assert!(fs::metadata(done["backup_path"].as_str().unwrap()).unwrap().len() > 0);
    assert!(done["details"].as_array().unwrap().len() >= 10, "{done}");
    let status = test.status();
    assert_eq!((&status["version"], &status["state"]), (&json!("0.2.0"), &json!("healthy")));
    assert_eq!(status["schema_version"], newest() + 1);
    assert_eq!(test.pid("supervisor"), supervisor, "same process, new program");
    assert_eq!(variable(&test, "kept").as_deref(), Some("value"));
    // Earlier sessions stay valid.
    assert_eq!(session.request("GET", "/api/v2/variables/kept", "").status, 200);
    assert_undisturbed(&test, &run);
    // The new supervisor restarts a killed process that it has taken over.
    let server = test.pid("server");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(server), nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_until("a new server", Duration::from_secs(20), || test.running_pid("server").is_some_and(|pid| pid != server));
    test.run(&["smoke"]).expect(0);
    let versions = test.run(&["versions", "--json"]).expect(0).json();
    let list: Vec<(&Value, &Value)> =
        versions["versions"].as_array().unwrap().iter().map(|entry| (&entry["version"], &entry["current"])).collect();
    assert_eq!(list, [(&json!("0.2.0"), &json!(true)), (&json!("0.1.0"), &json!(false))]);
    test.run(&["lite", "stop"]).expect(0);
    test.assert_nothing_runs();
}

#[test]
fn a_bad_release_fails_in_the_rehearsal_and_changes_nothing() {
    let faults = [("server", "exits"), ("server", "answers-500"), ("server", "hangs")];
    let faulty = faults.map(|fault| Release { version: "0.3.0", fault: Some(fault), ..Release::default() });
    let broken = Release { version: "0.3.0", migration: Migration::Fails, fault: None };
    let (test, _, run) = populated(&releases(&[FIRST]));
    let before = (test.pid("server"), test.pid("agent"), test.pid("postgres"));
    for bad in sample_rounds(faulty, 1).into_iter().chain([broken]) {
        let all = releases(&[FIRST, bad.clone()]);
        let done = test
            .command(&["upgrade", "--from", all.dist().to_str().unwrap(), "--yes", "--json"])
            .env("LEOFLOW_TRIAL_LIMIT", "3")
            .output()
            .unwrap();
        let done = crate::support::CommandOutput::from(done).expect(1);
        assert_eq!(done.json()["status"], "failed", "{bad:?}");
        let error = done.error();
        assert!(error["error"].as_str().unwrap().starts_with("nothing was changed"), "{bad:?}: {error}");
        assert_eq!(error["hints"], json!(["see each step: leoflow lite logs upgrade"]), "{bad:?}");
        assert_eq!((test.pid("server"), test.pid("agent"), test.pid("postgres")), before, "{bad:?}");
        assert!(test.restore_leftovers().is_empty(), "{bad:?}");
        assert!(!test.home.join("versions/0.3.0").exists(), "{bad:?}");
        assert!(!test.home.join("run/journal.json").exists());
    }
    assert_undisturbed(&test, &run);
}

#[test]
fn a_release_failing_in_the_switch_is_undone_without_loss() {
    let (test, session, run) = populated(&releases(&[FIRST]));
    for fault in ["exits", "hangs"] {
        let release_fault = Some(("live-server", fault));
        let release = Release { version: "0.3.0", migration: Migration::AddsTable, fault: release_fault };
        let all = releases(&[FIRST, release]);
        let load = Load::start(test.port, &session.token);
        let done = upgrade(&test, &all, &[]).expect(1);
        let sent = load.sent();
        wait_until("more requests", Duration::from_secs(10), || load.sent() > sent + 20);
        load.end().assert_nothing_lost(&test);
        test.sql("DELETE FROM variable WHERE key LIKE 'load%'");
        assert_eq!(done.json()["status"], "rolled_back", "{done:?}");
        assert!(done.stderr.contains("0.1.0 is installed again with all data"), "{}", done.stderr);
        let status = test.status();
        assert_eq!((&status["version"], &status["state"]), (&json!("0.1.0"), &json!("healthy")));
        assert_eq!(status["schema_version"], newest());
        assert!(test.restore_leftovers().is_empty());
        assert_eq!(session.request("GET", "/api/v2/variables/kept", "").status, 200);
        if fault == "hangs" {
            // The time limit derives from the rehearsal's duration, not from the general start limit.
            let problem = done.json()["problem"].as_str().unwrap().to_owned();
            let seconds = problem.split("within ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
            assert!(seconds.is_some_and(|seconds| (5..180).contains(&seconds)), "{problem}");
        }
    }
    assert_undisturbed(&test, &run);
}

#[test]
fn a_release_failing_after_the_switch_is_undone_keeping_writes() {
    let faults = [("live-server", "dies-when-open"), ("live-agent", "exits")];
    let (mut test, session, run) = populated(&releases(&[FIRST]));
    for fault in faults {
        let all = releases(&[FIRST, Release { version: "0.3.0", migration: Migration::AddsTable, fault: Some(fault) }]);
        let load = Load::start(test.port, &session.token);
        let installed = test.program.clone();
        if fault.0 == "live-agent" {
            // As install.sh does: the new release upgrades.
            test.program = all.program("0.3.0");
        }
        let done = upgrade(&test, &all, &[]).expect(1);
        test.program = installed;
        let sent = load.sent();
        wait_until("more requests", Duration::from_secs(10), || load.sent() > sent + 20);
        let mut load_result = load.end();
        if fault.1 == "dies-when-open" {
            // Requests in flight when a server dies may fail.
            load_result.failed.clear();
        }
        assert_eq!(done.json()["status"], "rolled_back", "{fault:?}: {done:?}");
        let status = test.status();
        assert_eq!((&status["version"], &status["state"]), (&json!("0.1.0"), &json!("healthy")), "{fault:?}");
        assert_eq!(status["schema_version"], newest());
        let program_of = |role: &str| fs::read_link(format!("/proc/{}/exe", test.pid(role))).unwrap();
        let supervisors = program_of("supervisor");
        assert!([program_of("server"), program_of("agent")].iter().all(|program| *program == supervisors), "{fault:?}");
        assert!(load_result.failed.is_empty(), "{fault:?}: {:?}", load_result.failed.first());
        load_result.assert_kept(&test);
        assert_eq!(test.sql("SELECT count(*) FROM variable WHERE key LIKE 'leoflow_smoke%'"), "0");
        test.sql("DELETE FROM variable WHERE key LIKE 'load%'");
    }
    assert_undisturbed(&test, &run);
}

#[test]
fn no_rollback_keeps_a_failed_release_for_inspection() {
    for fault in sample_rounds([("live-agent", "exits"), ("live-server", "dies-when-open")], 1) {
        let all = releases(&[FIRST, Release { version: "0.3.0", migration: Migration::AddsTable, fault: Some(fault) }]);
        let test = started(&all);
        let done = upgrade(&test, &all, &["--no-rollback"]).expect(1);
        assert_eq!(done.json()["status"], "upgraded_with_problem", "{fault:?}: {done:?}");
        assert!(done.stderr.trim_end().lines().last().unwrap().contains("leoflow rollback"), "{}", done.stderr);
        assert!(!test.home.join("run/journal.json").exists());
        // The rollback does not require the faulty release to be healthy.
        let rolled_back = test.run(&["rollback", "--yes"]);
        assert_eq!(rolled_back.code, Some(0), "{fault:?}: {rolled_back:?}");
        test.wait_healthy();
        assert_eq!(version(&test), "0.1.0", "{fault:?}");
    }
}

#[test]
fn a_stopped_instance_is_upgraded_and_stays_stopped() {
    let all = releases(&[FIRST, SECOND]);
    let mut test = started(&all);
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    test.run(&["lite", "stop"]).expect(0);
    // With `--hands-over` the new release plans the upgrade itself; the installed program only starts it.
    let host = test.folder().join("host");
    let earlier = releases(&[FIRST]).dist();
    let contract = test.folder().join("contract.json");
    write_contract(&contract, |settings| {
        settings["port"]["deprecated"] = json!({"removed_in": "0.3.0", "replacement": "address"});
        settings["host"]["deprecated"] = json!({"removed_in": "0.3.0"});
    });
    let more = ["--from", earlier.to_str().unwrap(), "--hands-over", "--contract", contract.to_str().unwrap()];
    let made = make_release(&all, "0.2.0", &host, &more);
    assert!(made.status.success(), "{made:?}");
    let upgrade = |more: &[&str]| test.run(&[&["upgrade", "--from", host.to_str().unwrap(), "--json"], more].concat());
    let plan = upgrade(&["--dry-run"]).expect(0).json();
    assert!(plan["warnings"][0].as_str().unwrap().contains("0.2.0 plans this upgrade itself"), "{plan}");
    // The plan names only the deprecated settings that this home uses: `host` is not set.
    let about_contract = "setting port is deprecated: use address; it works until 0.3.0; this home sets it";
    assert_eq!(plan["warnings"].as_array().unwrap()[1..], [json!(about_contract)], "{plan}");
    let done = upgrade(&["--yes"]).expect(0);
    assert!(done.stderr.contains("0.2.0 plans this upgrade itself; downloading it"), "{}", done.stderr);
    assert_eq!(done.json()["status"], "upgraded");
    test.assert_nothing_runs();
    // All files of the release's archive are kept beside the program.
    let has = |companion: &str| test.home.join("versions/0.2.0").join(companion).is_file();
    assert!(has("LICENSE") && has("completions/leoflow.bash"));
    test.program = test.home.join("bin/leoflow");
    test.start();
    assert_eq!((version(&test).as_str(), variable(&test, "kept").as_deref()), ("0.2.0", Some("value")));
    // The older program refuses the newer schema and names a version that can read it.
    test.run(&["lite", "stop"]).expect(0);
    test.program = test.home.join("versions/0.1.0/leoflow");
    let refused = test.run(&["lite", "start", "--port", &test.port.to_string()]).expect(3);
    assert!(refused.stderr.contains("an older `leoflow` is being run against a newer database"), "{}", refused.stderr);
    assert!(refused.stderr.contains("versions/0.2.0"), "{}", refused.stderr);
}

/// Returns the program file of the running PostgreSQL.
fn postgres_program(test: &TestHome) -> std::path::PathBuf {
    fs::read_link(format!("/proc/{}/exe", test.pid("postgres"))).unwrap()
}

/// Returns the number of PostgreSQL installs, without the hidden lock file.
fn postgres_installs(test: &TestHome) -> usize {
    let entries = fs::read_dir(test.home.join("managed-postgres/install")).unwrap();
    entries.flatten().filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count()
}

#[test]
fn postgresql_is_upgraded_and_rolled_back_with_its_release() {
    let mut test = TestHome::with_program(releases(&[FIRST]).program("0.1.0"));
    // PostgreSQL comes from an archive that is not the release's.
    let port = test.port.to_string();
    let mut command = test.command(&["lite", "start", "--port", &port]);
    let archive = crate::support::postgres_archive();
    let started = command.env_remove("LEOFLOW_POSTGRES_SOURCE").env("LEOFLOW_POSTGRES_ARCHIVE", archive).output();
    assert!(started.unwrap().status.success());
    let before = postgres_program(&test);
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    let faulty = Release { version: "0.3.0", migration: Migration::AddsTable, fault: Some(("live-server", "exits")) };
    for (release, status) in [(faulty, "rolled_back"), (SECOND, "upgraded")] {
        let all = releases(&[FIRST, release]);
        let done = upgrade(&test, &all, &[]).json();
        assert_eq!(done["status"], status, "{done}");
        assert_eq!(postgres_program(&test) == before, status == "rolled_back");
        assert_eq!(variable(&test, "kept").as_deref(), Some("value"));
        assert_eq!(postgres_installs(&test), if status == "upgraded" { 2 } else { 1 });
        test.program = test.home.join("bin/leoflow");
        test.run(&["lite", "restart"]).expect(0);
        assert_eq!(postgres_program(&test) == before, status == "rolled_back");
    }
}

#[test]
fn a_new_postgresql_that_does_not_start_is_undone() {
    let all = releases(&[FIRST, Release { version: "0.3.0", fault: Some(("postgres", "broken")), ..SECOND }]);
    let test = started(&all);
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    for is_live in [true, false] {
        if !is_live {
            test.run(&["lite", "stop"]).expect(0);
        }
        let done = upgrade(&test, &all, &[]).expect(1);
        assert_eq!(done.json()["status"], "rolled_back", "{done:?}");
        if !is_live {
            test.start();
        }
        test.wait_healthy();
        assert_eq!((version(&test).as_str(), variable(&test, "kept").as_deref()), ("0.1.0", Some("value")));
        assert_eq!(postgres_installs(&test), 1);
        test.run(&["lite", "restart"]).expect(0);
    }
}

#[test]
fn a_release_with_a_broken_supervisor_can_be_rolled_back() {
    let all = releases(&[FIRST, Release { version: "0.3.0", fault: Some(("lite", "exits")), ..SECOND }]);
    let test = started(&all);
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    let done = upgrade(&test, &all, &[]).expect(1);
    assert_eq!(done.json()["status"], "upgraded_with_problem", "{done:?}");
    assert!(done.stderr.contains("leoflow rollback"), "{}", done.stderr);
    test.run(&["rollback", "--yes"]).expect(0);
    test.start();
    assert_eq!((version(&test).as_str(), variable(&test, "kept").as_deref()), ("0.1.0", Some("value")));
}

#[test]
fn a_faulty_release_whose_rollback_fails_stays_installed() {
    let fault = Some(("live-agent", "exits"));
    let all = releases(&[FIRST, Release { version: "0.3.0", migration: Migration::RollbackFails, fault }]);
    let test = started(&all);
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    let done = upgrade(&test, &all, &[]).expect(1);
    assert_eq!(done.json()["status"], "upgraded_with_problem", "{done:?}");
    assert!(!test.home.join("run/journal.json").exists());
    assert_eq!(version(&test), "0.3.0");
    assert_eq!(variable(&test, "kept").as_deref(), Some("value"));
}

#[test]
fn a_migration_that_changes_an_invariant_is_rolled_back() {
    let query = "SELECT count(*) FROM variable WHERE key = 'kept'";
    let test = started(&releases(&[FIRST]));
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    // The rehearsal detects the first migration, before requests are paused; the switch detects the second.
    for (migration, number, status) in
        [(Migration::AltersVariables, "1.0.0", "failed"), (Migration::AltersLiveDatabase, "0.3.0", "rolled_back")]
    {
        let all = releases(&[FIRST, Release { version: number, migration, fault: None }]);
        let done = upgrade(&test, &all, &[]);
        assert!(!matches!(done.code, Some(0)), "{done:?}");
        let output = format!("{}{}", done.stdout, done.stderr);
        assert!(output.contains(status), "{output}");
        assert!(
            output.contains(r#"the invariant \"variables\" answered"#) && output.contains("and now answers"),
            "{output}"
        );
        assert_eq!((version(&test).as_str(), test.sql(query).as_str()), ("0.1.0", "1"));
        assert_eq!(test.state(), "healthy");
    }
}

/// Undoing a killed upgrade must not restore the snapshot of an earlier upgrade, which lacks newer data.
#[test]
fn an_outdated_snapshot_is_never_restored() {
    let all = releases(&[FIRST, Release { version: "1.0.0", migration: Migration::Data, fault: None }]);
    let test = started(&all);
    upgrade(&test, &all, &[]).expect(0);
    test.run(&["rollback", "--yes"]).expect(0);
    test.run(&["variables", "set", "since", "then"]).expect(0);
    for checkpoint in ["upgrade.rehearse", "upgrade.let-go"] {
        let dist = all.dist();
        let arguments = ["upgrade", "--from", dist.to_str().unwrap(), "--yes"];
        test.command(&arguments).env("LEOFLOW_KILL_AT", checkpoint).output().unwrap();
        wait_until("the upgrade to end", Duration::from_secs(60), || {
            test.run(&["upgrade", "--resume"]).code == Some(0) && test.state() == "healthy"
        });
        let since = variable(&test, "since");
        assert_eq!((version(&test).as_str(), since.as_deref()), ("0.1.0", Some("then")), "{checkpoint}");
        // The kept version is not removed.
        assert!(test.home.join("versions/1.0.0/leoflow").exists());
    }
}

#[test]
fn concurrent_upgrades_and_a_stop_midway_are_safe() {
    let all = releases(&[FIRST, SECOND]);
    let (test, _, run) = populated(&all);
    let dist = all.dist();
    let arguments = ["upgrade", "--from", dist.to_str().unwrap(), "--yes"];
    let first =
        test.command(&arguments).stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn();
    let mut first = first.unwrap();
    wait_until("the first has begun", Duration::from_secs(20), || test.home.join("run/journal.json").exists());
    // The first upgrade must not end before the second begins.
    let holder: Value = serde_json::from_slice(&fs::read(test.home.join("run/operation.lock")).unwrap()).unwrap();
    let worker = i32::try_from(holder["process"]["pid"].as_i64().unwrap()).unwrap();
    crate::support::processes::signal(worker, "STOP");
    let second = test.run(&arguments);
    crate::support::processes::signal(worker, "CONT");
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("leoflow upgrade"), "{}", second.stderr);
    assert!(first.wait().unwrap().success());
    assert_eq!(version(&test), "0.2.0");
    assert_undisturbed(&test, &run);
    test.run(&["rollback", "--yes"]).expect(0);
    // Stops Lite at different times, in milliseconds after the beginning of the upgrade.
    for pause in sample_rounds([0, 300, 600, 900, 1200, 1500], 3) {
        let mut running = test
            .command(&arguments)
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the upgrade has begun", Duration::from_secs(20), || {
            test.home.join("run/journal.json").exists() || running.try_wait().unwrap().is_some()
        });
        thread::sleep(Duration::from_millis(pause));
        // The task of the smoke test may run.
        test.run(&["lite", "stop", "--yes"]).expect(0);
        running.wait().unwrap();
        let mut command = std::process::Command::new(test.home.join("bin/leoflow"));
        command.args(["--home", test.home.to_str().unwrap(), "lite", "start", "--port", &test.port.to_string()]);
        let started = command.env("LEOFLOW_POSTGRES_SOURCE", "system").output().unwrap();
        assert!(started.status.success(), "{pause}: {started:?}");
        test.wait_healthy();
        let now = version(&test);
        let schema = if now == "0.2.0" { newest() + 1 } else { newest() };
        assert_eq!(test.status()["schema_version"], schema, "{pause}");
        assert_eq!(variable(&test, "kept").as_deref(), Some("value"), "{pause}");
        if now == "0.2.0" {
            test.run(&["rollback", "--yes"]).expect(0);
        }
    }
}

#[test]
fn ctrl_c_cancels_an_upgrade_before_any_change() {
    let all = releases(&[FIRST, SECOND]);
    let test = started(&all);
    let dist = all.dist();
    let arguments = ["upgrade", "--from", dist.to_str().unwrap(), "--yes"];
    let running =
        test.command(&arguments).stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn();
    let running = running.unwrap();
    wait_until("the upgrade has begun", Duration::from_secs(20), || test.home.join("run/journal.json").exists());
    crate::support::processes::signal(running.id() as i32, "INT");
    let done = crate::support::CommandOutput::from(running.wait_with_output().unwrap());
    let now = version(&test);
    if done.code == Some(0) {
        // Ctrl-C came too late.
        assert_eq!(now, "0.2.0");
    } else {
        assert_eq!(now, "0.1.0");
        assert!(done.stderr.contains("cancelled"), "{}", done.stderr);
        assert!(!test.home.join("run/journal.json").exists());
        assert!(test.restore_leftovers().is_empty());
        upgrade(&test, &all, &[]).expect(0);
    }
}

#[test]
fn a_dag_broken_during_an_upgrade_does_not_fail_it() {
    let all = releases(&[FIRST, SECOND]);
    let test = started(&all);
    test.wait_dag("hello", 1);
    let from = all.dist();
    let arguments = ["upgrade", "--from", from.to_str().unwrap(), "--yes", "--json"];
    let mut command = test.command(&arguments);
    command.stdout(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    wait_until("the upgrade has begun", Duration::from_secs(30), || test.home.join("run/journal.json").exists());
    test.save("broken.py", "from airflow.sdk import DAG\nDAG('broken'\n");
    wait_until("the import error is recorded", Duration::from_secs(30), || {
        // Waits while the upgrade stops the server.
        let listed = test.run(&["dags", "list", "--json"]);
        listed.code == Some(0) && !listed.json()["import_errors"].as_array().unwrap().is_empty()
    });
    let done = child.wait_with_output().unwrap();
    let result: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(result["status"], "upgraded", "{result}");
    assert_eq!(version(&test), "0.2.0");
}

#[test]
fn a_migration_over_its_time_limit_is_undone() {
    let slow = Release { version: "0.2.0", migration: Migration::SlowOnLiveDatabase, fault: None };
    let all = releases(&[FIRST, slow]);
    let test = started(&all);
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    test.run(&["config", "set", "upgrade.max_pause", "7s"]).expect(0);
    // Sets list-valued settings of the database, whose elements are quoted separately. An undo and a restore keep them.
    test.sql("ALTER DATABASE leoflow SET search_path = public, mine; ALTER DATABASE leoflow SET temp_tablespaces = ''");
    let settings = "SELECT setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
                    WHERE d.datname = 'leoflow'";
    let before = test.sql(settings);
    let done = upgrade(&test, &all, &[]).expect(1);
    assert_eq!(done.json()["status"], "rolled_back", "{done:?}");
    let waited = done.stderr.split("requests have waited for ").nth(1).and_then(|rest| rest.split(' ').next());
    assert!(waited.is_some_and(|seconds| seconds.parse::<u64>().unwrap() >= 5), "{}", done.stderr);
    assert!(done.json()["problem"].as_str().unwrap().contains("see upgrade.max_pause"), "{done:?}");
    test.wait_healthy();
    assert_eq!(test.sql(settings), before);
    let backup = test.backup("b.tar.zst");
    test.restore(&backup, &["--force", "--yes"]).expect(0);
    assert_eq!(test.sql(settings), before, "after a restore too");
    assert_eq!((version(&test).as_str(), variable(&test, "kept").as_deref()), ("0.1.0", Some("value")));
}
