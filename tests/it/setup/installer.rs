//! `install.sh` and `uninstall.sh`, in a temporary home with only the tools of a minimal system on the PATH.

use crate::support::clients::Clients;
use crate::support::releases::{FIRST, Releases, SECOND, make_release, releases};
use crate::support::{CommandOutput, TestHome, processes, shellcheck, wheels};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The tools of a minimal Debian or BusyBox system; no Python, no PostgreSQL.
const TOOLS: [&str; 31] = [
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
    "sleep",
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
        let test = TestHome::with_home_at(Path::new("user/.leoflow"));
        let bin = test.folder().join("bin");
        fs::create_dir(&bin).unwrap();
        for tool in TOOLS {
            let path =
                ["/bin", "/usr/bin"].iter().map(|folder| Path::new(folder).join(tool)).find(|path| path.exists());
            // `wget` may be missing; the installer does not need it if there is `curl`.
            if let Some(path) = path {
                symlink(path, bin.join(tool)).unwrap();
            }
        }
        Self { test, shell }
    }

    /// Puts a script of `sh` in the place of a program.
    fn replace_tool(&self, name: &str, script: &str) {
        let path = self.test.folder().join("bin").join(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
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
        // A session without a terminal cannot show prompts.
        leoflow::sys::process::command::in_own_session(&mut command);
        command.stdin(Stdio::null());
        command
    }

    /// Runs the script as a file in the release's folder.
    fn install(&self, all: &Releases, arguments: &[&str]) -> CommandOutput {
        let shell =
            ["/bin", "/usr/bin"].iter().map(|folder| Path::new(folder).join(self.shell)).find(|path| path.exists());
        let mut command = self.command(&shell.unwrap());
        command.arg(all.dist().join("install.sh")).args(arguments).output().unwrap().into()
    }

    /// Runs the script from a pipe, as `curl … | sh` does.
    fn pipe(&self, script: &[u8], arguments: &[&str], environment: &[(&str, &str)]) -> CommandOutput {
        let mut command = self.command(Path::new("/bin/sh"));
        command.args(["-s", "--"]).args(arguments).envs(environment.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The shell may exit before it has read the whole script.
        let _ = child.stdin.take().unwrap().write_all(script);
        child.wait_with_output().unwrap().into()
    }

    fn leoflow(&self, arguments: &[&str]) -> CommandOutput {
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
fn the_installer_installs_upgrades_and_repairs() {
    for shell in ["dash", "bash"] {
        if !["/bin", "/usr/bin"].iter().any(|folder| Path::new(folder).join(shell).exists()) {
            continue;
        }
        let machine = Machine::new(shell);
        let first = releases(&[FIRST]);
        let done = machine.install(&first, &["--yes", "--no-modify-path"]).expect(0);
        assert!(done.stderr.contains("no usable Python for your DAGs"), "{}", done.stderr);
        machine.start();
        machine.leoflow(&["variables", "set", "kept", "value"]).expect(0);
        let all = releases(&[FIRST, SECOND]);
        machine.install(&all, &["--yes"]).expect(0);
        let status = machine.leoflow(&["lite", "status", "--json"]).expect(0).json();
        assert_eq!((&status["version"], &status["state"]), (&"0.2.0".into(), &"healthy".into()), "{shell}");
        let kept = machine.leoflow(&["variables", "get", "kept", "--json"]).expect(0).json();
        assert_eq!(kept["value"], "value");
        // A second run repairs the install while the instance runs.
        fs::remove_file(machine.user().join(".leoflow/bin/leoflow-agent")).unwrap();
        let repaired = machine.install(&all, &["--yes", "--no-modify-path"]).expect(0);
        assert!(machine.user().join(".leoflow/bin/leoflow-agent").exists());
        // The output shows that the instance runs, and its port.
        let port = format!(":{}   (running)", machine.test.port);
        assert!(repaired.stdout.contains(&port) && repaired.stdout.contains("lite status"), "{repaired:?}");
        machine.leoflow(&["lite", "stop"]).expect(0);
        machine.test.assert_nothing_runs();
        let files: Vec<_> =
            fs::read_dir(machine.user().join(".leoflow")).unwrap().flatten().map(|e| e.file_name()).collect();
        assert!(!files.iter().any(|name| name.to_string_lossy().starts_with(".install")), "{files:?}");
    }
}

#[test]
fn a_release_contains_the_packages_for_dag_files() {
    let all = releases(&[FIRST, SECOND]);
    let machine = Machine::new("sh");
    let dist = machine.test.folder().join("dist");
    let component = ["--python-packages", wheels().to_str().unwrap()];
    CommandOutput::from(make_release(&all, FIRST.version, &dist, &component)).expect(0);
    let install = |dist: &Path| {
        let mut command = machine.command(Path::new("/bin/sh"));
        // Sets a package index that refuses connections.
        command.env_remove("LEOFLOW_PYTHON_PACKAGES").env("PIP_INDEX_URL", "http://127.0.0.1:9/simple");
        CommandOutput::from(command.arg(dist.join("install.sh")).args(["--yes", "--no-modify-path"]).output().unwrap())
    };
    install(&dist).expect(0);
    let python = machine.user().join(".leoflow/python");
    let packages = || fs::read_dir(&python).unwrap().flatten().map(|entry| entry.path()).next().unwrap();
    assert!(packages().join("jinja2/__init__.py").exists() && packages().join("pendulum").exists());
    // A repair restores missing packages.
    fs::remove_dir_all(packages()).unwrap();
    let installed = |version: &str| machine.user().join(".leoflow/versions").join(version).join("python-packages");
    fs::remove_dir_all(installed(FIRST.version)).unwrap();
    install(&dist).expect(0);
    assert!(packages().join("six.py").exists() && installed(FIRST.version).is_dir());
    // An upgrade installs the packages of its own release.
    let next = machine.test.folder().join("next");
    let more = ["--from", dist.to_str().unwrap()];
    CommandOutput::from(make_release(&all, SECOND.version, &next, &[&more[..], &component].concat())).expect(0);
    install(&next).expect(0);
    assert_eq!(fs::read_dir(installed(SECOND.version)).unwrap().count(), 6);
}

#[test]
fn a_release_contains_airflows_web_ui() {
    let Some(clients) = Clients::get() else {
        println!("skipped: the package index does not provide Airflow's wheel");
        return;
    };
    let all = releases(&[FIRST, SECOND]);
    let machine = Machine::new("sh");
    let dist = machine.test.folder().join("dist");
    let component = ["--airflow-ui", clients.wheel.to_str().unwrap()];
    CommandOutput::from(make_release(&all, FIRST.version, &dist, &component)).expect(0);
    let install = |dist: &Path| {
        let mut command = machine.command(Path::new("/bin/sh"));
        // Sets a package index that refuses connections.
        command.env("PIP_INDEX_URL", "http://127.0.0.1:9/simple");
        CommandOutput::from(command.arg(dist.join("install.sh")).args(["--yes", "--no-modify-path"]).output().unwrap())
    };
    install(&dist).expect(0);
    let home = machine.user().join(".leoflow");
    let ui = home.join("ui").join(leoflow::web_ui::version());
    assert!(ui.join("index.html").exists() && ui.join("NOTICE").exists());
    let archives = || {
        let versions = fs::read_dir(home.join("versions")).unwrap().flatten();
        let files = versions.flat_map(|version| fs::read_dir(version.path()).unwrap().flatten());
        files.filter(|file| file.path().extension().is_some_and(|end| end == "zst")).count()
    };
    assert_eq!(archives(), 0);
    // A repair restores the UI, and so does the next release, which reuses the earlier release's component.
    fs::remove_dir_all(&ui).unwrap();
    install(&dist).expect(0);
    assert!(ui.join("index.html").exists());
    let next = machine.test.folder().join("next");
    let more = ["--from", dist.to_str().unwrap()];
    CommandOutput::from(make_release(&all, SECOND.version, &next, &[&more[..], &component].concat())).expect(0);
    let names = fs::read_dir(&next).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let ui_files: Vec<String> = names.filter(|name| name.starts_with("airflow-ui-")).collect();
    assert_eq!(ui_files, [format!("airflow-ui-{}-{}.tar.zst", leoflow::web_ui::version(), FIRST.version)]);
    fs::remove_dir_all(&ui).unwrap();
    let done = install(&next).expect(0);
    let output = done.stdout + &done.stderr;
    assert!(ui.join("index.html").exists() && output.contains("airflow-ui 3.3.2 will be downloaded"), "{output}");
    assert_eq!(archives(), 0);
    // Another component is not accepted as the UI.
    fs::remove_dir_all(&ui).unwrap();
    let mut other = machine.command(&home.join("bin/leoflow"));
    let postgres = fs::read_dir(&next).unwrap().flatten().map(|entry| entry.path());
    let postgres = postgres.into_iter().find(|path| path.to_string_lossy().contains("/postgres-")).unwrap();
    let done = CommandOutput::from(other.arg("setup").env("LEOFLOW_UI", &postgres).output().unwrap()).expect(0);
    assert!(!ui.exists() && done.stderr.contains("index.html"), "{}", done.stderr);
}

#[test]
fn a_truncated_install_script_does_nothing() {
    let all = releases(&[FIRST]);
    let script = fs::read(all.dist().join("install.sh")).unwrap();
    let dist = all.dist();
    let environment = [("LEOFLOW_BASE_URL", dist.to_str().unwrap())];
    let machine = Machine::new("sh");
    let ends: Vec<usize> =
        script.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(index, _)| index).collect();
    // Cuts at the ends and middles of lines, except the last line, which completes the script's only command.
    let (_, before) = ends.split_last().unwrap();
    let middles = ends.windows(2).map(|pair| usize::midpoint(pair[0], pair[1]));
    // Cuts at every byte of the script's end.
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
fn a_failed_install_leaves_no_files() {
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
    for (folder, expected) in [(&empty, "cannot read"), (&spoiled, "has the wrong sha256")] {
        let done = machine.pipe(&script, &["--base-url", &format!("file://{}", folder.display())], &[]);
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.stderr.contains(expected) && done.stderr.contains("hint:"), "{}", done.stderr);
        assert!(machine.is_untouched(), "{expected}");
    }
    assert!(machine.pipe(&script, &["--help"], &[]).expect(0).stdout.contains("--no-setup"));
    assert_eq!(machine.pipe(&script, &["--nonsense"], &[]).code, Some(2));
    for version in ["v9.9.9", "nonsense"] {
        let environment = [("LEOFLOW_VERSION", version), ("LEOFLOW_BASE_URL", all.dist().to_str().unwrap())]
            .map(|(name, value)| (name, value.to_owned()));
        let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let done = machine.pipe(&script, &[], &environment);
        assert_ne!(done.code, Some(0), "{done:?}");
        assert!(done.stderr.contains("hint:"), "{}", done.stderr);
        assert!(machine.is_untouched(), "{version}");
    }
    // A platform without a release.
    machine.replace_tool("uname", "[ \"$1\" = -s ] && echo Linux || echo riscv64");
    let done = machine.pipe(&script, &["--base-url", all.dist().to_str().unwrap()], &[]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("there is no release 0.2.0 for riscv64-unknown-linux-gnu"), "{}", done.stderr);
    // The installer's template does not install anything.
    let template = concat!(env!("CARGO_MANIFEST_DIR"), "/install/install.sh");
    let refused: CommandOutput = machine.command(Path::new("/bin/sh")).arg(template).output().unwrap().into();
    assert!(refused.stderr.contains("this is the installer's template"), "{refused:?}");
    assert!(machine.is_untouched());
}

#[test]
fn a_mac_gets_its_own_release_and_a_word_about_it() {
    let (machine, all) = (Machine::new("sh"), releases(&[FIRST]));
    machine.replace_tool("uname", "[ \"$1\" = -s ] && echo Darwin || echo x86_64");
    machine.replace_tool("getconf", "echo 'getconf: no such configuration parameter `GNU_LIBC_VERSION'\'' >&2; exit 1");
    fs::remove_file(machine.test.folder().join("bin/sha256sum")).unwrap();
    let hash = "import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest(), \" -\")";
    machine
        .replace_tool("shasum", &format!("exec /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin python3 -c '{hash}'"));
    let script = fs::read_to_string(all.dist().join("install.sh")).unwrap();
    let script = script.replace(&format!(" {}-unknown-linux-gnu ", std::env::consts::ARCH), " aarch64-apple-darwin ");
    let install = || machine.pipe(script.as_bytes(), &["--yes", "--base-url", all.dist().to_str().unwrap()], &[]);
    let refused = install().expect(1);
    assert!(
        refused.stderr.contains("no release 0.1.0 for x86_64-apple-darwin") && machine.is_untouched(),
        "{refused:?}"
    );
    // An Intel terminal on Apple silicon.
    machine.replace_tool("sysctl", "[ \"$*\" = '-n hw.optional.arm64' ] && echo 1");
    let installed = install().expect(0);
    assert!(installed.stderr.contains("never run it") && installed.stderr.contains("doctor --report"), "{installed:?}");
    machine.leoflow(&["version"]).expect(0);
}

#[test]
fn a_system_with_an_older_glibc_is_refused_untouched() {
    let (machine, first) = (Machine::new("sh"), releases(&[FIRST]));
    let getconf = |output: &str| machine.replace_tool("getconf", &format!("echo '{output}'"));
    for older in ["2.27", "2.5", "1.99"] {
        getconf(&format!("glibc {older}"));
        let refused = machine.install(&first, &["--yes", "--no-modify-path"]).expect(1);
        assert!(
            refused.stderr.contains(&format!("this system has glibc {older}, and Leoflow needs 2.28")),
            "{refused:?}"
        );
        assert!(machine.is_untouched(), "{older}");
    }
    for newer in ["glibc 2.28", "glibc 2.100.9", "glibc 3.1", "something else"] {
        getconf(newer);
        machine.install(&first, &["--yes", "--no-modify-path", "--no-setup"]).expect(0);
    }
}

#[test]
fn the_installer_works_with_busybox_wget() {
    let all = releases(&[FIRST]);
    let machine = Machine::new("sh");
    let bin = machine.test.folder().join("bin");
    for tool in ["curl", "wget"] {
        let _ = fs::remove_file(bin.join(tool));
    }
    // Behaves like the wget of BusyBox 1.35, which crashes with -T and has no long options.
    let wget = "while [ $# -gt 0 ]; do\ncase $1 in\n-q) ;;\n-O) into=$2; shift ;;\n-*) exit 139 ;;\n*) url=$1 ;;\nesac\n\
        shift\ndone\n[ \"$into\" != - ] || into=/dev/stdout\ncat \"DIST/${url##*/}\" >\"$into\"";
    machine.replace_tool("wget", &wget.replace("DIST", all.dist().to_str().unwrap()));
    let script = fs::read(all.dist().join("install.sh")).unwrap();
    let options = ["--base-url", "http://127.0.0.1:9/releases", "--no-modify-path"];
    machine.pipe(&script, &options, &[]).expect(0);
    assert!(machine.user().join(".leoflow/bin/leoflow").exists());
}

/// Ubuntu's curl snap cannot write to the file of `-o`, only to a file that the shell opened. If curl fails, the
/// installer uses wget.
#[test]
fn the_installer_works_with_a_confined_or_broken_curl() {
    let all = releases(&[FIRST]);
    let dist = all.dist().to_str().unwrap().to_owned();
    let script = fs::read(all.dist().join("install.sh")).unwrap();
    let serve = "for url; do :; done\ncat \"DIST/${url##*/}\"\n".replace("DIST", &dist);
    let confined = format!(
        "for word; do [ \"$word\" != -o ] || {{ echo 'curl: (23) Failure writing' >&2; exit 23; }}; done\n{serve}"
    );
    let broken = "echo 'curl: (6) Could not resolve host' >&2\nexit 6\n".to_owned();
    let wget = format!("[ \"$1\" != --version ] || exit 1\n{serve}");
    for (curl, wget) in [(confined, None), (broken.clone(), Some(wget)), (broken, None)] {
        let machine = Machine::new("sh");
        let bin = machine.test.folder().join("bin");
        let is_served = curl.contains("cat ") || wget.is_some();
        for (tool, text) in [("curl", Some(curl)), ("wget", wget)] {
            let _ = fs::remove_file(bin.join(tool));
            if let Some(text) = text {
                machine.replace_tool(tool, &text);
            }
        }
        let options = ["--base-url", "http://127.0.0.1:9/releases", "--no-modify-path", "--no-setup"];
        let done = machine.pipe(&script, &options, &[]);
        if is_served {
            done.expect(0);
            assert!(machine.user().join(".leoflow/bin/leoflow").exists());
        } else {
            assert_eq!(done.code, Some(1), "{done:?}");
            assert!(done.stderr.contains("curl: (6) Could not resolve host"), "{}", done.stderr);
            assert!(done.stderr.contains("the lines above say why"), "{}", done.stderr);
            assert!(machine.is_untouched());
        }
    }
}

#[test]
fn every_script_passes_shellcheck() {
    let Some(shellcheck) = shellcheck() else {
        // The package index has no shellcheck for some platforms.
        assert!(!["x86_64", "aarch64"].contains(&std::env::consts::ARCH), "pip could not install shellcheck");
        return;
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scripts = [
        "install/common.sh",
        "install/install.sh",
        "install/uninstall.sh",
        "scripts/release",
        "scripts/fuzz",
        "scripts/soak",
        ".ci/run",
        "tests/it/support/programs/quick_initdb.sh",
    ];
    let done = CommandOutput::from(Command::new(shellcheck).args(scripts).current_dir(root).output().unwrap());
    assert_eq!(done.code, Some(0), "{}", done.stdout);
}

#[test]
fn the_installer_installs_an_older_version_by_number() {
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
fn the_path_is_changed_only_if_allowed_and_restored() {
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
fn the_uninstall_script_works_without_the_program() {
    let all = releases(&[FIRST]);
    let machine = Machine::new("sh");
    // Each script of a release is one file with the functions that both use.
    let script = fs::read(all.dist().join("uninstall.sh")).unwrap();
    // Refuses a folder that is not a home of Leoflow.
    let done = machine.pipe(&script, &["--home", machine.user().to_str().unwrap(), "--purge", "--yes"], &[]);
    assert_eq!(done.code, Some(3), "{done:?}");
    machine.install(&all, &["--yes"]).expect(0);
    machine.start();
    let refused = machine.pipe(&script, &["--yes"], &[]);
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(refused.stderr.contains("Leoflow is running"), "{}", refused.stderr);
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
    processes::kill_all(machine.test.folder());
}
