//! Collects what a project declares about the environment of its DAGs: in `leoflow.yaml`, in `pyproject.toml` or
//! `requirements.txt` beside the DAG file, or in a block of the DAG file itself. Two conflicting declarations are an
//! error that names both. Without any list of requirements, one of `OTHER_LISTS` is read.

use super::declared::Declared;
use super::error::{DeclarationError, LineError};
use super::index::Index;
use super::merge::{Source, conflict, merge};
use super::requirements::{self, Declaration};
use super::unread::{self, ADDITIONAL, Unread};
use super::variables::Variables;
use super::{project_text, requirements_file};
use crate::dotenv;
use crate::roots::Request;
use leoflow_base::config::leoflow_yaml::{self, EnvironmentSettings};
use std::path::{Path, PathBuf};

/// Lists that are read only if the settings, `pyproject.toml`, `requirements.txt` and the DAG file list nothing: those
/// of Amazon MWAA's layout and of pip-tools.
const OTHER_LISTS: [&str; 2] = ["requirements/requirements.txt", "requirements.in"];

/// What a DAG file's project declares.
#[derive(Debug, Default)]
pub struct Collected {
    /// `None` if the plain interpreter is enough.
    pub declared: Option<Declared>,
    /// Declarations that are not read.
    pub unread: Vec<Unread>,
}

/// Collects the declarations for a DAG file: those of its project's settings (`environment`), of files beside it and of
/// the file itself; without any of these, those of the workspace's settings and files. Adds to `read` the paths of all
/// files that the result depends on, existing or not.
pub(crate) fn collect_declared(
    request: &Request,
    environment: Option<EnvironmentSettings>,
    workspace_settings: impl FnOnce(&mut Vec<PathBuf>) -> Result<Option<EnvironmentSettings>, DeclarationError>,
    read: &mut Vec<PathBuf>,
) -> Result<Collected, DeclarationError> {
    let mut collector = Collector::new(request, read);
    let mut included = None;
    let mut is_listed = false;
    if let (Some(project), Some(environment)) = (request.project.as_deref(), environment) {
        collector.ignored.clone_from(&environment.ignored_requirements);
        included = environment.requirements.as_ref().map(|name| project.join(name));
        is_listed = has_list(&environment);
        collector.read_settings(project, environment)?;
    }
    collector.read_project(included.as_deref(), is_listed)?;
    let declares_nothing = !collector.sources.iter().any(declares_packages);
    if let Some(workspace) = request.workspace.as_deref()
        && (declares_nothing || request.project.is_none())
    {
        let mut environment = workspace_settings(collector.read)?;
        if declares_nothing && request.project.is_some() {
            // If the workspace is one repository, the requirements of all projects are in its top folder.
            let included = environment.as_ref().and_then(|settings| settings.requirements.as_ref());
            collector.read_files(&[workspace], included.map(|name| workspace.join(name)).as_deref())?;
        }
        collector.read_other_list(&[workspace], environment.as_ref().is_some_and(has_list))?;
        if !declares_nothing && let Some(environment) = &mut environment {
            // A file outside of projects takes its requirements from its own block, and only constraints and indexes
            // from the workspace.
            (environment.dependencies, environment.requirements, environment.python_version) = (None, None, None);
        }
        if let Some(environment) = environment {
            collector.read_settings(workspace, environment)?;
        }
    }
    if let Some(packages) = variable(request, ADDITIONAL) {
        let additional = packages.split_whitespace().map(str::to_owned).collect();
        collector.add(ADDITIONAL, Declaration { additional, ..Declaration::default() });
    }
    let declared = merge(collector.sources)?.map(|declared| {
        let variables = Variables::read(declared.texts(), &|name| variable(request, name));
        Declared { variables, ..declared }
    });
    Ok(Collected { declared, unread: collector.unread })
}

/// Finds the file, other than `leoflow.yaml`, that lists the requirements of a DAG file: one beside the DAG file, the
/// DAG file itself or, if neither the project nor its `settings` declare any, one of the workspace. The project's
/// requirements file without requirements is the last choice. Ignores the file that the settings include (`included`).
pub fn find_requirements_source(
    request: &Request,
    settings: &EnvironmentSettings,
    included: Option<&Path>,
) -> Result<Option<PathBuf>, DeclarationError> {
    let mut read = Vec::new();
    let mut collector = Collector::new(request, &mut read);
    collector.ignored.clone_from(&settings.ignored_requirements);
    collector.read_project(included, has_list(settings))?;
    let mut empty_file = None;
    if !has_list(settings) {
        empty_file = collector.sources.iter().find(|source| is_requirements_file(source)).map(|one| one.origin.clone());
        if let Some(workspace) = request.workspace.as_deref()
            && request.project.is_some()
            && !collector.sources.iter().any(declares_packages)
        {
            collector.read_files(&[workspace], None)?;
            collector.read_other_list(&[workspace], false)?;
        }
    }
    let listing = collector.sources.into_iter().find(lists_requirements).map(|source| source.origin);
    Ok(listing.or(empty_file).map(PathBuf::from))
}

fn is_requirements_file(source: &Source) -> bool {
    Path::new(&source.origin).extension().is_some_and(|extension| extension == "txt" || extension == "in")
}

/// True if the source decides about packages or Python, so that the workspace's declarations are not used.
fn declares_packages(source: &Source) -> bool {
    let declaration = &source.declaration;
    declaration.requirements.is_some() || !declaration.additional.is_empty() || declaration.python.is_some()
}

/// True if the settings list requirements, even an empty list.
fn has_list(settings: &EnvironmentSettings) -> bool {
    settings.dependencies.is_some() || settings.requirements.is_some()
}

fn lists_requirements(source: &Source) -> bool {
    source.declaration.requirements.as_ref().is_some_and(|all| !all.is_empty())
}

/// A variable of a `.env` file or of our own environment; `None` if it is empty, because pip does not expand an empty
/// variable either.
fn variable(request: &Request, name: &str) -> Option<String> {
    dotenv::variable(&request.folders, name).filter(|value| !value.is_empty())
}

/// The folders from the DAG file's up to its project's.
fn folders_beside(request: &Request) -> Vec<&Path> {
    let top = request.project.as_deref().or_else(|| request.path.parent()).unwrap_or(Path::new("/"));
    let is_inside = |folder: &&Path| folder.starts_with(top) && *folder != Path::new("");
    request.path.ancestors().skip(1).take_while(is_inside).collect()
}

/// The declarations that were read so far.
struct Collector<'a> {
    request: &'a Request,
    read: &'a mut Vec<PathBuf>,
    unread: Vec<Unread>,
    sources: Vec<Source>,
    /// What is left out of all lists but those of the settings; see `requirements_file::is_ignored`.
    ignored: Vec<String>,
}

impl<'a> Collector<'a> {
    fn new(request: &'a Request, read: &'a mut Vec<PathBuf>) -> Self {
        Self { request, read, unread: Vec::new(), sources: Vec::new(), ignored: Vec::new() }
    }

    fn add(&mut self, origin: impl AsRef<Path>, declaration: Declaration) {
        self.sources.push(Source { origin: origin.as_ref().display().to_string(), declaration });
    }

    fn requirements_in(&mut self, path: &Path) -> Result<Option<Declaration>, DeclarationError> {
        requirements_file::read_file(path, &|name| variable(self.request, name), &self.ignored, self.read)
    }

    /// Reads the nearest `pyproject.toml` and the nearest `requirements.txt`, from the DAG file's folder up to its
    /// project's, the block in the DAG file, and in a project its other list. Ignores the file that the settings include
    /// (`included`) and files of that name above it.
    fn read_project(&mut self, included: Option<&Path>, is_listed: bool) -> Result<(), DeclarationError> {
        let (file, folders) = (&self.request.path, folders_beside(self.request));
        self.read_files(&folders, included)?;
        // The DAG file is not added to `read`: the server watches it anyway.
        if let Some(text) = project_text::text_of(file, &mut Vec::new()).ok().flatten()
            && let Some(mut declaration) = requirements::read_script(file, &text)?
        {
            declaration.ignore(&self.ignored);
            self.add(file, declaration);
        }
        if self.request.project.is_some() { self.read_other_list(&folders, is_listed) } else { Ok(()) }
    }

    /// Reads the first `pyproject.toml` and the first `requirements.txt` in these folders.
    fn read_files(&mut self, folders: &[&Path], included: Option<&Path>) -> Result<(), DeclarationError> {
        for name in ["pyproject.toml", "requirements.txt"] {
            let paths = folders.iter().map(|folder| folder.join(name));
            for path in paths.take_while(|path| included != Some(path.as_path())) {
                let declaration = match name {
                    "pyproject.toml" => requirements::read_pyproject(&path, self.read)?,
                    _ => self.requirements_in(&path)?,
                };
                if let Some(mut declaration) = declaration {
                    declaration.ignore(&self.ignored);
                    self.add(path, declaration);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Reads the first of `OTHER_LISTS` in these folders, unless the settings (`is_listed`) or the sources list
    /// requirements, and finds the declarations in these folders that are not read.
    fn read_other_list(&mut self, folders: &[&Path], is_listed: bool) -> Result<(), DeclarationError> {
        let mut is_listed = is_listed || self.sources.iter().any(lists_requirements);
        let mut paths = folders.iter().flat_map(|folder| OTHER_LISTS.map(|name| folder.join(name)));
        while !is_listed && let Some(path) = paths.next() {
            // Reading would fail if `requirements` is a file.
            if !path.exists() {
                self.read.push(path);
            } else if let Some(declaration) = self.requirements_in(&path)? {
                self.add(path, declaration);
                is_listed = self.sources.last().is_some_and(lists_requirements);
            }
        }
        self.unread.extend(unread::find(folders, is_listed));
        Ok(())
    }

    /// Adds the declaration in the settings of a folder, with the file that they include.
    fn read_settings(&mut self, folder: &Path, environment: EnvironmentSettings) -> Result<(), DeclarationError> {
        let mut declaration = Declaration {
            requirements: environment.dependencies,
            additional: environment.additional_dependencies,
            python: environment.python_version,
            constraints: environment.constraints,
            index: Index {
                first: environment.index,
                extra: environment.extra_index,
                exclude_newer: environment.exclude_newer,
                ..Index::default()
            },
            ..Declaration::default()
        };
        if let Some(version) = environment.airflow {
            let exact = if version.split('.').count() == 2 { format!("{version}.*") } else { version };
            declaration.additional.push(format!("apache-airflow=={exact}"));
        }
        let origin = leoflow_yaml::path(folder);
        if let Some(name) = environment.requirements {
            let file = folder.join(name);
            let listed = self.requirements_in(&file)?;
            let missing = || DeclarationError::in_origin(leoflow_yaml::FILE)(LineError::NoFile(file.clone()));
            let listed = listed.ok_or_else(missing)?;
            declaration.requirements.get_or_insert_default().extend(listed.requirements.into_iter().flatten());
            declaration.constraints.extend(listed.constraints);
            declaration.origins = listed.origins;
            if let (Some(index_of_settings), Some(index_of_file)) = (&declaration.index.first, &listed.index.first)
                && index_of_settings != index_of_file
            {
                return Err(conflict(origin.display(), file.display(), "the index"));
            }
            declaration.index.extend(&listed.index);
            declaration.index.first = declaration.index.first.or(listed.index.first);
        }
        if declaration != Declaration::default() {
            self.add(origin, declaration);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn with(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(folder.path().join("p/dags")).unwrap();
            for (name, text) in files {
                std::fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
                std::fs::write(folder.path().join(name), text).unwrap();
            }
            Self(folder)
        }

        fn collect(
            &self,
            settings: Option<&Value>,
            workspace_settings: Option<&Value>,
        ) -> Result<Option<Declared>, DeclarationError> {
            self.collect_all(settings, workspace_settings).map(|collected| collected.declared)
        }

        fn collect_all(
            &self,
            settings: Option<&Value>,
            workspace_settings: Option<&Value>,
        ) -> Result<Collected, DeclarationError> {
            let environment = |settings: &Value| leoflow_yaml::take_environment(&mut settings.clone());
            let root = self.0.path();
            let request = Request::new(root.join("p/dags/dag.py"), Some(root), PathBuf::new());
            let of_workspace = |_: &mut Vec<PathBuf>| Ok(workspace_settings.map(environment));
            collect_declared(&request, settings.map(environment), of_workspace, &mut Vec::new())
        }
    }

    #[test]
    fn without_declarations_the_plain_interpreter_is_enough() {
        let folder = Folder::with(&[("p/dags/dag.py", ""), ("p/pyproject.toml", "[tool.x]\n")]);
        assert_eq!(folder.collect(Some(&json!({"dag_id": "d"})), None).unwrap(), None);
    }

    #[test]
    fn the_nearest_file_wins_and_the_workspace_is_the_default() {
        let folder = Folder::with(&[("p/dags/requirements.txt", "b\na\n"), ("p/requirements.txt", "c\n")]);
        let workspace_settings = json!({"dependencies": ["d"]});
        let found = folder.collect(None, Some(&workspace_settings)).unwrap().unwrap();
        assert_eq!(found.requirements, ["a", "b"]);
        let found = Folder::with(&[]).collect(None, Some(&workspace_settings)).unwrap().unwrap();
        assert_eq!(found.requirements, ["d"]);
    }

    #[test]
    fn the_files_of_the_workspace_are_the_default_too() {
        for (file, text) in
            [("requirements.txt", "d\n"), ("pyproject.toml", "[project]\nname='x'\ndependencies=['d']\n")]
        {
            let found = Folder::with(&[(file, text)]).collect(None, None).unwrap().unwrap();
            assert_eq!(found.requirements, ["d"], "{file}");
            let own =
                Folder::with(&[(file, text), ("p/requirements.txt", "b\n")]).collect(None, None).unwrap().unwrap();
            assert_eq!(own.requirements, ["b"], "{file}");
        }
        let folder = Folder::with(&[("needs.txt", "d\n"), ("requirements.txt", "d\n")]);
        let found = folder.collect(None, Some(&json!({"requirements": "requirements.txt"}))).unwrap().unwrap();
        assert_eq!(found.requirements, ["d"]);
        let error = folder.collect(None, Some(&json!({"dependencies": ["e"]}))).unwrap_err().to_string();
        assert!(error.contains("requirements.txt and ") && error.contains("do not agree"), "{error}");
    }

    #[test]
    fn other_lists_are_read_if_nothing_else_lists_any() {
        for file in ["p/requirements/requirements.txt", "p/requirements.in", "requirements.in"] {
            let found = Folder::with(&[(file, "b\n")]).collect(None, None).unwrap().unwrap();
            assert_eq!(found.requirements, ["b"], "{file}");
            let found = Folder::with(&[(file, "b\n"), ("p/requirements.txt", "a\n")]).collect(None, None).unwrap();
            assert_eq!(found.unwrap().requirements, ["a"], "{file}");
            let found = Folder::with(&[(file, "b\n")]).collect(Some(&json!({"dependencies": ["a"]})), None).unwrap();
            assert_eq!(found.unwrap().requirements, ["a"], "{file}");
        }
        let folder = Folder::with(&[("p/requirements.in", "b\n"), ("p/requirements", "a file\n")]);
        assert_eq!(folder.collect(Some(&json!({"dependencies": []})), None).unwrap(), None);
        assert!(folder.collect(None, None).unwrap().is_some());
    }

    #[test]
    fn packages_of_airflows_compose_file_are_added() {
        let env = ("p/.env", "_PIP_ADDITIONAL_REQUIREMENTS=c>=1 b\n");
        let found = Folder::with(&[env, ("p/requirements.txt", "a\n")]).collect(None, None).unwrap().unwrap();
        assert_eq!(found.requirements, ["a", "b", "c>=1"]);
        let found = Folder::with(&[env, ("requirements.txt", "a\n")]).collect(None, None).unwrap().unwrap();
        assert_eq!(found.requirements, ["a", "b", "c>=1"]);
        let error = Folder::with(&[("p/.env", "_PIP_ADDITIONAL_REQUIREMENTS=./b\n")])
            .collect(None, None)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("_PIP_ADDITIONAL_REQUIREMENTS: "), "{error}");
    }

    #[test]
    fn unread_declarations_are_found_unless_a_list_is_read() {
        let pipfile = "[packages]\nb = '*'\n";
        let unread = |files: &[(&str, &str)], settings: Option<&Value>, workspace_settings: Option<&Value>| {
            let collected = Folder::with(files).collect_all(settings, workspace_settings).unwrap();
            collected.unread.iter().filter(|unread| unread.path.ends_with("Pipfile")).count()
        };
        assert_eq!(unread(&[("p/Pipfile", pipfile), ("Pipfile", pipfile)], None, None), 2);
        assert_eq!(unread(&[("p/Pipfile", pipfile), ("p/requirements.txt", "b\n")], None, None), 0);
        assert_eq!(unread(&[("p/Pipfile", pipfile), ("p/requirements.in", "b\n")], None, None), 0);
        assert_eq!(unread(&[("p/Pipfile", pipfile)], Some(&json!({"dependencies": []})), None), 0);
        assert_eq!(unread(&[("p/Pipfile", pipfile)], Some(&json!({"airflow": "3.3"})), None), 1);
        assert_eq!(unread(&[("Pipfile", pipfile), ("p/requirements.txt", "b\n")], None, None), 0);
        assert_eq!(unread(&[("Pipfile", pipfile)], None, Some(&json!({"dependencies": ["b"]}))), 0);
    }

    #[test]
    fn variables_come_from_the_nearest_env_file() {
        let index = "--extra-index-url https://${H_USER}:${H_PASS}@${H_HOST}/simple\na\n";
        let collect = |password: &str, host: &str| {
            let near = format!("H_PASS={password}\nH_HOST={host}\n");
            Folder::with(&[("p/requirements.txt", index), ("p/.env", &near), (".env", "H_USER=me\nH_HOST=far\n")])
                .collect(None, None)
                .unwrap()
                .unwrap()
        };
        let found = collect("secret", "near");
        assert_eq!(found.variables.expand(&found.index.extra[0]).unwrap(), "https://me:secret@near/simple");
        let stored = serde_json::to_string(&found).unwrap() + &format!("{found:?}");
        assert!(!stored.contains("secret") && stored.contains("${H_PASS}"), "{stored}");
        // A new password keeps the environment, a new host does not.
        assert_eq!(found.inputs("3.11"), collect("other", "near").inputs("3.11"));
        assert_ne!(found.inputs("3.11"), collect("secret", "elsewhere").inputs("3.11"));
    }

    #[test]
    fn a_conflict_names_both_sources() {
        let folder = Folder::with(&[("p/requirements.txt", "a\n")]);
        assert!(folder.collect(Some(&json!({"dependencies": ["a"]})), None).is_ok());
        assert!(folder.collect(Some(&json!({"requirements": "requirements.txt"})), None).is_ok());
        let both = folder.collect(Some(&json!({"dependencies": ["b"], "requirements": "requirements.txt"})), None);
        assert_eq!(both.unwrap().unwrap().requirements, ["a", "b"]);
        assert!(folder.collect(Some(&json!({"dependencies": []})), None).unwrap().is_some());
        let error = folder.collect(Some(&json!({"dependencies": ["b"]})), None).unwrap_err().to_string();
        assert!(error.contains("p/leoflow.yaml and ") && error.contains("p/requirements.txt do not agree"), "{error}");
    }

    #[test]
    fn the_airflow_setting_adds_to_any_requirements() {
        let script = "# /// script\n# dependencies = ['a']\n# ///\n";
        for source_file in [
            ("p/requirements.txt", "a\n"),
            ("p/pyproject.toml", "[project]\nname='x'\ndependencies=['a']\n"),
            ("p/dags/dag.py", script),
        ] {
            let found = Folder::with(&[source_file]).collect(Some(&json!({"airflow": "3.3"})), None).unwrap().unwrap();
            assert_eq!(found.requirements, ["a", "apache-airflow==3.3.*"], "{}", source_file.0);
        }
        let found =
            Folder::with(&[]).collect(Some(&json!({"airflow": "3.3.2"})), Some(&json!({"dependencies": ["d"]})));
        assert_eq!(found.unwrap().unwrap().requirements, ["apache-airflow==3.3.2"]);
        let constrained = json!({"constraints": ["apache-airflow-core<3.4"]});
        let found = Folder::with(&[("p/dags/dag.py", script)]).collect(Some(&constrained), None).unwrap().unwrap();
        assert_eq!(
            (found.requirements, found.constraints),
            (vec!["a".to_owned()], vec!["apache-airflow-core<3.4".to_owned()])
        );
    }

    #[test]
    fn a_bare_file_takes_constraints_from_the_workspace() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dag.py");
        std::fs::write(&file, "# /// script\n# dependencies = ['a']\n# ///\n").unwrap();
        let request = Request::new(file, Some(folder.path()), PathBuf::new());
        let mut settings = json!({"dependencies": ["b"], "constraints": ["a<2"], "index": "https://i.example/simple"});
        let found = collect_declared(
            &request,
            None,
            |_| Ok(Some(leoflow_yaml::take_environment(&mut settings))),
            &mut Vec::new(),
        );
        let found = found.unwrap().declared.unwrap();
        assert_eq!((found.requirements, found.constraints), (vec!["a".to_owned()], vec!["a<2".to_owned()]));
        assert_eq!(found.index.first.as_deref(), Some("https://i.example/simple"));
    }

    #[test]
    fn names_the_file_that_lists_requirements() {
        let folder = Folder::with(&[("p/requirements.txt", "a\n")]);
        let (root, project) = (folder.0.path(), folder.0.path().join("p"));
        let request = Request::new(root.join("p/dags/dag.py"), Some(root), PathBuf::new());
        let source = |included: Option<&Path>| {
            find_requirements_source(&request, &EnvironmentSettings::default(), included).unwrap()
        };
        assert_eq!(source(None), Some(project.join("requirements.txt")));
        assert_eq!(source(Some(&project.join("requirements.txt"))), None);
        std::fs::write(root.join("requirements.txt"), "b\n").unwrap();
        assert_eq!(source(Some(&project.join("requirements.txt"))), Some(root.join("requirements.txt")));
    }

    #[test]
    fn an_empty_requirements_file_is_the_source_without_another_list() {
        let empty = ("p/requirements.txt", "# packages\n");
        let pyproject = ("p/pyproject.toml", "[project]\nname='x'\ndependencies=['a']\n");
        let pip_tools = ("p/requirements.in", "a\n");
        let workspace = ("requirements.txt", "a\n");
        let listed = json!({"dependencies": ["a"]});
        for (other, settings, expected) in [
            (("p/dag.py", ""), json!({}), Some("p/requirements.txt")),
            (workspace, json!({}), Some("p/requirements.txt")),
            (pyproject, json!({}), Some("p/pyproject.toml")),
            (pip_tools, json!({}), Some("p/requirements.in")),
            (("p/dag.py", ""), listed, None),
        ] {
            let folder = Folder::with(&[empty, other]);
            let root = folder.0.path();
            let request = Request::new(root.join("p/dags/dag.py"), Some(root), PathBuf::new());
            let settings = leoflow_yaml::take_environment(&mut settings.clone());
            let source = find_requirements_source(&request, &settings, None).unwrap();
            assert_eq!(source, expected.map(|name| root.join(name)), "{}", other.0);
        }
    }

    #[test]
    fn a_python_must_match_every_range() {
        let folder = Folder::with(&[("p/pyproject.toml", "[project]\nname='x'\nrequires-python='>=3.11'\n")]);
        let found = folder.collect(Some(&json!({"python_version": "3.12"})), None).unwrap().unwrap();
        assert_eq!(found.mismatch("3.12.1"), None);
        assert_eq!(found.mismatch("3.11.1").as_deref(), Some("3.12"));
        assert!(found.requirements.is_empty());
    }

    #[test]
    fn a_conflict_of_indexes_names_both_sources() {
        let folder = Folder::with(&[("p/requirements.txt", "--index-url https://a.example/simple\na\n")]);
        let error = folder.collect(Some(&json!({"index": "https://b.example/simple"})), None).unwrap_err().to_string();
        assert!(error.contains("requirements.txt do not agree on the index"), "{error}");
        let included = json!({"index": "https://b.example/simple", "requirements": "requirements.txt"});
        let error = folder.collect(Some(&included), None).unwrap_err().to_string();
        assert!(error.contains("requirements.txt do not agree on the index"), "{error}");
    }

    #[test]
    fn a_password_in_an_address_is_refused() {
        let folder = Folder::with(&[("p/requirements.txt", "--index-url https://me:secret@i.example/simple\na\n")]);
        let error = folder.collect(None, None).unwrap_err().to_string();
        assert!(error.contains("must not contain a password") && !error.contains("secret"), "{error}");
    }
}
