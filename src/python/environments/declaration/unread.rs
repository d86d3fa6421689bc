//! Finds declarations of dependencies that are not read, because only another tool can resolve or build them.

use super::project_text::text_of;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::Table;

/// The variable in which Airflow's compose file takes packages to install at the start; read from `.env`.
pub(super) const ADDITIONAL: &str = "_PIP_ADDITIONAL_REQUIREMENTS";
/// Names of the files that may contain such a declaration, separated by blanks.
const FILES: &str = "pyproject.toml Pipfile environment.yml environment.yaml setup.cfg setup.py docker-compose.yml \
                     docker-compose.yaml docker-compose.override.yml compose.yml compose.yaml";
/// Group for development, which DAGs rarely need.
const DEV: &str = "dev";

/// A declaration that is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    pub path: PathBuf,
    /// The part of the file that is not read.
    pub part: &'static str,
    /// What makes the declaration readable.
    pub remedy: String,
    /// True if DAGs probably need the declaration, also when their import succeeds.
    pub is_certain: bool,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: its {} is not read; {}", self.path.display(), self.part, self.remedy)
    }
}

/// Finds the declarations in these folders; beside a list that is read (`is_listed`), only groups and extras. Ignores
/// files that cannot be read.
pub(super) fn find(folders: &[&Path], is_listed: bool) -> Vec<Unread> {
    let mut found = Vec::new();
    for folder in folders {
        for path in FILES.split(' ').map(|name| folder.join(name)) {
            let text = text_of(&path, &mut Vec::new()).ok().flatten();
            found.extend(text.and_then(|text| unread_in(path, &text, is_listed)));
        }
        if !is_listed && let Some(name) = list_in(&folder.join("requirements")) {
            let remedy = format!("name it in the project's leoflow.yaml: `requirements: requirements/{name}`");
            let path = folder.join("requirements").join(name);
            found.push(Unread { path, part: "list", remedy, is_certain: true });
        }
    }
    found
}

fn unread_in(path: PathBuf, text: &str, is_listed: bool) -> Option<Unread> {
    let name = path.file_name()?.to_str()?;
    let convert = |command: &str| format!("run in its folder: {command} requirements.txt");
    let mut is_certain = !is_listed;
    let (part, remedy) = match name {
        "pyproject.toml" if are_poetrys(text) && !is_listed => {
            ("[tool.poetry.dependencies]", convert("poetry export --without-hashes -o"))
        }
        "pyproject.toml" => {
            let (part, option, group) = optional(&table(text)?)?;
            is_certain &= group != DEV;
            let listed = "add what the DAGs need to the list that is read".to_owned();
            (part, if is_listed { listed } else { convert(&format!("uv pip compile {option} {group} -o")) })
        }
        _ if is_listed => return None,
        "Pipfile" if !table(text)?.get("packages")?.as_table()?.is_empty() => {
            ("[packages]", convert("pipenv requirements >"))
        }
        "setup.cfg" | "setup.py" if text.contains("install_requires") => {
            ("`install_requires`", convert(&format!("uv pip compile {name} -o")))
        }
        "environment.yml" | "environment.yaml" if text.lines().any(|line| line.starts_with("dependencies:")) => {
            ("`dependencies`", "add what the DAGs need: leoflow add PACKAGE".to_owned())
        }
        _ if name.contains("compose") && text.lines().any(sets_additional) => {
            (ADDITIONAL, format!("write it into .env: {ADDITIONAL}=PACKAGE"))
        }
        _ => return None,
    };
    Some(Unread { path, part, remedy, is_certain })
}

/// The first dependency group or extra in a `pyproject.toml`, if possible not `DEV`: its table, uv's option and its
/// name.
fn optional(pyproject: &Table) -> Option<(&'static str, &'static str, String)> {
    let groups = pyproject.get("dependency-groups").map(|groups| ("[dependency-groups]", "--group", groups));
    let extras = pyproject.get("project").and_then(|project| project.get("optional-dependencies"));
    let extras = extras.map(|extras| ("[project.optional-dependencies]", "pyproject.toml --extra", extras));
    let tables = groups.into_iter().chain(extras);
    let named = tables.flat_map(|(part, option, table)| {
        table.as_table().into_iter().flat_map(Table::keys).map(move |name| (part, option, name.clone()))
    });
    named.min_by_key(|(_, _, name)| name == DEV)
}

fn table(text: &str) -> Option<Table> {
    toml::from_str(text.trim_start_matches('\u{feff}')).ok()
}

/// True if the dependencies in the text of a `pyproject.toml` are Poetry's: `[project]` lists none.
pub(super) fn are_poetrys(text: &str) -> bool {
    let Some(table) = table(text) else { return false };
    let poetry = table.get("tool").and_then(|tool| tool.get("poetry")?.get("dependencies")?.as_table());
    let is_listed = table.get("project").is_some_and(|project| project.get("dependencies").is_some());
    !is_listed && poetry.is_some_and(|dependencies| dependencies.keys().any(|name| name != "python"))
}

/// True for a line of a compose file that gives `ADDITIONAL` a value, also as the default in
/// `${_PIP_ADDITIONAL_REQUIREMENTS:-…}`.
fn sets_additional(line: &str) -> bool {
    let marks = [' ', ':', '=', '-', '"', '\'', '$', '{', '}'];
    let Some(value) = line.trim_start_matches([' ', '-', '"', '\'']).strip_prefix(ADDITIONAL) else { return false };
    let value = value.split(" #").next().unwrap_or_default().trim_matches(marks);
    !value.strip_prefix(ADDITIONAL).unwrap_or(value).trim_matches(marks).is_empty()
}

/// The name of the first list in a folder that is not read without a setting.
fn list_in(folder: &Path) -> Option<String> {
    let names = std::fs::read_dir(folder).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name != "requirements.txt" && (name.ends_with(".txt") || name.ends_with(".in"))).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)], is_listed: bool) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let prefix = format!("{}/", folder.path().display());
        let all = find(&[folder.path()], is_listed);
        all.iter().map(|unread| unread.to_string().strip_prefix(&prefix).unwrap().to_owned()).collect()
    }

    #[test]
    fn each_format_is_named_with_its_remedy() {
        for (name, text, expected) in [
            (
                "pyproject.toml",
                "[tool.poetry.dependencies]\npython = '^3.11'\nx = '1'\n",
                "pyproject.toml: its [tool.poetry.dependencies] is not read; run in its folder: poetry export \
                 --without-hashes -o requirements.txt",
            ),
            (
                "pyproject.toml",
                "[project]\nname = 'x'\ndynamic = ['dependencies']\n[tool.poetry.dependencies]\nx = '1'\n",
                "poetry export",
            ),
            (
                "pyproject.toml",
                "[dependency-groups]\ndev = ['pytest']\nflows = ['x']\n",
                "its [dependency-groups] is not read; run in its folder: uv pip compile --group flows -o requirements.txt",
            ),
            ("pyproject.toml", "[project]\nname = 'x'\n[project.optional-dependencies]\nf = ['x']\n", "--extra f -o"),
            ("Pipfile", "[packages]\nx = '*'\n", "pipenv requirements > requirements.txt"),
            ("environment.yml", "name: x\ndependencies:\n  - x\n", "leoflow add PACKAGE"),
            ("setup.py", "setup(install_requires=['x'])\n", "uv pip compile setup.py -o requirements.txt"),
            ("setup.cfg", "[options]\ninstall_requires =\n    x\n", "uv pip compile setup.cfg -o requirements.txt"),
            (
                "compose.yaml",
                "  - _PIP_ADDITIONAL_REQUIREMENTS=x\n",
                "write it into .env: _PIP_ADDITIONAL_REQUIREMENTS=",
            ),
            (
                "requirements/base.txt",
                "x\n",
                "requirements/base.txt: its list is not read; name it in the project's leoflow.yaml: \
                 `requirements: requirements/base.txt`",
            ),
        ] {
            let found = found(&[(name, text)], false);
            assert!(matches!(&found[..], [one] if one.contains(expected)), "{name}: {found:?}");
        }
    }

    #[test]
    fn files_without_dependencies_are_not_named() {
        for (name, text) in [
            ("pyproject.toml", "[tool.poetry.dependencies]\npython = '^3.11'\n[tool.ruff]\n"),
            ("pyproject.toml", "[project]\nname = 'x'\ndependencies = ['x']\n[tool.poetry.dependencies]\nx = '1'\n"),
            ("pyproject.toml", "[project\n"),
            ("Pipfile", "[packages]\n[dev-packages]\npytest = '*'\n"),
            ("environment.yml", "name: x\n"),
            ("setup.cfg", "[flake8]\n"),
            ("setup.py", "setup()\n"),
            ("docker-compose.yml", "    _PIP_ADDITIONAL_REQUIREMENTS: ${_PIP_ADDITIONAL_REQUIREMENTS:-}\n"),
            ("requirements", "x\n"),
        ] {
            assert_eq!(found(&[(name, text)], false), [""; 0], "{name}: {text}");
        }
    }

    #[test]
    fn only_optional_ones_remain_unread_beside_a_list() {
        let files = [("Pipfile", "[packages]\nx = '*'\n"), ("pyproject.toml", "[dependency-groups]\nf = ['x']\n")];
        let found = found(&files, true);
        assert!(
            matches!(&found[..], [one] if one.ends_with("add what the DAGs need to the list that is read")),
            "{found:?}"
        );
        for (group, is_listed, is_certain) in [("f", false, true), (DEV, false, false), ("f", true, false)] {
            let unread =
                unread_in("pyproject.toml".into(), &format!("[dependency-groups]\n{group} = ['x']\n"), is_listed)
                    .unwrap();
            assert_eq!(unread.is_certain, is_certain, "{group} {is_listed}");
        }
    }

    #[test]
    fn a_default_in_a_compose_file_counts() {
        for (line, expected) in [
            ("_PIP_ADDITIONAL_REQUIREMENTS: ${_PIP_ADDITIONAL_REQUIREMENTS:-}", false),
            ("_PIP_ADDITIONAL_REQUIREMENTS: ${_PIP_ADDITIONAL_REQUIREMENTS:- x y}", true),
            ("_PIP_ADDITIONAL_REQUIREMENTS: 'x' # why", true),
            ("_PIP_ADDITIONAL_REQUIREMENTS: \"\"", false),
            ("- _PIP_ADDITIONAL_REQUIREMENTS=x", true),
            ("# _PIP_ADDITIONAL_REQUIREMENTS: x", false),
        ] {
            assert_eq!(sets_additional(&format!("    {line}")), expected, "{line}");
        }
    }
}
