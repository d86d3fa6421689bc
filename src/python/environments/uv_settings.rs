//! Filters the user's own uv settings: keeps those about the sources of packages and the network. The others are for
//! manual installations and would break or redirect Leoflow's: `[pip] target`, `required-version`, constraints, or a
//! `pyproject.toml` in the user's home, which uv finds above its working directory.
//! Source: <https://docs.astral.sh/uv/reference/settings/>.

use super::error::UvError;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The settings that are kept, at the top level of a file and in its table `pip`.
pub(super) const APPLICABLE: &[&str] = &[
    "allow-insecure-host",
    "concurrent-downloads",
    "exclude-newer",
    "exclude-newer-package",
    "extra-index-url",
    "find-links",
    "http-proxy",
    "https-proxy",
    "index",
    "index-strategy",
    "index-url",
    "keyring-provider",
    "native-tls",
    "no-build",
    "no-build-package",
    "no-index",
    "no-proxy",
    "offline",
    "pypy-install-mirror",
    "python-downloads",
    "python-downloads-json-url",
    "python-install-mirror",
    "system-certs",
];

/// True if one of these files, or its table `pip`, names an index.
pub fn names_index(files: &[(PathBuf, String)]) -> bool {
    let names = ["index", "index-url", "extra-index-url", "no-index"];
    let has_any = |table: &Table| names.iter().any(|name| table.contains_key(*name));
    let tables = files.iter().filter_map(|(_, text)| toml::from_str::<Table>(text).ok());
    tables.into_iter().any(|table| has_any(&table) || table.get("pip").and_then(Value::as_table).is_some_and(has_any))
}

/// Merges the applicable settings of these files (path and text) into the text of a file for `--config-file`. The first
/// file takes precedence.
pub fn merge_applicable(files: &[(PathBuf, String)]) -> Result<String, UvError> {
    let mut merged = Table::new();
    for (path, text) in files {
        let mut parsed: Table =
            toml::from_str(text).map_err(|source| UvError::Settings { path: path.clone(), source })?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        if let Some(Value::Table(pip)) = parsed.remove("pip") {
            let merged_pip = merged.entry("pip").or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(merged_pip) = merged_pip {
                merge_into(merged_pip, pip, folder);
            }
        }
        merge_into(&mut merged, parsed, folder);
    }
    Ok(merged.to_string())
}

/// Adds the applicable settings of a file in `folder` to `merged`. A setting that `merged` has stays; a list is
/// extended.
fn merge_into(merged: &mut Table, settings: Table, folder: &Path) {
    for (name, value) in settings.into_iter().filter(|(name, _)| APPLICABLE.contains(&name.as_str())) {
        let value = if name == "find-links" { absolute(value, folder) } else { value };
        match (merged.get_mut(&name), value) {
            // uv concatenates the lists of its files, the first file's first.
            (Some(Value::Array(list)), Value::Array(items)) => list.extend(items),
            (Some(_), _) => {}
            (None, value) => drop(merged.insert(name, value)),
        }
    }
}

/// Makes the paths in `find-links` absolute: uv resolves them relative to the settings file, which is another one now.
fn absolute(links: Value, folder: &Path) -> Value {
    match links {
        Value::Array(links) => Value::Array(links.into_iter().map(|link| absolute(link, folder)).collect()),
        Value::String(link) if !link.contains("://") => Value::String(folder.join(link).to_string_lossy().into_owned()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_only_settings_about_package_sources() {
        let user = "required-version = '>=0.99'\nindex-url = 'https://i/simple'\nconstraint-dependencies = ['six<1']\n\
                    find-links = ['wheels', 'https://h/w', '/w']\n\
                    [[index]]\nname = 'own'\nurl = 'https://o/simple'\ndefault = true\n\
                    [pip]\ntarget = '/t'\nprefix = '/p'\nall-extras = true\nno-index = true\n";
        let system = "index-url = 'https://other/simple'\nnative-tls = true\n";
        let files = [("/c/uv/uv.toml".into(), user.to_owned()), ("/etc/uv/uv.toml".into(), system.to_owned())];
        let merged: Table = toml::from_str(&merge_applicable(&files).unwrap()).unwrap();
        let expected: Table = toml::from_str(
            "index-url = 'https://i/simple'\nfind-links = ['/c/uv/wheels', 'https://h/w', '/w']\nnative-tls = true\n\
             [[index]]\nname = 'own'\nurl = 'https://o/simple'\ndefault = true\n[pip]\nno-index = true\n",
        )
        .unwrap();
        assert_eq!(merged, expected);
        assert!(
            merge_applicable(&[("/c/uv.toml".into(), "index-url =".to_owned())])
                .unwrap_err()
                .to_string()
                .contains("/c/uv.toml")
        );
    }
}
