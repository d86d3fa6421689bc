//! Parsing: one file, one child, with the limits of `children.rs` on time, memory and output, so that a file can do
//! nothing to the others and nothing to us.

use super::child::RESULT_BYTES;
use super::children::{Children, Left, TIME_LIMIT};
use super::environments::{self, Declared, Place};
use super::interpreter::{Interpreter, Job};
use super::roots::{project_of, roots};
use crate::config::Problem;
use crate::config::project::{self, Unusable};
use crate::sys::reaper::Exit;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What a file gave. `structures` are as the Python package describes DAGs.
#[derive(Debug, Clone, Deserialize)]
pub struct Found {
    #[serde(rename = "dags")]
    pub structures: Vec<Value>,
    pub error: Option<String>,
    /// Texts of the file and of every local module that it imported, by absolute path.
    pub sources: Map<String, Value>,
    /// Other files of the workspace that it read.
    #[serde(default)]
    pub reads: Vec<PathBuf>,
    /// Those of them that were not there.
    #[serde(default)]
    pub absent: Vec<PathBuf>,
    /// Whether it asked for Variables or Connections.
    #[serde(default)]
    pub asks: bool,
    /// Libraries that it has loaded, which a warm Python may load ahead for those after it.
    #[serde(default)]
    pub libraries: Vec<String>,
    /// What the project's own settings say, for its tasks.
    #[serde(skip)]
    pub settings: Option<Value>,
}

/// What to parse.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: PathBuf,
    /// Folders whose modules belong to it, the nearest first. It is run in the first, as its tasks are.
    pub roots: Vec<PathBuf>,
    /// The folder with its settings; a file outside of projects has none.
    pub project: Option<PathBuf>,
    /// Settings there are for all projects that have none.
    pub workspace: Option<PathBuf>,
    /// For Variables and Connections that are read at the top level.
    pub api_socket: PathBuf,
}

impl Request {
    /// A file of the workspace belongs to its project there; one elsewhere to its own folder.
    pub fn new(path: PathBuf, workspace: Option<&Path>, api_socket: PathBuf) -> Self {
        match workspace.filter(|workspace| path.starts_with(workspace)) {
            Some(workspace) => {
                let (roots, project) = (roots(workspace, &path), project_of(workspace, &path));
                Self { roots, project, workspace: Some(workspace.to_owned()), path, api_socket }
            }
            None => {
                let folder = path.parent().map(Path::to_owned);
                Self { roots: folder.iter().cloned().collect(), project: folder, workspace: None, path, api_socket }
            }
        }
    }
}

/// What stands beside a DAG file and decides how it is run.
#[derive(Debug)]
pub struct Beside {
    /// The error is for people: what is wrong with it.
    pub said: Result<Said, String>,
    /// Files that decided it, there or not.
    pub read: Vec<PathBuf>,
}

#[derive(Debug, Clone, Default)]
pub struct Said {
    /// For its tasks.
    pub settings: Option<Value>,
    /// What its environment has to have; `None` for the plain interpreter.
    pub declared: Option<Declared>,
}

/// Looks, without holding anybody up: it may lie on a mount that hangs.
pub async fn look_beside(request: &Request) -> Beside {
    let asked = request.clone();
    let looked = tokio::task::spawn_blocking(move || beside(&asked));
    let place = request.project.as_deref().unwrap_or(&request.path).display().to_string();
    match tokio::time::timeout(TIME_LIMIT, looked).await {
        Ok(Ok(beside)) => beside,
        Ok(Err(error)) => Beside { said: Err(error.to_string()), read: Vec::new() },
        Err(_) => {
            let reason = format!("{place} could not be read within {} s", TIME_LIMIT.as_secs());
            Beside { said: Err(reason), read: Vec::new() }
        }
    }
}

/// The same, holding up whoever asks.
pub fn beside(request: &Request) -> Beside {
    let mut read = Vec::new();
    let said = said_beside(request, &mut read);
    Beside { said, read }
}

fn said_beside(request: &Request, read: &mut Vec<PathBuf>) -> Result<Said, String> {
    let of = |folder: Option<&Path>, read: &mut Vec<PathBuf>| {
        let Some(folder) = folder else { return Ok(None) };
        read.push(folder.join(project::FILE));
        settings_of(folder)
    };
    let mut settings = of(request.project.as_deref(), read)?;
    let wanted = settings.as_mut().map(project::take_wanted);
    let of_workspace =
        |read: &mut Vec<PathBuf>| Ok(of(request.workspace.as_deref(), read)?.as_mut().map(project::take_wanted));
    let declared = environments::look(&place_of(request), wanted, of_workspace, read)?;
    Ok(Said { settings, declared })
}

/// What would be wanted if the project's settings were this text. The error is for people.
pub fn declared_with(request: &Request, text: &str) -> Result<Option<Declared>, String> {
    let folder = request.project.as_deref().unwrap_or(Path::new("/"));
    let mut settings = project::parse(text, folder).map_err(|problems| told(&folder.join(project::FILE), &problems))?;
    environments::look(&place_of(request), Some(project::take_wanted(&mut settings)), |_| Ok(None), &mut Vec::new())
}

fn place_of(request: &Request) -> Place<'_> {
    Place { workspace: request.workspace.as_deref(), project: request.project.as_deref(), file: &request.path }
}

/// Parses in a child. `Err` is for people: why there is no result. Dropped, it ends the child.
/// Must be called on the main thread of the process, inside a `LocalSet`.
pub async fn parse(
    children: &Rc<Children>,
    interpreter: &Interpreter,
    request: &Request,
    settings: Option<Value>,
) -> Result<Found, String> {
    if request.path.to_str().is_none() {
        return Err("The path of this file is not UTF-8; rename it.".to_owned());
    }
    let options = json!({
        "path": request.path,
        "roots": request.roots,
        "socket": request.api_socket,
        "settings": settings,
        "work_in": request.roots,
    });
    let Left { result, exit, said } = children.run(interpreter, Job::Parse, options).await?;
    let found = read_result(&result, exit);
    if let Ok(found) = &found {
        children.learn(interpreter, &request.path, &found.libraries).await;
    }
    found
        .map(|mut found| {
            if let Some(error) = &mut found.error {
                error.push_str(&said);
            }
            found.settings = settings;
            found
        })
        .map_err(|reason| format!("{reason}{said}"))
}

/// The settings in a folder, without which its files cannot be imported; the error says what is wrong with them.
fn settings_of(folder: &Path) -> Result<Option<Value>, String> {
    let file = folder.join(project::FILE);
    project::load(folder).map_err(|unusable| match unusable {
        Unusable::Unreadable(error) => format!("{} cannot be read: {error}", file.display()),
        Unusable::Wrong(problems) => told(&file, &problems),
    })
}

fn told(file: &Path, problems: &[Problem]) -> String {
    let line = |problem: &Problem| format!("{}:{}: {}", file.display(), problem.line.max(1), problem.message);
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn read_result(bytes: &[u8], exit: Exit) -> Result<Found, String> {
    if bytes.len() >= RESULT_BYTES {
        return Err(format!("Its DAGs are larger than {} MiB.", RESULT_BYTES / 1024 / 1024));
    }
    match serde_json::from_slice(bytes) {
        Ok(found) => Ok(found),
        Err(_) if exit == Exit::Signal(9) => {
            Err("The process that imported it was killed: it may have used too much memory.".to_owned())
        }
        Err(_) => Err(format!("The process that imported it ended before the import was done: {exit}.")),
    }
}
