//! uv, the program that resolves and installs packages: found on the machine, or downloaded once.

use super::declaration::variables::Variables;
use super::error::UvError;
use super::{pip_settings, uv_messages, uv_settings, uv_variables};
use crate::io_error::{io, unwritable};
use crate::passed_variables::environment;
use crate::wheels::{self, WheelError};
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::home::{self, Home, shared};
use leoflow_base::protocol::web;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::process::command;
use leoflow_components::wheel;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The version to download if none is found.
const VERSION: &str = "0.13.9";
/// Oldest minor version that is used, except as `LEOFLOW_UV`; older versions write other output and locks.
const OLDEST: [u32; 2] = [0, 9];
/// Platform, platform tag and sha256 of each wheel of `VERSION`.
const WHEELS: &[(&str, &str, &str)] = &[
    ("linux-x86_64", "manylinux_2_17_x86_64", "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19"),
    ("linux-aarch64", "manylinux_2_28_aarch64", "ecb6028d79dc96fbeafffe5c8af62a7099487ebc05a701e76714eebcffd06375"),
    ("macos-aarch64", "macosx_11_0_arm64", "66c512266d633bef48384a1f53003f41f2a8e7b36fe6e7fbfd3e0fd52d96fa63"),
];
/// Time limit for downloading 17 MB over a slow line.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(300);
/// Size limit of settings files, bytes.
const SETTINGS_BYTES: u64 = 1024 * 1024;
/// Time limit for uv to print its version.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uv {
    pub program: PathBuf,
    home: Home,
}

/// One call of uv.
pub struct Call<'a> {
    pub arguments: Vec<OsString>,
    pub limit: Duration,
    /// Environment variables in addition to those of every call.
    pub environment: Vec<(String, String)>,
    /// Variables whose values are masked in messages.
    pub variables: &'a Variables,
}

impl Call<'_> {
    pub fn new(arguments: Vec<OsString>, limit: Duration) -> Self {
        static NONE: Variables = Variables::NONE;
        Self { arguments, limit, environment: Vec::new(), variables: &NONE }
    }
}

/// Finds uv, in this order: `LEOFLOW_UV`, the downloaded uv, one on PATH, one beside Leoflow's program. `None` if it
/// must be downloaded.
pub fn find(home: &Home) -> Option<Uv> {
    let uv = |program: PathBuf| Uv { program, home: home.clone() };
    if let Some(program) = env_vars::path("LEOFLOW_UV") {
        return Some(uv(program));
    }
    let on_path = env_vars::search_path().into_iter().map(|folder| folder.join("uv"));
    let own = own_program(home);
    let beside_program = env_vars::current_exe().ok().and_then(|exe| exe.parent().map(|folder| folder.join("uv")));
    if own.is_file() {
        return Some(uv(own));
    }
    on_path.chain(beside_program).filter(|path| path.is_file()).find(|path| is_new_enough(path)).map(uv)
}

/// Working directory of uv, outside of any project, so that no project's uv settings apply.
fn folder(home: &Home) -> PathBuf {
    home.tools().join("uv")
}

/// uv's cache; the files of environments are hard links to its files.
pub(super) fn cache(home: &Home) -> PathBuf {
    folder(home).join("cache")
}

fn own_program(home: &Home) -> PathBuf {
    folder(home).join(VERSION).join("uv")
}

/// Path of the uv for tasks that find none on PATH, which may not exist yet, and of uv's cache.
pub(crate) fn for_tasks(home: &Home) -> (PathBuf, PathBuf) {
    (env_vars::path("LEOFLOW_UV").unwrap_or_else(|| own_program(home)), cache(home))
}

/// Finds uv, or copies it from another instance, or installs the pinned version from a wheel beside Leoflow's program
/// or from the index that pip is configured for. A failure leaves no files behind.
pub fn ensure(home: &Home, reporter: &dyn Reporter) -> Result<Uv, UvError> {
    // One download serves all builds that begin at the same time.
    static DOWNLOADING: Mutex<()> = Mutex::new(());
    let _downloading = DOWNLOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(uv) = find(home) {
        return Ok(uv);
    }
    let target = folder(home).join(VERSION);
    home.create_folder(&folder(home)).map_err(unwritable(&home.tools()))?;
    if shared::copy_from_other_instance(home, &target)
        && let Some(uv) = find(home)
    {
        return Ok(uv);
    }
    reporter.report(Progress::Started(format!("Installing uv {VERSION}, which installs packages")));
    files::create_folder_atomic(&target, |error| unwritable(&home.tools())(error).into(), install_wheel)?;
    find(home).ok_or(UvError::Gone(target))
}

/// Installs uv from its wheel below `staging`; returns the complete folder there.
fn install_wheel(staging: &Path) -> Result<PathBuf, WheelError> {
    let tree = staging.join("tree");
    let program = unpack_program(&wheel::platform(), bundled_wheel(), staging)?;
    let install = || std::fs::create_dir(&tree).and_then(|()| std::fs::rename(&program, tree.join("uv")));
    install().map_err(io(tree.display()))?;
    if is_new_enough(&tree.join("uv")) { Ok(tree) } else { Err(WheelError::UnusableUv) }
}

/// Downloads the pinned uv for a platform, such as `linux-x86_64`, below `staging`; returns its path.
pub fn download_program(platform: &str, staging: &Path) -> Result<PathBuf, WheelError> {
    unpack_program(platform, None, staging)
}

/// Unpacks uv from this wheel, or from one that it downloads; returns its path below `staging`.
fn unpack_program(platform: &str, file: Option<PathBuf>, staging: &Path) -> Result<PathBuf, WheelError> {
    let (_, tag, hash) = WHEELS
        .iter()
        .find(|(name, _, _)| *name == platform)
        .ok_or_else(|| WheelError::Platform(platform.to_owned()))?;
    let file = match file {
        Some(file) => file,
        None => {
            let downloads = staging.join("download");
            let package = format!("uv=={VERSION}");
            wheels::download(&[&package], &[tag], &downloads, DOWNLOAD_LIMIT)?;
            wheel_in(&downloads)?
        }
    };
    let unpacked = staging.join("unpacked");
    wheel::check(&file, hash)?;
    wheels::unpack(&file, &unpacked)?;
    let program = unpacked.join(format!("uv-{VERSION}.data/scripts/uv"));
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).map_err(io(program.display()))?;
    Ok(program)
}

/// The wheel that a release contains beside the program.
fn bundled_wheel() -> Option<PathBuf> {
    wheel_in(env_vars::current_exe().ok()?.parent()?).ok()
}

fn wheel_in(folder: &Path) -> Result<PathBuf, wheel::DownloadError> {
    let start = format!("uv-{VERSION}-");
    wheel::find(folder, |name| name.starts_with(&start) && name.ends_with(".whl"))
}

fn is_new_enough(program: &Path) -> bool {
    let mut query = Command::new(program);
    query.arg("--version");
    let printed = command::output_within(&mut query, VERSION_LIMIT).map(|output| output.stdout).unwrap_or_default();
    version_in(&String::from_utf8_lossy(&printed)).is_some_and(|version| version >= OLDEST)
}

/// Parses the major and minor version from `uv 0.13.9 (…)`.
fn version_in(text: &str) -> Option<[u32; 2]> {
    let mut numbers = text.strip_prefix("uv ")?.split(['.', ' ']).map(|part| part.trim().parse().ok());
    Some([numbers.next()??, numbers.next()??])
}

impl Uv {
    /// Runs uv and reports each line of its output. It uses an installed Python and downloads none.
    pub fn run(&self, call: &Call<'_>, reporter: &dyn Reporter) -> Result<(), UvError> {
        let mut command = Command::new(&self.program);
        command.args(&call.arguments).arg("--no-python-downloads");
        self.run_command(command, call, reporter)
    }

    /// Installs a Python of these versions (a version request) as a folder in `target`, unless one is installed there.
    pub fn install_python(
        &self,
        versions: &str,
        target: &Path,
        limit: Duration,
        reporter: &dyn Reporter,
    ) -> Result<(), UvError> {
        let mut command = Command::new(&self.program);
        command.args(["python", "install", "--no-bin", versions, "--install-dir"]).arg(target);
        self.run_command(command, &Call::new(Vec::new(), limit), reporter)
    }

    /// Runs a command of uv that has the arguments of `call` already.
    fn run_command(&self, mut command: Command, call: &Call<'_>, reporter: &dyn Reporter) -> Result<(), UvError> {
        // If the uv is the user's own, the folder may not exist yet.
        let folder = folder(&self.home);
        self.home.create_folder(&folder).map_err(io(folder.display()))?;
        if !cache(&self.home).exists() {
            // Copies the cache of another instance, so that each instance need not download the same packages.
            shared::copy_from_other_instance(&self.home, &cache(&self.home));
        }
        command
            .args(["--no-progress", "--color", "never", "--config-file"])
            .arg(settings(&folder)?)
            .arg("--cache-dir")
            .arg(cache(&self.home))
            .env_clear()
            .envs(environment())
            .envs(uv_variables::DEFAULTS)
            .envs(credentials_variable(users_credentials().as_deref(), &self.home))
            .envs(uv_variables::passed())
            .envs(call.environment.iter().map(|(name, value)| (name, value)))
            .envs(web::no_proxy_variables())
            .current_dir(&folder);
        command::dies_with_this_thread(&mut command);
        let mut output_lines = Vec::new();
        let on_line = &mut |line: &str| {
            reporter.report(Progress::Detail(call.variables.mask(line.trim())));
            output_lines.push(line.to_owned());
        };
        let status =
            command::errors_line_by_line(&mut command, call.limit, on_line).map_err(io(self.program.display()))?;
        if status.success() {
            return Ok(());
        }
        let home_option = home::option_for(self.home.root());
        let message = uv_messages::error_message(&output_lines, home_option.as_deref());
        let message = message.unwrap_or_else(|| format!("uv failed with {status} and no message"));
        let message = call.variables.mask(&message);
        let has_no_solution = status.code() == Some(NO_SOLUTION);
        Err(if has_no_solution { UvError::NoSolution(message) } else { UvError::Failed(message) })
    }
}

/// uv's folder for the logins of `uv auth login`: <https://docs.astral.sh/uv/concepts/authentication/>.
fn users_credentials() -> Option<PathBuf> {
    let data = env_vars::path("XDG_DATA_HOME").filter(|folder| folder.is_absolute());
    let data = data.or_else(|| env_vars::user_home().map(|home| home.join(".local/share")));
    data.map(|folder| folder.join("uv/credentials"))
}

/// The folder in the home where uv looks for credentials, because it creates a lock file where it looks. `None` if the
/// user has credentials in `users`, which then apply.
fn credentials_variable(users: Option<&Path>, home: &Home) -> Option<(&'static str, PathBuf)> {
    let has_credentials = users.is_some_and(|folder| folder.join("credentials.toml").exists());
    (!has_credentials).then(|| ("UV_CREDENTIALS_DIR", folder(home).join("credentials")))
}

/// uv's exit code if the requirements cannot all be met.
const NO_SOLUTION: i32 = 1;

/// Writes the applicable settings of the user's uv and pip to `uv.toml` in `folder`, for `--config-file`; with that
/// option uv reads no other settings file.
fn settings(folder: &Path) -> Result<PathBuf, UvError> {
    let mut texts = Vec::new();
    for path in settings_files() {
        match files::read_text(&path, SETTINGS_BYTES) {
            Ok(text) => texts.extend(text.map(|text| (path, text))),
            // uv ignores these too.
            Err(error) if matches!(error.kind(), ErrorKind::NotADirectory | ErrorKind::PermissionDenied) => {}
            Err(error) => return Err(io(path.display())(error).into()),
        }
    }
    if !uv_settings::names_index(&texts) && !uv_variables::has_index_variable() {
        texts.push((PathBuf::from("/pip.conf"), settings_from_pip()));
    }
    let (text, file) = (uv_settings::merge_applicable(&texts)?, folder.join("uv.toml"));
    // Two writers in one process would share the temporary file.
    static WRITING: Mutex<()> = Mutex::new(());
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    if files::read_text(&file, SETTINGS_BYTES).map_err(io(file.display()))?.as_ref() != Some(&text) {
        // Private: it may contain an index address with a password.
        files::write_atomic(&file, text.as_bytes(), 0o600).map_err(io(file.display()))?;
    }
    Ok(file)
}

/// The settings of pip as the text of a `uv.toml`. They apply if uv has no index of its own.
fn settings_from_pip() -> String {
    let paths = pip_settings::files(&env_vars::text, env_vars::user_home().as_deref());
    // pip ignores files that it cannot read, too.
    let texts = paths.iter().filter_map(|file| files::read_text(file, SETTINGS_BYTES).ok().flatten());
    pip_settings::as_uv_settings(&texts.collect::<Vec<_>>(), &env_vars::text)
}

/// The settings files that uv reads; the first takes precedence:
/// <https://docs.astral.sh/uv/concepts/configuration-files/>.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_the_user_apply() {
        let users = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&users.path().join("home"))).unwrap();
        let own = Some(("UV_CREDENTIALS_DIR", home.tools().join("uv/credentials")));
        assert_eq!(credentials_variable(None, &home), own);
        assert_eq!(credentials_variable(Some(users.path()), &home), own);
        std::fs::write(users.path().join("credentials.toml"), "").unwrap();
        assert_eq!(credentials_variable(Some(users.path()), &home), None);
        assert!(uv_variables::is_passed("UV_CREDENTIALS_DIR"));
    }

    #[test]
    fn parses_the_version_of_uv() {
        assert_eq!(version_in("uv 0.13.9 (x86_64-unknown-linux-gnu)\n"), Some([0, 13]));
        assert_eq!(version_in("uv 1.0.0\n"), Some([1, 0]));
        assert_eq!(version_in("python 3"), None);
    }
}
