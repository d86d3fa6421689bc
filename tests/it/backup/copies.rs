//! Copies of backups at other places: a folder, and servers of S3 and SFTP that are not ours.

use crate::support::clients::Clients;
use crate::support::{CommandOutput, TestHome, wait_until};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(60);

/// An S3 server, an SFTP server and a folder, with a home that copies to them.
struct Places {
    test: TestHome,
    servers: Child,
    folder: PathBuf,
    /// A Python with boto3.
    python: PathBuf,
    /// The addresses: folder, S3, SFTP.
    addresses: [String; 3],
}

impl Drop for Places {
    fn drop(&mut self) {
        drop(self.servers.stdin.take());
        let _ = self.servers.wait();
    }
}

impl Places {
    /// `None` without the servers, which come from the package index, or OpenSSH's client.
    fn new() -> Option<Self> {
        let has_ssh = Command::new("sftp").arg("-V").output().is_ok() && Path::new("/usr/bin/ssh-keygen").exists();
        let Some(clients) = Clients::get().filter(|_| has_ssh) else {
            println!("skipped: OpenSSH's client or the package index is missing");
            return None;
        };
        let test = TestHome::new();
        let folder = test.folder().join("places");
        fs::create_dir_all(folder.join("usb")).unwrap();
        fs::create_dir_all(folder.join("sftp/backups")).unwrap();
        let key = folder.join("client_key");
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
        assert!(made.success());
        // OpenSSH takes its settings from the folder of the user in /etc/passwd, so they are arguments here.
        fs::create_dir(folder.join("bin")).unwrap();
        let wrapper = format!(
            "#!/bin/sh\nexec /usr/bin/sftp -F none -i {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
             -o LogLevel=ERROR \"$@\"\n",
            key.display()
        );
        fs::write(folder.join("bin/sftp"), wrapper).unwrap();
        fs::set_permissions(folder.join("bin/sftp"), fs::Permissions::from_mode(0o755)).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/copy_servers.py");
        let mut servers = Command::new(&clients.python);
        servers.arg(script).arg(&folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut servers = servers.env("HOME", &folder).env("PYTHONDONTWRITEBYTECODE", "1").spawn().unwrap();
        let mut line = String::new();
        BufReader::new(servers.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ports: Value = serde_json::from_str(&line).unwrap();
        let addresses = [
            folder.join("usb").to_str().unwrap().to_owned(),
            format!("s3://bucket/leoflow?endpoint={}&region=us-east-1", ports["s3"].as_str().unwrap()),
            format!("sftp://me@127.0.0.1:{}/backups", ports["sftp"]),
        ];
        let places = Self { test, servers, folder, python: clients.python, addresses };
        places.test.set_up();
        Some(places)
    }

    /// Sets the places; each keeps `keep` backups.
    fn set(&self, addresses: &[String], keep: u64) {
        let place = |address: &String| match address.starts_with("s3") {
            true => json!({"to": address, "keep": keep, "access_key": "id", "secret_key": "key"}),
            false => json!({"to": address, "keep": keep}),
        };
        let copies: Vec<Value> = addresses.iter().map(place).collect();
        let config = self.test.home.join("config.yaml");
        let text = fs::read_to_string(&config).unwrap();
        let rest: Vec<&str> = text.lines().filter(|line| !line.starts_with("backup:")).collect();
        fs::write(&config, format!("{}\nbackup: {}\n", rest.join("\n"), json!({"copies": copies}))).unwrap();
    }

    fn command_of(&self, test: &TestHome, arguments: &[&str]) -> Command {
        let mut command = test.command(arguments);
        let path = command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, path)| path).unwrap();
        let path = format!("{}:{}", self.folder.join("bin").display(), path.to_str().unwrap());
        command.env("PATH", path);
        command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "key");
        command
    }

    fn run(&self, arguments: &[&str]) -> CommandOutput {
        self.command_of(&self.test, arguments).output().unwrap().into()
    }

    /// Copies; returns the reports of the places.
    fn copy(&self, code: i32) -> Vec<Value> {
        let report = self.run(&["lite", "backups", "copy", "--json"]).expect(code).json();
        report["places"].as_array().unwrap().clone()
    }

    /// Creates a backup in the home; returns its name.
    fn back_up(&self) -> String {
        let report = self.run(&["lite", "backup", "--json"]).expect(0).json();
        Path::new(report["path"].as_str().unwrap()).file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// The backups at a place, as another program reads them.
    fn contents(&self, address: &str) -> BTreeMap<String, Vec<u8>> {
        if !address.starts_with("s3") {
            let folder = self.folder.join(if address.starts_with("sftp") { "sftp/backups" } else { "usb" });
            let visible = self.files_at(address).into_iter().filter(|name| !name.starts_with('.'));
            return visible.map(|name| (name.clone(), fs::read(folder.join(&name)).unwrap())).collect();
        }
        let (path, options) = address.strip_prefix("s3://bucket/").unwrap().split_once('?').unwrap();
        let endpoint = options.strip_prefix("endpoint=").unwrap().split('&').next().unwrap();
        let out = self.folder.join("objects");
        let _ = fs::remove_dir_all(&out);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/fetch_objects.py");
        let mut python = Command::new(&self.python);
        let output = python.arg(script).args([endpoint, path]).arg(&out).env("HOME", &self.folder).output().unwrap();
        CommandOutput::from(output).expect(0);
        let files = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap());
        files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect()
    }

    /// The names of the files at a place, as the servers have them.
    fn files_at(&self, address: &str) -> Vec<String> {
        let folder = if address.starts_with("sftp") { "sftp/backups" } else { "usb" };
        let mut names: Vec<String> = fs::read_dir(self.folder.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn copies_are_compared_limited_and_restored_elsewhere() {
    let Some(places) = Places::new() else { return };
    places.set(&places.addresses, 2);
    places.test.start();
    places.test.run(&["variables", "set", "kept", "here"]).expect(0);
    let names: Vec<String> = (0..3)
        .map(|_| {
            let name = places.back_up();
            assert!(places.copy(0).iter().all(|place| place["copied"] == json!([name])));
            // Names have the second.
            std::thread::sleep(Duration::from_millis(1100));
            name
        })
        .collect();
    for address in [&places.addresses[0], &places.addresses[2]] {
        assert_eq!(places.files_at(address), names[1..], "{address}");
    }
    let again = places.copy(0);
    assert!(again.iter().all(|place| place["copied"] == json!([]) && place["backups"] == 2), "{again:?}");
    let listed = places.run(&["lite", "backups", "--json"]).expect(0).json();
    assert_eq!(listed["copies"].as_array().unwrap().len(), 6);
    let text = places.run(&["lite", "backups"]).expect(0).stdout;
    assert!(text.contains(&format!("2 backups copied to {}, the newest of", places.addresses[2])), "{text}");

    // A new machine needs the address and the keys only; the newest backup is taken, or the one that is named.
    let file = places.addresses[1].replacen("leoflow?", &format!("leoflow/{}?", names[1]), 1);
    for input in places.addresses.iter().chain([&file]) {
        let new = TestHome::new();
        let restored = places.command_of(&new, &["lite", "restore", "--json", "--input", input]).output().unwrap();
        let restored = CommandOutput::from(restored).expect(0);
        assert_eq!(restored.stderr.contains(&format!("  {}", names[2])), *input != file, "{}", restored.stderr);
        assert!(!new.home.join("run/download").exists() && !new.home.with_file_name("home.download").exists());
        // Later backups of this machine do not go where a backup says.
        assert_eq!(restored.json()["left_out"], json!(["backup.copies"]));
        new.start();
        assert_eq!(new.run(&["variables", "get", "kept"]).expect(0).stdout.trim(), "here");
    }
    let new = TestHome::new();
    let missing = places.addresses[1].replacen("leoflow?", "nothing?", 1);
    let refused = places.command_of(&new, &["lite", "restore", "--input", &missing]).output().unwrap();
    let refused = CommandOutput::from(refused).expect(1);
    assert!(refused.stderr.contains("there is no backup") && !new.home.exists(), "{}", refused.stderr);
}

#[test]
fn a_place_that_lies_or_fails_leaves_the_others_served() {
    let Some(places) = Places::new() else { return };
    let [folder, s3, sftp] = &places.addresses;
    places.set(&places.addresses, 30);
    // More than one part of an upload, and not compressible.
    let noise: Vec<u8> = (0..20_u64 << 17).flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()).collect();
    fs::create_dir_all(places.test.workspace()).unwrap();
    fs::write(places.test.workspace().join("noise.bin"), noise).unwrap();
    let first = places.back_up();
    let faults = |name: &str| places.folder.join(name);
    fs::write(faults("refuse"), "").unwrap();
    let reports = places.copy(1);
    assert!(reports[1]["problem"].as_str().unwrap().starts_with("S3: "), "{reports:?}");
    assert!(reports[0]["problem"].is_null() && reports[2]["copied"] == json!([first]), "{reports:?}");
    fs::remove_file(faults("refuse")).unwrap();
    fs::write(faults("lie"), "").unwrap();
    let reports = places.copy(1);
    assert!(reports[1]["problem"].as_str().unwrap().contains("other bytes there than were sent"), "{reports:?}");
    fs::remove_file(faults("lie")).unwrap();
    // The bad copy was removed, so it is not taken for a backup.
    assert_eq!(places.copy(0)[1]["copied"], json!([first]));

    // A file of the same name that is not ours stays as it is, also one that the user copied there.
    std::thread::sleep(Duration::from_millis(1100));
    let second = places.back_up();
    fs::write(Path::new(folder).join(&second), "another instance's").unwrap();
    let reports = places.copy(1);
    assert!(reports[0]["problem"].as_str().unwrap().contains("is there already, with other content"), "{reports:?}");
    assert_eq!(fs::read_to_string(Path::new(folder).join(&second)).unwrap(), "another instance's");
    fs::remove_file(Path::new(folder).join(&second)).unwrap();

    // An empty mount point looks like a place without backups: on schedule, nothing is copied to it.
    fs::remove_dir_all(folder).unwrap();
    let scheduled = ["lite", "backups", "copy", "--scheduled", "--json"];
    let reports = places.run(&scheduled).expect(1).json();
    assert!(reports["places"][0]["problem"].as_str().unwrap().contains("does not exist"), "{reports}");
    fs::create_dir(folder).unwrap();
    let reports = places.run(&scheduled).expect(1).json();
    assert!(reports["places"][0]["problem"].as_str().unwrap().contains("none of the 1 backups"), "{reports}");
    assert_eq!(places.files_at(folder), Vec::<String>::new());
    let copied = places.copy(0)[0]["copied"].as_array().unwrap().len();
    assert_eq!((copied, places.files_at(folder)), (2, vec![first.clone(), second]));

    // A copy that became shorter is named, and copied again once it is removed.
    fs::write(places.folder.join("sftp/backups").join(&first), "short").unwrap();
    let problem = places.copy(1)[2]["problem"].clone();
    assert!(problem.as_str().unwrap().contains("was changed there"), "{problem}");
    assert!(places.copy(1)[2]["problem"].as_str().unwrap().contains("was changed there"), "still");
    fs::remove_file(places.folder.join("sftp/backups").join(&first)).unwrap();
    assert_eq!(places.copy(0)[2]["copied"], json!([first]));

    // The text names the place and what to do.
    fs::remove_dir_all(folder).unwrap();
    let text = places.run(&["lite", "backups", "copy"]).expect(1).stderr;
    assert!(text.contains(&format!("{folder}: the folder")) && text.contains("connect the disk"), "{text}");
    let home = places.test.home.join("backups").to_str().unwrap().to_owned();
    places.set(std::slice::from_ref(&home), 1);
    assert!(places.copy(1)[0]["problem"].as_str().unwrap().contains("is in the home"));
    for (wrong, reason) in [
        (s3.replace("bucket", "other"), "NoSuchBucket"),
        (sftp.replace("backups", "other"), "sftp: "),
        ("s3://bucket?endpoint=http://127.0.0.1:1".to_owned(), "S3: "),
    ] {
        places.set(std::slice::from_ref(&wrong), 1);
        let problem = places.copy(1)[0]["problem"].clone();
        assert!(problem.as_str().unwrap().contains(reason), "{wrong}: {problem}");
    }
}

#[test]
fn a_kill_at_each_step_leaves_complete_copies_or_none() {
    let Some(places) = Places::new() else { return };
    for address in &places.addresses {
        places.set(std::slice::from_ref(address), 1);
        // A copy to remove at the last step.
        places.back_up();
        places.copy(0);
        for step in ["copies.written", "copies.sent", "copies.compared", "copies.recorded", "copies.removed"] {
            std::thread::sleep(Duration::from_millis(1100));
            let name = places.back_up();
            let mut copy = places.command_of(&places.test, &["lite", "backups", "copy"]);
            let killed = copy.env("LEOFLOW_KILL_AT", step).output().unwrap().status;
            assert_eq!(killed.signal(), Some(9), "{address} {step}");
            for (file, copied) in places.contents(address) {
                let is_same = fs::read(places.test.home.join("backups").join(&file)).unwrap() == copied;
                assert!(is_same, "{address} {step}: {file}");
            }
            let report = places.copy(0).remove(0);
            assert_eq!(report["backups"], 1, "{address} {step}: {report}");
            assert_eq!(places.contents(address).into_keys().collect::<Vec<_>>(), [name], "{address} {step}");
            if !address.starts_with("s3") {
                assert_eq!(places.files_at(address).len(), 1, "no part is left: {step}");
            }
        }
    }
}

#[test]
fn only_copies_of_this_home_are_removed() {
    let Some(places) = Places::new() else { return };
    // Characters that are special for sftp, in S3 and in URLs.
    let odd = "sftp/backups/a b[1]*?";
    fs::create_dir_all(places.folder.join(odd)).unwrap();
    let sftp = places.addresses[2].replace("/backups", "/backups/a b[1]*?");
    let s3 = places.addresses[1].replace("leoflow?", "Büro ~#[1]%/x?");
    let folder = places.addresses[0].clone();
    places.set(&[folder.clone(), s3.clone(), sftp], 1);
    let first = places.back_up();
    // The user copied it to the disk already, and other files are beside it.
    let usb = Path::new(&folder);
    fs::copy(places.test.home.join("backups").join(&first), usb.join(&first)).unwrap();
    fs::write(usb.join("photo.jpg"), "mine").unwrap();
    fs::write(usb.join("leoflow-backup-20200101T000000Z.tar.zst"), "another machine's").unwrap();
    assert!(places.copy(0).iter().all(|place| place["copied"] == json!([first])));
    std::thread::sleep(Duration::from_millis(1100));
    let second = places.back_up();
    let reports = places.copy(0);
    assert_eq!((&reports[0]["removed"], &reports[1]["removed"]), (&json!([]), &json!([first])), "{reports:?}");
    assert_eq!(reports[2]["removed"], json!([first]));
    let there = places.files_at(&folder);
    assert_eq!(there, ["leoflow-backup-20200101T000000Z.tar.zst", &first, &second, "photo.jpg"]);
    assert_eq!(fs::read_dir(places.folder.join(odd)).unwrap().count(), 1);
    assert_eq!(places.contents(&s3).into_keys().collect::<Vec<_>>(), std::slice::from_ref(&second));
    // A backup before an upgrade serves its rollback, and stays here.
    let backups = places.test.home.join("backups");
    fs::copy(backups.join(&second), backups.join("automatic-20260101T000000Z-before-upgrade.tar.zst")).unwrap();
    assert!(places.copy(0).iter().all(|place| place["copied"] == json!([])));
    // A clone would write to the same places.
    places.test.run(&["instances", "clone", "copied"]).expect(0);
    let clone = places.test.folder().join("user/.leoflow-copied/config.yaml");
    assert!(!fs::read_to_string(&clone).unwrap().contains("copies:"));
    places.test.run(&["instances", "remove", "copied", "--yes"]).expect(0);
}

#[test]
fn variables_of_another_server_do_not_redirect_a_copy() {
    let Some(places) = Places::new() else { return };
    places.set(&places.addresses[1..2], 1);
    let name = places.back_up();
    let mut copy = places.command_of(&places.test, &["lite", "backups", "copy"]);
    for name in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"] {
        copy.env(name, "http://127.0.0.1:1");
    }
    let copied = copy.env("AWS_SESSION_TOKEN", "x").env("AWS_REGION", "other").output().unwrap();
    CommandOutput::from(copied).expect(0);
    assert_eq!(places.contents(&places.addresses[1]).into_keys().collect::<Vec<_>>(), [name]);
}

#[test]
fn new_backups_are_copied_by_the_server_and_failures_are_shown() {
    let test = TestHome::new().with_limit("LEOFLOW_UPKEEP_LOOK", "1");
    test.set_up();
    let usb = test.folder().join("usb");
    fs::create_dir(&usb).unwrap();
    test.run(&["config", "set", "backup.copies", usb.to_str().unwrap()]).expect(0);
    assert!(test.run(&["config", "set", "backup.copies", "usb"]).expect(2).stderr.contains("not an absolute path"));
    test.start();
    let back_up = || {
        let report = test.run(&["lite", "backup", "--json"]).expect(0).json();
        PathBuf::from(report["path"].as_str().unwrap())
    };
    let backup = back_up();
    let copy = usb.join(backup.file_name().unwrap());
    wait_until("the copy", TIMEOUT, || copy.exists());
    assert_eq!(fs::read(&copy).unwrap(), fs::read(&backup).unwrap());
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    // The disk is taken away; a new backup is not copied, and that is said.
    fs::rename(&usb, test.folder().join("away")).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    back_up();
    let problems = || test.status()["backups"]["problems"].to_string();
    wait_until("the failure in the status", TIMEOUT, || problems().contains("copying of backups failed"));
    fs::rename(test.folder().join("away"), &usb).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    back_up();
    wait_until("all copies", TIMEOUT, || fs::read_dir(&usb).unwrap().count() == 3);
    wait_until("the end of the failure", TIMEOUT, || !problems().contains("copying of backups"));
    // While backups are encrypted, those that are not stay here.
    let public = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    test.run(&["config", "set", "backup.recipients", public]).expect(0);
    fs::remove_dir_all(&usb).unwrap();
    fs::create_dir(&usb).unwrap();
    test.run(&["lite", "backups", "copy"]).expect(0);
    assert_eq!(fs::read_dir(&usb).unwrap().count(), 0);
}
