//! Parsing: one file, one child, with the limits of `children.rs` on time, memory and output, so that a file can do
//! nothing to the others and nothing to us.

use super::child::RESULT_BYTES;
use super::children::{Children, Left};
use super::dotenv;
use super::environments::{self, Declared, Place};
use super::interpreter::{Interpreter, Job};
use super::no_result::NoResult;
use super::roots::{folders, project_of, roots};
use crate::config::Problem;
use crate::config::project::{self, Unusable};
use crate::sys::blocking;
use crate::sys::reaper::Exit;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// For what stands beside a file: longer than any mount takes that answers.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

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
    /// Folders whose modules belong to it, the nearest first.
    pub roots: Vec<PathBuf>,
    /// Where its settings are, the nearest first. It is run in the first, as its tasks are.
    pub folders: Vec<PathBuf>,
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
                let folders = folders(workspace, &path);
                Self { roots, folders, project, workspace: Some(workspace.to_owned()), path, api_socket }
            }
            None => {
                let folder = path.parent().map(Path::to_owned);
                let roots: Vec<PathBuf> = folder.iter().cloned().collect();
                Self { folders: roots.clone(), roots, project: folder, workspace: None, path, api_socket }
            }
        }
    }
}

/// What stands beside a DAG file and decides how it is run.
#[derive(Debug)]
pub struct Beside {
    /// The error says what is wrong with it.
    pub said: Result<Said, NoResult>,
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
    let looked = blocking::run(move || beside(&asked));
    let place = request.project.as_deref().unwrap_or(&request.path).display().to_string();
    match tokio::time::timeout(LOOK_LIMIT, looked).await {
        Ok(Ok(beside)) => beside,
        Ok(Err(error)) => Beside { said: Err(NoResult::Passing(error.to_string())), read: Vec::new() },
        Err(_) => {
            let reason = format!("{place} could not be read within {} s", LOOK_LIMIT.as_secs());
            Beside { said: Err(NoResult::Passing(reason)), read: Vec::new() }
        }
    }
}

/// The same, holding up whoever asks.
pub fn beside(request: &Request) -> Beside {
    // Also where a parse gives nothing: a variable there may be why.
    let mut read = request.folders.iter().map(|folder| dotenv::path(folder)).collect();
    let said = said_beside(request, &mut read).map_err(NoResult::Lasting);
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

/// The place beside the project's settings that lists what is needed, if one does; settings that include it list more.
pub fn listed_beside(request: &Request, settings: &str) -> Result<Option<String>, String> {
    let folder = request.project.as_deref().unwrap_or(Path::new("/"));
    let mut settings =
        project::parse(settings, folder).map_err(|problems| told(&folder.join(project::FILE), &problems))?;
    let included = project::take_wanted(&mut settings).requirements.map(|name| folder.join(name));
    environments::listed_beside(&place_of(request), included.as_deref())
}

fn place_of(request: &Request) -> Place<'_> {
    Place { workspace: request.workspace.as_deref(), project: request.project.as_deref(), file: &request.path }
}

/// Parses in a child, and says in `used` how much processor time that has used so far. Dropped, it ends the child.
/// Must be called on the main thread of the process, inside a `LocalSet`.
pub async fn parse(
    children: &Rc<Children>,
    interpreter: &Interpreter,
    request: &Request,
    settings: Option<Value>,
    used: &Cell<Duration>,
) -> Result<Found, NoResult> {
    if request.path.to_str().is_none() {
        return Err(NoResult::Lasting("The path of this file is not UTF-8; rename it.".to_owned()));
    }
    let options = json!({
        "path": request.path,
        "roots": request.roots,
        "socket": request.api_socket,
        "settings": settings,
        "work_in": request.folders,
    });
    let Left { result, exit, said } = children.run(interpreter, Job::Parse, options, used).await?;
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
        .map_err(|none| none.followed_by(&said))
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

fn read_result(bytes: &[u8], exit: Exit) -> Result<Found, NoResult> {
    if bytes.len() >= RESULT_BYTES {
        return Err(NoResult::Lasting(format!("Its DAGs are larger than {} MiB.", RESULT_BYTES / 1024 / 1024)));
    }
    match serde_json::from_slice(bytes) {
        Ok(found) => Ok(found),
        // As the kernel does where the machine has no memory left.
        Err(_) if exit == Exit::Signal(9) => Err(NoResult::Passing(
            "The process that imported it was killed: it may have used too much memory.".to_owned(),
        )),
        Err(_) => {
            Err(NoResult::Lasting(format!("The process that imported it ended before the import was done: {exit}.")))
        }
    }
}
