//! The packages that the image needs besides Airflow: the projects' dependencies, pinned to the installed versions.

use super::findings::Findings;
use crate::api_client::list_of;
use leoflow_python::environments::name_of;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Packages that `requirements.txt` omits: the image has its own version of Airflow, and Airflow cannot use `leoflow`.
const OMITTED_PACKAGES: [&str; 4] = ["apache-airflow", "apache-airflow-core", "apache-airflow-task-sdk", "leoflow"];

/// Returns the lines of `requirements.txt`: `name[extras]==version` for each declared dependency with an installed
/// version, and the other requirements without logins in their URLs.
pub fn lines(environments: &Value, findings: &mut Findings) -> Vec<String> {
    let dependencies = Dependencies::read(environments);
    dependencies.add_findings(findings);
    let pins = dependencies.versions.keys().map(|name| dependencies.pin(name));
    pins.chain(dependencies.unpinned.iter().map(|other| without_login(other))).collect()
}

/// The dependencies that projects declare.
#[derive(Default)]
struct Dependencies {
    /// By package: its installed versions, and the DAGs that use each.
    versions: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    /// By package: the extras that any project requests.
    extras: BTreeMap<String, BTreeSet<String>>,
    /// Requirements on a URL or path, or without an installed version.
    unpinned: BTreeSet<String>,
}

impl Dependencies {
    fn read(environments: &Value) -> Self {
        let mut dependencies = Self::default();
        for environment in list_of(&environments["environments"]) {
            let dags: BTreeSet<String> =
                list_of(&environment["dags"]).filter_map(Value::as_str).map(str::to_owned).collect();
            // An environment without DAGs is kept only for old DAG versions.
            if dags.is_empty() {
                continue;
            }
            let installed: BTreeMap<String, &str> = list_of(&environment["packages"])
                .filter_map(|package| Some((name_of(package["name"].as_str()?), package["version"].as_str()?)))
                .collect();
            for requirement in list_of(&environment["requirements"]).filter_map(Value::as_str) {
                dependencies.add(requirement, &installed, &dags);
            }
        }
        dependencies
    }

    fn add(&mut self, requirement: &str, installed: &BTreeMap<String, &str>, dags: &BTreeSet<String>) {
        if is_url_or_path(requirement) {
            self.unpinned.insert(requirement.to_owned());
            return;
        }
        let (name, requested_extras) = split_requirement(requirement);
        if OMITTED_PACKAGES.contains(&name.as_str()) {
            return;
        }
        match installed.get(&name) {
            Some(version) => {
                let package_versions = self.versions.entry(name.clone()).or_default();
                package_versions.entry((*version).to_owned()).or_default().extend(dags.iter().cloned());
                self.extras.entry(name).or_default().extend(requested_extras);
            }
            // Not installed here, for example because of its platform marker.
            None => {
                self.unpinned.insert(requirement.to_owned());
            }
        }
    }

    fn add_findings(&self, findings: &mut Findings) {
        for (name, package_versions) in self.versions.iter().filter(|(_, package_versions)| package_versions.len() > 1)
        {
            let describe = |(version, dags): (&String, &BTreeSet<String>)| {
                format!("{version} for {}", dags.iter().cloned().collect::<Vec<_>>().join(", "))
            };
            findings.add(
                format!("package {name}"),
                format!(
                    "DAGs use different versions of it ({}), but Airflow has one for all",
                    package_versions.iter().map(describe).collect::<Vec<_>>().join("; ")
                ),
                "requirements.txt has the newest; test the other DAGs with it",
            );
        }
        for other in self.unpinned.iter().filter(|other| is_url_or_path(other)) {
            findings.add(
                without_login(other),
                "it does not come from a package index",
                "make sure that the image's build can access it, with a login where needed",
            );
        }
    }

    /// Returns `name[extras]==version` with the newest installed version.
    fn pin(&self, name: &str) -> String {
        let extras: Vec<&str> = self.extras.get(name).into_iter().flatten().map(String::as_str).collect();
        let extras = if extras.is_empty() { String::new() } else { format!("[{}]", extras.join(",")) };
        let versions = self.versions.get(name).into_iter().flat_map(BTreeMap::keys);
        let newest = versions.max_by_key(|version| version_key(version)).cloned();
        format!("{name}{extras}=={}", newest.unwrap_or_default())
    }
}

/// Splits a requirement such as `pandas[excel] >= 2` into its name, `pandas`, and its extras, `excel`.
fn split_requirement(requirement: &str) -> (String, Vec<String>) {
    let end =
        requirement.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))).unwrap_or(requirement.len());
    let (name, rest) = requirement.split_at(end);
    let extras =
        rest.trim_start().strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(extras_text, _)| extras_text);
    let extras = extras.into_iter().flat_map(|extras_text| extras_text.split(',')).map(|extra| name_of(extra.trim()));
    (name_of(name), extras.collect())
}

/// True for a URL or a path.
fn is_url_or_path(requirement: &str) -> bool {
    requirement.contains("://") || requirement.contains(" @ ") || requirement.starts_with(['.', '/', '-'])
}

/// Turns `https://user:token@host` into `https://host`.
fn without_login(requirement: &str) -> String {
    let Some((scheme, rest)) = requirement.split_once("://") else { return requirement.to_owned() };
    let end = rest.find(['/', ' ', '#', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    format!("{scheme}://{}{path}", authority.rsplit_once('@').map_or(authority, |(_, host)| host))
}

/// Sort key of a version that compares numbers as numbers, so that 2.10 comes after 2.9.
fn version_key(version: &str) -> Vec<(u64, String)> {
    let number_and_suffix = |part: &str| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        (digits.parse().unwrap_or(0), part[digits.len()..].to_owned())
    };
    version.split('.').map(number_and_suffix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pins_declared_packages_to_installed_versions() {
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
        let subjects: Vec<&str> = findings.all().iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(subjects, ["package pandas", "git+https://host/x@v1", "own @ file:///x"]);
        assert!(findings.all()[0].why.contains("2.10.0 for b; 2.9.1 for a"), "{:?}", findings.all()[0]);
    }
}
