//! The versions of Apache Airflow that this release supports. The resolver must not choose another one: an older one
//! cannot run, and the package index may have a newer one some months before a release of Leoflow has been tested with it.

use super::declaration::declared::Declared;
use super::error::EnvironmentError;
use super::{pins, uv_messages};

/// Major and minor version.
type Minor = (u32, u32);

/// Airflow's packages, each with the first minor version that is supported and the first newer one that is not.
/// `leoflow/sdk/refusals.py` has the same versions and refuses imports.
const SUPPORTED: [(&str, Minor, Minor); 3] = [
    ("apache-airflow", (3, 0), (3, 4)),
    ("apache-airflow-core", (3, 0), (3, 4)),
    ("apache-airflow-task-sdk", (1, 0), (1, 4)),
];
const OLDEST: &str = "3.0";
const NEWEST: &str = "3.3";

/// The supported versions as constraints in pip's syntax. They have no effect if a project does not require Airflow.
pub fn bounds() -> Vec<String> {
    SUPPORTED.iter().map(|(name, from, to)| format!("{name}>={}.{},<{}.{}", from.0, from.1, to.0, to.1)).collect()
}

/// Checks that no locked version of Airflow's packages (name, version) is newer than supported. A lock that an earlier
/// release made with an older Airflow stays: DAGs that use nothing of it run with the small package.
pub fn check(packages: &[(String, String)]) -> Result<(), EnvironmentError> {
    let is_too_new = |(name, versions): &&(String, String)| {
        let first_unsupported = SUPPORTED.iter().find(|(package, ..)| package == name).map(|(.., to)| *to);
        first_unsupported.is_some_and(|limit| {
            versions.split(" or ").any(|version| minor(version).is_some_and(|locked| locked >= limit))
        })
    };
    match packages.iter().find(is_too_new).cloned() {
        Some((package, version)) => Err(EnvironmentError::NewerAirflow { package, version, advice: advice() }),
        None => Ok(()),
    }
}

/// Adds advice to an error message of uv if it names one of `bounds`, with the project's lines about Airflow.
pub fn add_advice(reason: String, declared: &Declared) -> String {
    if !bounds().iter().any(|bound| reason.contains(bound.as_str())) {
        return reason;
    }
    // A limit as the advice gives it is no obstacle.
    let is_obstacle = |line: &&String| {
        SUPPORTED.iter().any(|(name, ..)| pins::name_of(line) == *name) && !newest().contains(&line.replace(' ', ""))
    };
    let places = declared.pin_lines().filter(is_obstacle).filter_map(|line| {
        uv_messages::origin_of(line, &declared.origins).map(|origin| format!("\n    {origin}: {line}"))
    });
    let places: String = places.collect();
    let heading = if places.is_empty() { "" } else { "\nThe project's lines about Airflow:" };
    format!("{reason}\n{}{heading}{places}", advice())
}

/// The constraints that a project may have to stay with the versions that are supported.
fn newest() -> Vec<String> {
    SUPPORTED.iter().map(|(name, _, to)| format!("{name}<{}.{}", to.0, to.1)).collect()
}

/// True if a requirement is of one of Airflow's packages, and accepts no version that is supported.
pub fn excludes_supported(requirement: &str) -> bool {
    /// More than any minor version has.
    const PATCHES: u32 = 30;
    let Some((_, (major, first), (_, end))) = SUPPORTED.iter().find(|(name, ..)| *name == pins::name_of(requirement))
    else {
        return false;
    };
    let Some(specifiers) = pins::specifiers_of(requirement) else { return false };
    let mut versions =
        (*first..*end).flat_map(|minor| (0..PATCHES).map(move |patch| format!("{major}.{minor}.{patch}")));
    !versions.any(|version| version.parse().is_ok_and(|version| specifiers.contains(&version)))
}

fn advice() -> String {
    format!(
        "This release of Leoflow runs Apache Airflow {OLDEST} to {NEWEST}. Leave out lines that require or pin an older one, \
         and take the newest version of each provider. To leave out newer ones, wherever the project lists its \
         dependencies, its leoflow.yaml may limit the versions of Airflow and of providers:\n    constraints: ['{}']",
        newest().join("', '")
    )
}

/// Parses the minor version: `(3, 4)` for `3.4.0rc1`.
fn minor(version: &str) -> Option<Minor> {
    let mut parts = version.split('.').map(|part| part.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, version: &str) -> Result<(), EnvironmentError> {
        check(&[("attrs".to_owned(), "25.1.0".to_owned()), (name.to_owned(), version.to_owned())])
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
            let refused = checked(name, version).unwrap_err().to_string();
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
            assert!(checked(name, version).is_ok(), "{name} {version}");
        }
    }

    #[test]
    fn requirements_of_airflow_2_are_recognized() {
        for (line, expected) in [
            ("apache-airflow==2.9.2", true),
            ("apache_airflow[s3]~=2.5 ; python_version > '3'", true),
            ("apache-airflow>=2.5,<3", true),
            ("apache-airflow <= 2.11 --hash=sha256:ab", true),
            ("apache-airflow==3.4.*", true),
            ("apache-airflow>=2.5", false),
            ("apache-airflow<3.2", false),
            ("apache-airflow==3.0.2", false),
            ("apache-airflow", false),
            ("apache-airflow-task-sdk==1.0.2", false),
            ("apache-airflow-providers-http==2.0", false),
        ] {
            assert_eq!(excludes_supported(line), expected, "{line}");
        }
    }

    #[test]
    fn an_unsolvable_bound_names_the_supported_versions() {
        let bound_error = "Because you require apache-airflow==3.4.* and apache-airflow>=3.0,<3.4, your requirements are unsatisfiable.";
        let line = "apache-airflow==3.4.*".to_owned();
        let declared = Declared {
            requirements: vec![line.clone(), "paint".to_owned()],
            constraints: vec!["apache-airflow<3.4".to_owned()],
            origins: [(line, "p/leoflow.yaml".to_owned())].into(),
            ..Declared::default()
        };
        let advice = add_advice(bound_error.to_owned(), &declared);
        assert!(advice.contains("Apache Airflow 3.0 to 3.3"), "{advice}");
        assert!(advice.ends_with("\n    p/leoflow.yaml: apache-airflow==3.4.*"), "{advice}");
        assert_eq!(add_advice("no version of x==3.4".to_owned(), &declared), "no version of x==3.4");
    }

    #[test]
    fn rust_and_python_have_the_same_versions() {
        let python = include_str!("../package/leoflow/sdk/refusals.py");
        assert!(python.contains("OLDEST, NEWEST = (3, 0), (3, 3)"));
        assert_eq!((OLDEST, NEWEST), ("3.0", "3.3"));
        assert_eq!(
            bounds(),
            ["apache-airflow>=3.0,<3.4", "apache-airflow-core>=3.0,<3.4", "apache-airflow-task-sdk>=1.0,<1.4"]
        );
    }
}
