//! The actions of an upgrade's steps.

use super::{Direction, State};
use crate::backup::create::automatic::{self, Automatic};
use crate::upgrade::UpgradeError;
use crate::upgrade::finish;
use crate::upgrade::import_evidence::Releases;
use crate::upgrade::plan::Plan;
use crate::upgrade::release::program;
use crate::upgrade::release::source::Source;
use crate::upgrade::release::stage;
use crate::upgrade::rollback::{history, snapshot};
use crate::upgrade::smoke::{self, KnownFaults, ServerEndpoint, Smoke};
use crate::upgrade::upgrade_context::UpgradeContext;
use leoflow_base::home::progress::Progress;
use leoflow_base::sys::fs::files;
use leoflow_base::web_ui;
use leoflow_postgres::install::acquire::{self, Staged};
use std::path::PathBuf;
use std::time::Instant;

impl UpgradeContext<'_> {
    /// Downloads the release's program and components, and installs them next to the ones in use. Only stages a new
    /// PostgreSQL and returns it; `pause` installs it.
    pub(in crate::upgrade) async fn fetch(
        &mut self,
        plan: &Plan,
        source: &Source,
    ) -> Result<Option<Staged>, UpgradeError> {
        let downloads = self.home.upgrade().join("download");
        let write_error = |path: &PathBuf| {
            let path = path.clone();
            move |source| UpgradeError::Write { path, source }
        };
        files::create_private_dir(&self.home.upgrade()).map_err(write_error(&self.home.upgrade()))?;
        files::create_private_dir(&downloads).map_err(write_error(&downloads))?;
        files::create_private_dir(&self.home.versions()).map_err(write_error(&self.home.versions()))?;
        let archive = source.fetch(&plan.program, &downloads, self.reporter).await?;
        self.notes.commit = stage::program(self.home, &archive, &plan.to)?.commit;
        let mut postgres = None;
        for (component, release_file) in plan.fetched() {
            let archive = source.fetch(release_file, &downloads, self.reporter).await?;
            let failed = |reason| UpgradeError::Component { name: component.name.clone(), reason };
            if component.name == web_ui::COMPONENT {
                // Each version has a folder of its own, so the UI in use is not replaced.
                web_ui::install_component(self.home, &component.version, &archive).map_err(failed)?;
            } else {
                postgres = Some(acquire::stage(self.home, &archive, &release_file.sha256).map_err(failed)?);
            }
        }
        Ok(postgres)
    }

    pub(in crate::upgrade) async fn create_backup(&mut self, backup_reason: &str) -> Result<PathBuf, UpgradeError> {
        let pinned = history::rollback_backups(self.home)
            .map_err(|source| UpgradeError::Read { path: self.home.upgrade(), source })?;
        let automatic_backup = Automatic {
            home: self.home,
            access: &self.access,
            config: self.config,
            version: self.own_version,
            pinned: &pinned,
            reporter: self.reporter,
        };
        Ok(automatic::create_even_if_empty(backup_reason, &automatic_backup).await?.path)
    }

    /// Stops server and agent. If the release has a new PostgreSQL, installs it and restarts the datastore with it.
    pub(in crate::upgrade) async fn pause(&mut self, postgres: Option<Staged>) -> Result<(), UpgradeError> {
        self.notes.paused = Some(Instant::now());
        self.host.pause()?;
        let Some(staged) = postgres else { return Ok(()) };
        let failed = |reason| UpgradeError::Component { name: "postgres".to_owned(), reason };
        staged.commit(self.home).map_err(failed)?;
        Ok(self.host.restart_datastore(self.home, &mut self.access).await?)
    }

    pub(in crate::upgrade) async fn take_snapshot(&mut self, state: &State) -> Result<(), UpgradeError> {
        Ok(snapshot::take(self.home, &self.access, &state.snapshot).await?)
    }

    /// Applies the migrations, or undoes them for a rollback, and compares the totals. Returns their file names.
    pub(in crate::upgrade) async fn change_schema(&mut self, state: &State) -> Result<Vec<String>, UpgradeError> {
        // Without migrations the data does not change, so skip the totals while requests wait.
        let before = match state.direction {
            Direction::Up if state.plan.migrations.is_empty() => Vec::new(),
            _ => self.totals(None).await?,
        };
        // If the migration fails, the totals of the restored snapshot are compared with these.
        self.notes.totals.clone_from(&before);
        let changed = match state.direction {
            Direction::Up => self.migrate(state).await,
            Direction::Down => finish::undo_migrations(self, state.plan.schema_to).await,
        }?;
        match state.direction {
            Direction::Up => self.require_totals(&before, None, Direction::Up).await?,
            // The rollback SQL of older schemas changes the state of waiting task instances, so a difference is no
            // fault.
            Direction::Down => self.warn_of_changed_totals(&before).await,
        }
        Ok(changed)
    }

    /// Starts the candidate server and tests it over its private socket, because it has no listeners yet.
    pub(in crate::upgrade) async fn try_candidate(&mut self, state: &State) -> Result<(), UpgradeError> {
        // Skip the comparison of import errors while requests wait. The rehearsal has made it, and the smoke test
        // repeats it after the handover.
        let smoke = self.smoke(state, ServerEndpoint::Public);
        let known = KnownFaults { import_errors: None, ..smoke.known.clone() };
        let smoke = Smoke { config: self.config, known, ..smoke };
        let limit = state.trial_limit(program::trial_limit());
        let socket = self.host.start_candidate(&state.new_program, self.home, &smoke, limit).await?;
        let on_candidate = Smoke { endpoint: ServerEndpoint::Private(socket), ..smoke };
        let Ok(checks) = tokio::time::timeout(limit, on_candidate.candidate_checks()).await else {
            let reason = format!("the candidate server did not pass within {} s", limit.as_secs());
            return Err(UpgradeError::Smoke { reason, log: String::new() });
        };
        self.require_passed(&checks)
    }

    /// Runs the whole smoke test through the public listeners, which the new server has now.
    pub(in crate::upgrade) async fn test_through_listeners(&mut self, state: &State) -> Result<(), UpgradeError> {
        let checks = self.smoke(state, ServerEndpoint::Public).all_checks().await;
        self.require_passed(&checks)
    }

    fn require_passed(&mut self, checks: &[smoke::Check]) -> Result<(), UpgradeError> {
        match self.judge(checks) {
            Some(reason) => Err(UpgradeError::Smoke { reason, log: String::new() }),
            None => Ok(()),
        }
    }

    /// Records and reports how long requests waited.
    pub(in crate::upgrade) fn report_pause(&mut self, state: &State) {
        let pause = self.notes.paused.map(|paused| paused.elapsed()).unwrap_or_default();
        self.notes.pause = Some(pause);
        let expected = state.expected_pause.map(|seconds| format!(" (expected: {seconds:.1} s)"));
        let text = format!("the pause took {:.1} s{}", pause.as_secs_f64(), expected.unwrap_or_default());
        self.reporter.report(Progress::Note(text));
    }

    /// A smoke test of the new release.
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

    /// Returns why a smoke test failed; other problems are reported as warnings.
    pub fn judge(&mut self, checks: &[smoke::Check]) -> Option<String> {
        smoke::warnings(checks).for_each(|text| self.reporter.report(Progress::Warning(text)));
        smoke::failure(checks)
    }
}
