//! Proving a backup: every hash, then a restore into a database of its own, which is dropped again.

use super::archive_read::NoSink;
use super::content::{Content, Whose};
use super::encryption::Input;
use super::load;
use super::manifest::Manifest;
use super::restore::{DatabaseOnly, cipher_of, read};
use super::restore_error::RestoreError;
use super::restore_plan::Refusal;
use super::scratch::{self, RestoreId, Scratch};
use super::side::{Elsewhere, Side, When};
use super::strays;
use super::workshop::Workshop;
use crate::home::Home;
use crate::home::progress::{Progress, Reporter};
use crate::postgres::{Access, Login};
use crate::schema::{embedded, known};
use crate::sys::{disk, files};

/// Compares every entry with the manifest.
pub fn hashes(input: &Input, reporter: &dyn Reporter) -> Result<Manifest, RestoreError> {
    read(input, &mut NoSink, reporter)
}

/// Compares, and restores on trial. Nothing of it is left, whatever comes out.
pub async fn trial(
    home: &Home,
    access: &Access,
    input: &Input,
    version: &str,
    reporter: &dyn Reporter,
) -> Result<Manifest, RestoreError> {
    let manifest = super::restore::peek(input)?;
    fits(home, &manifest)?;
    let side = Side::of(home, RestoreId::new());
    let outcome = match Workshop::open(home, access).await {
        Ok(workshop) => {
            let tried = try_it(&workshop.access, &side, input, version, reporter).await;
            tried.map(|(manifest, _)| manifest)
        }
        Err(error) => Err(error.into()),
    };
    clean_up(home, access, side, reporter).await;
    outcome
}

/// The folder is what strays are known by: it goes when the database has.
async fn clean_up(home: &Home, access: &Access, side: Side, reporter: &dyn Reporter) {
    match strays::remove_from(home, access).await {
        Ok(()) => drop(side.remove()),
        Err(error) => {
            reporter.report(Progress::Warning(format!("the database of the trial cannot be removed: {error}")))
        }
    }
}

/// A backup that was restored into a database of its own, for a release to try itself on.
pub struct Rehearsal {
    side: Side,
}

impl Rehearsal {
    /// Restores it; the application's role owns what is in it.
    pub async fn restore(
        home: &Home,
        access: &Access,
        input: &Input,
        version: &str,
        reporter: &dyn Reporter,
    ) -> Result<Self, RestoreError> {
        let manifest = super::restore::peek(input)?;
        fits(home, &manifest)?;
        let side = Side::of(home, RestoreId::new());
        let restored = async {
            let workshop = Workshop::open(home, access).await?;
            let (_, scratch) = try_it(&workshop.access, &side, input, version, reporter).await?;
            scratch.adopt().await?;
            if !access.is_ours() {
                let on = |access: &Access| Login { database: side.id.side_database(), ..access.application() };
                let content =
                    Content::write(&workshop.access, &on(&workshop.access), &side.content(When::After)).await?;
                scratch::create_side(access, &side.id).await?;
                content.bring_into(access, &on(access), Whose::Nobodys, &[]).await?;
            }
            Ok(())
        };
        match restored.await {
            Ok(()) => Ok(Self { side }),
            Err(error) => {
                clean_up(home, access, side, reporter).await;
                Err(error)
            }
        }
    }

    /// Without a database yet, once every hash in the backup was compared.
    pub fn empty(home: &Home, input: &Input, reporter: &dyn Reporter) -> Result<Self, RestoreError> {
        hashes(input, reporter)?;
        let side = Side::of(home, RestoreId::new());
        let write = |source| RestoreError::Write { path: side.folder().to_owned(), source };
        side.create(&Elsewhere::default()).map_err(write)?;
        Ok(Self { side })
    }

    pub fn database(&self) -> String {
        self.side.id.side_database()
    }

    pub async fn remove(self, home: &Home, access: &Access, reporter: &dyn Reporter) {
        clean_up(home, access, self.side, reporter).await;
    }
}

/// What a trial needs, asked before it begins.
fn fits(home: &Home, manifest: &Manifest) -> Result<(), Refusal> {
    let binary = embedded::newest(known());
    if manifest.schema_version > binary {
        return Err(Refusal::NewerSchema { backup: manifest.schema_version, binary });
    }
    // Of its files only the configuration and the dump are unpacked.
    let needed = manifest.database.bytes.saturating_add(manifest.total_size() - manifest.files_size());
    match disk::free_bytes(home.root()) {
        Ok(free) if free < needed => Err(Refusal::Space { path: home.root().to_owned(), needed, free }),
        _ => Ok(()),
    }
}

async fn try_it(
    access: &Access,
    side: &Side,
    input: &Input,
    version: &str,
    reporter: &dyn Reporter,
) -> Result<(Manifest, Scratch), RestoreError> {
    let write = |source| RestoreError::Write { path: side.folder().to_owned(), source };
    side.create(&Elsewhere::default()).map_err(write)?;
    let manifest = read(input, &mut DatabaseOnly::new(side), reporter)?;
    let config = files::read_text(&side.folder().join(super::manifest::CONFIG), 1024 * 1024).map_err(write)?;
    let cipher = cipher_of(&config.unwrap_or_default())?;
    let scratch = Scratch::create(access, side.id.clone()).await?;
    load::load(&scratch, &side.dump(), &manifest, &cipher, version, reporter).await?;
    Ok((manifest, scratch))
}
