//! Copies backups to the places of `backup.copies`, and fetches one from a place.

use super::{DryRun, OperationContext, OperationError};
use crate::backup::copies::{self, CopyError, Origin, Place, PlaceReport};
use leoflow_base::config::{CopyAddress, CopyPlace};
use leoflow_base::home::Home;
use leoflow_base::home::progress::Progress;
use leoflow_base::sys::fs::disk::human_size;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::fs::flock::FileLock;
use std::path::PathBuf;

/// Copies the backups to each place, one after the other. A place that fails does not keep the others from being served.
pub async fn copy(
    context: &OperationContext<'_>,
    origin: Origin,
    dry_run: DryRun,
) -> Result<Vec<PlaceReport>, OperationError> {
    let home = context.home;
    let settings = context.config()?.ok_or(OperationError::NotSetUp)?.config.backup;
    let lock_file = home.copies_lock();
    let lock = FileLock::open(&lock_file).and_then(FileLock::try_exclusive);
    let Some(_lock) = lock.map_err(OperationError::io("lock", &lock_file))? else {
        return Err(OperationError::CopiesRunning);
    };
    let mut reports = Vec::new();
    for place in &settings.copies {
        let is_preview = dry_run == DryRun::Yes;
        reports.push(copies::copy_to(home, &settings, place, origin, is_preview, context.reporter).await);
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
        // The next fetch removes it otherwise.
        let _ = files::remove_any(&self.folder);
    }
}

/// A backup at a place.
pub struct Found {
    place: Place,
    /// The place's address.
    pub at: CopyAddress,
    pub name: String,
    /// The names of all backups there, newest first.
    pub all: Vec<String>,
}

/// Finds the backup that an address leads to: that file, or the newest at the place.
pub async fn find(home: &Home, address: &CopyAddress) -> Result<Found, OperationError> {
    let (at, wanted) = address.split_file().map_or((address.clone(), None), |(at, name)| (at, Some(name)));
    let config = leoflow_base::config::load(&home.config()).ok().flatten();
    // A home that copies there has keys for it.
    let known = config.into_iter().flat_map(|loaded| loaded.config.backup.copies).find(|place| place.to == at);
    let place = known.unwrap_or_else(|| CopyPlace::from(at.clone()));
    let in_place = |error| OperationError::Copies { place: at.to_string(), error };
    let place = Place::open(&place, &folder(home)).map_err(in_place)?;
    let mut all: Vec<String> = place.list().await.map_err(in_place)?.into_iter().map(|entry| entry.name).collect();
    // The names that Leoflow gives differ in their dates only.
    all.sort_by(|a, b| date_in(b).cmp(date_in(a)));
    let name = match wanted {
        Some(name) if all.contains(&name) => name,
        Some(name) => return Err(in_place(CopyError::NoBackup(name))),
        None => all.first().cloned().ok_or_else(|| in_place(CopyError::Empty))?,
    };
    Ok(Found { place, at, name, all })
}

/// The part of a name that begins with its date, `20261130T081500Z`; the whole name without one.
fn date_in(name: &str) -> &str {
    let is_date = |part: &str| {
        part.len() == 16
            && part.ends_with('Z')
            && part.as_bytes()[8] == b'T'
            && part.starts_with(|c: char| c.is_ascii_digit())
    };
    let start = name.match_indices('-').map(|(index, _)| index + 1).chain([0]);
    start.filter_map(|start| name.get(start..)).find(|rest| rest.get(..16).is_some_and(is_date)).unwrap_or(name)
}

/// Where a backup is fetched to: in the home, or beside one that does not exist yet.
fn folder(home: &Home) -> PathBuf {
    match home.exists() {
        true => home.download(),
        false => files::beside(home.root(), "download").unwrap_or_else(|| home.download()),
    }
}

impl Found {
    /// Fetches the backup.
    pub async fn fetch(&self, context: &OperationContext<'_>) -> Result<Fetched, OperationError> {
        let folder = folder(context.home);
        let in_folder = OperationError::io("write", &folder);
        files::remove_any(&folder).and_then(|()| files::create_private_dir(&folder)).map_err(in_folder)?;
        let fetched = Fetched { path: folder.join(&self.name), folder };
        context.reporter.report(Progress::Started(format!("fetching {} from {}", self.name, self.at)));
        let in_place = |error| OperationError::Copies { place: self.at.to_string(), error };
        self.place.fetch(&self.name, &fetched.path).await.map_err(in_place)?;
        let size = fetched.path.metadata().map_or(0, |meta| meta.len());
        context.reporter.report(Progress::Finished(format!("fetched {} ({})", self.name, human_size(size))));
        Ok(fetched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_by_their_dates() {
        assert_eq!(date_in("leoflow-backup-20261130T081500Z.tar.zst"), "20261130T081500Z.tar.zst");
        assert_eq!(date_in("scheduled-20261130T081500Z-2.tar.zst.age"), "20261130T081500Z-2.tar.zst.age");
        assert_eq!(date_in("mine.tar.zst"), "mine.tar.zst");
    }
}
