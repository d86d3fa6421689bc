//! Service managers for tests: stand-ins for `systemctl --user` and launchctl, and a real `systemd --user`.

use super::{CommandOutput, TestHome, processes, wait_until};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const FAKES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/service");
const SYSTEMD: &str = "/lib/systemd/systemd";

/// A service manager, and the environment variables by which a test's commands find it.
pub struct Services {
    variables: Vec<(&'static str, String)>,
    pub units: PathBuf,
    real: Option<RealSystemd>,
}

struct RealSystemd {
    process: Child,
    groups: Vec<PathBuf>,
}

impl Services {
    pub fn fake(test: &TestHome) -> Self {
        Self::with_fake(test, "systemctl", "SYSTEMCTL_STATE", ".config/systemd/user")
    }

    pub fn fake_launchd(test: &TestHome) -> Self {
        Self::with_fake(test, "launchctl", "LAUNCHCTL_STATE", "Library/LaunchAgents")
    }

    fn with_fake(test: &TestHome, program: &str, state_variable: &'static str, folder: &str) -> Self {
        let (programs, state) = (test.folder().join("programs"), test.folder().join("manager"));
        fs::create_dir_all(&programs).unwrap();
        fs::create_dir_all(&state).unwrap();
        symlink(Path::new(FAKES).join(program), programs.join(program)).unwrap();
        let path = format!("{}:{}", programs.display(), path_of(test));
        let variables = vec![("PATH", path), (state_variable, state.display().to_string())];
        Self { variables, units: test.folder().join("user").join(folder), real: None }
    }

    /// Starts a real systemd; `None` if the machine has none or cannot run it for a test.
    pub fn real(test: &TestHome) -> Option<Self> {
        let exists = |path: &str| Path::new(path).exists();
        if !exists(SYSTEMD) || !exists("/usr/bin/systemctl") || !nix::unistd::geteuid().is_root() {
            return None;
        }
        let runtime = test.folder().join("runtime");
        fs::create_dir_all(&runtime).unwrap();
        let runtime = runtime.display().to_string();
        // systemd creates the cgroups of its services below its own cgroup, so the test's cgroup contains all of them.
        let name = test.folder().file_name().unwrap().to_str().unwrap();
        let hierarchies = ["systemd", "unified", ""].map(|hierarchy| Path::new("/sys/fs/cgroup").join(hierarchy));
        let is_hierarchy = |path: &PathBuf| path.join("cgroup.procs").exists();
        let groups: Vec<PathBuf> =
            hierarchies.into_iter().filter(is_hierarchy).map(|hierarchy| hierarchy.join(name)).collect();
        let created = groups.iter().filter(|group| fs::create_dir(group).is_ok()).count();
        if groups.is_empty() || created < groups.len() {
            groups.iter().for_each(|group| remove_groups(group));
            return None;
        }
        // systemctl requires /run/systemd/system, which only a machine booted by systemd has.
        let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system || exit 9
                      for group; do echo $$ > \"$group/cgroup.procs\" || exit 9; done
                      exec /lib/systemd/systemd --user --log-target=console";
        let mut command = Command::new("unshare");
        command.args(["--mount", "/bin/sh", "-c", script, "sh"]).args(&groups);
        let environment = test.command(&[]);
        command.env_clear().envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let log = fs::File::create(test.folder().join("systemd.log")).unwrap();
        let process = command
            .env("XDG_RUNTIME_DIR", &runtime)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .ok()?;
        let units = test.folder().join("user/.config/systemd/user");
        let mut services =
            Self { variables: vec![("XDG_RUNTIME_DIR", runtime)], units, real: Some(RealSystemd { process, groups }) };
        services.is_reachable(test).then_some(services)
    }

    fn is_reachable(&mut self, test: &TestHome) -> bool {
        for _ in 0..200 {
            if self.systemctl(test, &["show", "--property=Version"]).code == Some(0) {
                return true;
            }
            let has_ended = self.real.as_mut().is_some_and(|real| matches!(real.process.try_wait(), Ok(Some(_))));
            if has_ended {
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    pub fn command(&self, test: &TestHome, arguments: &[&str]) -> Command {
        let mut command = test.command(arguments);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    #[track_caller]
    pub fn run(&self, test: &TestHome, arguments: &[&str]) -> CommandOutput {
        self.command(test, arguments).output().unwrap().into()
    }

    pub fn systemctl(&self, test: &TestHome, arguments: &[&str]) -> CommandOutput {
        let environment = self.command(test, &[]);
        let mut command = Command::new("/usr/bin/env");
        command.args(["systemctl", "--user"]).args(arguments).env_clear();
        command.envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.output().unwrap().into()
    }

    /// Returns the pid of the service's main process, 0 for none.
    pub fn main_pid(&self, test: &TestHome, unit: &str) -> i32 {
        let output = self.systemctl(test, &["show", "--property=MainPID", unit]).expect(0).stdout;
        output.trim().strip_prefix("MainPID=").unwrap().parse().unwrap()
    }

    /// Makes the fake manager unreachable, as after `su`, or reachable again.
    pub fn set_offline(&self, test: &TestHome, is_offline: bool) {
        let flag = test.folder().join("manager/offline");
        if is_offline { fs::write(flag, "").unwrap() } else { fs::remove_file(flag).unwrap() }
    }
}

fn path_of(test: &TestHome) -> String {
    let command = test.command(&[]);
    let path = command.get_envs().find(|(name, _)| *name == "PATH").unwrap().1.unwrap();
    path.to_str().unwrap().to_owned()
}

impl Drop for RealSystemd {
    fn drop(&mut self) {
        processes::signal(self.process.id() as i32, "TERM");
        let _ = self.process.wait();
        for group in &self.groups {
            wait_until("systemd's cgroups are removed", Duration::from_secs(20), || {
                remove_groups(group);
                !group.exists()
            });
        }
    }
}

fn remove_groups(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_groups(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}
