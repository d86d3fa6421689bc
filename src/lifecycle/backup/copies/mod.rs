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
use files::{Entry, in_file};
use jiff::Timestamp;
use leoflow_base::config::{BackupSettings, CopyAddress, CopyPlace};
use leoflow_base::home::Home;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::sys::fs::disk::human_size;
use leoflow_base::sys::fs::files::temporary_neighbour;
use leoflow_base::sys::{checkpoint, clock};
use records::CopyRecord;
use selection::{Candidate, Selection};
use serde::{Serialize, Serializer};
use std::path::{Path, PathBuf};

/// How the copying was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    ByUser,
    Scheduled,
    /// Only reports what would be done.
    Preview,
}

/// The outcome for one place.
#[derive(Debug, Serialize)]
pub struct PlaceReport {
    pub to: String,
    /// Names of the backups that were copied, or in a preview those to copy.
    pub copied: Vec<String>,
    pub removed: Vec<String>,
    /// Number of backups of this home that are recorded there.
    pub backups: usize,
    /// When the newest of them was created.
    pub newest: Option<Timestamp>,
    /// The first error.
    #[serde(serialize_with = "as_text")]
    pub problem: Option<CopyError>,
}

fn as_text<S: Serializer>(error: &Option<CopyError>, serializer: S) -> Result<S::Ok, S::Error> {
    error.as_ref().map(ToString::to_string).serialize(serializer)
}

impl PlaceReport {
    fn fail(&mut self, error: CopyError) {
        self.problem.get_or_insert(error);
    }
}

/// A backup in the home that is copied.
struct Local {
    path: PathBuf,
    size: u64,
    candidate: Candidate,
}

/// The backups in the home to copy: all that can be read, but for those before a change, which serve its rollback. While
/// backups are encrypted, only encrypted ones leave the home.
fn local_backups(home: &Home, settings: &BackupSettings) -> Result<Vec<Local>, CopyError> {
    let only_encrypted = !settings.recipients.is_empty() || settings.passphrase.is_some();
    let is_wanted = |backup: &Listed| {
        let is_bad = backup.problem.is_some() || backup.last_verified.as_ref().is_some_and(|proof| !proof.ok);
        !is_bad && !catalog::is_before_change(&backup.path) && (!only_encrypted || is_encrypted_name(&backup.path))
    };
    let listed = catalog::list(home).map_err(in_file(&home.backups()))?;
    let local = listed.into_iter().filter(is_wanted).filter_map(|backup| {
        let name = backup.path.file_name()?.to_str()?.to_owned();
        let candidate = Candidate { created_at: backup.created(), name };
        Some(Local { path: backup.path, size: backup.size_bytes, candidate })
    });
    Ok(local.collect())
}

/// A home whose backups are copied.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub home: &'a Home,
    pub settings: &'a BackupSettings,
    pub workspace: Option<&'a Path>,
    pub reporter: &'a dyn Reporter,
}

/// Copies the backups in the home that a place should have and does not, and then removes those that it should not have
/// any more. Only backups that this home copied there are removed.
pub(crate) async fn copy_to(source: Source<'_>, place: &CopyPlace, mode: Mode) -> PlaceReport {
    let to = place.to.to_string();
    let (copied, removed) = (Vec::new(), Vec::new());
    let mut report = PlaceReport { to: to.clone(), copied, removed, backups: 0, newest: None, problem: None };
    let copying = Copying { source, place, to: &to, mode };
    if let Err(error) = copying.perform(&mut report).await {
        report.fail(error);
    }
    let known: Vec<CopyRecord> = copying.known().unwrap_or_default();
    report.backups = known.iter().filter(|record| record.copied_at.is_some()).count();
    report.newest = known.iter().filter_map(|record| record.created_at).max();
    report
}

struct Copying<'a> {
    source: Source<'a>,
    place: &'a CopyPlace,
    to: &'a str,
    mode: Mode,
}

impl Copying<'_> {
    /// The records of this place.
    fn known(&self) -> Result<Vec<CopyRecord>, CopyError> {
        let home = self.source.home;
        let all = records::read(home).map_err(in_file(&home.backups()))?;
        Ok(all.into_iter().filter(|record| record.to == self.to).collect())
    }

    fn change_records(&self, edit: impl FnOnce(&mut Vec<CopyRecord>)) -> Result<(), CopyError> {
        let home = self.source.home;
        records::change(home, self.to, edit).map_err(in_file(&home.backups()))
    }

    async fn perform(&self, report: &mut PlaceReport) -> Result<(), CopyError> {
        let Source { home, settings, .. } = self.source;
        self.refuse_own_folder()?;
        let local = local_backups(home, settings)?;
        let place = Place::open(self.place)?;
        let listed = place.list().await?;
        let (known, begun): (Vec<_>, Vec<_>) = self.known()?.into_iter().partition(|record| record.copied_at.is_some());
        let present: Vec<CopyRecord> = known.iter().filter(|record| record.is_in(&listed)).cloned().collect();
        if !known.is_empty() && present.is_empty() && self.mode == Mode::Scheduled {
            // Another disk, or an empty mount point.
            return Err(CopyError::Vanished(known.len()));
        }
        if self.mode != Mode::Preview {
            begun.iter().try_for_each(|record| place.remove_part(&record.name))?;
            // One whose size has changed stays known, so that it is not taken for another program's file.
            let is_there = |record: &CopyRecord| listed.iter().any(|entry| entry.name == record.name);
            self.change_records(|records| records.retain(is_there))?;
        }
        let candidates = local.iter().map(|local| local.candidate.clone());
        let Selection { send, remove } = selection::select(candidates, &present, self.place.keep, Timestamp::now());
        for local in local.iter().filter(|local| send.contains(&local.candidate.name)) {
            let earlier = known.iter().chain(&begun).find(|record| record.name == local.candidate.name);
            let sent = match self.mode {
                Mode::Preview => Ok(()),
                Mode::ByUser | Mode::Scheduled => self.send(&place, local, &listed, earlier).await,
            };
            match sent {
                Ok(()) => report.copied.push(local.candidate.name.clone()),
                // The limits of the home have removed it meanwhile.
                Err(_) if !local.path.exists() => {}
                // The others are copied all the same.
                Err(error) => report.fail(error),
            }
        }
        for name in remove {
            if self.mode != Mode::Preview {
                place.remove(&name).await?;
                checkpoint("copies.removed");
                self.change_records(|records| records.retain(|record| record.name != name))?;
            }
            report.removed.push(name);
        }
        Ok(())
    }

    /// Refuses a folder whose files Leoflow itself has: the home, with the backups that the copies are of, and the
    /// workspace, which is in each backup.
    fn refuse_own_folder(&self) -> Result<(), CopyError> {
        let CopyAddress::Folder(folder) = &self.place.to else { return Ok(()) };
        let Ok(real) = folder.canonicalize() else { return Ok(()) };
        let own = [Some(self.source.home.root()), self.source.workspace];
        let is_own =
            own.into_iter().flatten().filter_map(|own| own.canonicalize().ok()).any(|own| real.starts_with(own));
        if is_own { Err(CopyError::InsideHome) } else { Ok(()) }
    }

    /// Copies a backup, reads the copy and compares it. `earlier` is what is known of a copy of that name.
    async fn send(
        &self,
        place: &Place,
        local: &Local,
        listed: &[Entry],
        earlier: Option<&CopyRecord>,
    ) -> Result<(), CopyError> {
        let Candidate { name, created_at } = local.candidate.clone();
        let there = listed.iter().find(|entry| entry.name == name);
        let entry = Entry { name: name.clone(), size: local.size };
        let scratch = temporary_neighbour(&self.source.home.download());
        self.source.reporter.report(Progress::Started(format!(
            "copying {name} ({}) to {}",
            human_size(local.size),
            self.to
        )));
        let record = CopyRecord {
            to: self.to.to_owned(),
            name: name.clone(),
            size: local.size,
            sha256: String::new(),
            created_at,
            copied_at: None,
            was_there: there.is_some() && earlier.is_none(),
        };
        let is_same_size = there.is_none_or(|there| there.size == local.size);
        if !is_same_size {
            let is_own = earlier.is_some_and(|earlier| earlier.copied_at.is_some());
            return Err(if is_own { CopyError::Changed(name) } else { CopyError::NameTaken(name) });
        }
        let replace = |record: CopyRecord| {
            self.change_records(|records| {
                records.retain(|other| other.name != record.name);
                records.push(record);
            })
        };
        let sha256 = match there {
            // By a process that was killed before it recorded that, or by the user.
            Some(_) => leoflow_components::wheel::sha256_of(&local.path).map_err(in_file(&local.path))?,
            None => {
                replace(record.clone())?;
                place.put(&local.path, &name).await?
            }
        };
        checkpoint("copies.sent");
        if place.hash(&entry, &scratch).await? != sha256 {
            if there.is_some() {
                return Err(CopyError::NameTaken(name));
            }
            // It would look like a backup. The difference is the error to report.
            let _ = place.remove(&name).await;
            return Err(CopyError::Different(name));
        }
        checkpoint("copies.compared");
        replace(CopyRecord { sha256, copied_at: Some(clock::whole_second(Timestamp::now())), ..record })?;
        checkpoint("copies.recorded");
        self.source.reporter.report(Progress::Finished(format!("copied {name} to {}", self.to)));
        Ok(())
    }
}
