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
    /// The running tries by folder, with the requests to stop them.
    running: HashMap<PathBuf, Rc<Notify>>,
    tasks: JoinSet<()>,
    /// The folders of the tries in `tasks`; other requests have none.
    folders: HashMap<Id, PathBuf>,
    /// True if no request has come since the last [`Event::Idle`].
    was_idle: bool,
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
        Ok(Self {
            context: Rc::new(context),
            running: HashMap::new(),
            tasks: JoinSet::new(),
            folders: HashMap::new(),
            was_idle: true,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// The folders of the running tries.
    pub fn folders(&self) -> Vec<PathBuf> {
        self.running.keys().cloned().collect()
    }

    /// Begins to do what the agent requests.
    pub fn handle(&mut self, request: Request) {
        self.was_idle = false;
        let context = self.context.clone();
        match request {
            Request::Start(start) => self.start(start),
            Request::Stop(folder) => self.running.get(&folder).into_iter().for_each(|stop| stop.notify_one()),
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
        let (folder, stop) = (start.folder.clone(), Rc::new(Notify::new()));
        self.running.insert(folder.clone(), stop.clone());
        self.context.children.add_try(TaskFolder::at(folder.clone()).mark());
        let handle = self.tasks.spawn_local(run(self.context.clone(), start, stop));
        self.folders.insert(handle.id(), folder);
    }

    /// Ends all tries.
    pub fn stop_all(&self) {
        self.running.values().for_each(|stop| stop.notify_one());
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
            if let Some(folder) = self.folders.remove(&id) {
                self.running.remove(&folder);
                self.context.children.remove_try(&TaskFolder::at(folder.clone()).mark());
                return Event::Ended(folder);
            }
        }
    }
}

/// Runs a try to its end, unless another keeper has it.
async fn run(context: Rc<Context>, start: Box<Start>, stop: Rc<Notify>) {
    let folder = TaskFolder::at(start.folder.clone());
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
            self.children.begin_fork();
            let forked = self.fork(folder, start, warm).await;
            self.children.end_fork();
            if let Some(task) = forked? {
                return Ok(Some(task));
            }
        }
        let task = RunningTask::start(folder, start)?;
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
        let forked = self.warm.fork(interpreter, usage_key, *template, &request, ends.as_fds()).await;
        let Some(forked) = forked else { return Ok(None) };
        self.children.add_task(forked.pid);
        let task = RunningTask::new(folder, start, forked.pid, pipes);
        // Fails if the process was killed meanwhile, which is then its end.
        let _ = forked.begin();
        Ok(Some(task))
    }
}
