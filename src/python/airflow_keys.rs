//! What the keys of Airflow's configuration mean here.

use std::collections::HashMap;
use std::sync::LazyLock;

/// How Leoflow treats a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// By both packages.
    Honoured,
    /// By Airflow's own SDK.
    OnlySdk,
    /// It would change what DAGs do, and has no effect.
    Ignored,
    /// It configures a part that Leoflow does not have.
    NoPart,
}

/// Lines `MEANING SECTION KEY…`; also read by the Python package.
const TABLE: &str = include_str!("package/leoflow/common/settings/airflow_keys.txt");

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    pub meaning: Meaning,
    pub section: &'static str,
    pub key: &'static str,
    /// Airflow's default values, of several versions; empty if they are not known.
    defaults: &'static str,
}

/// The table.
pub fn rows() -> impl Iterator<Item = Row> {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(|line| {
        let mut words = line.split_whitespace();
        let meaning = match words.next() {
            Some("honoured") => Meaning::Honoured,
            Some("sdk") => Meaning::OnlySdk,
            _ => Meaning::Ignored,
        };
        let section = words.next().unwrap_or_default();
        words.map(move |word| {
            let (key, defaults) = word.split_once('=').unwrap_or((word, ""));
            Row { meaning, section, key, defaults }
        })
    })
}

/// True if `value` is Airflow's default for a variable `AIRFLOW__SECTION__KEY`. White space does not count, because a file
/// of settings may have a list on several lines.
pub fn is_default(name: &str, value: &str) -> bool {
    let row = rows().find(|row| variable(row.section, row.key) == name);
    let value: String = value.split_whitespace().collect();
    row.is_some_and(|row| row.defaults.split('|').any(|default| default.eq_ignore_ascii_case(&value)))
}

/// The variable that sets a key.
pub fn variable(section: &str, key: &str) -> String {
    format!("AIRFLOW__{}__{}", section.to_uppercase(), key.to_uppercase())
}

/// What a variable `AIRFLOW__SECTION__KEY` means; `None` for any other one. The suffixes `_CMD` and `_SECRET` belong to
/// the key, and so does `_KWARG__NAME`, one argument of a secrets backend.
pub fn meaning(name: &str) -> Option<Meaning> {
    static MEANINGS: LazyLock<HashMap<String, Meaning>> =
        LazyLock::new(|| rows().map(|row| (variable(row.section, row.key), row.meaning)).collect());
    name.strip_prefix("AIRFLOW__")?.split_once("__")?;
    let key = ["_CMD", "_SECRET"].iter().find_map(|suffix| name.strip_suffix(suffix));
    let key = key.or_else(|| Some(name.split_once("_KWARG__")?.0)).unwrap_or(name);
    Some(MEANINGS.get(name).or_else(|| MEANINGS.get(key)).copied().unwrap_or(Meaning::NoPart))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_one_meaning() {
        let mut names: Vec<String> = rows().map(|row| variable(row.section, row.key)).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
        assert_eq!(meaning("AIRFLOW__CORE__DEFAULT_TIMEZONE"), Some(Meaning::Honoured));
        assert_eq!(meaning("AIRFLOW__SMTP__SMTP_PASSWORD_CMD"), Some(Meaning::Honoured));
        assert_eq!(meaning("AIRFLOW__SECRETS__BACKEND_KWARG__TOKEN"), Some(Meaning::Honoured));
        assert_eq!(meaning("AIRFLOW__CELERY__BROKER_URL"), Some(Meaning::NoPart));
        assert_eq!(meaning("AIRFLOW_VAR_X"), None);
        assert!(is_default("AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT", "30.0"));
        assert!(is_default("AIRFLOW__SCHEDULER__CATCHUP_BY_DEFAULT", "false"));
        assert!(!is_default("AIRFLOW__SCHEDULER__CATCHUP_BY_DEFAULT", "True"));
        let bundles = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST";
        let local =
            "[\n  {\"name\": \"dags-folder\", \"classpath\": \"airflow.dag_processing.bundles.local.LocalDagBundle\",
                     \"kwargs\": {}}\n  ]";
        assert!(is_default(bundles, local));
        assert!(!is_default(bundles, &local.replace("local.Local", "git.Git")));
    }
}
