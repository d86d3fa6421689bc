//! A datastore on an external server: setup, use, backup, restore, upgrade, moves and outages.

use crate::support::external::{DATABASE_OPTIONS, External};
use crate::support::releases::{FIRST, Migration, Release, SECOND, releases};
use crate::support::rounds::sample_rounds_and_ends;
use crate::support::tls::front;
use crate::support::{TestHome, WAITING_DAG, wait_until};
use std::time::Duration;

/// Sets up a home whose data is in the database `pipelines` of the server.
fn home_on(external: &External) -> TestHome {
    let test = TestHome::new();
    set_up(&test, &external.url("pipelines"));
    test
}

#[track_caller]
fn set_up(test: &TestHome, url: &str) {
    test.run(&["setup", "--json", "--port", &test.port.to_string(), "--datastore", url]).expect(0);
}

/// Asserts that a setup with this datastore is refused; returns the error.
#[track_caller]
fn setup_error(test: &TestHome, url: &str) -> String {
    let done = test.run(&["setup", "--port", &test.port.to_string(), "--datastore", url]);
    assert_ne!(done.code, Some(0), "{done:?}");
    assert!(!test.home.exists(), "a refused setup leaves nothing");
    done.stderr
}

#[test]
fn a_home_works_with_an_external_server() {
    let external = External::started();
    let test = home_on(&external);
    test.start();
    assert!(!test.home.join("managed-postgres/data").exists());
    assert_eq!(test.sql("SELECT current_user || ' ' || current_database()"), "ada pipelines");
    test.run(&["variables", "set", "colour", "blue"]).expect(0);
    test.wait_dag("hello", 1);
    test.run(&["dags", "trigger", "hello", "--wait"]).expect(0);
    let settings = test.run(&["config", "list"]).expect(0).stdout;
    assert!(settings.contains("postgres://ada@127.0.0.1") && !settings.contains("lovelace"), "{settings}");
    let doctor = test.run(&["doctor"]).stdout;
    assert!(doctor.contains("postgres://ada@127.0.0.1"), "{doctor}");
    test.run(&["lite", "stop", "--yes"]).expect(0);
    // A stop changes neither the server nor the data.
    assert_eq!(external.sql("pipelines", "SELECT count(*) FROM variable"), "1");
    let connected = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'ada'";
    wait_until("the home has no connections", Duration::from_secs(10), || external.sql("postgres", connected) == "0");
    // A command connects while Lite is stopped.
    assert_eq!(test.sql("SELECT count(*) FROM variable"), "1");
    test.start();
    assert_eq!(test.run(&["variables", "get", "colour"]).expect(0).stdout.trim(), "blue");
}

#[test]
fn an_unsuitable_server_is_refused_with_a_fix() {
    let external = External::started();
    let test = TestHome::new();
    external.sql("postgres", "CREATE DATABASE latin OWNER ada TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    let error = setup_error(&test, &external.url("latin"));
    assert!(error.contains("its encoding is LATIN1") && error.contains("CREATE DATABASE leoflow OWNER ada"), "{error}");
    external.sql("postgres", &format!("CREATE DATABASE shared {DATABASE_OPTIONS}"));
    external.sql("shared", "CREATE TABLE invoices (id int)");
    let error = setup_error(&test, &external.url("shared"));
    assert!(
        error.contains("it contains invoices") && error.contains("GRANT CREATE, USAGE ON SCHEMA public TO ada"),
        "{error}"
    );
    let error = setup_error(&test, &external.url("absent"));
    assert!(error.contains("no database \"absent\"") && error.contains("CREATE DATABASE absent OWNER ada"), "{error}");
    let error = setup_error(&test, &external.url("pipelines").replace("lovelace", "wrong"));
    assert!(error.contains("rejects the role \"ada\"") && !error.contains("wrong"), "{error}");
    let error = setup_error(&test, "postgres://ada:x@127.0.0.1:1/pipelines");
    assert!(error.contains("cannot reach the datastore at 127.0.0.1:1"), "{error}");
    let error = setup_error(&test, "mysql://ada:secret@localhost/pipelines");
    assert!(error.contains("postgres://ROLE:PASSWORD@HOST") && !error.contains("secret"), "{error}");
    external.sql("postgres", "ALTER ROLE ada SET default_transaction_read_only = on");
    let error = setup_error(&test, &external.url("pipelines"));
    assert!(error.contains("it is read-only"), "{error}");
    external.sql("postgres", "ALTER ROLE ada RESET default_transaction_read_only; ALTER ROLE ada CONNECTION LIMIT 5");
    let error = setup_error(&test, &external.url("pipelines"));
    assert!(error.contains("it allows 5 connections") && error.contains("ALTER ROLE ada CONNECTION LIMIT"), "{error}");
    external.sql("postgres", "ALTER ROLE ada CONNECTION LIMIT -1");
    // The database belongs to another home.
    let first = home_on(&external);
    first.start();
    let error = setup_error(&test, &external.url("pipelines"));
    assert!(error.contains("has used it since") && error.contains(first.home.to_str().unwrap()), "{error}");
    // A home refuses to start when another home has claimed its database since the setup.
    let late = TestHome::new();
    external.sql("postgres", &format!("CREATE DATABASE late OWNER ada {DATABASE_OPTIONS}"));
    set_up(&late, &external.url("late"));
    external.sql("postgres", "DROP DATABASE late");
    first.run(&["lite", "stop", "--yes"]).expect(0);
    external.sql("postgres", "CREATE DATABASE late TEMPLATE pipelines OWNER ada");
    let error = late.run(&["lite", "start"]).expect(3).stderr;
    assert!(error.contains("uses the datastore"), "{error}");
    // A restore does not overwrite another home's database either.
    let other = TestHome::started();
    let backup = other.backup("other.tar.zst");
    let before = external.sql("late", "SELECT count(*) FROM dag");
    let error = late.restore(&backup, &["--force", "--yes"]).stderr;
    assert!(error.contains("uses the datastore"), "{error}");
    assert_eq!(external.sql("late", "SELECT count(*) FROM dag"), before);
}

#[test]
fn a_changed_datastore_setting_does_not_start_empty() {
    let external = External::started();
    let test = home_on(&external);
    let path = test.home.join("config.yaml");
    let config = std::fs::read_to_string(&path).unwrap();
    for other in [config.replace("/pipelines", "/others"), config.replace("datastore:", "x-datastore:")] {
        std::fs::write(&path, other).unwrap();
        let error = test.run(&["lite", "start"]).expect(3).stderr;
        assert!(error.contains("the data of this home is in postgres://ada@127.0.0.1"), "{error}");
    }
    let error = test.run(&["config", "set", "datastore", "managed"]).expect(3).stderr;
    assert!(error.contains("move-datastore"), "{error}");
    let managed = TestHome::new();
    managed.first_setup();
    let path = managed.home.join("config.yaml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{config}datastore:\n  url: {}\n", external.url("pipelines"))).unwrap();
    let error = managed.run(&["lite", "start"]).expect(3).stderr;
    assert!(error.contains("the data of this home is in the datastore under it"), "{error}");
}

#[test]
fn an_external_server_outage_is_reported_and_survived() {
    let mut external = External::started();
    let test = home_on(&external).with_limit("LEOFLOW_ROUND", "1");
    test.start();
    test.save("patient.py", WAITING_DAG);
    test.wait_dag("patient", 1);
    test.run(&["dags", "trigger", "patient"]).expect(0);
    wait_until("the task runs", Duration::from_secs(30), || test.workspace().join("ran").exists());
    external.stop();
    // The task finishes while the agent cannot write its result.
    test.save("go", "");
    wait_until("the outage is reported", Duration::from_secs(60), || {
        let status = test.status();
        status["state"] == "degraded"
            && status["reason"].as_str().unwrap_or_default().contains("cannot reach the datastore")
    });
    let refused = test.run(&["lite", "restart"]).expect(1).stderr;
    assert!(refused.contains("cannot reach the datastore") && refused.contains("nothing was stopped"), "{refused}");
    external.start();
    test.wait_healthy();
    let state = "SELECT string_agg(state, ' ') FROM dag_run WHERE dag_id = 'patient'";
    wait_until("the task's result is written", Duration::from_secs(60), || test.sql(state) == "success");
    test.wait_dag("hello", 1);
    test.run(&["dags", "trigger", "hello", "--wait"]).expect(0);
    test.run(&["lite", "stop", "--yes"]).expect(0);
    external.stop();
    let error = test.run(&["lite", "psql", "--", "-c", "SELECT 1"]).expect(1).stderr;
    assert!(error.contains("cannot reach the datastore"), "{error}");
}

#[test]
fn backups_and_restores_need_only_the_owners_privileges() {
    let external = External::started();
    let test = home_on(&external);
    test.start();
    test.run(&["variables", "set", "colour", "blue"]).expect(0);
    let backup = test.backup("one.tar.zst");
    test.run(&["lite", "backups", "verify", backup.to_str().unwrap()]).expect(0);
    test.run(&["variables", "set", "colour", "red"]).expect(0);
    test.restore(&backup, &["--force", "--yes"]).expect(0);
    let colour = || test.run(&["variables", "get", "colour"]).expect(0).stdout.trim().to_owned();
    assert_eq!(colour(), "blue");
    test.run(&["lite", "restore", "--undo", "--yes"]).expect(0);
    assert_eq!(colour(), "red");
    test.run(&["lite", "restore", "--undo", "--yes"]).expect(0);
    assert_eq!(colour(), "blue");
    assert_eq!(external.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname LIKE 'leoflow%'"), "0");
    assert_eq!(external.sql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'leoflow%'"), "0");
    // The same backup restores into a new home with a managed datastore.
    let other = TestHome::new();
    other.restore(&backup, &["--yes"]).expect(0);
    assert!(!std::fs::read_to_string(other.home.join("config.yaml")).unwrap().contains("datastore"));
    assert_eq!(other.sql("SELECT count(*) FROM variable"), "1");
}

fn variables(test: &TestHome) -> String {
    test.sql("SELECT count(*) || ' ' || string_agg(key, ' ') FROM variable")
}

#[test]
fn data_moves_between_datastores_and_the_old_one_is_kept() {
    let external = External::started();
    external.sql("postgres", &format!("CREATE DATABASE second OWNER ada {DATABASE_OPTIONS}"));
    let test = TestHome::started();
    test.run(&["variables", "set", "colour", "blue"]).expect(0);
    test.wait_dag("hello", 1);
    test.run(&["dags", "trigger", "hello", "--wait"]).expect(0);
    let runs = test.sql("SELECT count(*) FROM dag_run");
    let move_to = |url: &str| test.run(&["lite", "move-datastore", "--to", url, "--yes", "--json"]);
    let plan = test.run(&["lite", "move-datastore", "--to", &external.url("pipelines"), "--dry-run"]).expect(0);
    assert!(plan.stderr.contains("Nothing was changed") && !plan.stderr.contains("lovelace"), "{plan:?}");
    assert_eq!(external.sql("pipelines", "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0");
    let moved = move_to(&external.url("pipelines")).expect(0).json();
    assert_eq!((moved["running"].as_bool(), moved["rows"].as_i64() > Some(10)), (Some(true), true), "{moved}");
    assert_eq!(external.sql("pipelines", "SELECT count(*) FROM dag_run"), runs);
    assert!(std::path::Path::new(moved["kept"].as_str().unwrap()).join("PG_VERSION").exists(), "{moved}");
    test.run(&["variables", "set", "size", "large"]).expect(0);
    // Moves between two external databases, and back to the managed datastore.
    let error = move_to(&external.url("pipelines")).expect(3).stderr;
    assert!(error.contains("already"), "{error}");
    move_to(&external.url("second")).expect(0);
    test.run(&["variables", "set", "shape", "round"]).expect(0);
    move_to("managed").expect(0);
    assert_eq!(variables(&test), "3 colour size shape");
    assert_eq!(test.run(&["variables", "get", "colour"]).expect(0).stdout.trim(), "blue", "the key is unchanged");
    assert_eq!(external.sql("pipelines", "SELECT count(*) FROM variable"), "2");
    let claim = "SELECT convert_from(value, 'UTF8')::json->>'moved_to' FROM instance_fact WHERE name = 'home'";
    assert!(external.sql("pipelines", claim).ends_with("/second"));
    // The old database is refused for another home, but this home may move back into it.
    let error = setup_error(&TestHome::new(), &external.url("pipelines"));
    assert!(error.contains("had its data there") && error.contains("DROP DATABASE pipelines"), "{error}");
    move_to(&external.url("pipelines")).expect(0);
    assert_eq!(external.sql("pipelines", "SELECT count(*) FROM variable"), "3");
    assert!(!test.home.join("run/move").exists());
}

#[test]
fn a_killed_move_is_complete_or_undone() {
    let external = External::started();
    let test = TestHome::new();
    test.set_up();
    test.start();
    test.run(&["variables", "set", "colour", "blue"]).expect(0);
    test.run(&["lite", "stop", "--yes"]).expect(0);
    let url = external.url("pipelines");
    let (forward, backward) =
        (["lite", "move-datastore", "--to", &url, "--yes"], ["lite", "move-datastore", "--to", "managed", "--yes"]);
    let checkpoints = |arguments: &[&str]| {
        let log = test.folder().join("checkpoints");
        let _ = std::fs::remove_file(&log);
        let done = test.command(arguments).env("LEOFLOW_CHECKPOINT_LOG", &log).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        let text = std::fs::read_to_string(&log).unwrap();
        let is_of_move = |line: &&str| ["move", "content."].iter().any(|prefix| line.starts_with(prefix));
        text.lines().filter(is_of_move).map(str::to_owned).collect::<Vec<_>>()
    };
    let is_external = || has_external_datastore(&test);
    let (forward_names, backward_names) = (checkpoints(&forward), checkpoints(&backward));
    assert!(forward_names.len() >= 8 && backward_names.len() >= 8, "{forward_names:?} {backward_names:?}");
    // Counts of undone and of completed moves.
    let mut outcomes = [0, 0];
    let rounds = sample_rounds_and_ends(&forward_names, 2).into_iter().map(|name| (&forward, name));
    let backward_rounds = sample_rounds_and_ends(&backward_names, 2).into_iter().map(|name| (&backward, name));
    for (arguments, name) in rounds.chain(backward_rounds) {
        let goes_forward = arguments[3] == url;
        if is_external() == goes_forward {
            test.run(if goes_forward { &backward } else { &forward }).expect(0);
        }
        let killed = test.command(arguments).env("LEOFLOW_KILL_AT", name).output().unwrap();
        assert!(!killed.status.success(), "{name}");
        assert_eq!(variables(&test), "1 colour", "after {name}");
        outcomes[usize::from(is_external() == goes_forward)] += 1;
        assert!(!test.home.join("run/move").exists() && !test.home.join("run/journal.json").exists(), "after {name}");
    }
    assert!(outcomes[0] > 0 && outcomes[1] > 0, "{outcomes:?}");
}

fn has_external_datastore(test: &TestHome) -> bool {
    let text = std::fs::read_to_string(test.home.join("datastore.json")).unwrap_or_default();
    text.contains("\"external\"")
}

#[test]
fn a_killed_or_failed_restore_gives_the_old_or_new_data() {
    let external = External::started();
    let test = home_on(&external);
    test.start();
    test.run(&["variables", "set", "colour", "blue"]).expect(0);
    let backup = test.backup("one.tar.zst");
    test.run(&["variables", "set", "size", "large"]).expect(0);
    test.run(&["lite", "stop", "--yes"]).expect(0);
    let restore = ["lite", "restore", "--input", backup.to_str().unwrap(), "--force", "--yes"];
    let undo = ["lite", "restore", "--undo", "--yes"];
    // Counts of undone and of completed restores.
    let mut outcomes = [0, 0];
    let checkpoints = [
        "content.written",
        "restore.proven",
        "restore.begun",
        "content.in-place",
        "restore.database",
        "restore.config",
    ];
    for checkpoint in sample_rounds_and_ends(checkpoints, 2) {
        if variables(&test) == "1 colour" {
            test.run(&undo).expect(0);
        }
        let killed = test.command(&restore).env("LEOFLOW_KILL_AT", checkpoint).output().unwrap();
        assert!(!killed.status.success(), "{checkpoint}");
        let current = variables(&test);
        assert!(["1 colour", "2 colour size"].contains(&current.as_str()), "after {checkpoint}: {current}");
        outcomes[usize::from(current == "1 colour")] += 1;
    }
    assert!(outcomes[0] > 0 && outcomes[1] > 0, "{outcomes:?}");
    if variables(&test) == "1 colour" {
        test.run(&undo).expect(0);
    }
    test.command(&restore).env("LEOFLOW_FAIL_AT", "exchange.config").output().unwrap();
    assert_eq!(variables(&test), "2 colour size", "the failed restore is undone");
    assert_eq!(external.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname LIKE 'leoflow%'"), "0");
}

#[test]
fn an_upgrade_rolls_back_with_and_without_createdb() {
    // The rehearsal succeeds, and the new server fails.
    let broken = Release { version: "0.3.0", migration: Migration::AddsTable, fault: Some(("live-server", "exits")) };
    let all = releases(&[FIRST, SECOND, broken]);
    for may_create in [true, false] {
        let external = External::started();
        if may_create {
            external.sql("postgres", "ALTER ROLE ada CREATEDB");
        }
        let test = TestHome::with_program(all.program("0.1.0"));
        set_up(&test, &external.url("pipelines"));
        test.start();
        test.run(&["variables", "set", "colour", "blue"]).expect(0);
        let dist = all.dist();
        let upgrade = |version: &str| test.run(&["upgrade", version, "--from", dist.to_str().unwrap(), "--yes"]);
        upgrade("0.3.0").expect(1);
        test.wait_healthy();
        assert_eq!(test.status()["version"], "0.1.0");
        assert_eq!(variables(&test), "1 colour");
        let progress = upgrade("0.2.0").expect(0).stderr;
        assert_eq!(progress.contains("is not rehearsed"), !may_create, "{progress}");
        test.wait_healthy();
        assert_eq!(test.status()["version"], "0.2.0");
        let copies = "SELECT count(*) FROM pg_database WHERE datname LIKE 'leoflow\\_before%'";
        assert_eq!(external.sql("postgres", copies), if may_create { "1" } else { "0" });
        // Recovery of an upgrade that is killed after the migration ends in one of the releases, with all data.
        test.run(&["rollback", "--yes"]).expect(0);
        test.wait_healthy();
        assert_eq!(test.status()["version"], "0.1.0");
        let arguments = ["upgrade", "0.2.0", "--from", dist.to_str().unwrap(), "--yes"];
        let killed = test.command(&arguments).env("LEOFLOW_KILL_AT", "upgrade.migrate").output().unwrap();
        assert!(!killed.status.success());
        wait_until("the upgrade is recovered", Duration::from_secs(60), || {
            test.state() == "healthy" && !test.home.join("run/journal.json").exists()
        });
        assert_eq!(variables(&test), "1 colour");
    }
}

#[test]
fn tls_verifies_the_servers_name_and_authority() {
    let external = External::started();
    let test = TestHome::new();
    let (proxy, authority) = front(test.folder(), "localhost", external.port);
    let (misnamed_proxy, other_authority) = front(test.folder(), "db.example.org", external.port);
    let url = |port: u16, parameters: &str| {
        format!("postgres://ada:lovelace@localhost:{port}/pipelines?sslmode=verify-full{parameters}")
    };
    let with_root = |file: &std::path::Path| format!("&sslrootcert={}", file.display());
    // An unknown authority, another server's authority, a wrong name, no TLS, and a missing file.
    for (port, parameters) in [
        (proxy.port, String::new()),
        (proxy.port, with_root(&other_authority)),
        (misnamed_proxy.port, with_root(&other_authority)),
        (external.port, with_root(&authority)),
        (proxy.port, with_root(std::path::Path::new("/nowhere.pem"))),
    ] {
        let error = setup_error(&test, &url(port, &parameters));
        let expected = ["TLS: ", "does not support TLS", "cannot read the certificates"];
        assert!(expected.iter().any(|text| error.contains(text)), "{error}");
    }
    set_up(&test, &url(proxy.port, &with_root(&authority)));
    test.start();
    test.run(&["variables", "set", "colour", "blue"]).expect(0);
    // PostgreSQL's own programs use the same TLS settings.
    let backup = test.backup("one.tar.zst");
    test.run(&["lite", "backups", "verify", backup.to_str().unwrap()]).expect(0);
    assert_eq!(variables(&test), "1 colour");
}

#[test]
fn foreign_dependent_objects_stop_a_restore_and_an_upgrade() {
    let external = External::started();
    let all = releases(&[FIRST, SECOND]);
    let test = TestHome::with_program(all.program("0.1.0"));
    set_up(&test, &external.url("pipelines"));
    test.start();
    let backup = test.backup("one.tar.zst");
    test.run(&["variables", "set", "size", "large"]).expect(0);
    external
        .sql("pipelines", "CREATE SCHEMA reporting; CREATE VIEW reporting.runs AS SELECT run_id FROM public.dag_run");
    let error = test.restore(&backup, &["--force", "--yes"]).stderr;
    assert!(error.contains("view reporting.runs depends on table dag_run"), "{error}");
    assert_eq!(variables(&test), "1 size");
    let dist = all.dist();
    let upgrade = ["upgrade", "0.2.0", "--from", dist.to_str().unwrap(), "--yes"];
    let error = test.run(&upgrade).expect(1).stderr;
    assert!(error.contains("view reporting.runs depends on table dag_run"), "{error}");
    test.wait_healthy();
    assert_eq!(test.status()["version"], "0.1.0");
    // A restore keeps foreign objects that depend on no table of Leoflow.
    external.sql("pipelines", "DROP SCHEMA reporting CASCADE; CREATE VIEW public.answer AS SELECT 42 AS answer");
    test.restore(&backup, &["--force", "--yes"]).expect(0);
    assert_eq!(external.sql("pipelines", "SELECT answer FROM answer"), "42");
    external.sql("pipelines", "CREATE TABLE parts (id int) PARTITION BY RANGE (id)");
    let error = test.restore(&backup, &["--force", "--yes"]).stderr;
    assert!(error.contains("the partitioned table parts would be lost"), "{error}");
    assert_eq!(external.sql("pipelines", "SELECT count(*) FROM variable"), "0");
}

#[test]
fn moving_to_another_address_or_password_copies_no_data() {
    let external = External::started();
    let test = home_on(&external);
    test.start();
    test.run(&["variables", "set", "colour", "blue"]).expect(0);
    external.sql("postgres", "ALTER ROLE ada PASSWORD 'byron'");
    let url = external.url("pipelines").replace("lovelace", "byron");
    for url in [url.clone(), url.replace("127.0.0.1", "localhost")] {
        let moved = test.run(&["lite", "move-datastore", "--to", &url, "--yes"]).expect(0);
        assert!(moved.stderr.contains("Both lead to the same database"), "{moved:?}");
        assert_eq!(variables(&test), "1 colour");
        let config = std::fs::read_to_string(test.home.join("config.yaml")).unwrap();
        assert!(config.contains(&url), "{config}");
    }
    let moved = test.run(&["lite", "move-datastore", "--to", &url, "--yes", "--json"]).expect(0).json();
    assert_eq!((moved["rows"].as_i64(), moved["kept"].is_null()), (Some(0), true), "{moved}");
    test.run(&["lite", "restart"]).expect(0);
    assert_eq!(variables(&test), "1 colour");
}

#[test]
fn undoing_a_restore_keeps_the_current_datastore() {
    let external = External::started();
    external.sql("postgres", &format!("CREATE DATABASE second OWNER ada {DATABASE_OPTIONS}"));
    let test = home_on(&external);
    test.start();
    let backup = test.backup("one.tar.zst");
    test.run(&["variables", "set", "size", "large"]).expect(0);
    test.restore(&backup, &["--force", "--yes"]).expect(0);
    test.run(&["lite", "move-datastore", "--to", &external.url("second"), "--yes"]).expect(0);
    test.run(&["lite", "restore", "--undo", "--yes"]).expect(0);
    assert_eq!(variables(&test), "1 size");
    test.run(&["lite", "restart"]).expect(0);
    assert_eq!(test.sql("SELECT current_database()"), "second");
}

#[test]
fn a_copy_of_a_home_is_refused_while_the_original_runs() {
    let external = External::started();
    let test = home_on(&external);
    test.start();
    let copy = TestHome::new();
    std::fs::create_dir_all(&copy.home).unwrap();
    let status = std::process::Command::new("cp").arg("-R").arg(test.home.join(".")).arg(&copy.home).status().unwrap();
    assert!(status.success());
    let _ = std::fs::remove_dir_all(copy.home.join("run"));
    let port = copy.port.to_string();
    let error = copy.run(&["lite", "start", "--port", &port]).expect(3).stderr;
    assert!(error.contains("this is a copy of the home"), "{error}");
    // With the original stopped, the copy counts as the moved home and keeps its database.
    test.run(&["lite", "stop", "--yes"]).expect(0);
    copy.run(&["lite", "start", "--port", &port]).expect(0);
    assert!(
        external
            .sql("pipelines", "SELECT convert_from(value, 'UTF8') FROM instance_fact WHERE name = 'home'")
            .contains(copy.home.to_str().unwrap())
    );
}

/// With an external server the process `postgres` is the relay, which forwards connections.
#[test]
fn a_frozen_relay_is_replaced() {
    let external = External::started();
    let test = home_on(&external).with_limit("LEOFLOW_SILENCE_LIMIT", "4");
    test.start();
    let pid = nix::unistd::Pid::from_raw(test.pid("postgres"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    wait_until("a new relay runs", Duration::from_secs(120), || {
        test.running_pid("postgres").is_some_and(|new| new != pid.as_raw())
    });
    test.wait_healthy();
}

#[test]
fn a_backup_restores_into_a_new_home_on_a_server() {
    let external = External::started();
    let other = TestHome::started();
    other.run(&["variables", "set", "colour", "blue"]).expect(0);
    let backup = other.backup("one.tar.zst");
    let test = home_on(&external);
    let restore = ["lite", "restore", "--input", backup.to_str().unwrap(), "--force", "--yes"];
    test.command(&restore).env("LEOFLOW_FAIL_AT", "exchange.config").output().unwrap();
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(external.sql("pipelines", tables), "0", "the failed restore is undone");
    test.run(&restore).expect(0);
    test.start();
    assert_eq!(variables(&test), "1 colour");
}

#[test]
fn a_move_starts_from_the_recorded_datastore_not_the_config() {
    let test = TestHome::new();
    test.set_up();
    let path = test.home.join("config.yaml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{config}datastore: docker\n")).unwrap();
    let error = test.run(&["lite", "move-datastore", "--to", "managed", "--yes"]).expect(3).stderr;
    assert!(error.contains("already") && error.contains("datastore: managed") && !error.contains("remove"), "{error}");
    // The file with the URL has changed, but the URL leads to the same database.
    let external = External::started();
    let url = test.folder().join("url");
    std::fs::write(&url, external.url("pipelines")).unwrap();
    let by_file = format!("file:{}", url.display());
    let home = TestHome::new();
    set_up(&home, &by_file);
    home.start();
    home.run(&["variables", "set", "colour", "blue"]).expect(0);
    home.run(&["lite", "stop", "--yes"]).expect(0);
    std::fs::write(&url, external.url("pipelines").replace("127.0.0.1", "localhost")).unwrap();
    home.run(&["lite", "start"]).expect(3);
    home.run(&["lite", "move-datastore", "--to", &by_file, "--yes"]).expect(0);
    home.start();
    assert_eq!(variables(&home), "1 colour");
}
