//! The release that runs, its UI, and the releases that can replace it.

use crate::process::newest_release::NewestRelease;
use crate::process::own_program::OwnProgram;
use crate::process::ui_component::UiComponent;
use std::sync::Arc;

pub struct Release {
    pub version: &'static str,
    pub ui: Arc<UiComponent>,
    pub own_program: Arc<OwnProgram>,
    pub newest_release: Arc<NewestRelease>,
}

impl Release {
    pub fn new(version: &'static str) -> Self {
        Self { version, ui: Arc::default(), own_program: Arc::default(), newest_release: Arc::default() }
    }
}
