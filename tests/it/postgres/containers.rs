//! A datastore in a container: with a fake `docker` and `podman` that record their calls, and with a real runtime if
//! one is installed.

use crate::support::{TestHome, fast_folder, quick_bin, wait_until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const DOCKER: &str = include_str!("../support/programs/fake_docker.sh");

/// A home with a container runtime: fake or real.
struct Docker {
    test: TestHome,
    /// Folder with the fake runtime's programs, containers, volumes and recorded calls.
    state: TempDir,
    is_real: bool,
}

impl Docker {
    /// Creates a home whose `docker` and `podman` are both fake.
    fn new() -> Self {
        let state = tempfile::Builder::new().prefix("leoflow-test-docker-").tempdir_in(fast_folder()).unwrap();
        let mut docker = Self { test: TestHome::new(), state, is_real: false };
        let folder = docker.state.path().join("bin");
        fs::create_dir(&folder).unwrap();
        for name in ["docker", "podman"] {
            docker.write_script(&format!("bin/{name}"), DOCKER);
        }
        docker.put_first_in_path(&folder);
        docker
    }

    /// Creates a home with one real runtime, `docker` or `podman`; the other one does not answer.
    fn real(runtime: &str) -> Self {
        let state = tempfile::Builder::new().prefix("leoflow-test-docker-").tempdir_in(fast_folder()).unwrap();
        let mut docker = Self { test: TestHome::new(), state, is_real: true };
        let folder = docker.state.path().join("bin");
        fs::create_dir(&folder).unwrap();
        for other in ["docker", "podman"].into_iter().filter(|name| *name != runtime) {
            docker.write_script(&format!("bin/{other}"), "#!/bin/sh\necho it does not answer >&2\nexit 1\n");
        }
        docker.put_first_in_path(&folder);
        docker
    }

    fn put_first_in_path(&mut self, folder: &Path) {
        let lines = [
            format!("export FAKE_DOCKER='{}'", self.state.path().display()),
            format!("export FAKE_POSTGRES='{}'", quick_bin().display()),
            // Podman needs network programs in the system's sbin folders.
            format!("export PATH='{}':\"$PATH\":/usr/sbin:/sbin", folder.display()),
            format!("exec '{}' \"$@\"", self.test.program.display()),
        ];
        self.test.program = self.write_script("leoflow", &format!("#!/bin/sh\n{}\n", lines.join("\n")));
    }

    fn write_script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.state.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.state.path().join("calls")).unwrap_or_default()
    }

    /// Returns the sorted folder names of the fake runtime's containers and volumes.
    fn resources(&self) -> Vec<String> {
        let entries = fs::read_dir(self.state.path()).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut resources: Vec<String> =
            names.filter(|name| name.starts_with("container-") || name.starts_with("volume-")).collect();
        resources.sort();
        resources
    }

    fn set_up(&self) {
        self.test.run(&["setup", "--port", &self.test.port.to_string(), "--datastore", "docker"]).expect(0);
    }

    fn is_stopped(&self) -> bool {
        let container = self.resources().into_iter().find(|name| name.starts_with("container-")).unwrap();
        !self.state.path().join(container).join(".s.PGSQL.lock").exists() && self.processes().is_empty()
    }

    /// Returns the pids of the processes whose working directory is in one of the volumes.
    fn processes(&self) -> Vec<i32> {
        let volumes = self.resources().into_iter().filter(|name| name.starts_with("volume-"));
        let folders = volumes.map(|name| self.state.path().join(name).join("data"));
        folders.flat_map(|data| leoflow::sys::process::working_in(&data)).map(|process| process.pid).collect()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if self.is_real {
            // A purge removes the container that a failed test has left.
            let _ = self.test.command(&["uninstall", "--purge", "--yes"]).output();
        }
        for pid in self.processes() {
            for path in crate::support::processes::shared_memory_of(pid) {
                let _ = fs::remove_file(path);
            }
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

#[test]
fn a_container_datastore_runs_from_setup_to_purge() {
    let docker = Docker::new();
    docker.set_up();
    let resources = docker.resources();
    assert!(
        resources[0].starts_with("container-leoflow-postgres-") && resources[1].starts_with("volume-leoflow-data-")
    );
    let calls = docker.calls();
    assert!(
        calls.contains("--publish 127.0.0.1:") && calls.contains("docker.io/library/postgres:18.6@sha256:"),
        "{calls}"
    );
    let credentials = fs::read_to_string(docker.test.home.join("managed-postgres/credentials.json")).unwrap();
    let credentials: serde_json::Value = serde_json::from_str(&credentials).unwrap();
    assert!(!calls.contains(credentials["superuser_password"].as_str().unwrap()), "no password in argv");
    assert!(
        !docker.test.home.join("run/container.env").exists()
            && !docker.test.home.join("managed-postgres/data").exists()
    );
    docker.test.start();
    docker.test.run(&["variables", "set", "colour", "blue"]).expect(0);
    docker.test.wait_dag("hello", 1);
    docker.test.run(&["dags", "trigger", "hello", "--wait"]).expect(0);
    let backup = docker.test.backup("one.tar.zst");
    docker.test.run(&["lite", "backups", "verify", backup.to_str().unwrap()]).expect(0);
    docker.test.run(&["variables", "set", "colour", "red"]).expect(0);
    docker.test.restore(&backup, &["--force", "--yes"]).expect(0);
    assert_eq!(docker.test.run(&["variables", "get", "colour"]).expect(0).stdout.trim(), "blue");
    docker.test.run(&["lite", "stop", "--yes"]).expect(0);
    assert!(docker.is_stopped(), "{:?}", docker.processes());
    assert_eq!(docker.test.sql("SELECT count(*) FROM variable"), "1", "a command starts the container for itself");
    assert!(docker.is_stopped(), "{:?}", docker.processes());
    // The container stops when the supervisor is killed.
    docker.test.start();
    let pid = docker.test.pid("supervisor");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_until("the container stops", Duration::from_secs(30), || docker.is_stopped());
    docker.test.start();
    assert_eq!(docker.test.sql("SELECT count(*) FROM variable"), "1");
    // A home with a container is not set up as new when `datastore.json` is missing.
    docker.test.run(&["lite", "stop", "--yes"]).expect(0);
    let record = docker.test.home.join("datastore.json");
    let saved = fs::read(&record).unwrap();
    fs::remove_file(&record).unwrap();
    let error = docker.test.run(&["lite", "start"]).expect(3).stderr;
    assert!(error.contains("still exists"), "{error}");
    fs::write(&record, saved).unwrap();
    assert_eq!(docker.test.sql("SELECT count(*) FROM variable"), "1");
    // A purge that cannot reach the runtime removes nothing.
    fs::write(docker.state.path().join("down"), "").unwrap();
    docker.test.run(&["uninstall", "--purge", "--yes"]).expect(1);
    assert!(docker.test.home.join("config.yaml").exists() && docker.resources().len() == 2);
    fs::remove_file(docker.state.path().join("down")).unwrap();
    // A purge removes nothing if another container uses the volume.
    let other = docker.state.path().join("container-other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("volume"), docker.resources().iter().find_map(|name| name.strip_prefix("volume-")).unwrap())
        .unwrap();
    let error = docker.test.run(&["uninstall", "--purge", "--yes"]).expect(3).stderr;
    assert!(error.contains("in use by the container other") && error.contains("docker rm other"), "{error}");
    fs::remove_dir_all(&other).unwrap();
    assert_eq!(docker.test.sql("SELECT count(*) FROM variable"), "1");
    let plan = docker.test.run(&["uninstall", "--purge", "--dry-run"]).expect(0).stderr;
    assert!(plan.contains("leoflow-data-"), "{plan}");
    // When the purge has removed the container but not the volume, only the purge can continue.
    let keeps_volumes = docker.state.path().join("keeps-volumes");
    fs::write(&keeps_volumes, "").unwrap();
    let error = docker.test.run(&["uninstall", "--purge", "--yes"]).expect(1).stderr;
    assert!(error.contains("it is in use") && !error.contains("nothing was removed"), "{error}");
    let error = docker.test.run(&["lite", "start"]).expect(3).stderr;
    assert!(error.contains("leoflow uninstall --purge"), "{error}");
    fs::remove_file(&keeps_volumes).unwrap();
    docker.test.run(&["uninstall", "--purge", "--yes"]).expect(0);
    assert_eq!(docker.resources(), Vec::<String>::new());
}

#[test]
fn setup_keeps_foreign_volumes_and_reports_a_missing_runtime() {
    let docker = Docker::new();
    let refused = |expected: &str| {
        let port = docker.test.port.to_string();
        let done = docker.test.run(&["setup", "--port", &port, "--datastore", "docker"]);
        assert!(done.code != Some(0) && done.stderr.contains(expected), "{done:?}");
        assert!(!docker.test.home.join("config.yaml").exists(), "nothing was changed");
    };
    fs::write(docker.state.path().join("down"), "").unwrap();
    refused("Cannot connect to the Docker daemon");
    fs::remove_file(docker.state.path().join("down")).unwrap();
    // A foreign volume with the same name.
    docker.set_up();
    let volume = docker.resources().pop().unwrap();
    docker.test.run(&["uninstall", "--purge", "--yes"]).expect(0);
    fs::create_dir(docker.state.path().join(&volume)).unwrap();
    fs::write(docker.state.path().join(&volume).join("label"), "<no value>\n").unwrap();
    refused("does not belong to this home");
    assert_eq!(docker.resources(), [volume]);
}

#[test]
fn data_moves_into_a_container_and_back() {
    let docker = Docker::new();
    let test = &docker.test;
    test.start();
    test.run(&["variables", "set", "colour", "blue"]).expect(0);
    let move_to = |target: &str| test.run(&["lite", "move-datastore", "--to", target, "--yes"]);
    move_to("docker").expect(0);
    assert_eq!(test.run(&["variables", "get", "colour"]).expect(0).stdout.trim(), "blue");
    assert!(fs::read_to_string(test.home.join("config.yaml")).unwrap().contains("datastore: docker"));
    move_to("managed").expect(0);
    assert_eq!(test.run(&["variables", "get", "colour"]).expect(0).stdout.trim(), "blue");
    assert!(docker.is_stopped());
    let error = move_to("docker").expect(3).stderr;
    assert!(
        error.contains("still exists and contains earlier data") && error.contains("docker container rm"),
        "{error}"
    );
    assert_eq!(docker.resources().len(), 2);
    // Recovery of a killed move removes the new container.
    for name in docker.resources() {
        fs::remove_dir_all(docker.state.path().join(name)).unwrap();
    }
    test.run(&["lite", "stop", "--yes"]).expect(0);
    for checkpoint in ["move-datastore.prepare", "content.in-place"] {
        let arguments = ["lite", "move-datastore", "--to", "docker", "--yes"];
        let killed = test.command(&arguments).env("LEOFLOW_KILL_AT", checkpoint).output().unwrap();
        assert!(!killed.status.success(), "{checkpoint}");
        assert_eq!(test.sql("SELECT count(*) FROM variable"), "1", "after {checkpoint}");
        assert_eq!(docker.resources(), Vec::<String>::new(), "after {checkpoint}");
    }
}

#[test]
fn podman_is_used_if_docker_does_not_answer() {
    let docker = Docker::new();
    fs::write(docker.state.path().join("down-docker"), "").unwrap();
    docker.set_up();
    let record = fs::read_to_string(docker.test.home.join("datastore.json")).unwrap();
    assert!(record.contains("\"podman\""), "{record}");
    docker.test.start();
    assert_eq!(docker.test.sql("SELECT 1"), "1");
}

/// True if the runtime answers and has the image of PostgreSQL; tests do not download it.
fn is_ready(runtime: &str) -> bool {
    let image = leoflow::postgres::location::Container::image();
    let inspected = Command::new(runtime).args(["image", "inspect", &image]).output();
    inspected.is_ok_and(|output| output.status.success())
}

#[test]
fn a_real_container_runtime_works_if_installed() {
    let ready: Vec<&str> = ["docker", "podman"].into_iter().filter(|name| is_ready(name)).collect();
    if ready.is_empty() {
        eprintln!("skipped: neither docker nor podman has the image, so only the fake runtime was tested");
    }
    for runtime in ready {
        let docker = Docker::real(runtime);
        let test = &docker.test;
        test.start();
        test.run(&["variables", "set", "colour", "blue"]).expect(0);
        let moved = test.run(&["lite", "move-datastore", "--to", "docker", "--yes", "--json"]).expect(0).json();
        let suffix = format!("({runtime})");
        assert!(moved["to"].as_str().unwrap().ends_with(&suffix), "{moved}");
        let name = moved["to"].as_str().unwrap().split_whitespace().nth(2).unwrap();
        let inspect = |kind: &str, name: &str| Command::new(runtime).args([kind, "inspect", name]).output().unwrap();
        let running = || {
            let arguments = ["container", "inspect", "--format", "{{.State.Running}}", name];
            String::from_utf8(Command::new(runtime).args(arguments).output().unwrap().stdout).unwrap().trim() == "true"
        };
        assert!(running());
        let backup = test.backup("one.tar.zst");
        test.run(&["variables", "set", "colour", "red"]).expect(0);
        test.restore(&backup, &["--force", "--yes"]).expect(0);
        assert_eq!(test.run(&["variables", "get", "colour"]).expect(0).stdout.trim(), "blue");
        assert!(Command::new(runtime).args(["kill", name]).output().unwrap().status.success());
        wait_until("the container is restarted", Duration::from_secs(30), || running() && test.state() == "healthy");
        test.run(&["lite", "stop", "--yes"]).expect(0);
        assert!(!running());
        test.start();
        let pid = test.pid("supervisor");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        wait_until("the container stops", Duration::from_secs(30), || !running());
        assert_eq!(test.sql("SELECT count(*) FROM variable"), "1");
        test.run(&["uninstall", "--purge", "--yes"]).expect(0);
        let volume = name.replace("leoflow-postgres-", "leoflow-data-");
        assert!(!inspect("container", name).status.success() && !inspect("volume", &volume).status.success());
    }
}
