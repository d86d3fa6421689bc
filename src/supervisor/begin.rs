//! How a supervisor comes to be: anew, or in the place of another.

use super::api_socket::ApiSocket;
use super::change::Watched;
use super::child::Child;
use super::handover::Inherited;
use super::instance::Instance;
use super::logs::OwnLog;
use super::policy::Model;
use super::run::{Identity, Notice, Supervisor, SupervisorError};
use super::spec::Spec;
use crate::home::lock::HomeLock;
use crate::protocol::child::Notifier;
use crate::sys::listener;
use crate::sys::notify::NotifySocket;
use crate::sys::process::{self, Signal};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What it stands on.
struct Found {
    tcp: TcpListener,
    api: ApiSocket,
    lifeline: OwnedFd,
    lifeline_held: OwnedFd,
    lock: Rc<HomeLock>,
}

impl Supervisor {
    /// Runs the instance until it is stopped. Must be called on the main thread (the kernel ties
    /// Postgres's end to this thread), inside a current-thread runtime and a `LocalSet`.
    pub async fn run(
        instance: &Instance,
        tcp: TcpListener,
        identity: Identity,
        lock: Rc<HomeLock>,
        told: &mut dyn FnMut(Notice),
    ) -> Result<(), SupervisorError> {
        let api = ApiSocket::open(&instance.home)?;
        let (lifeline, lifeline_held) = listener::pipe()?;
        listener::set_nonblocking(&lifeline)?;
        let specs = instance.specs();
        let model = Model::new(specs.iter().map(|spec| spec.plan.clone()).collect());
        let found = Found { tcp, api, lifeline, lifeline_held, lock };
        Self::new(instance, identity, specs, model, found)?.until_the_end(told).await
    }

    /// The same in the place of a supervisor before, with what it has left.
    pub async fn take_over(
        instance: &Instance,
        identity: Identity,
        inherited: Inherited,
        told: &mut dyn FnMut(Notice),
    ) -> Result<(), SupervisorError> {
        let Inherited { handover, tcp, api, lifeline, lifeline_held, lock, mut children } = inherited;
        let specs = instance.specs();
        let plans: Vec<_> = specs.iter().map(|spec| spec.plan.clone()).collect();
        let mut outputs = Vec::new();
        let mut pids = Vec::new();
        let mut restarts = Vec::new();
        for plan in &plans {
            let at = children.iter().position(|child| child.name == plan.name);
            let child = at.map(|at| children.swap_remove(at));
            restarts.push(child.as_ref().map_or(0, |child| child.restarts));
            pids.push(child.as_ref().and_then(|child| child.pid));
            outputs.push(child.and_then(|child| child.output));
        }
        // A kind of process that this version does not have.
        children.iter().filter_map(|child| child.pid).for_each(|pid| process::signal_group(pid, Signal::Terminate));
        let model = Model::adopting(plans, &pids, Instant::now());
        let found = Found { tcp, api, lifeline, lifeline_held, lock };
        let mut supervisor = Self::new(instance, identity, specs, model, found)?;
        for (index, output) in outputs.into_iter().enumerate() {
            if let Some(output) = output {
                supervisor.children[index].adopt(output)?;
            }
        }
        for (child, restarts) in supervisor.model.children.iter_mut().zip(restarts) {
            child.restarts = restarts;
        }
        supervisor.schema_version = handover.schema_version;
        supervisor.started =
            Instant::now().checked_sub(Duration::from_secs(handover.uptime_seconds)).unwrap_or_else(Instant::now);
        supervisor.announced = true;
        supervisor.until_the_end(told).await
    }

    fn new(
        instance: &Instance,
        identity: Identity,
        specs: Vec<Spec>,
        model: Model,
        found: Found,
    ) -> Result<Self, SupervisorError> {
        process::become_subreaper()?;
        let home = &instance.home;
        let supervisor = Self {
            children: specs.into_iter().map(|spec| Child::new(home, spec)).collect(),
            own_log: OwnLog::new(home, identity.log_level),
            announced: false,
            home: home.clone(),
            model,
            tcp: found.tcp,
            api: found.api,
            lifeline: found.lifeline,
            lifeline_held: found.lifeline_held,
            lock: found.lock,
            notify: NotifySocket::bind(&home.notify_socket())?,
            // The other end comes with the loop.
            events: mpsc::unbounded_channel().0,
            identity,
            schema_version: None,
            started: Instant::now(),
            systemd: Notifier::from_environment(),
            waiters: Vec::new(),
            program: instance.program.clone(),
            trial: None,
            change: Watched::default(),
            has_room: true,
            resume: None,
        };
        Ok(supervisor)
    }
}
