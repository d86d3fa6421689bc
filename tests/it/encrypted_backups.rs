//! Backups that only the holder of a key restores.

use crate::support::{Done, TestHome, wait_until};
use age::secrecy::ExposeSecret;
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A key of age: the file with the private one, and the public one.
fn key(test: &TestHome, name: &str) -> (PathBuf, String) {
    let key = age::x25519::Identity::generate();
    let path = test.folder().join(name);
    fs::write(&path, format!("# of a test\n{}\n", key.to_string().expose_secret())).unwrap();
    (path, key.to_public().to_string())
}

fn backup(test: &TestHome) -> (PathBuf, Value) {
    let made = test.run(&["lite", "backup", "--json"]).expect(0).json();
    (made["path"].as_str().unwrap().into(), made)
}

fn verify(test: &TestHome, file: &Path, more: &[&str]) -> Done {
    test.run(&[&["lite", "backups", "verify", file.to_str().unwrap()], more].concat())
}

#[test]
fn only_the_private_key_brings_it_back() {
    let test = TestHome::started();
    let ((mine, public), (other, _)) = (key(&test, "mine.txt"), key(&test, "other.txt"));
    test.run(&["variables", "set", "kept", "here"]).expect(0);
    let bad = test.run(&["config", "set", "backup.recipients", "age1nobody"]).expect(2);
    assert!(bad.stderr.contains("public keys"), "{bad:?}");
    test.run(&["config", "set", "backup.recipients", &public]).expect(0);
    let plain = test.folder().join("plain.tar.zst");
    test.run(&["lite", "backup", "--output", plain.to_str().unwrap()]).expect(2);
    let (file, made) = backup(&test);
    assert!(file.to_str().unwrap().ends_with(".tar.zst.age") && made["encrypted"] == true, "{made}");
    let bytes = fs::read(&file).unwrap();
    assert!(bytes.starts_with(b"age-encryption.org/v1\n"));

    // Within it is an ordinary archive.
    let opened = age::Decryptor::new(&bytes[..]).unwrap();
    let identity: age::x25519::Identity = fs::read_to_string(&mine).unwrap().lines().nth(1).unwrap().parse().unwrap();
    let mut inner = Vec::new();
    opened.decrypt(std::iter::once(&identity as &dyn age::Identity)).unwrap().read_to_end(&mut inner).unwrap();
    let mut tar = tar::Archive::new(zstd::Decoder::new(&inner[..]).unwrap());
    assert_eq!(tar.entries().unwrap().next().unwrap().unwrap().path().unwrap().to_str(), Some("MANIFEST.json"));

    // What is known of it without the key.
    let listed = test.run(&["lite", "backups", "--json"]).expect(0).json()["backups"][0].clone();
    assert!(listed["encrypted"] == true && listed["created_at"].is_string() && listed["rows"].is_i64(), "{listed}");
    let unopened = verify(&test, &file, &[]).expect(0);
    assert!(unopened.stdout.contains("byte by byte") && unopened.stderr.contains("was not tried"), "{unopened:?}");
    verify(&test, &file, &["--identity", other.to_str().unwrap()]).expect(1);
    let whole = verify(&test, &file, &["--identity", mine.to_str().unwrap()]).expect(0);
    assert!(whole.stdout.contains("restored on trial"), "{whole:?}");

    // Elsewhere nothing is known of it.
    let there = TestHome::new();
    let away = there.folder().join("a-backup.tar.zst.age");
    fs::copy(&file, &away).unwrap();
    for (identity, words) in [(None, "no private key was given"), (Some(&other), "not for the private key")] {
        let more: Vec<&str> =
            identity.iter().flat_map(|path: &&PathBuf| ["--identity", path.to_str().unwrap()]).collect();
        let refused = there.restore(&away, &more).expect(1);
        assert!(refused.stderr.contains(words) && refused.stderr.contains("--identity FILE"), "{refused:?}");
        assert!(!there.home.exists(), "{words}");
    }
    there.restore(&away, &["--identity", mine.to_str().unwrap()]).expect(0);
    there.start();
    assert_eq!(there.run(&["variables", "get", "kept"]).expect(0).stdout.trim(), "here");

    // One bit is told with and without the key.
    let mut damaged = bytes;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&file, damaged).unwrap();
    assert!(verify(&test, &file, &[]).expect(1).stdout.contains("not those that were written"));
    verify(&test, &file, &["--identity", mine.to_str().unwrap()]).expect(1);
}

#[test]
fn with_a_key_on_the_machine_they_are_verified_by_themselves_and_what_is_the_way_back_stays_plain() {
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
        all.iter().all(|one| one["encrypted"] == true && one["path"].as_str().unwrap().ends_with(".age")),
        "{listed}"
    );
    test.run(&["config", "set", "backup.schedule", "off"]).expect(0);
    test.run(&["lite", "stop"]).expect(0);
    let newest = crate::support::newest().to_string();
    test.run(&["migrate-db", "rollback", &newest, "--yes"]).expect(0);
    let listed = test.run(&["lite", "backups", "--json"]).expect(0).json();
    let way_back =
        listed["backups"].as_array().unwrap().iter().find(|one| one["path"].as_str().unwrap().contains("-before-"));
    assert_eq!(way_back.expect("a backup from before the rollback")["encrypted"], false);
    // What cannot be used is told of, and not passed over.
    fs::write(&mine, "no key\n").unwrap();
    let unusable = test.run(&["lite", "backups", "verify", all[0]["path"].as_str().unwrap()]).expect(1);
    assert!(unusable.stderr.contains("backup.identity cannot be used"), "{unusable:?}");
}

#[test]
fn a_passphrase_is_kept_elsewhere_and_read_from_there() {
    let test = TestHome::started();
    let (right, wrong) = (test.folder().join("right"), test.folder().join("wrong"));
    let refused = test.run(&["config", "set", "backup.passphrase", "swordfish"]).expect(2);
    assert!(!refused.stderr.contains("swordfish"), "{refused:?}");
    test.run(&["config", "set", "backup.passphrase", &format!("file:{}", right.display())]).expect(0);
    let missing = test.run(&["lite", "backup"]).expect(1);
    assert!(missing.stderr.contains("it is not there"), "{missing:?}");
    fs::write(&right, "swordfish\n").unwrap();
    fs::write(&wrong, "tuna\n").unwrap();
    let (file, _) = backup(&test);
    verify(&test, &file, &[]).expect(0);
    let there = TestHome::new();
    there.restore(&file, &[]).expect(1);
    there.restore(&file, &["--passphrase-file", wrong.to_str().unwrap()]).expect(1);
    assert!(!there.home.exists());
    there.restore(&file, &["--passphrase-file", right.to_str().unwrap()]).expect(0);
}
