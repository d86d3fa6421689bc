//! Recognizes DAG files by their text.

use leoflow_base::sys::fs::files;
use std::io;
use std::path::Path;

/// Size limit, bytes; a larger file is data, not a DAG file.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;

/// True for a Python file that is worth importing: its text mentions DAGs, or it cannot be read, which the import then
/// reports. False for a file above `LARGEST_FILE`.
pub fn is_dag_file(path: &Path) -> bool {
    if path.extension().is_none_or(|end| end != "py") {
        return false;
    }
    match files::read_regular(path, LARGEST_FILE) {
        Ok(text) => text.is_some_and(|text| might_have_dags(&text)),
        Err(error) => error.kind() != io::ErrorKind::InvalidData,
    }
}

/// Airflow's heuristic `might_contain_dag`, extended by our package name: most Python files need no import.
fn might_have_dags(text: &[u8]) -> bool {
    let contains_word = |word: &[u8]| text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    (contains_word(b"dag") || contains_word(b"asset")) && (contains_word(b"airflow") || contains_word(b"leoflow"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_dag_files_by_two_words() {
        assert!(might_have_dags(b"from airflow.sdk import DAG"));
        assert!(might_have_dags(b"from leoflow import dag"));
        assert!(might_have_dags(b"from airflow.sdk import asset"));
        assert!(!might_have_dags(b"import airflow"));
        assert!(!might_have_dags(b"dag = 1"));
    }
}
