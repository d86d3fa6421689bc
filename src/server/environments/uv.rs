//! Finds or downloads uv, the package installer, for tasks that create virtual environments.

use super::{CodeError, Environments};
use leoflow_base::sys::blocking;
use leoflow_base::sys::mutex::lock;
use leoflow_python::environments::{self, EnvironmentError};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
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
    Failed(Arc<CodeError>, Instant),
}

impl Environments {
    /// Returns the path of uv; `None` while it is being downloaded.
    pub async fn uv(self: &Arc<Self>) -> Result<Option<PathBuf>, Arc<CodeError>> {
        let home = self.core.home.clone();
        let find = move || environments::find_uv(&home).map(|uv| uv.program);
        if let Some(program) = blocking::run(find).await.map_err(CodeError::from)? {
            return Ok(Some(program));
        }
        let mut state = lock(&self.uv_download.0);
        match &*state {
            State::UnderWay => return Ok(None),
            State::Failed(error, failed_at) if failed_at.elapsed() < RETRY_DELAY => return Err(error.clone()),
            State::Failed(..) | State::Idle => *state = State::UnderWay,
        }
        let this = self.clone();
        tokio::spawn(async move {
            let home = this.core.home.clone();
            let download = move || environments::ensure_uv(&home, &|_| {}).map(drop).map_err(EnvironmentError::from);
            let downloaded = async { Ok::<_, CodeError>(blocking::run(download).await??) }.await;
            let failed = |error| State::Failed(Arc::new(error), Instant::now());
            let new_state = downloaded.map_or_else(failed, |()| State::Idle);
            *lock(&this.uv_download.0) = new_state;
        });
        Ok(None)
    }
}
