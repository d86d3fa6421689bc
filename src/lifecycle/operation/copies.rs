//! Copies backups to the places of `backup.copies`, and fetches one from a place.

use super::{OperationContext, OperationError};
use crate::backup::copies::place::Entry;
use crate::backup::copies::{self, CopyError, Mode, Place, PlaceReport, Source};
use jiff::Timestamp;
use leoflow_base::config::{self, CopyAddress, CopyPlace};
use leoflow_base::home::Home;
use leoflow_base::home::progress::Progress;
use leoflow_base::home::upkeep::{self, End, Kind};
use leoflow_base::sys::clock;
use leoflow_base::sys::fs::disk::{self, human_size};
use leoflow_base::sys::fs::files;
use leoflow_base::sys::fs::flock::FileLock;
use std::io;
use std::path::PathBuf;

/// Copies the backups to each place, one after the other, and records the outcome in the schedule. A place that fails does
/// not keep the others from being served.
pub async fn copy(context: &OperationContext<'_>, mode: Mode) -> Result<Vec<PlaceReport>, OperationError> {
    let home = context.home;
    let config = context.config()?.ok_or(OperationError::NotSetUp)?.config;
    let (workspace, settings) = (config.workspace, config.backup);
    let lock_file = home.copies_lock();
    let lock = FileLock::open(&lock_file).and_then(FileLock::try_exclusive);
    let Some(_lock) = lock.map_err(OperationError::io("lock", &lock_file))? else {
        return Err(OperationError::CopiesRunning);
    };
    let is_recorded = mode != Mode::Preview && !settings.copies.is_empty();
    let record = |written: io::Result<_>| written.map(drop).map_err(OperationError::io("write", &home.upkeep()));
    if is_recorded {
        // File systems keep times by the second, and a backup that ends now must count as later.
        record(upkeep::note_try(home, clock::whole_second(Timestamp::now()), Kind::Copies))?;
    }
    let source = Source { home, settings: &settings, workspace: workspace.as_deref(), reporter: context.reporter };
    let mut reports = Vec::new();
    for place in &settings.copies {
        reports.push(copies::copy_to(source, place, mode).await);
    }
    if is_recorded {
        let problem = |report: &PlaceReport| Some(format!("{}: {}", report.to, report.problem.as_ref()?));
        let problems: Vec<String> = reports.iter().filter_map(problem).collect();
        let end = if problems.is_empty() { End::Done } else { End::Failed(problems.join("\n")) };
        record(upkeep::note_end(home, Timestamp::now(), Kind::Copies, end))?;
    }
    Ok(reports)
}

/// A backup that was fetched from a place into a temporary folder, which is removed when this is dropped.
pub struct Fetched {
    pub path: PathBuf,
    folder: PathBuf,
}

impl Drop for Fetched {
    fn drop(&mut self) {
        // The next start removes it otherwise, if the home exists.
        let _ = files::remove_any(&self.folder);
    }
}

/// A backup at a place.
pub struct RemoteBackup {
    place: Place,
    entry: Entry,
    /// The place's address.
    pub at: CopyAddress,
    /// The names of all backups there, newest first.
    pub all: Vec<String>,
}

/// Finds the backup that an address leads to: that file, or the newest at the place.
pub async fn find(home: &Home, address: &CopyAddress) -> Result<RemoteBackup, OperationError> {
    let (at, name) = address.split_file().map_or((address.clone(), None), |(at, name)| (at, Some(name)));
    let config = config::load(&home.config()).ok().flatten();
    // A home that copies there has keys for it.
    let known = config.into_iter().flat_map(|loaded| loaded.config.backup.copies).find(|place| place.to == at);
    let place = known.unwrap_or_else(|| CopyPlace::from(at.clone()));
    let in_place = |error| OperationError::Copies { place: at.to_string(), error };
    let place = Place::open(&place).map_err(in_place)?;
    let mut entries = place.list().await.map_err(in_place)?;
    // The names that Leoflow gives differ in their dates; those without one come last.
    entries.sort_by(|a, b| (date_in(&b.name), &b.name).cmp(&(date_in(&a.name), &a.name)));
    let all = entries.iter().map(|entry| entry.name.clone()).collect();
    let entry = match name {
        Some(name) => {
            let found = entries.into_iter().find(|entry| entry.name == name);
            found.ok_or_else(|| in_place(CopyError::NoBackup(name)))?
        }
        None => entries.into_iter().next().ok_or_else(|| in_place(CopyError::Empty))?,
    };
    Ok(RemoteBackup { place, entry, at, all })
}

/// The part of a name that begins with its date, such as `20261130T081500Z`.
fn date_in(name: &str) -> Option<&str> {
    let is_date = |part: &str| {
        let shape = |(index, byte): (usize, u8)| match index {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        };
        part.bytes().enumerate().all(shape)
    };
    let starts = name.match_indices('-').map(|(index, _)| index + 1).chain([0]);
    starts.filter_map(|start| name.get(start..)).find(|rest| rest.get(..16).is_some_and(is_date))
}

impl RemoteBackup {
    pub fn name(&self) -> &str {
        &self.entry.name
    }

    /// Fetches the backup into a folder that only this process uses: in the home, or beside one that does not exist yet.
    pub async fn fetch(&self, context: &OperationContext<'_>) -> Result<Fetched, OperationError> {
        let home = context.home;
        let folder = match home.exists() {
            true => files::temporary_neighbour(&home.download()),
            false => files::temporary_neighbour(home.root()),
        };
        let in_place = |error| OperationError::Copies { place: self.at.to_string(), error };
        let free = disk::free_bytes(&folder).map_err(OperationError::io("read", &folder))?;
        if free < self.entry.size {
            return Err(in_place(CopyError::NoSpace { path: folder, free, size: self.entry.size }));
        }
        files::create_private_dir(&folder).map_err(OperationError::io("create", &folder))?;
        let fetched = Fetched { path: folder.join(self.name()), folder };
        let size = human_size(self.entry.size);
        context.reporter.report(Progress::Started(format!("fetching {} ({size}) from {}", self.name(), self.at)));
        self.place.fetch(&self.entry, &fetched.path).await.map_err(in_place)?;
        context.reporter.report(Progress::Finished(format!("fetched {}", self.name())));
        Ok(fetched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_by_their_dates() {
        assert_eq!(date_in("leoflow-backup-20261130T081500Z.tar.zst"), Some("20261130T081500Z.tar.zst"));
        assert_eq!(date_in("automatic-20261130T081500Z-scheduled-2.tar.zst.age").unwrap()[..16], *"20261130T081500Z");
        assert_eq!(date_in("before-holiday.tar.zst"), None);
    }
}
