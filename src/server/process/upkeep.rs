//! Runs the scheduled jobs when they are due: backups and test restores by this program's own commands, and the removal
//! of old history.

use crate::app_state::AppState;
use crate::history::CleanError;
use crate::release::own_program;
use axum::http::StatusCode;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use leoflow_base::config::{self, BackupSettings, Cadence, HistorySettings};
use leoflow_base::home::Home;
use leoflow_base::home::lock;
use leoflow_base::home::operations::{Operation, Status};
use leoflow_base::home::upkeep::{self, End, Kind, Upkeep};
use leoflow_base::protocol::child::Notifier;
use leoflow_base::sys::clock;
use std::io;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Delay of missed jobs after the server's start, which has more urgent work.
const AFTER_START: SignedDuration = SignedDuration::from_mins(2);
/// Poll interval: a sleep of this process does not include the machine's sleep, and settings may change.
pub(super) fn poll_interval() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_UPKEEP_LOOK", Duration::from_secs(10))
}
/// Prefix of the backup job's recorded problem if config.yaml is invalid.
const UNREADABLE_PREFIX: &str = "the settings cannot be read: ";
/// Poll interval while another operation runs.
const BUSY_DELAY: Duration = Duration::from_secs(5);
/// A job that is overdue for longer than this is reported as late.
const LATE_AFTER: SignedDuration = SignedDuration::from_hours(1);
/// Prefix of a job's recorded problem if another operation delays the job.
const WAIT_PREFIX: &str = "it waits for ";
/// Interval for recording how long the machine was awake, which some schedules count.
const AWAKE_INTERVAL: Duration = Duration::from_secs(600);

/// Runs jobs as they become due. Never returns.
pub async fn run(state: AppState) {
    let started = Timestamp::now();
    let mut awake_since = Instant::now();
    let mut record = RecordProblem { notifier: Notifier::from_environment(), reason: None };
    loop {
        let pause = match run_due_job(&state, started, &mut awake_since).await {
            Ok(pause) => {
                record.clear();
                pause
            }
            Err(error) => {
                record.note(&error);
                poll_interval()
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Reports that the job record cannot be written, which prevents all jobs. The report goes to the supervisor, because
/// that needs no disk.
struct RecordProblem {
    notifier: Notifier,
    reason: Option<String>,
}

impl RecordProblem {
    fn note(&mut self, error: &io::Error) {
        let reason = format!("scheduled backups are paused: cannot write run/upkeep.json: {error}");
        // Sent each time, since a supervisor may have been replaced.
        self.notifier.hindered(Some(&reason));
        if self.reason.as_ref() != Some(&reason) {
            warn!("{reason}");
            self.reason = Some(reason);
        }
    }

    fn clear(&mut self) {
        if self.reason.take().is_some() {
            info!("scheduled backups resumed");
            self.notifier.hindered(None);
        }
    }
}

/// Runs the next job if it is due. Returns the pause until the next check, or an error if the job record cannot be
/// written.
async fn run_due_job(state: &AppState, started: Timestamp, awake_since: &mut Instant) -> io::Result<Duration> {
    let now = Timestamp::now();
    let mut jobs = upkeep::begin(&state.core.home, now)?;
    let Some(settings) = settings(state, &jobs, now)? else { return Ok(poll_interval()) };
    if awake_since.elapsed() >= AWAKE_INTERVAL {
        jobs = note_awake(state, now, awake_since)?;
    }
    let due = next_due(&settings.0, &jobs, awake_since.elapsed(), started, &now.to_zoned(TimeZone::system()));
    let Some((kind, due_at)) = due else { return Ok(poll_interval()) };
    if let Ok(remaining @ 1..) = u64::try_from(due_at.duration_since(now).as_millis()) {
        return Ok(Duration::from_millis(remaining).min(poll_interval()));
    }
    jobs = note_awake(state, now, awake_since)?;
    let performed = match kind {
        Kind::History => remove_history(state, &settings.1).await?,
        Kind::Copies => None,
        Kind::Backup => perform(&state.core.home, kind, ("backup", &["lite", "backup", "--scheduled"])).await?,
        Kind::Verification => {
            perform(&state.core.home, kind, ("verify", &["lite", "backups", "verify", "--scheduled"])).await?
        }
    };
    let Some(other) = performed else { return Ok(Duration::ZERO) };
    let problem = format!("{WAIT_PREFIX}{other}");
    let is_new = jobs
        .job(kind)
        .problem
        .as_ref()
        .is_none_or(|previous| previous.starts_with(WAIT_PREFIX) && *previous != problem);
    if is_new && now.duration_since(due_at) >= LATE_AFTER {
        warn!("a scheduled job is late: {problem}");
        upkeep::note_problem(&state.core.home, now, kind, Some(problem))?;
    }
    Ok(BUSY_DELAY)
}

/// Adds the time since the last call to the recorded time awake.
fn note_awake(state: &AppState, now: Timestamp, awake_since: &mut Instant) -> io::Result<Upkeep> {
    let jobs = upkeep::note_awake(&state.core.home, now, awake_since.elapsed().as_secs())?;
    *awake_since = Instant::now();
    Ok(jobs)
}

/// Reads the settings; `None` if config.yaml is missing or invalid. Records an invalid file as the backup job's
/// problem, and clears recorded problems that no longer apply.
fn settings(state: &AppState, jobs: &Upkeep, now: Timestamp) -> io::Result<Option<(BackupSettings, HistorySettings)>> {
    let note = |kind, problem| upkeep::note_problem(&state.core.home, now, kind, problem).map(drop);
    match config::load(&state.core.home.config()) {
        Ok(None) => Ok(None),
        Ok(Some(loaded)) => {
            let (settings, history) = (loaded.config.backup, loaded.config.history);
            let is_settings_problem = |problem: &String| problem.starts_with(UNREADABLE_PREFIX);
            if jobs
                .backup
                .problem
                .as_ref()
                .is_some_and(|recorded| settings.schedule == Cadence::Off || is_settings_problem(recorded))
            {
                note(Kind::Backup, None)?;
            }
            if jobs.verification.problem.is_some() && settings.verify == Cadence::Off {
                note(Kind::Verification, None)?;
            }
            Ok(Some((settings, history)))
        }
        Err(error) => {
            let problem = format!("{UNREADABLE_PREFIX}{error}");
            if jobs.backup.problem.as_ref() != Some(&problem) {
                warn!("scheduled backups are paused: {error}");
                note(Kind::Backup, Some(problem))?;
            }
            Ok(None)
        }
    }
}

/// Returns the next job and when it is due. `awake` is the time awake that is not recorded yet.
fn next_due(
    settings: &BackupSettings,
    jobs: &Upkeep,
    awake: Duration,
    started: Timestamp,
    now: &Zoned,
) -> Option<(Kind, Timestamp)> {
    // A project may have limits of its own; without any, the removal ends at once.
    let daily = Cadence::Cron("@daily".to_owned());
    let due = |kind| {
        let cadence = match kind {
            Kind::Backup => &settings.schedule,
            Kind::Verification => &settings.verify,
            Kind::History => &daily,
            // Copies have a loop of their own.
            Kind::Copies => return None,
        };
        let job = jobs.job(kind);
        let awake = awake + Duration::from_secs(job.awake_seconds);
        let last = job.last(now.timestamp()).to_zoned(now.time_zone().clone());
        let due = cadence.due(&last, awake, now.timestamp())?;
        // True if the job was missed while this server did not run, or is due by the time awake.
        let is_late = due <= started || (matches!(cadence, Cadence::Awake(_)) && due <= now.timestamp());
        let due = if is_late { due.max(started.checked_add(AFTER_START).unwrap_or(due)) } else { due };
        Some((kind, job.paused_until(now.timestamp()).map_or(due, |paused_until| due.max(paused_until))))
    };
    // A backup goes first, so that the test restore uses it.
    [Kind::Backup, Kind::Verification, Kind::History].into_iter().filter_map(due).min_by_key(|(_, due_at)| *due_at)
}

/// Runs a job to its end and records the outcome. Returns a description of the operation that it must wait for, if another
/// one is running.
async fn perform(home: &Home, kind: Kind, (name, arguments): (&'static str, &[&str])) -> io::Result<Option<String>> {
    if let Some(other) = other_operation(home).await {
        return Ok(Some(other));
    }
    // A backup records the second of its creation, which must not be before the try.
    let started = clock::whole_second(Timestamp::now());
    upkeep::note_try(home, started, kind)?;
    let failure = match own_program::perform(home, name, arguments.iter().copied()).await {
        Ok(operation) if operation.status == Status::Done => None,
        Ok(operation) => Some(reason(&operation)),
        Err(other) if other.status() == StatusCode::CONFLICT => {
            upkeep::withdraw_try(home, Timestamp::now(), kind)?;
            return Ok(Some(other.message()));
        }
        Err(error) => Some(error.message()),
    };
    let now = Timestamp::now();
    match failure {
        Some(reason) => {
            warn!("the scheduled {name} failed: {}", reason.replace('\n', "; "));
            upkeep::note_end(home, now, kind, End::Failed(reason))?;
        }
        None => {
            info!("the scheduled {name} finished");
            // The command records its success itself, since it may outlive this server. If it could not, the job would
            // be due again at once.
            if upkeep::begin(home, now)?.job(kind).done_at.is_none_or(|done| done < started) {
                upkeep::note_end(home, now, kind, End::Done)?;
            }
        }
    }
    Ok(None)
}

/// Describes the operation that runs, if there is one.
async fn other_operation(home: &Home) -> Option<String> {
    if let Some(holder) = lock::operation_holder(home) {
        return Some(format!("`{}` (pid {})", holder.command, holder.process.pid));
    }
    own_program::is_busy(home).await.then(|| "a running operation".to_owned())
}

/// Removes old history and records the outcome. Returns what it must wait for, like `perform`.
async fn remove_history(state: &AppState, settings: &HistorySettings) -> io::Result<Option<String>> {
    let home = &state.core.home;
    if let Some(other) = other_operation(home).await {
        return Ok(Some(other));
    }
    upkeep::note_try(home, Timestamp::now(), Kind::History)?;
    let end = match state.history.clean_on_schedule(&state.core, settings).await {
        Ok(()) => End::Done,
        Err(error @ CleanError::Running) => {
            upkeep::withdraw_try(home, Timestamp::now(), Kind::History)?;
            return Ok(Some(error.to_string()));
        }
        Err(error) => {
            warn!("the scheduled removal of old history failed: {error}");
            End::Failed(error.to_string())
        }
    };
    upkeep::note_end(home, Timestamp::now(), Kind::History, end).map(|_| None)
}

/// Returns why a job failed: a test restore's finding, or the command's error.
fn reason(operation: &Operation) -> String {
    let finding = operation.result.as_ref().and_then(|result| {
        let backup = result["backups"].get(0)?;
        Some(format!("{}: {}", backup["path"].as_str()?, backup["last_verified"]["problem"].as_str()?))
    });
    finding.or_else(|| operation.error.clone()).unwrap_or_else(|| "it failed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use leoflow_base::home::upkeep::Job;

    fn time_at(text: &str) -> Timestamp {
        format!("2026-03-02T{text}Z").parse().unwrap()
    }

    fn jobs(since: &str) -> Upkeep {
        let job = Job {
            since: time_at(since),
            tried_at: None,
            done_at: None,
            problem: None,
            failures: 0,
            partial: false,
            awake_seconds: 0,
        };
        let history = Job { since: Timestamp::MAX, ..job.clone() };
        let copies = history.clone();
        Upkeep { backup: job.clone(), verification: job, history, copies, test_restored_at: None, archived_at: None }
    }

    fn settings(schedule: &str, verify: &str) -> BackupSettings {
        let cadence = |text: &str| Cadence::parse(text).unwrap();
        BackupSettings { schedule: cadence(schedule), verify: cadence(verify), ..BackupSettings::default() }
    }

    fn next_due_at(
        settings: &BackupSettings,
        jobs: &Upkeep,
        awake: u64,
        started: &str,
        now: &str,
    ) -> Option<(Kind, Timestamp)> {
        next_due(settings, jobs, Duration::from_secs(awake), time_at(started), &time_at(now).to_zoned(TimeZone::UTC))
    }

    #[test]
    fn missed_jobs_run_soon_after_start_others_when_due() {
        let hourly = settings("0 * * * *", "off");
        let missed = next_due_at(&hourly, &jobs("03:30:00"), 0, "06:10:00", "06:10:01");
        assert_eq!(missed, Some((Kind::Backup, time_at("06:12:00"))));
        let coming = next_due_at(&hourly, &jobs("06:10:00"), 0, "06:10:00", "06:20:00");
        assert_eq!(coming, Some((Kind::Backup, time_at("07:00:00"))));
        // Old history is removed daily, with any schedules of the others.
        let midnight = "2026-03-03T00:00:00Z".parse().unwrap();
        let off = next_due_at(&settings("off", "off"), &jobs("03:30:00"), 0, "06:10:00", "06:10:01");
        assert_eq!(off, Some((Kind::History, midnight)));
    }

    #[test]
    fn awake_time_adds_to_the_recorded_time() {
        let after = settings("2h", "off");
        let mut jobs = jobs("00:00:00");
        jobs.backup.awake_seconds = 3600;
        assert_eq!(next_due_at(&after, &jobs, 600, "05:00:00", "05:10:00"), Some((Kind::Backup, time_at("06:00:00"))));
        jobs.backup.awake_seconds = 9000;
        assert_eq!(
            next_due_at(&after, &jobs, 1, "05:00:00", "05:00:01"),
            Some((Kind::Backup, time_at("05:02:00"))),
            "a start first"
        );
    }

    #[test]
    fn failed_jobs_pause_and_backups_precede_test_restores() {
        let both = settings("0 * * * *", "0 * * * *");
        assert_eq!(next_due_at(&both, &jobs("06:10:00"), 0, "06:10:00", "07:00:00").unwrap().0, Kind::Backup);
        let mut failed = jobs("06:10:00");
        failed.backup.tried_at = Some(time_at("07:00:00"));
        failed.backup.problem = Some("full".to_owned());
        let next_job = next_due_at(&both, &failed, 0, "06:10:00", "07:00:30");
        assert_eq!(next_job, Some((Kind::Verification, time_at("07:00:00"))));
        failed.verification.done_at = Some(time_at("07:01:00"));
        assert_eq!(next_due_at(&both, &failed, 0, "06:10:00", "07:02:00"), Some((Kind::Backup, time_at("07:30:00"))));
    }
}
