//! A pool of zygotes (warm Pythons) that all tasks of a process share. It ends idle zygotes itself.

use super::interpreter::Interpreter;
use super::warm::Warm;
use super::zygote::Forked;
use leoflow_base::home::Home;
use serde_json::Value;
use std::cell::Cell;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, timeout};

/// Time after which a zygote that loads is looked at again.
const LOADING_CHECK: Duration = Duration::from_secs(10);

/// Must be used in a `LocalSet` on the process's main thread.
pub struct SharedWarm(Rc<Shared>);

struct Shared {
    pool: Mutex<Warm>,
    /// True while a task ends zygotes that become idle.
    is_watched: Cell<bool>,
    /// [`Warm::has_failures`] when the last zygote ended.
    has_failures: Cell<bool>,
    /// Notified when the last zygote has ended.
    emptied: Notify,
}

impl SharedWarm {
    /// A pool for tasks.
    pub fn for_tasks(home: &Home) -> Self {
        Self::new(Warm::new(home))
    }

    /// A pool for DAG files, with one zygote at a time.
    pub(crate) fn for_files(home: &Home) -> Self {
        Self::new(Warm::single(home))
    }

    fn new(pool: Warm) -> Self {
        Self(Rc::new(Shared {
            pool: Mutex::new(pool),
            is_watched: Cell::new(false),
            has_failures: Cell::new(false),
            emptied: Notify::new(),
        }))
    }

    /// Starts the zygote for a task or file if it is missing, and waits at most `limit` until it has loaded or failed.
    pub async fn wait(&self, interpreter: &Interpreter, usage_key: &str, limit: Duration) {
        let loading = self.0.pool.lock().await.loading(interpreter, usage_key);
        self.end_idle();
        if let Some(loading) = loading {
            let _ = timeout(limit, loading).await;
        }
    }

    /// Starts the template of a DAG version if it is missing, and waits until it is ready or has failed, at most `limit`;
    /// then the version gets none. See [`Warm::template_loading`].
    pub async fn wait_for_template(
        &self,
        interpreter: &Interpreter,
        usage_key: &str,
        version: i64,
        options: &Value,
        limit: Duration,
    ) {
        let loading = self.0.pool.lock().await.template_loading(interpreter, usage_key, version, options).await;
        self.end_idle();
        if let Some(loading) = loading
            && timeout(limit, loading).await.is_err()
        {
            self.0.pool.lock().await.refuse(version, "its DAG file takes long to import", None);
        }
    }

    /// See [`Warm::fork`].
    pub async fn fork(
        &self,
        interpreter: &Interpreter,
        usage_key: &str,
        version: Option<i64>,
        request: &Value,
        descriptors: [BorrowedFd<'_>; 3],
    ) -> Option<Forked> {
        let forked = self.0.pool.lock().await.fork(interpreter, usage_key, version, request, descriptors).await;
        self.end_idle();
        forked
    }

    /// Starts a zygote before the first fork, if no other must end for it. This also compiles our package, so that the
    /// first run after an installation or an upgrade does not wait for the compilation. A failure is reported at the
    /// first fork.
    pub async fn prepare(&self, interpreter: &Interpreter, usage_key: &str) {
        if self.0.pool.lock().await.has_room() {
            self.wait(interpreter, usage_key, Duration::ZERO).await;
        }
    }

    /// See [`Warm::note_libraries`].
    pub async fn note_libraries(&self, interpreter: &Interpreter, usage_key: &str, libraries: &[String]) {
        self.0.pool.lock().await.note_libraries(interpreter, usage_key, libraries);
    }

    /// Returns the DAG versions that get no template, each once.
    pub fn take_refused(&self) -> Vec<i64> {
        self.0.pool.try_lock().map(|mut pool| pool.take_refused()).unwrap_or_default()
    }

    /// True while no zygote runs, and no failure of one must be remembered.
    pub fn is_empty(&self) -> bool {
        !self.0.is_watched.get() && !self.0.has_failures.get()
    }

    /// Completes when the last zygote has ended.
    pub async fn emptied(&self) {
        self.0.emptied.notified().await;
    }

    /// Starts a task that ends zygotes when they are idle, unless such a task runs already.
    fn end_idle(&self) {
        if self.0.is_watched.replace(true) {
            return;
        }
        let shared = self.0.clone();
        tokio::task::spawn_local(async move {
            loop {
                let mut pool = shared.pool.lock().await;
                pool.drop_idle();
                if pool.is_empty() {
                    shared.has_failures.set(pool.has_failures());
                    break;
                }
                let (loading, idle_at) = (pool.any_loading(), pool.idle_at());
                drop(pool);
                let idle_at = idle_at.unwrap_or_else(|| Instant::now() + LOADING_CHECK);
                match loading {
                    Some(loading) => drop(tokio::time::timeout_at(idle_at, loading).await),
                    None => tokio::time::sleep_until(idle_at).await,
                }
            }
            shared.is_watched.set(false);
            shared.emptied.notify_one();
        });
    }
}
