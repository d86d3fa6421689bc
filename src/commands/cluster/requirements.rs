//! What the image has to have besides Airflow: what projects depend on, at the versions that they have here.

use super::findings::Findings;
use crate::cli::api::list_of;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What comes with the image, at its own version.
const OF_AIRFLOW: [&str; 4] = ["apache-airflow", "apache-airflow-core", "apache-airflow-task-sdk", "leoflow"];

/// The lines of `requirements.txt`: `name==version`, each as somebody asked for it, with its extras.
pub fn lines(environments: &Value, findings: &mut Findings) -> Vec<String> {
    let mut versions: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    let mut extras: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut others = BTreeSet::new();
    for environment in list_of(&environments["environments"]) {
        let dags: BTreeSet<String> =
            list_of(&environment["dags"]).filter_map(Value::as_str).map(str::to_owned).collect();
        // What no DAG has any more is kept for its old versions alone.
        if dags.is_empty() {
            continue;
        }
        let installed: BTreeMap<String, &str> = list_of(&environment["packages"])
            .filter_map(|package| Some((normal(package["name"].as_str()?), package["version"].as_str()?)))
            .collect();
        for requirement in list_of(&environment["requirements"]).filter_map(Value::as_str) {
            if is_place(requirement) {
                others.insert(requirement.to_owned());
                continue;
            }
            let (name, wanted) = parts(requirement);
            if OF_AIRFLOW.contains(&name.as_str()) {
                continue;
            }
            match installed.get(&name) {
                Some(version) => {
                    let of_name = versions.entry(name.clone()).or_default();
                    of_name.entry((*version).to_owned()).or_default().extend(dags.iter().cloned());
                    extras.entry(name).or_default().extend(wanted);
                }
                // As one for another system, by its marker: as it stands.
                None => {
                    others.insert(requirement.to_owned());
                }
            }
        }
    }
    for (name, of_name) in versions.iter().filter(|(_, of_name)| of_name.len() > 1) {
        let of = |(version, dags): (&String, &BTreeSet<String>)| {
            format!("{version} for {}", dags.iter().cloned().collect::<Vec<_>>().join(", "))
        };
        findings.add(
            format!("package {name}"),
            format!(
                "DAGs have different versions of it ({}); Airflow has one for all",
                of_name.iter().map(of).collect::<Vec<_>>().join("; ")
            ),
            "requirements.txt has the newest: try the others with it",
        );
    }
    for other in others.iter().filter(|other| is_place(other)) {
        findings.add(
            without_login(other),
            "it comes from no package index",
            "see that the image's build can reach it, logged in where it has to be",
        );
    }
    let newest =
        |of_name: &BTreeMap<String, BTreeSet<String>>| of_name.keys().max_by_key(|version| key(version)).cloned();
    let pin = |(name, of_name): (&String, &BTreeMap<String, BTreeSet<String>>)| {
        let extras: Vec<&str> = extras.get(name).into_iter().flatten().map(String::as_str).collect();
        let extras = if extras.is_empty() { String::new() } else { format!("[{}]", extras.join(",")) };
        format!("{name}{extras}=={}", newest(of_name).unwrap_or_default())
    };
    versions.iter().map(pin).chain(others.iter().map(|other| without_login(other))).collect()
}

/// A name as package indexes compare it: <https://packaging.python.org/en/latest/specifications/name-normalization/>
fn normal(name: &str) -> String {
    let mut normal = String::new();
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if normal.ends_with('-') => {}
            '-' | '_' | '.' => normal.push('-'),
            c => normal.extend(c.to_lowercase()),
        }
    }
    normal
}

/// `pandas[excel] >= 2` is `pandas` with `excel`.
fn parts(requirement: &str) -> (String, Vec<String>) {
    let end =
        requirement.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))).unwrap_or(requirement.len());
    let (name, rest) = requirement.split_at(end);
    let extras = rest.trim_start().strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(inside, _)| inside);
    let extras = extras.into_iter().flat_map(|inside| inside.split(',')).map(|one| normal(one.trim()));
    (normal(name), extras.collect())
}

/// Whether it names where it is: a URL or a path.
fn is_place(requirement: &str) -> bool {
    requirement.contains("://") || requirement.contains(" @ ") || requirement.starts_with(['.', '/', '-'])
}

/// `https://user:token@host` is `https://host`.
fn without_login(requirement: &str) -> String {
    let Some((scheme, rest)) = requirement.split_once("://") else { return requirement.to_owned() };
    let end = rest.find(['/', ' ', '#', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    format!("{scheme}://{}{path}", authority.rsplit_once('@').map_or(authority, |(_, host)| host))
}

/// Numbers as numbers, so that 2.10 comes after 2.9.
fn key(version: &str) -> Vec<(u64, String)> {
    let part = |part: &str| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        (digits.parse().unwrap_or(0), part[digits.len()..].to_owned())
    };
    version.split('.').map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_asked_for_is_pinned_at_what_is_installed() {
        let environments = json!({"environments": [
            {"dags": ["a"], "requirements": ["Pandas[excel]>=2", "six", "apache-airflow-task-sdk==1.3.2", "own @ file:///x", "git+https://me:t0k@host/x@v1", "colorama; sys_platform == 'win32'"],
             "packages": [{"name": "pandas", "version": "2.9.1"}, {"name": "six", "version": "1.17.0"}, {"name": "own", "version": "0.1"}, {"name": "numpy", "version": "2.0"}]},
            {"dags": ["b"], "requirements": ["pandas [sql, excel] < 3", "apache_airflow.providers--http"],
             "packages": [{"name": "pandas", "version": "2.10.0"}, {"name": "apache-airflow-providers-http", "version": "5.0.0"}]},
            {"dags": [], "requirements": ["left-over"], "packages": [{"name": "left-over", "version": "1"}]},
        ]});
        let mut findings = Findings::default();
        assert_eq!(
            lines(&environments, &mut findings),
            [
                "apache-airflow-providers-http==5.0.0",
                "pandas[excel,sql]==2.10.0",
                "six==1.17.0",
                "colorama; sys_platform == 'win32'",
                "git+https://host/x@v1",
                "own @ file:///x"
            ]
        );
        let whats: Vec<&str> = findings.all().iter().map(|one| one.what.as_str()).collect();
        assert_eq!(whats, ["package pandas", "git+https://host/x@v1", "own @ file:///x"]);
        assert!(findings.all()[0].why.contains("2.10.0 for b; 2.9.1 for a"), "{:?}", findings.all()[0]);
    }
}
