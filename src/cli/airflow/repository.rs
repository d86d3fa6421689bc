//! Selects the files of an Airflow home or repository that DAGs need, in and beside its DAG folder.

use super::airflow_content::{DagFiles, FolderCopy};
use super::astro_settings;
use super::findings::Findings;
use leoflow_base::sys::fs::files;
use leoflow_python::{FileContext, Request, file_context};
use std::path::{Path, PathBuf};

/// Folders beside the DAG folder that DAGs import modules from or read, or that list their requirements.
const SIBLING_FOLDERS: [&str; 3] = ["include", "plugins", "requirements"];
/// Entries of a repository that are not copied: DAGs do not use them, or the import reads them by itself.
const NOT_COPIED: [&str; 9] = [
    "logs",
    "airflow.db",
    "variables.json",
    "connections.json",
    "pools.json",
    astro_settings::FILE,
    "Dockerfile",
    "packages.txt",
    "export.json",
];
/// Hidden entries of a repository that a Leoflow project uses, too.
const HIDDEN_FILES: [&str; 3] = [".env", ".airflowignore", ".python-version"];
/// Size limit of `packages.txt`, in bytes.
const PACKAGES_LIMIT: u64 = 1024 * 1024;

/// Returns the files to copy from `home` with the DAG folder `dags`. Copies a repository whole: its DAG folder is
/// `dags`, and it has no `airflow.cfg` or `export.json`. From any other home, which also has logs, databases and
/// settings, copies only the DAG folder, `SIBLING_FOLDERS` and `project_files`.
pub fn files(home: &Path, dags: &Path, findings: &mut Findings) -> DagFiles {
    report_image(home, findings);
    let is_export = home.join("export.json").exists();
    let mut project_files = project_files(home, dags, findings);
    if dags == home.join("dags") && !home.join("airflow.cfg").exists() && !is_export {
        return DagFiles::Repository(home.to_owned());
    }
    let siblings: Vec<FolderCopy> = SIBLING_FOLDERS
        .iter()
        .map(|name| FolderCopy { from: home.join(name), to: PathBuf::from(name) })
        .filter(|folder| folder.from.is_dir() && folder.from != dags && !is_export)
        .collect();
    project_files.retain(|file| !is_export || !file.ends_with(".env"));
    // Without sibling folders, the DAG folder itself becomes the project folder.
    let to = PathBuf::from(if siblings.is_empty() { "" } else { "dags" });
    if to.as_os_str().is_empty() {
        project_files.retain(|file| !dags.join(file.file_name().unwrap_or_default()).exists());
    }
    let folders = [FolderCopy { from: dags.to_owned(), to }].into_iter().chain(siblings).collect();
    DagFiles::Folders { folders, files: project_files }
}

/// True if the entry `name` of a repository's top folder is copied.
pub fn is_copied(name: &str) -> bool {
    !NOT_COPIED.contains(&name) && (!name.starts_with('.') || HIDDEN_FILES.contains(&name)) && !is_compose_file(name)
}

fn is_compose_file(name: &str) -> bool {
    (name.starts_with("docker-compose") || name.starts_with("compose."))
        && (name.ends_with(".yml") || name.ends_with(".yaml"))
}

/// Reports system packages, Compose services and a `Dockerfile`, which the import does not set up on this machine.
fn report_image(home: &Path, findings: &mut Findings) {
    let text = files::read_text(&home.join("packages.txt"), PACKAGES_LIMIT).ok().flatten().unwrap_or_default();
    let packages: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let is_export = home.join("export.json").exists();
    if !packages.is_empty() {
        findings.add(
            "packages.txt",
            format!("its system packages are not installed: {}", packages.join(", ")),
            "install them with the package manager of this machine",
        );
    }
    let entries = std::fs::read_dir(home).into_iter().flatten().flatten();
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    if let Some(name) = names.find(|name| is_compose_file(name) && !is_export) {
        findings.add(name, "its services are not started", "start them yourself if DAGs need them");
    }
    if home.join("startup_script/startup.sh").is_file() {
        findings.add("startup_script/startup.sh", "it is not run", "move its variables to the project's .env");
    }
    if home.join("Dockerfile").is_file() && !is_export {
        findings.add(
            "Dockerfile",
            "tasks run on this machine, not in an image",
            "move its ENV lines to the project's .env, and install what its RUN lines install",
        );
    }
}

/// Returns the files directly in `home` that decide about the environment of its DAGs. Reports declarations of
/// dependencies that are not read.
fn project_files(home: &Path, dags: &Path, findings: &mut Findings) -> Vec<PathBuf> {
    let folder = if dags.starts_with(home) { dags } else { home };
    let any_file = Request::new(folder.join("_.py"), None, PathBuf::new());
    let request = Request { folders: vec![home.to_owned()], project: Some(home.to_owned()), ..any_file };
    let FileContext { settings, read: mut files } = file_context(&request);
    // `leoflow validate` reports settings that are invalid.
    for unread in settings.map(|settings| settings.unread).unwrap_or_default().iter().filter(|unread| unread.is_certain)
    {
        let path = unread.path.strip_prefix(home).unwrap_or(&unread.path);
        findings.add(path.to_string_lossy(), format!("its {} is not read", unread.part), &unread.remedy);
    }
    // An invalid `pyproject.toml` is an error before this file is read.
    files.push(home.join("requirements.txt"));
    files.retain(|file| file.parent() == Some(home) && file.is_file());
    files.sort();
    files.dedup();
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_repository_is_copied_whole_and_a_home_in_part() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path();
        for name in ["dags", "include", "plugins", "logs"] {
            fs::create_dir(home.join(name)).unwrap();
        }
        for (name, text) in [
            (".env", "A=1\n"),
            ("requirements.txt", "-c limits.txt\n"),
            ("limits.txt", "six<2\n"),
            ("packages.txt", "# system\nlibpq-dev\n"),
            ("Dockerfile", "FROM x\n"),
            ("compose.yaml", ""),
        ] {
            fs::write(home.join(name), text).unwrap();
        }
        let mut findings = Findings::default();
        assert!(matches!(files(home, &home.join("dags"), &mut findings), DagFiles::Repository(_)));
        let subjects: Vec<&str> = findings.all().iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(subjects, ["packages.txt", "compose.yaml", "Dockerfile"]);
        assert!(findings.all()[0].why.ends_with(": libpq-dev"));
        fs::write(home.join("airflow.cfg"), "").unwrap();
        let DagFiles::Folders { folders, files: project_files } = files(home, &home.join("dags"), &mut findings) else {
            panic!("a home was taken for a repository");
        };
        let to: Vec<_> = folders.iter().map(|folder| folder.to.to_str().unwrap()).collect();
        assert_eq!(to, ["dags", "include", "plugins"]);
        assert_eq!(project_files, [".env", "limits.txt", "requirements.txt"].map(|name| home.join(name)));
    }

    #[test]
    fn unread_dependencies_are_reported_unless_a_list_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path();
        for name in ["dags", "requirements", "startup_script"] {
            fs::create_dir(home.join(name)).unwrap();
        }
        for (name, text) in [
            ("Pipfile", "[packages]\nsix = '*'\n"),
            ("compose.yaml", "    _PIP_ADDITIONAL_REQUIREMENTS: six\n"),
            ("startup_script/startup.sh", "export A=1\n"),
        ] {
            fs::write(home.join(name), text).unwrap();
        }
        let reported = || {
            let mut findings = Findings::default();
            files(home, &home.join("dags"), &mut findings);
            let all = findings.all().iter().map(|finding| format!("{}: {}", finding.what, finding.remedy));
            all.filter(|line| !line.starts_with("compose.yaml: start them")).collect::<Vec<_>>()
        };
        let startup = "startup_script/startup.sh: move its variables to the project's .env";
        assert_eq!(
            reported(),
            [
                startup,
                "Pipfile: run in its folder: pipenv requirements > requirements.txt",
                "compose.yaml: write it into .env: _PIP_ADDITIONAL_REQUIREMENTS=PACKAGE",
            ]
        );
        fs::write(home.join("requirements/requirements.txt"), "six\n").unwrap();
        assert_eq!(reported(), [startup]);
    }

    #[test]
    fn secrets_and_settings_of_other_tools_are_not_copied() {
        for (name, expected) in [
            ("dags", true),
            ("include", true),
            (".env", true),
            ("requirements.txt", true),
            ("dbt", true),
            (".git", false),
            (".astro", false),
            ("connections.json", false),
            ("airflow_settings.yaml", false),
            ("logs", false),
            ("docker-compose.override.yml", false),
        ] {
            assert_eq!(is_copied(name), expected, "{name}");
        }
    }
}
