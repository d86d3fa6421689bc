//! Copies backups to other places: a folder, an S3 bucket or an SFTP server. A copy is complete or absent, and counts
//! only after it was read back and compared.

mod error;
mod files;
mod folder;
pub mod place;
pub mod records;
mod s3;
mod selection;
mod sftp;

pub use error::CopyError;
pub use place::Place;

use super::format::archive::is_encrypted_name;
use super::retain::catalog::{self, Listed};
use jiff::Timestamp;
use leoflow_base::config::{BackupSettings, CopyPlace};
use leoflow_base::home::Home;
use leoflow_base::home::backup_names::is_history_archive;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::sys::fs::disk::human_size;
use leoflow_base::sys::{checkpoint, clock};
use records::CopyRecord;
use selection::{Candidate, Selection};
use serde::Serialize;
use std::io;
use std::path::PathBuf;

/// Who started the copying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    User,
    Schedule,
}

/// The outcome for one place.
#[derive(Debug, Serialize)]
pub struct PlaceReport {
    pub to: String,
    /// Names of the backups that were copied, or in a preview those to copy.
    pub copied: Vec<String>,
    pub removed: Vec<String>,
    /// Number of backups of this home there.
    pub backups: usize,
    /// When the newest of them was created.
    pub newest: Option<Timestamp>,
    /// Why it failed.
    pub problem: Option<String>,
    #[serde(skip)]
    pub error: Option<CopyError>,
}

/// A backup in the home that is copied.
struct Local {
    path: PathBuf,
    candidate: Candidate,
}

/// The backups in the home to copy: all that can be read, but for those before a change, which serve its rollback. While
/// backups are encrypted, only encrypted ones leave the home.
fn local_backups(home: &Home, settings: &BackupSettings) -> io::Result<Vec<Local>> {
    let only_encrypted = !settings.recipients.is_empty() || settings.passphrase.is_some();
    let is_wanted = |backup: &Listed, name: &str| {
        let is_bad = backup.problem.is_some() || backup.last_verified.as_ref().is_some_and(|proof| !proof.ok);
        !is_bad && !name.starts_with("before-") && (!only_encrypted || is_encrypted_name(&backup.path))
    };
    let listed = catalog::list(home)?.into_iter().filter_map(|backup| {
        let name = backup.path.file_name()?.to_str()?.to_owned();
        let is_history = is_history_archive(&backup.path);
        let candidate =
            Candidate { created_at: backup.created(), size: backup.size_bytes, is_history, name: name.clone() };
        is_wanted(&backup, &name).then_some(Local { path: backup.path, candidate })
    });
    Ok(listed.collect())
}

/// Copies the backups in the home that a place should have and does not, and then removes those that it should not have
/// any more. Only backups that this home copied there are removed.
pub async fn copy_to(
    home: &Home,
    settings: &BackupSettings,
    place: &CopyPlace,
    origin: Origin,
    is_preview: bool,
    reporter: &dyn Reporter,
) -> PlaceReport {
    let mut report = PlaceReport {
        to: place.to.to_string(),
        copied: Vec::new(),
        removed: Vec::new(),
        backups: 0,
        newest: None,
        problem: None,
        error: None,
    };
    let copying = Copying { home, place, is_preview, reporter };
    if let Err(error) = copying.perform(settings, origin, &mut report).await {
        report.problem = Some(error.to_string());
        report.error = Some(error);
    }
    let known = records::of_place(home, &report.to).unwrap_or_default();
    report.backups = known.len();
    report.newest = known.iter().filter_map(|record| record.created_at).max();
    report
}

struct Copying<'a> {
    home: &'a Home,
    place: &'a CopyPlace,
    is_preview: bool,
    reporter: &'a dyn Reporter,
}

impl Copying<'_> {
    async fn perform(
        &self,
        settings: &BackupSettings,
        origin: Origin,
        report: &mut PlaceReport,
    ) -> Result<(), CopyError> {
        let notes = |source| CopyError::File { path: self.home.backups(), source };
        let local = local_backups(self.home, settings).map_err(notes)?;
        let to = self.place.to.to_string();
        let place = Place::open(self.place, &self.home.download())?;
        let listed = place.list().await?;
        let known = records::of_place(self.home, &to).map_err(notes)?;
        let present: Vec<CopyRecord> = known.iter().filter(|record| record.is_in(&listed)).cloned().collect();
        if !known.is_empty() && present.is_empty() && origin == Origin::Schedule {
            // Another disk, or an empty mount point.
            return Err(CopyError::Vanished(known.len()));
        }
        if !self.is_preview && present.len() < known.len() {
            records::replace(self.home, &to, present.clone()).map_err(notes)?;
        }
        let candidates = local.iter().map(|local| local.candidate.clone());
        let Selection { send, remove } = selection::select(candidates, &present, self.place.keep);
        for local in local.iter().filter(|local| send.contains(&local.candidate.name)) {
            if !self.is_preview {
                let is_there = listed.iter().any(|entry| entry.name == local.candidate.name);
                let record = self.send(&place, local, is_there).await?;
                checkpoint("copies.compared");
                records::add(self.home, record).map_err(notes)?;
                checkpoint("copies.recorded");
            }
            report.copied.push(local.candidate.name.clone());
        }
        for name in remove {
            if !self.is_preview {
                place.remove(&name).await?;
                checkpoint("copies.removed");
                records::forget(self.home, &to, &name).map_err(notes)?;
            }
            report.removed.push(name);
        }
        Ok(())
    }

    /// Copies a backup, reads the copy and compares it.
    async fn send(&self, place: &Place, local: &Local, is_there: bool) -> Result<CopyRecord, CopyError> {
        let Candidate { name, size, created_at, .. } = local.candidate.clone();
        let to = self.place.to.to_string();
        self.reporter.report(Progress::Started(format!("copying {name} ({}) to {to}", human_size(size))));
        let sha256 = match is_there {
            // Copied by a process that was killed before it recorded that, or by somebody else.
            true => files::hash_file(&local.path)?,
            false => place.put(&local.path, &name).await?,
        };
        checkpoint("copies.sent");
        if place.hash(&name).await? != sha256 {
            if is_there {
                return Err(CopyError::NameTaken(name));
            }
            // It would look like a backup. The difference is the error to report.
            let _ = place.remove(&name).await;
            return Err(CopyError::Different(name));
        }
        self.reporter.report(Progress::Finished(format!("copied {name} to {to}")));
        let copied_at = clock::whole_second(Timestamp::now());
        Ok(CopyRecord { to, name, size, sha256: sha256.to_string(), created_at, copied_at })
    }
}
