//! Checks the scheduled backups.

use crate::setup::check::{Finding, ok, problem};
use jiff::{SignedDuration, Timestamp, Zoned};
use leoflow_base::config::{BackupSettings, Config, Overdue};
use leoflow_base::home::Home;
use leoflow_base::home::upkeep::{self, Kind, Upkeep};
use leoflow_base::protocol::status::InstanceStatus;

/// Checks scheduled backups and test restores; `None` before the first one is due.
pub fn backups(home: &Home, config: Option<&Config>, status: Option<&InstanceStatus>) -> Option<Finding> {
    let upkeep = upkeep::read(home);
    let overdue = config.zip(status).map(|(config, status)| overdue(&config.backup, upkeep.as_ref(), status));
    let overdue = overdue.unwrap_or_default();
    let mut problems = upkeep.as_ref().map(Upkeep::problems).unwrap_or_default();
    problems.extend(overdue.iter().map(ToString::to_string));
    let describe = |verb: &str, time: Option<Timestamp>| match time {
        Some(time) => format!("{verb} {}", time.strftime("%Y-%m-%d %H:%M UTC")),
        None => format!("never {verb}"),
    };
    let times = match &upkeep {
        Some(known) => {
            let made_at = known.backup.done_at.filter(|_| !known.backup.partial);
            format!("{}, {}", describe("made", made_at), describe("test-restored", known.last_test_restore()))
        }
        None if problems.is_empty() => return None,
        None => "never made".to_owned(),
    };
    let concerns_backup = upkeep.is_some_and(|known| known.backup.problem.is_some())
        || overdue.iter().any(|job| job.kind == Kind::Backup);
    let remedy = if concerns_backup { "leoflow lite backup" } else { "leoflow lite backups verify" };
    Some(match problems.as_slice() {
        [] => ok(format!("scheduled: {times}")),
        problems => problem(format!("{}; {times}", problems.join("; ")), remedy),
    })
}

/// Returns what is overdue in an instance that runs with this status.
pub fn overdue(settings: &BackupSettings, upkeep: Option<&Upkeep>, status: &InstanceStatus) -> Vec<Overdue> {
    let now = Zoned::now();
    let uptime = SignedDuration::from_secs(i64::try_from(status.uptime_seconds).unwrap_or(i64::MAX));
    let since = now.timestamp().checked_sub(uptime).unwrap_or(Timestamp::MIN);
    settings.overdue(upkeep, since, &now)
}
