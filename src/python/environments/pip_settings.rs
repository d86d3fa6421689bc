//! Translates pip's configuration to settings of uv, because uv does not read pip's files and a company's mirror is
//! often configured for pip only. Source: <https://pip.pypa.io/en/stable/topics/configuration/>.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The settings of pip that have an equivalent: pip's name, uv's name, and the kind of value. Several values are
/// separated by blanks or line ends.
const EQUIVALENT: [(&str, &str, Values); 5] = [
    ("index-url", "index-url", Values::One),
    ("extra-index-url", "extra-index-url", Values::Several),
    ("trusted-host", "allow-insecure-host", Values::Several),
    ("find-links", "find-links", Values::Several),
    ("no-index", "no-index", Values::Flag),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    One,
    Several,
    Flag,
}

/// The configuration files that pip reads; the last takes precedence.
pub fn files(variable: &dyn Fn(&str) -> Option<String>, user_home: Option<&Path>) -> Vec<PathBuf> {
    let named = variable("PIP_CONFIG_FILE");
    if named.as_deref() == Some("/dev/null") {
        return Vec::new();
    }
    let systems = variable("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".to_owned());
    let mut files: Vec<PathBuf> = systems.split(':').map(|folder| Path::new(folder).join("pip/pip.conf")).collect();
    files.push("/etc/pip.conf".into());
    files.extend(user_home.map(|home| home.join(".pip/pip.conf")));
    let user = variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| user_home.map(|home| home.join(".config")));
    files.extend(user.map(|folder| folder.join("pip/pip.conf")));
    files.extend(named.map(PathBuf::from));
    files
}

/// Returns the text of a `uv.toml` with pip's settings from these files' texts and from `PIP_*` variables, which take
/// precedence.
pub fn as_uv_settings(texts: &[String], variable: &dyn Fn(&str) -> Option<String>) -> String {
    let mut settings: BTreeMap<String, String> = BTreeMap::new();
    texts.iter().for_each(|text| read(text, &mut settings));
    for (name, _, _) in EQUIVALENT {
        let value = variable(&format!("PIP_{}", name.replace('-', "_").to_uppercase()));
        settings.extend(value.map(|value| (name.to_owned(), value)));
    }
    let translated = EQUIVALENT.iter().filter_map(|(name, uv_name, values)| {
        let text = settings.get(*name)?;
        let words = || text.split_whitespace().map(|word| Value::String(word.to_owned()));
        let value = match values {
            Values::One => words().next()?,
            Values::Several => Value::Array(words().collect()),
            Values::Flag => Value::Boolean(["1", "true", "yes", "on"].contains(&text.trim().to_lowercase().as_str())),
        };
        Some(((*uv_name).to_owned(), value))
    });
    toml::to_string(&translated.collect::<Table>()).unwrap_or_default()
}

/// Reads the sections of a configuration file that apply to `pip install`.
fn read(text: &str, settings: &mut BTreeMap<String, String>) {
    let (mut applies, mut last_name) = (false, None::<String>);
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', ';']) && !line.trim().is_empty()) {
        if let Some(section) = line.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            (applies, last_name) = (["global", "install"].contains(&section), None);
        } else if line.starts_with([' ', '\t']) {
            let value = last_name.as_ref().and_then(|name| settings.get_mut(name));
            value.into_iter().for_each(|value| *value = format!("{value} {}", line.trim()));
        } else if let Some((name, value)) = line.split_once(['=', ':']).filter(|_| applies) {
            let name = name.trim().to_lowercase().replace('_', "-");
            settings.insert(name.clone(), value.trim().to_owned());
            last_name = Some(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_variables_of_pip_are_translated() {
        let system = "[global]\nindex-url = https://old/simple\ntrusted-host = a\n".to_owned();
        let user = "# mine\n[global]\nindex_url: https://i/simple\nextra-index-url =\n    https://e/simple\n    https://f/simple\n\
                    [freeze]\nno-index = true\n[install]\nfind-links = /w\n"
            .to_owned();
        let variable = |name: &str| (name == "PIP_TRUSTED_HOST").then(|| "b c:8443".to_owned());
        let translated: Table = toml::from_str(&as_uv_settings(&[system, user], &variable)).unwrap();
        let expected: Table = toml::from_str(
            "index-url = 'https://i/simple'\nextra-index-url = ['https://e/simple', 'https://f/simple']\n\
             allow-insecure-host = ['b', 'c:8443']\nfind-links = ['/w']\n",
        )
        .unwrap();
        assert_eq!(translated, expected);
        assert_eq!(as_uv_settings(&[], &|_| None), "");
    }

    #[test]
    fn lists_the_files_that_pip_reads() {
        let none = |_: &str| None;
        let home = Path::new("/h");
        let found = files(&none, Some(home));
        let expected = ["/etc/xdg/pip/pip.conf", "/etc/pip.conf", "/h/.pip/pip.conf", "/h/.config/pip/pip.conf"];
        assert_eq!(found, expected.map(PathBuf::from));
        assert_eq!(
            files(&|name| (name == "PIP_CONFIG_FILE").then(|| "/dev/null".to_owned()), Some(home)),
            [""; 0].map(PathBuf::from)
        );
    }
}
