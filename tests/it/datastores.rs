//! A datastore on somebody else's server: set up, used, backed up, restored, upgraded, and gone in the middle.

use crate::support::external::{External, LIKE_OURS};
use crate::support::releases::{FIRST, Migration, Release, SECOND, releases};
use crate::support::rounds::a_few_and_both_ends;
use crate::support::tls::front;
use crate::support::{PATIENT, TestHome, wait_until};
use std::time::Duration;

/// A home whose data is in `pipelines`.
fn on(external: &External) -> TestHome {
    let test = TestHome::new();
    set_up(&test, &external.url("pipelines"));
    test
}

#[track_caller]
fn set_up(test: &TestHome, url: &str) {
    test.run(&["setup", "--json", "--port", &test.port.to_string(), "--datastore", url]).expect(0);
}

#[track_caller]
fn refused(test: &TestHome, url: &str) -> String {
    let done = test.run(&["setup", "--port", &test.port.to_string(), "--datastore", url]);
    assert_ne!(done.code, Some(0), "{done:?}");
    assert!(!test.home.join("config.yaml").exists(), "nothing was changed");
    done.stderr
}

#[test]
fn a_home_works_with_a_server_that_somebody_else_looks_after() {
    let external = External::started();
    let test = on(&external);
    test.start();
    assert!(!test.home.join("managed-postgres/data").exists());
    assert_eq!(test.sql("SELECT current_user || ' ' || current_database()"), "ada pipelines");
    test.run(&["variables", "set", "colour", "blue"]).expect(0);
    test.wait_dag("hello", 1);
    test.run(&["dags", "trigger", "hello", "--wait"]).expect(0);
    let told = test.run(&["config", "list"]).expect(0).stdout;
    assert!(told.contains("postgres://ada@127.0.0.1") && !told.contains("lovelace"), "{told}");
    let doctor = test.run(&["doctor"]).stdout;
    assert!(doctor.contains("postgres://ada@127.0.0.1"), "{doctor}");
    test.run(&["lite", "stop", "--yes"]).expect(0);
    // The server goes on, and what is in it stays.
    assert_eq!(external.sql("pipelines", "SELECT count(*) FROM variable"), "1");
    let connected = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'ada'";
    wait_until("nobody is connected", Duration::from_secs(10), || external.sql("postgres", connected) == "0");
    // Also for a command's moment.
    assert_eq!(test.sql("SELECT count(*) FROM variable"), "1");
    test.start();
    assert_eq!(test.run(&["variables", "get", "colour"]).expect(0).stdout.trim(), "blue");
}

#[test]
fn a_server_that_will_not_do_is_refused_with_what_helps_and_nothing_is_changed() {
    let external = External::started();
    let test = TestHome::new();
    external.sql("postgres", "CREATE DATABASE latin OWNER ada TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    let said = refused(&test, &external.url("latin"));
    assert!(said.contains("its encoding is LATIN1") && said.contains("CREATE DATABASE leoflow OWNER ada"), "{said}");
    external.sql("postgres", &format!("CREATE DATABASE shared {LIKE_OURS}"));
    external.sql("shared", "CREATE TABLE invoices (id int)");
    let said = refused(&test, &external.url("shared"));
    assert!(
        said.contains("invoices are in it") && said.contains("GRANT CREATE, USAGE ON SCHEMA public TO ada"),
        "{said}"
    );
    let said = refused(&test, &external.url("absent"));
    assert!(said.contains("no database \"absent\"") && said.contains("CREATE DATABASE absent OWNER ada"), "{said}");
    let said = refused(&test, &external.url("pipelines").replace("lovelace", "wrong"));
    assert!(said.contains("refuses the role \"ada\"") && !said.contains("wrong"), "{said}");
    let said = refused(&test, "postgres://ada:x@127.0.0.1:1/pipelines");
    assert!(said.contains("127.0.0.1:1 cannot be reached"), "{said}");
    let said = refused(&test, "mysql://ada:secret@localhost/pipelines");
    assert!(said.contains("postgres://ROLE:PASSWORD@HOST") && !said.contains("secret"), "{said}");
    external.sql("postgres", "ALTER ROLE ada SET default_transaction_read_only = on");
    let said = refused(&test, &external.url("pipelines"));
    assert!(said.contains("it is read-only"), "{said}");
    external.sql("postgres", "ALTER ROLE ada RESET default_transaction_read_only; ALTER ROLE ada CONNECTION LIMIT 5");
    let said = refused(&test, &external.url("pipelines"));
    assert!(said.contains("it allows 5 connections") && said.contains("ALTER ROLE ada CONNECTION LIMIT"), "{said}");
    external.sql("postgres", "ALTER ROLE ada CONNECTION LIMIT -1");
    // Another home has it.
    let first = on(&external);
    first.start();
    let said = refused(&test, &external.url("pipelines"));
    assert!(said.contains("uses it, since") && said.contains(first.home.to_str().unwrap()), "{said}");
    // And one that was set up before that other came to start.
    let late = TestHome::new();
    external.sql("postgres", &format!("CREATE DATABASE late OWNER ada {LIKE_OURS}"));
    set_up(&late, &external.url("late"));
    external.sql("postgres", "DROP DATABASE late");
    first.run(&["lite", "stop", "--yes"]).expect(0);
    external.sql("postgres", "CREATE DATABASE late TEMPLATE pipelines OWNER ada");
    let said = late.run(&["lite", "start"]).expect(3).stderr;
    assert!(said.contains("uses the datastore"), "{said}");
    // Nor is it written over by what asks less.
    let other = TestHome::started();
    let backup = other.backup("other.tar.zst");
    let before = external.sql("late", "SELECT count(*) FROM dag");
    let said = late.restore(&backup, &["--force", "--yes"]).stderr;
    assert!(said.contains("uses the datastore"), "{said}");
    assert_eq!(external.sql("late", "SELECT count(*) FROM dag"), before);
}

#[test]
fn another_datastore_in_the_config_is_not_begun_anew_without_a_word() {
    let external = External::started();
    let test = on(&external);
    let path = test.home.join("config.yaml");
    let config = std::fs::read_to_string(&path).unwrap();
    for other in [config.replace("/pipelines", "/others"), config.replace("datastore:", "x-datastore:")] {
        std::fs::write(&path, other).unwrap();
        let said = test.run(&["lite", "start"]).expect(3).stderr;
        assert!(said.contains("the data of this home is in postgres://ada@127.0.0.1"), "{said}");
    }
    let said = test.run(&["config", "set", "datastore", "managed"]).expect(3).stderr;
    assert!(said.contains("move-datastore"), "{said}");
    let managed = TestHome::new();
    managed.set_up();
    let path = managed.home.join("config.yaml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{config}datastore:\n  url: {}\n", external.url("pipelines"))).unwrap();
    let said = managed.run(&["lite", "start"]).expect(3).stderr;
    assert!(said.contains("the data of this home is in the datastore under it"), "{said}");
}

#[test]
fn a_server_that_goes_away_is_told_and_comes_back() {
    let mut external = External::started();
    let test = on(&external).with_limit("LEOFLOW_ROUND", "1");
    test.start();
    test.save("patient.py", PATIENT);
    test.wait_dag("patient", 1);
    test.run(&["dags", "trigger", "patient"]).expect(0);
    wait_until("the task runs", Duration::from_secs(30), || test.workspace().join("ran").exists());
    external.stop();
    // It ends while nobody can be told.
    test.save("go", "");
    wait_until("it is reported", Duration::from_secs(60), || {
        let status = test.status();
        status["state"] == "degraded" && status["reason"].as_str().unwrap_or_default().contains("cannot be reached")
    });
    external.start();
    test.wait_healthy();
    let state = "SELECT string_agg(state, ' ') FROM dag_run WHERE dag_id = 'patient'";
    wait_until("its end is known", Duration::from_secs(60), || test.sql(state) == "success");
    test.wait_dag("hello", 1);
    test.run(&["dags", "trigger", "hello", "--wait"]).expect(0);
    test.run(&["lite", "stop", "--yes"]).expect(0);
    external.stop();
    let said = test.run(&["lite", "psql", "--", "-c", "SELECT 1"]).expect(1).stderr;
    assert!(said.contains("cannot be reached"), "{said}");
}

#[test]
fn a_backup_is_proven_restored_and_undone_with_the_rights_of_the_owner() {
    let external = External::started();
    let test = on(&external);
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
    // The same file comes back under a home of its own, which is the usual one.
    let other = TestHome::new();
    other.restore(&backup, &["--yes"]).expect(0);
    assert!(!std::fs::read_to_string(other.home.join("config.yaml")).unwrap().contains("datastore"));
    assert_eq!(other.sql("SELECT count(*) FROM variable"), "1");
}

fn colour(test: &TestHome) -> String {
    test.sql("SELECT count(*) || ' ' || string_agg(key, ' ') FROM variable")
}

#[test]
fn data_moves_from_any_datastore_to_any_other_and_the_old_one_is_kept() {
    let external = External::started();
    external.sql("postgres", &format!("CREATE DATABASE second OWNER ada {LIKE_OURS}"));
    let test = TestHome::started();
    test.run(&["variables", "set", "colour", "blue"]).expect(0);
    test.wait_dag("hello", 1);
    test.run(&["dags", "trigger", "hello", "--wait"]).expect(0);
    let runs = test.sql("SELECT count(*) FROM dag_run");
    let to = |url: &str| test.run(&["lite", "move-datastore", "--to", url, "--yes", "--json"]);
    let said = test.run(&["lite", "move-datastore", "--to", &external.url("pipelines"), "--dry-run"]).expect(0);
    assert!(said.stderr.contains("Nothing was changed") && !said.stderr.contains("lovelace"), "{said:?}");
    assert_eq!(external.sql("pipelines", "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0");
    let moved = to(&external.url("pipelines")).expect(0).json();
    assert_eq!((moved["running"].as_bool(), moved["rows"].as_i64() > Some(10)), (Some(true), true), "{moved}");
    assert_eq!(external.sql("pipelines", "SELECT count(*) FROM dag_run"), runs);
    assert!(std::path::Path::new(moved["kept"].as_str().unwrap()).join("PG_VERSION").exists(), "{moved}");
    test.run(&["variables", "set", "size", "large"]).expect(0);
    // Between two of an administrator's, and back under the home.
    let said = to(&external.url("pipelines")).expect(3).stderr;
    assert!(said.contains("already"), "{said}");
    to(&external.url("second")).expect(0);
    test.run(&["variables", "set", "shape", "round"]).expect(0);
    to("managed").expect(0);
    assert_eq!(colour(&test), "3 colour size shape");
    assert_eq!(test.run(&["variables", "get", "colour"]).expect(0).stdout.trim(), "blue", "the key is the same");
    assert_eq!(external.sql("pipelines", "SELECT count(*) FROM variable"), "2");
    let claim = "SELECT convert_from(value, 'UTF8')::json->>'moved_to' FROM instance_fact WHERE name = 'home'";
    assert!(external.sql("pipelines", claim).ends_with("/second"));
    // What was left is nobody else's to begin in, and this home's to fill anew.
    let said = refused(&TestHome::new(), &external.url("pipelines"));
    assert!(said.contains("had its data there") && said.contains("DROP DATABASE pipelines"), "{said}");
    to(&external.url("pipelines")).expect(0);
    assert_eq!(external.sql("pipelines", "SELECT count(*) FROM variable"), "3");
    assert!(!test.home.join("run/move").exists());
}

#[test]
fn a_move_that_is_killed_at_any_step_has_happened_or_has_not() {
    let external = External::started();
    let test = TestHome::new();
    test.set_up();
    test.start();
    test.run(&["variables", "set", "colour", "blue"]).expect(0);
    test.run(&["lite", "stop", "--yes"]).expect(0);
    let url = external.url("pipelines");
    let (there, back) =
        (["lite", "move-datastore", "--to", &url, "--yes"], ["lite", "move-datastore", "--to", "managed", "--yes"]);
    let moments = |arguments: &[&str]| {
        let log = test.folder().join("moments");
        let _ = std::fs::remove_file(&log);
        let done = test.command(arguments).env("LEOFLOW_CHECKPOINT_LOG", &log).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        let text = std::fs::read_to_string(&log).unwrap();
        let is_ours = |line: &&str| ["move", "content."].iter().any(|prefix| line.starts_with(prefix));
        text.lines().filter(is_ours).map(str::to_owned).collect::<Vec<_>>()
    };
    let is_there = || external_holds(&test);
    let (forth, home) = (moments(&there), moments(&back));
    assert!(forth.len() >= 8 && home.len() >= 8, "{forth:?} {home:?}");
    let mut seen = [0, 0];
    let forth = a_few_and_both_ends(&forth, 5).into_iter().map(|name| (&there, name));
    for (arguments, name) in forth.chain(a_few_and_both_ends(&home, 5).into_iter().map(|name| (&back, name))) {
        let goes_there = arguments[3] == url;
        if is_there() == goes_there {
            test.run(if goes_there { &back } else { &there }).expect(0);
        }
        let killed = test.command(arguments).env("LEOFLOW_KILL_AT", name).output().unwrap();
        assert!(!killed.status.success(), "{name}");
        assert_eq!(colour(&test), "1 colour", "after {name}");
        seen[usize::from(is_there() == goes_there)] += 1;
        assert!(!test.home.join("run/move").exists() && !test.home.join("run/journal.json").exists(), "after {name}");
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

fn external_holds(test: &TestHome) -> bool {
    let text = std::fs::read_to_string(test.home.join("datastore.json")).unwrap_or_default();
    text.contains("\"external\"")
}

#[test]
fn a_restore_that_is_killed_or_fails_at_any_step_is_the_old_or_the_new_state() {
    let external = External::started();
    let test = on(&external);
    test.start();
    test.run(&["variables", "set", "colour", "blue"]).expect(0);
    let backup = test.backup("one.tar.zst");
    test.run(&["variables", "set", "size", "large"]).expect(0);
    test.run(&["lite", "stop", "--yes"]).expect(0);
    let restore = ["lite", "restore", "--input", backup.to_str().unwrap(), "--force", "--yes"];
    let undo = ["lite", "restore", "--undo", "--yes"];
    let mut seen = [0, 0];
    for at in
        ["content.written", "restore.proven", "restore.begun", "content.in-place", "restore.database", "restore.config"]
    {
        if colour(&test) == "1 colour" {
            test.run(&undo).expect(0);
        }
        let killed = test.command(&restore).env("LEOFLOW_KILL_AT", at).output().unwrap();
        assert!(!killed.status.success(), "{at}");
        let now = colour(&test);
        assert!(["1 colour", "2 colour size"].contains(&now.as_str()), "after {at}: {now}");
        seen[usize::from(now == "1 colour")] += 1;
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    if colour(&test) == "1 colour" {
        test.run(&undo).expect(0);
    }
    test.command(&restore).env("LEOFLOW_FAIL_AT", "exchange.config").output().unwrap();
    assert_eq!(colour(&test), "2 colour size", "turned back");
    assert_eq!(external.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname LIKE 'leoflow%'"), "0");
}

#[test]
fn an_upgrade_has_its_way_back_with_the_right_to_make_databases_and_without() {
    // Its rehearsal is good, and its server is not.
    let broken = Release { version: "0.3.0", migration: Migration::Adds, fault: Some(("live-server", "exits")) };
    let all = releases(&[FIRST, SECOND, broken]);
    for may_create in [true, false] {
        let external = External::started();
        if may_create {
            external.sql("postgres", "ALTER ROLE ada CREATEDB");
        }
        let test = TestHome::of(all.program("0.1.0"));
        set_up(&test, &external.url("pipelines"));
        test.start();
        test.run(&["variables", "set", "colour", "blue"]).expect(0);
        let dist = all.dist();
        let upgrade = |version: &str| test.run(&["upgrade", version, "--from", dist.to_str().unwrap(), "--yes"]);
        upgrade("0.3.0").expect(1);
        test.wait_healthy();
        assert_eq!(test.status()["version"], "0.1.0");
        assert_eq!(colour(&test), "1 colour");
        let said = upgrade("0.2.0").expect(0).stderr;
        assert_eq!(said.contains("is not rehearsed"), !may_create, "{said}");
        test.wait_healthy();
        assert_eq!(test.status()["version"], "0.2.0");
        let copies = "SELECT count(*) FROM pg_database WHERE datname LIKE 'leoflow\\_before%'";
        assert_eq!(external.sql("postgres", copies), if may_create { "1" } else { "0" });
        // Killed when the new schema is there: the old release with the old data, or the new one.
        test.run(&["rollback", "--yes"]).expect(0);
        test.wait_healthy();
        assert_eq!(test.status()["version"], "0.1.0");
        let arguments = ["upgrade", "0.2.0", "--from", dist.to_str().unwrap(), "--yes"];
        let killed = test.command(&arguments).env("LEOFLOW_KILL_AT", "upgrade.migrate").output().unwrap();
        assert!(!killed.status.success());
        wait_until("it is whole again", Duration::from_secs(60), || {
            test.state() == "healthy" && !test.home.join("run/journal.json").exists()
        });
        assert_eq!(colour(&test), "1 colour");
    }
}

#[test]
fn a_server_that_is_elsewhere_is_verified_by_name_and_authority() {
    let external = External::started();
    let test = TestHome::new();
    let (right, authority) = front(test.folder(), "localhost", external.port);
    let (misnamed, other) = front(test.folder(), "db.example.org", external.port);
    let url = |port: u16, parameters: &str| {
        format!("postgres://ada:lovelace@localhost:{port}/pipelines?sslmode=verify-full{parameters}")
    };
    let by = |file: &std::path::Path| format!("&sslrootcert={}", file.display());
    // An authority that this machine does not know, one of another server, another name, and no TLS at all.
    for (port, parameters) in [
        (right.port, String::new()),
        (right.port, by(&other)),
        (misnamed.port, by(&other)),
        (external.port, by(&authority)),
        (right.port, by(std::path::Path::new("/nowhere.pem"))),
    ] {
        let said = refused(&test, &url(port, &parameters));
        let expected = ["TLS: ", "does not speak TLS", "cannot read the certificates"];
        assert!(expected.iter().any(|words| said.contains(words)), "{said}");
    }
    set_up(&test, &url(right.port, &by(&authority)));
    test.start();
    test.run(&["variables", "set", "colour", "blue"]).expect(0);
    // PostgreSQL's own programs go the same way.
    let backup = test.backup("one.tar.zst");
    test.run(&["lite", "backups", "verify", backup.to_str().unwrap()]).expect(0);
    assert_eq!(colour(&test), "1 colour");
}

#[test]
fn what_depends_on_our_tables_and_is_somebodys_stops_a_restore_and_an_upgrade_before_anything_is_changed() {
    let external = External::started();
    let all = releases(&[FIRST, SECOND]);
    let test = TestHome::of(all.program("0.1.0"));
    set_up(&test, &external.url("pipelines"));
    test.start();
    let backup = test.backup("one.tar.zst");
    test.run(&["variables", "set", "size", "large"]).expect(0);
    external
        .sql("pipelines", "CREATE SCHEMA reporting; CREATE VIEW reporting.runs AS SELECT run_id FROM public.dag_run");
    let said = test.restore(&backup, &["--force", "--yes"]).stderr;
    assert!(said.contains("view reporting.runs depends on table dag_run"), "{said}");
    assert_eq!(colour(&test), "1 size");
    let dist = all.dist();
    let upgrade = ["upgrade", "0.2.0", "--from", dist.to_str().unwrap(), "--yes"];
    let said = test.run(&upgrade).expect(1).stderr;
    assert!(said.contains("view reporting.runs depends on table dag_run"), "{said}");
    test.wait_healthy();
    assert_eq!(test.status()["version"], "0.1.0");
    // What depends on nothing of ours stays where it is.
    external.sql("pipelines", "DROP SCHEMA reporting CASCADE; CREATE VIEW public.answer AS SELECT 42 AS answer");
    test.restore(&backup, &["--force", "--yes"]).expect(0);
    assert_eq!(external.sql("pipelines", "SELECT answer FROM answer"), "42");
    external.sql("pipelines", "CREATE TABLE parts (id int) PARTITION BY RANGE (id)");
    let said = test.restore(&backup, &["--force", "--yes"]).stderr;
    assert!(said.contains("the partitioned table parts would be lost"), "{said}");
    assert_eq!(external.sql("pipelines", "SELECT count(*) FROM variable"), "0");
}

#[test]
fn another_address_or_password_of_the_same_database_moves_nothing() {
    let external = External::started();
    let test = on(&external);
    test.start();
    test.run(&["variables", "set", "colour", "blue"]).expect(0);
    external.sql("postgres", "ALTER ROLE ada PASSWORD 'byron'");
    let url = external.url("pipelines").replace("lovelace", "byron");
    for url in [url.clone(), url.replace("127.0.0.1", "localhost")] {
        let said = test.run(&["lite", "move-datastore", "--to", &url, "--yes"]).expect(0);
        assert!(said.stderr.contains("It is the same database"), "{said:?}");
        assert_eq!(colour(&test), "1 colour");
        let config = std::fs::read_to_string(test.home.join("config.yaml")).unwrap();
        assert!(config.contains(&url), "{config}");
    }
    let told = test.run(&["lite", "move-datastore", "--to", &url, "--yes", "--json"]).expect(0).json();
    assert_eq!((told["rows"].as_i64(), told["kept"].is_null()), (Some(0), true), "{told}");
    test.run(&["lite", "restart"]).expect(0);
    assert_eq!(colour(&test), "1 colour");
}

#[test]
fn an_undone_restore_does_not_bring_back_where_the_data_was() {
    let external = External::started();
    external.sql("postgres", &format!("CREATE DATABASE second OWNER ada {LIKE_OURS}"));
    let test = on(&external);
    test.start();
    let backup = test.backup("one.tar.zst");
    test.run(&["variables", "set", "size", "large"]).expect(0);
    test.restore(&backup, &["--force", "--yes"]).expect(0);
    test.run(&["lite", "move-datastore", "--to", &external.url("second"), "--yes"]).expect(0);
    test.run(&["lite", "restore", "--undo", "--yes"]).expect(0);
    assert_eq!(colour(&test), "1 size");
    test.run(&["lite", "restart"]).expect(0);
    assert_eq!(test.sql("SELECT current_database()"), "second");
}

#[test]
fn a_copy_of_a_home_is_refused_while_the_first_one_works() {
    let external = External::started();
    let test = on(&external);
    test.start();
    let copy = TestHome::new();
    std::fs::create_dir_all(&copy.home).unwrap();
    let files = std::process::Command::new("cp").arg("-R").arg(test.home.join(".")).arg(&copy.home).status().unwrap();
    assert!(files.success());
    let _ = std::fs::remove_dir_all(copy.home.join("run"));
    let port = copy.port.to_string();
    let said = copy.run(&["lite", "start", "--port", &port]).expect(3).stderr;
    assert!(said.contains("this is a copy of the home"), "{said}");
    // A home that was moved takes its database along.
    test.run(&["lite", "stop", "--yes"]).expect(0);
    copy.run(&["lite", "start", "--port", &port]).expect(0);
    assert!(
        external
            .sql("pipelines", "SELECT convert_from(value, 'UTF8') FROM instance_fact WHERE name = 'home'")
            .contains(copy.home.to_str().unwrap())
    );
}

#[test]
fn a_frozen_relay_is_replaced() {
    let external = External::started();
    let test = on(&external).with_limit("LEOFLOW_SILENCE_LIMIT", "4");
    test.start();
    let pid = nix::unistd::Pid::from_raw(test.pid("postgres"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    wait_until("another one runs", Duration::from_secs(120), || {
        test.running_pid("postgres").is_some_and(|now| now != pid.as_raw())
    });
    test.wait_healthy();
}

#[test]
fn a_backup_comes_into_a_home_on_a_server_that_was_never_started() {
    let external = External::started();
    let other = TestHome::started();
    other.run(&["variables", "set", "colour", "blue"]).expect(0);
    let backup = other.backup("one.tar.zst");
    let test = on(&external);
    let restore = ["lite", "restore", "--input", backup.to_str().unwrap(), "--force", "--yes"];
    test.command(&restore).env("LEOFLOW_FAIL_AT", "exchange.config").output().unwrap();
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(external.sql("pipelines", tables), "0", "turned back");
    test.run(&restore).expect(0);
    test.start();
    assert_eq!(colour(&test), "1 colour");
}

#[test]
fn a_move_decides_by_where_the_data_is_and_not_by_what_the_config_says() {
    let test = TestHome::new();
    test.set_up();
    let path = test.home.join("config.yaml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{config}datastore: docker\n")).unwrap();
    let said = test.run(&["lite", "move-datastore", "--to", "managed", "--yes"]).expect(3).stderr;
    assert!(said.contains("already") && said.contains("datastore: managed") && !said.contains("remove"), "{said}");
    // The address behind a file has changed.
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
    assert_eq!(colour(&home), "1 colour");
}
