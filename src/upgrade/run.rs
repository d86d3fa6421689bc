//! Following the plan.

use super::ending::{self, Ending};
use super::finish::{self, Ended};
use super::import_evidence::Releases;
use super::outcome::{Outcome, Status};
use super::plan::Plan;
use super::program;
use super::smoke::{self, KnownFaults, ServerEndpoint, Smoke};
use super::source::Source;
use super::steps::{self, Direction, State, Step};
use super::work::{Notes, Work};
use super::{UpgradeError, failed_release, history, snapshot, stage};
use crate::backup::automatic::{self, Automatic};
use crate::home::Home;
use crate::home::journal::{Journal, Operation};
use crate::home::progress::Progress;
use crate::postgres::acquire::{self, Staged};
use crate::sys::{checkpoint, files};
use crate::web_ui;
use std::path::PathBuf;
use std::time::Instant;

/// Where the other release comes from.
#[derive(Debug, Clone, Copy)]
pub enum ReleaseSource<'a> {
    Fetched(&'a Source),
    /// A newer one that is kept among the versions.
    Kept,
    /// An older one that is kept: the way back.
    Installed,
}

impl ReleaseSource<'_> {
    fn direction(self) -> Direction {
        match self {
            Self::Fetched(_) | Self::Kept => Direction::Up,
            Self::Installed => Direction::Down,
        }
    }
}

/// Changes the release. The caller has the operation to itself. While nothing was changed yet, it gives up when
/// `cancelled` completes.
pub async fn upgrade(
    work: &mut Work<'_>,
    plan: Plan,
    release_source: ReleaseSource<'_>,
    known: KnownFaults,
    cancelled: impl Future<Output = ()>,
) -> Result<Outcome, UpgradeError> {
    let mut state = begin(work.home, plan, release_source.direction(), known);
    let steps = Step::ALL.map(|step| step.name().to_owned()).to_vec();
    let mut journal = Journal::begin_with(work.home, Operation::Upgrade, steps, state.to_json())?;
    let fault = work.follow(&mut journal, &mut state, release_source, cancelled).await.err();
    let ending = match &fault {
        None => Ending::Complete,
        Some(fault) => work.ending_after(fault, &mut journal, &mut state).await?,
    };
    let begun = Instant::now();
    let ended = finish::end(work, journal, &mut state, ending).await?;
    if matches!(ended, Ended::WentBack | Ended::Left) {
        work.took("Going back", begun);
        work.remember_failure(&state, fault.as_ref());
    }
    if matches!(&ended, Ended::Completed { .. }) && fault.is_none() {
        // A note that stays only warns.
        let _ = failed_release::forget(work.home, &state.plan.to);
    }
    Ok(work.outcome(&state, ended, fault))
}

fn begin(home: &Home, plan: Plan, direction: Direction, known_faults: KnownFaults) -> State {
    State {
        snapshot: snapshot::name(&plan.to),
        had_program: stage::program_of(home, &plan.to).exists(),
        new_program: stage::program_of(home, &plan.to),
        direction,
        plan,
        backup: None,
        new_postgres: None,
        migrations_run: Vec::new(),
        expected_pause: None,
        rehearsed_trial: None,
        known_faults,
        leaving: None,
    }
}

impl Work<'_> {
    /// All steps until the new release is in force and works.
    async fn follow(
        &mut self,
        journal: &mut Journal,
        state: &mut State,
        release_source: ReleaseSource<'_>,
        cancelled: impl Future<Output = ()>,
    ) -> Result<(), UpgradeError> {
        let postgres = tokio::select! {
            prepared = self.prepare(journal, state, release_source) => prepared?,
            () = cancelled => return Err(UpgradeError::Cancelled),
        };
        self.switch(journal, state, postgres).await?;
        self.open(journal, state).await
    }

    /// A release that was taken back. A note that cannot be written costs a warning the next time.
    fn remember_failure(&self, state: &State, fault: Option<&UpgradeError>) {
        let reason = fault.map(ToString::to_string).unwrap_or_default();
        let _ = match state.direction {
            Direction::Up => failed_release::remember(self.home, &state.plan.to, &reason),
            Direction::Down => Ok(()),
        };
    }

    /// What is to be done about a failure.
    async fn ending_after(
        &mut self,
        fault: &UpgradeError,
        journal: &mut Journal,
        state: &mut State,
    ) -> Result<Ending, UpgradeError> {
        let step = steps::reached(journal.entry());
        let may_leave = step >= Step::Open
            && state.direction == Direction::Up
            && state.plan.is_reversible()
            && !self.no_rollback
            && finish::can_leave(self, state).await;
        let ending = ending::of_failure(step, may_leave);
        let what_follows = match ending {
            Ending::Forget => None,
            Ending::GoBack | Ending::Leave => Some("going back"),
            Ending::Complete => Some("it stays all the same"),
        };
        if let Some(what_follows) = what_follows {
            self.reporter.report(Progress::Warning(format!("{fault}; {what_follows}")));
        }
        if ending == Ending::GoBack {
            // A write that failed may have come through all the same, and whoever goes on with it has to decide the
            // same. On a full disk this one fails too: it is gone back none the less.
            let _ = journal.set_at(journal.entry().at);
        }
        if ending == Ending::Leave {
            state.leaving = Some(fault.to_string());
            journal.set_plan(state.to_json())?;
            checkpoint("upgrade.leaving");
        }
        Ok(ending)
    }

    /// Does a step, tells how long it took, and writes down that it was done.
    pub async fn step<T>(
        &mut self,
        journal: &mut Journal,
        step: Step,
        act: impl AsyncFnOnce(&mut Self) -> Result<T, UpgradeError>,
    ) -> Result<T, UpgradeError> {
        let begun = Instant::now();
        self.reporter.report(Progress::Started(step.title().to_owned()));
        let done = act(self).await?;
        self.took(step.title(), begun);
        journal.advance()?;
        Ok(done)
    }

    fn took(&mut self, what: &str, begun: Instant) {
        let line = format!("{what}... {:.1} s", begun.elapsed().as_secs_f64());
        self.reporter.report(Progress::Finished(line.clone()));
        self.notes.details.push(line);
    }

    pub fn smoke(&self, state: &State, endpoint: ServerEndpoint) -> Smoke<'_> {
        Smoke {
            config: self.config,
            endpoint,
            version: state.plan.to.to_string(),
            known: state.known_faults.clone(),
            releases: Some(stage::program_of(self.home, &state.plan.from))
                .filter(|before| before.is_file())
                .map(|before| Releases { home: self.home.clone(), before, new: state.new_program.clone() }),
            config_file: Some(self.home.config()),
        }
    }

    /// What a smoke test has found against the release; what is wrong elsewhere is reported.
    pub fn judge(&mut self, checks: &[smoke::Check]) -> Option<String> {
        smoke::warnings(checks).for_each(|text| self.reporter.report(Progress::Warning(text)));
        smoke::failure(checks)
    }

    /// Everything that can be done while the release before goes on as ever. Returns a PostgreSQL that is to be
    /// installed.
    async fn prepare(
        &mut self,
        journal: &mut Journal,
        state: &mut State,
        release_source: ReleaseSource<'_>,
    ) -> Result<Option<Staged>, UpgradeError> {
        let plan = state.plan.clone();
        let postgres = match release_source {
            ReleaseSource::Fetched(source) => {
                self.step(journal, Step::Fetch, async |work| work.fetch(&plan, source).await).await?
            }
            ReleaseSource::Kept | ReleaseSource::Installed => {
                let about = stage::check(&state.new_program, &plan.to)?;
                journal.advance()?;
                self.notes.commit = about.commit;
                None
            }
        };
        let why = if state.direction == Direction::Up { "upgrade" } else { "rollback" };
        let backup = self.step(journal, Step::Backup, async |work| work.back_up(why).await).await?;
        state.backup = Some(backup.clone());
        journal.set_plan(state.to_json())?;
        match release_source {
            ReleaseSource::Fetched(_) | ReleaseSource::Kept => {
                let rehearsed = self.step(journal, Step::Rehearse, async |work| work.rehearse(state, &backup).await);
                (state.expected_pause, state.rehearsed_trial) = rehearsed.await?.unzip();
            }
            // What is undone was tried when it was done; the copy of the database is the net.
            ReleaseSource::Installed => journal.advance()?,
        }
        Ok(postgres)
    }

    async fn fetch(&mut self, plan: &Plan, source: &Source) -> Result<Option<Staged>, UpgradeError> {
        let downloads = self.home.upgrade().join("download");
        let write = |path: &PathBuf| {
            let path = path.clone();
            move |source| UpgradeError::Write { path, source }
        };
        files::create_private_dir(&self.home.upgrade()).map_err(write(&self.home.upgrade()))?;
        files::create_private_dir(&downloads).map_err(write(&downloads))?;
        files::create_private_dir(&self.home.versions()).map_err(write(&self.home.versions()))?;
        let archive = source.fetch(&plan.program, &downloads, self.reporter).await?;
        self.notes.commit = stage::program(self.home, &archive, &plan.to)?.commit;
        let mut postgres = None;
        for (component, wanted) in plan.fetched() {
            let archive = source.fetch(wanted, &downloads, self.reporter).await?;
            let failed = |reason| UpgradeError::Component { name: component.name.clone(), reason };
            if component.name == web_ui::COMPONENT {
                // Each version has a place of its own, and what is in use stays.
                web_ui::install_component(self.home, &component.version, &archive).map_err(failed)?;
            } else {
                postgres = Some(acquire::stage(self.home, &archive, &wanted.sha256).map_err(failed)?);
            }
        }
        Ok(postgres)
    }

    async fn back_up(&mut self, why: &str) -> Result<PathBuf, UpgradeError> {
        let pinned =
            history::ways_back(self.home).map_err(|source| UpgradeError::Read { path: self.home.upgrade(), source })?;
        let with = Automatic {
            home: self.home,
            access: &self.access,
            config: self.config,
            version: self.own_version,
            pinned: &pinned,
            reporter: self.reporter,
        };
        Ok(automatic::always(why, &with).await?.path)
    }

    /// From the pause to a new server that works and that nobody else can reach yet.
    async fn switch(
        &mut self,
        journal: &mut Journal,
        state: &mut State,
        postgres: Option<Staged>,
    ) -> Result<(), UpgradeError> {
        snapshot::prepare(&self.access).await?;
        // Written down first: what is half there is taken back too.
        state.new_postgres = postgres.as_ref().map(|staged| staged.place.clone());
        journal.set_plan(state.to_json())?;
        self.step(journal, Step::LetGo, async |work| {
            work.notes.paused = Some(Instant::now());
            work.host.let_go()?;
            let Some(staged) = postgres else { return Ok(()) };
            let failed = |reason| UpgradeError::Component { name: "postgres".to_owned(), reason };
            staged.commit(work.home).map_err(failed)?;
            Ok(work.host.restart_datastore(work.home, &mut work.access).await?)
        })
        .await?;
        self.step(journal, Step::Snapshot, async |work| {
            Ok(snapshot::take(work.home, &work.access, &state.snapshot).await?)
        })
        .await?;
        state.migrations_run = self
            .step(journal, Step::Migrate, async |work| match state.direction {
                Direction::Up => work.migrate(state).await,
                Direction::Down => finish::undo_migrations(work, state.plan.schema_to).await,
            })
            .await?;
        journal.set_plan(state.to_json())?;
        self.step(journal, Step::Trial, async |work| {
            // Import errors were judged in the rehearsal and are judged again behind the open door, where nobody waits.
            let smoke = work.smoke(state, ServerEndpoint::Open);
            let known = KnownFaults { import_errors: None, ..smoke.known.clone() };
            let smoke = Smoke { config: work.config, known, ..smoke };
            let limit = state.trial_limit(program::trial_limit());
            let endpoint =
                ServerEndpoint::Private(work.host.begin_trial(&state.new_program, work.home, &smoke, limit).await?);
            let on_trial = Smoke { endpoint, ..smoke };
            let Ok(checks) = tokio::time::timeout(limit, on_trial.on_trial()).await else {
                let reason = format!("it did not pass within {} s", limit.as_secs());
                return Err(UpgradeError::Smoke { reason, log: String::new() });
            };
            match work.judge(&checks) {
                Some(reason) => Err(UpgradeError::Smoke { reason, log: String::new() }),
                None => Ok(()),
            }
        })
        .await
    }

    /// The new server gets the listeners, and has to work through them.
    async fn open(&mut self, journal: &mut Journal, state: &State) -> Result<(), UpgradeError> {
        self.step(journal, Step::Open, async |work| Ok(work.host.open(&state.new_program)?)).await?;
        if !self.host.is_live() {
            return Ok(journal.advance()?);
        }
        let pause = self.notes.paused.map(|paused| paused.elapsed()).unwrap_or_default();
        self.notes.pause = Some(pause);
        let expected = state.expected_pause.map(|seconds| format!("; {seconds:.1} s were expected"));
        let text = format!("the pause took {:.1} s{}", pause.as_secs_f64(), expected.unwrap_or_default());
        self.reporter.report(Progress::Note(text));
        self.step(journal, Step::Smoke, async |work| {
            let checks = work.smoke(state, ServerEndpoint::Open).whole().await;
            match work.judge(&checks) {
                Some(reason) => Err(UpgradeError::Smoke { reason, log: String::new() }),
                None => Ok(()),
            }
        })
        .await
    }

    fn outcome(&mut self, state: &State, ended: Ended, fault: Option<UpgradeError>) -> Outcome {
        let is_forgotten = matches!(ended, Ended::Forgotten);
        let (status, fault) = match (ended, state.direction) {
            (Ended::Forgotten, _) | (Ended::WentBack, Direction::Down) => (Status::Failed, fault),
            (Ended::WentBack, Direction::Up) | (Ended::Left, _) => (Status::RolledBack, fault),
            (Ended::Stayed { lost, .. } | Ended::Completed { lost }, direction) => match (fault.or(lost), direction) {
                (Some(fault), Direction::Up) => (Status::UpgradedWithProblem, Some(fault)),
                (Some(fault), Direction::Down) => (Status::RolledBackWithProblem, Some(fault)),
                (None, Direction::Up) => (Status::Upgraded, None),
                (None, Direction::Down) => (Status::RolledBack, None),
            },
        };
        let Notes { details, commit, pause, .. } = std::mem::take(&mut self.notes);
        let commit = commit.filter(|_| !is_forgotten);
        Outcome {
            status,
            previous_version: state.plan.from.to_string(),
            new_version: state.plan.to.to_string(),
            commit,
            migrations_run: state.migrations_run.clone(),
            backup_path: state.backup.clone(),
            details,
            notes: Vec::new(),
            expected_pause: state.expected_pause,
            pause: pause.map(|pause| pause.as_secs_f64()),
            problem: fault.as_ref().map(ToString::to_string),
            fault,
        }
    }
}
