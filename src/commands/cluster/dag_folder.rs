//! A folder of DAG files, copied file by file, less what other tools keep. On the way to Airflow what is Leoflow's own is found
//! and named.

use super::findings::Findings;
use crate::backup::left_out::{OWN_FOLDER, is_left_out};
use crate::backup::manifest::link_stays_inside;
use crate::config::project;
use crate::error::Error;
use crate::sys::beneath::{Folder, Kind};
use crate::sys::files::is_temporary_neighbour;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// A DAG file has some hundred lines; more than this nobody reads for imports.
const SOURCE_LIMIT: u64 = 4 * 1024 * 1024;
const DEPTH_LIMIT: usize = 100;
const OWN_IGNORE: &str = ".leoflowignore";
const AIRFLOW_IGNORE: &str = ".airflowignore";
/// What `leoflow.yaml` says about the DAG itself, which only Leoflow reads.
const OF_THE_DAG: [&str; 6] = ["dag_id", "description", "owner", "tags", "defaults", "tasks"];

/// What was copied.
#[derive(Debug, Default)]
pub struct DagFolder {
    pub files: usize,
    /// Folders below it in which modules are looked for, besides itself.
    pub roots: BTreeSet<String>,
    /// By its name, the projects that have such a module in their folder.
    modules: BTreeMap<String, BTreeSet<String>>,
}

struct Copying<'a> {
    from: &'a Folder,
    workspace: &'a Path,
    /// `None` only looks.
    to: Option<&'a Path>,
    made: DagFolder,
    findings: &'a mut Findings,
    direction: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToAirflow,
    FromAirflow,
}

/// Copies the folder to `to`, which must not be there yet; with none it only looks.
pub fn copy(
    workspace: &Path,
    to: Option<&Path>,
    direction: Direction,
    findings: &mut Findings,
) -> Result<DagFolder, Error> {
    let real = |path: &Path| path.canonicalize().ok();
    if let Some(parent) = to.and_then(Path::parent).and_then(real)
        && real(workspace).is_some_and(|from| parent.starts_with(from))
    {
        return Err(Error::refused(format!("{} would be copied into itself", workspace.display()))
            .hint("choose a folder that does not hold the other"));
    }
    let from = Folder::open(workspace).map_err(|error| Error::io("read", workspace, &error))?;
    let mut copying = Copying { from: &from, workspace, to, made: DagFolder::default(), findings, direction };
    copying.folder(Path::new(""), 0)?;
    let Copying { made, findings, .. } = copying;
    if direction == Direction::FromAirflow {
        return Ok(made);
    }
    for root in made.roots.iter().filter(|root| root.contains(':')) {
        findings.add(
            root,
            "its modules are not found: a folder of PYTHONPATH cannot have a colon",
            "rename the folder",
        );
    }
    for (module, projects) in made.modules.iter().filter(|(_, projects)| projects.len() > 1) {
        let projects = projects.iter().cloned().collect::<Vec<_>>().join(", ");
        findings.add(
            format!("module {module}"),
            format!("several projects have one of that name ({projects}); Airflow has one path for all of them"),
            "rename all but one, and what imports them",
        );
    }
    Ok(made)
}

impl Copying<'_> {
    fn folder(&mut self, below: &Path, depth: usize) -> Result<(), Error> {
        let target = self.to.map(|to| to.join(below));
        if let Some(target) = &target {
            // Its rights are set when all is in it.
            fs::create_dir(target).map_err(|error| Error::io("create", target, &error))?;
        }
        let listed = self.from.below(below).and_then(|folder| folder.entries().map(|entries| (folder, entries)));
        let (folder, entries) = match listed {
            Ok(both) if depth <= DEPTH_LIMIT => both,
            Ok(_) => {
                self.left(below, "it is nested too deep");
                return Ok(());
            }
            Err(error) => {
                self.left(below, &format!("it cannot be read: {error}"));
                return Ok(());
            }
        };
        let mut ignored = String::new();
        for entry in &entries {
            let path = below.join(&entry.name);
            if is_left_out(&folder, entry)
                || entry.name.to_string_lossy().starts_with(OWN_FOLDER)
                || is_temporary_neighbour(&entry.name.to_string_lossy())
            {
                continue;
            }
            match entry.kind {
                Kind::Folder => self.folder(&path, depth + 1)?,
                Kind::Link => self.link(&folder, &path),
                Kind::Other => self.left(&path, "it is a FIFO, a socket or a device"),
                Kind::File if entry.name == OWN_IGNORE || entry.name == AIRFLOW_IGNORE => match read(&folder, &path) {
                    Ok(text) => ignored.push_str(&(text.trim_end().to_owned() + "\n")),
                    Err(error) => self.left(&path, &format!("it cannot be read: {error}")),
                },
                Kind::File => self.file(&folder, &path)?,
            }
        }
        if let Some(target) = &target {
            if !ignored.is_empty() {
                let path = target.join(AIRFLOW_IGNORE);
                fs::write(&path, ignored).map_err(|error| Error::io("write", &path, &error))?;
                self.set_mode(&path, 0o644)?;
            }
            let mode = folder.mode().unwrap_or(0o700);
            self.set_mode(target, mode | 0o700)?;
        }
        self.look_at_settings(below, depth);
        Ok(())
    }

    fn left(&mut self, path: &Path, why: &str) {
        self.findings.add(
            path.to_string_lossy(),
            format!("it was left out: {why}"),
            "copy it by hand, if DAGs need it",
        );
    }

    fn file(&mut self, folder: &Folder, path: &Path) -> Result<(), Error> {
        let name = path.file_name().unwrap_or_default();
        let mut source = match folder.open_file(name) {
            Ok(source) => source,
            Err(error) => {
                self.left(path, &format!("it cannot be read: {error}"));
                return Ok(());
            }
        };
        let mode = source.metadata().map_or(0o600, |metadata| metadata.permissions().mode() & 0o777);
        if self.direction == Direction::ToAirflow && mode & 0o077 == 0 {
            self.findings.add(
                path.to_string_lossy(),
                "nobody else may read it, and it is so in the export",
                "let the image's user read it, or keep what it holds in a connection",
            );
        }
        if let Some(target) = self.to.map(|to| to.join(path)) {
            let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target);
            let copied = made.and_then(|mut made| io::copy(&mut source, &mut made));
            copied.map_err(|error| Error::io("write", &target, &error))?;
            self.set_mode(&target, mode)?;
        }
        self.made.files += 1;
        if self.direction == Direction::ToAirflow && path.extension().is_some_and(|extension| extension == "py") {
            self.note_module(path);
            if let Ok(text) = read(folder, path) {
                self.look_at_imports(path, &text);
            }
        }
        Ok(())
    }

    /// Private stays private; on the way to Airflow everything else is for the image's user too, whatever the umask was.
    fn set_mode(&self, path: &Path, mode: u32) -> Result<(), Error> {
        let mode = match self.direction {
            Direction::ToAirflow if path.is_dir() => 0o755,
            Direction::ToAirflow if mode & 0o077 != 0 && mode & 0o100 != 0 => 0o755,
            Direction::ToAirflow if mode & 0o077 != 0 => 0o644,
            _ => mode,
        };
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|error| Error::io("write", path, &error))
    }

    /// A project's folder comes before the workspace, where its modules are looked for.
    fn note_module(&mut self, path: &Path) {
        let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
        let stem = |file: &str| file.strip_suffix(".py").unwrap_or(file).to_owned();
        // `dags` of a project comes before the project.
        let (root, module) = match parts[..] {
            [project, file] => (project.to_owned(), stem(file)),
            [project, package, "__init__.py"] => (project.to_owned(), package.to_owned()),
            [project, "dags", file] => (format!("{project}/dags"), stem(file)),
            [project, "dags", package, "__init__.py"] => (format!("{project}/dags"), package.to_owned()),
            _ => return,
        };
        // What is only run as a DAG file is imported by nobody.
        if module != "dag" && module != "__init__" {
            self.made.roots.insert(root.clone());
            self.made.modules.entry(module).or_default().insert(root);
        }
    }

    fn look_at_imports(&mut self, path: &Path, text: &str) {
        let is_own = |line: &str| {
            let words: Vec<&str> = line.split(|c: char| c.is_whitespace() || c == '.' || c == ',').collect();
            matches!(words[..], ["from" | "import", "leoflow", ..])
        };
        if let Some(at) = text.lines().position(|line| is_own(line.trim_start())) {
            self.findings.add(
                format!("{}:{}", path.display(), at + 1),
                "it imports leoflow, which Airflow does not have",
                "import the same names from airflow.sdk",
            );
        }
    }

    /// A link that stays inside leads to the same place there; no other is followed.
    fn link(&mut self, folder: &Folder, path: &Path) {
        let target = match folder.link_target(path.file_name().unwrap_or_default()) {
            Ok(target) => PathBuf::from(target),
            Err(error) => return self.left(path, &format!("it cannot be read: {error}")),
        };
        let relative = match target.strip_prefix(self.workspace) {
            Ok(inside) => {
                path.parent().into_iter().flat_map(Path::iter).map(|_| "..").collect::<PathBuf>().join(inside)
            }
            Err(_) => target,
        };
        if !link_stays_inside(&path.to_string_lossy(), &relative.to_string_lossy()) {
            return self.left(path, "it is a link that leads out of the workspace");
        }
        if let Some(Err(error)) = self.to.map(|to| symlink(&relative, to.join(path))) {
            self.left(path, &format!("it cannot be made: {error}"));
        }
    }

    fn look_at_settings(&mut self, below: &Path, depth: usize) {
        if depth != 1 || self.direction == Direction::FromAirflow {
            return;
        }
        let Ok(Some(Value::Object(settings))) = project::load(&self.workspace.join(below)) else { return };
        let said: Vec<&str> = OF_THE_DAG.into_iter().filter(|key| settings.contains_key(*key)).collect();
        if !said.is_empty() {
            self.findings.add(
                below.join(project::FILE).to_string_lossy(),
                format!("it says {} of the DAG, which Airflow does not read", said.join(", ")),
                "write it into the DAG file",
            );
        }
    }
}

fn read(folder: &Folder, path: &Path) -> io::Result<String> {
    let mut text = String::new();
    folder.open_file(path.file_name().unwrap_or_default())?.take(SOURCE_LIMIT).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_only_leoflows_is_named_and_what_others_keep_is_left() {
        let workspace = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = workspace.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("one/dag.py", "from airflow.sdk import DAG\nimport helper\n");
        write("one/helper.py", "import leoflow_like\n");
        write("one/.leoflowignore", "drafts/*");
        write("one/.airflowignore", "old.py\n");
        write("two/dag.py", "import os\n    from leoflow.sdk import task\n");
        write("two/helper/__init__.py", "");
        write("two/leoflow.yaml", "schema_version: '1.0'\nowner: me\ndependencies: [six]\n");
        write("two/.git/config", "secret");
        symlink("helper.py", workspace.path().join("one/alias.py")).unwrap();
        symlink(workspace.path().join("one/helper.py"), workspace.path().join("two/far.py")).unwrap();
        symlink("/etc/passwd", workspace.path().join("two/out.py")).unwrap();
        // By name it stays inside; `far` may be a link.
        symlink("far/../../x.py", workspace.path().join("two/round.py")).unwrap();
        let (to, mut findings) = (workspace.path().with_extension("export"), Findings::default());
        let made = copy(workspace.path(), Some(&to), Direction::ToAirflow, &mut findings).unwrap();
        assert_eq!(made.files, 5);
        assert_eq!(made.roots.into_iter().collect::<Vec<_>>(), ["one", "two"]);
        let whats: Vec<&str> = findings.all().iter().map(|one| one.what.as_str()).collect();
        assert_eq!(whats, ["two/dag.py:2", "two/out.py", "two/round.py", "two/leoflow.yaml", "module helper"]);
        assert!(findings.all()[3].why.contains("owner") && !findings.all()[3].why.contains("dependencies"));
        assert_eq!(fs::read_to_string(to.join("one/.airflowignore")).unwrap(), "old.py\ndrafts/*\n");
        assert_eq!(fs::read_link(to.join("two/far.py")).unwrap(), Path::new("../one/helper.py"));
        assert!(fs::read_to_string(to.join("one/alias.py")).is_ok() && !to.join("two/.git").exists());
        fs::remove_dir_all(to).unwrap();
    }
}
