//! Starts a supervisor: a new one, or one that takes over from the previous supervisor.

use super::handover::{HandedOverChild, Inherited};
use super::resources::{ReleaseChange, Resources};
use crate::supervisor::children::api_socket::ApiSocket;
use crate::supervisor::children::child::SupervisedChild;
use crate::supervisor::children::logs::OwnLog;
use crate::supervisor::instance::Instance;
use crate::supervisor::own_pause::OwnPause;
use crate::supervisor::policy::{Event, Model};
use crate::supervisor::run::{Identity, Notice, Supervisor, SupervisorError};
use crate::supervisor::spec::Spec;
use leoflow_base::home::lock::HomeLock;
use leoflow_base::protocol::child::Notifier;
use leoflow_base::sys::net::listener;
use leoflow_base::sys::net::sd_notify::NotifySocket;
use leoflow_base::sys::process::{self, Signal};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{self, UnboundedReceiver};

impl Supervisor {
    /// Runs the instance until it is stopped. Must be called on the main thread, because Postgres gets its death signal
    /// when the thread that started it ends, and inside a current-thread runtime and a `LocalSet`.
    pub async fn run(
        instance: &Instance,
        tcp: TcpListener,
        identity: Identity,
        lock: Rc<HomeLock>,
        on_notice: &mut dyn FnMut(Notice),
    ) -> Result<(), SupervisorError> {
        let api = ApiSocket::open(&instance.home)?;
        let (lifeline, lifeline_writer) = listener::pipe()?;
        listener::set_nonblocking(&lifeline)?;
        let specs = instance.specs();
        let model = Model::new(specs.iter().map(|spec| spec.plan.clone()).collect());
        let resources = Resources { tcp, api, lifeline, lifeline_writer, lock };
        let (supervisor, events) = Self::new(instance, identity, specs, model, resources)?;
        supervisor.run_to_end(events, on_notice).await
    }

    /// Continues as the successor of a supervisor, with its children and resources.
    pub async fn take_over(
        instance: &Instance,
        identity: Identity,
        inherited: Inherited,
        on_notice: &mut dyn FnMut(Notice),
    ) -> Result<(), SupervisorError> {
        let Inherited { handover, resources, mut children } = inherited;
        let specs = instance.specs();
        let mut adopted: Vec<Option<HandedOverChild<OwnedFd>>> = Vec::new();
        for spec in &specs {
            let index = children.iter().position(|child| child.name == spec.plan.name);
            adopted.push(index.map(|index| children.swap_remove(index)));
        }
        // The remaining children are processes that this version does not have.
        children.iter().filter_map(|child| child.pid).for_each(|pid| process::signal_group(pid, Signal::Terminate));
        let pids: Vec<Option<i32>> = adopted.iter().map(|child| child.as_ref()?.pid).collect();
        let model = Model::adopting(specs.iter().map(|spec| spec.plan.clone()).collect(), &pids, Instant::now());
        let (mut supervisor, events) = Self::new(instance, identity, specs, model, resources)?;
        for (index, child) in adopted.into_iter().enumerate() {
            let Some(HandedOverChild { restarts, output, .. }) = child else { continue };
            supervisor.model.children[index].restarts = restarts;
            if let Some(output) = output {
                supervisor.children[index].adopt(output)?;
            }
        }
        supervisor.schema_version = handover.schema_version;
        supervisor.started =
            Instant::now().checked_sub(Duration::from_secs(handover.uptime_seconds)).unwrap_or_else(Instant::now);
        supervisor.announced = true;
        supervisor.run_to_end(events, on_notice).await
    }

    /// Returns the supervisor and the receiver of its `events`.
    fn new(
        instance: &Instance,
        identity: Identity,
        specs: Vec<Spec>,
        model: Model,
        resources: Resources,
    ) -> Result<(Self, UnboundedReceiver<Event>), SupervisorError> {
        process::become_subreaper()?;
        let home = &instance.home;
        let (events, event_receiver) = mpsc::unbounded_channel();
        let supervisor = Self {
            children: specs.into_iter().map(|spec| SupervisedChild::new(home, spec)).collect(),
            own_log: OwnLog::new(home, identity.log_level),
            announced: false,
            home: home.clone(),
            model,
            resources,
            notify: NotifySocket::bind(&home.notify_socket())?,
            events,
            identity,
            schema_version: None,
            started: Instant::now(),
            systemd: Notifier::from_environment(),
            waiters: Vec::new(),
            change: ReleaseChange { program: instance.program.clone(), ..ReleaseChange::default() },
            has_disk_space: true,
            own_pause: OwnPause::new(Instant::now()),
        };
        Ok((supervisor, event_receiver))
    }
}
