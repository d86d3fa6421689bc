//! The minor versions of Apache Airflow that this release runs, and the web UIs that it serves. One file has them for the
//! Rust and the Python code and for the scripts; a new minor version is a line there.

use std::sync::LazyLock;

const TABLE: &str = include_str!("../python/package/leoflow/common/airflow_minors.txt");

/// Major and minor version.
pub type Version = (u32, u32);

/// A minor version with which this release was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minor {
    pub airflow: Version,
    pub sdk: Version,
    /// The oldest Python that it installs on.
    pub python: Version,
    /// The release that was tried.
    pub tried: &'static str,
}

/// A web UI of Airflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebUi {
    pub version: &'static str,
    /// sha256 of the wheel of apache-airflow-core.
    pub wheel: &'static str,
    /// sha256 of the UI's files.
    pub tree: &'static str,
}

/// The minor versions, oldest first.
pub fn minors() -> &'static [Minor] {
    static MINORS: LazyLock<Vec<Minor>> = LazyLock::new(|| {
        let minor = |line: &'static str| {
            let mut words = line.strip_prefix("minor ")?.split(' ');
            let mut next = || words.next();
            Some(Minor {
                airflow: version(next()?)?,
                sdk: version(next()?)?,
                python: version(next()?)?,
                tried: next()?,
            })
        };
        TABLE.lines().filter_map(minor).collect()
    });
    &MINORS
}

/// The web UIs; the last is the preferred one.
fn web_uis() -> &'static [WebUi] {
    static UIS: LazyLock<Vec<WebUi>> = LazyLock::new(|| {
        let ui = |line: &'static str| match line.strip_prefix("ui ")?.split(' ').collect::<Vec<_>>()[..] {
            [version, wheel, tree] => Some(WebUi { version, wheel, tree }),
            _ => None,
        };
        TABLE.lines().filter_map(ui).collect()
    });
    &UIS
}

/// For a table without a UI, which a test excludes.
const NO_UI: WebUi = WebUi { version: "", wheel: "", tree: "" };

/// The UI that an instance serves unless its settings choose another.
pub fn preferred_ui() -> &'static WebUi {
    web_uis().last().unwrap_or(&NO_UI)
}

/// The UI of a minor version: `3.4`.
pub fn ui_of(minor: &str) -> Option<&'static WebUi> {
    let is_minor = minor.split('.').count() == 2;
    web_uis().iter().find(|ui| is_minor && version(ui.version) == version(minor))
}

impl WebUi {
    /// True for the UI of a minor version or of a later one.
    pub fn is_at_least(&self, minor: Version) -> bool {
        version(self.version).is_some_and(|own| own >= minor)
    }
}

/// Parses the minor version: `(3, 4)` for `3.4.0rc1`.
pub fn version(text: &str) -> Option<Version> {
    let mut parts = text.split('.').map(|part| part.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_read_and_minors_follow_one_another() {
        let is_data = |line: &&str| !line.starts_with('#') && !line.is_empty();
        assert_eq!(minors().len() + web_uis().len(), TABLE.lines().filter(is_data).count());
        for (index, minor) in (0..).zip(minors()) {
            assert_eq!((minor.airflow, minor.sdk), ((3, index), (1, index)));
            assert_eq!(version(minor.tried), Some(minor.airflow));
        }
        assert!(web_uis().iter().all(|ui| ui.wheel.len() == 64 && ui.tree.len() == 64));
        assert_eq!(ui_of("3.3"), Some(preferred_ui()));
        // The small package implements the version whose UI is shown.
        let small = include_str!("../python/package/leoflow/common/airflow_version.py");
        assert!(small.contains(&format!("version = \"{}\"\n", preferred_ui().version)));
        assert_eq!((ui_of("3.2"), ui_of("3.3.2"), ui_of("x")), (None, None, None));
    }
}
