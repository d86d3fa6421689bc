//! Verifies a backup: compares every hash, then restores it into a database of its own and drops that database.

mod freeze;
pub(crate) mod leftovers;
pub mod load;
pub mod load_error;
mod pg_restore;
pub(crate) mod schema_check;
pub(crate) mod scratch;
pub(crate) mod stage;
pub(crate) mod staging;

use super::content::{Content, ExpectedOwner};
use super::encryption::Input;
use super::format::archive_read::NoSink;
use super::format::manifest::Manifest;
use super::restore::restore_dir::{ExternalPaths, RestoreDir, When};
use super::restore::restore_error::RestoreError;
use super::restore::restore_plan::RestoreRefusal;
use super::restore::{DatabaseOnly, cipher_of, read};
use leoflow_base::home::Home;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::sys::fs::{disk, files};
use leoflow_postgres::schema::{embedded, known};
use leoflow_postgres::{Access, Login};
use scratch::{RestoreId, Scratch};
use staging::StagingServer;

/// Compares the hash of every entry with the manifest. Returns the manifest.
pub(crate) fn verify_hashes(input: &Input, reporter: &dyn Reporter) -> Result<Manifest, RestoreError> {
    read(input, &mut NoSink, reporter)
}

/// Verifies the hashes and restores the backup into a temporary database. Removes its files and databases afterwards.
/// `version` is the version of this program.
pub(crate) async fn test_restore(
    home: &Home,
    access: &Access,
    input: &Input,
    version: &str,
    reporter: &dyn Reporter,
) -> Result<Manifest, RestoreError> {
    let manifest = super::restore::peek(input)?;
    check_requirements(home, &manifest)?;
    let restore_dir = RestoreDir::of(home, RestoreId::new());
    let outcome = match StagingServer::open(home, access).await {
        Ok(staging_server) => {
            let restored = load_backup(&staging_server.access, &restore_dir, input, version, reporter).await;
            restored.map(|(manifest, _)| manifest)
        }
        Err(error) => Err(error.into()),
    };
    clean_up(home, access, restore_dir, reporter).await;
    outcome
}

/// Removes the database, then the directory of a test restore: the directory identifies the database as a leftover.
async fn clean_up(home: &Home, access: &Access, restore_dir: RestoreDir, reporter: &dyn Reporter) {
    match leftovers::remove_from(home, access).await {
        Ok(()) => drop(restore_dir.remove()),
        Err(error) => {
            reporter.report(Progress::Warning(format!("cannot remove the database of the test restore: {error}")))
        }
    }
}

/// A backup restored into a database of its own, for the rehearsal of an upgrade.
pub struct Rehearsal {
    restore_dir: RestoreDir,
}

impl Rehearsal {
    /// Restores the backup and makes the application's role the owner of the database.
    pub async fn restore(
        home: &Home,
        access: &Access,
        input: &Input,
        version: &str,
        reporter: &dyn Reporter,
    ) -> Result<Self, RestoreError> {
        let manifest = super::restore::peek(input)?;
        check_requirements(home, &manifest)?;
        let restore_dir = RestoreDir::of(home, RestoreId::new());
        let restored = async {
            let staging_server = StagingServer::open(home, access).await?;
            let (_, scratch) = load_backup(&staging_server.access, &restore_dir, input, version, reporter).await?;
            scratch.transfer_to_application().await?;
            if !access.owns_server() {
                let login_for =
                    |access: &Access| Login { database: restore_dir.id.standby_database(), ..access.application() };
                let content = Content::write(
                    &staging_server.access,
                    &login_for(&staging_server.access),
                    &restore_dir.content(When::After),
                )
                .await?;
                scratch::create_standby(access, &restore_dir.id).await?;
                content.import_into(access, &login_for(access), ExpectedOwner::Unclaimed, &[]).await?;
            }
            Ok(())
        };
        match restored.await {
            Ok(()) => Ok(Self { restore_dir }),
            Err(error) => {
                clean_up(home, access, restore_dir, reporter).await;
                Err(error)
            }
        }
    }

    /// Prepares a rehearsal without a database, after comparing every hash in the backup.
    pub fn empty(home: &Home, input: &Input, reporter: &dyn Reporter) -> Result<Self, RestoreError> {
        verify_hashes(input, reporter)?;
        let restore_dir = RestoreDir::of(home, RestoreId::new());
        let write_error = |source| RestoreError::Write { path: restore_dir.folder().to_owned(), source };
        restore_dir.create(&ExternalPaths::default()).map_err(write_error)?;
        Ok(Self { restore_dir })
    }

    /// Name of the restored database.
    pub fn database(&self) -> String {
        self.restore_dir.id.standby_database()
    }

    /// Removes the restored database and the files.
    pub async fn remove(self, home: &Home, access: &Access, reporter: &dyn Reporter) {
        clean_up(home, access, self.restore_dir, reporter).await;
    }
}

/// Checks that this program knows the schema and that the disk has enough space for a test restore.
fn check_requirements(home: &Home, manifest: &Manifest) -> Result<(), RestoreRefusal> {
    let binary = embedded::newest(known());
    if manifest.schema_version > binary {
        return Err(RestoreRefusal::NewerSchema { backup: manifest.schema_version, binary });
    }
    // A test restore unpacks only the configuration and the dump.
    let needed = manifest.database.bytes.saturating_add(manifest.total_size() - manifest.files_size());
    match disk::free_bytes(home.root()) {
        Ok(free) if free < needed => Err(RestoreRefusal::Space { path: home.root().to_owned(), needed, free }),
        _ => Ok(()),
    }
}

/// Verifies every hash of a backup and loads its dump into a scratch database.
async fn load_backup(
    access: &Access,
    restore_dir: &RestoreDir,
    input: &Input,
    version: &str,
    reporter: &dyn Reporter,
) -> Result<(Manifest, Scratch), RestoreError> {
    let write = |source| RestoreError::Write { path: restore_dir.folder().to_owned(), source };
    restore_dir.create(&ExternalPaths::default()).map_err(write)?;
    let manifest = read(input, &mut DatabaseOnly::new(restore_dir), reporter)?;
    let config =
        files::read_text(&restore_dir.folder().join(super::format::manifest::CONFIG), 1024 * 1024).map_err(write)?;
    let cipher = cipher_of(&config.unwrap_or_default())?;
    let scratch = Scratch::create(access, restore_dir.id.clone()).await?;
    load::load(&scratch, &restore_dir.dump(), &manifest, &cipher, version, reporter).await?;
    Ok((manifest, scratch))
}
