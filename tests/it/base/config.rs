//! Settings in `config.yaml`, other files and environment variables: validation, damage, precedence and restarts.

use crate::support::http::Session;
use crate::support::{TestHome, free_port, wait_until};
use serde_json::json;
use std::time::Duration;

#[test]
fn an_invalid_value_is_reported_with_its_line() {
    let test = TestHome::started();
    test.run(&["lite", "stop"]).expect(0);
    let path = test.home.join("config.yaml");
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, good.replace("port: ", "port: 9999999 # ")).unwrap();
    let line = good.lines().position(|line| line.starts_with("port:")).unwrap() + 1;
    let expected = format!("{}:{line}: port: 9999999 is not a port number from 1 to 65535", path.display());
    assert_eq!(test.run(&["verify-config"]).expect(1).stdout.trim(), expected);
    let done = test.run(&["lite", "start"]).expect(1);
    assert!(done.stderr.contains(&expected), "{}", done.stderr);
    test.assert_nothing_runs();

    std::fs::write(&path, format!("# mine\n{good}mystery: [1, 2]\n")).unwrap();
    let done = test.run(&["verify-config"]).expect(0);
    assert!(done.stderr.contains("unknown key \"mystery\""), "{}", done.stderr);
    test.start();
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("# mine\n"), "comments survive a start");
}

#[test]
fn damage_to_leoflows_files_is_an_error_and_loses_nothing() {
    let test = TestHome::started();
    test.run(&["variables", "set", "kept", "yes"]).expect(0);
    test.run(&["lite", "stop"]).expect(0);
    let port = test.port.to_string();
    let start = ["lite", "start", "--port", &port];
    let damages: [(&str, &[u8]); 4] =
        [("empty", b""), ("cut", b"port: 80\njwt_sec"), ("binary", b"\xff\xfe\x00\x01"), ("html", b"<html>")];
    // The exit code of `start` for each damage.
    for (file, codes) in [("config.yaml", [3, 1, 1, 1]), ("setup.json", [1; 4]), ("run/journal.json", [3; 4])] {
        let path = test.home.join(file);
        let good = std::fs::read(&path).ok();
        for ((name, bytes), code) in damages.iter().zip(codes) {
            std::fs::write(&path, bytes).unwrap();
            let done = test.run(&start).expect(code);
            assert!(done.stderr.contains(file.rsplit('/').next().unwrap()), "{file} {name}: {}", done.stderr);
            assert!(done.stderr.contains("hint:"), "{file} {name}: {}", done.stderr);
            assert_eq!(std::fs::read(&path).unwrap(), *bytes, "{file} {name} stays unchanged");
            test.assert_nothing_runs();
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let done = test.run(&start);
        assert!([Some(1), Some(3)].contains(&done.code), "{file} as a folder: {}", done.stderr);
        std::fs::remove_dir(&path).unwrap();
        if let Some(good) = good {
            std::fs::write(&path, good).unwrap();
        }
    }
    test.start();
    assert_eq!(test.run(&["variables", "get", "kept"]).expect(0).stdout.trim(), "yes");
}

#[test]
fn damage_to_postgres_marker_files_is_refused_or_repaired() {
    let test = TestHome::started();
    test.run(&["lite", "stop"]).expect(0);
    let version = test.home.join("managed-postgres/data/PG_VERSION");
    for bytes in [&b""[..], b"\xff", b"eighteen\n", b"17\n"] {
        std::fs::write(&version, bytes).unwrap();
        let before = test.snapshot("managed-postgres/data/global");
        test.run(&["lite", "start"]).expect(3);
        test.run(&["migrate-db"]).expect(3);
        assert_eq!(test.snapshot("managed-postgres/data/global"), before, "unchanged");
    }
    std::fs::write(&version, "18\n").unwrap();
    for bytes in [&b""[..], b"\xff\x00", b"1\n/somewhere\n"] {
        std::fs::write(test.home.join("managed-postgres/data/postmaster.pid"), bytes).unwrap();
        test.start();
        test.run(&["lite", "stop"]).expect(0);
    }
    // Wrong passwords, as if the credentials came from another home.
    let credentials = test.home.join("managed-postgres/credentials.json");
    let good = std::fs::read(&credentials).unwrap();
    let other = format!(r#"{{"superuser_password": "{0}", "application_password": "{0}"}}"#, "ab".repeat(32));
    std::fs::write(&credentials, other).unwrap();
    let done = test.run(&["lite", "start"]);
    assert!(done.stderr.contains("another instance"), "{done:?}");
    std::fs::write(&credentials, b"").unwrap();
    test.run(&["lite", "start"]).expect(3);
    std::fs::remove_file(&credentials).unwrap();
    test.run(&["lite", "start"]).expect(3);
    test.assert_nothing_runs();
    std::fs::write(&credentials, good).unwrap();
    test.start();
}

#[test]
fn a_lost_or_foreign_encryption_key_is_refused() {
    let test = TestHome::started();
    test.run(&["connections", "add", "db", "--conn-type", "http", "--conn-password", "x"]).expect(0);
    test.run(&["lite", "stop"]).expect(0);
    let path = test.home.join("config.yaml");
    let good = std::fs::read_to_string(&path).unwrap();
    let with_key = |value: &str| -> String {
        good.lines()
            .map(|line| if line.starts_with("encryption_key") { value } else { line })
            .collect::<Vec<_>>()
            .join("\n")
    };
    std::fs::write(&path, with_key("")).unwrap();
    let done = test.run(&["lite", "start"]).expect(3);
    assert!(done.stderr.contains("encryption_key"), "{}", done.stderr);
    std::fs::write(&path, with_key(&format!("encryption_key: \"{}\"", "cd".repeat(32)))).unwrap();
    let done = test.run(&["lite", "start"]).expect(3);
    assert!(done.stderr.contains("is not the one"), "{}", done.stderr);
    std::fs::remove_file(&path).unwrap();
    test.run(&["lite", "start"]).expect(3);
    assert!(!path.exists(), "no new secrets for an old datastore");
    std::fs::write(&path, good).unwrap();
    test.start();
    let exported = test.run(&["connections", "export", "-"]).expect(0).json();
    assert_eq!(exported["db"]["password"], "x");
}

#[test]
fn invalid_project_settings_stop_only_that_project() {
    let test = TestHome::started();
    test.wait_dag("hello", 1);
    let file = test.workspace().join("hello/leoflow.yaml");
    std::fs::write(&file, "schema_version: \"1.0\"\n").unwrap();
    assert!(test.run(&["verify-config"]).expect(0).stdout.contains("hello/leoflow.yaml is valid"));
    std::fs::write(&file, "schema_version: \"1.0\"\npython_version: 3.10\n").unwrap();
    let findings = test.run(&["verify-config"]).expect(1).stdout;
    assert!(findings.contains("hello/leoflow.yaml:2: python_version: write the version in quotes"), "{findings}");
    let error = || test.dags()["dags"][0]["import_error"].as_str().map(str::to_owned);
    crate::support::wait_until("an import error", std::time::Duration::from_secs(20), || error().is_some());
    assert!(error().unwrap().contains("leoflow.yaml:2: python_version"));
    std::fs::remove_file(&file).unwrap();
    crate::support::wait_until("the import error is gone", std::time::Duration::from_secs(20), || error().is_none());
}

#[test]
fn config_reads_validates_and_changes_settings() {
    let test = TestHome::started();
    let run = |arguments: &[&str]| test.run(&[&["config"], arguments].concat());
    let listed = run(&["list", "--json"]).expect(0).json();
    let port = listed["settings"].as_array().unwrap().iter().find(|setting| setting["key"] == "port").unwrap();
    assert_eq!(port["value"], test.port.to_string());
    let text = std::fs::read_to_string(test.home.join("config.yaml")).unwrap();
    assert!(!run(&["list"]).expect(0).stdout.contains("secret"));
    for secret in ["jwt_secret", "encryption_key", "admin_password_hash"] {
        assert!(run(&["get", secret]).expect(2).stderr.contains("is a secret"));
        assert!(run(&["set", secret, &"ab".repeat(32)]).expect(2).stderr.contains("hint:"));
    }
    for (key, value, why) in [
        ("port", "0", "port number"),
        ("host", "everywhere", "an IPv4 address"),
        ("python", "/nothing/python3", "/nothing/python3"),
        ("max_map_length", "0", "from 1 to 1000000"),
        ("upgrade.channel", "beta", "stable or rc"),
        ("nothing", "1", "unknown setting"),
    ] {
        let done = run(&["set", key, value]).expect(2);
        assert!(done.stderr.contains(why) && done.stderr.contains("hint:"), "{key}: {}", done.stderr);
    }
    assert!(run(&["set", "workspace", "/"]).code != Some(0));
    assert_eq!(std::fs::read_to_string(test.home.join("config.yaml")).unwrap(), text, "a refusal changes nothing");
    run(&["set", "backup.keep", "9"]).expect(0);
    run(&["set", "upgrade.channel", "rc"]).expect(0);
    assert_eq!(run(&["get", "backup.keep"]).expect(0).stdout, "9\n");
    run(&["unset", "upgrade.channel"]).expect(0);
    assert_eq!(run(&["get", "upgrade.channel"]).expect(0).stdout, "stable\n");
    assert_eq!(run(&["get", "upgrade.from"]).expect(0).stdout, "");
    test.run(&["verify-config"]).expect(0);
    // `start` does not change the port or the workspace of a running Lite.
    let other = crate::support::free_port().to_string();
    let done = test.run(&["lite", "start", "--port", &other]).expect(1);
    assert!(done.stderr.contains(&format!("leoflow lite restart --port {other}")), "{}", done.stderr);
    let workspace = test.folder().join("elsewhere");
    std::fs::create_dir(&workspace).unwrap();
    let workspace = workspace.to_str().unwrap();
    for command in ["start", "restart"] {
        let done = test.run(&["lite", command, "--workspace", workspace]).expect(3);
        assert!(done.stderr.contains("leoflow config set workspace"), "{}", done.stderr);
    }
    test.run(&["lite", "restart", "--port", &other]).expect(0);
    assert_eq!(test.status()["url"], format!("http://127.0.0.1:{other}"));
    // A port from the command line stays in effect until another port is set.
    test.run(&["lite", "restart"]).expect(0);
    assert_eq!(test.status()["url"], format!("http://127.0.0.1:{other}"));
    let chosen = crate::support::free_port().to_string();
    run(&["set", "port", &chosen]).expect(0);
    let listener = std::net::TcpListener::bind(("127.0.0.1", chosen.parse().unwrap())).unwrap();
    let refused = test.run(&["lite", "restart"]).expect(1);
    assert!(refused.stderr.contains(&format!("port {chosen} is in use")), "{}", refused.stderr);
    assert_eq!(
        (test.state().as_str(), &test.status()["url"]),
        ("healthy", &json!(format!("http://127.0.0.1:{other}")))
    );
    drop(listener);
    test.run(&["smoke"]).expect(0);
    test.run(&["lite", "restart"]).expect(0);
    assert_eq!(test.status()["url"], format!("http://127.0.0.1:{chosen}"));
    run(&["set", "workspace", workspace]).expect(0);
    std::fs::write(test.folder().join("elsewhere/there.py"), "from airflow.sdk import DAG\ndag = DAG('there')\n")
        .unwrap();
    test.run(&["lite", "restart"]).expect(0);
    test.wait_dag("there", 1);
}

#[test]
fn a_host_setting_is_checked_and_used_after_a_restart() {
    let test = TestHome::new();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    // No warning: the network cannot reach another loopback address.
    let done = test.run(&["config", "set", "host", "127.0.0.9"]).expect(0);
    assert!(!done.stderr.contains("warning"), "{}", done.stderr);
    test.run(&["lite", "restart"]).expect(0);
    assert_eq!(test.status()["url"], format!("http://127.0.0.9:{}", test.port));
    test.run(&["smoke"]).expect(0);
    let done = test.run(&["config", "set", "host", "0.0.0.0"]).expect(0);
    assert!(done.stderr.contains("unencrypted"), "{}", done.stderr);
    test.run(&["lite", "restart"]).expect(0);
    let session = Session::login(test.port, &password);
    assert_eq!(session.request("GET", "/api/v2/dags", "").status, 200);
    test.run(&["config", "set", "host", "203.0.113.7"]).expect(0);
    let refused = test.run(&["lite", "restart"]).expect(1);
    assert!(refused.stderr.contains("203.0.113.7 is not an address of this machine"), "{}", refused.stderr);
    assert!(refused.stderr.contains("nothing was stopped"), "{}", refused.stderr);
    assert_eq!(test.state(), "healthy");
    test.run(&["lite", "stop"]).expect(0);
    let done = test.run(&["lite", "start"]).expect(1);
    assert!(done.stderr.contains("203.0.113.7 is not an address of this machine"), "{}", done.stderr);
    assert!(done.stderr.contains("leoflow config set host"), "{}", done.stderr);
}

#[test]
fn a_restart_with_an_unusable_new_python_stops_nothing() {
    let test = TestHome::started();
    let path = test.home.join("config.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let others = text.lines().filter(|line| !line.starts_with("python:"));
    std::fs::write(&path, others.chain(["python: /nowhere/python", ""]).collect::<Vec<_>>().join("\n")).unwrap();
    let refused = test.run(&["lite", "restart"]).expect(1);
    assert!(refused.stderr.contains("/nowhere/python"), "{}", refused.stderr);
    assert!(refused.stderr.contains("nothing was stopped"), "{}", refused.stderr);
    assert_eq!(test.state(), "healthy");
}

#[test]
fn every_process_logs_in_one_format_at_the_chosen_level() {
    let test = TestHome::started();
    let lines = |name: &str| -> Vec<String> {
        let text = std::fs::read_to_string(test.home.join(format!("logs/{name}.log"))).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    };
    let has = |name: &str, part: &str| lines(name).iter().any(|line| line.contains(part));
    assert!(!has("server", " DEBUG "), "{:?}", lines("server"));
    test.run(&["config", "set", "log_level", "chatty"]).expect(2);
    test.run(&["config", "set", "log_level", "debug"]).expect(0);
    test.run(&["lite", "restart"]).expect(0);
    test.run_dag("hello");
    wait_until("the agent has logged the task", Duration::from_secs(10), || has("agent", "hello.greet of"));
    assert!(has("server", " DEBUG server: hello.greet of"), "{:?}", lines("server"));
    assert!(has("server", ": GET /api/v2/dags"), "{:?}", lines("server"));
    assert!(has("supervisor", " INFO  supervisor: "), "{:?}", lines("supervisor"));
    for name in ["supervisor", "migrate", "server", "agent"] {
        for line in lines(name) {
            let parts: Vec<&str> = line.splitn(4, ' ').collect();
            assert!(parts[0].parse::<jiff::Timestamp>().is_ok(), "{name}: {line}");
            assert!(["ERROR", "WARN", "INFO", "DEBUG"].contains(&parts[1]), "{name}: {line}");
            let process = line.split_whitespace().nth(2).unwrap();
            assert_eq!(process, format!("{name}:"), "{line}");
        }
    }
    test.run(&["config", "set", "log_level", "error"]).expect(0);
    test.run(&["lite", "stop"]).expect(0);
    let before = lines("supervisor").len();
    test.start();
    assert_eq!(lines("supervisor").len(), before, "{:?}", lines("supervisor"));
}

#[test]
fn config_sources_override_and_restart_needs_are_reported() {
    let test = TestHome::started();
    let path = test.home.join("config.yaml");
    let value = |key: &str| test.run(&["config", "get", key, "--json"]).expect(0).json();
    std::fs::write(test.home.join("config-team.yaml"), "# of the team\nlog_level: debug\nbackup: {keep: 3}\nodd: 1\n")
        .unwrap();
    std::fs::write(test.home.join("config-zz.yaml"), "backup:\n  keep: 4\n  odd: 1\n").unwrap();
    assert_eq!(
        (value("backup.keep")["value"].clone(), value("backup.keep")["origin"].clone()),
        (json!("4"), json!("config-zz.yaml:2"))
    );
    let listed = test.command(&["config", "list", "--origin"]).env("LEOFLOW_BACKUP_MAX_AGE", "9d").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let line = |key: &str| -> Vec<&str> {
        listed.lines().find(|line| line.starts_with(key)).unwrap().split_whitespace().collect()
    };
    assert_eq!(line("backup.keep"), ["backup.keep", "4", "config-zz.yaml:2"]);
    assert_eq!(line("backup.max_age"), ["backup.max_age", "9d", "LEOFLOW_BACKUP_MAX_AGE"]);
    assert_eq!(line("log_level"), ["log_level", "debug", "config-team.yaml:2"]);
    assert!(line("port")[2].starts_with("config.yaml:") && line("max_map_length")[2] == "default", "{listed}");
    // An unknown key is only a warning, because a later release may know it. The warning names the file and the line.
    let verified = test.run(&["verify-config"]).expect(0);
    assert!(verified.stderr.contains("config-team.yaml:4: unknown key \"odd\""), "{}", verified.stderr);
    assert!(verified.stderr.contains("config-zz.yaml:3: unknown key \"backup.odd\""), "{}", verified.stderr);
    let set = test.run(&["config", "set", "backup.keep", "9"]).expect(0);
    assert!(set.stderr.contains("config-zz.yaml:2 also sets backup.keep"), "{}", set.stderr);
    assert!(std::fs::read_to_string(&path).unwrap().contains("keep: 9"));

    // Of the changed settings only the log level needs a restart; the others are read when they are used.
    assert_eq!(test.status()["needs_restart"], json!(["log_level"]));
    let server = test.pid("server");
    let signalled = nix::sys::signal::kill(nix::unistd::Pid::from_raw(server), nix::sys::signal::Signal::SIGHUP);
    signalled.unwrap();
    let log = || std::fs::read_to_string(test.home.join("logs/server.log")).unwrap();
    wait_until("the server logs that the log level needs a restart", Duration::from_secs(10), || {
        log().contains("restart --if-needed`: log_level")
    });
    assert_eq!(test.pid("server"), server);
    let restarted = test.run(&["lite", "restart", "--if-needed"]).expect(0);
    assert!(restarted.stderr.contains("Changed since the start: log_level"), "{}", restarted.stderr);
    assert_ne!(test.pid("server"), server);
    assert!(test.status().get("needs_restart").is_none());
    let server = test.pid("server");
    let unchanged = test.run(&["lite", "restart", "--if-needed"]).expect(0);
    assert!(unchanged.stdout.contains("No changed setting needs a restart"), "{}", unchanged.stdout);
    assert_eq!(test.pid("server"), server);

    // Errors name the file and the line, or the variable, and the command changes nothing.
    std::fs::write(test.home.join("config-zz.yaml"), "\nport: none\n").unwrap();
    let wrong = test.run(&["verify-config"]).expect(1).stdout;
    assert!(wrong.contains("config-zz.yaml:2: port: \"none\" is not a port number"), "{wrong}");
    let wrong = test.run(&["config", "set", "backup.keep", "2"]).expect(1).stderr;
    assert!(wrong.contains("config-zz.yaml:2"), "{wrong}");
    std::fs::remove_file(test.home.join("config-zz.yaml")).unwrap();
    let wrong = test.command(&["config", "list"]).env("LEOFLOW_PORT", "http").output().unwrap();
    let error = String::from_utf8(wrong.stderr).unwrap();
    assert!(
        !wrong.status.success() && error.contains("LEOFLOW_PORT is not") && error.contains("unset LEOFLOW_PORT"),
        "{error}"
    );
}

#[test]
fn a_secret_kept_in_a_file_is_included_in_backups() {
    let test = TestHome::started();
    test.run(&["connections", "add", "c", "--conn-type", "http", "--conn-password", "swordfish"]).expect(0);
    test.run(&["lite", "stop"]).expect(0);
    let path = test.home.join("config.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let line = text.lines().find(|line| line.starts_with("encryption_key:")).unwrap();
    let key = line.split_once(": ").unwrap().1.trim_matches('\'').to_owned();
    let file = test.folder().join("key");
    std::fs::write(&file, format!("{key}\n")).unwrap();
    std::fs::write(&path, text.replace(line, &format!("encryption_key: file:{}", file.display()))).unwrap();
    test.start();
    let backup = test.backup("b.tar.zst");
    assert!(!std::fs::read_to_string(&path).unwrap().contains(&key));
    std::fs::remove_file(&file).unwrap();
    // A restart that cannot read a secret stops nothing.
    let pid = test.status()["pid"].clone();
    let refused = test.run(&["lite", "restart"]).expect(1).stderr;
    assert!(refused.contains("no such file") && refused.contains("nothing was stopped"), "{refused}");
    assert_eq!((&test.status()["pid"], &test.status()["state"]), (&pid, &"healthy".into()));
    test.run(&["lite", "stop"]).expect(0);
    let refused = test.run(&["lite", "start"]).expect(1).stderr;
    assert!(refused.contains("encryption_key: file:") && refused.contains("no such file"), "{refused}");
    let other = TestHome::new();
    other.restore(&backup, &[]).expect(0);
    other.start();
    let exported = other.folder().join("connections.json");
    other.run(&["connections", "export", exported.to_str().unwrap()]).expect(0);
    let exported = std::fs::read_to_string(exported).unwrap();
    assert!(exported.contains("swordfish"), "{exported}");
}

#[test]
fn environment_variables_of_the_first_start_stay_in_effect() {
    let test = TestHome::new();
    let other = free_port();
    let started = test
        .command(&["lite", "start", "--json"])
        .env("LEOFLOW_PORT", other.to_string())
        .env("LEOFLOW_LOG_LEVEL", "debug")
        .output()
        .unwrap();
    assert!(started.status.success(), "{started:?}");
    assert_eq!(crate::support::http::get(other, "/api/healthz").status, 200);
    assert!(test.status().get("needs_restart").is_none(), "{}", test.status());
    let unchanged = test.run(&["lite", "restart", "--if-needed"]).expect(0);
    assert!(unchanged.stdout.contains("No changed setting needs"), "{}", unchanged.stdout);
    // A restart keeps the port of the first start.
    test.run(&["lite", "restart"]).expect(0);
    assert_eq!(crate::support::http::get(other, "/api/healthz").status, 200);
    // The supervisor must bind the new host. Instances on 0.0.0.0 show 127.0.0.1 in their URL, but the hosts differ.
    test.run(&["config", "set", "host", "0.0.0.0"]).expect(0);
    assert_eq!(test.status()["needs_restart"], json!(["host"]));
    test.run(&["lite", "restart", "--if-needed"]).expect(0);
    assert!(test.status().get("needs_restart").is_none());
    test.run(&["config", "set", "host", "127.0.0.1"]).expect(0);
    assert_eq!(test.status()["needs_restart"], json!(["host"]));
    let before = std::fs::read_to_string(test.home.join("config.yaml")).unwrap();
    std::fs::write(test.home.join("config-a.yaml"), "backup: {passphrase: 'file:/p'}\n").unwrap();
    let key = "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z";
    let refused = test.run(&["config", "set", "backup.recipients", key]).expect(1);
    assert!(refused.stderr.contains("backup.passphrase"), "{}", refused.stderr);
    assert_eq!(std::fs::read_to_string(test.home.join("config.yaml")).unwrap(), before);
}
