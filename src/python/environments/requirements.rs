//! What a project needs, as its files say it: `requirements.txt`, `pyproject.toml`, and the block of a script.

use super::project_text::text_of;
use super::{lock_files, pins};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files that one names, which name others.
const MOST_FILES: usize = 20;

/// Where packages are got from, beside what the machine is configured for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// In the place of the usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra: Vec<String>,
    /// What was published later does not count: a date, or a moment of RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_newer: Option<String>,
}

/// What one place says. `None` for a list that it does not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    pub requirements: Option<Vec<String>>,
    /// The requirement of Airflow that the settings make of `airflow`: it goes with those of any other place.
    pub airflow: Option<String>,
    pub constraints: Vec<String>,
    pub python: Option<String>,
    pub index: Index,
}

/// A file of requirements as pip reads it, with those that it names. `None` when it is not there.
pub fn of_file(path: &Path, read: &mut Vec<PathBuf>) -> Result<Option<Said>, String> {
    let Some(text) = text_of(path, read)? else { return Ok(None) };
    let mut said = Said::default();
    let mut lines = Lines { said: &mut said, requirements: Vec::new(), read, files: 1 };
    lines.take(path, &text, false)?;
    let requirements = lines.requirements;
    said.requirements = Some(requirements);
    Ok(Some(said))
}

struct Lines<'a> {
    said: &'a mut Said,
    requirements: Vec<String>,
    read: &'a mut Vec<PathBuf>,
    files: usize,
}

impl Lines<'_> {
    fn take(&mut self, path: &Path, text: &str, are_constraints: bool) -> Result<(), String> {
        for line in logical_lines(text) {
            let line = without_comment(&line);
            match option(line) {
                Some(("-r" | "--requirement", file)) => self.take_other(path, file, are_constraints)?,
                Some(("-c" | "--constraint", file)) => self.take_other(path, file, true)?,
                Some(("-i" | "--index-url", url)) => self.said.index.first = Some(url.to_owned()),
                Some(("--extra-index-url", url)) => self.said.index.extra.push(url.to_owned()),
                // Without its value, which may be a secret.
                Some((name, _)) => return Err(format!("{}: {name} is not supported; {WHAT_IS}", path.display())),
                None if line.is_empty() => {}
                None if are_constraints => self.said.constraints.push(line.to_owned()),
                None => self.requirements.push(line.to_owned()),
            }
        }
        Ok(())
    }

    fn take_other(&mut self, from: &Path, file: &str, are_constraints: bool) -> Result<(), String> {
        self.files += 1;
        if self.files > MOST_FILES {
            return Err(format!("{}: it names more than {MOST_FILES} files, or itself", from.display()));
        }
        let other = from.parent().unwrap_or(Path::new("/")).join(file);
        let text = text_of(&other, self.read)?;
        let text = text.ok_or_else(|| format!("{}: there is no file {}", from.display(), other.display()))?;
        self.take(&other, &text, are_constraints)
    }
}

const WHAT_IS: &str = "lines may be requirements such as `pandas>=2`, -r, -c, --index-url and --extra-index-url";

/// An option with its value, after a blank or `=`.
fn option(line: &str) -> Option<(&str, &str)> {
    let line = line.starts_with('-').then_some(line)?;
    let (name, value) = line.split_once([' ', '=', '\t']).unwrap_or((line, ""));
    Some((name, value.trim()))
}

/// A comment begins a line or follows a blank, so that `#` may stand in an address.
fn without_comment(line: &str) -> &str {
    let line = line.trim();
    if line.starts_with('#') {
        return "";
    }
    let end = [" #", "\t#"].iter().filter_map(|start| line.find(start)).min();
    end.map_or(line, |end| line[..end].trim_end())
}

/// Lines as pip joins them: a backslash at the end goes on, but not that of a comment.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in text.trim_start_matches('\u{feff}').lines() {
        let begun = line.strip_suffix('\\').filter(|line| !line.trim_start().starts_with('#'));
        let part = begun.unwrap_or(line);
        match lines.last_mut().filter(|_| goes_on) {
            Some(last) => *last = format!("{last} {part}"),
            None => lines.push(part.to_owned()),
        }
        goes_on = begun.is_some();
    }
    lines
}

/// What is wrong with one requirement, wherever it stands: the lock has to be the same everywhere, and holds no secret.
pub fn check(requirement: &str) -> Result<(), String> {
    let requirement = requirement.trim();
    let name = requirement.split([' ', '=', '@', '<', '>', '[', ';']).next().unwrap_or_default();
    if requirement.starts_with('-') {
        return Err(format!("{name} is no requirement; {WHAT_IS}"));
    }
    if requirement.starts_with(['.', '/', '~']) || requirement.contains("file:") {
        return Err(format!("{name:?}: a folder or file cannot be locked; {WHAT_IS}"));
    }
    match requirement.split_once("://") {
        Some((_, rest)) if rest.split(['/', '#']).next().unwrap_or_default().contains('@') => {
            Err(format!("{name}: its address must not hold a password or a token; put it into ~/.netrc"))
        }
        _ => pins::check(requirement),
    }
}

#[derive(Deserialize)]
struct Toml {
    project: Option<Project>,
    #[serde(flatten)]
    script: Project,
    tool: Option<Tool>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
struct Project {
    dependencies: Option<Vec<String>>,
    requires_python: Option<String>,
    #[serde(default)]
    dynamic: Vec<String>,
}

#[derive(Deserialize)]
struct Tool {
    uv: Option<BTreeMap<String, toml::Value>>,
    poetry: Option<toml::Value>,
    pdm: Option<toml::Value>,
}

/// Of `[tool.uv]`, what says nothing about which packages are installed.
const NOTHING_HERE: &[&str] = &[
    "build-backend",
    "cache-keys",
    "default-groups",
    "dev-dependencies",
    "managed",
    "package",
    "required-version",
    "workspace",
];

/// The `[project]` of a `pyproject.toml`. `None` when it is not there or has none.
pub fn of_pyproject(path: &Path, read: &mut Vec<PathBuf>) -> Result<Option<Said>, String> {
    let Some(text) = text_of(path, read)? else { return Ok(None) };
    let found = parse(&text, path)?;
    let Some(project) = found.project else { return Ok(None) };
    check_tool(found.tool, path)?;
    if project.dynamic.iter().any(|name| name == "dependencies") {
        let why = "its dependencies are `dynamic`, so only its build can say them; list them in [project]";
        return Err(format!("{}: {why}", path.display()));
    }
    let mut said = said(project);
    if said.requirements.as_ref().is_some_and(|all| !all.is_empty()) {
        said.constraints = lock_files::beside(path, read)?;
    }
    Ok(Some(said))
}

/// The block `# /// script` of a Python file, <https://peps.python.org/pep-0723/>. `None` when it has none.
pub fn of_script(path: &Path, text: &str) -> Result<Option<Said>, String> {
    let blocks = text.lines().filter(|line| line.trim_end() == SCRIPT).count();
    if blocks > 1 {
        return Err(format!("{}: it has {blocks} blocks `{SCRIPT}`, and may have one", path.display()));
    }
    let Some(block) = script_block(text) else { return Ok(None) };
    let found = parse(&block, path)?;
    check_tool(found.tool, path)?;
    Ok(Some(said(found.script)))
}

fn parse(text: &str, path: &Path) -> Result<Toml, String> {
    toml::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| format!("{}: {error}", path.display()))
}

/// What uv, Poetry or PDM would heed in a project of its own is not passed over in silence: an index decides whose code is run.
fn check_tool(tool: Option<Tool>, path: &Path) -> Result<(), String> {
    let Some(tool) = tool else { return Ok(()) };
    let of_uv = tool.uv.iter().flatten().find(|(key, _)| !NOTHING_HERE.contains(&key.as_str()));
    let unsupported = of_uv.map(|(key, _)| (key.clone(), "uv"));
    let unsupported = unsupported.or_else(|| places_in("poetry", tool.poetry.as_ref()));
    match unsupported.or_else(|| places_in("pdm", tool.pdm.as_ref())) {
        Some((key, tool)) => {
            let instead = "leoflow.yaml has `index`, `extra_index` and `constraints`; an address goes into the requirement, \
                           as in `name @ https://…`";
            Err(format!("{}: {key} of [tool.{tool}] is not supported; {instead}", path.display()))
        }
        None => Ok(()),
    }
}

/// The setting that says where a package comes from: an index, or a place of its own.
fn places_in(tool: &'static str, settings: Option<&toml::Value>) -> Option<(String, &'static str)> {
    let settings = settings?;
    if settings.get("source").is_some() {
        return Some(("source".to_owned(), tool));
    }
    let names_a_place =
        |value: &toml::Value| ["source", "git", "path", "url"].iter().any(|key| value.get(key).is_some());
    let is_placed = |value: &toml::Value| match value {
        toml::Value::Array(several) => several.iter().any(names_a_place),
        one => names_a_place(one),
    };
    let dependencies = settings.get("dependencies")?.as_table()?;
    let placed = dependencies.iter().find(|(_, value)| is_placed(value))?;
    Some((format!("the place of {}", placed.0), tool))
}

fn said(project: Project) -> Said {
    Said { requirements: project.dependencies, python: project.requires_python, ..Said::default() }
}

const SCRIPT: &str = "# /// script";

fn script_block(text: &str) -> Option<String> {
    let mut lines = text.lines().skip_while(|line| line.trim_end() != SCRIPT).skip(1);
    let mut block = String::new();
    let mut last_end = None;
    for line in lines.by_ref() {
        match line.strip_prefix('#') {
            Some(rest) if rest.is_empty() || rest.starts_with(' ') => {
                if line == "# ///" {
                    last_end = Some(block.len());
                }
                block.push_str(rest.strip_prefix(' ').unwrap_or(rest));
                block.push('\n');
            }
            _ => break,
        }
    }
    last_end.map(|end| block[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_file_of_requirements_is_read_with_those_that_it_names() {
        let folder = tempfile::tempdir().unwrap();
        file(folder.path(), "base.txt", "requests==2.32 \\\n    --hash=sha256:ab\n-c limits.txt\n");
        file(folder.path(), "limits.txt", "urllib3<3\n");
        let text = "# first, C:\\\n-r base.txt\npandas >= 2  # for frames\n--index-url=https://i.example/simple\n\n\
                    x @ https://e.example/x-1.whl#sha256=ab\n";
        let path = file(folder.path(), "requirements.txt", text);
        let mut read = Vec::new();
        let said = of_file(&path, &mut read).unwrap().unwrap();
        let wanted = ["requests==2.32      --hash=sha256:ab", "pandas >= 2", "x @ https://e.example/x-1.whl#sha256=ab"];
        assert_eq!(said.requirements.unwrap(), wanted);
        assert_eq!(said.constraints, ["urllib3<3"]);
        assert_eq!(said.index.first.as_deref(), Some("https://i.example/simple"));
        assert_eq!(read.len(), 3);
        assert_eq!(of_file(&folder.path().join("none.txt"), &mut read), Ok(None));
    }

    #[test]
    fn a_line_that_cannot_be_locked_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for (text, wanted) in [
            ("-e .\n", "-e is not supported"),
            ("--find-links https://me:secret@i.example\n", "--find-links is not supported"),
            ("-r gone.txt\n", "there is no file"),
            ("-r requirements.txt\n", "or itself"),
        ] {
            let path = file(folder.path(), "requirements.txt", text);
            let told = of_file(&path, &mut Vec::new()).unwrap_err();
            assert!(told.contains(wanted) && !told.contains("secret"), "{told}");
        }
        for (requirement, wanted) in [
            ("./mine", "cannot be locked"),
            ("mine @ file:///x.whl", "cannot be locked"),
            ("--index-url https://me:secret@i.example", "--index-url is no requirement"),
            ("mine @ git+https://secret@g.example/x", "mine: its address must not hold"),
            ("mine==1 --hash=md5:ab", "mine: a hash of \"md5\" pins no file"),
        ] {
            let told = check(requirement).unwrap_err();
            assert!(told.contains(wanted) && !told.contains("secret"), "{told}");
        }
        assert_eq!(check("mine[extra]>=1 ; python_version < '4'"), Ok(()));
        assert_eq!(check(&format!("mine @ https://e.example/mine@1.whl#sha256={}", "ab".repeat(32))), Ok(()));
    }

    #[test]
    fn pyproject_and_script_say_the_same_in_their_own_ways() {
        let folder = tempfile::tempdir().unwrap();
        let lists = "dependencies = [\"pandas\"]\nrequires-python = \">=3.11\"\n";
        let path = file(folder.path(), "pyproject.toml", &format!("[project]\nname = \"x\"\n{lists}[tool.ruff]\n"));
        let of_project = of_pyproject(&path, &mut Vec::new()).unwrap().unwrap();
        let commented: String = lists.lines().map(|line| format!("# {line}\n")).collect();
        let script = format!("\"\"\"A DAG.\"\"\"\n# /// script\n{commented}#\n# ///\nimport pandas\n");
        let of_script = of_script(&path, &script).unwrap().unwrap();
        assert_eq!(of_project, of_script);
        assert_eq!(of_project.requirements.unwrap(), ["pandas"]);
        assert_eq!(super::of_script(&path, "# /// script\n# dependencies = []\n"), Ok(None));
        assert!(super::of_script(&path, &script.repeat(2)).unwrap_err().contains("2 blocks"));
        let lock = "[[package]]\nname = \"pandas\"\nversion = \"2.0\"\nwheels = [{ hash = \"sha256:ab\" }]\n";
        file(folder.path(), "uv.lock", lock);
        let locked = of_pyproject(&path, &mut Vec::new()).unwrap().unwrap();
        assert_eq!(locked.constraints, ["pandas==2.0 --hash=sha256:ab"]);
        let tools = file(folder.path(), "pyproject.toml", "[tool.ruff]\nline-length = 120\n");
        assert_eq!(of_pyproject(&tools, &mut Vec::new()), Ok(None));
    }

    #[test]
    fn what_only_a_build_could_say_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (text, wanted) in [
            ("[project]\nname = \"x\"\ndynamic = [\"dependencies\"]\n", "`dynamic`"),
            ("[project]\nname = \"x\"\n[tool.uv.sources]\nx = { path = \"../x\" }\n", "sources of [tool.uv]"),
            ("[project]\nname = \"x\"\n[[tool.uv.index]]\nurl = \"https://i\"\n", "index of [tool.uv]"),
            ("[project]\nname = \"x\"\n[[tool.poetry.source]]\nname = \"i\"\n", "source of [tool.poetry]"),
            ("[project]\nname = \"x\"\n[[tool.pdm.source]]\nname = \"i\"\n", "source of [tool.pdm]"),
            (
                "[project]\nname = \"x\"\n[tool.poetry.dependencies]\ny = { version = \"1\", source = \"i\" }\n",
                "the place of y of [tool.poetry]",
            ),
            ("[project\n", "pyproject.toml"),
        ] {
            let path = file(folder.path(), "pyproject.toml", text);
            let told = of_pyproject(&path, &mut Vec::new()).unwrap_err();
            assert!(told.contains(wanted), "{told}");
        }
    }
}
