//! Scheduled backups and verifications: begun when they are due, by this program's own commands.

use super::own_program::is_busy;
use super::state::AppState;
use crate::config::{self, BackupSettings, Cadence};
use crate::home::lock;
use crate::home::operations::{Operation, Status};
use crate::home::upkeep::{self, End, Job, Kind, Upkeep};
use crate::protocol::child::Notifier;
use axum::http::StatusCode;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// What was missed while Leoflow was off does not add to what a start has to do.
const AFTER_START: SignedDuration = SignedDuration::from_mins(2);
/// A sleep of this process does not count the sleep of the machine, and the settings may be others meanwhile.
fn look() -> Duration {
    crate::sys::limit("LEOFLOW_UPKEEP_LOOK", Duration::from_secs(10))
}
const UNREADABLE: &str = "the settings cannot be read: ";
/// How long is waited for what is under way.
const BUSY: Duration = Duration::from_secs(5);
/// From then on the wait is told.
const LATE: SignedDuration = SignedDuration::from_hours(1);
const WAITS: &str = "it waits for ";
/// How often the time awake is written down.
const NOTE_AWAKE: Duration = Duration::from_secs(600);

pub async fn keep(state: Arc<AppState>) {
    let started = Timestamp::now();
    let mut counted = Instant::now();
    let mut record = RecordTrouble { notifier: Notifier::from_environment(), reason: None };
    loop {
        let pause = match round(&state, started, &mut counted).await {
            Ok(pause) => {
                record.is_over();
                pause
            }
            Err(error) => {
                record.note(&error);
                look()
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// The record of the jobs cannot be written, so none is begun. The supervisor tells of it, which needs no disk.
struct RecordTrouble {
    notifier: Notifier,
    reason: Option<String>,
}

impl RecordTrouble {
    fn note(&mut self, error: &io::Error) {
        let reason = format!("scheduled backups are not made: run/upkeep.json cannot be written: {error}");
        // A supervisor that takes over has not heard it.
        self.notifier.hindered(Some(&reason));
        if self.reason.as_ref() != Some(&reason) {
            warn!("{reason}");
            self.reason = Some(reason);
        }
    }

    fn is_over(&mut self) {
        if self.reason.take().is_some() {
            info!("scheduled backups are made again");
            self.notifier.hindered(None);
        }
    }
}

/// Does what is due. Returns for how long nothing is; an error where the record cannot be written.
async fn round(state: &Arc<AppState>, started: Timestamp, counted: &mut Instant) -> io::Result<Duration> {
    let now = Timestamp::now();
    let mut known = upkeep::begin(&state.home, now)?;
    let Some(settings) = settings(state, &known, now)? else { return Ok(look()) };
    if counted.elapsed() >= NOTE_AWAKE {
        known = note_awake(state, now, counted)?;
    }
    let due = next(&settings, &known, counted.elapsed(), started, &now.to_zoned(TimeZone::system()));
    let Some((kind, at)) = due else { return Ok(look()) };
    if let Ok(left @ 1..) = u64::try_from(at.duration_since(now).as_millis()) {
        return Ok(Duration::from_millis(left).min(look()));
    }
    known = note_awake(state, now, counted)?;
    let Begun::Waits(other) = perform(state, kind).await? else { return Ok(Duration::ZERO) };
    let problem = format!("{WAITS}{other}");
    let is_new = known.job(kind).problem.as_ref().is_none_or(|said| said.starts_with(WAITS) && *said != problem);
    if is_new && now.duration_since(at) >= LATE {
        warn!("a scheduled job is late: {problem}");
        upkeep::note_problem(&state.home, now, kind, Some(problem))?;
    }
    Ok(BUSY)
}

fn note_awake(state: &AppState, now: Timestamp, counted: &mut Instant) -> io::Result<Upkeep> {
    let known = upkeep::note_awake(&state.home, now, counted.elapsed().as_secs())?;
    *counted = Instant::now();
    Ok(known)
}

/// Those of config.yaml; `None` without one, or where it cannot be read, which is the job's problem then.
fn settings(state: &AppState, known: &Upkeep, now: Timestamp) -> io::Result<Option<BackupSettings>> {
    let note = |kind, problem| upkeep::note_problem(&state.home, now, kind, problem).map(drop);
    match config::load(&state.home.config()) {
        Ok(None) => Ok(None),
        Ok(Some(loaded)) => {
            let settings = loaded.config.backup;
            let was_of_config = |problem: &String| problem.starts_with(UNREADABLE);
            if known.backup.problem.as_ref().is_some_and(|it| settings.schedule == Cadence::Off || was_of_config(it)) {
                note(Kind::Backup, None)?;
            }
            if known.verification.problem.is_some() && settings.verify == Cadence::Off {
                note(Kind::Verification, None)?;
            }
            Ok(Some(settings))
        }
        Err(error) => {
            let problem = format!("{UNREADABLE}{error}");
            if known.backup.problem.as_ref() != Some(&problem) {
                warn!("scheduled backups are not made: {error}");
                note(Kind::Backup, Some(problem))?;
            }
            Ok(None)
        }
    }
}

/// What is next, and when.
fn next(
    settings: &BackupSettings,
    known: &Upkeep,
    awake: Duration,
    started: Timestamp,
    now: &Zoned,
) -> Option<(Kind, Timestamp)> {
    let due = |kind| {
        let (cadence, job): (_, &Job) = match kind {
            Kind::Backup => (&settings.schedule, &known.backup),
            Kind::Verification => (&settings.verify, &known.verification),
        };
        let awake = awake + Duration::from_secs(job.awake_seconds);
        let last = job.last(now.timestamp()).to_zoned(now.time_zone().clone());
        let due = cadence.due(&last, awake, now.timestamp())?;
        // Missed while nothing ran, or awake for long enough by what was counted before.
        let is_late = due <= started || (matches!(cadence, Cadence::Awake(_)) && due <= now.timestamp());
        let due = if is_late { due.max(started.checked_add(AFTER_START).unwrap_or(due)) } else { due };
        Some((kind, job.rests_until(now.timestamp()).map_or(due, |rests| due.max(rests))))
    };
    // A backup first, which is what is verified then.
    [Kind::Backup, Kind::Verification].into_iter().filter_map(due).min_by_key(|(_, at)| *at)
}

enum Begun {
    Ended,
    /// Another operation goes first.
    Waits(String),
}

async fn perform(state: &Arc<AppState>, kind: Kind) -> io::Result<Begun> {
    let home = &state.home;
    if let Some(holder) = lock::operation_holder(home) {
        return Ok(Begun::Waits(format!("`{}` (pid {})", holder.command, holder.process.pid)));
    }
    if is_busy(home).await {
        return Ok(Begun::Waits("an operation that is under way".to_owned()));
    }
    let (name, arguments): (_, &[&str]) = match kind {
        Kind::Backup => ("backup", &["lite", "backup", "--scheduled"]),
        Kind::Verification => ("verify", &["lite", "backups", "verify", "--scheduled"]),
    };
    let begun = Timestamp::now();
    upkeep::note_try(home, begun, kind)?;
    let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
    let failure = match state.own_program.perform(home, name, arguments).await {
        Ok(ended) if ended.status == Status::Done => None,
        Ok(ended) => Some(reason(&ended)),
        Err(other) if other.status() == StatusCode::CONFLICT => return Ok(Begun::Waits(other.message())),
        Err(refused) => Some(refused.message()),
    };
    let now = Timestamp::now();
    match failure {
        Some(reason) => {
            warn!("the scheduled {name} failed: {}", reason.replace('\n', "; "));
            upkeep::note_end(home, now, kind, End::Failed(reason))?;
        }
        None => {
            info!("the scheduled {name} is done");
            // The command records that itself: it goes on without this server. Where it could not, it would be due again at once.
            if upkeep::begin(home, now)?.job(kind).done_at.is_none_or(|done| done < begun) {
                upkeep::note_end(home, now, kind, End::Done)?;
            }
        }
    }
    Ok(Begun::Ended)
}

/// Why it did not go well: what a verification found, or what the command says of its failure.
fn reason(ended: &Operation) -> String {
    let found = ended.result.as_ref().and_then(|result| {
        let backup = result["backups"].get(0)?;
        Some(format!("{}: {}", backup["path"].as_str()?, backup["last_verified"]["problem"].as_str()?))
    });
    found.or_else(|| ended.error.clone()).unwrap_or_else(|| "it failed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-03-02T{text}Z").parse().unwrap()
    }

    fn known(since: &str) -> Upkeep {
        let job = Job {
            since: at(since),
            tried_at: None,
            done_at: None,
            problem: None,
            failures: 0,
            partial: false,
            awake_seconds: 0,
        };
        Upkeep { backup: job.clone(), verification: job }
    }

    fn settings(schedule: &str, verify: &str) -> BackupSettings {
        let cadence = |text: &str| Cadence::parse(text).unwrap();
        BackupSettings { schedule: cadence(schedule), verify: cadence(verify), ..BackupSettings::default() }
    }

    fn next_at(
        settings: &BackupSettings,
        known: &Upkeep,
        awake: u64,
        started: &str,
        now: &str,
    ) -> Option<(Kind, Timestamp)> {
        next(settings, known, Duration::from_secs(awake), at(started), &at(now).to_zoned(TimeZone::UTC))
    }

    #[test]
    fn what_was_missed_is_done_soon_after_the_start_and_what_comes_in_its_time() {
        let hourly = settings("0 * * * *", "off");
        let missed = next_at(&hourly, &known("03:30:00"), 0, "06:10:00", "06:10:01");
        assert_eq!(missed, Some((Kind::Backup, at("06:12:00"))));
        let coming = next_at(&hourly, &known("06:10:00"), 0, "06:10:00", "06:20:00");
        assert_eq!(coming, Some((Kind::Backup, at("07:00:00"))));
        assert_eq!(next_at(&settings("off", "off"), &known("03:30:00"), 0, "06:10:00", "06:10:01"), None);
    }

    #[test]
    fn time_awake_counts_with_what_was_counted_before() {
        let after = settings("2h", "off");
        let mut known = known("00:00:00");
        known.backup.awake_seconds = 3600;
        assert_eq!(next_at(&after, &known, 600, "05:00:00", "05:10:00"), Some((Kind::Backup, at("06:00:00"))));
        known.backup.awake_seconds = 9000;
        assert_eq!(
            next_at(&after, &known, 1, "05:00:00", "05:00:01"),
            Some((Kind::Backup, at("05:02:00"))),
            "a start first"
        );
    }

    #[test]
    fn one_that_failed_rests_and_a_backup_goes_before_its_verification() {
        let both = settings("0 * * * *", "0 * * * *");
        assert_eq!(next_at(&both, &known("06:10:00"), 0, "06:10:00", "07:00:00").unwrap().0, Kind::Backup);
        let mut failed = known("06:10:00");
        failed.backup.tried_at = Some(at("07:00:00"));
        failed.backup.problem = Some("full".to_owned());
        let then = next_at(&both, &failed, 0, "06:10:00", "07:00:30");
        assert_eq!(then, Some((Kind::Verification, at("07:00:00"))));
        failed.verification.done_at = Some(at("07:01:00"));
        assert_eq!(next_at(&both, &failed, 0, "06:10:00", "07:02:00"), Some((Kind::Backup, at("07:30:00"))));
    }
}
