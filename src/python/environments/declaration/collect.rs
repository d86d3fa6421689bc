//! Collects what a project declares about the environment of its DAGs: in `leoflow.yaml`, in `pyproject.toml` or
//! `requirements.txt` beside the DAG file, or in a block of the DAG file itself. Two conflicting declarations are an
//! error that names both. Without any list of requirements, one of `OTHER_LISTS` is read.

use super::declared::Declared;
use super::index::Index;
use super::merge::{Source, conflict, merge};
use super::project_text;
use super::requirements::{self, Declaration};
use super::requirements_file::{self, Lookup};
use super::unread::{self, ADDITIONAL, Unread};
use super::variables::Variables;
use crate::dotenv;
use leoflow_base::config::leoflow_yaml::{self, EnvironmentSettings};
use std::path::{Path, PathBuf};

/// Lists that are read only if the settings, `pyproject.toml`, `requirements.txt` and the DAG file list nothing: those
/// of Amazon MWAA's layout and of pip-tools.
const OTHER_LISTS: [&str; 2] = ["requirements/requirements.txt", "requirements.in"];

/// Where a DAG file is.
pub struct DagLocation<'a> {
    pub workspace: Option<&'a Path>,
    pub project: Option<&'a Path>,
    pub file: &'a Path,
    /// Folders with a `.env`, nearest first.
    pub folders: &'a [PathBuf],
}

impl DagLocation<'_> {
    /// A variable of a `.env` file or of our own environment; `None` if it is empty, because pip does not expand an
    /// empty variable either.
    fn variable(&self, name: &str) -> Option<String> {
        dotenv::variable(self.folders, name).filter(|value| !value.is_empty())
    }
}

/// Collects the declarations for a DAG file: those of its project's settings (`environment`), of files beside it and of
/// the file itself; without any of these, those of the workspace's settings and files. `None` if the plain interpreter
/// is enough. Adds to `read` the paths of all files that the result depends on, existing or not, and to `unread` the
/// declarations that are not read. The error is a message for the user.
pub(crate) fn collect_declared(
    location: &DagLocation<'_>,
    environment: Option<EnvironmentSettings>,
    workspace_settings: impl FnOnce(&mut Vec<PathBuf>) -> Result<Option<EnvironmentSettings>, String>,
    read: &mut Vec<PathBuf>,
    unread: &mut Vec<Unread>,
) -> Result<Option<Declared>, String> {
    let mut sources = Vec::new();
    let mut included = None;
    let mut is_listed = false;
    if let (Some(project), Some(environment)) = (location.project, environment) {
        included = environment.requirements.as_ref().map(|name| project.join(name));
        is_listed = has_list(&environment);
        sources.extend(source_from_settings(project, environment, location, read)?);
    }
    sources.extend(files_beside(location, included.as_deref(), read)?);
    if location.project.is_some() {
        add_other_list(&folders_beside(location), location, is_listed, &mut sources, read, unread)?;
    }
    let declares_packages = |source: &Source| {
        let declaration = &source.declaration;
        declaration.requirements.is_some() || !declaration.additional.is_empty() || declaration.python.is_some()
    };
    let declares_nothing = !sources.iter().any(declares_packages);
    if let Some(workspace) = location.workspace
        && (declares_nothing || location.project.is_none())
    {
        let mut environment = workspace_settings(read)?;
        let included = environment.as_ref().and_then(|settings| settings.requirements.clone());
        if declares_nothing && location.project.is_some() {
            // If the workspace is one repository, the requirements of all projects are in its top folder.
            let included = included.map(|name| workspace.join(name));
            sources.extend(files_in(&[workspace], location, included.as_deref(), read)?);
        }
        is_listed = environment.as_ref().is_some_and(has_list);
        add_other_list(&[workspace], location, is_listed, &mut sources, read, unread)?;
        if !declares_nothing && let Some(environment) = &mut environment {
            // A file outside of projects takes its requirements from its own block, and only constraints and indexes
            // from the workspace.
            (environment.dependencies, environment.requirements, environment.python_version) = (None, None, None);
        }
        if let Some(environment) = environment {
            sources.extend(source_from_settings(workspace, environment, location, read)?);
        }
    }
    if let Some(packages) = location.variable(ADDITIONAL) {
        let additional = packages.split_whitespace().map(str::to_owned).collect();
        let declaration = Declaration { additional, ..Declaration::default() };
        sources.push(Source { origin: ADDITIONAL.to_owned(), declaration });
    }
    let declared = merge(sources)?;
    Ok(declared.map(|declared| {
        let variables = Variables::read(declared.texts(), &|name| location.variable(name));
        Declared { variables, ..declared }
    }))
}

/// Finds the file, other than `leoflow.yaml`, that lists the requirements of a DAG file: one beside the DAG file, the
/// DAG file itself or, if neither the project nor its `settings` list any, one of the workspace. Ignores the file that
/// the settings include (`included`).
pub fn find_requirements_source(
    location: &DagLocation<'_>,
    settings: &EnvironmentSettings,
    included: Option<&Path>,
) -> Result<Option<PathBuf>, String> {
    let (read, unread) = (&mut Vec::new(), &mut Vec::new());
    let mut sources = files_beside(location, included, read)?;
    add_other_list(&folders_beside(location), location, has_list(settings), &mut sources, read, unread)?;
    if let Some(workspace) = location.workspace
        && location.project.is_some()
        && !has_list(settings)
    {
        sources.extend(files_in(&[workspace], location, None, read)?);
        add_other_list(&[workspace], location, false, &mut sources, read, unread)?;
    }
    Ok(sources.into_iter().find(lists_requirements).map(|source| source.origin.into()))
}

/// True if the settings list requirements, even an empty list.
fn has_list(settings: &EnvironmentSettings) -> bool {
    settings.dependencies.is_some() || settings.requirements.is_some()
}

fn lists_requirements(source: &Source) -> bool {
    source.declaration.requirements.as_ref().is_some_and(|all| !all.is_empty())
}

/// Adds the first of `OTHER_LISTS` in these folders, unless the settings (`is_listed`) or the sources list
/// requirements. Adds to `unread` the declarations in these folders that are not read.
fn add_other_list(
    folders: &[&Path],
    location: &DagLocation<'_>,
    is_listed: bool,
    sources: &mut Vec<Source>,
    read: &mut Vec<PathBuf>,
    unread: &mut Vec<Unread>,
) -> Result<(), String> {
    let mut is_listed = is_listed || sources.iter().any(lists_requirements);
    let mut paths = folders.iter().flat_map(|folder| OTHER_LISTS.map(|name| folder.join(name)));
    while !is_listed && let Some(path) = paths.next() {
        // Reading would fail if `requirements` is a file.
        if !path.exists() {
            read.push(path);
            continue;
        }
        let declaration = requirements_file::read_file(&path, &|name| location.variable(name), read)?;
        let source = declaration.map(|declaration| Source { origin: path.display().to_string(), declaration });
        is_listed = source.as_ref().is_some_and(lists_requirements);
        sources.extend(source);
    }
    unread.extend(unread::find(folders, is_listed));
    Ok(())
}

fn source_from_settings(
    folder: &Path,
    environment: EnvironmentSettings,
    location: &DagLocation<'_>,
    read: &mut Vec<PathBuf>,
) -> Result<Option<Source>, String> {
    let mut declaration = Declaration {
        requirements: environment.dependencies,
        python: environment.python_version,
        ..Declaration::default()
    };
    if let Some(version) = environment.airflow {
        let exact = if version.split('.').count() == 2 { format!("{version}.*") } else { version };
        declaration.additional.push(format!("apache-airflow=={exact}"));
    }
    declaration.index = Index {
        first: environment.index,
        extra: environment.extra_index,
        exclude_newer: environment.exclude_newer,
        ..Index::default()
    };
    declaration.constraints = environment.constraints;
    if let Some(name) = environment.requirements {
        let file = folder.join(name);
        let listed = requirements_file::read_file(&file, &|name| location.variable(name), read)?;
        let listed = listed.ok_or_else(|| format!("{}: no such file: {}", leoflow_yaml::FILE, file.display()))?;
        declaration.requirements.get_or_insert_default().extend(listed.requirements.into_iter().flatten());
        declaration.constraints.extend(listed.constraints);
        if let (Some(index_of_settings), Some(index_of_file)) = (&declaration.index.first, &listed.index.first)
            && index_of_settings != index_of_file
        {
            return conflict(folder.join(leoflow_yaml::FILE).display(), file.display(), "the index");
        }
        declaration.index.extend(&listed.index);
        declaration.index.first = declaration.index.first.or(listed.index.first);
    }
    let is_empty_declaration = declaration == Declaration::default();
    let origin = folder.join(leoflow_yaml::FILE).display().to_string();
    Ok((!is_empty_declaration).then_some(Source { origin, declaration }))
}

/// The folders from the DAG file's up to its project's.
fn folders_beside<'a>(location: &DagLocation<'a>) -> Vec<&'a Path> {
    let top = location.project.or_else(|| location.file.parent()).unwrap_or(Path::new("/"));
    let is_inside = |folder: &&Path| folder.starts_with(top) && *folder != Path::new("");
    location.file.ancestors().skip(1).take_while(is_inside).collect()
}

/// Reads the nearest `pyproject.toml` and the nearest `requirements.txt`, from the DAG file's folder up to its
/// project's, and the block in the DAG file; ignores the file that the settings include (`included`) and files of that
/// name above it.
fn files_beside(
    location: &DagLocation<'_>,
    included: Option<&Path>,
    read: &mut Vec<PathBuf>,
) -> Result<Vec<Source>, String> {
    let mut sources = files_in(&folders_beside(location), location, included, read)?;
    // The DAG file is not added to `read`: the server watches it anyway.
    if let Some(text) = project_text::text_of(location.file, &mut Vec::new()).ok().flatten() {
        let declaration = requirements::read_script(location.file, &text)?;
        sources
            .extend(declaration.map(|declaration| Source { origin: location.file.display().to_string(), declaration }));
    }
    Ok(sources)
}

/// Reads the first `pyproject.toml` and the first `requirements.txt` in these folders.
fn files_in(
    folders: &[&Path],
    location: &DagLocation<'_>,
    included: Option<&Path>,
    read: &mut Vec<PathBuf>,
) -> Result<Vec<Source>, String> {
    let lookup: Lookup<'_> = &|name| location.variable(name);
    let mut sources = Vec::new();
    for name in ["pyproject.toml", "requirements.txt"] {
        for folder in folders {
            let path = folder.join(name);
            if included == Some(path.as_path()) {
                break;
            }
            let declaration = match name {
                "pyproject.toml" => requirements::read_pyproject(&path, read)?,
                _ => requirements_file::read_file(&path, lookup, read)?,
            };
            if let Some(declaration) = declaration {
                sources.push(Source { origin: path.display().to_string(), declaration });
                break;
            }
        }
    }
    Ok(sources)
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
        ) -> Result<Option<Declared>, String> {
            self.collect_with_unread(settings, workspace_settings).map(|(declared, _)| declared)
        }

        fn collect_with_unread(
            &self,
            settings: Option<&Value>,
            workspace_settings: Option<&Value>,
        ) -> Result<(Option<Declared>, Vec<Unread>), String> {
            let environment = |settings: &Value| leoflow_yaml::take_environment(&mut settings.clone());
            let root = self.0.path();
            let location = DagLocation {
                workspace: Some(root),
                project: Some(&root.join("p")),
                file: &root.join("p/dags/dag.py"),
                folders: &[root.join("p"), root.to_owned()],
            };
            let mut unread = Vec::new();
            let declared = collect_declared(
                &location,
                settings.map(environment),
                |_| Ok(workspace_settings.map(environment)),
                &mut Vec::new(),
                &mut unread,
            )?;
            Ok((declared, unread))
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
        let error = folder.collect(None, Some(&json!({"dependencies": ["e"]}))).unwrap_err();
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
        let error = Folder::with(&[("p/.env", "_PIP_ADDITIONAL_REQUIREMENTS=./b\n")]).collect(None, None).unwrap_err();
        assert!(error.starts_with("_PIP_ADDITIONAL_REQUIREMENTS: "), "{error}");
    }

    #[test]
    fn unread_declarations_are_found_unless_a_list_is_read() {
        let pipfile = "[packages]\nb = '*'\n";
        let unread = |files: &[(&str, &str)], settings: Option<&Value>, workspace_settings: Option<&Value>| {
            let (_, unread) = Folder::with(files).collect_with_unread(settings, workspace_settings).unwrap();
            unread.iter().filter(|unread| unread.path.ends_with("Pipfile")).count()
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
        let error = folder.collect(Some(&json!({"dependencies": ["b"]})), None).unwrap_err();
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
        let location = DagLocation { workspace: Some(folder.path()), project: None, file: &file, folders: &[] };
        let mut settings = json!({"dependencies": ["b"], "constraints": ["a<2"], "index": "https://i.example/simple"});
        let found = collect_declared(
            &location,
            None,
            |_| Ok(Some(leoflow_yaml::take_environment(&mut settings))),
            &mut Vec::new(),
            &mut Vec::new(),
        );
        let found = found.unwrap().unwrap();
        assert_eq!((found.requirements, found.constraints), (vec!["a".to_owned()], vec!["a<2".to_owned()]));
        assert_eq!(found.index.first.as_deref(), Some("https://i.example/simple"));
    }

    #[test]
    fn names_the_file_that_lists_requirements() {
        let folder = Folder::with(&[("p/requirements.txt", "a\n")]);
        let (root, project) = (folder.0.path(), folder.0.path().join("p"));
        let location = DagLocation {
            workspace: Some(root),
            project: Some(&project),
            file: &root.join("p/dags/dag.py"),
            folders: &[],
        };
        let source = |included: Option<&Path>| {
            find_requirements_source(&location, &EnvironmentSettings::default(), included).unwrap()
        };
        assert_eq!(source(None), Some(project.join("requirements.txt")));
        assert_eq!(source(Some(&project.join("requirements.txt"))), None);
        std::fs::write(root.join("requirements.txt"), "b\n").unwrap();
        assert_eq!(source(Some(&project.join("requirements.txt"))), Some(root.join("requirements.txt")));
    }

    #[test]
    fn a_python_must_match_every_range() {
        let folder = Folder::with(&[("p/pyproject.toml", "[project]\nname='x'\nrequires-python='>=3.11'\n")]);
        let found = folder.collect(Some(&json!({"python_version": "3.12"})), None).unwrap().unwrap();
        assert_eq!(found.accepts_python("3.12.1"), Ok(()));
        assert_eq!(found.accepts_python("3.11.1"), Err("3.12".to_owned()));
        assert!(found.requirements.is_empty());
    }

    #[test]
    fn a_conflict_of_indexes_names_both_sources() {
        let folder = Folder::with(&[("p/requirements.txt", "--index-url https://a.example/simple\na\n")]);
        let error = folder.collect(Some(&json!({"index": "https://b.example/simple"})), None).unwrap_err();
        assert!(error.contains("requirements.txt do not agree on the index"), "{error}");
        let included = json!({"index": "https://b.example/simple", "requirements": "requirements.txt"});
        let error = folder.collect(Some(&included), None).unwrap_err();
        assert!(error.contains("requirements.txt do not agree on the index"), "{error}");
    }

    #[test]
    fn a_password_in_an_address_is_refused() {
        let folder = Folder::with(&[("p/requirements.txt", "--index-url https://me:secret@i.example/simple\na\n")]);
        let error = folder.collect(None, None).unwrap_err();
        assert!(error.contains("must not contain a password") && !error.contains("secret"), "{error}");
    }
}
