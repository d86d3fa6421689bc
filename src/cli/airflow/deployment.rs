//! Writes the deployment files of an export for Airflow's official image: `.dockerignore`, `Dockerfile`,
//! `compose.yaml`, `values.yaml`, `import.sh`, `README.md` and `.env`.

use super::findings::Finding;
use crate::error::Error;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use leoflow_base::sys::fs::files;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// File name, template and file mode.
const TEMPLATES: [(&str, &str, u32); 6] = [
    (".dockerignore", include_str!("templates/dockerignore"), 0o644),
    ("Dockerfile", include_str!("templates/Dockerfile"), 0o644),
    ("compose.yaml", include_str!("templates/compose.yaml"), 0o644),
    ("values.yaml", include_str!("templates/values.yaml"), 0o644),
    ("import.sh", include_str!("templates/import.sh"), 0o755),
    ("README.md", include_str!("templates/README.md"), 0o644),
];
/// Minor versions of Python 3 in the official image. For any other version the nearest of these is used.
const PYTHONS: [u32; 5] = [10, 11, 12, 13, 14];

/// The values that the templates insert. The templates use the field names.
#[derive(Debug, Serialize)]
pub struct TemplateContext<'a> {
    /// Version of Airflow.
    pub airflow: &'a str,
    /// Version of Leoflow.
    pub leoflow: &'a str,
    /// Date of the export.
    pub date: String,
    /// Such as `3.12`.
    pub python: String,
    /// Environment variables of every container, with values quoted for YAML.
    pub settings: BTreeMap<String, String>,
    /// Ids of the DAGs that are not paused, quoted for the shell.
    pub active: Vec<String>,
    /// The admin's e-mail address, quoted for the shell.
    pub email: String,
    /// Number of DAGs.
    pub dags: usize,
    /// Number of files in the DAG folder.
    pub files: usize,
    /// Number of Airflow variables, with those whose values are left out.
    pub variables: usize,
    /// Number of connections.
    pub connections: usize,
    pub pools: Vec<Pool>,
    /// `.age` for encrypted files, else empty.
    pub suffix: &'a str,
    /// True when the export contains `history.sql`.
    pub history: bool,
    pub findings: &'a [Finding],
    /// Names of the values that the export omits because they may be secret, such as `db: password`. The user fills
    /// them in by hand.
    pub to_fill: &'a [String],
}

/// The arguments of `airflow pools set`, quoted for the shell.
#[derive(Debug, Serialize)]
pub struct Pool {
    pub name: String,
    pub slots: i64,
    pub description: String,
    pub include_deferred: bool,
}

/// Writes all deployment files, and `.env` with new random keys.
pub fn write(folder: &Path, context: &TemplateContext<'_>) -> Result<(), Error> {
    let mut template_engine = Environment::new();
    template_engine.set_undefined_behavior(UndefinedBehavior::Strict);
    template_engine.set_auto_escape_callback(|_| AutoEscape::None);
    let context = Value::from(Serde(context));
    for (name, template, mode) in TEMPLATES {
        let mut text = template_engine.render_str(template, context.clone()).map_err(Error::bug)?;
        text.truncate(text.trim_end().len());
        text.push('\n');
        let path = folder.join(name);
        files::write_atomic(&path, text.as_bytes(), mode).map_err(Error::cannot("write", &path))?;
    }
    let path = folder.join(".env");
    files::write_atomic(&path, env_file()?.as_bytes(), 0o600).map_err(Error::cannot("write", &path))
}

/// Returns the content of `.env`: new random passwords and keys.
fn env_file() -> Result<String, Error> {
    let names = ["POSTGRES_PASSWORD", "ADMIN_PASSWORD", "FERNET_KEY", "JWT_SECRET", "API_SECRET_KEY"];
    let mut text = String::new();
    for name in names {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(Error::failed)?;
        // Fernet requires padded URL-safe base64. The other keys have no padding, because `=` needs escaping in a URL.
        let key = URL_SAFE.encode(bytes);
        let key = if name == "FERNET_KEY" { key.as_str() } else { key.trim_end_matches('=') };
        text.push_str(&format!("{name}={key}\n"));
    }
    Ok(text)
}

/// Returns the Python version of the official image that is nearest to `version`, which is `3.MINOR.PATCH`; `3.12` for
/// `None`.
pub fn python(version: Option<&str>) -> String {
    let minor = version.and_then(|version| version.split('.').nth(1)?.parse::<u32>().ok()).unwrap_or(12);
    let nearest = PYTHONS.into_iter().min_by_key(|known| known.abs_diff(minor)).unwrap_or(12);
    format!("3.{nearest}")
}

/// Airflow's settings as environment variables, with values quoted for YAML. `roots` are the subfolders of the DAG
/// folder that become module search paths.
pub fn settings<'a>(roots: impl Iterator<Item = &'a String>, max_map_length: u64) -> BTreeMap<String, String> {
    let path: Vec<String> = roots.map(|root| format!("/opt/airflow/dags/{root}")).collect();
    let mut settings = BTreeMap::from([
        ("AIRFLOW__CORE__LOAD_EXAMPLES".to_owned(), "False".to_owned()),
        ("AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION".to_owned(), "True".to_owned()),
        ("AIRFLOW__CORE__DAG_IGNORE_FILE_SYNTAX".to_owned(), "glob".to_owned()),
        ("AIRFLOW__CORE__MAX_MAP_LENGTH".to_owned(), max_map_length.to_string()),
    ]);
    if !path.is_empty() {
        settings.insert("PYTHONPATH".to_owned(), path.join(":"));
    }
    // A JSON string is a valid YAML string.
    let quoted = |value: String| serde_json::Value::from(value).to_string();
    settings.into_iter().map(|(name, value)| (name, quoted(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::airflow::airflow_version;
    use serde_yaml::Value;

    fn render(suffix: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let roots = ["etl".to_owned(), "it's \"$odd\"".to_owned()];
        let context = TemplateContext {
            airflow: airflow_version(),
            leoflow: "0.1.0",
            date: "2026-01-01".to_owned(),
            python: python(Some("3.12.4")),
            settings: settings(roots.iter(), 1024),
            active: vec!["'hello'".to_owned()],
            email: "'a@b'".to_owned(),
            dags: 1,
            files: 2,
            variables: 3,
            connections: 4,
            pools: vec![Pool {
                name: "'p'".into(),
                slots: 5,
                description: "'it'\\''s'".into(),
                include_deferred: true,
            }],
            suffix,
            history: true,
            findings: &[crate::airflow::findings::Finding { what: "w".into(), why: "y".into(), remedy: "r".into() }],
            to_fill: &["db: password".to_owned()],
        };
        write(folder.path(), &context).unwrap();
        folder
    }

    #[test]
    fn renders_every_deployment_file() {
        let folder = render("");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let compose: Value = serde_yaml::from_str(&read("compose.yaml")).unwrap();
        let services: Vec<&str> = compose["services"].as_mapping().unwrap().keys().filter_map(Value::as_str).collect();
        assert_eq!(services, ["postgres", "init", "api-server", "scheduler", "dag-processor", "triggerer"]);
        let path = compose["x-airflow"]["environment"]["PYTHONPATH"].as_str().unwrap();
        assert_eq!(path, "/opt/airflow/dags/etl:/opt/airflow/dags/it's \"$$odd\"");
        let values: Value = serde_yaml::from_str(&read("values.yaml")).unwrap();
        assert_eq!(values["airflowVersion"].as_str(), Some(airflow_version()));
        let path =
            values["env"].as_sequence().unwrap().iter().find(|variable| variable["name"] == "PYTHONPATH").unwrap();
        assert!(path["value"].as_str().unwrap().ends_with("it's \"$odd\""));
        assert!(read("import.sh").contains("airflow pools set 'p' 5 'it'\\''s' --include-deferred\n"));
        assert!(values["env"].as_sequence().unwrap().iter().all(|variable| variable["value"].is_string()));
        assert!(read("Dockerfile").contains("FROM apache/airflow:3.3.2-python3.12\n"));
        assert!(read("README.md").contains("**w**: y. r.\n") && read("README.md").contains("- db: password\n"));
        let checked =
            std::process::Command::new("bash").arg("-n").arg(folder.path().join("import.sh")).status().unwrap();
        assert!(checked.success());
        assert!(read("import.sh").contains("airflow dags unpause 'hello'\n"));
        assert!(render(".age").path().join("README.md").exists());
    }

    #[test]
    fn keys_are_random_and_in_airflows_format() {
        let (keys, others) = (env_file().unwrap(), env_file().unwrap());
        assert_ne!(keys, others);
        let fernet = keys.lines().find_map(|line| line.strip_prefix("FERNET_KEY=")).unwrap();
        assert_eq!(URL_SAFE.decode(fernet).unwrap().len(), 32);
        assert_eq!(keys.lines().filter(|line| line.contains('=') && !line.ends_with('=')).count(), 4);
    }

    #[test]
    fn chooses_the_nearest_python() {
        let nearest = |version| python(Some(version));
        assert_eq!(
            (nearest("3.12.4"), nearest("3.9.1"), nearest("3.20"), python(None)),
            ("3.12".into(), "3.10".into(), "3.14".into(), "3.12".into())
        );
    }
}
