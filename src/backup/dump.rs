//! The database's part of a backup: one snapshot, in which rows are counted while `pg_dump` copies
//! them out, and everybody else goes on writing.

use super::fitness;
use super::spool::{Piece, Spool, SpoolError};
use super::survey::{self, Survey, Tables, pattern, quoted};
use crate::postgres::{Access, Login, PgError};
use crate::schema::{self, SchemaError, State, classify, shape, tables};
use crate::sys::blocking;
use crate::sys::command;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use tokio_postgres::Client;

#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("{program} does not run: {source}")]
    Spawn { program: &'static str, source: io::Error },
    #[error("{program} failed: {said}")]
    Failed { program: &'static str, said: String },
    #[error("cannot write the backup: {0}")]
    Write(io::Error),
    #[error("a restore would refuse this database: {}", .0.join(", "))]
    Changed(Vec<String>),
    #[error("there is nothing in the database yet")]
    Empty,
    #[error("the copying thread ended early")]
    Lost,
}

impl From<tokio_postgres::Error> for DumpError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error.into())
    }
}

/// A snapshot that is held open: whoever imports it sees what we see.
pub struct Snapshot {
    client: Client,
    id: String,
    pub survey: Survey,
    pub schema_version: i64,
    pub postgres_version: String,
    /// What the database takes on the disk, in bytes.
    pub bytes: u64,
    /// What its tables take without their indexes: about what the dump will be.
    pub heap_bytes: u64,
}

impl Snapshot {
    /// Refuses a database that a restore would not take back. With `may_be_newer`, one of a newer release
    /// is taken too, for that release to restore.
    pub async fn take(access: &Access, login: &Login, may_be_newer: bool) -> Result<Self, DumpError> {
        let client = access.connect(login).await?;
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let found = schema::inspect(&client).await?;
        let state = schema::classify(schema::known(), &found);
        let is_newer = matches!(state, State::Newer { .. });
        if let Some(error) = schema::refusal(&state).filter(|_| !(is_newer && may_be_newer)) {
            return Err(error.into());
        }
        let schema_version = classify::database_version(&found);
        if schema_version == 0 {
            return Err(DumpError::Empty);
        }
        let survey = survey::survey(&client, if is_newer { Tables::All } else { Tables::Known }).await?;
        let mut changes = survey.changes.clone();
        // Of a newer release this one cannot tell.
        if !is_newer {
            let others = shape::differences(&client, schema_version, &survey.ours).await?;
            changes.extend(others.into_iter().filter(|line| !is_plain(line)));
        }
        if !changes.is_empty() {
            return Err(DumpError::Changed(changes));
        }
        let facts =
            "SELECT pg_export_snapshot(), current_setting('server_version'), pg_database_size(current_database()),
                     (SELECT coalesce(sum(pg_table_size(oid)), 0)::bigint FROM pg_class WHERE relkind = 'r' AND oid >= 16384)";
        let row = client.query_one(facts, &[]).await?;
        let version: String = row.get(1);
        Ok(Self {
            id: row.get(0),
            // `18.4 (Debian …)` is 18.4.
            postgres_version: version.split_whitespace().next().unwrap_or_default().to_owned(),
            bytes: u64::try_from(row.get::<_, i64>(2)).unwrap_or(0),
            heap_bytes: u64::try_from(row.get::<_, i64>(3)).unwrap_or(0),
            client,
            survey,
            schema_version,
        })
    }

    /// Rows of each table.
    pub async fn count(&self) -> Result<BTreeMap<String, i64>, DumpError> {
        Ok(count(&self.client, self.survey.tables()).await?)
    }

    /// Begins to copy the database into the spool, in the format of `pg_dump -Fc -Z0`, compressed on its
    /// way. The child belongs to this thread and ends with it. `seen` hears how many bytes have come.
    pub fn dump(
        &self,
        access: &Access,
        login: &Login,
        mut spool: Spool,
        mut seen: impl FnMut(u64) + Send + 'static,
    ) -> Result<tokio::task::JoinHandle<Result<Dumped, DumpError>>, DumpError> {
        let mut command = access.program("pg_dump", login);
        command.args(["-Fc", "-Z0", "--no-sync", "--no-password", "--snapshot", &self.id]);
        for pattern in self.survey.patterns() {
            command.arg("--table").arg(pattern);
        }
        let mut child = start("pg_dump", &mut command)?;
        Ok(blocking::begin(move || {
            let mut output = child.stdout.take().ok_or(DumpError::Lost)?;
            let errors = child.stderr.take().map(|pipe| blocking::thread(move || last_words(pipe)));
            let copied = spool.add_compressed(&mut output, &mut seen);
            drop(output);
            if copied.is_err() {
                // It could not go on writing either.
                let _ = child.kill();
            }
            let status = child.wait().map_err(|source| DumpError::Spawn { program: "pg_dump", source })?;
            let said = errors.and_then(|thread| thread.join().ok()).unwrap_or_default();
            match copied {
                Err(SpoolError::Spool(error)) => Err(DumpError::Write(error)),
                _ if !status.success() => {
                    Err(DumpError::Failed { program: "pg_dump", said: command::failure(&said, status) })
                }
                Err(SpoolError::Source(error)) => Err(DumpError::Write(error)),
                Ok((piece, bytes)) => Ok(Dumped { spool, piece, bytes }),
            }
        }))
    }
}

pub struct Dumped {
    pub spool: Spool,
    pub piece: Piece,
    /// Before compression.
    pub bytes: u64,
}

/// Rows of each of these tables, as the client sees them.
pub async fn count(client: &Client, tables: impl Iterator<Item = &str>) -> Result<BTreeMap<String, i64>, PgError> {
    let mut counts = BTreeMap::new();
    for table in tables {
        let row = client.query_one(&format!("SELECT count(*) FROM public.{}", quoted(table)), &[]).await?;
        counts.insert(table.to_owned(), row.get(0));
    }
    Ok(counts)
}

/// An index of the user's own that a restore takes.
fn is_plain(line: &str) -> bool {
    // A line that begins with `no` is one of ours that is missing.
    !line.starts_with("no ")
        && line.split_once(" index ").is_some_and(|(_, index)| fitness::is_plain_index(&format!("{index};")))
}

/// Rows of every table that a backup would have.
pub async fn count_all(client: &Client) -> Result<BTreeMap<String, i64>, PgError> {
    let survey = survey::survey(client, Tables::Known).await?;
    count(client, survey.tables()).await
}

/// A client program with its pipes, that ends with this thread.
pub fn start(program: &'static str, command: &mut Command) -> Result<Child, DumpError> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command::dies_with_this_thread(command);
    command.spawn().map_err(|source| DumpError::Spawn { program, source })
}

/// What is kept of what a program says of its failure, in bytes.
const WORDS_LIMIT: u64 = 4 * 1024;

/// The first words on its stderr; the rest is read and dropped, so that it never waits for us.
pub fn last_words(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    // What could be read is what can be shown.
    let _ = (&mut pipe).take(WORDS_LIMIT).read_to_end(&mut bytes);
    let _ = io::copy(&mut pipe, &mut io::sink());
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// The statements that make the tables, of a database less `without`: what two databases are compared
/// by. Owners are left out, privileges are not.
pub fn schema_text(access: &Access, login: &Login, without: &[String]) -> Result<String, DumpError> {
    let mut command = access.program("pg_dump", login);
    command.args(["--schema-only", "--no-owner", "--no-password"]);
    for name in without {
        command.arg("--exclude-table").arg(pattern(name));
    }
    command::dies_with_this_thread(&mut command);
    let output = command::output_limited(&mut command, SCHEMA_LIMIT, SCHEMA_BYTES)
        .map_err(|source| DumpError::Spawn { program: "pg_dump", source })?;
    if !output.status.success() {
        return Err(DumpError::Failed {
            program: "pg_dump",
            said: command::failure(&String::from_utf8_lossy(&output.stderr), output.status),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A hundred times what ours are described in. A program that says more is cut off.
const SCHEMA_BYTES: u64 = 8 * 1024 * 1024;
/// Far longer than it takes to describe some twenty tables.
const SCHEMA_LIMIT: std::time::Duration = std::time::Duration::from_secs(120);

/// Whether there is anything in the database that was not there from the first start on.
pub async fn has_rows(access: &Access) -> Result<bool, DumpError> {
    let client = access.connect(&access.application()).await?;
    let survey = survey::survey(&client, Tables::All).await?;
    for table in survey.tables().filter(|table| !tables::RECORDS.contains(table)) {
        let query = format!("SELECT EXISTS (SELECT FROM public.{})", quoted(table));
        if client.query_one(&query, &[]).await?.get(0) {
            return Ok(true);
        }
    }
    Ok(false)
}
