//! The database part of a backup: `pg_dump` and the row counts use the same snapshot, so other sessions may write
//! meanwhile.

use super::spool::{Piece, Spool, SpoolError};
use super::survey::{self, Survey, Tables, pattern};
use crate::backup::verify::schema_check;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::sys::blocking;
use leoflow_base::sys::process::command;
use leoflow_engine::store::instance::tries;
use leoflow_engine::store::totals::INVARIANTS;
use leoflow_postgres::identifier::quoted;
use leoflow_postgres::schema::{self, SchemaError, State, shape, tables};
use leoflow_postgres::totals::{self, Answer, Answers, Limits, TIME_LIMIT};
use leoflow_postgres::{Access, Login, PgError, databases, locks};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use tokio_postgres::{Client, GenericClient};

#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("cannot run {program}: {source}")]
    Spawn { program: &'static str, source: io::Error },
    #[error("{program} failed: {stderr}")]
    Failed { program: &'static str, stderr: String },
    #[error("cannot write the backup: {0}")]
    Write(io::Error),
    #[error("a restore would refuse this database: {}", .0.join(", "))]
    SchemaChanged(Vec<String>),
    #[error("the database is empty")]
    Empty,
    #[error("the copying thread ended unexpectedly")]
    ThreadEnded,
}

leoflow_postgres::from_query_error!(DumpError);

/// Whether to back up a database whose schema is newer than this release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewerSchema {
    Refuse,
    /// Backs it up; only a release that knows the schema can restore the backup.
    Accept,
}

/// An open snapshot; a session that imports it sees the same data.
pub struct Snapshot {
    client: Client,
    id: String,
    pub survey: Survey,
    /// The running tries, as texts for users.
    pub running: Vec<String>,
    pub schema_version: i64,
    pub postgres_version: String,
    /// Size of the database on disk, in bytes.
    pub bytes: u64,
    /// Size of the tables without indexes in bytes, an estimate of the dump's size.
    pub heap_bytes: u64,
}

impl Snapshot {
    /// Takes a snapshot. Refuses a database that a restore would not accept.
    pub async fn take(access: &Access, login: &Login, newer_schema: NewerSchema) -> Result<Self, DumpError> {
        let client = access.connect(login).await?;
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let ledger = schema::inspect(&client).await?;
        let state = schema::classify(schema::known(), &ledger);
        let is_newer = matches!(state, State::Newer { .. });
        if let Some(error) = schema::refusal(&state).filter(|_| !(is_newer && newer_schema == NewerSchema::Accept)) {
            return Err(error.into());
        }
        let schema_version = schema::database_version(&ledger);
        if schema_version == 0 {
            return Err(DumpError::Empty);
        }
        let mut survey = survey::survey(&client, if is_newer { Tables::All } else { Tables::Known }).await?;
        // First, because the queries of definitions wait for locks, too.
        lock_relations(access, &client, &survey).await?;
        if !is_newer {
            add_differences(&client, schema_version, &mut survey).await?;
        }
        if !survey.changes.is_empty() {
            return Err(DumpError::SchemaChanged(survey.changes));
        }
        // Tables of PostgreSQL itself have ids below 16384.
        let facts_query =
            "SELECT pg_export_snapshot(), current_setting('server_version'),
                     (SELECT coalesce(sum(pg_table_size(oid)), 0)::bigint FROM pg_class WHERE relkind = 'r' AND oid >= 16384)";
        let row = client.query_one(facts_query, &[]).await?;
        let version: String = row.get(1);
        let has_tries = !is_newer && survey.tables().any(|table| table == "task_try");
        let running = if has_tries { tries::running_names(&client).await? } else { Vec::new() };
        Ok(Self {
            id: row.get(0),
            // Without the suffix of a distribution: `18.4 (Debian …)`.
            postgres_version: version.split_whitespace().next().unwrap_or_default().to_owned(),
            bytes: databases::size(&client, None).await?,
            heap_bytes: u64::try_from(row.get::<_, i64>(2)).unwrap_or(0),
            client,
            survey,
            running,
            schema_version,
        })
    }

    /// Counts the rows of each table.
    pub async fn count(&self) -> Result<BTreeMap<String, i64>, DumpError> {
        Ok(count(&self.client, self.survey.tables()).await?)
    }

    /// Evaluates the invariants in this snapshot, on another connection. A missing answer is only a warning: a backup
    /// without it is better than none.
    pub async fn totals(&self, access: &Access, reporter: &dyn Reporter) -> Vec<Answer> {
        let warn = |text: String| reporter.report(Progress::Warning(text));
        let evaluation = async {
            let client = access.connect(&access.application()).await?;
            totals::ask_in_snapshot(&client, Some(&self.id), INVARIANTS, Limits::each(TIME_LIMIT)).await
        };
        match evaluation.await {
            Ok(Answers { answers, unanswered }) => {
                for invariant in unanswered.iter().filter(|invariant| !invariant.is_of_other_release()) {
                    warn(format!("{invariant}; the backup is made without it"));
                }
                answers
            }
            Err(error) => {
                warn(format!("the backup is made without totals: {error}"));
                Vec::new()
            }
        }
    }

    /// Starts to copy the output of `pg_dump -Fc -Z0` into the spool, compressed. The kernel kills pg_dump when the
    /// calling thread ends. `on_progress` receives the number of uncompressed bytes so far.
    pub fn dump(
        &self,
        access: &Access,
        login: &Login,
        mut spool: Spool,
        mut on_progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<tokio::task::JoinHandle<Result<Dumped, DumpError>>, DumpError> {
        let mut command = access.program("pg_dump", login);
        command.args(["-Fc", "-Z0", "--no-sync", "--no-password", "--snapshot", &self.id]).arg(lock_limit());
        for pattern in self.survey.patterns() {
            command.arg("--table").arg(pattern);
        }
        let child = start("pg_dump", &mut command)?;
        Ok(blocking::begin(move || {
            attend("pg_dump", child, |child| {
                let mut output = child.stdout.take().ok_or(PipeError::Program)?;
                match spool.add_compressed(&mut output, &mut on_progress) {
                    Ok((piece, bytes)) => Ok(Dumped { spool, piece, bytes }),
                    Err(SpoolError::Spool(error) | SpoolError::Source(error)) => {
                        Err(PipeError::Own(DumpError::Write(error)))
                    }
                }
            })
        }))
    }
}

/// Locks in the transaction of `client` what `pg_dump` will read, so that a lock of another session fails here, where the
/// error names the session. pg_dump has no limit for sequences, and its error does not name the session.
pub(crate) async fn lock_relations(access: &Access, client: &Client, survey: &Survey) -> Result<(), PgError> {
    let tables: Vec<String> = survey.tables().map(pattern).collect();
    if !tables.is_empty() {
        let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", tables.join(", "));
        access.explain(client.batch_execute(&lock).await).await?;
    }
    // pg_dump also reads the sequences that it does not dump.
    let sequences = "SELECT pg_sequence_last_value(c.oid) FROM pg_class c WHERE relkind = 'S' AND relpersistence = 'p'";
    access.explain(client.execute(sequences, &[]).await).await.map(drop)
}

/// The argument of `pg_dump` that limits its wait for a table's lock.
pub(crate) fn lock_limit() -> String {
    format!("--lock-wait-timeout={}", locks::limit().as_millis())
}

/// A finished dump.
pub struct Dumped {
    pub spool: Spool,
    pub piece: Piece,
    /// Bytes before compression.
    pub bytes: u64,
}

/// Counts the rows of these tables.
pub async fn count(client: &Client, tables: impl Iterator<Item = &str>) -> Result<BTreeMap<String, i64>, PgError> {
    let mut counts = BTreeMap::new();
    for table in tables {
        let row = client.query_one(&format!("SELECT count(*) FROM public.{}", quoted(table)), &[]).await?;
        counts.insert(table.to_owned(), row.get(0));
    }
    Ok(counts)
}

/// Adds the changes of the columns, constraints and indexes of our tables to `survey`. This release must know the schema
/// of that version.
async fn add_differences(client: &impl GenericClient, version: i64, survey: &mut Survey) -> Result<(), SchemaError> {
    let differences = shape::differences(client, version, &survey.ours).await?;
    survey.changes.extend(differences.into_iter().filter(|line| !is_accepted_index(line)));
    Ok(())
}

/// Lists the changes of our tables because of which a backup of this database would be refused.
pub(crate) async fn refused_changes(client: &impl GenericClient) -> Result<Vec<String>, SchemaError> {
    let ledger = schema::inspect(client).await?;
    let is_newer = matches!(schema::classify(schema::known(), &ledger), State::Newer { .. });
    let mut survey = survey::survey(client, if is_newer { Tables::All } else { Tables::Known }).await?;
    if !is_newer {
        add_differences(client, schema::database_version(&ledger), &mut survey).await?;
    }
    Ok(survey.changes)
}

/// True if a reported schema difference is a user's index that a restore accepts.
fn is_accepted_index(line: &str) -> bool {
    // A line that starts with `no` reports that one of our indexes is missing.
    !line.starts_with("no ")
        && line.split_once(" index ").is_some_and(|(_, index)| schema_check::is_plain_index(&format!("{index};")))
}

/// Counts the rows of every table that a backup contains.
pub(crate) async fn count_all(client: &Client) -> Result<BTreeMap<String, i64>, PgError> {
    let survey = survey::survey(client, Tables::Known).await?;
    count(client, survey.tables()).await
}

/// Starts a client program with pipes for its output. The kernel kills it when the calling thread ends.
pub(crate) fn start(program: &'static str, command: &mut Command) -> Result<Child, DumpError> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command::dies_with_this_thread(command);
    command::spawn(command).map_err(|source| DumpError::Spawn { program, source })
}

/// Why work with the pipes of a program failed.
pub(crate) enum PipeError<E> {
    /// The program closed them; its stderr contains the reason.
    Program,
    Own(E),
}

/// Does the work with the pipes of a program from [`start`], then waits for the program. Kills it if the work fails for
/// another reason than the program: before its input ends, so that it commits nothing.
pub(crate) fn attend<T, E: From<DumpError>>(
    program: &'static str,
    mut child: Child,
    work: impl FnOnce(&mut Child) -> Result<T, PipeError<E>>,
) -> Result<T, E> {
    let drain = |pipe| blocking::thread(move || error_output(pipe));
    let errors = child.stderr.take().map(|pipe| blocking::thread(move || error_output(pipe)));
    // The output of a program that is fed is of no use.
    let output = child.stdin.is_some().then(|| child.stdout.take().map(drain)).flatten();
    let outcome = work(&mut child);
    if let Err(PipeError::Own(_)) = outcome {
        let _ = child.kill();
    }
    drop(child.stdin.take());
    let status = child.wait().map_err(|source| DumpError::Spawn { program, source })?;
    let stderr = errors.and_then(|thread| thread.join().ok()).unwrap_or_default();
    drop(output.map(std::thread::JoinHandle::join));
    match outcome {
        Err(PipeError::Own(error)) => Err(error),
        _ if !status.success() => Err(DumpError::Failed { program, stderr: command::failure(&stderr, status) }.into()),
        Err(PipeError::Program) => {
            Err(DumpError::Failed { program, stderr: "it stopped reading or writing".to_owned() }.into())
        }
        Ok(result) => Ok(result),
    }
}

/// Maximum length of a program's error output, in bytes; the rest is dropped.
const ERROR_OUTPUT_LIMIT: u64 = 4 * 1024;

/// Reads the start of an output (`pipe`) and drains the rest, so that the program never blocks.
fn error_output(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    // A read error only shortens the message.
    let _ = (&mut pipe).take(ERROR_OUTPUT_LIMIT).read_to_end(&mut bytes);
    let _ = io::copy(&mut pipe, &mut io::sink());
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// Dumps the schema without `excluded_tables`, to compare two databases. Omits owners.
pub(crate) fn schema_text(access: &Access, login: &Login, excluded_tables: &[String]) -> Result<String, DumpError> {
    let mut command = access.program("pg_dump", login);
    command.args(["--schema-only", "--no-owner", "--no-password"]).arg(lock_limit());
    for name in excluded_tables {
        command.arg("--exclude-table").arg(pattern(name));
    }
    command::dies_with_this_thread(&mut command);
    let output = command::output_limited(&mut command, SCHEMA_TIMEOUT, SCHEMA_SIZE_LIMIT)
        .map_err(|source| DumpError::Spawn { program: "pg_dump", source })?;
    if !output.status.success() {
        return Err(DumpError::Failed {
            program: "pg_dump",
            stderr: command::failure(&String::from_utf8_lossy(&output.stderr), output.status),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Size limit of a schema dump, in bytes: a hundred times the size of our schema.
const SCHEMA_SIZE_LIMIT: u64 = 8 * 1024 * 1024;
/// Time limit of a schema dump; some twenty tables take far less.
const SCHEMA_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);

/// True when the database contains rows that the first start did not create.
pub(crate) async fn has_rows(access: &Access) -> Result<bool, DumpError> {
    let client = access.connect(&access.application()).await?;
    let survey = survey::survey(&client, Tables::All).await?;
    for table in survey.tables().filter(|table| !tables::RECORDS.contains(table)) {
        let query = format!("SELECT EXISTS (SELECT FROM public.{})", quoted(table));
        if access.explain(client.query_one(&query, &[]).await).await?.get(0) {
            return Ok(true);
        }
    }
    Ok(false)
}
