//! What of the user's own settings of uv counts here: where packages come from and how to get there. The rest steers what a user
//! installs by hand, and would break what Leoflow has uv do, or send it elsewhere: `[pip] target`, `required-version`,
//! constraints, or a `pyproject.toml` in the user's home, which uv finds above its folder.
//! Source: <https://docs.astral.sh/uv/reference/settings/>.

use std::path::Path;
use toml::{Table, Value};

/// At the top of a file, and in its table `pip`.
pub(super) const KEPT: &[&str] = &[
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

/// The settings of these files that count, the first file's over the second's: the text of a file for `--config-file`. Each comes with its
/// text; the error is for people.
pub fn kept(files: &[(&Path, String)]) -> Result<String, String> {
    let mut all = Table::new();
    for (path, text) in files {
        let parsed: Table = toml::from_str(text).map_err(|error| format!("{}: {error}", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        for (name, value) in parsed {
            match (name.as_str(), value) {
                ("pip", Value::Table(pip)) => {
                    let kept = all.entry("pip").or_insert_with(|| Value::Table(Table::new()));
                    if let Value::Table(kept) = kept {
                        take(kept, pip, folder);
                    }
                }
                (_, value) => take(&mut all, Table::from_iter([(name, value)]), folder),
            }
        }
    }
    toml::to_string(&all).map_err(|error| error.to_string())
}

fn take(kept: &mut Table, from: Table, folder: &Path) {
    for (name, value) in from.into_iter().filter(|(name, _)| KEPT.contains(&name.as_str())) {
        let value = if name == "find-links" { absolute(value, folder) } else { value };
        match (kept.get_mut(&name), value) {
            // uv joins the lists of its files, the first file's before.
            (Some(Value::Array(all)), Value::Array(more)) => all.extend(more),
            (Some(_), _) => {}
            (None, value) => drop(kept.insert(name, value)),
        }
    }
}

/// uv reads a path as relative to the file that it stands in.
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
    fn only_where_packages_come_from_is_kept() {
        let user = "required-version = '>=0.99'\nindex-url = 'https://i/simple'\nconstraint-dependencies = ['six<1']\n\
                    find-links = ['wheels', 'https://h/w', '/w']\n\
                    [[index]]\nname = 'own'\nurl = 'https://o/simple'\ndefault = true\n\
                    [pip]\ntarget = '/t'\nprefix = '/p'\nall-extras = true\nno-index = true\n";
        let system = "index-url = 'https://other/simple'\nnative-tls = true\n";
        let files = [(Path::new("/c/uv/uv.toml"), user.to_owned()), (Path::new("/etc/uv/uv.toml"), system.to_owned())];
        let kept: Table = toml::from_str(&kept(&files).unwrap()).unwrap();
        let expected: Table = toml::from_str(
            "index-url = 'https://i/simple'\nfind-links = ['/c/uv/wheels', 'https://h/w', '/w']\nnative-tls = true\n\
             [[index]]\nname = 'own'\nurl = 'https://o/simple'\ndefault = true\n[pip]\nno-index = true\n",
        )
        .unwrap();
        assert_eq!(kept, expected);
        assert!(
            super::kept(&[(Path::new("/c/uv.toml"), "index-url =".to_owned())]).unwrap_err().contains("/c/uv.toml")
        );
    }
}
