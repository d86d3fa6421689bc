//! The versions of Apache Airflow that this release supports. The resolver must not choose another one: an older one
//! cannot run, and the package index may have a newer one some months before a release of Leoflow has been tested with it.

use super::declaration::declared::Declared;
use super::error::EnvironmentError;
use super::{pins, uv_messages};
use leoflow_base::airflow_minors::{Minor, Version, minors, version};
use pep440_rs::Operator;

/// A package of Airflow, with the first version that is supported and the first newer one that is not.
struct Supported {
    package: &'static str,
    from: Version,
    to: Version,
}

/// Airflow's packages. `leoflow/sdk/refusals.py` reads the same versions and refuses imports.
fn supported() -> impl Iterator<Item = Supported> {
    let ends = minors().first().zip(minors().last());
    let of = |package, (from, last): (Version, Version)| Supported { package, from, to: (last.0, last.1 + 1) };
    ends.into_iter().flat_map(move |(first, last)| {
        let (airflow, sdk) = ((first.airflow, last.airflow), (first.sdk, last.sdk));
        [of("apache-airflow", airflow), of("apache-airflow-core", airflow), of("apache-airflow-task-sdk", sdk)]
    })
}

/// The supported versions as constraints in pip's syntax. They have no effect if a project does not require Airflow.
pub fn bounds() -> Vec<String> {
    supported()
        .map(|Supported { package, from, to }| format!("{package}>={}.{},<{}.{}", from.0, from.1, to.0, to.1))
        .collect()
}

/// The packages of which `apache-airflow` consists, in the version of a requirement that pins a pre-release. uv takes
/// a pre-release only of packages of which one is demanded by name.
pub fn pre_release_parts(requirement: &str) -> Vec<String> {
    let pinned = (pins::name_of(requirement) == "apache-airflow").then(|| pins::specifiers_of(requirement)).flatten();
    let pinned = pinned.and_then(|all| {
        let exact = all.iter().filter(|one| matches!(one.operator(), Operator::Equal | Operator::ExactEqual));
        exact.map(|one| one.version().clone()).find(pep440_rs::Version::any_prerelease)
    });
    let Some(pinned) = pinned.map(|version| version.to_string()) else { return Vec::new() };
    let sdk =
        version(&pinned).and_then(|minor| minors().iter().find(|known| known.airflow == minor)).map(|known| known.sdk);
    let sdk = sdk.zip(pinned.splitn(3, '.').nth(2)).map(|(sdk, rest)| format!("{}.{}.{rest}", sdk.0, sdk.1));
    let core = [("apache-airflow-core", Some(pinned.clone())), ("apache-airflow-task-sdk", sdk)];
    core.into_iter().filter_map(|(name, version)| Some(format!("{name}=={}", version?))).collect()
}

/// Checks that no locked version of Airflow's packages (name, version) is newer than supported. A lock that an earlier
/// release made with an older Airflow stays: DAGs that use nothing of it run with the small package.
pub fn check(packages: &[(String, String)]) -> Result<(), EnvironmentError> {
    let is_too_new = |(name, versions): &&(String, String)| {
        let first_unsupported = supported().find(|known| known.package == name).map(|known| known.to);
        first_unsupported.is_some_and(|limit| {
            versions.split(" or ").any(|locked| version(locked).is_some_and(|locked| locked >= limit))
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
        supported().any(|known| pins::name_of(line) == known.package) && !newest().contains(&line.replace(' ', ""))
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
    supported().map(|Supported { package, to, .. }| format!("{package}<{}.{}", to.0, to.1)).collect()
}

/// True if a requirement is of one of Airflow's packages, and accepts no version that is supported.
pub fn excludes_supported(requirement: &str) -> bool {
    /// More than any minor version has.
    const PATCHES: u32 = 30;
    let Some(Supported { from: (major, first), to: (_, end), .. }) =
        supported().find(|known| known.package == pins::name_of(requirement))
    else {
        return false;
    };
    let Some(specifiers) = pins::specifiers_of(requirement) else { return false };
    let of_minor = |minor: u32| (0..PATCHES).map(move |patch| format!("{major}.{minor}.{patch}"));
    let mut versions = (first..end).flat_map(of_minor).filter_map(|version| version.parse().ok());
    let pre_releases = specifiers.iter().map(|one| one.version()).filter(|version| version.any_prerelease());
    let is_known =
        |of: &pep440_rs::Version| version(&of.to_string()).is_some_and(|of| of >= (major, first) && of < (major, end));
    let mut pre_releases = pre_releases.filter(|version| is_known(version));
    !versions.any(|version| specifiers.contains(&version)) && !pre_releases.any(|version| specifiers.contains(version))
}

fn advice() -> String {
    let supported = supported_range();
    format!(
        "This release of Leoflow runs Apache Airflow {supported}. Leave out lines that require or pin an older one, \
         and take the newest version of each provider. To leave out newer ones, wherever the project lists its \
         dependencies, its leoflow.yaml may limit the versions of Airflow and of providers:\n    constraints: ['{}']",
        newest().join("', '")
    )
}

/// The oldest and the newest supported version: `3.0 to 3.4`.
pub fn supported_range() -> String {
    let text = |minor: Option<&Minor>| minor.map(|Minor { airflow, .. }| format!("{}.{}", airflow.0, airflow.1));
    let [oldest, newest] = [minors().first(), minors().last()].map(|minor| text(minor).unwrap_or_default());
    format!("{oldest} to {newest}")
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
            ("apache-airflow", "3.5.0"),
            ("apache-airflow-core", "3.5.0rc1"),
            ("apache-airflow-core", "3.3.2 or 3.10.0"),
            ("apache-airflow-task-sdk", "1.5.0"),
            ("apache-airflow-task-sdk", "2.0"),
        ] {
            let refused = checked(name, version).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("{name} {version} would be")), "{refused}");
            assert!(refused.contains("constraints: ['apache-airflow<3.5', "), "{refused}");
        }
        for (name, version) in [
            ("apache-airflow", "3.3.9"),
            ("apache-airflow", "3.4.0b2"),
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
            ("apache-airflow==3.5.*", true),
            ("apache-airflow==3.5.0b1", true),
            ("apache-airflow==3.4.0b2", false),
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
        let bound_error = "Because you require apache-airflow==3.5.* and apache-airflow>=3.0,<3.5, your requirements are unsatisfiable.";
        let line = "apache-airflow==3.5.*".to_owned();
        let declared = Declared {
            requirements: vec![line.clone(), "paint".to_owned()],
            constraints: vec!["apache-airflow<3.5".to_owned()],
            origins: [(line, "p/leoflow.yaml".to_owned())].into(),
            ..Declared::default()
        };
        let advice = add_advice(bound_error.to_owned(), &declared);
        assert!(advice.contains("Apache Airflow 3.0 to 3.4"), "{advice}");
        assert!(advice.ends_with("\n    p/leoflow.yaml: apache-airflow==3.5.*"), "{advice}");
        assert_eq!(add_advice("no version of x==3.4".to_owned(), &declared), "no version of x==3.4");
    }

    #[test]
    fn a_pinned_pre_release_names_its_parts() {
        let parts = ["apache-airflow-core==3.4.0b2", "apache-airflow-task-sdk==1.4.0b2"];
        assert_eq!(pre_release_parts("apache-airflow==3.4.0b2"), parts);
        assert_eq!(pre_release_parts("apache-airflow==3.3.2"), [""; 0]);
        assert_eq!(pre_release_parts("pandas==3.0.0rc1"), [""; 0]);
        assert_eq!(pre_release_parts("apache-airflow>=3.2.0rc1,<3.4"), [""; 0]);
        assert_eq!(pre_release_parts("apache-airflow!=3.4.0b1"), [""; 0]);
    }

    #[test]
    fn bounds_are_those_of_the_minors() {
        assert_eq!(
            bounds(),
            ["apache-airflow>=3.0,<3.5", "apache-airflow-core>=3.0,<3.5", "apache-airflow-task-sdk>=1.0,<1.5"]
        );
    }
}
