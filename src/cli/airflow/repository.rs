//! What belongs to the DAGs of an Airflow home or repository besides its DAG folder.

use super::airflow_content::{DagFiles, Part};
use super::astro_settings;
use super::findings::Findings;
use leoflow_base::sys::fs::files;
use std::path::{Path, PathBuf};

/// Folders that DAGs import from or read, and that a home has beside its DAG folder.
const BESIDE: [&str; 2] = ["include", "plugins"];
/// Files beside the DAG folder that a project of Leoflow has, too.
const PROJECT_FILES: [&str; 2] = ["requirements.txt", ".env"];
/// Entries of a repository that DAGs do not use. Those with secrets are imported and not copied.
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
/// Hidden entries of a repository that a project of Leoflow has, too.
const HIDDEN: [&str; 3] = [".env", ".airflowignore", ".python-version"];
/// Size limit of a list of packages, bytes.
const LIST_LIMIT: u64 = 1024 * 1024;

/// Returns the files of a home with the DAG folder `dags`. A repository, which has no `airflow.cfg`, is copied whole.
/// Otherwise only what belongs to the DAGs is: a home also has logs, databases and settings.
pub fn files(home: &Path, dags: &Path, findings: &mut Findings) -> DagFiles {
    report_image(home, findings);
    let is_export = home.join("export.json").exists();
    if dags == home.join("dags") && !home.join("airflow.cfg").exists() && !is_export {
        return DagFiles::Repository(home.to_owned());
    }
    let beside: Vec<Part> = BESIDE
        .iter()
        .map(|name| Part { from: home.join(name), to: PathBuf::from(name) })
        .filter(|part| part.from.is_dir() && part.from != dags && !is_export)
        .collect();
    let is_wanted = |name: &&str| home.join(name).is_file() && (*name != ".env" || !is_export);
    let mut project_files: Vec<PathBuf> =
        PROJECT_FILES.iter().filter(|name| is_wanted(name)).map(|name| home.join(name)).collect();
    // The DAG folder becomes the project where it is all that there is.
    let to = PathBuf::from(if beside.is_empty() { "" } else { "dags" });
    if to.as_os_str().is_empty() {
        project_files.retain(|file| !dags.join(file.file_name().unwrap_or_default()).exists());
    }
    let parts = [Part { from: dags.to_owned(), to }].into_iter().chain(beside).collect();
    DagFiles::Folders { parts, files: project_files }
}

/// True for an entry directly in a repository that is copied.
pub fn is_copied(name: &str) -> bool {
    !NOT_COPIED.contains(&name) && (!name.starts_with('.') || HIDDEN.contains(&name)) && !is_compose_file(name)
}

fn is_compose_file(name: &str) -> bool {
    (name.starts_with("docker-compose") || name.starts_with("compose."))
        && (name.ends_with(".yml") || name.ends_with(".yaml"))
}

/// Reports what an image would have that this machine may lack.
fn report_image(home: &Path, findings: &mut Findings) {
    let text = files::read_text(&home.join("packages.txt"), LIST_LIMIT).ok().flatten().unwrap_or_default();
    let packages: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let is_made_by_export = home.join("export.json").exists();
    if !packages.is_empty() {
        findings.add(
            "packages.txt",
            format!("its system packages are not installed: {}", packages.join(", ")),
            "install them with the package manager of this machine",
        );
    }
    let entries = std::fs::read_dir(home).into_iter().flatten().flatten();
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    if let Some(name) = names.find(|name| is_compose_file(name) && !is_made_by_export) {
        findings.add(name, "its services are not started", "start them yourself if DAGs need them");
    }
    if home.join("Dockerfile").is_file() && !is_made_by_export {
        findings.add(
            "Dockerfile",
            "tasks run on this machine and in no image",
            "move its ENV lines to the project's .env, and install what its RUN lines install",
        );
    }
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
            ("packages.txt", "# system\nlibpq-dev\n"),
            ("Dockerfile", "FROM x\n"),
            ("compose.yaml", ""),
        ] {
            fs::write(home.join(name), text).unwrap();
        }
        let mut findings = Findings::default();
        assert!(matches!(files(home, &home.join("dags"), &mut findings), DagFiles::Repository(_)));
        let whats: Vec<&str> = findings.all().iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(whats, ["packages.txt", "compose.yaml", "Dockerfile"]);
        assert!(findings.all()[0].why.ends_with(": libpq-dev"));
        fs::write(home.join("airflow.cfg"), "").unwrap();
        let DagFiles::Folders { parts, files: of_project } = files(home, &home.join("dags"), &mut findings) else {
            panic!("a home was taken for a repository");
        };
        let to: Vec<_> = parts.iter().map(|part| part.to.to_str().unwrap()).collect();
        assert_eq!((to, of_project), (vec!["dags", "include", "plugins"], vec![home.join(".env")]));
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
