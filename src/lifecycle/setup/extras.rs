//! Parts that setup downloads while it does its other steps, and that Leoflow also works without: the Python packages
//! for DAG files, and Airflow's web UI.

use super::plan::Plan;
use super::step::Step;
use leoflow_base::airflow_minors::preferred_ui;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::home::{Home, shared};
use leoflow_base::sys::blocking;
use leoflow_base::sys::fs::files;
use leoflow_components::web_ui::{self, UiError, UiSource};
use leoflow_components::wheel::{self, DownloadError, Wheels};
use leoflow_python::{self as python, PackageSource, WheelError};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// A download that runs in parallel; its failure does not stop the setup.
pub(super) struct Extra {
    name: &'static str,
    /// Consequence of a failure, for the warning.
    consequence: &'static str,
    fetching: JoinHandle<Result<(), ExtraError>>,
}

/// Why a part was not downloaded or installed; each text is a message for the user.
#[derive(Debug, thiserror::Error)]
enum ExtraError {
    #[error("{}: {source}", folder.display())]
    Folder { folder: PathBuf, source: io::Error },
    #[error(transparent)]
    Download(#[from] DownloadError),
    #[error(transparent)]
    Packages(#[from] WheelError),
    #[error(transparent)]
    Ui(#[from] UiError),
    /// The common download failed, for both parts.
    #[error(transparent)]
    Common(#[from] Arc<Self>),
}

/// Time limit of the common download, enough for some megabytes over a slow line.
const LIMIT: Duration = Duration::from_secs(120);
/// A common download that fails later than this is not followed by a download of each part, which would take as long.
const QUICK_FAILURE: Duration = Duration::from_secs(30);

/// The download that both parts share; the first one to need it performs it.
type Common = Arc<OnceLock<Result<Option<Downloads>, Arc<ExtraError>>>>;

impl Extra {
    /// Starts the downloads of the plan: the packages and the web UI.
    pub(super) fn begin(home: &Home, plan: &Plan) -> (Option<Self>, Option<Self>) {
        let (packages, ui) = (PackageSource::from_environment(), UiSource::from_environment());
        let [has_packages, has_ui] = [Step::AcquirePackages, Step::AcquireUi].map(|step| plan.steps.contains(&step));
        let from_index = has_packages && has_ui && packages == PackageSource::Index && ui == UiSource::Index;
        // The files of another instance are copied instead.
        let common = (from_index && shared::other_homes(home).is_empty()).then(Common::default);
        let packages = has_packages.then(|| Self::packages(home, packages, common.clone()));
        let ui = has_ui.then(|| Self::ui(home, ui, common));
        (packages, ui)
    }

    fn packages(home: &Home, source: PackageSource, common: Option<Common>) -> Self {
        let home = home.clone();
        let fetch = move || {
            let downloads = Downloads::of(&home, common.as_ref())?;
            let source = downloads.map_or(source, |all| PackageSource::Folder(all.folder.clone()));
            Ok(python::install_packages(&home, &source)?)
        };
        Self {
            name: "jinja2 and pendulum for DAGs",
            consequence: "DAGs that need them will fail with a message",
            fetching: blocking::begin(fetch),
        }
    }

    fn ui(home: &Home, source: UiSource, common: Option<Common>) -> Self {
        let home = home.clone();
        let fetch = move || {
            let wheel = Downloads::of(&home, common.as_ref())?.and_then(|all| web_ui::wheel_in(&all.folder));
            Ok(web_ui::install(&home, &wheel.map_or(source, UiSource::File), preferred_ui())?)
        };
        Self {
            name: "Airflow's web UI",
            consequence: "its page explains how to get it",
            fetching: blocking::begin(fetch),
        }
    }

    /// Waits for the download, if there is one, and reports its result.
    pub(super) async fn report_result(extra: Option<Self>, reporter: &dyn Reporter) {
        let Some(Self { name, consequence, fetching }) = extra else { return };
        reporter.report(Progress::Started(format!("Getting {name}")));
        reporter.report(match fetching.await {
            Ok(Ok(())) => Progress::Finished(name.to_owned()),
            Ok(Err(reason)) => Progress::Warning(format!("cannot get {name}, {consequence}: {reason}")),
            Err(error) => Progress::Warning(format!("cannot get {name}, {consequence}: {error}")),
        });
    }
}

/// A folder with the wheels of the packages and of the web UI, which is removed at the end.
struct Downloads {
    folder: PathBuf,
}

impl Downloads {
    /// Downloads all wheels by one pip, unless the other part did: each pip takes more than a second of processor time,
    /// as long as the rest of a first start. `None` if each part is to be downloaded separately, such as after a quick
    /// failure, which one missing wheel may cause.
    fn of<'a>(home: &Home, common: Option<&'a Common>) -> Result<Option<&'a Self>, ExtraError> {
        let Some(common) = common else { return Ok(None) };
        let fetch = || {
            let begun = Instant::now();
            match Self::fetch(home) {
                Err(_) if begun.elapsed() < QUICK_FAILURE => Ok(None),
                fetched => fetched.map(Some).map_err(Arc::new),
            }
        };
        Ok(common.get_or_init(fetch).as_ref().map_err(Arc::clone)?.as_ref())
    }

    fn fetch(home: &Home) -> Result<Self, ExtraError> {
        let downloads = Self { folder: files::temporary_neighbour(&home.python().join("download")) };
        let failed = |source| ExtraError::Folder { folder: downloads.folder.clone(), source };
        home.create_folder(&home.python()).map_err(failed)?;
        home.create_folder(&downloads.folder).map_err(failed)?;
        let packages: Vec<String> =
            python::package_requirements().chain([web_ui::requirement(preferred_ui())]).collect();
        let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
        let wheels = Wheels { packages: &packages, platforms: python::PACKAGE_PLATFORMS };
        wheel::download(&wheels, &downloads.folder, LIMIT)?;
        Ok(downloads)
    }
}

impl Drop for Downloads {
    fn drop(&mut self) {
        // A leftover only takes disk space.
        let _ = files::remove_any(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_download_is_a_warning() {
        let fetching = tokio::task::spawn_blocking(|| Err(DownloadError::NoPython.into()));
        let reported = std::sync::Mutex::new(Vec::new());
        let report = |progress: Progress| reported.lock().unwrap().push(progress);
        Extra::report_result(Some(Extra { name: "x", consequence: "y", fetching }), &report).await;
        assert!(matches!(reported.lock().unwrap().last(), Some(Progress::Warning(_))));
    }

    #[tokio::test]
    async fn the_ui_comes_from_the_common_download_or_its_own_source() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        let downloads = Downloads { folder: folder.path().join("download") };
        std::fs::create_dir(&downloads.folder).unwrap();
        let name = web_ui::requirement(preferred_ui()).replace('-', "_").replace("==", "-") + "-py3-none-any.whl";
        std::fs::write(downloads.folder.join(name), "altered").unwrap();
        let refused = async |common| {
            let common = Some(Arc::new(OnceLock::from(common)));
            Extra::ui(&home, UiSource::None, common).fetching.await.unwrap().unwrap_err().to_string()
        };
        let altered = refused(Ok(Some(downloads))).await;
        assert!(altered.contains("the file was altered"), "{altered}");
        assert!(!folder.path().join("download").exists(), "removed at the end");

        let failed = refused(Err(Arc::new(DownloadError::NoPython.into()))).await;
        assert_eq!(failed, DownloadError::NoPython.to_string());
        let own_source = refused(Ok(None)).await;
        assert!(own_source.contains("none"), "{own_source}");
    }
}
