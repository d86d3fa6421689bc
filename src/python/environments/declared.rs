//! What a project says about the environment of its DAGs: `leoflow.yaml`, `pyproject.toml`, `requirements.txt` beside
//! the DAG, or a block in the file itself. Two that say different things are an error that names both.

use super::project_text;
use super::python_range::PythonRange;
use super::requirements::{self, Index, Said};
use crate::config::project::{self, Wanted};
use crate::python::Python;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// What packages are wanted. Equal ones share an environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// As pip writes them, in order, each once.
    pub requirements: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<String>,
    /// Ranges that all have to hold the version of Python.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub python: Vec<String>,
    #[serde(default)]
    pub index: Index,
}

impl Declared {
    /// What it comes to with the Python of its lock: the same for all that may share one.
    pub fn inputs(&self, python: &str) -> String {
        let all = serde_json::json!([self.requirements, self.constraints, self.index, python]);
        hex::encode(&Sha256::digest(all.to_string().as_bytes())[..16])
    }

    /// The same with a Python that is there.
    pub fn inputs_with(&self, python: &Python) -> String {
        self.inputs(&self.python_of_lock(python))
    }

    /// All that may pin a file or a commit.
    pub fn pinning(&self) -> impl Iterator<Item = &String> {
        self.requirements.iter().chain(&self.constraints)
    }

    /// Whether nothing is to be installed, and the Python that was chosen for it is the plain one.
    pub fn is_plain(&self, chosen: &Python, plain: &Path) -> bool {
        self.requirements.is_empty() && chosen.path == plain
    }

    /// The version of Python that a lock is for: `3.12`, or `3.12.4` where patches are told apart.
    pub fn python_of_lock(&self, python: &Python) -> String {
        let is_exact =
            self.python.iter().filter_map(|range| range.parse::<PythonRange>().ok()).any(|range| range.is_exact());
        if is_exact { python.version.clone() } else { python.minor() }
    }

    /// Whether this version (`3.12.1`) does. The error names the range that does not hold it.
    pub fn takes_python(&self, version: &str) -> Result<(), String> {
        for range in &self.python {
            if !range.parse::<PythonRange>()?.holds(version) {
                return Err(range.clone());
            }
        }
        Ok(())
    }
}

/// Where a DAG file stands.
pub struct Place<'a> {
    pub workspace: Option<&'a Path>,
    pub project: Option<&'a Path>,
    pub file: &'a Path,
}

/// A place that says something, for messages.
struct Claim {
    by: String,
    said: Said,
}

/// Looks at what stands beside a DAG file, with what the settings of its project want; where nobody says anything, those
/// of the workspace are asked for. `None` where the plain interpreter is enough. `read` notes the files that decide it,
/// there or not. The error is for people.
pub fn look(
    place: &Place<'_>,
    wanted: Option<Wanted>,
    of_workspace: impl FnOnce(&mut Vec<PathBuf>) -> Result<Option<Wanted>, String>,
    read: &mut Vec<PathBuf>,
) -> Result<Option<Declared>, String> {
    let mut claims = Vec::new();
    let mut included = None;
    if let (Some(project), Some(wanted)) = (place.project, wanted) {
        included = wanted.requirements.as_ref().map(|name| project.join(name));
        claims.extend(of_settings(project, wanted, read)?);
    }
    claims.extend(beside(place, included.as_deref(), read)?);
    // The file itself is read when it is parsed; that it changes is known.
    if let Some(text) = project_text::text_of(place.file, &mut Vec::new()).ok().flatten() {
        let said = requirements::of_script(place.file, &text)?;
        claims.extend(said.map(|said| Claim { by: place.file.display().to_string(), said }));
    }
    let says_something = |claim: &Claim| {
        let said = &claim.said;
        said.requirements.is_some() || said.airflow.is_some() || said.python.is_some()
    };
    let is_silent = !claims.iter().any(says_something);
    if let Some(workspace) = place.workspace
        && (is_silent || place.project.is_none())
        && let Some(mut wanted) = of_workspace(read)?
    {
        if !is_silent {
            // A file outside of projects has its limits from there, and what it needs from its own block.
            (wanted.dependencies, wanted.requirements, wanted.python_version) = (None, None, None);
        }
        claims.extend(of_settings(workspace, wanted, read)?);
    }
    agreed(claims)
}

/// The place beside the settings that lists what is needed, if one does.
pub fn listed_beside(place: &Place<'_>, included: Option<&Path>) -> Result<Option<String>, String> {
    let mut claims = beside(place, included, &mut Vec::new())?;
    if let Some(text) = project_text::text_of(place.file, &mut Vec::new()).ok().flatten() {
        let said = requirements::of_script(place.file, &text)?;
        claims.extend(said.map(|said| Claim { by: place.file.display().to_string(), said }));
    }
    let lists = |claim: &Claim| claim.said.requirements.as_ref().is_some_and(|all| !all.is_empty());
    Ok(claims.into_iter().find(lists).map(|claim| claim.by))
}

fn of_settings(folder: &Path, wanted: Wanted, read: &mut Vec<PathBuf>) -> Result<Option<Claim>, String> {
    let mut said = Said { requirements: wanted.dependencies, python: wanted.python_version, ..Said::default() };
    if let Some(version) = wanted.airflow {
        let exact = if version.split('.').count() == 2 { format!("{version}.*") } else { version };
        said.airflow = Some(format!("apache-airflow=={exact}"));
    }
    said.index = Index { first: wanted.index, extra: wanted.extra_index, exclude_newer: wanted.exclude_newer };
    said.constraints = wanted.constraints;
    if let Some(name) = wanted.requirements {
        let file = folder.join(name);
        let found = requirements::of_file(&file, read)?;
        let found = found.ok_or_else(|| format!("{}: there is no file {}", project::FILE, file.display()))?;
        said.requirements.get_or_insert_default().extend(found.requirements.into_iter().flatten());
        said.constraints.extend(found.constraints);
        if let (Some(ours), Some(theirs)) = (&said.index.first, &found.index.first)
            && ours != theirs
        {
            return odds(folder.join(project::FILE).display(), file.display(), "the index");
        }
        said.index.first = said.index.first.or(found.index.first);
        said.index.extra.extend(found.index.extra);
    }
    let is_nothing = said == Said::default();
    let by = folder.join(project::FILE).display().to_string();
    Ok((!is_nothing).then_some(Claim { by, said }))
}

/// The nearest `pyproject.toml` and `requirements.txt`, from the file's folder up to its project's; not the one that the
/// settings include.
fn beside(place: &Place<'_>, included: Option<&Path>, read: &mut Vec<PathBuf>) -> Result<Vec<Claim>, String> {
    let top = place.project.or_else(|| place.file.parent()).unwrap_or(Path::new("/"));
    let is_inside = |folder: &&Path| folder.starts_with(top) && *folder != Path::new("");
    let folders: Vec<&Path> = place.file.ancestors().skip(1).take_while(is_inside).collect();
    let mut claims = Vec::new();
    for (name, reader) in [
        ("pyproject.toml", requirements::of_pyproject as fn(&Path, &mut Vec<PathBuf>) -> Result<Option<Said>, String>),
        ("requirements.txt", requirements::of_file),
    ] {
        for folder in &folders {
            let path = folder.join(name);
            if included == Some(path.as_path()) {
                break;
            }
            if let Some(said) = reader(&path, read)? {
                claims.push(Claim { by: path.display().to_string(), said });
                break;
            }
        }
    }
    Ok(claims)
}

fn odds<T>(one: impl Display, other: impl Display, what: &str) -> Result<T, String> {
    Err(format!("{one} and {other} do not agree on {what}; keep one of the two, or let both say the same"))
}

fn agreed(claims: Vec<Claim>) -> Result<Option<Declared>, String> {
    let mut declared = Declared::default();
    let mut first: Option<(&str, Vec<String>)> = None;
    let mut index: Option<(&str, &String)> = None;
    for claim in &claims {
        let by = claim.by.as_str();
        // An empty list, as tools write it into a new project, stands against nobody.
        if let Some(found) = claim.said.requirements.as_ref().filter(|found| !found.is_empty()) {
            for one in found {
                requirements::check(one).map_err(|error| format!("{by}: {error}"))?;
            }
            let found = in_order(found);
            match &first {
                Some((other, before)) if *before != found => return odds(other, by, "what is needed"),
                _ => first = Some((by, found)),
            }
        }
        if let Some(range) = &claim.said.python {
            range.parse::<PythonRange>().map_err(|error| format!("{by}: {error}"))?;
            declared.python.push(range.clone());
        }
        for url in claim.said.index.first.iter().chain(&claim.said.index.extra) {
            check_address(url).map_err(|error| format!("{by}: {error}"))?;
        }
        if let Some(url) = &claim.said.index.first {
            match index {
                Some((other, before)) if before != url => return odds(other, by, "the index"),
                _ => index = Some((by, url)),
            }
        }
        // Only settings say it, those of a project or of the workspace.
        declared.index.exclude_newer = declared.index.exclude_newer.or_else(|| claim.said.index.exclude_newer.clone());
        declared.index.extra.extend(claim.said.index.extra.iter().cloned());
        for one in &claim.said.constraints {
            requirements::check(one).map_err(|error| format!("{by}: {error}"))?;
            declared.constraints.push(one.clone());
        }
    }
    declared.index.first = index.map(|(_, url)| url.clone());
    let airflow = claims.iter().filter_map(|claim| claim.said.airflow.clone());
    declared.requirements =
        in_order(&first.into_iter().flat_map(|(_, found)| found).chain(airflow).collect::<Vec<_>>());
    declared.constraints = in_order(&declared.constraints);
    let is_wanted = !declared.requirements.is_empty() || !declared.python.is_empty();
    Ok(is_wanted.then_some(declared))
}

fn in_order(lines: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = lines.iter().map(|line| line.trim().to_owned()).collect();
    lines.sort();
    lines.dedup();
    lines
}

/// It is kept in the datastore and shown: a password does not belong there.
fn check_address(url: &str) -> Result<(), String> {
    let rest = url.split_once("://").filter(|(scheme, _)| ["http", "https", "file"].contains(scheme));
    let Some((_, rest)) = rest else { return Err(format!("{url:?} is no address of an index")) };
    let host = rest.split('/').next().unwrap_or_default();
    if host.contains('@') {
        return Err("the address of an index must not hold a password; put it into ~/.netrc".to_owned());
    }
    Ok(())
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
                std::fs::write(folder.path().join(name), text).unwrap();
            }
            Self(folder)
        }

        fn look(&self, settings: Option<&Value>, of_workspace: Option<&Value>) -> Result<Option<Declared>, String> {
            let wanted = |settings: &Value| project::take_wanted(&mut settings.clone());
            let root = self.0.path();
            let place =
                Place { workspace: Some(root), project: Some(&root.join("p")), file: &root.join("p/dags/dag.py") };
            look(&place, settings.map(wanted), |_| Ok(of_workspace.map(wanted)), &mut Vec::new())
        }
    }

    #[test]
    fn where_nothing_is_said_the_plain_interpreter_is_enough() {
        let folder = Folder::with(&[("p/dags/dag.py", ""), ("p/pyproject.toml", "[tool.x]\n")]);
        assert_eq!(folder.look(Some(&json!({"dag_id": "d"})), None).unwrap(), None);
    }

    #[test]
    fn the_nearest_file_counts_and_a_workspace_speaks_for_those_that_say_nothing() {
        let folder = Folder::with(&[("p/dags/requirements.txt", "b\na\n"), ("p/requirements.txt", "c\n")]);
        let of_workspace = json!({"dependencies": ["d"]});
        let found = folder.look(None, Some(&of_workspace)).unwrap().unwrap();
        assert_eq!(found.requirements, ["a", "b"]);
        let found = Folder::with(&[]).look(None, Some(&of_workspace)).unwrap().unwrap();
        assert_eq!(found.requirements, ["d"]);
    }

    #[test]
    fn two_that_do_not_agree_are_both_named() {
        let folder = Folder::with(&[("p/requirements.txt", "a\n")]);
        assert!(folder.look(Some(&json!({"dependencies": ["a"]})), None).is_ok());
        assert!(folder.look(Some(&json!({"requirements": "requirements.txt"})), None).is_ok());
        let both = folder.look(Some(&json!({"dependencies": ["b"], "requirements": "requirements.txt"})), None);
        assert_eq!(both.unwrap().unwrap().requirements, ["a", "b"]);
        assert!(folder.look(Some(&json!({"dependencies": []})), None).unwrap().is_some());
        let told = folder.look(Some(&json!({"dependencies": ["b"]})), None).unwrap_err();
        assert!(told.contains("p/leoflow.yaml and ") && told.contains("p/requirements.txt do not agree"), "{told}");
    }

    #[test]
    fn airflow_of_the_settings_goes_with_what_any_place_lists() {
        let script = "# /// script\n# dependencies = ['a']\n# ///\n";
        for beside in [
            ("p/requirements.txt", "a\n"),
            ("p/pyproject.toml", "[project]\nname='x'\ndependencies=['a']\n"),
            ("p/dags/dag.py", script),
        ] {
            let found = Folder::with(&[beside]).look(Some(&json!({"airflow": "3.3"})), None).unwrap().unwrap();
            assert_eq!(found.requirements, ["a", "apache-airflow==3.3.*"], "{}", beside.0);
        }
        let found = Folder::with(&[]).look(Some(&json!({"airflow": "3.3.2"})), Some(&json!({"dependencies": ["d"]})));
        assert_eq!(found.unwrap().unwrap().requirements, ["apache-airflow==3.3.2"]);
        let constrained = json!({"constraints": ["apache-airflow-core<3.4"]});
        let found = Folder::with(&[("p/dags/dag.py", script)]).look(Some(&constrained), None).unwrap().unwrap();
        assert_eq!(
            (found.requirements, found.constraints),
            (vec!["a".to_owned()], vec!["apache-airflow-core<3.4".to_owned()])
        );
    }

    #[test]
    fn a_file_outside_of_projects_has_its_limits_from_the_workspace() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dag.py");
        std::fs::write(&file, "# /// script\n# dependencies = ['a']\n# ///\n").unwrap();
        let place = Place { workspace: Some(folder.path()), project: None, file: &file };
        let mut settings = json!({"dependencies": ["b"], "constraints": ["a<2"], "index": "https://i.example/simple"});
        let found = look(&place, None, |_| Ok(Some(project::take_wanted(&mut settings))), &mut Vec::new());
        let found = found.unwrap().unwrap();
        assert_eq!((found.requirements, found.constraints), (vec!["a".to_owned()], vec!["a<2".to_owned()]));
        assert_eq!(found.index.first.as_deref(), Some("https://i.example/simple"));
    }

    #[test]
    fn the_place_that_lists_what_is_needed_is_named() {
        let folder = Folder::with(&[("p/requirements.txt", "a\n")]);
        let (root, project) = (folder.0.path(), folder.0.path().join("p"));
        let place = Place { workspace: Some(root), project: Some(&project), file: &root.join("p/dags/dag.py") };
        let listed = |included: Option<&Path>| listed_beside(&place, included).unwrap();
        assert_eq!(listed(None), Some(project.join("requirements.txt").display().to_string()));
        assert_eq!(listed(Some(&project.join("requirements.txt"))), None);
    }

    #[test]
    fn every_range_has_to_hold_the_python() {
        let folder = Folder::with(&[("p/pyproject.toml", "[project]\nname='x'\nrequires-python='>=3.11'\n")]);
        let found = folder.look(Some(&json!({"python_version": "3.12"})), None).unwrap().unwrap();
        assert_eq!(found.takes_python("3.12.1"), Ok(()));
        assert_eq!(found.takes_python("3.11.1"), Err("3.12".to_owned()));
        assert!(found.requirements.is_empty());
    }

    #[test]
    fn two_indexes_are_both_named() {
        let folder = Folder::with(&[("p/requirements.txt", "--index-url https://a.example/simple\na\n")]);
        let told = folder.look(Some(&json!({"index": "https://b.example/simple"})), None).unwrap_err();
        assert!(told.contains("requirements.txt do not agree on the index"), "{told}");
        let included = json!({"index": "https://b.example/simple", "requirements": "requirements.txt"});
        let told = folder.look(Some(&included), None).unwrap_err();
        assert!(told.contains("requirements.txt do not agree on the index"), "{told}");
    }

    #[test]
    fn a_password_in_an_address_is_refused() {
        let folder = Folder::with(&[("p/requirements.txt", "--index-url https://me:secret@i.example/simple\na\n")]);
        let told = folder.look(None, None).unwrap_err();
        assert!(told.contains("must not hold a password") && !told.contains("secret"), "{told}");
    }

    #[test]
    fn what_may_share_a_lock_has_the_same_inputs() {
        let declared =
            |requirement: &str| Declared { requirements: vec![requirement.to_owned()], ..Declared::default() };
        assert_eq!(declared("a").inputs("3.11"), declared("a").inputs("3.11"));
        assert_ne!(declared("a").inputs("3.11"), declared("b").inputs("3.11"));
        assert_ne!(declared("a").inputs("3.11"), declared("a").inputs("3.12"));
    }
}
