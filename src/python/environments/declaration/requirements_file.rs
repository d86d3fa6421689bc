//! Reads a requirements file like pip, with the files that it includes.

use super::addresses::{include_line, is_web, join};
use super::error::{DeclarationError, LineError};
use super::pip_lines::{self, Line, decode};
use super::project_text::bytes_of;
use super::requirements::{Declaration, Role, is_ignored};
use super::variables;
use crate::environments::pins::name_of;
use std::path::{Path, PathBuf};

/// Maximum number of local files that one requirements file reads, itself and included ones, and of files at addresses
/// that one declaration includes.
pub const MAX_FILES: usize = 20;

/// Returns the value of a variable of the project, if it is set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads a requirements file and the local files that it includes; `None` if it does not exist. Adds the paths of all
/// these files to `read`, existing or not. Leaves out what is ignored; see `is_ignored`.
pub fn read_file(
    path: &Path,
    lookup: Lookup<'_>,
    ignored: &[String],
    read: &mut Vec<PathBuf>,
) -> Result<Option<Declaration>, DeclarationError> {
    let declaration = Declaration { requirements: Some(Vec::new()), ..Declaration::default() };
    let mut reader = FileReader { declaration, lookup, ignored, read, files: 1 };
    let is_found = reader.read_file(path, Role::Requirements)?;
    Ok(is_found.then_some(reader.declaration))
}

/// The lines of one file, without those of the files that it includes; `None` if it cannot be read.
pub fn lines_of(path: &Path) -> Option<Vec<Line>> {
    let bytes = bytes_of(path, &mut Vec::new()).ok()??;
    decode(bytes).and_then(|text| pip_lines::lines(&text)).ok()
}

struct FileReader<'a> {
    declaration: Declaration,
    lookup: Lookup<'a>,
    ignored: &'a [String],
    /// Paths of the files that were read or are missing.
    read: &'a mut Vec<PathBuf>,
    /// Number of files read so far.
    files: usize,
}

impl FileReader<'_> {
    /// Reads the lines of a file; `false` if it does not exist.
    fn read_file(&mut self, path: &Path, role: Role) -> Result<bool, DeclarationError> {
        let named = DeclarationError::in_origin(path.display());
        let Some(bytes) = bytes_of(path, self.read)? else { return Ok(false) };
        for line in decode(bytes).and_then(|text| pip_lines::lines(&text)).map_err(&named)? {
            match line {
                Line::Requirement(line) if is_ignored(self.ignored, &line) => {}
                Line::Requirement(line) => {
                    self.declaration.origins.insert(line.clone(), path.to_owned());
                    self.add(role, line);
                }
                Line::Options(options) => {
                    for (name, value) in options {
                        match name {
                            "--requirement" | "--constraint" | "--editable" if self.ignored.contains(&value) => {}
                            "--requirement" => self.include(path, &value, role)?,
                            "--constraint" => self.include(path, &value, Role::Constraints)?,
                            _ => self.take_option(path, name, value).map_err(&named)?,
                        }
                    }
                }
            }
        }
        Ok(true)
    }

    fn add(&mut self, role: Role, line: String) {
        match role {
            Role::Requirements => self.declaration.requirements.get_or_insert_default().push(line),
            Role::Constraints => self.declaration.constraints.push(line),
        }
    }

    fn take_option(&mut self, path: &Path, name: &'static str, value: String) -> Result<(), LineError> {
        let index = &mut self.declaration.index;
        match name {
            // An environment never changes, so a git repository is installed like any other package.
            "--editable" if value.starts_with("git+") => self.add(Role::Requirements, value),
            "--index-url" | "--pypi-url" => index.first = Some(value),
            "--extra-index-url" => index.extra.push(value),
            "--no-index" => index.no_index = true,
            "--find-links" => index.find_links.push(find_links(path, value, self.lookup)?),
            "--no-binary" => add_packages(&mut index.no_binary, &value),
            "--only-binary" => add_packages(&mut index.only_binary, &value),
            "--require-hashes" => index.require_hashes = true,
            "--pre" => index.prereleases = true,
            "--trusted-host" => index.trusted_hosts.push(value),
            // This feature makes pip use the system's certificates; Leoflow always uses them.
            "--use-feature" if value == "truststore" => {}
            // uv ignores these two.
            "--use-feature" => {
                return Err(LineError::Unsupported(
                    "--use-feature is about pip itself, which installs nothing here; remove it",
                ));
            }
            "--prefer-binary" => {
                return Err(LineError::Unsupported(
                    "--prefer-binary is not supported, because uv takes no preference; write --only-binary NAME for a \
                     package that cannot be built here",
                ));
            }
            _ => {
                return Err(LineError::Unsupported(
                    "-e of a folder is not supported, because an environment never changes; remove the line: modules in \
                     the project's folder can be imported without it, and those of another folder with its path as \
                     PYTHONPATH in the project's .env",
                ));
            }
        }
        Ok(())
    }

    /// Includes a file. A file at an address is only listed here, and fetched when the packages are resolved.
    fn include(&mut self, includer: &Path, file: &str, role: Role) -> Result<(), DeclarationError> {
        let named = DeclarationError::in_origin(includer.display());
        let expanded = variables::expand(file, self.lookup);
        if is_web(file) || expanded.as_deref().is_ok_and(is_web) {
            let address = file.to_owned();
            self.add(role, if role == Role::Requirements { include_line(&address) } else { address });
            return Ok(());
        }
        self.files += 1;
        if self.files > MAX_FILES {
            return Err(named(LineError::TooManyFiles(MAX_FILES)));
        }
        let included = beside(includer, &expanded.map_err(&named)?);
        if self.read_file(&included, role)? { Ok(()) } else { Err(named(LineError::NoFile(included))) }
    }
}

/// Checks the value of `--find-links`: returns an address as is, and a folder as an absolute path.
fn find_links(path: &Path, value: String, lookup: Lookup<'_>) -> Result<String, LineError> {
    let expanded = variables::expand(&value, lookup)?;
    if expanded.contains("://") && !expanded.starts_with("file:") {
        return Ok(value);
    }
    let folder = beside(path, &expanded);
    if folder.exists() { Ok(folder.display().to_string()) } else { Err(LineError::NoFolder(folder)) }
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

/// Parses the text of a file that was fetched from an address: returns its requirements or constraints, and the
/// addresses of the files that it includes.
pub fn read_fetched(address: &str, text: &str, role: Role) -> Result<Vec<(Role, String)>, LineError> {
    let mut found = Vec::new();
    for line in pip_lines::lines(text)? {
        match line {
            Line::Requirement(line) if line.contains("${") => return Err(LineError::VariableAtAddress),
            Line::Requirement(line) => found.push((role, line)),
            Line::Options(options) => {
                for (name, value) in options {
                    let included = join(address, &value);
                    found.push(match (name, role) {
                        ("--requirement", Role::Requirements) => (role, include_line(&included)),
                        ("--requirement" | "--constraint", _) => (Role::Constraints, included),
                        _ => return Err(LineError::OptionAtAddress(name)),
                    });
                }
            }
        }
    }
    Ok(found)
}

/// Returns the text of a file with these requirements added, as `leoflow add` does: each replaces the line for the same
/// package, or is appended.
pub fn added_to(text: &str, packages: &[String]) -> String {
    let line_end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut lines: Vec<&str> = text.lines().collect();
    for package in packages {
        // Keeps a line with hashes, in it or in its continuation lines: they belong to its version.
        let is_its_line = |line: &&str| {
            let is_requirement = line.starts_with(|c: char| c.is_alphanumeric()) && !line.trim_end().ends_with('\\');
            is_requirement && !line.contains("--hash") && name_of(line) == name_of(package)
        };
        match lines.iter().position(is_its_line) {
            Some(line) => lines[line] = package,
            None => lines.push(package),
        }
    }
    lines.iter().map(|line| format!("{line}{line_end}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<(Declaration, usize, PathBuf), DeclarationError> {
        read_without(&[], files)
    }

    fn read_without(
        ignored: &[String],
        files: &[(&str, &str)],
    ) -> Result<(Declaration, usize, PathBuf), DeclarationError> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let mut read = Vec::new();
        let lookup = |name: &str| (name == "BASE").then(|| "base".to_owned());
        let declaration = read_file(&folder.path().join("requirements.txt"), &lookup, ignored, &mut read)?.unwrap();
        Ok((declaration, read.len(), folder.path().to_owned()))
    }

    #[test]
    fn ignored_packages_files_and_addresses_are_left_out() {
        let ignored = ["Apache.Airflow", "old.txt", "./pkg", "https://e.example/c.txt"].map(str::to_owned);
        let text = "apache-airflow[s3]==2.9.2\n-r old.txt\n-e ./pkg\n-c https://e.example/c.txt\n-c https://e.example/d.txt\n\
                    six==1 --hash=sha256:ab\nx @ https://e.example/x.whl\n";
        let (declaration, ..) = read_without(&ignored, &[("requirements.txt", text)]).unwrap();
        assert_eq!(declaration.requirements.unwrap(), ["six==1 --hash=sha256:ab", "x @ https://e.example/x.whl"]);
        assert_eq!(declaration.constraints, ["https://e.example/d.txt"]);
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
        assert_eq!(read_file(Path::new("/no/such.txt"), &|_| None, &[], &mut Vec::new()).unwrap(), None);
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
            let error = read(&[("requirements.txt", text)]).unwrap_err().to_string();
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
        let refused = |text: &str| read_fetched("https://h/r.txt", text, Role::Requirements).unwrap_err().to_string();
        assert!(refused("-i https://evil\n").contains("--index-url is not supported in a file at an address"));
        assert!(refused("x @ https://evil/${TOKEN}\n").contains("must not name variables"));
    }

    fn added(text: &str, packages: &[&str]) -> String {
        added_to(text, &packages.iter().map(|package| (*package).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn packages_are_appended_or_replaced() {
        assert_eq!(added("", &["pandas"]), "pandas\n");
        assert_eq!(added("# mine\na", &["b>=2"]), "# mine\na\nb>=2\n");
        assert_eq!(added("a==1\r\nB_x<2\r\n", &["b-x>=2"]), "a==1\r\nb-x>=2\r\n");
        let pinned = "a==1 \\\n    --hash=sha256:ab\n";
        assert_eq!(added(pinned, &["a==1"]), format!("{pinned}a==1\n"));
    }
}
