//! Reads a requirements file like pip, with the files that it includes.

use super::addresses::{include_line, is_web, join};
pub use super::pip_lines::decode;
use super::pip_lines::{self, Line};
use super::project_text::bytes_of;
use super::requirements::Declaration;
use super::variables;
use std::path::{Path, PathBuf};

/// Maximum number of local files that one requirements file reads, itself and included ones, and of files at addresses
/// that one declaration includes.
pub const MAX_FILES: usize = 20;

/// Returns the value of a variable of the project, if it is set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Whether the lines of a file are requirements or constraints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Requirements,
    Constraints,
}

/// Reads a requirements file and the local files that it includes; `None` if it does not exist. Adds the paths of all
/// these files to `read`, existing or not. The error is a message for the user.
pub fn read_file(path: &Path, lookup: Lookup<'_>, read: &mut Vec<PathBuf>) -> Result<Option<Declaration>, String> {
    let Some(text) = text_of(path, read)? else { return Ok(None) };
    let mut reader =
        FileReader { declaration: Declaration::default(), requirements: Vec::new(), lookup, read, files: 1 };
    reader.read_text(path, &text, Role::Requirements)?;
    Ok(Some(Declaration { requirements: Some(reader.requirements), ..reader.declaration }))
}

fn text_of(path: &Path, read: &mut Vec<PathBuf>) -> Result<Option<String>, String> {
    let Some(bytes) = bytes_of(path, read)? else { return Ok(None) };
    pip_lines::decode(bytes).map(Some).map_err(|reason| format!("{}: {reason}", path.display()))
}

struct FileReader<'a> {
    declaration: Declaration,
    requirements: Vec<String>,
    lookup: Lookup<'a>,
    /// Paths of the files that were read or are missing.
    read: &'a mut Vec<PathBuf>,
    /// Number of files read so far.
    files: usize,
}

impl FileReader<'_> {
    /// Reads the lines of a file. The error names the file.
    fn read_text(&mut self, path: &Path, text: &str, role: Role) -> Result<(), String> {
        let named = |reason: String| format!("{}: {reason}", path.display());
        for line in pip_lines::lines(text).map_err(named)? {
            match (line, role) {
                (Line::Options(options), _) => {
                    for (name, value) in options {
                        self.take_option(path, name, value, role)?;
                    }
                }
                (Line::Requirement(line), Role::Requirements) => self.requirements.push(line),
                (Line::Requirement(line), Role::Constraints) => self.declaration.constraints.push(line),
            }
        }
        Ok(())
    }

    fn take_option(&mut self, path: &Path, name: &str, value: String, role: Role) -> Result<(), String> {
        let named = |reason: String| format!("{}: {reason}", path.display());
        let index = &mut self.declaration.index;
        match name {
            "--requirement" => return self.include(path, &value, role),
            "--constraint" => return self.include(path, &value, Role::Constraints),
            "--editable" => self.requirements.push(from_editable(&value).map_err(named)?),
            "--index-url" | "--pypi-url" => index.first = Some(value),
            "--extra-index-url" => index.extra.push(value),
            "--no-index" => index.no_index = true,
            "--find-links" => {
                let links = self.find_links(path, value).map_err(named)?;
                self.declaration.index.find_links.push(links);
            }
            "--no-binary" => add_packages(&mut index.no_binary, &value),
            "--only-binary" => add_packages(&mut index.only_binary, &value),
            "--require-hashes" => index.require_hashes = true,
            "--pre" => index.prereleases = true,
            "--trusted-host" => index.trusted_hosts.push(value),
            // This feature makes pip use the system's certificates; Leoflow always uses them.
            "--use-feature" if value == "truststore" => {}
            "--use-feature" => {
                return Err(named("--use-feature is about pip itself, which installs nothing here; remove it".into()));
            }
            "--prefer-binary" => {
                let instead = "write --only-binary NAME for a package that cannot be built here";
                return Err(named(format!(
                    "--prefer-binary is not supported, because uv takes no preference; {instead}"
                )));
            }
            _ => return Err(named(format!("{name} is not supported"))),
        }
        Ok(())
    }

    /// Includes a file. A file at an address is only listed here, and fetched when the packages are resolved.
    fn include(&mut self, includer: &Path, file: &str, role: Role) -> Result<(), String> {
        let named = |reason: String| format!("{}: {reason}", includer.display());
        let expanded = variables::expand(file, self.lookup);
        if is_web(file) || expanded.as_deref().is_ok_and(is_web) {
            match role {
                Role::Requirements => self.requirements.push(include_line(file)),
                Role::Constraints => self.declaration.constraints.push(file.to_owned()),
            }
            return Ok(());
        }
        self.files += 1;
        if self.files > MAX_FILES {
            return Err(named(format!("it includes more than {MAX_FILES} files, or itself")));
        }
        let included = beside(includer, &expanded.map_err(named)?);
        let text = text_of(&included, self.read)?;
        let text = text.ok_or_else(|| named(format!("no such file: {}", included.display())))?;
        self.read_text(&included, &text, role)
    }

    /// Checks the value of `--find-links`: returns an address as is, and a folder as an absolute path.
    fn find_links(&self, path: &Path, value: String) -> Result<String, String> {
        let expanded = variables::expand(&value, self.lookup)?;
        if expanded.contains("://") && !expanded.starts_with("file:") {
            return Ok(value);
        }
        let folder = beside(path, &expanded);
        if folder.exists() {
            Ok(folder.display().to_string())
        } else {
            Err(format!("no such folder: {}", folder.display()))
        }
    }
}

/// Resolves a path or `file:` address that stands in `file`: a relative path is relative to the folder of `file`.
fn beside(file: &Path, value: &str) -> PathBuf {
    let path = value.strip_prefix("file:").map_or(value, |path| path.strip_prefix("//").unwrap_or(path));
    file.parent().unwrap_or(Path::new("/")).join(path)
}

/// Adds packages of `--no-binary` or `--only-binary`: names separated by commas, or `:all:`; `:none:` empties the list.
fn add_packages(packages: &mut Vec<String>, value: &str) {
    for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if name == ":none:" { packages.clear() } else { packages.push(name.to_owned()) }
    }
}

/// Converts the value of `--editable`. An environment never changes, so a git repository is installed like any other
/// package, and a folder is refused.
fn from_editable(value: &str) -> Result<String, String> {
    if value.starts_with("git+") {
        return Ok(value.to_owned());
    }
    Err("-e of a folder is not supported, because an environment never changes; modules in the project's folder can be \
         imported without it, so remove the line"
        .to_owned())
}

/// Parses the text of a file that was fetched from an address: returns its requirements or constraints, and the
/// addresses of the files that it includes. The error is a message for the user.
pub fn read_fetched(address: &str, text: &str, role: Role) -> Result<Vec<(Role, String)>, String> {
    let mut found = Vec::new();
    for line in pip_lines::lines(text)? {
        match line {
            Line::Requirement(line) if line.contains("${") => {
                return Err(
                    "a file at an address must not name variables, because it would learn their values; save it \
                            in the project"
                        .to_owned(),
                );
            }
            Line::Requirement(line) => found.push((role, line)),
            Line::Options(options) => {
                for (name, value) in options {
                    let role = match name {
                        "--requirement" => role,
                        "--constraint" => Role::Constraints,
                        _ => {
                            return Err(format!(
                                "{name} is not supported in a file at an address; move it to the project's file"
                            ));
                        }
                    };
                    let included = join(address, &value);
                    found.push(match role {
                        Role::Requirements => (role, include_line(&included)),
                        Role::Constraints => (role, included),
                    });
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<(Declaration, usize, PathBuf), String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let mut read = Vec::new();
        let lookup = |name: &str| (name == "BASE").then(|| "base".to_owned());
        let declaration = read_file(&folder.path().join("requirements.txt"), &lookup, &mut read)?.unwrap();
        Ok((declaration, read.len(), folder.path().to_owned()))
    }

    #[test]
    fn included_files_are_read_and_addresses_kept() {
        let (declaration, files, _) = read(&[
            (
                "requirements.txt",
                "-r ${BASE}.txt\npandas\n--constraint https://e.example/c.txt\n-rhttps://e.example/r.txt\n",
            ),
            ("base.txt", "requests==2.32\n-c 'my limits.txt'\n"),
            ("my limits.txt", "urllib3<3\n"),
        ])
        .unwrap();
        assert_eq!(declaration.requirements.unwrap(), ["requests==2.32", "pandas", "-r https://e.example/r.txt"]);
        assert_eq!(declaration.constraints, ["urllib3<3", "https://e.example/c.txt"]);
        assert_eq!(files, 3);
        assert_eq!(read_file(Path::new("/no/such.txt"), &|_| None, &mut Vec::new()), Ok(None));
    }

    #[test]
    fn every_option_about_sources_is_kept() {
        let text = "-i https://i.example/simple\n--extra-index-url https://${U}:${P}@e.example/simple\n--no-index\n-f .\n\
                    --find-links https://w.example/wheels\n--no-binary a,b\n--only-binary :all:\n--require-hashes\n--pre\n\
                    --trusted-host i.example:8443\n--use-feature=truststore\n-e git+https://g.example/r.git@v1#egg=r\n";
        let (declaration, _, folder) = read(&[("requirements.txt", text)]).unwrap();
        let index = &declaration.index;
        assert_eq!(index.first.as_deref(), Some("https://i.example/simple"));
        assert_eq!(index.extra, ["https://${U}:${P}@e.example/simple"]);
        assert_eq!(index.find_links, [folder.join(".").display().to_string(), "https://w.example/wheels".to_owned()]);
        assert!(index.no_index && index.require_hashes && index.prereleases);
        assert_eq!(
            (index.no_binary.as_slice(), index.only_binary.as_slice()),
            (&["a", "b"].map(String::from)[..], &[":all:".to_owned()][..])
        );
        assert_eq!(index.trusted_hosts, ["i.example:8443"]);
        assert_eq!(declaration.requirements.unwrap(), ["git+https://g.example/r.git@v1#egg=r"]);
    }

    #[test]
    fn refuses_unsupported_options_with_a_reason() {
        for (text, expected) in [
            ("-e .\n", "an environment never changes"),
            ("--prefer-binary\n", "uv takes no preference"),
            ("--use-feature fast-deps\n", "about pip itself"),
            ("--find-links secret/none\n", "no such folder"),
            ("-r gone.txt\n", "no such file"),
            ("-r ${GONE}.txt\n", "${GONE} is not set"),
            ("-r requirements.txt\n", "or itself"),
            ("--target /x\n", "requirements.txt: --target is not an option of requirements files"),
        ] {
            let error = read(&[("requirements.txt", text)]).unwrap_err();
            assert!(error.contains(expected) && error.contains("requirements.txt"), "{error}");
        }
    }

    #[test]
    fn a_fetched_file_may_only_list_and_include() {
        let found = read_fetched("https://h/a/r.txt", "x==1\n-r more.txt\n-c c.txt\n", Role::Requirements).unwrap();
        let expected = [
            (Role::Requirements, "x==1".to_owned()),
            (Role::Requirements, "-r https://h/a/more.txt".to_owned()),
            (Role::Constraints, "https://h/a/c.txt".to_owned()),
        ];
        assert_eq!(found, expected);
        let refused = |text: &str| read_fetched("https://h/r.txt", text, Role::Requirements).unwrap_err();
        assert!(refused("-i https://evil\n").contains("--index-url is not supported in a file at an address"));
        assert!(refused("x @ https://evil/${TOKEN}\n").contains("must not name variables"));
    }
}
