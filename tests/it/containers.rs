//! A datastore in a container, by the command line of docker: against a stand-in that remembers what it was told, and
//! against a real one where it runs.

use crate::support::{TestHome, quick_bin, wait_until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const DOCKER: &str = include_str!("support/fake_docker.sh");

/// A home for which `docker` is the stand-in.
struct Docker {
    test: TestHome,
    state: TempDir,
    is_real: bool,
}

impl Docker {
    fn new() -> Self {
        let state = tempfile::Builder::new().prefix("leoflow-test-docker-").tempdir().unwrap();
        let mut docker = Self { test: TestHome::new(), state, is_real: false };
        let folder = docker.state.path().join("bin");
        fs::create_dir(&folder).unwrap();
        for name in ["docker", "podman"] {
            docker.script(&format!("bin/{name}"), DOCKER);
        }
        docker.find_first(&folder);
        docker
    }

    /// A home for which one of the runtimes is real; the others do not answer.
    fn real(runtime: &str) -> Self {
        let state = tempfile::Builder::new().prefix("leoflow-test-docker-").tempdir().unwrap();
        let mut docker = Self { test: TestHome::new(), state, is_real: true };
        let folder = docker.state.path().join("bin");
        fs::create_dir(&folder).unwrap();
        for other in ["docker", "podman"].into_iter().filter(|name| *name != runtime) {
            docker.script(&format!("bin/{other}"), "#!/bin/sh\necho it does not answer >&2\nexit 1\n");
        }
        docker.find_first(&folder);
        docker
    }

    fn find_first(&mut self, folder: &Path) {
        let lines = [
            format!("export FAKE_DOCKER='{}'", self.state.path().display()),
            format!("export FAKE_POSTGRES='{}'", quick_bin().display()),
            // Podman asks the programs of the network, which are with those of the system.
            format!("export PATH='{}':\"$PATH\":/usr/sbin:/sbin", folder.display()),
            format!("exec '{}' \"$@\"", self.test.program.display()),
        ];
        self.test.program = self.script("leoflow", &format!("#!/bin/sh\n{}\n", lines.join("\n")));
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.state.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.state.path().join("calls")).unwrap_or_default()
    }

    /// Folders of containers and volumes.
    fn things(&self) -> Vec<String> {
        let entries = fs::read_dir(self.state.path()).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut found: Vec<String> =
            names.filter(|name| name.starts_with("container-") || name.starts_with("volume-")).collect();
        found.sort();
        found
    }

    fn set_up(&self) {
        self.test.run(&["setup", "--port", &self.test.port.to_string(), "--datastore", "docker"]).expect(0);
    }

    fn is_stopped(&self) -> bool {
        let container = self.things().into_iter().find(|name| name.starts_with("container-")).unwrap();
        !self.state.path().join(container).join(".s.PGSQL.lock").exists() && self.runs().is_empty()
    }

    /// What works in one of the volumes.
    fn runs(&self) -> Vec<i32> {
        let volumes = self.things().into_iter().filter(|name| name.starts_with("volume-"));
        let folders = volumes.map(|name| self.state.path().join(name).join("data"));
        folders.flat_map(|data| leoflow::sys::process::working_in(&data)).map(|process| process.pid).collect()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if self.is_real {
            // A test that failed leaves no container: the home's own way to remove it.
            let _ = self.test.command(&["uninstall", "--purge", "--yes"]).output();
        }
        for pid in self.runs() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

#[test]
fn a_container_of_ours_is_made_started_stopped_and_purged_with_its_volume() {
    let docker = Docker::new();
    docker.set_up();
    let things = docker.things();
    assert!(things[0].starts_with("container-leoflow-postgres-") && things[1].starts_with("volume-leoflow-data-"));
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
    assert!(docker.is_stopped(), "{:?}", docker.runs());
    assert_eq!(docker.test.sql("SELECT count(*) FROM variable"), "1", "for a command's moment");
    assert!(docker.is_stopped(), "{:?}", docker.runs());
    // Killed with everything, the container does not stay.
    docker.test.start();
    let pid = docker.test.pid("supervisor");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_until("the container stops", Duration::from_secs(30), || docker.is_stopped());
    docker.test.start();
    assert_eq!(docker.test.sql("SELECT count(*) FROM variable"), "1");
    // Without its record it is not taken for new.
    docker.test.run(&["lite", "stop", "--yes"]).expect(0);
    let record = docker.test.home.join("datastore.json");
    let kept = fs::read(&record).unwrap();
    fs::remove_file(&record).unwrap();
    let said = docker.test.run(&["lite", "start"]).expect(3).stderr;
    assert!(said.contains("is still there"), "{said}");
    fs::write(&record, kept).unwrap();
    assert_eq!(docker.test.sql("SELECT count(*) FROM variable"), "1");
    // A purge that cannot ask the runtime removes nothing.
    fs::write(docker.state.path().join("down"), "").unwrap();
    docker.test.run(&["uninstall", "--purge", "--yes"]).expect(1);
    assert!(docker.test.home.join("config.yaml").exists() && docker.things().len() == 2);
    fs::remove_file(docker.state.path().join("down")).unwrap();
    // Nor one whose volume somebody else uses.
    let other = docker.state.path().join("container-other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("volume"), docker.things().iter().find_map(|name| name.strip_prefix("volume-")).unwrap())
        .unwrap();
    let said = docker.test.run(&["uninstall", "--purge", "--yes"]).expect(3).stderr;
    assert!(said.contains("in use by the container other") && said.contains("docker rm other"), "{said}");
    fs::remove_dir_all(&other).unwrap();
    assert_eq!(docker.test.sql("SELECT count(*) FROM variable"), "1");
    let shown = docker.test.run(&["uninstall", "--purge", "--dry-run"]).expect(0).stderr;
    assert!(shown.contains("leoflow-data-"), "{shown}");
    // Once the container is gone, only the purge itself goes on.
    let keeps = docker.state.path().join("keeps-volumes");
    fs::write(&keeps, "").unwrap();
    let said = docker.test.run(&["uninstall", "--purge", "--yes"]).expect(1).stderr;
    assert!(said.contains("it is in use") && !said.contains("nothing was removed"), "{said}");
    let said = docker.test.run(&["lite", "start"]).expect(3).stderr;
    assert!(said.contains("leoflow uninstall --purge"), "{said}");
    fs::remove_file(&keeps).unwrap();
    docker.test.run(&["uninstall", "--purge", "--yes"]).expect(0);
    assert_eq!(docker.things(), Vec::<String>::new());
}

#[test]
fn what_is_not_ours_is_left_alone_and_without_a_runtime_it_is_said() {
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
    // Somebody's own volume of that name.
    docker.set_up();
    let volume = docker.things().pop().unwrap();
    docker.test.run(&["uninstall", "--purge", "--yes"]).expect(0);
    fs::create_dir(docker.state.path().join(&volume)).unwrap();
    fs::write(docker.state.path().join(&volume).join("label"), "<no value>\n").unwrap();
    refused("this home has not made it");
    assert_eq!(docker.things(), [volume]);
}

#[test]
fn data_moves_into_a_container_and_back_and_what_is_left_is_not_written_over() {
    let docker = Docker::new();
    let test = &docker.test;
    test.start();
    test.run(&["variables", "set", "colour", "blue"]).expect(0);
    let to = |place: &str| test.run(&["lite", "move-datastore", "--to", place, "--yes"]);
    to("docker").expect(0);
    assert_eq!(test.run(&["variables", "get", "colour"]).expect(0).stdout.trim(), "blue");
    assert!(fs::read_to_string(test.home.join("config.yaml")).unwrap().contains("datastore: docker"));
    to("managed").expect(0);
    assert_eq!(test.run(&["variables", "get", "colour"]).expect(0).stdout.trim(), "blue");
    assert!(docker.is_stopped());
    let said = to("docker").expect(3).stderr;
    assert!(
        said.contains("is still there, with what was left in it") && said.contains("docker container rm"),
        "{said}"
    );
    assert_eq!(docker.things().len(), 2);
    // Killed on its way there, what was made of it goes.
    for name in docker.things() {
        fs::remove_dir_all(docker.state.path().join(name)).unwrap();
    }
    test.run(&["lite", "stop", "--yes"]).expect(0);
    for at in ["move-datastore.prepare", "content.in-place"] {
        let arguments = ["lite", "move-datastore", "--to", "docker", "--yes"];
        let killed = test.command(&arguments).env("LEOFLOW_KILL_AT", at).output().unwrap();
        assert!(!killed.status.success(), "{at}");
        assert_eq!(test.sql("SELECT count(*) FROM variable"), "1", "after {at}");
        assert_eq!(docker.things(), Vec::<String>::new(), "after {at}");
    }
}

#[test]
fn where_docker_does_not_answer_podman_is_asked() {
    let docker = Docker::new();
    fs::write(docker.state.path().join("down-docker"), "").unwrap();
    docker.set_up();
    let record = fs::read_to_string(docker.test.home.join("datastore.json")).unwrap();
    assert!(record.contains("\"podman\""), "{record}");
    docker.test.start();
    assert_eq!(docker.test.sql("SELECT 1"), "1");
}

/// Whether it answers, and has the image: a test fetches none.
fn is_ready(runtime: &str) -> bool {
    let image = leoflow::postgres::container::Container::image();
    let asked = Command::new(runtime).args(["image", "inspect", &image]).output();
    asked.is_ok_and(|output| output.status.success())
}

#[test]
fn a_real_runtime_does_the_same_where_there_is_one() {
    let ready: Vec<&str> = ["docker", "podman"].into_iter().filter(|name| is_ready(name)).collect();
    if ready.is_empty() {
        eprintln!("neither docker nor podman has the image here: only the stand-in was tried");
    }
    for runtime in ready {
        let docker = Docker::real(runtime);
        let test = &docker.test;
        test.start();
        test.run(&["variables", "set", "colour", "blue"]).expect(0);
        let moved = test.run(&["lite", "move-datastore", "--to", "docker", "--yes", "--json"]).expect(0).json();
        let named = format!("({runtime})");
        assert!(moved["to"].as_str().unwrap().ends_with(&named), "{moved}");
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
        wait_until("another start of it", Duration::from_secs(30), || running() && test.state() == "healthy");
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
