//! `leoflow lite backups verify`.

use super::restore::keys;
use super::restore_args::Decryption;
use crate::context::Context;
use crate::error::Error;
use crate::recovery::datastore::{self, Datastore};
use crate::terminal::printer::counted;
use clap::Args;
use jiff::Timestamp;
use leoflow_base::home::Home;
use leoflow_base::home::lock::OperationLock;
use leoflow_base::home::upkeep::{self, End};
use leoflow_base::sys::env_vars;
use leoflow_lifecycle::backup::retain::catalog::{self, Listed, Method, Proof};
use leoflow_lifecycle::backup::{Input, Keys, verify};
use leoflow_lifecycle::operation::open::datastore::StartedBy;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub struct VerifyBackups {
    /// The backup to verify [default: the newest in the home]
    pub file: Option<PathBuf>,
    /// Verify every backup in the home
    #[arg(long, conflicts_with = "file")]
    pub all: bool,
    /// Compare hashes only, without a test restore
    #[arg(long)]
    pub quick: bool,
    /// Started by the server when a verification is due
    #[arg(long, hide = true, conflicts_with_all = ["file", "all", "quick"])]
    pub scheduled: bool,
    #[command(flatten)]
    pub decryption: Decryption,
}

/// Verifies the backups and returns the exit code; `None` if a scheduled verification finds no backup.
pub async fn run(context: &Context<'_>, args: &VerifyBackups) -> Result<Option<u8>, Error> {
    if args.scheduled && listed(&context.home)?.is_empty() {
        // Nothing to verify until the next scheduled time.
        record_end(context, End::Partial);
        return Ok(None);
    }
    let mut files = selected_files(context, args)?;
    let verification = Verification::begin(context, args).await?;
    if args.scheduled {
        // It may have waited for a backup, which is then the newest.
        files = selected_files(context, args)?;
    }
    let mut results = Vec::new();
    for file in files {
        let proof = verification.verify(&file).await?;
        results.push((file, proof));
    }
    if context.home.exists() {
        record_results(context, args, &results);
    }
    print_results(context, &results).map(Some)
}

fn record_end(context: &Context<'_>, end: End) {
    if let Err(error) = upkeep::note_end(&context.home, Timestamp::now(), upkeep::Kind::Verification, end) {
        context.printer.warning(format!("failed to record the verification: {error}"));
    }
}

/// The settings, keys and datastore that the verification of each file uses.
struct Verification<'a> {
    context: &'a Context<'a>,
    args: &'a VerifyBackups,
    keys: Keys,
    method: Method,
    /// `None` for a quick verification, which needs neither a datastore nor a home. Fields are dropped in order, so the
    /// datastore is closed before the lock is released.
    datastore_and_lock: Option<(Datastore, OperationLock)>,
}

impl<'a> Verification<'a> {
    /// Reads the keys, and opens the datastore for a test restore.
    async fn begin(context: &'a Context<'_>, args: &'a VerifyBackups) -> Result<Self, Error> {
        let keys = keys(context, &args.decryption)?;
        let (method, datastore_and_lock) = match args.quick {
            true => (Method::Hashes, None),
            false => (Method::TestRestore, Some(open_locked_datastore(context, args.scheduled).await?)),
        };
        Ok(Self { context, args, keys, method, datastore_and_lock })
    }

    /// Verifies a file, and records and prints the result.
    async fn verify(&self, file: &Path) -> Result<Proof, Error> {
        let (home, printer) = (&self.context.home, self.context.printer);
        if self.args.scheduled
            && let Some(proof) = catalog::known_proof(home, file).filter(|proof| !proof.ok)
        {
            // The file is unchanged since it failed, so it would fail again.
            return Ok(proof);
        }
        let version = catalog::FileVersion::of(file);
        let (rows, proof) = self.prove(file).await?;
        if home.exists()
            && let Err(error) = version.and_then(|verified| catalog::store_proof(home, file, verified, &proof))
        {
            printer.warning(format!("failed to record the result: {error}"));
        }
        if !printer.json {
            print_verification(self.context, file, rows, &proof);
        }
        Ok(proof)
    }

    /// Returns the number of rows of a good backup, and the proof. A problem of the backup is part of the proof; a
    /// problem of this machine is an error.
    async fn prove(&self, file: &Path) -> Result<(Option<i64>, Proof), Error> {
        let (home, printer) = (&self.context.home, self.context.printer);
        let input = Input { path: file.to_owned(), keys: self.keys.clone() };
        let outcome = match &self.datastore_and_lock {
            None => verify::verify_hashes(&input, printer),
            Some((datastore, _)) => {
                verify::test_restore(home, &datastore.access, &input, self.context.version, printer).await
            }
        };
        match outcome {
            Ok(manifest) => Ok((Some(manifest.rows()), Proof::now(self.method, None))),
            Err(error) if error.is_refusal() => Ok((None, Proof::now(self.method, Some(error.to_string())))),
            Err(error) if error.cannot_decrypt() && (self.args.all || !self.has_given_key()) => {
                let compared = catalog::compare_bytes(home, file).map_err(|error| Error::io("read", file, &error))?;
                match compared {
                    Some(proof) => Ok((None, proof)),
                    // With --all, one failure does not end the check of the others.
                    None if self.args.all => Ok((None, Proof::unopened(Some(error.to_string())))),
                    None => Err(error.into()),
                }
            }
            Err(error) => Err(match &self.datastore_and_lock {
                Some((datastore, _)) => super::explain(datastore, error.into()),
                None => error.into(),
            }),
        }
    }

    /// True when the user gave a key, which must decrypt the backup. Without a key, an encrypted backup is only checked
    /// by hash.
    fn has_given_key(&self) -> bool {
        let decryption = &self.args.decryption;
        !decryption.identity.is_empty() || decryption.passphrase_file.is_some()
    }
}

async fn open_locked_datastore(context: &Context<'_>, scheduled: bool) -> Result<(Datastore, OperationLock), Error> {
    let command = "leoflow lite backups verify";
    datastore::check(&context.home)?;
    let (datastore, operation_lock) = Datastore::open_locked(
        &context.recovery(),
        command,
        if scheduled { StartedBy::Schedule } else { StartedBy::User },
    )
    .await?;
    context.recovery().clean_up(Some(&datastore.access)).await?;
    Ok((datastore, operation_lock))
}

/// Records test restores of backups in the home, and the verification in the schedule: `Done` if every backup was
/// test-restored, `Partial` if some encrypted backups could only be compared by hash.
fn record_results(context: &Context<'_>, args: &VerifyBackups, results: &[(PathBuf, Proof)]) {
    let home = &context.home;
    let is_test_restored =
        |(file, proof): &(PathBuf, Proof)| proof.is_test_restored() && catalog::is_in_home(home, file);
    if results.iter().any(is_test_restored)
        && let Err(error) = upkeep::note_test_restore(home, Timestamp::now())
    {
        context.printer.warning(format!("failed to record the test restore: {error}"));
    }
    // The scheduled verification takes the newest backup, so it remains due after that of an older one.
    if args.file.is_some() && !results.iter().all(|(file, _)| catalog::is_newest(home, file)) {
        return;
    }
    let all_proofs = |predicate: fn(&Proof) -> bool| results.iter().all(|(_, proof)| predicate(proof));
    if all_proofs(Proof::is_test_restored) {
        record_end(context, End::Done);
    } else if all_proofs(|proof| proof.ok && (proof.unopened || !proof.quick)) {
        record_end(context, End::Partial);
    }
}

fn print_results(context: &Context<'_>, results: &[(PathBuf, Proof)]) -> Result<u8, Error> {
    if context.printer.json {
        let results: Vec<_> =
            results.iter().map(|(path, proof)| json!({"path": path, "last_verified": proof})).collect();
        context.printer.json(&json!({"backups": results}))?;
        return Ok(if results.iter().all(|result| result["last_verified"]["ok"] == true) { 0 } else { 1 });
    }
    let failed_count = results.iter().filter(|(_, proof)| !proof.ok).count();
    match failed_count {
        0 => Ok(0),
        _ => Err(Error::failed(format!("{failed_count} of {} cannot be restored", counted(results.len(), "backup")))
            .hint("create a new backup: leoflow lite backup")),
    }
}

fn print_verification(context: &Context<'_>, file: &Path, rows: Option<i64>, proof: &Proof) {
    let file = file.display();
    match (&proof.problem, rows) {
        (None, _) if proof.unopened => {
            context.printer.line(format!("{file}: unchanged since it was written"));
            context
                .printer
                .note("The backup is encrypted and was not test-restored. Verify it with --identity KEY-FILE.");
        }
        (None, Some(rows)) if !proof.quick => {
            context.printer.line(format!("{file}: test-restored, {}", counted(rows, "row")));
        }
        (None, _) => context.printer.line(format!("{file}: all hashes match")),
        (Some(problem), _) => context.printer.line(format!("{file}: {problem}")),
    }
}

/// The backups in the home.
pub fn listed(home: &Home) -> Result<Vec<Listed>, Error> {
    catalog::list(home).map_err(|error| Error::io("read", &home.backups(), &error))
}

/// The absolute paths of the backups to verify: the given file, all, or the newest one.
fn selected_files(context: &Context<'_>, args: &VerifyBackups) -> Result<Vec<PathBuf>, Error> {
    if let Some(file) = &args.file {
        let path = env_vars::absolute(file)?;
        // A bare file name may also name a backup in the home's `backups` folder.
        let listed = context.home.backups().join(file);
        return Ok(vec![if !path.exists() && listed.exists() { listed } else { path }]);
    }
    let paths: Vec<PathBuf> = listed(&context.home)?.into_iter().map(|backup| backup.path).collect();
    if paths.is_empty() {
        return Err(Error::failed(format!("no backups in {}", context.home.backups().display()))
            .hint("specify a file: leoflow lite backups verify FILE"));
    }
    Ok(if args.all { paths } else { paths.into_iter().take(1).collect() })
}
