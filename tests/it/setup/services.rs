//! Leoflow as a service of the user: with a fake systemctl or launchctl, and with a real systemd where one is available.

use crate::support::processes;
use crate::support::releases::{FIRST, SECOND, releases};
use crate::support::services::Services;
use crate::support::{TestHome, WAITING_DAG, wait_until};
use std::fs;
use std::time::Duration;

fn unit_file(services: &Services) -> (std::path::PathBuf, String) {
    let file = fs::read_dir(&services.units).unwrap().flatten().map(|entry| entry.path()).find(|path| path.is_file());
    let file = file.expect("a unit file");
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    (file, name)
}

fn supervisor_pid(test: &TestHome) -> i32 {
    test.status()["pid"].as_i64().unwrap() as i32
}

#[test]
fn a_manual_start_becomes_a_service_and_commands_keep_working() {
    let test = TestHome::new();
    let services = Services::fake(&test);
    let run = |arguments: &[&str]| services.run(&test, arguments);
    let refused = run(&["service", "install"]).expect(1);
    assert!(refused.stderr.contains("leoflow setup"), "{refused:?}");
    test.start();
    let manual_pid = supervisor_pid(&test);
    assert_eq!(run(&["service", "status", "--json"]).expect(1).json()["installed"], false);

    let dry = run(&["service", "install", "--now", "--dry-run", "--json"]).expect(0).json();
    assert_eq!(dry["steps"].as_array().unwrap().len(), 5, "{dry}");
    assert!(!services.units.exists() && supervisor_pid(&test) == manual_pid);

    run(&["service", "install"]).expect(0);
    assert_eq!(supervisor_pid(&test), manual_pid, "the service starts at the next login");
    let (file, name) = unit_file(&services);
    assert!(fs::read_to_string(&file).unwrap().contains(&format!("\nX-Leoflow-Home={}\n", test.home.display())));
    run(&["service", "install", "--now"]).expect(0);
    let main = services.main_pid(&test, &name);
    assert_eq!(supervisor_pid(&test), main);
    assert!(main != manual_pid && !processes::is_alive(manual_pid));
    let again = run(&["service", "install", "--now", "--json"]).expect(0).json();
    assert_eq!(again["steps"].as_array().unwrap().len(), 0, "{again}");
    let status = run(&["service", "status", "--json"]).expect(0).json();
    assert_eq!((&status["enabled"], &status["current"]), (&true.into(), &true.into()), "{status}");
    assert_eq!(status["pid"].as_i64(), Some(main.into()));

    // A restart stays within the service: in place, or through systemd when the port changes.
    run(&["lite", "restart"]).expect(0);
    assert_eq!(supervisor_pid(&test), main);
    run(&["lite", "restart", "--port", "1"]).expect(1);
    let port = crate::support::free_port().to_string();
    run(&["config", "set", "port", &port]).expect(0);
    run(&["lite", "restart"]).expect(0);
    let moved = services.main_pid(&test, &name);
    assert!(moved != main && supervisor_pid(&test) == moved, "{moved}");
    assert!(test.status()["url"].as_str().unwrap().ends_with(&port));

    run(&["lite", "stop", "--yes"]).expect(0);
    assert_eq!(services.main_pid(&test, &name), 0);
    let ready = run(&["lite", "start", "--json"]).expect(0);
    assert!(ready.json()["url"].as_str().unwrap().ends_with(&port), "{ready:?}");
    assert_eq!(supervisor_pid(&test), services.main_pid(&test, &name));

    // A failed start of the service shows its reason, as a start without a service does.
    run(&["lite", "stop", "--yes"]).expect(0);
    let taken = std::net::TcpListener::bind(("127.0.0.1", port.parse().unwrap())).unwrap();
    let refused = run(&["lite", "start"]).expect(1);
    assert!(refused.stderr.contains(&port) && !refused.stderr.contains("systemctl"), "{refused:?}");
    drop(taken);
    run(&["lite", "start"]).expect(0);
    let doctor = run(&["doctor", "--json"]).json();
    let check = doctor["checks"].as_array().unwrap().iter().find(|check| check["name"] == "service").unwrap();
    assert_eq!(check["verdict"], "ok", "{check}");

    run(&["service", "uninstall", "--now"]).expect(0);
    assert!(!file.exists() && test.state() == "stopped");
    assert!(!services.units.join("default.target.wants").join(&name).is_symlink());
    run(&["service", "uninstall"]).expect(0);
    test.assert_nothing_runs();
}

#[test]
fn uninstall_removes_the_service() {
    for arguments in [&["uninstall", "--yes"][..], &["uninstall", "--purge", "--yes"]] {
        let test = TestHome::started();
        let services = Services::fake(&test);
        services.run(&test, &["service", "install", "--now"]).expect(0);
        let (file, _) = unit_file(&services);
        let shown = services.run(&test, &["uninstall", "--dry-run", "--json"]).expect(0).json();
        assert_eq!(shown["service"], file.to_str().unwrap());
        services.run(&test, arguments).expect(0);
        assert!(!file.exists(), "{arguments:?}");
        test.assert_nothing_runs();
    }
}

#[test]
fn foreign_unit_files_and_a_missing_systemd_change_nothing() {
    let test = TestHome::started();
    let services = Services::fake(&test);
    services.set_offline(&test, true);
    let refused = services.run(&test, &["service", "install"]).expect(1);
    assert!(refused.stderr.contains("No medium found") && refused.stderr.contains("linger"), "{refused:?}");
    let dry = services.run(&test, &["service", "install", "--dry-run", "--json"]).expect(0);
    assert_eq!(dry.json()["steps"].as_array().unwrap().len(), 3, "{dry:?}");
    assert!(dry.stderr.contains("No medium found"), "{dry:?}");
    assert!(!services.units.exists());
    services.set_offline(&test, false);
    services.run(&test, &["service", "install"]).expect(0);
    let (file, _) = unit_file(&services);
    for foreign in ["[Service]\nExecStart=/bin/true\n", "[Unit]\nX-Leoflow-Home=/somewhere/else\n"] {
        fs::write(&file, foreign).unwrap();
        services.run(&test, &["service", "install"]).expect(3);
        services.run(&test, &["service", "uninstall"]).expect(0);
        services.run(&test, &["uninstall", "--dry-run"]).expect(0);
        assert_eq!(fs::read_to_string(&file).unwrap(), foreign);
    }
    fs::remove_file(&file).unwrap();
    services.run(&test, &["service", "install"]).expect(0);
    // If systemd is unreachable, Lite starts without it, and `service uninstall` removes the unit file.
    test.run(&["lite", "stop"]).expect(0);
    services.set_offline(&test, true);
    let started = services.run(&test, &["lite", "start"]).expect(0);
    assert!(started.stderr.contains("without"), "{started:?}");
    services.run(&test, &["service", "uninstall"]).expect(0);
    assert!(!file.exists());
    // A machine without systemd gets a clear error.
    let mut without_systemd = test.command(&["service", "install"]);
    let without_systemd: crate::support::CommandOutput =
        without_systemd.env("PATH", test.folder()).output().unwrap().into();
    assert!(without_systemd.expect(1).stderr.contains("systemd is not available on this machine"));
}

#[test]
fn a_killed_service_change_is_finished_by_the_next_command() {
    let test = TestHome::started();
    let services = Services::fake(&test);
    let checkpoints = |arguments: &[&str]| {
        let log = test.folder().join("checkpoints");
        let _ = fs::remove_file(&log);
        services.command(&test, arguments).env("LEOFLOW_CHECKPOINT_LOG", &log).output().unwrap();
        let text = fs::read_to_string(&log).unwrap();
        let names = text.lines().filter(|name| name.starts_with("service.")).map(str::to_owned);
        names.collect::<Vec<_>>()
    };
    let kill_at = |arguments: &[&str], checkpoint: &str| {
        let done = services.command(&test, arguments).env("LEOFLOW_KILL_AT", checkpoint).output().unwrap();
        assert_eq!(done.status.code(), None, "{checkpoint}");
    };
    let (install, uninstall) = (["service", "install"], ["service", "uninstall"]);
    let names = checkpoints(&install);
    assert_eq!(names, ["service.receipt", "service.file", "service.enabled"]);
    let (file, _) = unit_file(&services);
    let removal = checkpoints(&uninstall);
    assert_eq!(removal, ["service.disabled", "service.removed"]);
    for checkpoint in &names {
        kill_at(&install, checkpoint);
        services.run(&test, &install).expect(0);
        assert_eq!(
            services.run(&test, &["service", "status", "--json"]).expect(0).json()["enabled"],
            true,
            "{checkpoint}"
        );
        services.run(&test, &uninstall).expect(0);
        kill_at(&install, checkpoint);
        services.run(&test, &uninstall).expect(0);
        assert!(!file.exists(), "{checkpoint}");
    }
    for checkpoint in &removal {
        services.run(&test, &install).expect(0);
        kill_at(&uninstall, checkpoint);
        services.run(&test, &uninstall).expect(0);
        assert!(!file.exists(), "{checkpoint}");
        assert!(fs::read_dir(services.units.join("default.target.wants")).unwrap().next().is_none(), "{checkpoint}");
    }
}

#[test]
fn launchd_runs_the_service_as_systemd_does() {
    let test = TestHome::started();
    let services = Services::fake_launchd(&test);
    let run = |arguments: &[&str]| services.run(&test, arguments);
    let service_pid = || run(&["service", "status", "--json"]).json()["pid"].as_i64().map(|pid| pid as i32);
    services.set_offline(&test, true);
    let refused = run(&["service", "install"]).expect(1);
    assert!(refused.stderr.contains("desktop") && !refused.stderr.contains("loginctl"), "{refused:?}");
    services.set_offline(&test, false);

    let manual = supervisor_pid(&test);
    run(&["service", "install"]).expect(0);
    assert_eq!((supervisor_pid(&test), service_pid()), (manual, None), "the service starts at the next login");
    let (file, name) = unit_file(&services);
    fs::write(
        test.folder().join("manager/disabled"),
        format!("\t\"{}\" => disabled\n", name.trim_end_matches(".plist")),
    )
    .unwrap();
    assert_eq!(run(&["service", "status", "--json"]).expect(0).json()["enabled"], false);
    let installed = run(&["service", "install", "--now"]).expect(0);
    assert!(!installed.stdout.contains("loginctl"), "{installed:?}");
    let main = service_pid().expect("a service");
    assert_eq!(supervisor_pid(&test), main);
    assert!(main != manual && !processes::is_alive(manual));
    let again = run(&["service", "install", "--now", "--json"]).expect(0).json();
    assert_eq!(again["steps"].as_array().unwrap().len(), 0, "{again}");

    processes::signal(main, "KILL");
    wait_until("another supervisor", Duration::from_secs(30), || {
        service_pid().is_some_and(|pid| pid != main) && test.state() == "healthy"
    });
    let restarted = service_pid().unwrap();
    let port = crate::support::free_port().to_string();
    run(&["config", "set", "port", &port]).expect(0);
    run(&["lite", "restart"]).expect(0);
    let moved = supervisor_pid(&test);
    assert_eq!(service_pid(), Some(moved));
    assert!(moved != restarted && test.status()["url"].as_str().unwrap().ends_with(&port));

    run(&["lite", "stop", "--yes"]).expect(0);
    assert_eq!((test.state(), service_pid()), ("stopped".to_owned(), None));
    let taken = std::net::TcpListener::bind(("127.0.0.1", port.parse().unwrap())).unwrap();
    let refused = run(&["lite", "start"]).expect(1);
    assert!(refused.stderr.contains(&port) && !refused.stderr.contains("launchctl"), "{refused:?}");
    drop(taken);
    run(&["lite", "start"]).expect(0);
    assert_eq!(service_pid(), Some(supervisor_pid(&test)));

    // launchd does not start it again and again when no start can help.
    run(&["lite", "stop", "--yes"]).expect(0);
    let location = test.home.join("datastore.json");
    fs::write(&location, "{").unwrap();
    run(&["lite", "start"]).expect(3);
    let failures = || {
        let log = fs::read_to_string(test.home.join("logs/supervisor.log")).unwrap();
        log.lines().filter(|line| line.contains("error") && line.contains("datastore.json")).count()
    };
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(failures(), 1);
    let refused = run(&["service", "install", "--now"]).expect(3);
    assert!(refused.stderr.contains("datastore.json") && !refused.stderr.contains("bootstrap"), "{refused:?}");
    fs::remove_file(&location).unwrap();

    run(&["lite", "start"]).expect(0);
    run(&["service", "uninstall", "--now"]).expect(0);
    assert!(!file.exists() && test.state() == "stopped");
    test.assert_nothing_runs();
}

#[test]
fn real_systemd_restarts_a_killed_lite_and_upgrades_in_place() {
    let all = releases(&[FIRST, SECOND]);
    let test = TestHome::with_program(all.program("0.1.0"));
    test.start();
    let Some(services) = Services::real(&test) else {
        println!("skipped: no systemd can be run here; the tests with the fake systemctl remain");
        return;
    };
    let run = |arguments: &[&str]| services.run(&test, arguments);
    run(&["service", "install", "--now"]).expect(0);
    let (_, name) = unit_file(&services);
    let active = || services.systemctl(&test, &["is-active", &name]).stdout.trim().to_owned();
    assert_eq!(active(), "active");
    let killed = services.main_pid(&test, &name);
    assert_eq!(supervisor_pid(&test), killed);
    processes::signal(killed, "KILL");
    wait_until("another supervisor", Duration::from_secs(30), || {
        let main = services.main_pid(&test, &name);
        main != 0 && main != killed && test.state() == "healthy"
    });
    let main = services.main_pid(&test, &name);
    let from = all.dist();
    run(&["upgrade", "--from", from.to_str().unwrap(), "--yes"]).expect(0);
    wait_until("the new release", Duration::from_secs(20), || {
        test.status()["version"].as_str().unwrap().starts_with("0.2.0") && test.state() == "healthy"
    });
    assert_eq!((services.main_pid(&test, &name), active()), (main, "active".to_owned()));
    // `systemctl stop` does not end tasks: the next start adopts them.
    test.add_dag("patient", WAITING_DAG);
    let run_id = test.trigger("patient");
    let ran = test.workspace().join("ran");
    wait_until("the task", Duration::from_secs(30), || ran.exists());
    services.systemctl(&test, &["stop", &name]).expect(0);
    assert_eq!(test.state(), "stopped");
    services.systemctl(&test, &["start", &name]).expect(0);
    fs::write(test.workspace().join("go"), "").unwrap();
    assert_eq!(test.wait_run("patient", &run_id)["state"], "success");
    assert_eq!(fs::read_to_string(&ran).unwrap(), "x");
    assert_eq!((test.state(), active()), ("healthy".to_owned(), "active".to_owned()));
    run(&["lite", "stop", "--yes"]).expect(0);
    wait_until("inactive", Duration::from_secs(10), || active() == "inactive");
    run(&["lite", "start"]).expect(0);
    assert_eq!(active(), "active");
    run(&["uninstall", "--purge", "--yes"]).expect(0);
    assert_eq!(active(), "inactive");
    assert!(!services.units.join(&name).exists());
}
