//! Translates dependencies of Poetry and Pipenv to requirements of pip, to list what a project needs. Locks and groups are
//! not read.

use super::project_text::text_of;
use regex::Regex;
use std::path::Path;
use std::sync::LazyLock;
use toml::{Table, Value};

static AFTER_OPERATOR: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"([<>=!~^])\s+").expect("a valid expression"));

/// The requirements of `[tool.poetry.dependencies]` in a `pyproject.toml`, or of `[packages]` in a `Pipfile`; an empty
/// list if the file has none.
pub fn requirements_of(path: &Path) -> Vec<String> {
    let text = text_of(path, &mut Vec::new()).ok().flatten().unwrap_or_default();
    let Ok(table) = toml::from_str::<Table>(text.trim_start_matches('\u{feff}')) else { return Vec::new() };
    let dependencies = match path.file_name().is_some_and(|name| name == "Pipfile") {
        true => table.get("packages"),
        false => table.get("tool").and_then(|tool| tool.get("poetry")?.get("dependencies")),
    };
    let dependencies = dependencies.and_then(Value::as_table).into_iter().flatten();
    dependencies.filter(|(name, _)| *name != "python").filter_map(|(name, value)| requirement(name, value)).collect()
}

/// One dependency; `None` for a folder, and for an optional one.
fn requirement(name: &str, value: &Value) -> Option<String> {
    let table = match value {
        Value::String(version) => return Some(format!("{name}{}", specifiers(version))),
        // One entry for each platform or Python.
        Value::Array(list) => list.last()?.as_table()?,
        value => value.as_table()?,
    };
    let text = |key: &str| table.get(key).and_then(Value::as_str);
    if table.get("optional").and_then(Value::as_bool) == Some(true) || text("path").is_some() {
        return None;
    }
    let extras = table.get("extras").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let extras = extras.collect::<Vec<_>>().join(",");
    let extras = if extras.is_empty() { extras } else { format!("[{extras}]") };
    if let Some(git) = text("git") {
        // `git@HOST:OWNER/NAME` is an address of ssh.
        let ssh = git.strip_prefix("git@").and_then(|rest| rest.split_once(':'));
        let git = ssh.map_or(git.to_owned(), |(host, path)| format!("ssh://git@{host}/{path}"));
        let reference = ["rev", "ref", "tag", "branch"].iter().find_map(|key| text(key));
        return Some(format!(
            "{name}{extras} @ git+{git}{}",
            reference.map(|name| format!("@{name}")).unwrap_or_default()
        ));
    }
    if let Some(url) = text("url") {
        return Some(format!("{name}{extras} @ {url}"));
    }
    let markers = text("markers").map(|markers| format!(" ; {markers}")).unwrap_or_default();
    Some(format!("{name}{extras}{}{markers}", specifiers(text("version").unwrap_or("*"))))
}

/// pip's form of Poetry's versions, <https://python-poetry.org/docs/dependency-specification/>.
fn specifiers(version: &str) -> String {
    let version = version.trim();
    if version == "*" || version.is_empty() || version.contains("||") {
        return String::new();
    }
    // Poetry accepts blanks between clauses and after operators.
    let version = AFTER_OPERATOR.replace_all(version, "$1").replace(' ', ",");
    let clauses = version.split(',').filter(|clause| !clause.is_empty()).map(|clause| {
        let clause = clause.trim();
        match clause.chars().next() {
            Some('^') => {
                range(&clause[1..], |parts| parts.iter().position(|part| *part > 0).unwrap_or(parts.len() - 1))
            }
            Some('~') if !clause.starts_with("~=") => range(&clause[1..], |parts| usize::from(parts.len() > 1)),
            Some(digit) if digit.is_ascii_digit() => format!("=={clause}"),
            _ => clause.to_owned(),
        }
    });
    clauses.collect::<Vec<_>>().join(",")
}

/// `>=1.2.3,<1.3` for `1.2.3` and the index 1 of the number that must not grow.
fn range(version: &str, fixed: impl Fn(&[u64]) -> usize) -> String {
    let version = version.trim();
    let parts: Vec<u64> = version.split('.').map_while(|part| part.parse().ok()).collect();
    if parts.is_empty() {
        return String::new();
    }
    let fixed = fixed(&parts);
    let next = parts[..=fixed].iter().enumerate().map(|(index, part)| part + u64::from(index == fixed));
    let next: Vec<String> = next.map(|part| part.to_string()).collect();
    format!(">={version},<{}", next.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poetrys_and_pipenvs_dependencies_are_translated() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
            requirements_of(&folder.path().join(name))
        };
        let poetry = "[tool.poetry.dependencies]\npython = '^3.10'\na = '^1.2.3'\nb = '^0.2.3'\nc = '^0.0.3'\nd = '~1.2'\n\
                      e = '1.2'\nf = '*'\ng = '>=1, <2'\nh = {version = '~=2.1', extras = ['x', 'y'], markers = \"os_name == 'a'\"}\n\
                      i = {git = 'https://h/i', tag = 'v1'}\nj = {path = '../j'}\nk = {version = '1', optional = true}\n\
                      l = [{version = '1', python = '<3.9'}, {version = '2', python = '>=3.9'}]\nm = '>=1 || 2'\nn = '>= 1 <2'\no = {git = 'git@h:x/o.git'}\n";
        assert_eq!(
            read("pyproject.toml", poetry),
            [
                "a>=1.2.3,<2",
                "b>=0.2.3,<0.3",
                "c>=0.0.3,<0.0.4",
                "d>=1.2,<1.3",
                "e==1.2",
                "f",
                "g>=1,<2",
                "h[x,y]~=2.1 ; os_name == 'a'",
                "i @ git+https://h/i@v1",
                "l==2",
                "m",
                "n>=1,<2",
                "o @ git+ssh://git@h/x/o.git"
            ]
        );
        assert_eq!(read("Pipfile", "[packages]\nsix = '*'\nx = '==1'\n[dev-packages]\ny = '*'\n"), ["six", "x==1"]);
        assert_eq!(read("Pipfile", "[packages"), Vec::<String>::new());
    }
}
