//! Reads requirements from `pyproject.toml` and from the block in a script, and checks requirements from any file.

use super::addresses::{check_login, included_address, is_constraints_file};
use super::error::{DeclarationError, LineError};
use super::index::Index;
use super::project_text::text_of;
use super::{lock_files, unread};
use crate::environments::pins;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The declaration in one file or block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declaration {
    /// `None` without a list, unlike an empty list.
    pub requirements: Option<Vec<String>>,
    /// Requirements in addition to those of any other source: Airflow from the setting `airflow`, and those of
    /// `unread::ADDITIONAL`.
    pub additional: Vec<String>,
    pub constraints: Vec<String>,
    pub python: Option<String>,
    pub index: Index,
    /// The files of those lines that are in other files than the declaration itself.
    pub origins: BTreeMap<String, PathBuf>,
}

impl Declaration {
    /// Removes requirements and constraints that are ignored.
    pub fn ignore(&mut self, ignored: &[String]) {
        self.requirements.iter_mut().chain([&mut self.constraints]).for_each(|lines| {
            lines.retain(|line| !is_ignored(ignored, line));
        });
    }
}

/// True if `ignored_requirements` has a requirement's package, or the file or address of an option, as it is written.
pub fn is_ignored(ignored: &[String], text: &str) -> bool {
    let name = pins::name_of(text);
    let is_its_package = |entry: &String| !entry.contains(['/', ':']) && pins::name_of(entry) == name;
    ignored.iter().any(|entry| entry == text || (!name.is_empty() && is_its_package(entry)))
}

/// Whether a line is a requirement or a constraint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Requirements,
    Constraints,
}

impl Role {
    /// The address in a line that includes a file; `None` for a requirement or a constraint.
    pub fn included_address(self, line: &str) -> Option<&str> {
        match self {
            Self::Requirements => included_address(line),
            Self::Constraints => Some(line).filter(|line| is_constraints_file(line)),
        }
    }

    /// Checks a line: a lock must be valid on every machine and must not contain a secret. uv checks the rest.
    pub fn check(self, line: &str) -> Result<(), LineError> {
        let line = line.trim();
        match self.included_address(line) {
            Some(address) => check_login(address).map_err(LineError::about("an included file")),
            None => check(line),
        }
    }
}

/// Checks a requirement; see [`Role::check`].
pub fn check(requirement: &str) -> Result<(), LineError> {
    // For an address without a name, messages show only its scheme: the rest may be a secret.
    let name = requirement.split([' ', '=', '@', '<', '>', '[', ';']).next().unwrap_or_default();
    let name = name.split("://").next().unwrap_or_default();
    if requirement.starts_with('-') {
        return Err(LineError::OptionAsRequirement(name.to_owned()));
    }
    let specifier = requirement.split([';', ' ']).next().unwrap_or_default();
    let is_file = specifier.contains('/') || [".whl", ".tar.gz", ".zip"].iter().any(|end| specifier.ends_with(end));
    if requirement.starts_with(['.', '/', '~'])
        || requirement.contains("file:")
        || (is_file && !requirement.contains("://"))
    {
        return Err(LineError::FileOrFolder(name.to_owned()));
    }
    check_login(requirement).map_err(LineError::about(name))?;
    pins::check(requirement)
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
    "sources",
    "workspace",
];

/// Reads `[project]` of a `pyproject.toml`. `None` if the file or the table does not exist. If the dependencies are
/// Poetry's, they are not read (`unread` reports them) and may come from anywhere.
pub fn read_pyproject(path: &Path, read: &mut Vec<PathBuf>) -> Result<Option<Declaration>, DeclarationError> {
    let Some(text) = text_of(path, read)? else { return Ok(None) };
    let parsed = parse(&text, path)?;
    let Some(project) = parsed.project else { return Ok(None) };
    let is_poetrys = unread::are_poetrys(&text);
    let tool = parsed.tool.map(|tool| Tool { poetry: tool.poetry.filter(|_| !is_poetrys), ..tool });
    let sources = checked_sources(tool, path)?;
    if !is_poetrys && project.dynamic.iter().any(|name| name == "dependencies") {
        return Err(DeclarationError::Dynamic(path.to_owned()));
    }
    let mut declaration = declaration(project);
    add_sources(&mut declaration, sources.as_ref(), path)?;
    if declaration.requirements.as_ref().is_some_and(|all| !all.is_empty()) {
        declaration.constraints = lock_files::constraints_beside(path, read)?;
    }
    Ok(Some(declaration))
}

/// Reads the block `# /// script` of a Python file, <https://peps.python.org/pep-0723/>. `None` without a block.
pub fn read_script(path: &Path, text: &str) -> Result<Option<Declaration>, DeclarationError> {
    let count = text.lines().filter(|line| line.trim_end() == SCRIPT).count();
    if count > 1 {
        return Err(DeclarationError::ScriptBlocks { path: path.to_owned(), count });
    }
    let Some(block) = script_block(text) else { return Ok(None) };
    let parsed = parse(&block, path)?;
    let sources = checked_sources(parsed.tool, path)?;
    let mut declaration = declaration(parsed.script);
    add_sources(&mut declaration, sources.as_ref(), path)?;
    Ok(Some(declaration))
}

/// Writes the addresses of `[tool.uv.sources]` into the requirements. Packages that are not listed, such as those of
/// groups, do not matter; other kinds of sources, such as folders, are refused.
fn add_sources(
    declaration: &mut Declaration,
    sources: Option<&toml::Value>,
    path: &Path,
) -> Result<(), DeclarationError> {
    for requirement in declaration.requirements.iter_mut().flatten() {
        let name = pins::name_of(requirement);
        let source = sources.and_then(toml::Value::as_table).into_iter().flatten();
        let Some((key, source)) = source.into_iter().find(|(key, _)| pins::name_of(key) == name) else { continue };
        let address = address_of(source).ok_or_else(|| DeclarationError::ToolSetting {
            path: path.to_owned(),
            key: format!("the source of {key}"),
            tool: "uv",
        })?;
        let unversioned = pins::without_versions(requirement);
        let (package, marker) = unversioned.split_once(" ; ").unwrap_or((&unversioned, ""));
        let marker = if marker.is_empty() { String::new() } else { format!(" ; {marker}") };
        *requirement = format!("{package} @ {address}{marker}");
    }
    Ok(())
}

/// The address of a source in a requirement; `None` for one that has none, or only under a condition.
fn address_of(source: &toml::Value) -> Option<String> {
    let text = |key: &str| source.get(key).and_then(toml::Value::as_str);
    let is_plain = source
        .as_table()?
        .keys()
        .all(|key| ["branch", "git", "rev", "subdirectory", "tag", "url"].contains(&key.as_str()));
    let subdirectory = text("subdirectory").map(|folder| format!("#subdirectory={folder}")).unwrap_or_default();
    let reference = ["rev", "tag", "branch"].into_iter().find_map(text).map(|name| format!("@{name}"));
    match (text("git"), text("url")) {
        _ if !is_plain => None,
        (Some(git), _) => Some(format!("git+{git}{}{subdirectory}", reference.unwrap_or_default())),
        (None, Some(url)) => Some(format!("{url}{subdirectory}")),
        (None, None) => None,
    }
}

fn parse(text: &str, path: &Path) -> Result<Toml, DeclarationError> {
    toml::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|source| DeclarationError::Toml { path: path.to_owned(), source })
}

/// Refuses all settings of uv except `HARMLESS_KEYS`, and those of Poetry and PDM that decide where packages come from.
/// Ignoring them would be unsafe: an index decides whose code runs. Returns `[tool.uv.sources]`.
fn checked_sources(tool: Option<Tool>, path: &Path) -> Result<Option<toml::Value>, DeclarationError> {
    let Some(tool) = tool else { return Ok(None) };
    let uv_setting = tool.uv.iter().flatten().find(|(key, _)| !HARMLESS_KEYS.contains(&key.as_str()));
    let unsupported = uv_setting.map(|(key, _)| (key.clone(), "uv"));
    let unsupported = unsupported.or_else(|| source_setting("poetry", tool.poetry.as_ref()));
    match unsupported.or_else(|| source_setting("pdm", tool.pdm.as_ref())) {
        Some((key, tool)) => Err(DeclarationError::ToolSetting { path: path.to_owned(), key, tool }),
        None => Ok(tool.uv.and_then(|mut settings| settings.remove("sources"))),
    }
}

/// Returns the first setting of Poetry or PDM that decides where packages come from (an index, or the source of one
/// package), and the name of the tool.
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

/// Returns the block without its comment signs. The block ends at the last line `# ///` of the comment. `None` without
/// a block.
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
    fn refuses_requirements_that_cannot_be_locked() {
        for (requirement, expected) in [
            ("./mine", "cannot be locked"),
            ("mine @ file:///x.whl", "cannot be locked"),
            ("wheels/mine-1.0-py3-none-any.whl", "--find-links"),
            ("--index-url https://me:secret@i.example", "--index-url is not a requirement"),
            ("mine @ git+https://me:secret@g.example/x", "mine: its address must not contain"),
            ("git+https://ghp_secret@g.example/x", "git+https: its address must not contain"),
            ("-r https://me:secret@g.example/x", "an included file: its address must not contain"),
            ("mine==1 --hash=md5:ab", "mine: a hash of \"md5\" does not pin a file"),
        ] {
            let error = Role::Requirements.check(requirement).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        }
        for requirement in [
            "mine[extra]>=1 ; python_version < '4'",
            "mine @ git+ssh://git@g.example/o/mine.git@main",
            "git+https://${TOKEN}@g.example/o/mine.git#egg=mine",
            "-r https://e.example/base.txt",
        ] {
            assert_eq!(Role::Requirements.check(requirement), Ok(()), "{requirement}");
        }
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
        assert_eq!(read_script(&path, "# /// script\n# dependencies = []\n").unwrap(), None);
        assert!(read_script(&path, &script.repeat(2)).unwrap_err().to_string().contains("2 blocks"));
        let lock = "[[package]]\nname = \"pandas\"\nversion = \"2.0\"\nwheels = [{ hash = \"sha256:ab\" }]\n";
        file(folder.path(), "uv.lock", lock);
        let locked = read_pyproject(&path, &mut Vec::new()).unwrap().unwrap();
        assert_eq!(locked.constraints, ["pandas==2.0 --hash=sha256:ab"]);
        let tools = file(folder.path(), "pyproject.toml", "[tool.ruff]\nline-length = 120\n");
        assert_eq!(read_pyproject(&tools, &mut Vec::new()).unwrap(), None);
    }

    #[test]
    fn dependencies_of_poetry_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        for dynamic in ["", "dynamic = [\"dependencies\"]\n"] {
            let text = format!(
                "[project]\nname = \"x\"\nrequires-python = \">=3.11\"\n{dynamic}[tool.poetry.dependencies]\n\
                 y = {{ version = \"1\", source = \"i\" }}\n[[tool.poetry.source]]\nname = \"i\"\n"
            );
            let path = file(folder.path(), "pyproject.toml", &text);
            let declaration = read_pyproject(&path, &mut Vec::new()).unwrap().unwrap();
            assert_eq!((declaration.requirements, declaration.python.as_deref()), (None, Some(">=3.11")));
        }
    }

    #[test]
    fn addresses_of_uvs_sources_are_written_into_requirements() {
        let folder = tempfile::tempdir().unwrap();
        let text = "[project]\nname = \"x\"\ndependencies = [\"a-b[c]>=1; python_version<'4'\", \"d\", \"e\"]\n\
                    [tool.uv.sources]\nA_B = { git = \"https://g/a\", tag = \"v1\", subdirectory = \"s\" }\n\
                    d = { url = \"https://u/d.whl\" }\nof-a-group = { path = \"../x\" }\n";
        let path = file(folder.path(), "pyproject.toml", text);
        let declaration = read_pyproject(&path, &mut Vec::new()).unwrap().unwrap();
        let expected = ["a-b[c] @ git+https://g/a@v1#subdirectory=s ; python_version<'4'", "d @ https://u/d.whl", "e"];
        assert_eq!(declaration.requirements.unwrap(), expected);
    }

    #[test]
    fn refuses_dynamic_dependencies_and_foreign_sources() {
        let folder = tempfile::tempdir().unwrap();
        for (text, expected) in [
            ("[project]\nname = \"x\"\ndynamic = [\"dependencies\"]\n", "`dynamic`"),
            (
                "[project]\nname = \"x\"\ndependencies = [\"y\"]\n[tool.uv.sources]\ny = { path = \"../y\" }\n",
                "the source of y of [tool.uv]",
            ),
            ("[project]\nname = \"x\"\n[[tool.uv.index]]\nurl = \"https://i\"\n", "index of [tool.uv]"),
            ("[project]\nname = \"x\"\n[[tool.poetry.source]]\nname = \"i\"\n", "source of [tool.poetry]"),
            ("[project]\nname = \"x\"\n[[tool.pdm.source]]\nname = \"i\"\n", "source of [tool.pdm]"),
            (
                "[project]\nname = \"x\"\ndependencies = [\"y\"]\n[tool.poetry.dependencies]\ny = { source = \"i\" }\n",
                "the source of y of [tool.poetry]",
            ),
            ("[project\n", "pyproject.toml"),
        ] {
            let path = file(folder.path(), "pyproject.toml", text);
            let error = read_pyproject(&path, &mut Vec::new()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
