//! Finds or downloads uv, the package installer, for tasks that create virtual environments.

use super::Environments;
use leoflow_base::sys::blocking;
use leoflow_python::environments;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Retry delay after a failed download.
const RETRY_DELAY: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct UvDownload(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Idle,
    UnderWay,
    Failed(String, Instant),
}

impl Environments {
    /// Returns the path of uv; `None` while it is being downloaded. The error is a text for users.
    pub async fn uv(self: &Arc<Self>) -> Result<Option<PathBuf>, String> {
        let home = self.core.home.clone();
        let find = move || environments::find_uv(&home).map(|uv| uv.program);
        if let Some(program) = blocking::run(find).await.map_err(|error| error.to_string())? {
            return Ok(Some(program));
        }
        let mut state = self.uv_download.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::UnderWay => return Ok(None),
            State::Failed(reason, failed_at) if failed_at.elapsed() < RETRY_DELAY => return Err(reason.clone()),
            State::Failed(..) | State::Idle => *state = State::UnderWay,
        }
        let this = self.clone();
        tokio::spawn(async move {
            let home = this.core.home.clone();
            let download = move || environments::ensure_uv(&home, &|_| {}).map(drop).map_err(|error| error.to_string());
            let downloaded = blocking::run(download).await.unwrap_or_else(|error| Err(error.to_string()));
            let new_state = downloaded.map_or_else(|reason| State::Failed(reason, Instant::now()), |()| State::Idle);
            *this.uv_download.0.lock().unwrap_or_else(PoisonError::into_inner) = new_state;
        });
        Ok(None)
    }
}
