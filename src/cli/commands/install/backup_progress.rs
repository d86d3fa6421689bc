//! The progress of `lite backup --all`, recorded in `run/` so that a repeated command continues.

use crate::error::Error;
use jiff::{SignedDuration, Timestamp};
use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use serde::{Deserialize, Serialize};

/// The names of the instances that are backed up, kept until all instances are.
#[derive(Debug, Serialize, Deserialize)]
pub struct BackupProgress {
    began_at: Timestamp,
    pub done: Vec<String>,
    #[serde(skip)]
    home: Option<Home>,
}

impl BackupProgress {
    /// An older record belongs to an earlier backup and is ignored. The limit is shorter than a day, so that a daily
    /// backup never continues that of the day before.
    const MAX_AGE: SignedDuration = SignedDuration::from_hours(6);
    const SIZE_LIMIT: u64 = 64 * 1024;

    pub fn load(home: &Home) -> Self {
        let text = files::read_text(&home.backup_of_all(), Self::SIZE_LIMIT).ok().flatten();
        let stored: Option<Self> = text.and_then(|text| serde_json::from_str(&text).ok());
        let now = Timestamp::now();
        let stored = stored.filter(|stored| now.duration_since(stored.began_at).abs() < Self::MAX_AGE);
        let backup_progress = stored.unwrap_or(Self { began_at: now, done: Vec::new(), home: None });
        Self { home: Some(home.clone()), ..backup_progress }
    }

    /// Records that the instance `name` is backed up.
    pub fn add(&mut self, name: &str) -> std::io::Result<()> {
        self.done.push(name.to_owned());
        let Some(home) = &self.home else { return Ok(()) };
        home.create_folder(&home.run())?;
        files::write_atomic(&home.backup_of_all(), &serde_json::to_vec(self)?, 0o600)
    }

    /// Removes the record, after all instances are backed up.
    pub fn end(&self) -> Result<(), Error> {
        let Some(home) = &self.home else { return Ok(()) };
        let path = home.backup_of_all();
        files::remove_any(&path).map_err(Error::cannot("remove", &path))
    }
}
