//! The versions of Apache Airflow that this release supports. The resolver must not choose a newer one: the package
//! index may have it some months before a release of Leoflow has been tested with it.

use super::error::EnvironmentError;

/// Airflow's packages, each with the first minor version that is not supported. `leoflow/sdk/refusals.py` has the same
/// versions and refuses imports.
const TOO_NEW: [(&str, (u32, u32)); 3] =
    [("apache-airflow", (3, 4)), ("apache-airflow-core", (3, 4)), ("apache-airflow-task-sdk", (1, 4))];
const OLDEST: &str = "3.0";
const NEWEST: &str = "3.3";

/// Upper bounds as constraints in pip's syntax. They have no effect if a project does not require Airflow.
pub fn bounds() -> Vec<String> {
    TOO_NEW.iter().map(|(name, (major, minor))| format!("{name}<{major}.{minor}")).collect()
}

/// Checks that this release supports the locked versions of Airflow's packages (name, version).
pub fn check(packages: &[(String, String)]) -> Result<(), EnvironmentError> {
    let is_too_new = |(name, versions): &&(String, String)| {
        let first_unsupported = TOO_NEW.iter().find(|(package, _)| package == name).map(|(_, minor)| *minor);
        first_unsupported.is_some_and(|limit| {
            versions.split(" or ").any(|version| minor(version).is_some_and(|locked| locked >= limit))
        })
    };
    match packages.iter().find(is_too_new).cloned() {
        Some((package, version)) => Err(EnvironmentError::NewerAirflow { package, version, advice: advice() }),
        None => Ok(()),
    }
}

/// Adds advice to an error message of uv if it names one of `bounds`.
pub fn add_advice(reason: String) -> String {
    if bounds().iter().any(|bound| reason.contains(bound.as_str())) {
        format!("{reason}\n{}", advice())
    } else {
        reason
    }
}

fn advice() -> String {
    let bounds: Vec<String> = bounds().iter().map(|bound| format!("'{bound}'")).collect();
    format!(
        "This release of Leoflow runs Apache Airflow {OLDEST} to {NEWEST}. Wherever the project lists its dependencies, its \
         leoflow.yaml may limit the versions of Airflow and of providers:\n    constraints: [{}]",
        bounds.join(", ")
    )
}

/// Parses the minor version: `(3, 4)` for `3.4.0rc1`.
fn minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(|part| part.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, version: &str) -> Result<(), String> {
        Ok(check(&[("attrs".to_owned(), "25.1.0".to_owned()), (name.to_owned(), version.to_owned())])?)
    }

    #[test]
    fn refuses_an_airflow_newer_than_supported() {
        for (name, version) in [
            ("apache-airflow", "3.4.0"),
            ("apache-airflow-core", "3.4.0rc1"),
            ("apache-airflow-core", "3.3.2 or 3.10.0"),
            ("apache-airflow-task-sdk", "1.4.0"),
            ("apache-airflow-task-sdk", "2.0"),
        ] {
            let refused = checked(name, version).unwrap_err();
            assert!(refused.starts_with(&format!("{name} {version} would be")), "{refused}");
            assert!(refused.contains("constraints: ['apache-airflow<3.4', "), "{refused}");
        }
        for (name, version) in [
            ("apache-airflow", "3.3.9"),
            ("apache-airflow", "2.11.0"),
            ("apache-airflow-core", "3.0.6"),
            ("apache-airflow-task-sdk", "1.3.2"),
            ("apache-airflow-providers-http", "6.3.0"),
        ] {
            assert_eq!(checked(name, version), Ok(()), "{name} {version}");
        }
    }

    #[test]
    fn an_unsolvable_bound_names_the_supported_versions() {
        let bound_error =
            "Because you require apache-airflow==3.4.* and apache-airflow<3.4, your requirements are unsatisfiable.";
        assert!(add_advice(bound_error.to_owned()).contains("Apache Airflow 3.0 to 3.3"));
        assert_eq!(add_advice("no version of x==3.4".to_owned()), "no version of x==3.4");
    }

    #[test]
    fn rust_and_python_have_the_same_versions() {
        let python = include_str!("../package/leoflow/sdk/refusals.py");
        assert!(python.contains("OLDEST, NEWEST = (3, 0), (3, 3)"));
        assert_eq!((OLDEST, NEWEST), ("3.0", "3.3"));
        assert_eq!(bounds(), ["apache-airflow<3.4", "apache-airflow-core<3.4", "apache-airflow-task-sdk<1.4"]);
    }
}
