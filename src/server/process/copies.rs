//! Starts the copying of backups to other places after each backup and once a day. It may take hours, so it runs beside
//! the other scheduled jobs.

use super::upkeep::poll_interval;
use crate::app_state::AppState;
use jiff::{SignedDuration, Timestamp};
use leoflow_base::config;
use leoflow_base::home::Home;
use leoflow_base::home::backup_names::is_archive_name;
use leoflow_base::home::upkeep::{self, End, Job, Kind};
use leoflow_base::protocol::own_command::{self, Failure, LONG};
use leoflow_base::sys::fs::flock::FileLock;
use leoflow_base::sys::fs::folders;
use leoflow_base::sys::process::command;
use leoflow_base::sys::{blocking, clock, env_vars};
use std::io;
use std::path::PathBuf;
use tracing::warn;

/// Time after which places are looked at although there is no new backup: a copy there may have been removed.
const INTERVAL: SignedDuration = SignedDuration::from_hours(24);

/// Copies backups when that is due. Never returns.
pub async fn run(state: AppState) {
    loop {
        tokio::time::sleep(poll_interval()).await;
        let home = state.core.home.clone();
        match blocking::run(move || copy_if_due(&home)).await {
            Ok(Err(error)) => warn!("backups are not copied: cannot write run/upkeep.json: {error}"),
            Ok(Ok(())) => {}
            Err(error) => warn!("backups are not copied: {error}"),
        }
    }
}

fn copy_if_due(home: &Home) -> io::Result<()> {
    let Ok(Some(loaded)) = config::load(&home.config()) else { return Ok(()) };
    let Some(known) = upkeep::read(home) else { return Ok(()) };
    let now = Timestamp::now();
    if loaded.config.backup.copies.is_empty() {
        if known.copies.problem.is_some() {
            upkeep::note_problem(home, now, Kind::Copies, None)?;
        }
        return Ok(());
    }
    if !is_due(&known.copies, newest_change(home), now) || is_running(home) {
        return Ok(());
    }
    // The command records its outcome, unless it fails before.
    let Err(failure) = copy(home) else { return Ok(()) };
    let recorded = upkeep::read(home).map(|known| known.copies);
    let recorded = recorded.filter(|job| job.tried_at.is_some_and(|tried| tried >= clock::whole_second(now)));
    let reason = recorded.as_ref().and_then(|job| job.problem.clone()).unwrap_or_else(|| failure.to_string());
    warn!("backups were not copied: {}", reason.replace('\n', "; "));
    if recorded.is_none() {
        upkeep::note_try(home, now, Kind::Copies)?;
        upkeep::note_end(home, Timestamp::now(), Kind::Copies, End::Failed(reason))?;
    }
    Ok(())
}

/// True while a command copies backups.
fn is_running(home: &Home) -> bool {
    FileLock::open(&home.copies_lock()).and_then(FileLock::try_exclusive).is_ok_and(|lock| lock.is_none())
}

/// When a backup in the home was last completed.
fn newest_change(home: &Home) -> Option<Timestamp> {
    let paths = folders::entries(&home.backups()).ok()?;
    let is_backup = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(is_archive_name);
    let modified = |path: PathBuf| Timestamp::try_from(path.metadata().ok()?.modified().ok()?).ok();
    paths.into_iter().filter(is_backup).filter_map(modified).max()
}

/// True if a backup was completed since the last try; and after a failure or an interruption with a pause, or a day after a
/// success.
fn is_due(job: &Job, newest: Option<Timestamp>, now: Timestamp) -> bool {
    let has_new = newest.is_some_and(|newest| job.tried_at.is_none_or(|tried| newest > tried));
    let is_old = job.done_at.is_none_or(|done| now.duration_since(done) >= INTERVAL);
    let is_unfinished = job.tried_at > job.done_at;
    let is_paused = job.paused_until(now).is_some_and(|paused_until| paused_until > now);
    has_new || (is_old || is_unfinished) && !is_paused
}

/// Copies the backups in a process of its own, whose memory goes back to the system. Fails with the reasons.
fn copy(home: &Home) -> Result<(), Failure> {
    let program = env_vars::current_exe().map_err(Failure::new)?;
    let mut process = own_command::command(&program, Some(home));
    process.args(["lite", "backups", "copy", "--scheduled"]);
    // It ends with the server: the home may be removed afterwards.
    command::dies_with_this_thread(&mut process);
    let output = own_command::run(&mut process, LONG, &mut |_| {}, &mut |_| {})?;
    output.problem().map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_follow_each_backup_and_wait_after_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("home"))).unwrap();
        home.create().unwrap();
        let time = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        let job = |known: upkeep::Upkeep| known.copies;
        let is_due = |job: &Job, newest: i64, now: i64| is_due(job, Some(time(newest)), time(now));
        let new = job(upkeep::begin(&home, time(0)).unwrap());
        assert!(is_due(&new, 10, 11));
        upkeep::note_try(&home, time(11), Kind::Copies).unwrap();
        let failed = job(upkeep::note_end(&home, time(11), Kind::Copies, End::Failed("full".to_owned())).unwrap());
        assert!(!is_due(&failed, 10, 12) && is_due(&failed, 10, 11 + 1800));
        // A place that fails does not keep a new backup from the others.
        assert!(is_due(&failed, 20, 21));
        let begun = job(upkeep::note_try(&home, time(2000), Kind::Copies).unwrap());
        assert!(!is_due(&begun, 20, 2001) && is_due(&begun, 20, 2000 + 7200), "the server was stopped meanwhile");
        let done = job(upkeep::note_end(&home, time(2010), Kind::Copies, End::Done).unwrap());
        assert!(!is_due(&done, 20, 3000) && is_due(&done, 20, 2010 + 86_400));
        // It was written while others were copied.
        assert!(is_due(&done, 2005, 2011));
    }
}
