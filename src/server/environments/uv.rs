//! The uv that tasks make virtual environments with, got where there is none.

use super::Environments;
use crate::python::environments;
use crate::sys::blocking;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What could not be had is not asked for again so soon.
const AGAIN: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Getting(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Idle,
    UnderWay,
    Failed(String, Instant),
}

impl Environments {
    /// `None`: it is being got, ask again. The error is for people.
    pub async fn uv(self: &Arc<Self>) -> Result<Option<PathBuf>, String> {
        let home = self.home.clone();
        let find = move || environments::find_uv(&home).map(|uv| uv.program);
        if let Some(found) = blocking::run(find).await.map_err(|error| error.to_string())? {
            return Ok(Some(found));
        }
        let mut state = self.getting_uv.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::UnderWay => return Ok(None),
            State::Failed(reason, at) if at.elapsed() < AGAIN => return Err(reason.clone()),
            State::Failed(..) | State::Idle => *state = State::UnderWay,
        }
        let this = self.clone();
        tokio::spawn(async move {
            // An environment that is being built may be getting it too.
            let _turn = this.turn.lock().await;
            let home = this.home.clone();
            let get = move || environments::get_uv(&home, &|_| {}).map(drop);
            let got = blocking::run(get).await.unwrap_or_else(|error| Err(error.to_string()));
            let ended = got.map_or_else(|reason| State::Failed(reason, Instant::now()), |()| State::Idle);
            *this.getting_uv.0.lock().unwrap_or_else(PoisonError::into_inner) = ended;
        });
        Ok(None)
    }
}
