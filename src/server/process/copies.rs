//! Starts the copying of backups to other places after each backup and once a day. It may take hours, so it runs beside
//! the other scheduled jobs.

use super::upkeep::poll_interval;
use crate::app_state::AppState;
use jiff::{SignedDuration, Timestamp};
use leoflow_base::config;
use leoflow_base::home::Home;
use leoflow_base::home::upkeep::{self, End, Kind, Upkeep};
use leoflow_base::protocol::own_command::{self, Failure, LONG};
use leoflow_base::sys::process::command;
use leoflow_base::sys::{blocking, env_vars};
use std::io;
use tracing::{info, warn};

/// Time after which places are looked at although there is no new backup: somebody may have removed a copy.
const INTERVAL: SignedDuration = SignedDuration::from_hours(24);

/// Copies backups when that is due. Never returns.
pub async fn run(state: AppState) {
    let home = state.core.home.clone();
    loop {
        tokio::time::sleep(poll_interval()).await;
        if let Err(error) = copy_if_due(&home).await {
            warn!("backups are not copied: cannot write run/upkeep.json: {error}");
        }
    }
}

async fn copy_if_due(home: &Home) -> io::Result<()> {
    let Ok(Some(loaded)) = config::load(&home.config()) else { return Ok(()) };
    let now = Timestamp::now();
    let has_places = !loaded.config.backup.copies.is_empty();
    let Some(known) = upkeep::read(home) else { return Ok(()) };
    if !has_places {
        if known.copies.problem.is_some() {
            upkeep::note_problem(home, now, Kind::Copies, None)?;
        }
        return Ok(());
    }
    if !is_due(&known, now) {
        return Ok(());
    }
    upkeep::note_try(home, now, Kind::Copies)?;
    let (home, own_home) = (home.clone(), home.clone());
    let copied = blocking::run(move || copy(&own_home)).await.unwrap_or_else(|error| Err(Failure::new(error)));
    let end = match copied {
        Ok(()) => {
            info!("backups were copied to their places");
            End::Done
        }
        Err(failure) => {
            let reason = failure.to_string();
            warn!("backups were not copied: {}", reason.replace('\n', "; "));
            End::Failed(reason)
        }
    };
    upkeep::note_end(&home, now, Kind::Copies, end).map(drop)
}

/// True if there is a backup since the last try; and after a failure with a pause, or a day after a success.
fn is_due(known: &Upkeep, now: Timestamp) -> bool {
    let has_new = known.backup.done_at > known.copies.tried_at;
    let is_old = known.copies.done_at.is_none_or(|done| now.duration_since(done) >= INTERVAL);
    let failed = known.copies.problem.is_some();
    let is_paused = known.copies.paused_until(now).is_some_and(|paused_until| paused_until > now);
    has_new || (is_old || failed) && !is_paused
}

/// Copies the backups in a process of its own, whose memory goes back to the system. Fails with the reasons.
fn copy(home: &Home) -> Result<(), Failure> {
    let program = env_vars::current_exe().map_err(Failure::new)?;
    let mut process = own_command::command(&program, Some(home));
    process.args(["lite", "backups", "copy", "--scheduled"]);
    // After a stop, for example, the home may be removed.
    command::dies_with_this_thread(&mut process);
    let output = own_command::run(&mut process, LONG, &mut |_| {}, &mut |_| {})?;
    let places = output.json["places"].as_array().into_iter().flatten();
    let problems =
        places.filter_map(|place| Some(format!("{}: {}", place["to"].as_str()?, place["problem"].as_str()?)));
    let problems: Vec<String> = problems.collect();
    if problems.is_empty() { Ok(()) } else { Err(Failure::new(problems.join("\n"))) }
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
        upkeep::begin(&home, time(0)).unwrap();
        let known = upkeep::note_end(&home, time(10), Kind::Backup, End::Done).unwrap();
        assert!(is_due(&known, time(11)));
        upkeep::note_try(&home, time(11), Kind::Copies).unwrap();
        let failed = upkeep::note_end(&home, time(11), Kind::Copies, End::Failed("full".to_owned())).unwrap();
        assert!(!is_due(&failed, time(12)) && is_due(&failed, time(11 + 1800)));
        // A place that fails does not keep a new backup from the others.
        let new = upkeep::note_end(&home, time(20), Kind::Backup, End::Done).unwrap();
        assert!(is_due(&new, time(21)));
        upkeep::note_try(&home, time(2000), Kind::Copies).unwrap();
        let done = upkeep::note_end(&home, time(2000), Kind::Copies, End::Done).unwrap();
        assert!(!is_due(&done, time(3000)) && is_due(&done, time(2000 + 86_400)));
        let again = upkeep::note_end(&home, time(4000), Kind::Backup, End::Done).unwrap();
        assert!(is_due(&again, time(4001)));
    }
}
