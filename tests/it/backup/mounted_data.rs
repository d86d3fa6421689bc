//! Backups and restores with full disks and with workspace, configuration or task logs on other mounts.

use crate::support::mounts::{can_mount, run_in_mount_namespace};
use crate::support::{CommandOutput, TestHome};
use std::fs;

/// Runs a shell script in a mount namespace of its own. `$w` is the workspace, `$d` the test's folder and `"$@"` the
/// `leoflow` command without its subcommand.
fn script(test: &TestHome, text: &str) -> CommandOutput {
    let head = format!(
        "shift; w='{}'; d='{}'; fail() {{ echo \"failed: $*\" >&2; exit 97; }}; ",
        test.workspace().display(),
        test.folder().display()
    );
    run_in_mount_namespace(test, &format!("{head}{text}"), &[])
}

#[test]
fn a_backup_to_a_full_disk_keeps_the_old_file() {
    if !can_mount() {
        return;
    }
    let test = TestHome::started_on_one_disk();
    fs::write(test.workspace().join("big.bin"), vec![7; 3 << 20]).unwrap();
    fs::create_dir(test.folder().join("out")).unwrap();
    for size in ["64k", "1m", "3m"] {
        let done = script(
            &test,
            &format!(
                "mount -t tmpfs -o size={size} tmpfs $d/out || exit 99; echo old > $d/out/b.tar.gz; \
                 \"$@\" lite backup --output $d/out/b.tar.gz; code=$?; \
                 test \"$(cat $d/out/b.tar.gz)\" = old || fail 'the old file is gone'; \
                 test $(ls -A $d/out | wc -l) = 1 || fail \"something is left: $(ls -A $d/out)\"; exit $code"
            ),
        );
        assert_eq!(done.code, Some(1), "{size}: {done:?}");
        assert!(done.stderr.contains("the disk is full"), "{size}: {}", done.stderr);
    }
    assert_eq!(test.state(), "healthy");
}

#[test]
fn a_workspace_on_another_disk_is_restored_and_undone() {
    if !can_mount() {
        return;
    }
    let test = TestHome::on_one_disk();
    test.set_up();
    test.run(&["lite", "start"]).expect(0);
    test.run(&["lite", "stop"]).expect(0);
    let backup = test.backup("b.tar.zst");
    let done = script(
        &test,
        &format!(
            "mount -t tmpfs -o size=50m tmpfs $w || exit 99; mkdir -p $w/p/.git; echo mine > $w/p/later.py; echo r > $w/p/.git/HEAD; \
             \"$@\" lite restore --input {} --force --yes || fail restore; \
             test -f $w/hello/dag.py -a ! -e $w/p/later.py || fail \"not restored: $(ls -AR $w)\"; \
             \"$@\" lite restore --undo --yes || fail undo; \
             test \"$(cat $w/p/later.py)\" = mine -a ! -e $w/hello || fail \"not undone: $(ls -AR $w)\"; \
             test -f $w/p/.git/HEAD || fail 'no .git'; \
             test $(ls -A $w | wc -l) = 2 || fail \"left: $(ls -A $w)\"",
            backup.display()
        ),
    );
    assert_eq!(done.code, Some(0), "{done:?}");
}

#[test]
fn a_mount_in_the_workspace_refuses_or_reverts_a_restore() {
    if !can_mount() {
        return;
    }
    let test = TestHome::on_one_disk();
    test.set_up();
    test.run(&["lite", "start"]).expect(0);
    test.run(&["lite", "stop"]).expect(0);
    let backup = test.backup("b.tar.zst");
    let input = backup.display();
    test.save("later.py", "# later\n");
    fs::create_dir(test.workspace().join("mnt")).unwrap();
    let done = script(
        &test,
        &format!(
            "mount -t tmpfs tmpfs $w/mnt || exit 99; \"$@\" lite restore --input {input} --force --yes && fail 'not refused'; exit 0"
        ),
    );
    assert!(done.code == Some(0) && done.stderr.contains("is a mount point in the workspace"), "{done:?}");
    // Mounted after the restore's check: recovery finds the mount and reverts the killed restore.
    let done = script(
        &test,
        &format!(
            "LEOFLOW_KILL_AT=restore.begun \"$@\" lite restore --input {input} --force --yes; mount -t tmpfs tmpfs $w/mnt || exit 99; \
             \"$@\" lite psql -- -c 'SELECT 1' || fail 'the next command does not work'; \
             test -f $w/later.py -a -d $w/hello || fail \"not as before: $(ls -A $w)\"; umount $w/mnt"
        ),
    );
    assert!(done.code == Some(0) && done.stderr.contains("reverted the"), "{done:?}");
    assert!(test.restore_leftovers().is_empty(), "{:?}", test.restore_leftovers());
    test.restore(&backup, &["--force", "--yes"]).expect(0);
    assert!(!test.workspace().join("later.py").exists());
}

#[test]
fn a_mounted_config_refuses_or_reverts_a_restore() {
    if !can_mount() {
        return;
    }
    let test = TestHome::on_one_disk();
    test.set_up();
    test.run(&["lite", "start"]).expect(0);
    test.run(&["lite", "stop"]).expect(0);
    let backup = test.backup("b.tar.zst");
    let text = std::fs::read_to_string(test.home.join("config.yaml")).unwrap();
    std::fs::write(test.home.join("config.yaml"), text + "# later\n").unwrap();
    test.save("later.py", "# later\n");
    let (input, config) = (backup.display(), test.home.join("config.yaml"));
    let mount = format!("cp -p '{0}' $d/c; mount --bind $d/c '{0}' || exit 99;", config.display());
    let refused = script(&test, &format!("{mount} \"$@\" lite restore --input {input} --force --yes"));
    assert!(refused.code == Some(3) && refused.stderr.contains("config.yaml is a mount point"), "{refused:?}");
    // Mounted after the restore was killed: recovery reverts the restore, and the next command works.
    let reverted = script(
        &test,
        &format!(
            "LEOFLOW_KILL_AT=restore.begun \"$@\" lite restore --input {input} --force --yes; {mount} \
             \"$@\" lite psql -- -c 'SELECT 1' || fail 'the next command does not work'; test -f $w/later.py || fail 'lost'"
        ),
    );
    assert!(reverted.code == Some(0) && reverted.stderr.contains("reverted the"), "{reverted:?}");
    test.restore(&backup, &["--force", "--yes"]).expect(0);
    let refused = script(&test, &format!("{mount} \"$@\" lite restore --undo --yes"));
    assert!(refused.code == Some(3) && refused.stderr.contains("is a mount point"), "{refused:?}");
}

#[test]
fn task_logs_on_another_disk_are_restored_and_undone() {
    if !can_mount() {
        return;
    }
    for mount in [
        "mount -t tmpfs -o size=20m,mode=700 tmpfs $L",
        "mkdir $d/disk; mount -t tmpfs -o mode=700 tmpfs $d/disk; mv $L $L.old; ln -s $d/disk $L",
    ] {
        let test = TestHome::on_one_disk();
        test.start();
        test.run_dag("hello");
        let backup = test.backup("b.tar.zst");
        test.run(&["lite", "stop"]).expect(0);
        let text = format!(
            "L='{}'; {{ {mount}; }} || exit 99; mkdir -p $L/hello; echo mine > $L/hello/now.log; kind=$(stat -c %F $L); \
             \"$@\" lite restore --input {} --force --yes || fail restore; \
             test \"$(stat -c %F $L)\" = \"$kind\" || fail 'the link is gone'; \
             test ! -e $L/hello/now.log -a -n \"$(find -L $L/hello -name 1.log)\" || fail \"not restored: $(find -L $L)\"; \
             \"$@\" lite restore --undo --yes || fail undo; test \"$(cat $L/hello/now.log)\" = mine || fail \"not undone: $(find -L $L)\"",
            test.home.join("task-logs").display(),
            backup.display()
        );
        let done = script(&test, &text);
        assert_eq!(done.code, Some(0), "{mount}: {done:?}");
    }
}
