//! The tries that a keeper runs: starts each, from a warm Python if possible, and writes its outcome.

use super::children::Children;
use super::folder::TaskFolder;
use super::messages::{Event, Libraries, Request, Start, WarmStart};
use super::task::{Pipes, RunningTask, retry_transient};
use super::task_files::{Cause, Outcome};
use jiff::Timestamp;
use leoflow_base::home::Home;
use leoflow_base::sys::process::ProcessId;
use leoflow_python::SharedWarm;
use serde_json::json;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{Id, JoinSet};
use tracing::warn;

/// How long a try waits for a warm Python that is loading, which takes no longer than a cold start: with our package a
/// tenth of this time.
const WARM_WAIT: Duration = Duration::from_secs(1);
const SDK_WAIT: Duration = Duration::from_secs(600);
/// Time limit for a template to import its DAG file; tries of slower files import it themselves.
const TEMPLATE_WAIT: Duration = Duration::from_secs(10);

pub struct Tries {
    context: Rc<Context>,
    tasks: JoinSet<()>,
    /// The tries in `tasks`, which has other requests too.
    running: HashMap<Id, Try>,
    /// True if no request has come since the last [`Event::Idle`].
    was_idle: bool,
}

/// A running try.
struct Try {
    folder: TaskFolder,
    /// Notified to end it.
    stop: Rc<Notify>,
}

/// What all tries share.
struct Context {
    own_id: ProcessId,
    warm: SharedWarm,
    children: Rc<Children>,
}

impl Tries {
    pub fn new(home: &Home, children: Rc<Children>) -> io::Result<Self> {
        let own_id = ProcessId::current().ok_or_else(|| io::Error::other("this process is not in /proc"))?;
        let context = Context { own_id, warm: SharedWarm::for_tasks(home), children };
        Ok(Self { context: Rc::new(context), tasks: JoinSet::new(), running: HashMap::new(), was_idle: true })
    }

    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// The folders of the running tries.
    pub fn folders(&self) -> Vec<PathBuf> {
        self.running.values().map(|running| running.folder.path().to_owned()).collect()
    }

    /// Begins to do what the agent requests.
    pub fn handle(&mut self, request: Request) {
        self.was_idle = false;
        let context = self.context.clone();
        match request {
            Request::Start(start) => self.start(start),
            Request::Stop(folder) => self.stop(|running| running.folder.path() == folder),
            Request::Prepare { interpreter, usage_key } => {
                self.tasks.spawn_local(async move { context.warm.prepare(&interpreter, &usage_key).await });
            }
            Request::Libraries(Libraries { interpreter, usage_key, libraries }) => {
                self.tasks.spawn_local(async move {
                    context.warm.note_libraries(&interpreter, &usage_key, &libraries).await;
                });
            }
        }
    }

    fn start(&mut self, start: Box<Start>) {
        let (folder, stop) = (TaskFolder::at(start.folder.clone()), Rc::new(Notify::new()));
        self.context.children.add_try(folder.mark());
        let handle = self.tasks.spawn_local(run(self.context.clone(), folder.clone(), start, stop.clone()));
        self.running.insert(handle.id(), Try { folder, stop });
    }

    /// Ends all tries.
    pub fn stop_all(&self) {
        self.stop(|_| true);
    }

    fn stop(&self, is_meant: impl Fn(&Try) -> bool) {
        self.running.values().filter(|running| is_meant(running)).for_each(|running| running.stop.notify_one());
    }

    /// Reports again that nothing runs, for an agent that has just connected.
    pub fn note_new_agent(&mut self) {
        self.was_idle = false;
    }

    /// Waits for the next event: the end of a try, or once after each request that nothing runs any more.
    pub async fn next_event(&mut self) -> Event {
        loop {
            let warm = &self.context.warm;
            let refused = warm.take_refused();
            if !refused.is_empty() {
                return Event::Refused(refused);
            }
            if !self.was_idle && self.tasks.is_empty() && warm.is_empty() {
                self.was_idle = true;
                return Event::Idle;
            }
            let ended = tokio::select! {
                Some(ended) = self.tasks.join_next_with_id() => ended,
                () = warm.emptied() => continue,
            };
            let id = ended.map_or_else(|panic| panic.id(), |(id, ())| id);
            if let Some(Try { folder, .. }) = self.running.remove(&id) {
                self.context.children.remove_try(&folder.mark());
                return Event::Ended(folder.path().to_owned());
            }
        }
    }
}

/// Runs a try to its end, unless another keeper has it.
async fn run(context: Rc<Context>, folder: TaskFolder, start: Box<Start>, stop: Rc<Notify>) {
    match folder.take(&context.own_id) {
        Ok(true) => {}
        Ok(false) => return,
        // The agent queues the try again, because nothing has taken it.
        Err(error) => return warn!("cannot take {}: {error}", folder.path().display()),
    }
    let outcome = match context.begin(&folder, &start, &stop).await {
        Ok(Some(task)) => task.keep(&stop, &context.children).await,
        Ok(None) => stopped_early(),
        Err(error) => Outcome::not_started(&error),
    };
    let written = retry_transient(&folder, "the outcome", || folder.write_outcome(&outcome)).await;
    if let Err(error) = written {
        warn!("cannot write the outcome in {}: {error}", folder.path().display());
    }
}

/// The outcome of a try that was stopped before its task was started.
fn stopped_early() -> Outcome {
    let problem = Some("the task was stopped before it could begin".to_owned());
    Outcome { exit: None, ended_at: Timestamp::now(), cause: Some(Cause::Stopped), problem, transient: false }
}

impl Context {
    /// Starts the task; `None` if it was stopped before.
    async fn begin(&self, folder: &TaskFolder, start: &Start, stop: &Notify) -> io::Result<Option<RunningTask>> {
        folder.reserve_outcome()?;
        if let Some(warm) = &start.warm {
            tokio::select! {
                () = self.prepare(warm) => {}
                () = stop.notified() => return Ok(None),
            }
            if let Some(task) = self.fork(folder, start, warm).await? {
                return Ok(Some(task));
            }
        }
        let task = RunningTask::start(folder, &self.own_id, start)?;
        self.children.add_task(task.pid());
        Ok(Some(task))
    }

    /// Waits for a warm Python, and for the template of the DAG version.
    async fn prepare(&self, WarmStart { interpreter, usage_key, options, template }: &WarmStart) {
        let limit = if interpreter.has_airflow_sdk { SDK_WAIT } else { WARM_WAIT };
        self.warm.wait(interpreter, usage_key, limit).await;
        if let Some(version) = template {
            self.warm.wait_for_template(interpreter, usage_key, *version, options, TEMPLATE_WAIT).await;
        }
    }

    /// Forks the task from a warm Python; `None` if it must start cold.
    async fn fork(&self, folder: &TaskFolder, start: &Start, warm: &WarmStart) -> io::Result<Option<RunningTask>> {
        let (pipes, ends) = Pipes::new()?;
        let request = json!({
            "job": "task", "mark": folder.mark(), "options": warm.options, "oom_score": super::task::OOM_SCORE,
        });
        let WarmStart { interpreter, usage_key, template, .. } = warm;
        let _forking = self.children.begin_fork();
        let forked = self.warm.fork(interpreter, usage_key, *template, &request, ends.as_fds()).await;
        let Some(forked) = forked else { return Ok(None) };
        self.children.add_task(forked.pid);
        let task = RunningTask::new(folder, &self.own_id, start, forked.pid, pipes);
        // Fails if the process was killed meanwhile, which is then its end.
        let _ = forked.begin();
        Ok(Some(task))
    }
}
