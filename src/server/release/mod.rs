//! The release that runs, its UI, its commands, and the newest release that can replace it.

pub(crate) mod newest_release;
pub(crate) mod own_program;
pub(crate) mod ui_component;

use leoflow_base::airflow_minors::WebUi;
use newest_release::NewestRelease;
use std::sync::Arc;
use ui_component::UiComponent;

#[derive(Clone)]
pub struct Release {
    pub version: &'static str,
    pub ui: Arc<UiComponent>,
    /// The web UI that the settings choose.
    pub web_ui: &'static WebUi,
    pub newest_release: Arc<NewestRelease>,
}

impl Release {
    pub fn new(version: &'static str, web_ui: &'static WebUi) -> Self {
        Self { version, ui: Arc::default(), web_ui, newest_release: Arc::default() }
    }
}
