//! `install.sh` and `uninstall.sh`, in a home of their own, with nothing on the PATH but what every system has.

use crate::support::clients::Clients;
use crate::support::releases::{FIRST, Releases, SECOND, make_release, releases};
use crate::support::{Done, TestHome, processes, shellcheck, wheels};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a bare Debian or BusyBox has; no Python, no PostgreSQL.
const TOOLS: [&str; 30] = [
    "sh",
    "awk",
    "cat",
    "chmod",
    "cp",
    "curl",
    "cut",
    "df",
    "dirname",
    "find",
    "grep",
    "gzip",
    "head",
    "id",
    "ln",
    "ls",
    "mkdir",
    "mktemp",
    "mv",
    "printf",
    "pwd",
    "readlink",
    "rm",
    "rmdir",
    "sed",
    "sha256sum",
    "tar",
    "tr",
    "uname",
    "wget",
];

/// A user's machine: a home directory and a PATH with the usual tools.
struct Machine {
    test: TestHome,
    shell: &'static str,
}

impl Machine {
    fn new(shell: &'static str) -> Self {
        let test = TestHome::at(Path::new("user/.leoflow"));
        let bin = test.folder().join("bin");
        fs::create_dir(&bin).unwrap();
        for tool in TOOLS {
            let found =
                ["/bin", "/usr/bin"].iter().map(|folder| Path::new(folder).join(tool)).find(|path| path.exists());
            // `wget` is not everywhere, and not needed where there is `curl`.
            if let Some(found) = found {
                symlink(found, bin.join(tool)).unwrap();
            }
        }
        Self { test, shell }
    }

    fn user(&self) -> PathBuf {
        self.test.folder().join("user")
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("LEOFLOW_PYTHON_PACKAGES", "none")
            .env("HOME", self.user())
            .env("PATH", self.test.folder().join("bin"));
        // Without a terminal of its own: nobody is there to be asked.
        leoflow::sys::command::in_own_session(&mut command);
        command.stdin(Stdio::null());
        command
    }

    /// The script as a file in the release's folder.
    fn install(&self, all: &Releases, arguments: &[&str]) -> Done {
        let shell =
            ["/bin", "/usr/bin"].iter().map(|folder| Path::new(folder).join(self.shell)).find(|path| path.exists());
        let mut command = self.command(&shell.unwrap());
        command.arg(all.dist().join("install.sh")).args(arguments).output().unwrap().into()
    }

    /// The script from a pipe, as `curl … | sh` gives it.
    fn pipe(&self, script: &[u8], arguments: &[&str], environment: &[(&str, &str)]) -> Done {
        let mut command = self.command(Path::new("/bin/sh"));
        command.args(["-s", "--"]).args(arguments).envs(environment.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A shell that has seen enough closes it.
        let _ = child.stdin.take().unwrap().write_all(script);
        child.wait_with_output().unwrap().into()
    }

    fn leoflow(&self, arguments: &[&str]) -> Done {
        let mut command = self.command(&self.user().join(".leoflow/bin/leoflow"));
        command.args(arguments).output().unwrap().into()
    }

    fn start(&self) {
        self.leoflow(&["lite", "start", "--port", &self.test.port.to_string()]).expect(0);
    }

    fn is_untouched(&self) -> bool {
        fs::read_dir(self.user()).unwrap().next().is_none()
    }
}

#[test]
fn a_release_is_installed_from_a_folder_and_the_next_one_over_it() {
    for shell in ["dash", "bash"] {
        if !["/bin", "/usr/bin"].iter().any(|folder| Path::new(folder).join(shell).exists()) {
            continue;
        }
        let machine = Machine::new(shell);
        let first = releases(&[FIRST]);
        let done = machine.install(&first, &["--yes", "--no-modify-path"]).expect(0);
        assert!(done.stderr.contains("there is no Python for your DAGs yet"), "{}", done.stderr);
        machine.start();
        machine.leoflow(&["variables", "set", "kept", "value"]).expect(0);
        let all = releases(&[FIRST, SECOND]);
        machine.install(&all, &["--yes"]).expect(0);
        let status = machine.leoflow(&["lite", "status", "--json"]).expect(0).json();
        assert_eq!((&status["version"], &status["state"]), (&"0.2.0".into(), &"healthy".into()), "{shell}");
        let kept = machine.leoflow(&["variables", "get", "kept", "--json"]).expect(0).json();
        assert_eq!(kept["value"], "value");
        // Once more is a mend, beside the running instance.
        fs::remove_file(machine.user().join(".leoflow/bin/leoflow-agent")).unwrap();
        machine.install(&all, &["--yes", "--no-modify-path"]).expect(0);
        assert!(machine.user().join(".leoflow/bin/leoflow-agent").exists());
        machine.leoflow(&["lite", "stop"]).expect(0);
        machine.test.assert_nothing_runs();
        let strays: Vec<_> =
            fs::read_dir(machine.user().join(".leoflow")).unwrap().flatten().map(|e| e.file_name()).collect();
        assert!(!strays.iter().any(|name| name.to_string_lossy().starts_with(".install")), "{strays:?}");
    }
}

#[test]
fn a_release_brings_the_packages_that_dag_files_expect() {
    let all = releases(&[FIRST, SECOND]);
    let machine = Machine::new("sh");
    let dist = machine.test.folder().join("dist");
    let brings = ["--python-packages", wheels().to_str().unwrap()];
    Done::from(make_release(&all, FIRST.version, &dist, &brings)).expect(0);
    let install = |dist: &Path| {
        let mut command = machine.command(Path::new("/bin/sh"));
        // Nobody answers there.
        command.env_remove("LEOFLOW_PYTHON_PACKAGES").env("PIP_INDEX_URL", "http://127.0.0.1:9/simple");
        Done::from(command.arg(dist.join("install.sh")).args(["--yes", "--no-modify-path"]).output().unwrap())
    };
    install(&dist).expect(0);
    let python = machine.user().join(".leoflow/python");
    let packages = || fs::read_dir(&python).unwrap().flatten().map(|entry| entry.path()).next().unwrap();
    assert!(packages().join("jinja2/__init__.py").exists() && packages().join("pendulum").exists());
    // A mend brings back what is missing.
    fs::remove_dir_all(packages()).unwrap();
    let beside = |version: &str| machine.user().join(".leoflow/versions").join(version).join("python-packages");
    fs::remove_dir_all(beside(FIRST.version)).unwrap();
    install(&dist).expect(0);
    assert!(packages().join("six.py").exists() && beside(FIRST.version).is_dir());
    // And an upgrade has those of its own release.
    let next = machine.test.folder().join("next");
    let more = ["--from", dist.to_str().unwrap()];
    Done::from(make_release(&all, SECOND.version, &next, &[&more[..], &brings].concat())).expect(0);
    install(&next).expect(0);
    assert_eq!(fs::read_dir(beside(SECOND.version)).unwrap().count(), 6);
}

#[test]
fn a_release_brings_airflows_web_ui_as_a_component() {
    let Some(clients) = Clients::get() else {
        println!("skipped: Airflow's wheel cannot be had from the package index");
        return;
    };
    let all = releases(&[FIRST, SECOND]);
    let machine = Machine::new("sh");
    let dist = machine.test.folder().join("dist");
    let brings = ["--airflow-ui", clients.wheel.to_str().unwrap()];
    Done::from(make_release(&all, FIRST.version, &dist, &brings)).expect(0);
    let install = |dist: &Path| {
        let mut command = machine.command(Path::new("/bin/sh"));
        // Nobody answers there.
        command.env("PIP_INDEX_URL", "http://127.0.0.1:9/simple");
        Done::from(command.arg(dist.join("install.sh")).args(["--yes", "--no-modify-path"]).output().unwrap())
    };
    install(&dist).expect(0);
    let home = machine.user().join(".leoflow");
    let ui = home.join("ui").join(leoflow::web_ui::VERSION);
    assert!(ui.join("index.html").exists() && ui.join("NOTICE").exists());
    let archives = || {
        let of_versions = fs::read_dir(home.join("versions")).unwrap().flatten();
        let files = of_versions.flat_map(|version| fs::read_dir(version.path()).unwrap().flatten());
        files.filter(|file| file.path().extension().is_some_and(|end| end == "zst")).count()
    };
    assert_eq!(archives(), 0);
    // A mend brings it back, and so does the next release; the one before is carried along with the same bytes.
    fs::remove_dir_all(&ui).unwrap();
    install(&dist).expect(0);
    assert!(ui.join("index.html").exists());
    let next = machine.test.folder().join("next");
    let more = ["--from", dist.to_str().unwrap()];
    Done::from(make_release(&all, SECOND.version, &next, &[&more[..], &brings].concat())).expect(0);
    let names = fs::read_dir(&next).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let of_ui: Vec<String> = names.filter(|name| name.starts_with("airflow-ui-")).collect();
    assert_eq!(of_ui, [format!("airflow-ui-{}-{}.tar.zst", leoflow::web_ui::VERSION, FIRST.version)]);
    fs::remove_dir_all(&ui).unwrap();
    let done = install(&next).expect(0);
    let told = done.stdout + &done.stderr;
    assert!(ui.join("index.html").exists() && told.contains("airflow-ui 3.3.2 is fetched"), "{told}");
    assert_eq!(archives(), 0);
    // What is another's is not taken for it.
    fs::remove_dir_all(&ui).unwrap();
    let mut other = machine.command(&home.join("bin/leoflow"));
    let postgres = fs::read_dir(&next).unwrap().flatten().map(|entry| entry.path());
    let postgres = postgres.into_iter().find(|path| path.to_string_lossy().contains("/postgres-")).unwrap();
    let told = Done::from(other.arg("setup").env("LEOFLOW_UI", &postgres).output().unwrap()).expect(0);
    assert!(!ui.exists() && told.stderr.contains("index.html"), "{}", told.stderr);
}

#[test]
fn a_script_that_is_cut_at_any_line_has_done_nothing() {
    let all = releases(&[FIRST]);
    let script = fs::read(all.dist().join("install.sh")).unwrap();
    let dist = all.dist();
    let environment = [("LEOFLOW_BASE_URL", dist.to_str().unwrap())];
    let machine = Machine::new("sh");
    let ends: Vec<usize> = script.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect();
    // At lines' ends and in their middles, but for the last one, which ends the one command that all of it is.
    let (_, before) = ends.split_last().unwrap();
    let middles = ends.windows(2).map(|pair| usize::midpoint(pair[0], pair[1]));
    // And at every byte of its end.
    let tail = script.len() - 40..script.len() - 2;
    let cuts = before.iter().copied().chain(middles).step_by(4).chain(tail);
    for cut in cuts {
        machine.pipe(&script[..cut], &["--no-setup"], &environment);
        assert!(machine.is_untouched(), "cut after {cut} bytes");
    }
    machine.pipe(&script, &["--no-modify-path"], &environment).expect(0);
    assert!(machine.user().join(".leoflow/bin/leoflow").exists());
}

#[test]
fn what_cannot_be_installed_leaves_nothing_behind() {
    let all = releases(&[FIRST, SECOND]);
    let machine = Machine::new("sh");
    let script = fs::read(all.dist().join("install.sh")).unwrap();
    let empty = machine.test.folder().join("empty");
    fs::create_dir(&empty).unwrap();
    let spoiled = machine.test.folder().join("spoiled");
    fs::create_dir(&spoiled).unwrap();
    for entry in fs::read_dir(all.dist()).unwrap().flatten() {
        fs::write(spoiled.join(entry.file_name()), b"<html>").unwrap();
    }
    for (folder, what) in [(&empty, "cannot be read"), (&spoiled, "is not what this script expects")] {
        let done = machine.pipe(&script, &["--base-url", &format!("file://{}", folder.display())], &[]);
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.stderr.contains(what) && done.stderr.contains("hint:"), "{}", done.stderr);
        assert!(machine.is_untouched(), "{what}");
    }
    assert!(machine.pipe(&script, &["--help"], &[]).expect(0).stdout.contains("--no-setup"));
    assert_eq!(machine.pipe(&script, &["--nonsense"], &[]).code, Some(2));
    for wanted in ["v9.9.9", "nonsense"] {
        let environment = [("LEOFLOW_VERSION", wanted), ("LEOFLOW_BASE_URL", all.dist().to_str().unwrap())]
            .map(|(name, value)| (name, value.to_owned()));
        let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let done = machine.pipe(&script, &[], &environment);
        assert_ne!(done.code, Some(0), "{done:?}");
        assert!(done.stderr.contains("hint:"), "{}", done.stderr);
        assert!(machine.is_untouched(), "{wanted}");
    }
    // For a machine that no release is made for.
    let uname = machine.test.folder().join("bin/uname");
    fs::remove_file(&uname).unwrap();
    fs::write(&uname, "#!/bin/sh\n[ \"$1\" = -s ] && echo Linux || echo riscv64\n").unwrap();
    fs::set_permissions(&uname, fs::Permissions::from_mode(0o755)).unwrap();
    let done = machine.pipe(&script, &["--base-url", all.dist().to_str().unwrap()], &[]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("there is no release 0.2.0 for riscv64-unknown-linux-gnu"), "{}", done.stderr);
    // The template itself is none.
    let template = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/install/install.sh")).unwrap();
    assert!(machine.pipe(&template, &[], &[]).stderr.contains("this is the template"));
    assert!(machine.is_untouched());
}

#[test]
fn a_wget_without_a_timeout_will_do() {
    let all = releases(&[FIRST]);
    let machine = Machine::new("sh");
    let bin = machine.test.folder().join("bin");
    for tool in ["curl", "wget"] {
        let _ = fs::remove_file(bin.join(tool));
    }
    // As that of busybox 1.35 is: it dies of -T, and knows no long options.
    let wget = "#!/bin/sh\nwhile [ $# -gt 0 ]; do\ncase $1 in\n-q) ;;\n-O) into=$2; shift ;;\n-*) exit 139 ;;\n*) url=$1 ;;\nesac\n\
        shift\ndone\ncp \"DIST/${url##*/}\" \"$into\"\n";
    fs::write(bin.join("wget"), wget.replace("DIST", all.dist().to_str().unwrap())).unwrap();
    fs::set_permissions(bin.join("wget"), fs::Permissions::from_mode(0o755)).unwrap();
    let script = fs::read(all.dist().join("install.sh")).unwrap();
    let options = ["--base-url", "http://127.0.0.1:9/releases", "--no-modify-path"];
    machine.pipe(&script, &options, &[]).expect(0);
    assert!(machine.user().join(".leoflow/bin/leoflow").exists());
}

#[test]
fn every_script_passes_shellcheck() {
    let Some(shellcheck) = shellcheck() else {
        // There is none for every machine.
        assert!(!["x86_64", "aarch64"].contains(&std::env::consts::ARCH), "pip can have it here");
        return;
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scripts = [
        "install/install.sh",
        "install/uninstall.sh",
        "scripts/release",
        "scripts/fuzz",
        "scripts/soak",
        ".ci/run",
        "tests/it/support/quick_initdb.sh",
    ];
    let done = Done::from(Command::new(shellcheck).args(scripts).current_dir(root).output().unwrap());
    assert_eq!(done.code, Some(0), "{}", done.stdout);
}

#[test]
fn another_release_is_installed_by_version_once_its_signature_was_checked() {
    let all = releases(&[FIRST, SECOND]);
    let machine = Machine::new("sh");
    let script = fs::read(all.dist().join("install.sh")).unwrap();
    let dist = all.dist();
    let environment =
        [("LEOFLOW_VERSION", "v0.1.0"), ("LEOFLOW_NO_SETUP", "1"), ("LEOFLOW_BASE_URL", dist.to_str().unwrap())];
    machine.pipe(&script, &[], &environment).expect(0);
    assert_eq!(machine.leoflow(&["version", "--json"]).expect(0).json()["version"], "0.1.0");
    assert!(!machine.user().join(".leoflow/config.yaml").exists());
    machine.leoflow(&["setup", "--port", &machine.test.port.to_string()]).expect(0);
    machine.start();
    machine.leoflow(&["lite", "stop"]).expect(0);
}

#[test]
fn the_path_is_changed_only_when_allowed_and_uninstall_takes_it_back() {
    let all = releases(&[FIRST]);
    let machine = Machine::new("sh");
    let profile = machine.user().join(".profile");
    let bashrc = machine.user().join(".bashrc");
    fs::write(&bashrc, "alias a=b").unwrap();
    machine.install(&all, &[]).expect(0);
    assert!(!profile.exists());
    machine.install(&all, &["--yes"]).expect(0);
    let line = fs::read_to_string(&profile).unwrap();
    assert!(line.contains(".leoflow/bin") && line.trim_end().ends_with("# added by leoflow"), "{line}");
    assert!(fs::read_to_string(&bashrc).unwrap().starts_with("alias a=b\n"));
    let shown =
        machine.command(Path::new("/bin/sh")).args(["-c", ". \"$HOME/.profile\"; leoflow version"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&shown.stdout).trim(), "leoflow 0.1.0");
    machine.leoflow(&["uninstall", "--yes"]).expect(0);
    assert_eq!(fs::read_to_string(&profile).unwrap(), "");
    assert_eq!(fs::read_to_string(&bashrc).unwrap(), "alias a=b\n");
}

#[test]
fn a_home_whose_program_is_gone_is_removed_by_a_script() {
    let all = releases(&[FIRST]);
    let machine = Machine::new("sh");
    let script = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/install/uninstall.sh")).unwrap();
    // Not a folder that is somebody's.
    let done = machine.pipe(&script, &["--home", machine.user().to_str().unwrap(), "--purge", "--yes"], &[]);
    assert_eq!(done.code, Some(3), "{done:?}");
    machine.install(&all, &["--yes"]).expect(0);
    machine.start();
    let refused = machine.pipe(&script, &["--yes"], &[]);
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(refused.stderr.contains("Leoflow runs there"), "{}", refused.stderr);
    machine.leoflow(&["variables", "set", "kept", "value"]).expect(0);
    machine.leoflow(&["lite", "stop"]).expect(0);
    fs::remove_dir_all(machine.user().join(".leoflow/versions")).unwrap();
    machine.pipe(&script, &["--yes"], &[]).expect(0);
    assert!(!machine.user().join(".leoflow/bin").exists());
    assert_eq!(fs::read_to_string(machine.user().join(".profile")).unwrap(), "");
    machine.install(&all, &["--yes", "--no-modify-path"]).expect(0);
    machine.start();
    assert_eq!(machine.leoflow(&["variables", "get", "kept", "--json"]).expect(0).json()["value"], "value");
    machine.leoflow(&["lite", "stop"]).expect(0);
    machine.pipe(&script, &["--purge", "--yes"], &[]).expect(0);
    assert!(!machine.user().join(".leoflow").exists());
    assert!(machine.user().join("leoflow").exists(), "the workspace stays");
    processes::end_all(machine.test.folder());
}
