//! Verifies backups, and records the results.

use super::open::datastore::{self, Datastore, StartedBy};
use super::{OperationContext, OperationError};
use crate::backup::retain::catalog::{self, FileVersion, Method, Proof};
use crate::backup::{Input, Keys, RestoreError, verify};
use jiff::Timestamp;
use leoflow_base::home::Home;
use leoflow_base::home::lock::OperationLock;
use leoflow_base::home::upkeep::{self, End};
use std::path::{Path, PathBuf};

/// The backups to verify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The newest in the home.
    Newest,
    /// Every backup in the home.
    All,
    /// An absolute path.
    File(PathBuf),
}

/// A verification of backups.
pub struct VerifyPlan {
    selection: Selection,
    method: Method,
    started_by: StartedBy,
    files: Vec<PathBuf>,
}

/// The keys that decrypt backups.
pub struct Decryption {
    pub keys: Keys,
    /// True when the user gave a key for this verification: then it must decrypt the backup. Otherwise, an encrypted
    /// backup without a key is only checked by hash.
    pub is_given: bool,
}

/// A verified backup.
pub struct Verified {
    pub path: PathBuf,
    /// Rows of a good backup, unless the result is an earlier one.
    pub rows: Option<i64>,
    pub proof: Proof,
}

/// Selects the backups. `None` if a verification is due and there is no backup.
pub fn plan(
    context: &OperationContext<'_>,
    selection: Selection,
    method: Method,
    started_by: StartedBy,
) -> Result<Option<VerifyPlan>, OperationError> {
    match selected_files(context.home, &selection) {
        Err(OperationError::NoBackups(_)) if started_by == StartedBy::Schedule => {
            // Nothing to verify until the next scheduled time.
            record_end(context, End::Partial);
            Ok(None)
        }
        files => Ok(Some(VerifyPlan { files: files?, selection, method, started_by })),
    }
}

/// The paths of the backups to verify.
fn selected_files(home: &Home, selection: &Selection) -> Result<Vec<PathBuf>, OperationError> {
    if let Selection::File(path) = selection {
        return Ok(vec![path.clone()]);
    }
    let listed = catalog::list(home).map_err(OperationError::io("read", &home.backups()))?;
    let count = if *selection == Selection::All { listed.len() } else { 1 };
    let paths: Vec<PathBuf> = listed.into_iter().take(count).map(|backup| backup.path).collect();
    if paths.is_empty() { Err(OperationError::NoBackups(home.backups())) } else { Ok(paths) }
}

/// Verifies the backups and records the results; `on_verified` receives each one. `command` names the holder of the
/// operation lock in other processes' messages. A problem of a backup is a result; a problem of this machine is an
/// error.
pub async fn apply(
    context: &OperationContext<'_>,
    mut plan: VerifyPlan,
    decryption: &Decryption,
    command: &str,
    on_verified: &mut dyn FnMut(&Verified),
) -> Result<Vec<Verified>, OperationError> {
    let mut opened = None;
    // A comparison of hashes needs neither a datastore nor a home.
    if plan.method == Method::TestRestore {
        opened = Some(open(context, command, plan.started_by).await?);
    }
    if plan.started_by == StartedBy::Schedule {
        // It may have waited for a backup, which is then the newest.
        plan.files = selected_files(context.home, &plan.selection)?;
    }
    let verification =
        Verification { context, plan: &plan, decryption, datastore: opened.as_ref().map(|(datastore, _)| datastore) };
    let mut all_verified = Vec::new();
    for path in &plan.files {
        let verified = verification.verify(path).await?;
        on_verified(&verified);
        all_verified.push(verified);
    }
    if context.home.exists() {
        record(context, &plan.selection, &all_verified);
    }
    Ok(all_verified)
}

async fn open(
    context: &OperationContext<'_>,
    command: &str,
    started_by: StartedBy,
) -> Result<(Datastore, OperationLock), OperationError> {
    datastore::check(context.home)?;
    let opened = Datastore::open_locked(context, command, started_by).await?;
    context.clean_up(Some(&opened.0.access)).await?;
    Ok(opened)
}

/// What the verification of each backup uses.
struct Verification<'a> {
    context: &'a OperationContext<'a>,
    plan: &'a VerifyPlan,
    decryption: &'a Decryption,
    /// For test restores.
    datastore: Option<&'a Datastore>,
}

impl Verification<'_> {
    /// Verifies a backup and records the result.
    async fn verify(&self, path: &Path) -> Result<Verified, OperationError> {
        let home = self.context.home;
        let verified = |rows, proof| Verified { path: path.to_owned(), rows, proof };
        if self.plan.started_by == StartedBy::Schedule
            && let Some(proof) = catalog::known_proof(home, path).filter(|proof| !proof.ok)
        {
            // The file is unchanged since it failed, so it would fail again.
            return Ok(verified(None, proof));
        }
        let version = FileVersion::of(path);
        let (rows, proof) = self.prove(path).await?;
        if home.exists()
            && let Err(error) = version.and_then(|version| catalog::store_proof(home, path, version, &proof))
        {
            self.context.warn(format!("failed to record the result: {error}"));
        }
        Ok(verified(rows, proof))
    }

    /// Returns the number of rows of a good backup, and the proof.
    async fn prove(&self, path: &Path) -> Result<(Option<i64>, Proof), OperationError> {
        let &OperationContext { home, version, reporter } = self.context;
        let input = Input { path: path.to_owned(), keys: self.decryption.keys.clone() };
        let outcome = match self.datastore {
            None => verify::verify_hashes(&input, reporter),
            Some(datastore) => verify::test_restore(home, &datastore.access, &input, version, reporter).await,
        };
        match outcome {
            Ok(manifest) => Ok((Some(manifest.rows()), Proof::now(self.plan.method, None))),
            Err(error) if error.is_refusal() => Ok((None, Proof::now(self.plan.method, Some(error.to_string())))),
            Err(error) if error.cannot_decrypt() => self.compare_bytes(path, error).map(|proof| (None, proof)),
            Err(error) => Err(match self.datastore {
                Some(datastore) => datastore.explain(error),
                None => error.into(),
            }),
        }
    }

    /// Compares an encrypted backup, which no key decrypts, with the bytes that this machine wrote.
    fn compare_bytes(&self, path: &Path, error: RestoreError) -> Result<Proof, OperationError> {
        let is_one_of_all = self.plan.selection == Selection::All;
        if self.decryption.is_given && !is_one_of_all {
            return Err(error.into());
        }
        match catalog::compare_bytes(self.context.home, path).map_err(OperationError::io("read", path))? {
            Some(proof) => Ok(proof),
            // One failure does not end the check of the others.
            None if is_one_of_all => Ok(Proof::unopened(Some(error.to_string()))),
            None => Err(error.into()),
        }
    }
}

/// Records test restores of backups in the home, and the verification in the schedule: `Done` if every backup was
/// test-restored, `Partial` if some encrypted backups could only be compared by hash.
fn record(context: &OperationContext<'_>, selection: &Selection, all_verified: &[Verified]) {
    let home = context.home;
    let is_test_restored =
        |verified: &Verified| verified.proof.is_test_restored() && catalog::is_in_home(home, &verified.path);
    if all_verified.iter().any(is_test_restored)
        && let Err(error) = upkeep::note_test_restore(home, Timestamp::now())
    {
        context.warn(format!("failed to record the test restore: {error}"));
    }
    // The scheduled verification takes the newest backup, so it remains due after that of an older one.
    let is_file = matches!(selection, Selection::File(_));
    if is_file && !all_verified.iter().all(|verified| catalog::is_newest(home, &verified.path)) {
        return;
    }
    let all_proofs = |predicate: fn(&Proof) -> bool| all_verified.iter().all(|verified| predicate(&verified.proof));
    if all_proofs(Proof::is_test_restored) {
        record_end(context, End::Done);
    } else if all_proofs(|proof| proof.ok && (proof.unopened || !proof.quick)) {
        record_end(context, End::Partial);
    }
}

fn record_end(context: &OperationContext<'_>, end: End) {
    if let Err(error) = upkeep::note_end(context.home, Timestamp::now(), upkeep::Kind::Verification, end) {
        context.warn(format!("failed to record the verification: {error}"));
    }
}
