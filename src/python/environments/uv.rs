//! uv, which works out what is to be installed and installs it: a program of its own, found or got once.

use super::super::interpreter::environment;
use super::uv_settings;
use crate::home::Home;
use crate::home::progress::{Progress, Reporter};
use crate::postgres::{archive, wheel};
use crate::sys::{command, env_vars, files};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The one that is got where there is none.
const VERSION: &str = "0.13.9";
/// Older ones of the user's are passed over: what they print and lock is another thing.
const OLDEST: [u32; 2] = [0, 9];
/// sha256 of its wheel for each architecture, with the tag of the platform.
const WHEELS: &[(&str, &str, &str)] = &[
    ("x86_64", "manylinux_2_17_x86_64", "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19"),
    ("aarch64", "manylinux_2_28_aarch64", "ecb6028d79dc96fbeafffe5c8af62a7099487ebc05a701e76714eebcffd06375"),
];
/// 17 MB over a slow line, and an end to everything that hangs.
const GET_LIMIT: Duration = Duration::from_secs(300);
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// What of our environment uv is given beside what DAGs get: where packages come from and how to get there. Where they
/// go to, and which Python, is said by us.
const PASSED: &[&str] = &[
    "NETRC",
    "UV_CONCURRENT_DOWNLOADS",
    "UV_DEFAULT_INDEX",
    "UV_EXCLUDE_NEWER",
    "UV_EXCLUDE_NEWER_PACKAGE",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_HTTP_RETRIES",
    "UV_HTTP_TIMEOUT",
    "UV_INSECURE_HOST",
    "UV_KEYRING_PROVIDER",
    "UV_NATIVE_TLS",
    "UV_NO_BUILD",
    "UV_NO_BUILD_PACKAGE",
    "UV_NO_INDEX",
    "UV_OFFLINE",
    "UV_PYPY_INSTALL_MIRROR",
    "UV_PYTHON_DOWNLOADS",
    "UV_PYTHON_DOWNLOADS_JSON_URL",
    "UV_PYTHON_INSTALL_MIRROR",
    "UV_SYSTEM_CERTS",
];
const PASSED_PREFIX: &str = "UV_INDEX";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uv {
    pub program: PathBuf,
    home: Home,
}

/// The one that is there: of the user's, or of ours. `None` when it has to be got.
pub fn find(home: &Home) -> Option<Uv> {
    let at = |program: PathBuf| Uv { program, home: home.clone() };
    if let Some(program) = env_vars::path("LEOFLOW_UV") {
        return Some(at(program));
    }
    let theirs = env_vars::search_path().into_iter().map(|folder| folder.join("uv"));
    let ours = own_program(home);
    let beside = env_vars::current_exe().ok().and_then(|exe| exe.parent().map(|folder| folder.join("uv")));
    if ours.is_file() {
        return Some(at(ours));
    }
    theirs.chain(beside).filter(|path| path.is_file()).find(|path| is_new_enough(path)).map(at)
}

/// Where it works: not where the user's own settings of a project would count.
fn folder(home: &Home) -> PathBuf {
    home.tools().join("uv")
}

/// What it has downloaded; environments share the files.
fn cache(home: &Home) -> PathBuf {
    folder(home).join("cache")
}

fn own_program(home: &Home) -> PathBuf {
    folder(home).join(VERSION).join("uv")
}

/// Where tasks look for one behind those of the system, whether it is there or not; and what it has downloaded.
pub fn of_tasks(home: &Home) -> (PathBuf, PathBuf) {
    (env_vars::path("LEOFLOW_UV").unwrap_or_else(|| own_program(home)), cache(home))
}

/// The one that is there, or else the pinned one, from a wheel beside the program or from the index that pip is
/// configured for. The error is for people; it leaves nothing behind.
pub fn get(home: &Home, reporter: &dyn Reporter) -> Result<Uv, String> {
    if let Some(found) = find(home) {
        return Ok(found);
    }
    let told = |error: io::Error| format!("{} cannot be written: {error}", home.tools().display());
    let target = folder(home).join(VERSION);
    home.create_folder(&folder(home)).map_err(told)?;
    reporter.report(Progress::Started(format!("Getting uv {VERSION}, which installs packages")));
    let result = files::make_whole(&target, told, fill);
    result.map_err(|reason| {
        format!(
            "uv, which installs what a project depends on, could not be had: {reason}\n\
             Install it (https://docs.astral.sh/uv) so that it is on PATH, or name one as LEOFLOW_UV."
        )
    })?;
    find(home).ok_or_else(|| format!("{} is gone", target.display()))
}

fn fill(staging: &Path) -> Result<PathBuf, String> {
    let architecture = std::env::consts::ARCH;
    let (_, platform, hash) = WHEELS
        .iter()
        .find(|(name, _, _)| *name == architecture)
        .ok_or_else(|| format!("there is none for {architecture}"))?;
    let file = match beside() {
        Some(file) => file,
        None => {
            let downloads = staging.join("download");
            std::fs::create_dir(&downloads).map_err(|error| error.to_string())?;
            let package = format!("uv=={VERSION}");
            let wheels = wheel::Wheels { packages: &[&package], platforms: &[platform] };
            wheel::download(&wheels, &downloads, GET_LIMIT)?;
            wheel_in(&downloads).ok_or("pip reported success and left no wheel")?
        }
    };
    wheel::check(&file, hash)?;
    let (unpacked, tree) = (staging.join("unpacked"), staging.join("tree"));
    let prepare = || -> io::Result<()> {
        std::fs::create_dir(&unpacked)?;
        std::fs::create_dir(&tree)
    };
    prepare().map_err(|error| error.to_string())?;
    archive::unpack_wheel(&file, &unpacked, |_| true).map_err(|error| format!("{}: {error}", file.display()))?;
    let program = unpacked.join(format!("uv-{VERSION}.data/scripts/uv"));
    let place = || -> io::Result<()> {
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
        std::fs::rename(&program, tree.join("uv"))
    };
    place().map_err(|error| format!("{}: {error}", file.display()))?;
    if is_new_enough(&tree.join("uv")) { Ok(tree) } else { Err("it does not run here".to_owned()) }
}

/// The wheel that a release brings beside the program.
fn beside() -> Option<PathBuf> {
    wheel_in(env_vars::current_exe().ok()?.parent()?)
}

fn wheel_in(folder: &Path) -> Option<PathBuf> {
    let start = format!("uv-{VERSION}-");
    let is_it = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&start) && name.ends_with(".whl")
    };
    std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).find(is_it)
}

fn is_new_enough(program: &Path) -> bool {
    let mut asked = Command::new(program);
    asked.arg("--version");
    let said = command::output_within(&mut asked, ASK_LIMIT).map(|output| output.stdout).unwrap_or_default();
    version_in(&String::from_utf8_lossy(&said)).is_some_and(|version| version >= OLDEST)
}

/// Of `uv 0.13.9 (…)`.
fn version_in(said: &str) -> Option<[u32; 2]> {
    let mut numbers = said.strip_prefix("uv ")?.split(['.', ' ']).map(|part| part.trim().parse().ok());
    Some([numbers.next()??, numbers.next()??])
}

impl fmt::Display for Uv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.display())
    }
}

impl Uv {
    /// Runs it to its end within `limit`; each line that it says is reported. The error is its own sentence.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        limit: Duration,
        reporter: &dyn Reporter,
    ) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--no-python-downloads");
        self.follow(command, limit, reporter)
    }

    /// Gets a Python of these versions, as a folder in `target`; one that is there is taken.
    pub fn install_python(
        &self,
        versions: &str,
        target: &Path,
        limit: Duration,
        reporter: &dyn Reporter,
    ) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        command.args(["python", "install", "--no-bin", versions, "--install-dir"]).arg(target);
        self.follow(command, limit, reporter)
    }

    fn follow(&self, mut command: Command, limit: Duration, reporter: &dyn Reporter) -> Result<(), String> {
        // One that is the user's own has come without it.
        let folder = folder(&self.home);
        self.home.create_folder(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let settings = settings(&folder)?;
        command
            .args(["--no-progress", "--color", "never", "--config-file"])
            .arg(settings)
            .arg("--cache-dir")
            .arg(cache(&self.home))
            .env_clear()
            .envs(environment())
            .envs(PATIENCE)
            .envs(passed())
            .current_dir(&folder);
        command::dies_with_this_thread(&mut command);
        let mut said = Vec::new();
        let take = &mut |line: &str| {
            reporter.report(Progress::Detail(line.trim().to_owned()));
            said.push(line.to_owned());
        };
        let status = command::errors_line_by_line(&mut command, limit, take)
            .map_err(|error| format!("{}: {error}", self.program.display()))?;
        if status.success() {
            return Ok(());
        }
        Err(sentence(&said).unwrap_or_else(|| format!("uv ended with {status} and says nothing")))
    }
}

/// Others wait behind one whose index does not answer. Seconds without a byte, and how often again.
const PATIENCE: [(&str, &str); 2] = [("UV_HTTP_TIMEOUT", "20"), ("UV_HTTP_RETRIES", "2")];

fn is_passed(name: &str) -> bool {
    PASSED.contains(&name) || name.starts_with(PASSED_PREFIX)
}

fn passed() -> Vec<(OsString, OsString)> {
    env_vars::all().into_iter().filter(|(name, _)| is_passed(&name.to_string_lossy())).collect()
}

/// The settings that count here, as a file of ours: naming one keeps uv from all others.
fn settings(folder: &Path) -> Result<PathBuf, String> {
    let read =
        |path: &Path| files::read_text(path, 1024 * 1024).map_err(|error| format!("{}: {error}", path.display()));
    let mut found = Vec::new();
    for path in settings_files() {
        match files::read_text(&path, 1024 * 1024) {
            Ok(Some(text)) => found.push((path, text)),
            Ok(None) => {}
            // uv passes over these too.
            Err(error) if matches!(error.kind(), ErrorKind::NotADirectory | ErrorKind::PermissionDenied) => {}
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    let named: Vec<(&Path, String)> = found.iter().map(|(path, text)| (path.as_path(), text.clone())).collect();
    let (text, file) = (uv_settings::kept(&named)?, folder.join("uv.toml"));
    if read(&file)?.as_ref() != Some(&text) {
        // It may name an index with its password.
        files::write_atomic(&file, text.as_bytes(), 0o600).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(file)
}

/// Where uv looks, the first going over the second: <https://docs.astral.sh/uv/concepts/configuration-files/>.
fn settings_files() -> Vec<PathBuf> {
    if env_vars::is_set("UV_NO_CONFIG") {
        return Vec::new();
    }
    if let Some(named) = env_vars::path("UV_CONFIG_FILE") {
        return vec![named];
    }
    let user = env_vars::path("XDG_CONFIG_HOME").or_else(|| env_vars::user_home().map(|home| home.join(".config")));
    let systems = env_vars::text("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".to_owned());
    let system = systems.split(':').map(|folder| Path::new(folder).join("uv/uv.toml")).find(|path| path.is_file());
    let system = system.unwrap_or_else(|| "/etc/uv/uv.toml".into());
    user.map(|folder| folder.join("uv/uv.toml")).into_iter().chain([system]).collect()
}

/// What it says went wrong: from the first line that says so to the end.
fn sentence(said: &[String]) -> Option<String> {
    let starts = ["error", "  ×", "×"];
    let at = said.iter().position(|line| starts.iter().any(|start| line.starts_with(start)));
    let lines = &said[at.unwrap_or(said.len().saturating_sub(3))..];
    let text = lines.join("\n").trim().trim_start_matches("error: ").to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_counts_in_a_variable_as_in_a_file() {
        // Variables of these are named otherwise, or are of all programs.
        let others = ["allow-insecure-host", "http-proxy", "https-proxy", "no-proxy"];
        for name in uv_settings::KEPT.iter().filter(|name| !others.contains(name)) {
            let variable = format!("UV_{}", name.replace('-', "_").to_uppercase());
            assert!(is_passed(&variable), "{variable}");
        }
        assert!(!is_passed("UV_CONSTRAINT") && !is_passed("UV_REQUIRE_HASHES"));
    }

    #[test]
    fn its_version_is_told_from_other_words() {
        assert_eq!(version_in("uv 0.13.9 (x86_64-unknown-linux-gnu)\n"), Some([0, 13]));
        assert_eq!(version_in("uv 1.0.0\n"), Some([1, 0]));
        assert_eq!(version_in("python 3"), None);
    }

    #[test]
    fn its_own_sentence_is_what_went_wrong() {
        let said = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let lines = said(&["Using Python 3.11", "  × No solution found", "  ╰─▶ Because x was not found"]);
        assert_eq!(sentence(&lines).unwrap(), "× No solution found\n  ╰─▶ Because x was not found");
        assert_eq!(sentence(&said(&["error: it is cold"])).unwrap(), "it is cold");
        assert_eq!(sentence(&[]), None);
    }
}
