//! Reads requirements from `requirements.txt`, `pyproject.toml`, and the block of a script.

use super::project_text::text_of;
use super::{lock_files, pins};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Maximum number of files, including those that a file includes.
const MAX_FILES: usize = 20;

/// Package indexes, in addition to the machine's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Replaces the default index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra: Vec<String>,
    /// Ignores packages published later: a date, or an RFC 3339 timestamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_newer: Option<String>,
}

/// The declaration in one file or block. `requirements` is `None` if it lists none at all, unlike an empty list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declaration {
    pub requirements: Option<Vec<String>>,
    /// The requirement of Airflow from the setting `airflow`, in addition to the requirements of any other source.
    pub airflow: Option<String>,
    pub constraints: Vec<String>,
    pub python: Option<String>,
    pub index: Index,
}

/// Reads a requirements file like pip, with the files it includes. `None` if it does not exist.
pub fn read_file(path: &Path, read: &mut Vec<PathBuf>) -> Result<Option<Declaration>, String> {
    let Some(text) = text_of(path, read)? else { return Ok(None) };
    let mut declaration = Declaration::default();
    let mut reader = FileReader { declaration: &mut declaration, requirements: Vec::new(), read, files: 1 };
    reader.read_text(path, &text, false)?;
    let requirements = reader.requirements;
    declaration.requirements = Some(requirements);
    Ok(Some(declaration))
}

/// Reads a requirements file and the files that it includes.
struct FileReader<'a> {
    declaration: &'a mut Declaration,
    requirements: Vec<String>,
    /// Paths of the files that were read or are missing.
    read: &'a mut Vec<PathBuf>,
    /// Number of files so far.
    files: usize,
}

impl FileReader<'_> {
    /// Reads the lines of a file, as requirements or as constraints.
    fn read_text(&mut self, path: &Path, text: &str, are_constraints: bool) -> Result<(), String> {
        for line in logical_lines(text) {
            let line = strip_comment(&line);
            match option(line) {
                Some(("-r" | "--requirement", file)) => self.read_included(path, file, are_constraints)?,
                Some(("-c" | "--constraint", file)) => self.read_included(path, file, true)?,
                Some(("-i" | "--index-url", url)) => self.declaration.index.first = Some(url.to_owned()),
                Some(("--extra-index-url", url)) => self.declaration.index.extra.push(url.to_owned()),
                // The value is left out: it may be a secret.
                Some((name, _)) => return Err(format!("{}: {name} is not supported; {SUPPORTED}", path.display())),
                None if line.is_empty() => {}
                None if are_constraints => self.declaration.constraints.push(line.to_owned()),
                None => self.requirements.push(line.to_owned()),
            }
        }
        Ok(())
    }

    /// Reads a file that another one includes.
    fn read_included(&mut self, includer: &Path, file: &str, are_constraints: bool) -> Result<(), String> {
        self.files += 1;
        if self.files > MAX_FILES {
            return Err(format!("{}: it includes more than {MAX_FILES} files, or itself", includer.display()));
        }
        let included = includer.parent().unwrap_or(Path::new("/")).join(file);
        let text = text_of(&included, self.read)?;
        let text = text.ok_or_else(|| format!("{}: no such file: {}", includer.display(), included.display()))?;
        self.read_text(&included, &text, are_constraints)
    }
}

const SUPPORTED: &str = "supported are requirements such as `pandas>=2`, -r, -c, --index-url and --extra-index-url";

/// Splits an option from its value, at a blank or `=`.
fn option(line: &str) -> Option<(&str, &str)> {
    let line = line.starts_with('-').then_some(line)?;
    let (name, value) = line.split_once([' ', '=', '\t']).unwrap_or((line, ""));
    Some((name, value.trim()))
}

/// Removes a comment, which starts the line or follows a blank: an address may contain `#`.
fn strip_comment(line: &str) -> &str {
    let line = line.trim();
    if line.starts_with('#') {
        return "";
    }
    let end = [" #", "\t#"].iter().filter_map(|start| line.find(start)).min();
    end.map_or(line, |end| line[..end].trim_end())
}

/// Joins lines like pip: a backslash at the end continues a line, except in a comment.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut is_continued = false;
    for line in text.trim_start_matches('\u{feff}').lines() {
        let continued = line.strip_suffix('\\').filter(|line| !line.trim_start().starts_with('#'));
        let part = continued.unwrap_or(line);
        match lines.last_mut().filter(|_| is_continued) {
            Some(last) => *last = format!("{last} {part}"),
            None => lines.push(part.to_owned()),
        }
        is_continued = continued.is_some();
    }
    lines
}

/// Checks a requirement of any source: a lock must be the same on every machine and must not contain a secret.
pub fn check(requirement: &str) -> Result<(), String> {
    let requirement = requirement.trim();
    let name = requirement.split([' ', '=', '@', '<', '>', '[', ';']).next().unwrap_or_default();
    if requirement.starts_with('-') {
        return Err(format!("{name} is not a requirement; {SUPPORTED}"));
    }
    if requirement.starts_with(['.', '/', '~']) || requirement.contains("file:") {
        return Err(format!("{name:?}: a folder or file cannot be locked; {SUPPORTED}"));
    }
    match requirement.split_once("://") {
        Some((_, address)) if address.split(['/', '#']).next().unwrap_or_default().contains('@') => {
            Err(format!("{name}: its address must not contain a password or a token; put it into ~/.netrc"))
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

/// Keys of `[tool.uv]` that do not decide which packages are installed.
const HARMLESS_KEYS: &[&str] = &[
    "build-backend",
    "cache-keys",
    "default-groups",
    "dev-dependencies",
    "managed",
    "package",
    "required-version",
    "workspace",
];

/// Reads `[project]` of a `pyproject.toml`. `None` if the file or the table does not exist.
pub fn read_pyproject(path: &Path, read: &mut Vec<PathBuf>) -> Result<Option<Declaration>, String> {
    let Some(text) = text_of(path, read)? else { return Ok(None) };
    let parsed = parse(&text, path)?;
    let Some(project) = parsed.project else { return Ok(None) };
    check_tool(parsed.tool, path)?;
    if project.dynamic.iter().any(|name| name == "dependencies") {
        let reason = "its dependencies are `dynamic`, so only a build can list them; list them in [project]";
        return Err(format!("{}: {reason}", path.display()));
    }
    let mut declaration = declaration(project);
    if declaration.requirements.as_ref().is_some_and(|all| !all.is_empty()) {
        declaration.constraints = lock_files::constraints_beside(path, read)?;
    }
    Ok(Some(declaration))
}

/// Reads the block `# /// script` of a Python file, <https://peps.python.org/pep-0723/>. `None` without a block.
pub fn read_script(path: &Path, text: &str) -> Result<Option<Declaration>, String> {
    let blocks = text.lines().filter(|line| line.trim_end() == SCRIPT).count();
    if blocks > 1 {
        return Err(format!("{}: it has {blocks} blocks `{SCRIPT}`; only one is allowed", path.display()));
    }
    let Some(block) = script_block(text) else { return Ok(None) };
    let parsed = parse(&block, path)?;
    check_tool(parsed.tool, path)?;
    Ok(Some(declaration(parsed.script)))
}

fn parse(text: &str, path: &Path) -> Result<Toml, String> {
    toml::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| format!("{}: {error}", path.display()))
}

/// Refuses settings of uv, Poetry or PDM that decide where packages come from, instead of ignoring them: an index
/// decides whose code runs.
fn check_tool(tool: Option<Tool>, path: &Path) -> Result<(), String> {
    let Some(tool) = tool else { return Ok(()) };
    let of_uv = tool.uv.iter().flatten().find(|(key, _)| !HARMLESS_KEYS.contains(&key.as_str()));
    let unsupported = of_uv.map(|(key, _)| (key.clone(), "uv"));
    let unsupported = unsupported.or_else(|| source_setting("poetry", tool.poetry.as_ref()));
    match unsupported.or_else(|| source_setting("pdm", tool.pdm.as_ref())) {
        Some((key, tool)) => {
            let instead = "leoflow.yaml has `index`, `extra_index` and `constraints`; an address goes into the requirement, \
                           as in `name @ https://…`";
            Err(format!("{}: {key} of [tool.{tool}] is not supported; {instead}", path.display()))
        }
        None => Ok(()),
    }
}

/// Returns the first setting of Poetry or PDM that decides where packages come from: an index, or a package's own
/// source; with the name of the tool.
fn source_setting(tool: &'static str, settings: Option<&toml::Value>) -> Option<(String, &'static str)> {
    let settings = settings?;
    if settings.get("source").is_some() {
        return Some(("source".to_owned(), tool));
    }
    let names_source =
        |value: &toml::Value| ["source", "git", "path", "url"].iter().any(|key| value.get(key).is_some());
    let has_own_source = |value: &toml::Value| match value {
        toml::Value::Array(several) => several.iter().any(names_source),
        single => names_source(single),
    };
    let dependencies = settings.get("dependencies")?.as_table()?;
    let own_source = dependencies.iter().find(|(_, value)| has_own_source(value))?;
    Some((format!("the source of {}", own_source.0), tool))
}

fn declaration(project: Project) -> Declaration {
    Declaration { requirements: project.dependencies, python: project.requires_python, ..Declaration::default() }
}

/// First line of the block in a script.
const SCRIPT: &str = "# /// script";

/// Returns the block without its comment signs; it ends with the last `# ///` of its comment. `None` without a block.
fn script_block(text: &str) -> Option<String> {
    let mut lines = text.lines().skip_while(|line| line.trim_end() != SCRIPT).skip(1);
    let mut block = String::new();
    let mut last_end = None;
    for line in lines.by_ref() {
        match line.strip_prefix('#') {
            Some(content) if content.is_empty() || content.starts_with(' ') => {
                if line == "# ///" {
                    last_end = Some(block.len());
                }
                block.push_str(content.strip_prefix(' ').unwrap_or(content));
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
    fn reads_a_requirements_file_with_its_includes() {
        let folder = tempfile::tempdir().unwrap();
        file(folder.path(), "base.txt", "requests==2.32 \\\n    --hash=sha256:ab\n-c limits.txt\n");
        file(folder.path(), "limits.txt", "urllib3<3\n");
        let text = "# first, C:\\\n-r base.txt\npandas >= 2  # for frames\n--index-url=https://i.example/simple\n\n\
                    x @ https://e.example/x-1.whl#sha256=ab\n";
        let path = file(folder.path(), "requirements.txt", text);
        let mut read = Vec::new();
        let declaration = read_file(&path, &mut read).unwrap().unwrap();
        let expected =
            ["requests==2.32      --hash=sha256:ab", "pandas >= 2", "x @ https://e.example/x-1.whl#sha256=ab"];
        assert_eq!(declaration.requirements.unwrap(), expected);
        assert_eq!(declaration.constraints, ["urllib3<3"]);
        assert_eq!(declaration.index.first.as_deref(), Some("https://i.example/simple"));
        assert_eq!(read.len(), 3);
        assert_eq!(read_file(&folder.path().join("none.txt"), &mut read), Ok(None));
    }

    #[test]
    fn refuses_lines_that_cannot_be_locked() {
        let folder = tempfile::tempdir().unwrap();
        for (text, expected) in [
            ("-e .\n", "-e is not supported"),
            ("--find-links https://me:secret@i.example\n", "--find-links is not supported"),
            ("-r gone.txt\n", "no such file"),
            ("-r requirements.txt\n", "or itself"),
        ] {
            let path = file(folder.path(), "requirements.txt", text);
            let error = read_file(&path, &mut Vec::new()).unwrap_err();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        }
        for (requirement, expected) in [
            ("./mine", "cannot be locked"),
            ("mine @ file:///x.whl", "cannot be locked"),
            ("--index-url https://me:secret@i.example", "--index-url is not a requirement"),
            ("mine @ git+https://secret@g.example/x", "mine: its address must not contain"),
            ("mine==1 --hash=md5:ab", "mine: a hash of \"md5\" does not pin a file"),
        ] {
            let error = check(requirement).unwrap_err();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        }
        assert_eq!(check("mine[extra]>=1 ; python_version < '4'"), Ok(()));
        assert_eq!(check(&format!("mine @ https://e.example/mine@1.whl#sha256={}", "ab".repeat(32))), Ok(()));
    }

    #[test]
    fn pyproject_and_script_have_equal_declarations() {
        let folder = tempfile::tempdir().unwrap();
        let lists = "dependencies = [\"pandas\"]\nrequires-python = \">=3.11\"\n";
        let path = file(folder.path(), "pyproject.toml", &format!("[project]\nname = \"x\"\n{lists}[tool.ruff]\n"));
        let from_project = read_pyproject(&path, &mut Vec::new()).unwrap().unwrap();
        let commented: String = lists.lines().map(|line| format!("# {line}\n")).collect();
        let script = format!("\"\"\"A DAG.\"\"\"\n# /// script\n{commented}#\n# ///\nimport pandas\n");
        let from_script = read_script(&path, &script).unwrap().unwrap();
        assert_eq!(from_project, from_script);
        assert_eq!(from_project.requirements.unwrap(), ["pandas"]);
        assert_eq!(read_script(&path, "# /// script\n# dependencies = []\n"), Ok(None));
        assert!(read_script(&path, &script.repeat(2)).unwrap_err().contains("2 blocks"));
        let lock = "[[package]]\nname = \"pandas\"\nversion = \"2.0\"\nwheels = [{ hash = \"sha256:ab\" }]\n";
        file(folder.path(), "uv.lock", lock);
        let locked = read_pyproject(&path, &mut Vec::new()).unwrap().unwrap();
        assert_eq!(locked.constraints, ["pandas==2.0 --hash=sha256:ab"]);
        let tools = file(folder.path(), "pyproject.toml", "[tool.ruff]\nline-length = 120\n");
        assert_eq!(read_pyproject(&tools, &mut Vec::new()), Ok(None));
    }

    #[test]
    fn refuses_dynamic_dependencies_and_foreign_sources() {
        let folder = tempfile::tempdir().unwrap();
        for (text, expected) in [
            ("[project]\nname = \"x\"\ndynamic = [\"dependencies\"]\n", "`dynamic`"),
            ("[project]\nname = \"x\"\n[tool.uv.sources]\nx = { path = \"../x\" }\n", "sources of [tool.uv]"),
            ("[project]\nname = \"x\"\n[[tool.uv.index]]\nurl = \"https://i\"\n", "index of [tool.uv]"),
            ("[project]\nname = \"x\"\n[[tool.poetry.source]]\nname = \"i\"\n", "source of [tool.poetry]"),
            ("[project]\nname = \"x\"\n[[tool.pdm.source]]\nname = \"i\"\n", "source of [tool.pdm]"),
            (
                "[project]\nname = \"x\"\n[tool.poetry.dependencies]\ny = { version = \"1\", source = \"i\" }\n",
                "the source of y of [tool.poetry]",
            ),
            ("[project\n", "pyproject.toml"),
        ] {
            let path = file(folder.path(), "pyproject.toml", text);
            let error = read_pyproject(&path, &mut Vec::new()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
