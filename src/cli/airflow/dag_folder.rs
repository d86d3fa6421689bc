//! Copies a folder of DAG files without the files of other tools (VCS, caches, environments). An export also lists
//! what Airflow does not support.

use super::findings::Findings;
use crate::error::Error;
use leoflow_base::config::leoflow_yaml;
use leoflow_base::home::RESTORE_IN_WORKSPACE;
use leoflow_base::sys::fs::beneath::{Folder, Kind};
use leoflow_base::sys::fs::files::is_temporary_neighbour;
use leoflow_base::sys::fs::{permissions, sparse};
use leoflow_lifecycle::backup::create::selection::is_excluded;
use leoflow_lifecycle::backup::format::manifest::link_stays_inside;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Maximum number of bytes read from a Python file or ignore file.
const SOURCE_LIMIT: u64 = 4 * 1024 * 1024;
/// Maximum number of nested folders.
const DEPTH_LIMIT: usize = 100;
const OWN_IGNORE: &str = ".leoflowignore";
const AIRFLOW_IGNORE: &str = ".airflowignore";
/// Keys of `leoflow.yaml` that describe the DAG itself, which Airflow does not read.
const DAG_SETTINGS: [&str; 6] = ["dag_id", "description", "owner", "tags", "defaults", "tasks"];

/// The result of a copy.
#[derive(Debug, Default)]
pub struct DagFolder {
    pub files: usize,
    /// Subfolders that are module search paths in addition to the folder itself.
    pub roots: BTreeSet<String>,
    /// Folders of each project that have a module, by the module's name.
    modules: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

/// A copy in progress.
struct Copying<'a> {
    from: &'a Folder,
    workspace: &'a Path,
    /// `None` checks without copying.
    to: Option<&'a Path>,
    result: DagFolder,
    findings: &'a mut Findings,
    direction: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToAirflow,
    FromAirflow,
}

/// Copies `workspace` to `to`, which must not exist yet; with `None`, only checks `workspace`.
pub fn copy(
    workspace: &Path,
    to: Option<&Path>,
    direction: Direction,
    findings: &mut Findings,
) -> Result<DagFolder, Error> {
    let canonical = |path: &Path| path.canonicalize().ok();
    if let Some(parent) = to.and_then(Path::parent).and_then(canonical)
        && canonical(workspace).is_some_and(|from| parent.starts_with(from))
    {
        return Err(Error::refused(format!("cannot copy {} into itself", workspace.display()))
            .hint("choose a folder outside it"));
    }
    let from = Folder::open(workspace).map_err(Error::cannot("read", workspace))?;
    let mut copying = Copying { from: &from, workspace, to, result: DagFolder::default(), findings, direction };
    copying.copy_folder(Path::new(""), 0)?;
    let Copying { result, findings, .. } = copying;
    if direction != Direction::ToAirflow {
        return Ok(result);
    }
    for root in result.roots.iter().filter(|root| root.contains(':')) {
        findings.add(
            root,
            "Airflow cannot find its modules, because a folder in PYTHONPATH cannot contain a colon",
            "rename the folder",
        );
    }
    for (module, projects) in result.modules.iter().filter(|(_, projects)| projects.len() > 1) {
        let projects = projects.values().flatten().cloned().collect::<Vec<_>>().join(", ");
        findings.add(
            format!("module {module}"),
            format!("several folders have a module of that name ({projects}), but Airflow has one path for all"),
            "rename all but one, and their imports",
        );
    }
    Ok(result)
}

impl Copying<'_> {
    /// Copies a folder with everything below it.
    fn copy_folder(&mut self, folder_path: &Path, depth: usize) -> Result<(), Error> {
        let target = self.to.map(|to| to.join(folder_path));
        if let Some(target) = &target {
            // Its mode is set last, because a read-only folder accepts no entries.
            fs::create_dir(target).map_err(Error::cannot("create", target))?;
        }
        let listed = self.from.below(folder_path).and_then(|folder| folder.entries().map(|entries| (folder, entries)));
        let (folder, entries) = match listed {
            Ok(folder_and_entries) if depth <= DEPTH_LIMIT => folder_and_entries,
            Ok(_) => {
                self.skip(folder_path, "it is nested too deeply");
                return Ok(());
            }
            Err(error) => {
                self.skip(folder_path, &format!("it cannot be read: {error}"));
                return Ok(());
            }
        };
        let mut ignored = String::new();
        for entry in &entries {
            let (path, name) = (folder_path.join(&entry.name), entry.name.to_string_lossy());
            let is_left_out =
                is_excluded(&folder, entry) || name.starts_with(RESTORE_IN_WORKSPACE) || is_temporary_neighbour(&name);
            match entry.kind {
                _ if is_left_out => {}
                Kind::Folder => self.copy_folder(&path, depth + 1)?,
                Kind::Link => self.copy_link(&folder, &path),
                Kind::Other => self.skip(&path, "it is a FIFO, a socket or a device"),
                Kind::File if entry.name == OWN_IGNORE || entry.name == AIRFLOW_IGNORE => match read(&folder, &path) {
                    Ok(text) => ignored.push_str(&(text.trim_end().to_owned() + "\n")),
                    Err(error) => self.skip(&path, &format!("it cannot be read: {error}")),
                },
                Kind::File => self.copy_file(&folder, &path)?,
            }
        }
        if let Some(target) = &target {
            self.finish_folder(target, &ignored, folder.mode().unwrap_or(0o700))?;
        }
        self.check_settings(folder_path, depth);
        Ok(())
    }

    /// Writes the ignore file of a copied folder and sets the folder's mode.
    fn finish_folder(&self, target: &Path, ignored: &str, mode: u32) -> Result<(), Error> {
        if !ignored.is_empty() {
            let path = target.join(AIRFLOW_IGNORE);
            fs::write(&path, ignored).map_err(Error::cannot("write", &path))?;
            self.set_mode(&path, 0o644)?;
        }
        self.set_mode(target, mode | 0o700)
    }

    /// Reports a path that is not copied.
    fn skip(&mut self, path: &Path, why: &str) {
        self.findings.add(path.to_string_lossy(), format!("not copied: {why}"), "copy it by hand if DAGs need it");
    }

    /// Copies a file and, for an export, checks a Python file.
    fn copy_file(&mut self, folder: &Folder, path: &Path) -> Result<(), Error> {
        let name = path.file_name().unwrap_or_default();
        let mut source = match folder.open_file(name) {
            Ok(source) => source,
            Err(error) => {
                self.skip(path, &format!("it cannot be read: {error}"));
                return Ok(());
            }
        };
        let mode = source.metadata().map_or(0o600, |metadata| metadata.permissions().mode() & 0o777);
        if self.direction == Direction::ToAirflow && mode & 0o077 == 0 {
            self.findings.add(
                path.to_string_lossy(),
                "only its owner may read it, in the export too",
                "make it readable for the image's user, or move its secrets to a connection",
            );
        }
        if let Some(target) = self.to.map(|to| to.join(path)) {
            let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target);
            let copied = created.and_then(|mut file| sparse::copy(&mut source, &mut file));
            copied.map_err(Error::cannot("write", &target))?;
            self.set_mode(&target, mode)?;
        }
        self.result.files += 1;
        if self.direction == Direction::ToAirflow && path.extension().is_some_and(|extension| extension == "py") {
            self.record_module(path);
            if let Ok(text) = read(folder, path) {
                self.check_imports(path, &text);
            }
        }
        Ok(())
    }

    /// Sets the mode of a copy. An export makes folders and files readable for the image's user, except files that only
    /// their owner may read.
    fn set_mode(&self, path: &Path, mode: u32) -> Result<(), Error> {
        let mode = match self.direction {
            Direction::ToAirflow if path.is_dir() => 0o755,
            Direction::ToAirflow if mode & 0o077 != 0 && mode & 0o100 != 0 => 0o755,
            Direction::ToAirflow if mode & 0o077 != 0 => 0o644,
            _ => mode,
        };
        permissions::set_path_where_supported(path, mode).map_err(Error::cannot("write", path))
    }

    /// Records a top-level module of a project and its root, a folder of the module search path.
    fn record_module(&mut self, path: &Path) {
        let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
        let stem = |file: &str| file.strip_suffix(".py").unwrap_or(file).to_owned();
        // A project's `dags` folder is a root, too.
        let (root, module) = match parts[..] {
            [project, file] => (project.to_owned(), stem(file)),
            [project, package, "__init__.py"] => (project.to_owned(), package.to_owned()),
            [project, "dags", file] => (format!("{project}/dags"), stem(file)),
            [project, "dags", package, "__init__.py"] => (format!("{project}/dags"), package.to_owned()),
            _ => return,
        };
        // `dag.py` is run as a DAG file and not imported.
        if module != "dag" && module != "__init__" {
            self.result.roots.insert(root.clone());
            let project = parts[0].to_owned();
            self.result.modules.entry(module).or_default().entry(project).or_default().insert(root);
        }
    }

    /// Reports the first import of `leoflow`.
    fn check_imports(&mut self, path: &Path, text: &str) {
        let imports_leoflow = |line: &str| {
            let tokens: Vec<&str> = line.split(|c: char| c.is_whitespace() || c == '.' || c == ',').collect();
            matches!(tokens[..], ["from" | "import", "leoflow", ..])
        };
        if let Some(line_index) = text.lines().position(|line| imports_leoflow(line.trim_start())) {
            self.findings.add(
                format!("{}:{}", path.display(), line_index + 1),
                "it imports leoflow, which is not installed in Airflow",
                "import the same names from airflow.sdk",
            );
        }
    }

    /// Copies a symbolic link whose target is inside the copied folder; reports any other link.
    fn copy_link(&mut self, folder: &Folder, path: &Path) {
        let target = match folder.link_target(path.file_name().unwrap_or_default()) {
            Ok(target) => PathBuf::from(target),
            Err(error) => return self.skip(path, &format!("it cannot be read: {error}")),
        };
        let relative = match target.strip_prefix(self.workspace) {
            Ok(in_workspace) => {
                path.parent().into_iter().flat_map(Path::iter).map(|_| "..").collect::<PathBuf>().join(in_workspace)
            }
            Err(_) => target,
        };
        if !link_stays_inside(&path.to_string_lossy(), &relative.to_string_lossy()) {
            return self.skip(path, "it is a link to a path outside the copied folder");
        }
        if let Some(Err(error)) = self.to.map(|to| symlink(&relative, to.join(path))) {
            self.skip(path, &format!("it cannot be created: {error}"));
        }
    }

    /// Reports settings in a project's `leoflow.yaml` that Airflow does not read.
    fn check_settings(&mut self, folder_path: &Path, depth: usize) {
        if depth != 1 || self.direction != Direction::ToAirflow {
            return;
        }
        let Ok(Some(Value::Object(settings))) = leoflow_yaml::load(&self.workspace.join(folder_path)) else { return };
        let keys: Vec<&str> = DAG_SETTINGS.into_iter().filter(|key| settings.contains_key(*key)).collect();
        if !keys.is_empty() {
            self.findings.add(
                folder_path.join(leoflow_yaml::FILE).to_string_lossy(),
                format!("Airflow does not read its DAG settings: {}", keys.join(", ")),
                "move them to the DAG file",
            );
        }
    }
}

/// Reads at most `SOURCE_LIMIT` bytes of a text file in `folder`; only the file name of `path` counts.
fn read(folder: &Folder, path: &Path) -> io::Result<String> {
    let mut text = String::new();
    folder.open_file(path.file_name().unwrap_or_default())?.take(SOURCE_LIMIT).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_leoflow_features_and_skips_files_of_other_tools() {
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
        // Within a project, `dags` precedes the project's folder, there and in Airflow's path.
        write("two/own.py", "");
        write("two/dags/own.py", "");
        write("two/holes.db", "");
        let sparse = fs::File::options().write(true).open(workspace.path().join("two/holes.db")).unwrap();
        sparse.set_len(16 * 1024 * 1024).unwrap();
        symlink("helper.py", workspace.path().join("one/alias.py")).unwrap();
        symlink(workspace.path().join("one/helper.py"), workspace.path().join("two/far.py")).unwrap();
        symlink("/etc/passwd", workspace.path().join("two/out.py")).unwrap();
        // The path stays inside lexically, but `far` may be a link.
        symlink("far/../../x.py", workspace.path().join("two/round.py")).unwrap();
        let (to, mut findings) = (workspace.path().with_extension("export"), Findings::default());
        let result = copy(workspace.path(), Some(&to), Direction::ToAirflow, &mut findings).unwrap();
        assert_eq!(result.files, 8);
        assert_eq!(result.roots.into_iter().collect::<Vec<_>>(), ["one", "two", "two/dags"]);
        let subjects: Vec<&str> = findings.all().iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(subjects, ["two/dag.py:2", "two/out.py", "two/round.py", "two/leoflow.yaml", "module helper"]);
        assert!(findings.all()[3].why.contains("owner") && !findings.all()[3].why.contains("dependencies"));
        assert_eq!(fs::read_to_string(to.join("one/.airflowignore")).unwrap(), "old.py\ndrafts/*\n");
        assert_eq!(fs::read_link(to.join("two/far.py")).unwrap(), Path::new("../one/helper.py"));
        let is_sparse = |folder: &Path| sparse::is_sparse(&fs::metadata(folder.join("two/holes.db")).unwrap());
        assert_eq!(is_sparse(&to), is_sparse(workspace.path()));
        assert!(fs::read_to_string(to.join("one/alias.py")).is_ok() && !to.join("two/.git").exists());
        fs::remove_dir_all(to).unwrap();
    }
}
