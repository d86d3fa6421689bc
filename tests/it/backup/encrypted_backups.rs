//! Encrypted backups: private keys, passphrases, verification and restore.

use crate::support::{CommandOutput, TestHome, wait_until};
use age::secrecy::ExposeSecret;
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Creates an age key; returns the file with the private key, and the public key.
fn key(test: &TestHome, name: &str) -> (PathBuf, String) {
    let key = age::x25519::Identity::generate();
    let path = test.folder().join(name);
    fs::write(&path, format!("# comment\n{}\n", key.to_string().expose_secret())).unwrap();
    (path, key.to_public().to_string())
}

fn backup(test: &TestHome) -> (PathBuf, Value) {
    let report = test.run(&["lite", "backup", "--json"]).expect(0).json();
    (report["path"].as_str().unwrap().into(), report)
}

fn verify(test: &TestHome, file: &Path, more: &[&str]) -> CommandOutput {
    test.run(&[&["lite", "backups", "verify", file.to_str().unwrap()], more].concat())
}

#[test]
fn an_encrypted_backup_needs_its_private_key() {
    let test = TestHome::started();
    let ((mine, public), (other, _)) = (key(&test, "mine.txt"), key(&test, "other.txt"));
    test.run(&["variables", "set", "kept", "here"]).expect(0);
    let bad = test.run(&["config", "set", "backup.recipients", "age1nobody"]).expect(2);
    assert!(bad.stderr.contains("public keys"), "{bad:?}");
    test.run(&["config", "set", "backup.recipients", &public]).expect(0);
    let plain = test.folder().join("plain.tar.zst");
    test.run(&["lite", "backup", "--output", plain.to_str().unwrap()]).expect(0);
    assert!(!plain.exists() && test.folder().join("plain.tar.zst.age").is_file());
    let (file, report) = backup(&test);
    assert!(file.to_str().unwrap().ends_with(".tar.zst.age") && report["encrypted"] == true, "{report}");
    let bytes = fs::read(&file).unwrap();
    assert!(bytes.starts_with(b"age-encryption.org/v1\n"));

    // The decrypted file is an ordinary archive.
    let opened = age::Decryptor::new(&bytes[..]).unwrap();
    let identity: age::x25519::Identity = fs::read_to_string(&mine).unwrap().lines().nth(1).unwrap().parse().unwrap();
    let mut decrypted = Vec::new();
    opened.decrypt(std::iter::once(&identity as &dyn age::Identity)).unwrap().read_to_end(&mut decrypted).unwrap();
    let mut tar = tar::Archive::new(zstd::Decoder::new(&decrypted[..]).unwrap());
    assert_eq!(tar.entries().unwrap().next().unwrap().unwrap().path().unwrap().to_str(), Some("MANIFEST.json"));

    // The home that made the backup has recorded its properties, so it needs no key to list and check it.
    let listed = test.run(&["lite", "backups", "--json"]).expect(0).json()["backups"][0].clone();
    assert!(listed["encrypted"] == true && listed["created_at"].is_string() && listed["rows"].is_i64(), "{listed}");
    let unopened = verify(&test, &file, &[]).expect(0);
    assert!(
        unopened.stdout.contains("unchanged since it was written") && unopened.stderr.contains("was not test-restored"),
        "{unopened:?}"
    );
    verify(&test, &file, &["--identity", other.to_str().unwrap()]).expect(1);
    let verified = verify(&test, &file, &["--identity", mine.to_str().unwrap()]).expect(0);
    assert!(verified.stdout.contains("test-restored"), "{verified:?}");

    // Another home has no record of the backup, so it needs the key.
    let other_home = TestHome::new();
    let copy = other_home.folder().join("a-backup.tar.zst.age");
    fs::copy(&file, &copy).unwrap();
    for (identity, reason) in
        [(None, "no private key was given"), (Some(&other), "the private key given is not a recipient")]
    {
        let more: Vec<&str> =
            identity.iter().flat_map(|path: &&PathBuf| ["--identity", path.to_str().unwrap()]).collect();
        let refused = other_home.restore(&copy, &more).expect(1);
        assert!(refused.stderr.contains(reason) && refused.stderr.contains("--identity FILE"), "{refused:?}");
        assert!(!other_home.home.exists(), "{reason}");
    }
    let restored = other_home.restore(&copy, &["--identity", mine.to_str().unwrap()]).expect(0);
    assert!(restored.stderr.contains("not taken over from the backup: backup.recipients"), "{}", restored.stderr);
    let recipients = other_home.run(&["config", "get", "backup.recipients"]);
    assert!(!recipients.stdout.contains(&public), "a restore must not change who can read later backups");
    other_home.start();
    assert_eq!(other_home.run(&["variables", "get", "kept"]).expect(0).stdout.trim(), "here");

    // Verification detects a flipped bit with and without the key.
    let mut damaged = bytes;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&file, damaged).unwrap();
    assert!(verify(&test, &file, &[]).expect(1).stdout.contains("differ from those that were written"));
    verify(&test, &file, &["--identity", mine.to_str().unwrap()]).expect(1);
}

#[test]
fn a_restore_without_config_says_that_backups_get_plain() {
    let test = TestHome::on_one_disk();
    test.start();
    let (mine, public) = key(&test, "mine.txt");
    test.run(&["config", "set", "backup.recipients", &public]).expect(0);
    let (file, _) = backup(&test);
    test.run(&["lite", "stop"]).expect(0);
    fs::remove_file(test.home.join("config.yaml")).unwrap();
    let warning = "not taken over from the backup: backup.recipients;";
    let forced = ["--force", "--yes", "--identity", mine.to_str().unwrap()];
    let plan = test.restore(&file, &[&forced[..], &["--dry-run"]].concat()).expect(0);
    assert!(plan.stderr.contains(warning) && plan.stderr.contains("backups are not encrypted"), "{plan:?}");
    let done = test.restore(&file, &forced).expect(0);
    assert_eq!(done.stderr.matches(warning).count(), 2, "in the plan and in the result: {done:?}");
    assert_eq!(backup(&test).1["encrypted"], false);
    // A second restore over a lost file, which takes them over.
    fs::remove_file(test.home.join("config.yaml")).unwrap();
    let done = test.restore(&file, &[&forced[..], &["--take-over-settings", "--json"]].concat()).expect(0);
    assert_eq!(done.json()["left_out"], serde_json::json!([]));
    assert_eq!(backup(&test).1["encrypted"], true);
}

#[test]
fn a_configured_identity_verifies_encrypted_backups() {
    let test = TestHome::new();
    test.set_up();
    let (mine, public) = key(&test, "mine.txt");
    let config = test.home.join("config.yaml");
    let text = fs::read_to_string(&config).unwrap();
    let settings = format!(
        "{{schedule: '* * * * * *', verify: '* * * * * *', recipients: [{public}], identity: '{}'}}",
        mine.display()
    );
    fs::write(&config, format!("{text}backup: {settings}\n")).unwrap();
    test.start();
    wait_until("a verification", Duration::from_secs(60), || test.status()["backups"]["last_verified_at"].is_string());
    let listed = test.run(&["lite", "backups", "--json"]).expect(0).json();
    let all = listed["backups"].as_array().unwrap();
    assert!(
        all.iter().all(|row| row["encrypted"] == true && row["path"].as_str().unwrap().ends_with(".age")),
        "{listed}"
    );
    test.run(&["config", "set", "backup.schedule", "off"]).expect(0);
    test.run(&["lite", "stop"]).expect(0);
    let newest = crate::support::newest().to_string();
    test.run(&["migrate-db", "rollback", &newest, "--yes"]).expect(0);
    let listed = test.run(&["lite", "backups", "--json"]).expect(0).json();
    let before_rollback =
        listed["backups"].as_array().unwrap().iter().find(|row| row["path"].as_str().unwrap().contains("-before-"));
    assert_eq!(before_rollback.expect("a backup made before the rollback")["encrypted"], false);
    // A configured identity that cannot be read is an error.
    fs::write(&mine, "no key\n").unwrap();
    let unusable = test.run(&["lite", "backups", "verify", all[0]["path"].as_str().unwrap()]).expect(1);
    assert!(unusable.stderr.contains("backup.identity is unusable"), "{unusable:?}");
}

#[test]
fn a_passphrase_is_read_from_its_file() {
    let test = TestHome::started();
    let (right, wrong) = (test.folder().join("right"), test.folder().join("wrong"));
    let refused = test.run(&["config", "set", "backup.passphrase", "swordfish"]).expect(2);
    assert!(!refused.stderr.contains("swordfish"), "{refused:?}");
    test.run(&["config", "set", "backup.passphrase", &format!("file:{}", right.display())]).expect(0);
    let missing = test.run(&["lite", "backup"]).expect(1);
    assert!(missing.stderr.contains("it does not exist"), "{missing:?}");
    fs::write(&right, "swordfish\n").unwrap();
    fs::write(&wrong, "tuna\n").unwrap();
    let (file, _) = backup(&test);
    verify(&test, &file, &[]).expect(0);
    let other_home = TestHome::new();
    other_home.restore(&file, &[]).expect(1);
    other_home.restore(&file, &["--passphrase-file", wrong.to_str().unwrap()]).expect(1);
    assert!(!other_home.home.exists());
    other_home.restore(&file, &["--passphrase-file", right.to_str().unwrap()]).expect(0);
}
