//! Parses DAG files, each in a child process of its own, and reads the settings and declarations around them. For the
//! limits on time, memory and output see `children.rs`.

use super::child::RESULT_BYTES;
use super::children::{ChildOutput, Children};
use super::dotenv;
use super::environments::{self, DeclarationError, Declared, Unread};
use super::interpreter::{Interpreter, Job};
use super::io_error::unreadable;
use super::no_result::NoResult;
use super::roots::Request;
use super::scan::is_zip;
use leoflow_base::config::leoflow_yaml::{self, EnvironmentSettings, Unusable};
use leoflow_base::config::{ConfigError, Problem};
use leoflow_base::sys::blocking;
use leoflow_base::sys::process::reaper::Exit;
use leoflow_base::sys::shell;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// Time limit for reading the settings around a DAG file; longer than any working mount takes.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// The result of parsing a file.
#[derive(Debug, Clone, Deserialize)]
pub struct ParseOutput {
    /// One description per DAG: `dag` in `messages.schema.json`.
    #[serde(rename = "dags")]
    pub structures: Vec<Value>,
    /// The import error, a message for the user.
    pub error: Option<String>,
    /// Texts of the file and of every local module that it imported, by absolute path.
    pub sources: Map<String, Value>,
    /// Other files of the workspace that the import read.
    #[serde(default)]
    pub reads: Vec<PathBuf>,
    /// Files that the import tried to read but that did not exist.
    #[serde(default)]
    pub absent: Vec<PathBuf>,
    /// True if the import read Variables or Connections.
    #[serde(default)]
    pub asks: bool,
    /// Large libraries that the file imported; a zygote may preload them for later parses.
    #[serde(default)]
    pub libraries: Vec<String>,
    /// Warnings about lines of the `.env` files that set nothing, each with file and line, about plugins, and about
    /// declarations of dependencies that are not read.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The project's settings, passed to its tasks.
    #[serde(skip)]
    pub settings: Option<Value>,
}

/// The settings around a DAG file that decide how it runs.
#[derive(Debug)]
pub struct FileContext {
    pub settings: Result<FileSettings, NoResult>,
    /// Files that the settings depend on, existing or not.
    pub read: Vec<PathBuf>,
}

#[derive(Debug, Clone, Default)]
pub struct FileSettings {
    /// The project's settings, passed to its tasks.
    pub settings: Option<Value>,
    /// The declaration of its environment; `None` for the plain interpreter.
    pub declared: Option<Declared>,
    pub unread: Vec<Unread>,
}

/// Runs `file_context` in a thread of its own with a time limit: the files may be on a hanging mount.
pub async fn read_file_context(request: &Request) -> FileContext {
    let query = request.clone();
    let reading = blocking::run(move || file_context(&query));
    let path_shown = request.project.as_deref().unwrap_or(&request.path).display().to_string();
    let failed = |reason| FileContext { settings: Err(NoResult::Transient(reason)), read: Vec::new() };
    match tokio::time::timeout(READ_LIMIT, reading).await {
        Ok(Ok(file_context)) => file_context,
        Ok(Err(error)) => failed(error.to_string()),
        Err(_) => failed(format!("reading {path_shown} took longer than {} s", READ_LIMIT.as_secs())),
    }
}

/// Reads the settings around a DAG file. Blocks.
pub fn file_context(request: &Request) -> FileContext {
    // The `.env` files come first, even if the settings are invalid: a variable may be the cause.
    let mut read = dotenv::paths(&request.folders);
    let settings = match is_zip(&request.path) {
        true => Err(NoResult::Permanent(packaged_dags(request))),
        false => collect_settings(request, &mut read).map_err(|error| NoResult::Permanent(error.to_string())),
    };
    FileContext { settings, read }
}

/// The import error of a zip file with DAGs, with the commands that make them load.
fn packaged_dags(request: &Request) -> String {
    let folder = request.roots.first().map_or(Path::new("."), PathBuf::as_path);
    let (unzip, zip) = (unzip_command(&request.path, folder), shell::word(&request.path.to_string_lossy()));
    format!("DAGs in a zip file are not loaded: {unzip} && rm {zip}")
}

/// The shell command that unpacks a zip file.
pub fn unzip_command(zip: &Path, folder: &Path) -> String {
    format!("unzip {} -d {}", shell::word(&zip.to_string_lossy()), shell::word(&folder.to_string_lossy()))
}

fn collect_settings(request: &Request, read: &mut Vec<PathBuf>) -> Result<FileSettings, DeclarationError> {
    let load_from = |folder: Option<&Path>, read: &mut Vec<PathBuf>| {
        let Some(folder) = folder else { return Ok(None) };
        read.extend([Some(folder.join(leoflow_yaml::FILE)), leoflow_yaml::path_beside(folder)].into_iter().flatten());
        settings_of(folder)
    };
    let mut settings = load_from(request.project.as_deref(), read)?;
    let environment = settings.as_mut().map(leoflow_yaml::take_environment);
    let workspace_settings = |read: &mut Vec<PathBuf>| {
        Ok(load_from(request.workspace.as_deref(), read)?.as_mut().map(leoflow_yaml::take_environment))
    };
    let collected = environments::collect_declared(request, environment, workspace_settings, read)?;
    Ok(FileSettings { settings, declared: collected.declared, unread: collected.unread })
}

/// Collects the declarations as if the project's settings were this text, without the workspace's settings.
pub fn declared_with(request: &Request, text: &str) -> Result<Option<Declared>, DeclarationError> {
    let environment = environment_in(request, text)?;
    let collected = environments::collect_declared(request, Some(environment), |_| Ok(None), &mut Vec::new())?;
    Ok(collected.declared)
}

/// Finds the file, other than the project's settings, that lists the requirements of a DAG file; see
/// `environments::find_requirements_source`. `settings` is the text of the project's settings.
pub fn find_requirements_source(request: &Request, settings: &str) -> Result<Option<PathBuf>, DeclarationError> {
    let environment = environment_in(request, settings)?;
    let included = environment.requirements.as_ref().map(|name| project_folder(request).join(name));
    environments::find_requirements_source(request, &environment, included.as_deref())
}

fn project_folder(request: &Request) -> &Path {
    request.project.as_deref().unwrap_or(Path::new("/"))
}

/// Parses the text of the project's settings.
fn environment_in(request: &Request, text: &str) -> Result<EnvironmentSettings, DeclarationError> {
    let folder = project_folder(request);
    let settings = leoflow_yaml::parse(text, folder);
    let mut settings = settings.map_err(|problems| invalid_settings(leoflow_yaml::path(folder), problems))?;
    Ok(leoflow_yaml::take_environment(&mut settings))
}

/// Parses a file in a child. Updates `used` with the child's processor time so far. Dropping the future kills the
/// child. Must be called on the process's main thread, inside a `LocalSet`.
pub async fn parse(
    children: &Rc<Children>,
    interpreter: &Interpreter,
    request: &Request,
    file_settings: FileSettings,
    used: &Cell<Duration>,
) -> Result<ParseOutput, NoResult> {
    let FileSettings { settings, unread, .. } = file_settings;
    if request.path.to_str().is_none() {
        return Err(NoResult::Permanent("The path of this file is not valid UTF-8; rename the file.".to_owned()));
    }
    let options = json!({
        "path": request.path,
        "roots": request.roots,
        "socket": request.api_socket,
        "settings": settings,
        "work_in": request.folders,
        "is_validation": request.is_validation,
        "unread": unread.iter().map(Unread::to_string).collect::<Vec<_>>(),
    });
    let ChildOutput { result, exit, printed } = children.run(interpreter, Job::Parse, options, used).await?;
    let mut output = read_result(&result, exit, &printed)?;
    children.note_libraries(interpreter, &request.path, &output.libraries).await;
    if let Some(error) = &mut output.error {
        error.push_str(&printed);
    }
    output.settings = settings;
    output.warnings.extend(unread.iter().filter(|unread| unread.is_certain).map(Unread::to_string));
    Ok(output)
}

/// Loads the settings of a folder; `None` without a settings file.
fn settings_of(folder: &Path) -> Result<Option<Value>, DeclarationError> {
    let path = leoflow_yaml::path(folder);
    leoflow_yaml::load(folder).map_err(|unusable| match unusable {
        Unusable::Unreadable(error) => unreadable(&path)(error).into(),
        Unusable::Invalid(problems) => invalid_settings(path, problems),
    })
}

fn invalid_settings(path: PathBuf, problems: Vec<Problem>) -> DeclarationError {
    ConfigError::Invalid { path, problems }.into()
}

/// `printed` is what the child printed, which is appended to errors.
fn read_result(bytes: &[u8], exit: Exit, printed: &str) -> Result<ParseOutput, NoResult> {
    if bytes.len() >= RESULT_BYTES {
        return Err(NoResult::Permanent(format!(
            "The DAGs and sources of this file are larger than {} MiB.{printed}",
            RESULT_BYTES / 1024 / 1024
        )));
    }
    match serde_json::from_slice(bytes) {
        Ok(output) => Ok(output),
        // The OOM killer sends SIGKILL.
        Err(_) if exit == Exit::Signal(9) => Err(NoResult::Transient(format!(
            "The process that imported the file was killed; it may have used too much memory.{printed}"
        ))),
        Err(_) => Err(NoResult::Permanent(format!(
            "The process that imported the file ended before the import finished: {exit}.{printed}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dags_in_a_zip_file_are_an_error_with_a_command() {
        let (workspace, zip) = (Path::new("/w"), Path::new("/w/p/dags/my dags.zip"));
        let request = Request::new(zip.to_owned(), Some(workspace), PathBuf::new());
        assert_eq!(
            file_context(&request).settings.unwrap_err().reason(),
            "DAGs in a zip file are not loaded: unzip '/w/p/dags/my dags.zip' -d /w/p/dags && rm '/w/p/dags/my dags.zip'"
        );
    }
}
