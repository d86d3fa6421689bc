//! Feeds an untrusted dump to `pg_restore`, and finds out why the program failed.

use super::freeze;
use super::load_error::LoadError;
use super::scratch::Scratch;
use crate::backup::create::dump::{DumpError, PipeError, attend, start};
use crate::backup::format::archive::zstd_decoder;
use crate::backup::format::manifest::Manifest;
use leoflow_base::sys::blocking;
use leoflow_base::sys::fs::disk;
use leoflow_postgres::fatal_message::{self, Cause};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Session settings for speed. `synchronous_commit=off` is safe, because the database is dropped, or flushed before it
/// is renamed into use.
const OPTIONS: &str = "-c synchronous_commit=off -c maintenance_work_mem=128MB";
/// Loads the dump with `pg_restore`, in one transaction. `fed` is the number of bytes passed to it so far.
pub async fn run(scratch: &Scratch, dump: &Path, manifest: &Manifest, fed: &Arc<AtomicU64>) -> Result<(), LoadError> {
    let login = scratch.standby_login();
    let mut command = scratch.access.program("pg_restore", &login);
    command
        .args(["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges", "--no-password"])
        .args(["--no-publications", "--no-subscriptions", "--no-security-labels", "--no-tablespaces"])
        .arg("--dbname")
        .arg(&login.database)
        .env("PGOPTIONS", OPTIONS)
        .stdin(Stdio::piped());
    let file = File::open(dump).map_err(LoadError::Read)?;
    let child = start("pg_restore", &mut command)?;
    let (declared, counter) = (manifest.database.dump_bytes, fed.clone());
    let feed = move |child: &mut Child| match child.stdin.take() {
        Some(mut stdin) => copy(file, &mut stdin, declared, &counter),
        None => Err(PipeError::Program),
    };
    let fed = blocking::run(move || attend("pg_restore", child, feed)).await;
    match fed.map_err(|_| LoadError::ThreadEnded)? {
        Err(LoadError::Program(DumpError::Failed { stderr, .. })) => {
            Err(classify_failure(stderr, disk::free_bytes(dump).unwrap_or(u64::MAX)))
        }
        other => other,
    }
}

/// Free disk space in bytes below which any failure counts as caused by a full disk.
const FULL_DISK_THRESHOLD: u64 = 32 * 1024 * 1024;
/// Parts of messages of a server that exited or was stopped, or whose disk failed. The dump is not the cause.
const SERVER_STOPPED_MESSAGES: &[&str] = &[
    "server closed the connection unexpectedly",
    "terminating connection",
    "could not connect to server",
    "connection to server",
    "the database system is",
    "Input/output error",
];

/// Classifies the error output of `pg_restore`, given the free disk space in bytes.
fn classify_failure(stderr: String, free: u64) -> LoadError {
    // What follows quotes rows and statements of the dump, such as the recorded error of a task.
    let message = ["\nDETAIL:", "\nCONTEXT:", "\nCommand was:"]
        .iter()
        .fold(stderr.as_str(), |text, start| text.split_once(start).map_or(text, |(message, _)| message));
    match fatal_message::cause_of(message) {
        Cause::DiskFull => LoadError::Full,
        Cause::SharedMemoryFull => LoadError::NoSharedMemory(stderr),
        _ if free < FULL_DISK_THRESHOLD => LoadError::Full,
        _ if SERVER_STOPPED_MESSAGES.iter().any(|part| message.contains(part)) => LoadError::ServerStopped(stderr),
        _ => DumpError::Failed { program: "pg_restore", stderr }.into(),
    }
}

/// Decompresses exactly the declared number of bytes into `stdin`.
fn copy(file: File, stdin: &mut impl Write, declared: u64, fed: &AtomicU64) -> Result<(), PipeError<LoadError>> {
    let failed = |error| PipeError::Own(LoadError::Read(error));
    let mut decoder = zstd_decoder(BufReader::new(file)).map_err(failed)?;
    let head = freeze::with_freeze(&mut decoder).map_err(failed)?;
    let mut buffer = vec![0; 256 * 1024];
    let (mut total, mut next) = (head.input_length as u64, head.output.as_slice());
    while !next.is_empty() {
        if total > declared {
            return Err(PipeError::Own(LoadError::DumpSize { declared, found: "larger" }));
        }
        stdin.write_all(next).map_err(|_| PipeError::Program)?;
        fed.store(total, Ordering::Relaxed);
        let count = decoder.read(&mut buffer).map_err(failed)?;
        total += count as u64;
        next = &buffer[..count];
    }
    if total < declared {
        return Err(PipeError::Own(LoadError::DumpSize { declared, found: "smaller" }));
    }
    stdin.flush().map_err(|_| PipeError::Program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_failures_are_not_data_errors() {
        let classify = |stderr: &str, free| classify_failure(stderr.to_owned(), free);
        let stderr = "pg_restore: error: COPY failed for table \"task_try\": ERROR:  could not extend file \
                     \"base/16384/16402\": No space left on device";
        assert!(matches!(classify(stderr, u64::MAX), LoadError::Full));
        let stderr = "pg_restore: error: COPY failed: ERROR:  could not resize shared memory segment \"/PostgreSQL.41\" \
                      to 196736 bytes: No space left on device";
        let error = classify(stderr, u64::MAX);
        assert!(matches!(error, LoadError::NoSharedMemory(_)) && !error.is_data_error(), "{error}");
        // The disk of the write-ahead log is full: PostgreSQL itself exits.
        let stderr = "pg_restore: error: server closed the connection unexpectedly";
        assert!(matches!(classify(stderr, 1024), LoadError::Full));
        assert!(matches!(classify(stderr, u64::MAX), LoadError::ServerStopped(_)));
        for error in [classify(stderr, u64::MAX), classify(stderr, 1024)] {
            assert!(!error.is_data_error(), "{error}");
        }
        let stderr = "pg_restore: error: could not execute query: ERROR:  permission denied for schema pg_catalog";
        assert!(classify(stderr, u64::MAX).is_data_error());
        let stderr = "pg_restore: error: COPY failed for table \"task_try\": ERROR:  invalid input syntax for type json\n\
                      DETAIL:  Token \"No space left on device\" is invalid.\n\
                      CONTEXT:  COPY task_try, line 3, column outcome: \"connection to server failed\"";
        assert!(classify(stderr, u64::MAX).is_data_error());
    }
}
