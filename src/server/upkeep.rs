//! Backups and verifications that nobody has to ask for: begun when they are due, by this program's own commands.

use super::own_program::is_busy;
use super::state::AppState;
use crate::config::{self, BackupSettings, Cadence};
use crate::home::lock;
use crate::home::operations::{Operation, Status};
use crate::home::upkeep::{self, End, Job, Kind, Upkeep};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// What was missed while Leoflow was off does not add to what a start has to do.
const AFTER_START: SignedDuration = SignedDuration::from_mins(2);
/// A sleep of this process does not count the sleep of the machine, and the settings may be others meanwhile.
const LOOK: Duration = Duration::from_secs(10);
const UNREADABLE: &str = "the settings cannot be read: ";
/// How long is waited for what is under way.
const BUSY: Duration = Duration::from_secs(5);
/// How often the time awake is written down.
const NOTE_AWAKE: Duration = Duration::from_secs(600);

pub async fn keep(state: Arc<AppState>) {
    let started = Timestamp::now();
    let mut counted = Instant::now();
    loop {
        let now = Timestamp::now();
        let Some((settings, known)) = look(&state, now, &mut counted) else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        match next(&settings, &known, counted.elapsed(), started, &now.to_zoned(TimeZone::system())) {
            Some((kind, at)) if at <= now => {
                note_awake(&state, now, &mut counted);
                if !perform(&state, kind).await {
                    tokio::time::sleep(BUSY).await;
                }
            }
            next => {
                let left = next.and_then(|(_, at)| Duration::try_from(at.duration_since(now)).ok());
                tokio::time::sleep(left.unwrap_or(LOOK).min(LOOK)).await;
            }
        }
    }
}

/// The settings as they are now, and what is known. `None` where either cannot be had.
fn look(state: &AppState, now: Timestamp, counted: &mut Instant) -> Option<(BackupSettings, Upkeep)> {
    let settings = settings(state, now)?;
    if counted.elapsed() >= NOTE_AWAKE {
        note_awake(state, now, counted);
    }
    let known = upkeep::begin(&state.home, now);
    known
        .inspect_err(|error| warn!("what is done by itself cannot be written down: {error}"))
        .ok()
        .map(|k| (settings, k))
}

/// What is not written down is counted on.
fn note_awake(state: &AppState, now: Timestamp, counted: &mut Instant) {
    if upkeep::note_awake(&state.home, now, counted.elapsed().as_secs()).is_ok() {
        *counted = Instant::now();
    }
}

/// Those of config.yaml. One that cannot be read is told of as what keeps backups from being made.
fn settings(state: &AppState, now: Timestamp) -> Option<BackupSettings> {
    let (home, known) = (&state.home, upkeep::begin(&state.home, now).ok()?);
    // Told again at the next look, where it cannot be written down.
    let tell = |kind, problem| drop(upkeep::note_problem(home, now, kind, problem));
    match config::load(&home.config()) {
        Ok(loaded) => {
            let settings = loaded?.config.backup;
            let was_of_config = |problem: &String| problem.starts_with(UNREADABLE);
            if known.backup.problem.is_some_and(|it| settings.schedule == Cadence::Off || was_of_config(&it)) {
                tell(Kind::Backup, None);
            }
            if known.verification.problem.is_some() && settings.verify == Cadence::Off {
                tell(Kind::Verification, None);
            }
            Some(settings)
        }
        Err(error) => {
            let problem = format!("{UNREADABLE}{error}");
            if known.backup.problem.as_ref() != Some(&problem) {
                warn!("backups are not made by themselves: {error}");
                tell(Kind::Backup, Some(problem));
            }
            None
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

/// Whether it was begun. What else is under way goes first.
async fn perform(state: &Arc<AppState>, kind: Kind) -> bool {
    if lock::operation_holder(&state.home).is_some() || is_busy(&state.home).await {
        return false;
    }
    let (name, arguments): (_, &[&str]) = match kind {
        Kind::Backup => ("backup", &["lite", "backup", "--scheduled"]),
        Kind::Verification => ("verify", &["lite", "backups", "verify", "--scheduled"]),
    };
    let begun = upkeep::note_try(&state.home, Timestamp::now(), kind);
    if let Err(error) = begun {
        warn!("the scheduled {name} is not begun: what becomes of it cannot be written down: {error}");
        return false;
    }
    let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
    let Some(ended) = state.own_program.perform(&state.home, name, arguments).await else { return false };
    if ended.status == Status::Done {
        // The command has written that down itself: it goes on without this server.
        info!("the scheduled {name} is done");
        return true;
    }
    let reason = reason(&ended);
    warn!("the scheduled {name} failed: {}", reason.replace('\n', "; "));
    if let Err(error) = upkeep::note_end(&state.home, Timestamp::now(), kind, End::Failed(reason)) {
        warn!("that cannot be written down: {error}");
    }
    true
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
