//! Upgrades to releases that must not be installed, and over networks that fail, are refused and change nothing. Also
//! rules of the release tool.

use crate::support::mirror;
use crate::support::releases::{
    FIRST, Releases, SECOND, example_program, make_release, new_key, releases, write_contract, write_program,
};
use crate::support::releases::{Migration, Release};
use crate::support::{CommandOutput, TestHome};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn set_up(all: &Releases) -> TestHome {
    let test = TestHome::with_program(all.program("0.1.0"));
    test.set_up();
    test
}

fn run_upgrade(test: &TestHome, from: &str, more: &[&str]) -> CommandOutput {
    test.run(&[&["upgrade", "--from", from, "--yes"], more].concat())
}

/// Copies the release's folder, so that a test can modify it.
fn copy_dist(all: &Releases, test: &TestHome, name: &str) -> PathBuf {
    let copy = test.folder().join(name);
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(all.dist()).unwrap().flatten() {
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    copy
}

fn manifest(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap()
}

/// Writes a manifest and signs it with the release key.
fn publish(all: &Releases, folder: &Path, manifest: &Value) {
    fs::write(folder.join("manifest.json"), serde_json::to_vec_pretty(manifest).unwrap()).unwrap();
    sign(&all.key(), folder);
}

fn sign(key: &Path, folder: &Path) {
    let done =
        Command::new(example_program("make-release")).arg("sign").arg(key).arg(folder.join("manifest.json")).output();
    let done = done.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[track_caller]
fn assert_refused(test: &TestHome, done: &CommandOutput, code: i32, what: &str) {
    assert_eq!(done.code, Some(code), "{what}: {done:?}");
    assert!(done.stderr.contains(what), "{what}: {}", done.stderr);
    assert!(done.stderr.contains("hint: "), "{what}: {}", done.stderr);
    assert!(!test.home.join("versions/0.2.0").exists(), "{what}");
    assert!(!test.home.join("run/journal.json").exists(), "{what}");
    let link = fs::read_link(test.home.join("bin/leoflow")).unwrap();
    assert!(link.to_str().unwrap().contains("0.1.0"), "{what}");
}

#[test]
fn releases_not_signed_by_a_trusted_key_are_refused() {
    let all = releases(&[FIRST, SECOND]);
    let test = set_up(&all);
    let from = |folder: &Path| run_upgrade(&test, folder.to_str().unwrap(), &[]);

    let unsigned = copy_dist(&all, &test, "unsigned");
    fs::remove_file(unsigned.join("manifest.json.minisig")).unwrap();
    assert_refused(&test, &from(&unsigned), 3, "counts as unsigned");

    let altered = copy_dist(&all, &test, "altered");
    let text = fs::read_to_string(altered.join("manifest.json")).unwrap();
    fs::write(altered.join("manifest.json"), text.replace("0.2.0", "0.2.1")).unwrap();
    assert_refused(&test, &from(&altered), 3, "not signed by a key");

    let wrong_key = copy_dist(&all, &test, "others");
    let key = test.folder().join("key");
    new_key(&key);
    sign(&key, &wrong_key);
    assert_refused(&test, &from(&wrong_key), 3, "not signed by a key");

    let garbage = copy_dist(&all, &test, "garbage");
    fs::write(garbage.join("manifest.json.minisig"), "no signature").unwrap();
    assert_refused(&test, &from(&garbage), 3, "invalid signature file");

    let corrupted = copy_dist(&all, &test, "corrupted");
    let tarball = fs::read_dir(&corrupted)
        .unwrap()
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with("leoflow-0.2.0"));
    let tarball = tarball.unwrap().path();
    let mut bytes = fs::read(&tarball).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&tarball, &bytes).unwrap();
    assert_refused(&test, &from(&corrupted), 3, "does not match the manifest");
    fs::write(&tarball, &bytes[..middle]).unwrap();
    assert_refused(&test, &from(&corrupted), 1, "it ends after");
    fs::write(&tarball, "<html>not here</html>").unwrap();
    assert_refused(&test, &from(&corrupted), 3, "the host returned a web page");

    // A build without an embedded key trusts no release.
    let development = TestHome::new();
    development.set_up();
    let done = run_upgrade(&development, all.dist().to_str().unwrap(), &[]);
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(done.stderr.contains("development build"), "{}", done.stderr);
}

#[test]
fn incompatible_releases_are_refused_with_the_next_step() {
    let all = releases(&[FIRST, SECOND]);
    let test = set_up(&all);
    let folder = copy_dist(&all, &test, "folder");
    let original = manifest(&folder);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut changed = original.clone();
        change(&mut changed["releases"][0]);
        publish(&all, &folder, &changed);
        run_upgrade(&test, folder.to_str().unwrap(), &[])
    };
    let platform = with(&|release| release["assets"][0]["target"] = "riscv64-unknown-none".into());
    assert_refused(&test, &platform, 1, "has no program for this machine");
    let floor = with(&|release| release["upgrades_from"] = "0.1.5".into());
    assert_refused(&test, &floor, 3, "upgrades from 0.1.5 and later");
    let stop = with(&|release| {
        release["version"] = "0.5.0".into();
        release["required_stops"] = serde_json::json!(["0.4.0"]);
    });
    assert_refused(&test, &stop, 3, "0.4.0 must be installed first");
    assert!(stop.stderr.contains("leoflow upgrade 0.4.0"), "{}", stop.stderr);
    let edited = with(&|release| release["migrations"][0]["sha256"] = "0".repeat(64).into());
    assert_refused(&test, &edited, 3, "migration 1 of the database differs from the one in 0.2.0");
    let phase = with(&|release| {
        let last = release["migrations"].as_array().unwrap().len() - 1;
        release["migrations"][last]["phase"] = "sideways".into();
    });
    assert_refused(&test, &phase, 3, "has the unknown phase sideways");
    let major = with(&|release| release["components"][0]["version"] = "19.1".into());
    assert_refused(&test, &major, 3, "PostgreSQL 19.1");
    let huge = with(&|release| {
        release["components"][0]["version"] = "18.99".into();
        release["components"][0]["unpacked_size"] = 1_000_000_000_000_000_000u64.into();
    });
    assert_refused(&test, &huge, 1, "MB of free disk");
    let escapes = with(&|release| release["assets"][0]["url"] = "../../x".into());
    assert_refused(&test, &escapes, 1, "which is outside of its folder");
    let other = with(&|release| release["version"] = "0.2.7".into());
    assert_eq!(other.code, Some(1), "{other:?}");
    assert!(other.stderr.contains("is version 0.2.0, not 0.2.7"), "{}", other.stderr);
    assert!(!test.home.join("versions/0.2.7").exists());
}

#[test]
fn the_plan_reports_changed_tables() {
    let all = releases(&[FIRST, SECOND]);
    let test = set_up(&all);
    test.start();
    test.sql("ALTER TABLE variable ADD COLUMN summary text");
    let dist = all.dist();
    let plan = || test.run(&["upgrade", "plan", "--from", dist.to_str().unwrap()]);
    assert_refused(&test, &plan(), 3, "variable column summary text");
    assert_refused(&test, &run_upgrade(&test, dist.to_str().unwrap(), &[]), 3, "variable column summary text");
    test.sql("ALTER TABLE variable DROP COLUMN summary");
    plan().expect(0);
}

#[test]
fn an_installed_or_older_release_is_not_installed_again() {
    let all = releases(&[FIRST, SECOND]);
    let mut test = set_up(&all);
    let dist = all.dist();
    let dist = dist.to_str().unwrap();
    let same = run_upgrade(&test, dist, &["0.1.0"]).expect(0);
    assert!(same.stdout.contains("0.1.0 is already installed"), "{}", same.stdout);
    assert_refused(&test, &run_upgrade(&test, dist, &["0.9.0"]), 1, "there is no release 0.9.0");
    assert_refused(&test, &run_upgrade(&test, dist, &["nonsense"]), 2, "not a channel or a version");
    run_upgrade(&test, dist, &["v0.2.0"]).expect(0);
    let older = run_upgrade(&test, dist, &["0.1.0"]);
    assert_eq!(older.code, Some(3), "{older:?}");
    assert!(older.stderr.contains("leoflow rollback --to 0.1.0"), "{}", older.stderr);
    // A replayed older manifest offers nothing newer.
    let old = releases(&[FIRST]);
    let replayed = run_upgrade(&test, old.dist().to_str().unwrap(), &[]);
    assert_eq!(replayed.code, Some(0), "{replayed:?}");
    assert!(replayed.stdout.contains("newer than the newest release of its channel, 0.1.0"), "{}", replayed.stdout);
    // The older program refuses to upgrade while the newer one runs.
    test.program = test.home.join("bin/leoflow");
    test.start();
    test.program = all.program("0.1.0");
    let copy = run_upgrade(&test, dist, &["0.2.0"]).expect(3);
    let installed = test.home.join("versions/0.2.0/leoflow");
    assert!(copy.stderr.contains("this is leoflow 0.1.0, but 0.2.0 is running here"), "{}", copy.stderr);
    assert!(copy.stderr.contains(&format!("{} upgrade", installed.display())), "{}", copy.stderr);
    // The channel is saved in config.yaml beside the other settings.
    test.run(&["set-channel", "rc"]).expect(0);
    assert!(fs::read_to_string(test.home.join("config.yaml")).unwrap().contains("upgrade:\n  channel: rc\n"));
    test.run(&["set-channel", "stable"]).expect(0);
    assert_eq!(test.run(&["set-channel", "beta"]).code, Some(2));
}

#[test]
fn dry_run_and_a_declined_prompt_change_nothing() {
    let all = releases(&[FIRST, SECOND]);
    let test = set_up(&all);
    let dist = all.dist();
    let dist = dist.to_str().unwrap();
    let before = test.snapshot("versions");
    let planned = test.run(&["upgrade", "--dry-run", "--from", dist]).expect(0);
    assert!(planned.stdout.contains("leoflow 0.1.0 -> 0.2.0"), "{}", planned.stdout);
    assert!(planned.stdout.contains("Something new in 0.2.0"), "{}", planned.stdout);
    let json = test.run(&["upgrade", "plan", "--json", "--from", dist]).expect(0).json();
    assert_eq!((json["from"].as_str(), json["to"].as_str()), (Some("0.1.0"), Some("0.2.0")));
    // Without a terminal and --yes the upgrade is refused.
    test.run(&["upgrade", "--from", dist]).expect(3);
    assert_eq!(test.snapshot("versions"), before);
}

#[test]
fn an_interrupted_download_resumes() {
    let all = releases(&[FIRST, SECOND]);
    let test = set_up(&all);
    let (requests, dist) = (Arc::new(AtomicUsize::new(0)), all.dist());
    let base = {
        let requests = requests.clone();
        mirror::serve_ranges(
            dist,
            Arc::new(move |name: &str, from: usize, size: usize| {
                // Each response for the tarball breaks off after a third of it.
                if name.contains("leoflow-0.2.0") {
                    requests.fetch_add(1, Ordering::Relaxed);
                    (from + size / 3).min(size)
                } else {
                    size
                }
            }),
        )
    };
    run_upgrade(&test, &base, &[]).expect(0);
    assert!((3..=5).contains(&requests.load(Ordering::Relaxed)), "{requests:?}");
    assert!(test.home.join("versions/0.2.0/leoflow").exists());
}

#[test]
fn network_failures_are_reported_and_change_nothing() {
    let all = releases(&[FIRST, SECOND]);
    let test = set_up(&all);
    let answer =
        |status: u16, body: &'static [u8]| mirror::serve(Arc::new(move |_: &str| (status, body.to_vec())), false);
    for (base, message) in [
        (answer(403, b"no"), "the host requires a login"),
        (answer(407, b"no"), "the proxy requires a login"),
        (answer(429, b"no"), "the host limits requests"),
        (answer(503, b"no"), "the host has a problem"),
        (answer(200, b"<html>log in first</html>"), "does this network require a login?"),
        (mirror::serve_redirects(), "redirect"),
        ("http://127.0.0.1:9".to_owned(), "cannot read"),
        (test.folder().join("nothing").to_str().unwrap().to_owned(), "does not exist"),
    ] {
        let done = run_upgrade(&test, &base, &[]);
        assert!(matches!(done.code, Some(1 | 3)), "{base}: {done:?}");
        assert_refused(&test, &done, done.code.unwrap(), message);
    }
}

#[test]
fn the_release_tool_enforces_version_number_rules() {
    let all = releases(&[FIRST, SECOND]);
    let test = TestHome::new();
    let output = |name: &str| test.folder().join(name);
    let dist = all.dist();
    let from = ["--from", dist.to_str().unwrap()];
    let missing = format!("V{:04}__more of 0.2.0 is missing", crate::support::newest() + 1);
    for (version, migration, why) in [
        ("0.2.1", Migration::Data, missing.as_str()),
        ("0.2.0", Migration::AddsTable, "is already released"),
        ("0.1.9", Migration::AddsTable, "0.1.9 is a patch release"),
    ] {
        write_program(&all.program(version).with_extension("try"), &Release { version, migration, fault: None });
        fs::rename(all.program(version).with_extension("try"), all.program(version)).unwrap();
        let done = make_release(&all, version, &output(version), &from);
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && stderr.contains(why), "{version}: {stderr}");
        assert!(!output(version).exists(), "{version}");
    }
    let first = releases(&[FIRST]);
    let dist = first.dist();
    let from = ["--from", dist.to_str().unwrap()];
    for (version, migration, why) in [
        ("0.1.1", Migration::AddsTable, "0.1.1 is a patch release"),
        ("0.2.0", Migration::Data, "cannot be undone"),
        ("0.2.0-rc1", Migration::AddsTable, "--channel rc"),
    ] {
        write_program(&first.program(version), &Release { version, migration, fault: None });
        let done = make_release(&first, version, &output(&format!("{version}-2")), &from);
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && stderr.contains(why), "{version}: {stderr}");
    }
    // A setting in the last release's contract must be deprecated before it is removed.
    let version = "0.2.0";
    write_program(&first.program(version), &Release { version, migration: Migration::AddsTable, fault: None });
    let contract = test.folder().join("contract.json");
    write_contract(&contract, |settings| drop(settings.as_object_mut().unwrap().remove("port").unwrap()));
    let more = [from[0], from[1], "--contract", contract.to_str().unwrap()];
    let done = make_release(&first, version, &output("without-port"), &more);
    let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
    let why = "setting port was removed: a removal or a change is announced as deprecated";
    assert!(!done.status.success() && stderr.contains(why), "{stderr}");
    assert!(!output("without-port").exists());
}

#[test]
fn release_builds_are_reproducible_and_reuse_components() {
    let all = releases(&[FIRST, SECOND]);
    let test = TestHome::new();
    let (build_a, build_b) = (test.folder().join("one"), test.folder().join("other"));
    let first = releases(&[FIRST]);
    for output in [&build_a, &build_b] {
        // Same program, key and previous release.
        let done = make_release(&all, "0.2.0", output, &["--from", first.dist().to_str().unwrap()]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let names = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&build_a), names(&build_b));
    // Signatures are not deterministic.
    for name in names(&build_a).into_iter().filter(|name| !name.to_string_lossy().ends_with(".minisig")) {
        assert_eq!(fs::read(build_a.join(&name)).unwrap(), fs::read(build_b.join(&name)).unwrap(), "{name:?}");
    }
    let described = manifest(&build_a);
    let (new, old) = (&described["releases"][0]["components"][0], &described["releases"][1]["components"][0]);
    assert_eq!(new, old, "PostgreSQL is carried over");
    assert_eq!(new["produced_by"], "0.1.0");
    let sums =
        Command::new("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]).current_dir(&build_a).output().unwrap();
    assert!(sums.status.success(), "{}", String::from_utf8_lossy(&sums.stderr));
}

#[test]
fn an_outdated_or_expired_manifest_is_reported() {
    let all = releases(&[FIRST, SECOND]);
    let test = set_up(&all);
    let (new, old) = (copy_dist(&all, &test, "new"), copy_dist(&all, &test, "old"));
    let mut later = manifest(&new);
    later["releases"].as_array_mut().unwrap().retain(|release| release["version"] == "0.1.0");
    (later["issued_at"], later["expires_at"]) = ("2026-11-20T12:00:00Z".into(), "2999-01-01T00:00:00Z".into());
    publish(&all, &new, &later);
    let check = |folder: &Path, command: &[&str]| test.run(&[command, &["--from", folder.to_str().unwrap()]].concat());
    // `upgrade plan` records nothing; an upgrade records the manifest even when there is nothing to do.
    for (command, is_recorded) in [(&["upgrade", "plan"][..], false), (&["upgrade", "--yes"], true)] {
        let done = check(&new, command).expect(0);
        assert!(!done.stderr.contains("warning"), "{}", done.stderr);
        assert_eq!(test.home.join("upgrade/seen.json").exists(), is_recorded);
    }
    let mut earlier = later.clone();
    earlier["issued_at"] = "2026-11-19T12:00:00Z".into();
    earlier["expires_at"] = "2026-11-20T00:00:00Z".into();
    publish(&all, &old, &earlier);
    let done = check(&old, &["upgrade"]).expect(0);
    assert!(done.stderr.contains("had a newer one on 2026-11-20T12:00:00Z"), "{}", done.stderr);
    assert!(done.stderr.contains("expired on 2026-11-20T00:00:00Z"), "{}", done.stderr);
    let plan_json = check(&old, &["upgrade", "--json"]).expect(0).json();
    assert_eq!(plan_json["warnings"].as_array().unwrap().len(), 2, "{plan_json}");
    // With `--yes` no user reads the warnings, so an upgrade from the old manifest is refused.
    earlier["releases"] = manifest(&all.dist())["releases"].clone();
    publish(&all, &old, &earlier);
    let refused = check(&old, &["upgrade", "--yes"]).expect(3);
    assert!(refused.stderr.contains("--accept-old-manifest"), "{}", refused.stderr);
    check(&old, &["upgrade", "--yes", "--accept-old-manifest"]).expect(0);
}

#[test]
fn dists_of_several_platforms_are_merged() {
    let all = releases(&[FIRST, SECOND]);
    let test = set_up(&all);
    let other = copy_dist(&all, &test, "other");
    let target = "riscv64gc-unknown-linux-gnu";
    let mut described = manifest(&other);
    for release in described["releases"].as_array_mut().unwrap() {
        for part in ["assets", "components"] {
            for file in release[part].as_array_mut().unwrap() {
                let (url, old_target) =
                    (file["url"].as_str().unwrap().to_owned(), file["target"].as_str().unwrap().to_owned());
                let new = url.replace(&old_target, target);
                (file["url"], file["target"]) = (new.as_str().into(), target.into());
                if part == "assets" {
                    file["name"] = new.as_str().into();
                }
                let _ = fs::rename(other.join(&url), other.join(&new));
            }
        }
    }
    publish(&all, &other, &described);
    let merge = |folders: &[&Path], output: &Path| {
        let mut command = Command::new(example_program("make-release"));
        command.arg("merge").args(folders).arg("--sign").arg(all.key()).arg("--output").arg(output);
        command.args(["--date", "2026-11-21T00:00:00Z", "--installer"]);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/install/install.sh"));
        CommandOutput::from(command.output().unwrap())
    };
    let merged = test.folder().join("merged");
    merge(&[&all.dist(), &other], &merged).expect(0);
    let newest = manifest(&merged)["releases"][0].clone();
    assert_eq!((&newest["version"], newest["assets"].as_array().unwrap().len()), (&"0.2.0".into(), 2), "{newest}");
    let installer = fs::read_to_string(merged.join("install.sh")).unwrap();
    assert!(installer.contains(&format!("program {target} leoflow-0.2.0-{target}.tar.gz")), "{installer}");
    assert_eq!(manifest(&merged)["issued_at"], "2026-11-21T00:00:00Z");
    run_upgrade(&test, merged.to_str().unwrap(), &[]).expect(0);
    // Different releases with the same version are not merged.
    described["releases"][0]["notes"] = "Others.".into();
    publish(&all, &other, &described);
    let refused = merge(&[&all.dist(), &other], &test.folder().join("refused"));
    assert!(refused.code == Some(1) && refused.stderr.contains("0.2.0 differs between the dists"), "{refused:?}");
}
