//! The checks and fixes of `doctor`.

use crate::support::http::Session;
use crate::support::processes::leave_stale_server;
use crate::support::{CommandOutput, TestHome, newest};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;

fn check(test: &TestHome, name: &str) -> Value {
    let report = test.run(&["doctor", "--json"]).json();
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {report}")).clone()
}

#[test]
fn doctor_passes_for_empty_and_healthy_homes() {
    let test = TestHome::new();
    test.run(&["doctor"]).expect(0);
    assert!(!test.home.exists());
    test.start();
    let report = test.run(&["doctor", "--json"]).expect(0).json();
    assert_eq!(report["ok"], true);
    let names: Vec<&str> =
        report["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    for expected in [
        "platform",
        "home",
        "space",
        "permissions",
        "config",
        "port",
        "postgres",
        "datastore",
        "schema",
        "binary",
        "python",
        "leftovers",
    ] {
        assert!(names.contains(&expected), "{expected} is not in {names:?}");
    }
    for check in report["checks"].as_array().unwrap().iter().filter(|check| check["name"] != "python") {
        assert_eq!(check["verdict"], "ok", "{check}");
    }
    test.run(&["lite", "stop"]).expect(0);
    assert_eq!(check(&test, "schema")["detail"], format!("version {}", newest()), "also while Lite is stopped");
    test.assert_nothing_runs();
}

#[test]
fn an_unknown_time_zone_is_named() {
    let test = TestHome::new();
    let report = |command: &[&str], zone: &str| -> CommandOutput {
        test.command(command).env("TZ", zone).output().unwrap().into()
    };
    assert!(report(&["doctor"], "Foo/Bar").expect(0).stdout.contains("Foo/Bar"));
    assert!(!report(&["doctor"], "Europe/Berlin").expect(0).stdout.contains("time zone"));
    let started = report(&["lite", "start", "--port", &test.port.to_string()], "Foo/Bar").expect(0);
    assert!(started.stderr.contains("TZ is \"Foo/Bar\", which is no known time zone"), "{started:?}");
}

#[test]
fn a_report_contains_checks_and_logs_but_no_secret() {
    let test = TestHome::started();
    let report = test.run(&["doctor", "--report"]).expect(0).stdout;
    for expected in
        ["leoflow 0.1.0", "ok       datastore", "--- supervisor.log\n", "supervisor: Healthy", "--- postgres.log\n"]
    {
        assert!(report.contains(expected), "{expected}: {report}");
    }
    let read = |name: &str| std::fs::read_to_string(test.home.join(name)).unwrap();
    let files = [read("config.yaml"), read("managed-postgres/credentials.json")].concat();
    // Passwords, keys and the hash of the password.
    let secrets: Vec<&str> =
        files.split([' ', '\n', '"']).filter(|word| word.len() > 20 && !word.contains(":/")).collect();
    assert!(secrets.len() > 3, "{secrets:?}");
    for secret in secrets.iter().filter(|word| !word.starts_with('/')) {
        assert!(!report.contains(secret), "{secret}");
    }
    test.run(&["lite", "stop"]).expect(0);
    assert!(test.run(&["doctor", "--report"]).expect(0).stdout.contains("supervisor: Stopped"));
}

#[test]
fn doctor_reports_each_problem_with_its_fix() {
    let test = TestHome::new();
    test.set_up();
    let assert_problem = |name: &str, part: &str| {
        let check = check(&test, name);
        assert_ne!(check["verdict"], "ok", "{check}");
        assert!(check["detail"].as_str().unwrap().contains(part), "{check}");
        assert!(check["remedy"].is_string(), "{check}");
    };
    let _foreign_listener = std::net::TcpListener::bind(("127.0.0.1", test.port)).unwrap();
    assert_problem("port", &std::process::id().to_string());
    test.sql("INSERT INTO leoflow_ledger (version, name, phase, sha256, binary_version, duration) VALUES (9999, 'x', 'data', 'x', '9', '1s')");
    assert_problem("schema", "9999");
    test.run(&["doctor"]).expect(1);
    test.sql(
        "DELETE FROM leoflow_ledger WHERE version = 9999; UPDATE leoflow_ledger SET sha256 = 'x' WHERE version = 1",
    );
    assert_problem("schema", "was changed");
    test.sql("UPDATE leoflow_ledger SET sha256 = 'x'");
    let config = test.home.join("config.yaml");
    let good = std::fs::read(&config).unwrap();
    std::fs::write(&config, "port: x\n").unwrap();
    assert_problem("config", "config.yaml:1");
    std::fs::write(&config, "").unwrap();
    assert_problem("config", "empty");
    test.run(&["verify-config"]).expect(1);
    std::fs::write(&config, good).unwrap();
    let version = test.home.join("managed-postgres/data/PG_VERSION");
    std::fs::write(&version, "17\n").unwrap();
    assert_problem("datastore", "17");
}

#[test]
fn fix_applies_the_safe_fixes_after_confirmation() {
    let test = TestHome::new();
    test.first_setup();
    let config = test.home.join("config.yaml");
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::remove_file(test.home.join("bin/leoflow-agent")).unwrap();
    test.run(&["doctor", "--fix"]).expect(3);
    assert_eq!(std::fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o644, "no fix without confirmation");
    test.run(&["doctor", "--fix", "--yes"]).expect(0);
    assert_eq!(std::fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(test.home.join("bin/leoflow-agent").is_file());

    let mut stale_server = leave_stale_server(&test.home, test.port);
    let pid = stale_server.id().to_string();
    let reaper = std::thread::spawn(move || stale_server.wait());
    let leftovers = check(&test, "leftovers");
    assert_eq!(
        (leftovers["verdict"].as_str(), leftovers["detail"].as_str().unwrap().contains(&pid)),
        (Some("warning"), true),
        "{leftovers}"
    );
    test.run(&["doctor", "--fix", "--yes"]).expect(0);
    assert!(!reaper.join().unwrap().unwrap().success());
    assert_eq!(check(&test, "leftovers")["verdict"], "ok");
}

#[test]
fn settings_without_effect_are_warned_of() {
    let test = TestHome::new();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    test.run(&["lite", "stop"]).expect(0);
    std::fs::create_dir_all(test.workspace().join("sales")).unwrap();
    std::fs::write(test.workspace().join("sales/.env"), "AIRFLOW__CORE__PARALLELISM=4017\n").unwrap();
    let mut start = test.command(&["lite", "start", "--json", "--port", &test.port.to_string()]);
    let started: CommandOutput = start.env("AIRFLOW__OPERATORS__DEFAULT_QUEUE", "big").output().unwrap().into();
    let line = "2 settings of Airflow without effect here: leoflow doctor lists them";
    let stderr = started.expect(0).stderr;
    assert!(stderr.contains(line), "{stderr}");
    // The server's environment counts, not that of the command.
    let detail = check(&test, "settings")["detail"].as_str().unwrap().to_owned();
    let names = "AIRFLOW__OPERATORS__DEFAULT_QUEUE (environment), AIRFLOW__CORE__PARALLELISM (";
    assert!(detail.contains(names) && !detail.contains("4017"), "{detail}");
    let page = Session::login(test.port, &password).request("GET", "/lite/", "").body;
    assert!(page.contains("2 settings of Airflow without effect here."), "{page}");
}
