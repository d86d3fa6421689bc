//! Rollbacks by the migrations' own SQL and by the backup made before the upgrade, from a running, a stopped, a moved
//! and a broken instance.

use crate::support::changing_release::{Load, assert_undisturbed, populated, started, upgrade, variable, version};
use crate::support::releases::{FIRST, Migration, Release, Releases, SECOND, releases, write_program};
use crate::support::rounds::sample_rounds;
use crate::support::{TestHome, newest, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

#[test]
fn rollback_by_sql_keeps_newer_data() {
    let all = releases(&[FIRST, SECOND]);
    let (test, session, run) = populated(&all);
    upgrade(&test, &all, &[]).expect(0);
    test.run(&["variables", "set", "since", "then"]).expect(0);
    test.sql("INSERT INTO more SELECT n, 'x' FROM generate_series(1, 3) n");
    let planned = test.run(&["rollback", "--dry-run", "--json"]).expect(0).json();
    assert_eq!(planned["lost"], json!(["table more is dropped, with 3 rows"]), "{planned}");
    assert_eq!((&planned["to"], &planned["back"]["way"]), (&json!("0.1.0"), &json!("undo")), "{planned}");
    assert_eq!(version(&test), "0.2.0");
    let load = Load::start(test.port, &session.token);
    let done = test.run(&["rollback", "--yes", "--json"]).expect(0).json();
    load.end().assert_nothing_lost(&test);
    assert_eq!((&done["status"], &done["new_version"]), (&json!("rolled_back"), &json!("0.1.0")));
    assert_eq!(version(&test), "0.1.0");
    assert_eq!(test.status()["schema_version"], newest());
    assert_eq!(variable(&test, "since").as_deref(), Some("then"));
    assert_undisturbed(&test, &run);
    // The release can be installed again.
    upgrade(&test, &all, &[]).expect(0);
    assert_eq!(version(&test), "0.2.0");
}

#[test]
fn rollback_of_an_irreversible_release_restores_the_backup() {
    let all = releases(&[FIRST, Release { version: "1.0.0", migration: Migration::Data, fault: None }]);
    let mut test = started(&all);
    test.run(&["variables", "set", "before", "x"]).expect(0);
    let plan = test.run(&["upgrade", "plan", "--from", all.dist().to_str().unwrap()]).expect(0);
    assert!(plan.stderr.contains("cannot be undone: a rollback restores the backup"), "{}", plan.stderr);
    assert!(plan.stdout.contains("NOT ADDITIVE"), "{}", plan.stdout);
    upgrade(&test, &all, &[]).expect(0);
    test.run(&["variables", "set", "since", "y"]).expect(0);
    let planned = test.run(&["rollback", "--dry-run"]).expect(0);
    assert!(planned.stdout.contains("1 more row in variable"), "{}", planned.stdout);
    let done = test.run(&["rollback", "--yes", "--json"]).expect(0).json();
    assert_eq!(done["status"], "rolled_back", "{done}");
    test.wait_healthy();
    assert_eq!(version(&test), "0.1.0");
    assert_eq!(variable(&test, "before").as_deref(), Some("x"));
    assert_eq!(variable(&test, "since"), None);
    let backup = done["backup_path"].as_str().unwrap();
    assert!(fs::metadata(backup).unwrap().len() > 0, "it contains the removed data");
    // The replaced data has a schema that this release does not know; only the newer release can restore it.
    test.program = test.home.join("bin/leoflow");
    let refused = test.run(&["lite", "restore", "--undo", "--yes"]).expect(3);
    assert!(refused.stderr.contains("leoflow upgrade VERSION"), "{}", refused.stderr);
    assert_eq!(variable(&test, "before").as_deref(), Some("x"));
    upgrade(&test, &all, &[]).expect(0);
    test.run(&["lite", "restore", "--undo", "--yes"]).expect(0);
    test.wait_healthy();
    assert_eq!((version(&test).as_str(), variable(&test, "since").as_deref()), ("1.0.0", Some("y")));
    // `setup` of an older program refuses to replace a newer install.
    test.run(&["lite", "stop"]).expect(0);
    let before = fs::read_link(test.home.join("bin/leoflow")).unwrap();
    test.run(&["setup"]).expect(0);
    test.program = test.home.join("versions/0.1.0/leoflow");
    let refused = test.run(&["setup"]).expect(3);
    assert!(refused.stderr.contains("leoflow 1.0.0 with schema"), "{}", refused.stderr);
    assert_eq!(fs::read_link(test.home.join("bin/leoflow")).unwrap(), before);
}

/// A release that cannot be rolled back by its migrations' own SQL.
const THIRD: Release = Release { version: "1.0.0", migration: Migration::TableThenData, fault: None };

/// Starts an instance whose commands run the installed program, as a user's shell does.
fn installed(all: &Releases) -> TestHome {
    let mut test = started(all);
    test.program = test.home.join("bin/leoflow");
    test
}

fn upgrade_to(test: &TestHome, all: &Releases, version: &str) {
    let from = all.dist();
    test.run(&["upgrade", version, "--from", from.to_str().unwrap(), "--yes"]).expect(0);
    assert_eq!(self::version(test), version);
}

#[test]
fn interrupted_and_concurrent_rollbacks_cross_two_releases() {
    let all = releases(&[FIRST, SECOND, THIRD]);
    let test = installed(&all);
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    upgrade_to(&test, &all, "0.2.0");
    upgrade_to(&test, &all, "1.0.0");
    test.run(&["variables", "set", "new", "value"]).expect(0);
    let assert_at = |expected: &str| {
        assert_eq!((version(&test).as_str(), variable(&test, "kept").as_deref()), (expected, Some("value")));
    };
    // Only one of two concurrent rollbacks happens.
    let start_rollback = || {
        let mut command = test.command(&["rollback", "--to", "0.2.0", "--yes"]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let (first, second) = (start_rollback(), start_rollback());
    let done = [first, second].map(|child| child.wait_with_output().unwrap());
    assert!(done.iter().any(|done| done.status.success()), "{done:?}");
    test.wait_healthy();
    assert_at("0.2.0");
    assert_eq!(variable(&test, "new"), None);
    let history: Value = serde_json::from_slice(&fs::read(test.home.join("upgrade/history.json")).unwrap()).unwrap();
    let restores = history.as_array().unwrap().iter().filter(|change| change["kind"] == "restore").count();
    assert_eq!(restores, 1, "{history}");
    assert_eq!(history[2]["pause"].as_f64().map(|pause| pause > 0.0), Some(true), "{history}");
    // A start finishes a rollback that was killed.
    upgrade_to(&test, &all, "1.0.0");
    let killed = test.command(&["rollback", "--yes"]).env("LEOFLOW_KILL_AT", "rollback.restored").output().unwrap();
    assert!(!killed.status.success());
    test.run(&["lite", "start", "--port", &test.port.to_string()]).expect(0);
    test.wait_healthy();
    assert_eq!(version(&test), "0.2.0");
    // The user repeats the interrupted command.
    let plan = test.run(&["rollback", "--dry-run"]).expect(0);
    assert!(!plan.stdout.contains("0.2.0 -> 0.1.0") && plan.stderr.contains("is already finished"), "{plan:?}");
    let again = test.run(&["rollback", "--yes"]).expect(0);
    assert!(again.stderr.contains("leoflow rollback --to 0.1.0"), "{again:?}");
    assert_at("0.2.0");
    test.run(&["rollback", "--yes"]).expect(0);
    assert_at("0.1.0");
    let nowhere = test.run(&["rollback", "--yes"]).expect(1);
    assert!(nowhere.stderr.contains("no upgrade led to 0.1.0"), "{}", nowhere.stderr);
    // The releases are kept on disk, and no release host is configured.
    let again = test.run(&["upgrade", "0.2.0", "--yes"]).expect(0);
    assert!(again.stderr.contains("0.2.0 was rolled back on"), "{}", again.stderr);
    assert_at("0.2.0");
    test.run(&["rollback", "--yes"]).expect(0);
    assert_at("0.1.0");
}

#[test]
fn rollback_by_backup_works_stopped_and_in_a_moved_home() {
    let all = releases(&[FIRST, SECOND, THIRD]);
    let mut test = installed(&all);
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    upgrade_to(&test, &all, "0.2.0");
    for has_moved in [false, true] {
        upgrade_to(&test, &all, "1.0.0");
        test.run(&["lite", "stop"]).expect(0);
        if has_moved {
            let moved = test.home.with_file_name("moved");
            fs::rename(&test.home, &moved).unwrap();
            test.home = moved;
            test.program = test.home.join("bin/leoflow");
        }
        test.run(&["rollback", "--yes"]).expect(0);
        assert_eq!(fs::read_link(test.home.join("bin/leoflow")).unwrap(), Path::new("../versions/0.2.0/leoflow"));
        test.start();
        test.wait_healthy();
        assert_eq!((version(&test).as_str(), variable(&test, "kept").as_deref()), ("0.2.0", Some("value")));
    }
}

#[test]
fn a_view_blocking_a_rollback_is_named_and_nothing_changes() {
    let all = releases(&[FIRST, SECOND]);
    let test = started(&all);
    upgrade(&test, &all, &[]).expect(0);
    test.sql("CREATE VIEW my_report AS SELECT note FROM more");
    let named = "view my_report depends on table more, which is dropped";
    let planned = test.run(&["rollback", "--dry-run"]).expect(0);
    assert!(planned.stderr.contains(named), "{}", planned.stderr);
    let planned = test.run(&["rollback", "--dry-run", "--json"]).expect(0).json();
    assert_eq!(planned["in_the_way"], serde_json::json!([named]));
    assert!(planned["last_pause"].as_f64().is_some() && planned["needs_bytes"].as_u64().is_some(), "{planned}");
    let refused = test.run(&["rollback", "--yes"]).expect(3);
    assert!(refused.stderr.contains("nothing was changed") && refused.stderr.contains(named), "{}", refused.stderr);
    assert_eq!((version(&test).as_str(), test.sql("SELECT count(*) FROM my_report").as_str()), ("0.2.0", "0"));
    test.sql("DROP VIEW my_report");
    test.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(version(&test), "0.1.0");
}

/// [`THIRD`] without the migration that adds a table.
fn release_with_data_migration() -> Release {
    Release { migration: Migration::Data, ..THIRD }
}

/// Faults of the server that a test adds to the installed release.
const FAULTS: [&str; 3] = ["exits", "hangs", "dies-when-open"];

#[test]
fn rollback_by_backup_works_when_the_release_does_not_run() {
    let all = releases(&[FIRST, release_with_data_migration()]);
    let test = installed(&all);
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    for fault in sample_rounds(FAULTS, 1) {
        upgrade_to(&test, &all, "1.0.0");
        let program = test.home.join("versions/1.0.0/leoflow");
        let bad = program.with_extension("bad");
        write_program(&bad, &Release { fault: Some(("server", fault)), ..release_with_data_migration() });
        fs::rename(&bad, &program).unwrap();
        crate::support::processes::signal(test.pid("server"), "KILL");
        wait_until("the release is unhealthy", Duration::from_secs(20), || test.state() != "healthy");
        // Another kept version runs the rollback, because the current one may be unable to run any command.
        let kept_version = test.home.join("versions/0.1.0/leoflow");
        let rollback = test.command(&["rollback", "--to", "0.1.0", "--yes"]);
        let mut command = std::process::Command::new(kept_version);
        command.args(rollback.get_args()).env_clear().stdin(std::process::Stdio::null());
        command.envs(rollback.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let done = command.output().unwrap();
        assert!(done.status.success(), "{fault}: {}", String::from_utf8_lossy(&done.stderr));
        test.wait_healthy();
        assert_eq!((version(&test).as_str(), variable(&test, "kept").as_deref()), ("0.1.0", Some("value")), "{fault}");
        fs::remove_dir_all(program.parent().unwrap()).unwrap();
    }
}

#[test]
fn rollback_by_backup_lists_what_it_changes() {
    let all = releases(&[FIRST, release_with_data_migration()]);
    let test = installed(&all);
    upgrade_to(&test, &all, "1.0.0");
    test.run(&["config", "set", "upgrade.keep_versions", "7"]).expect(0);
    test.sql("CREATE VIEW my_report AS SELECT key FROM variable; GRANT SELECT ON variable TO PUBLIC");
    test.run(&["variables", "set", "new", "value"]).expect(0);
    test.save("later.py", "x = 1\n");
    let plan = test.run(&["rollback", "--dry-run", "--json"]).expect(0).json();
    assert_eq!(plan["settings"], json!(["setting upgrade.keep_versions: 7 becomes the default"]), "{plan}");
    let lost = plan["lost"].to_string();
    for expected in
        ["1 more row in variable", "later.py", "my_report (it is a view)", "rights of everybody on variable"]
    {
        assert!(lost.contains(expected), "{expected}: {lost}");
    }
    let purposes: Vec<&str> =
        plan["needs"].as_array().unwrap().iter().map(|need| need["for"].as_str().unwrap()).collect();
    let expected = ["a backup of the current data", "the backup's files", "the backup's database", "reserve"];
    assert_eq!(purposes, expected);
    let shown = test.run(&["rollback", "--dry-run"]).expect(0).stdout;
    assert!(shown.contains("0 running tasks will end; Leoflow stops and starts again"), "{shown}");
}

/// Two task instances that wait for a file without a process.
const WAITING_DAG: &str = "
import os
from airflow.providers.standard.triggers.file import FileTrigger
from airflow.sdk import DAG, BaseOperator, task

SIGN = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'sign')

class Waits(BaseOperator):
    def execute(self, context):
        self.defer(trigger=FileTrigger(SIGN, poke_interval=0.1), method_name='after')

    def after(self, context, event=None):
        return 'done'

with DAG('waits'):
    Waits(task_id='deferred')

    @task.sensor(mode='reschedule', poke_interval=0.5)
    def rescheduled():
        return os.path.exists(SIGN)

    rescheduled()
";

#[test]
fn instances_that_wait_survive_rollbacks_of_both_ways() {
    let all = releases(&[FIRST, SECOND, THIRD]);
    let test = installed(&all);
    test.add_dag("waits", WAITING_DAG);
    for (release, way) in [("0.2.0", "undo"), ("1.0.0", "restore")] {
        let run = test.trigger("waits");
        // Between two pokes, the sensor runs.
        let is_waiting = || {
            let states = "SELECT string_agg(state, ' ' ORDER BY task_id) FROM task_instance WHERE run_id = ";
            test.sql(&format!("{states}'{run}'")) == "deferred up_for_reschedule"
        };
        wait_until("both instances wait", Duration::from_secs(60), is_waiting);
        upgrade_to(&test, &all, release);
        let planned = test.run(&["rollback", "--dry-run", "--json"]).expect(0).json();
        assert_eq!(planned["back"]["way"], way, "{planned}");
        test.run(&["rollback", "--yes"]).expect(0);
        test.wait_healthy();
        assert_eq!(version(&test), "0.1.0");
        wait_until("both instances wait again", Duration::from_secs(60), is_waiting);
        let sign = test.workspace().join("sign");
        fs::write(&sign, "").unwrap();
        let ended = test.wait_run("waits", &run);
        assert_eq!(ended["state"], "success", "{way}: {ended}");
        for task_id in ["deferred", "rescheduled"] {
            assert_eq!(crate::support::task(&ended, task_id)["try_number"], 1, "{way}: {task_id}");
        }
        fs::remove_file(sign).unwrap();
    }
}
