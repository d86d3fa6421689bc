//! Leoflow uses only an empty folder or its own home, and removes only its own files.

use crate::support::TestHome;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

#[test]
fn a_folder_with_foreign_files_is_refused_as_home() {
    let test = TestHome::on_one_disk();
    fs::create_dir_all(test.home.join("bin")).unwrap();
    fs::create_dir_all(test.home.join("share")).unwrap();
    fs::write(test.home.join("bin/tool"), "theirs").unwrap();
    fs::set_permissions(test.home.join("bin"), fs::Permissions::from_mode(0o755)).unwrap();
    let before = test.snapshot("");
    for command in [&["setup"][..], &["lite", "start"], &["lite"], &["validate"], &["uninstall", "--purge", "--yes"]] {
        let refused = test.run(command).expect(3);
        assert!(
            refused.stderr.contains("in use for something else") && refused.stderr.contains("--home"),
            "{refused:?}"
        );
    }
    assert_eq!(test.snapshot(""), before);
    assert_eq!(fs::metadata(test.home.join("bin")).unwrap().permissions().mode() & 0o777, 0o755);
}

#[test]
fn uninstall_keeps_and_lists_foreign_files() {
    let test = TestHome::on_one_disk();
    test.set_up();
    for path in ["bin/tool", "notes.txt", "logs/theirs/x"] {
        fs::create_dir_all(test.home.join(path).parent().unwrap()).unwrap();
        fs::write(test.home.join(path), "theirs").unwrap();
    }
    let done = test.run(&["uninstall", "--yes"]).expect(0);
    assert!(done.stderr.contains("bin/tool  (not created by Leoflow)"), "{done:?}");
    assert!(test.home.join("bin/tool").exists() && !test.home.join("bin/leoflow").exists());
    test.set_up();
    let config = test.home.join("config.yaml");
    let text = fs::read_to_string(&config).unwrap();
    let other = test.folder().join("other");
    fs::create_dir(&other).unwrap();
    let workspace = test.workspace();
    fs::write(&config, text.replace(workspace.to_str().unwrap(), other.to_str().unwrap())).unwrap();
    let done = test.run(&["uninstall", "--purge", "--yes"]).expect(0);
    assert!(done.stdout.contains("kept, because Leoflow did not create it"), "{done:?}");
    assert!(done.stdout.contains(other.to_str().unwrap()) && other.exists(), "{done:?}");
    let remaining: Vec<_> = test.snapshot("").into_iter().map(|(path, _)| path).collect();
    assert_eq!(remaining, ["bin/tool", "logs/theirs/x", "notes.txt"].map(|path| test.home.join(path)));
}

#[test]
fn a_workspace_cannot_be_a_system_folder_or_contain_the_home() {
    let test = TestHome::on_one_disk();
    for path in ["/", "/dev/null", "/proc", test.home.to_str().unwrap(), test.folder().to_str().unwrap()] {
        let refused = test.run(&["lite", "start", "--workspace", path, "--port", &test.port.to_string()]).expect(3);
        assert!(refused.stderr.contains("the workspace cannot be"), "{path}: {refused:?}");
        assert!(!test.home.exists(), "{path}");
    }
}

/// Root that runs Leoflow with a user's home, as with `sudo -E`, would create files that the user cannot change.
#[test]
fn root_writes_nothing_into_a_users_home() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let test = TestHome::on_one_disk();
    test.set_up();
    let set_owner = |path: &Path, uid: u32| chown(path, Some(uid), Some(uid)).unwrap();
    set_owner(&test.home, 12345);
    let before = test.snapshot("");
    for command in [&["lite", "reset-password"][..], &["lite", "backup"], &["lite", "start"], &["setup"], &["doctor"]] {
        let refused = test.run(command).expect(3);
        assert!(
            refused.stderr.contains("belongs to the user with id 12345") && refused.stderr.contains("sudo -u"),
            "{refused:?}"
        );
    }
    assert_eq!(test.snapshot(""), before);
    // Root does not create a new home there either.
    let fresh = TestHome::with_home_at(Path::new("user/.leoflow"));
    set_owner(&fresh.folder().join("user"), 12345);
    fresh.run(&["setup"]).expect(3);
    assert!(!fresh.home.exists());
}

#[test]
fn a_purge_does_not_follow_links() {
    let test = TestHome::on_one_disk();
    test.set_up();
    let target = test.folder().join("elsewhere");
    fs::create_dir(&target).unwrap();
    for name in ["automatic-1.tar.zst", "photos.tar.gz"] {
        fs::write(target.join(name), "theirs").unwrap();
    }
    let backups = test.home.join("backups");
    let _ = fs::remove_dir(&backups);
    std::os::unix::fs::symlink(&target, &backups).unwrap();
    test.run(&["uninstall", "--purge", "--yes"]).expect(0);
    assert!(!test.home.exists());
    assert_eq!(fs::read_dir(&target).unwrap().count(), 2);
}
