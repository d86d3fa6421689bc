//! A program that pip owns: pip replaces it, and `leoflow upgrade` or the next start brings the home to it.

use crate::support::changing_release::{Load, assert_undisturbed, populate, variable, version};
use crate::support::releases::{FIRST, Migration, Release, Releases, SECOND, releases};
use crate::support::{TestHome, newest};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// Puts a release into an environment with the records that pip writes, in place of the one there, as pip does.
fn pip_install(environment: &Path, all: &Releases, version: &str) -> PathBuf {
    let site = environment.join("lib/python3.11/site-packages");
    let _ = fs::remove_dir_all(&site);
    let info = site.join(format!("leoflow-{version}.dist-info"));
    fs::create_dir_all(&info).unwrap();
    fs::write(info.join("INSTALLER"), "pip\n").unwrap();
    fs::write(info.join("RECORD"), "../../../bin/leoflow,sha256=x,1\n").unwrap();
    let program = environment.join("bin/leoflow");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    let _ = fs::remove_file(&program);
    fs::hard_link(all.program(version), &program)
        .or_else(|_| fs::copy(all.program(version), &program).map(drop))
        .unwrap();
    program
}

/// A home whose program pip owns, at the first release, and the environment.
fn packaged(all: &Releases) -> (TestHome, PathBuf) {
    let mut test = TestHome::new();
    let environment = test.folder().join("venv");
    test.program = pip_install(&environment, all, "0.1.0");
    (test, environment)
}

#[test]
fn upgrade_names_the_command_of_the_package_manager() {
    let all = releases(&[FIRST, SECOND]);
    let (mut test, _) = packaged(&all);
    test.start();
    for arguments in [&["upgrade", "--yes"][..], &["upgrade", "0.2.0", "--from", all.dist().to_str().unwrap(), "--yes"]]
    {
        let refused = test.run(arguments).expect(3);
        assert!(refused.stderr.contains("leoflow 0.1.0 belongs to pip"), "{}", refused.stderr);
        assert!(refused.stderr.contains("hint: pip install --upgrade leoflow"), "{}", refused.stderr);
        assert!(refused.stderr.contains("leoflow upgrade"), "{}", refused.stderr);
    }
    assert!(!test.home.join("versions/0.2.0").exists());
    // The lookup of the server's pages is no error.
    let plan = test.run(&["upgrade", "plan", "--json"]).expect(0).json();
    assert_eq!((&plan["status"], &plan["version"]), (&json!("up_to_date"), &json!("0.1.0")));
    assert!(plan["warnings"][0].as_str().unwrap().contains("pip install --upgrade leoflow"), "{plan}");
    // No package manager owns the home's copy of the program.
    test.program = test.home.join("bin/leoflow");
    let plan = test.run(&["upgrade", "plan", "--from", all.dist().to_str().unwrap(), "--json"]).expect(0).json();
    assert_eq!(plan["to"], "0.2.0");
}

#[test]
fn a_running_instance_is_upgraded_to_what_pip_installed() {
    let all = releases(&[FIRST, SECOND]);
    let (test, environment) = packaged(&all);
    let (test, session, run) = populate(test);
    pip_install(&environment, &all, "0.2.0");
    // The instance runs on with the program whose file pip has removed, and its pages still start that program.
    let releases = session.request("GET", "/api/lite/releases", "");
    assert_eq!(releases.status, 200, "{releases:?}");
    assert_eq!(version(&test), "0.1.0");
    let again = test.run(&["lite", "start"]).expect(0);
    assert!(again.stderr.contains("pip installed leoflow 0.2.0, but 0.1.0 is running: leoflow upgrade"), "{again:?}");
    let load = Load::start(test.port, &session.token);
    let done = test.run(&["upgrade", "--yes", "--json"]).expect(0).json();
    load.end().assert_nothing_lost(&test);
    assert_eq!((&done["previous_version"], &done["new_version"]), (&json!("0.1.0"), &json!("0.2.0")));
    assert!(Path::new(done["backup_path"].as_str().unwrap()).exists());
    assert_eq!(variable(&test, "kept").as_deref(), Some("value"));
    assert_undisturbed(&test, &run);
    // Back, with the data; the next start does not repeat the upgrade by itself.
    test.run(&["rollback", "--yes"]).expect(0);
    assert_eq!((version(&test), test.status()["schema_version"].as_i64().unwrap()), ("0.1.0".to_owned(), newest()));
    let refused = test.run(&["lite", "restart"]).expect(3);
    assert!(refused.stderr.contains("this home stays at leoflow 0.1.0"), "{}", refused.stderr);
    assert_eq!((version(&test).as_str(), test.state().as_str()), ("0.1.0", "healthy"), "nothing was stopped");
    test.run(&["lite", "stop"]).expect(0);
    let refused = test.run(&["lite", "start"]).expect(3);
    assert!(refused.stderr.contains("this home stays at leoflow 0.1.0: 0.2.0 was rolled back"), "{}", refused.stderr);
    let installed = format!("{} lite start", test.home.join("bin/leoflow").display());
    assert!(
        refused.stderr.contains(&installed) && refused.stderr.contains("leoflow upgrade 0.2.0"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_start_upgrades_a_stopped_home_to_what_pip_installed() {
    let all = releases(&[FIRST, SECOND]);
    let (test, environment) = packaged(&all);
    test.start();
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    test.run(&["lite", "stop"]).expect(0);
    pip_install(&environment, &all, "0.2.0");
    let backups = || fs::read_dir(test.home.join("backups")).into_iter().flatten().count();
    let before = backups();
    let started = test.run(&["lite", "start", "--json"]).expect(0);
    assert!(started.stderr.contains("upgrading this home from 0.1.0 first"), "{}", started.stderr);
    assert!(started.json()["url"].is_string(), "one document: {}", started.stdout);
    let status = test.status();
    assert_eq!((&status["version"], &status["schema_version"]), (&json!("0.2.0"), &json!(newest() + 1)));
    assert_eq!(variable(&test, "kept").as_deref(), Some("value"));
    assert!(backups() > before);
    assert!(fs::read_link(test.home.join("bin/leoflow")).unwrap().ends_with("0.2.0/leoflow"));
    // An older program of pip runs the installed one, as only a rollback goes back.
    test.run(&["lite", "stop"]).expect(0);
    pip_install(&environment, &all, "0.1.0");
    let started = test.run(&["lite", "start"]).expect(0);
    assert!(started.stderr.contains("Using this instance's Leoflow 0.2.0 (this program is 0.1.0)"), "{started:?}");
    assert_eq!(version(&test), "0.2.0");
}

#[test]
fn a_bad_release_of_pip_leaves_the_home_at_the_earlier_one() {
    let bad = Release { version: "0.3.0", migration: Migration::Fails, fault: None };
    let all = releases(&[FIRST, bad]);
    let (mut test, environment) = packaged(&all);
    test.start();
    test.run(&["lite", "stop"]).expect(0);
    pip_install(&environment, &all, "0.3.0");
    let failed = test.run(&["lite", "start"]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stderr.contains("to go on with 0.1.0: "), "{}", failed.stderr);
    // The hint works.
    test.program = test.home.join("bin/leoflow");
    test.run(&["lite", "start"]).expect(0);
    assert_eq!(version(&test), "0.1.0");
}
