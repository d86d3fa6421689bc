//! Recognizes DAG files by their text.

use leoflow_base::sys::fs::files;
use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read};
use std::path::Path;
use zip::ZipArchive;

/// Size limit, bytes; a larger file is data, not a DAG file.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;

/// True for a Python file that is worth importing: its text mentions DAGs, or it cannot be read, which the import then
/// reports. True for a YAML file with the schema of Airflow's DAGs. True for packaged DAGs, whose import reports that they
/// are not loaded. False for a file above `LARGEST_FILE`.
pub fn is_dag_file(path: &Path) -> bool {
    if is_zip(path) {
        return has_dag_file(path);
    }
    let is_yaml = is_yaml(path);
    if !is_yaml && !is_python(path) {
        return false;
    }
    match files::read_regular(path, LARGEST_FILE) {
        Ok(text) => text.is_some_and(|text| if is_yaml { has_dag_schema(&text) } else { might_have_dags(&text) }),
        Err(error) => !is_yaml && error.kind() != io::ErrorKind::InvalidData,
    }
}

/// True for the name of a Python file.
pub fn is_python(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "py")
}

/// True for the name of a YAML file, which may define DAGs from Airflow 3.4 on.
pub(super) fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "yaml" || end == "yml")
}

/// True for the name of a zip file, which may contain packaged DAGs.
pub fn is_zip(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "zip")
}

/// True if a Python file at the top of a zip file mentions DAGs: Airflow imports those.
/// <https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/dags.html#packaging-dags>
fn has_dag_file(path: &Path) -> bool {
    // Opening a pipe would block. Of an archive with data, only the list of its files is read.
    let file = path.metadata().ok().filter(Metadata::is_file).and_then(|_| File::open(path).ok());
    let Some(Ok(mut archive)) = file.map(|file| ZipArchive::new(BufReader::new(file))) else { return false };
    let is_module = |name: &&str| name.ends_with(".py") && !name.contains('/');
    let modules: Vec<String> = archive.file_names().filter(is_module).map(str::to_owned).collect();
    modules.iter().any(|name| {
        let mut text = Vec::new();
        let read = archive.by_name(name).map(|file| file.take(LARGEST_FILE).read_to_end(&mut text));
        matches!(read, Ok(Ok(_))) && might_have_dags(&text)
    })
}

/// Airflow's heuristic `might_contain_dag`, extended by our package name: most Python files need no import.
fn might_have_dags(text: &[u8]) -> bool {
    let contains_word = |word: &[u8]| contains(text, word);
    (contains_word(b"dag") || contains_word(b"asset")) && (contains_word(b"airflow") || contains_word(b"leoflow"))
}

/// True for a document that declares Airflow's schema of DAGs; Airflow's importer looks for the same words.
fn has_dag_schema(text: &[u8]) -> bool {
    contains(text, b"$schema") && contains(text, b"https://airflow.apache.org/schemas/dag/")
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn recognizes_dags_in_yaml_by_their_schema() {
        assert!(has_dag_schema(b"$schema: https://airflow.apache.org/schemas/dag/2026-10-01.json"));
        assert!(!has_dag_schema(b"# https://airflow.apache.org/schemas/dag/ is its schema"));
    }

    #[test]
    fn recognizes_dag_files_by_two_words() {
        assert!(might_have_dags(b"from airflow.sdk import DAG"));
        assert!(might_have_dags(b"from leoflow import dag"));
        assert!(might_have_dags(b"from airflow.sdk import asset"));
        assert!(!might_have_dags(b"import airflow"));
        assert!(!might_have_dags(b"dag = 1"));
    }

    #[test]
    fn packaged_dags_are_modules_at_the_top_of_a_zip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.zip");
        let archive = |name: &str| {
            let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
            archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(b"from airflow.sdk import DAG").unwrap();
            archive.finish().unwrap();
            is_dag_file(&path)
        };
        assert!(archive("a.py"));
        assert!(!archive("package/a.py") && !archive("a.txt"));
        std::fs::write(&path, "PK, but no archive").unwrap();
        assert!(!is_dag_file(&path) && !is_dag_file(&folder.path().join("missing.zip")));
    }
}
