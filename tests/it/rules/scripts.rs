//! Rules for the shell scripts: their exit codes and their usage texts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn text(script: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(script)).unwrap()
}

fn run(script: &str, arguments: &[&str], home: &Path) -> Output {
    let mut command = Command::new("sh");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).arg(script).args(arguments);
    command.env("HOME", home).env_remove("LEOFLOW_HOME").stdin(Stdio::null()).output().unwrap()
}

#[test]
fn the_install_scripts_use_the_documented_exit_codes() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().to_str().unwrap();
    let missing = home.path().join("missing");
    for (script, arguments, code) in [
        ("install/install.sh", &["--help"] as &[&str], 0),
        ("install/uninstall.sh", &["--help"], 0),
        ("install/install.sh", &["--home"], 2),
        ("install/uninstall.sh", &["--home"], 2),
        ("install/install.sh", &["--nonsense"], 2),
        ("install/uninstall.sh", &["--nonsense"], 2),
        ("install/uninstall.sh", &["--home", missing.to_str().unwrap()], 1),
        ("install/uninstall.sh", &["--home", folder, "--yes"], 3),
    ] {
        let output = run(script, arguments, home.path());
        assert_eq!(output.status.code(), Some(code), "{script} {arguments:?}: {output:?}");
    }
}

#[test]
fn the_usage_of_a_script_is_its_whole_first_comment() {
    for (script, arguments) in
        [("scripts/soak", &["nonsense"] as &[&str]), ("scripts/flaky", &[]), ("scripts/release", &["--help"])]
    {
        let text = text(script);
        let comment = text.lines().skip(1).take_while(|line| line.starts_with('#'));
        let expected: Vec<&str> = comment.map(|line| line[1..].strip_prefix(' ').unwrap_or(&line[1..])).collect();
        let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(script)).args(arguments).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().collect::<Vec<_>>(), expected, "{script}");
    }
}

/// With a `cargo` that only prints its arguments and its folder.
#[test]
fn keys_and_merges_use_the_target_folder_that_cargo_chooses() {
    let folder = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cargo = folder.path().join("cargo");
    fs::write(&cargo, "#!/bin/sh\necho \"$PWD $*\"\n").unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let run = |arguments: &[&str]| {
        let path = format!("{}:/usr/bin:/bin", folder.path().display());
        let mut command = Command::new(root.join("scripts/release"));
        let output = command.current_dir(folder.path()).args(arguments).env("PATH", path).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let start = folder.path().canonicalize().unwrap();
    let key = start.join("KEY");
    let keygen = run(&["keygen", "KEY"]);
    assert!(keygen.contains("--package leoflow-keygen") && keygen.contains(key.to_str().unwrap()), "{keygen}");
    let merge = run(&["merge", "one", "--sign", "KEY", "--output", "all"]);
    let manifest = root.join("Cargo.toml");
    let expected = format!("{} run --release --locked --manifest-path {} ", start.display(), manifest.display());
    assert!(merge.starts_with(&expected), "{merge}");
    assert!(merge.contains("-- merge one --sign KEY --output all --installer"), "{merge}");
    for printed in [keygen, merge] {
        assert_eq!(printed.lines().count(), 1, "{printed}");
        assert!(!printed.contains("--quiet") && !printed.contains("target/"), "{printed}");
    }
}
