//! The content of a database as one file, out of it and into another, with no other right than those of the owner of the
//! tables: for a server that is somebody else's, where nothing can be renamed. What goes in is one transaction, at whose
//! end every table has as many rows as when it was written down: all of it, or none.

use super::archive::zstd_decoder;
use super::dump::{DumpError, count, last_words, start};
use super::survey::{Tables, pattern, quoted, survey};
use crate::postgres::{Access, Login, PgError};
use crate::schema;
use crate::sys::{blocking, checkpoint, command, files};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// A file that somebody has written whole.
#[derive(Debug, Clone)]
pub struct Content {
    path: PathBuf,
    pub facts: Facts,
}

/// What is remembered of it, beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Of each table.
    pub rows: BTreeMap<String, i64>,
    pub schema_version: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    #[error(transparent)]
    Dump(#[from] DumpError),
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error("cannot write or read {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the database did not take it: {0}")]
    Refused(String),
    #[error("the copying thread ended early")]
    Lost,
}

impl From<tokio_postgres::Error> for ContentError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error.into())
    }
}

/// Fast, and a third of the size.
const LEVEL: i32 = 1;
/// All tables of the schema that we use, at once for what refers from one to another. What else depends on them is
/// somebody's, and makes it fail.
const DROP_ALL: &str = "
DO $drop$
DECLARE names text;
BEGIN
  SELECT pg_catalog.min(c.relname::text) INTO names FROM pg_catalog.pg_class c
  WHERE c.relnamespace = 'public'::pg_catalog.regnamespace AND c.relkind = 'p';
  IF names IS NOT NULL THEN
    RAISE EXCEPTION 'the partitioned table % would be lost: it belongs into a database of its own', names;
  END IF;
  FOR kind IN 1..2 LOOP
    SELECT pg_catalog.string_agg(pg_catalog.format('public.%I', c.relname), ', ') INTO names
    FROM pg_catalog.pg_class c
    WHERE c.relnamespace = 'public'::pg_catalog.regnamespace
      AND c.relkind = CASE kind WHEN 1 THEN 'r' ELSE 'S' END
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                      WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                        AND d.deptype = 'e');
    IF names IS NOT NULL THEN
      EXECUTE pg_catalog.format('DROP %s %s', CASE kind WHEN 1 THEN 'TABLE' ELSE 'SEQUENCE' END, names);
    END IF;
  END LOOP;
END
$drop$;
";
/// How long somebody else's lock is waited for.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '30s';\n";
/// Held while it is asked whose a database is and content comes into it.
const ONE_AT_A_TIME: &str = "DO $lock$ BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(5500411900772201); END $lock$;\n";

/// Whose a database has to be that content comes into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose<'a> {
    /// There is nothing in it.
    Nobodys,
    /// Nothing, or what the home with this id has there.
    Homes(&'a str),
}

/// `{HOME}` is in the place of the id, which is empty where nobody's is asked for. What is not there cannot be named in a
/// query.
const GUARD: &str = "
DO $guard$
DECLARE whose text;
BEGIN
  IF '{HOME}' <> '' AND pg_catalog.to_regclass('public.instance_fact') IS NOT NULL THEN
    EXECUTE $query$SELECT pg_catalog.convert_from(value, 'UTF8')::jsonb->>'home_id'
                   FROM public.instance_fact WHERE name = 'home'$query$ INTO whose;
    IF whose IS DISTINCT FROM '{HOME}' THEN
      RAISE EXCEPTION 'another home uses it';
    END IF;
  ELSIF EXISTS (SELECT FROM pg_catalog.pg_class c
                WHERE c.relnamespace = 'public'::pg_catalog.regnamespace AND c.relkind IN ('r', 'p')
                  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                                  WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                                    AND d.objid = c.oid AND d.deptype = 'e')) THEN
    RAISE EXCEPTION 'there are tables in it';
  END IF;
END
$guard$;
";

impl Whose<'_> {
    /// Statements that fail where it is somebody else's.
    fn guard(self) -> String {
        let home_id = match self {
            Self::Nobodys => "",
            Self::Homes(home_id) => home_id,
        };
        format!("{ONE_AT_A_TIME}{}", GUARD.replace("{HOME}", &home_id.replace('\'', "")))
    }
}

/// Whether the tables could go: an error says what of somebody's depends on them. Changes nothing.
pub async fn check_replaceable(access: &Access, login: &Login) -> Result<(), PgError> {
    let client = access.connect(login).await?;
    Ok(client.batch_execute(&format!("BEGIN; {LOCK_TIMEOUT} {DROP_ALL} ROLLBACK")).await?)
}

impl Content {
    /// One that is there; `None` also for one that was not written to its end.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        let text = files::read_text(&facts_path(path), 1024 * 1024)?;
        match text.map(|text| serde_json::from_str(&text)).transpose()? {
            Some(facts) if path.is_file() => Ok(Some(Self { path: path.to_owned(), facts })),
            _ => Ok(None),
        }
    }

    /// Writes down what the database holds at this moment. What is there already is replaced.
    pub async fn write(access: &Access, login: &Login, path: &Path) -> Result<Self, ContentError> {
        let io = |source| ContentError::Io { path: path.to_owned(), source };
        remove(path).map_err(io)?;
        let client = access.connect(login).await?;
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let found = survey(&client, Tables::All).await?;
        let snapshot: String = client.query_one("SELECT pg_catalog.pg_export_snapshot()", &[]).await?.get(0);
        let mut command = access.program("pg_dump", login);
        command
            .args(["--no-owner", "--no-privileges", "--no-comments", "--no-security-labels", "--no-tablespaces"])
            .args(["--no-sync", "--no-password", "--snapshot", &snapshot]);
        for table in found.patterns() {
            command.arg("--table").arg(table);
        }
        let child = start("pg_dump", &mut command)?;
        let target = path.to_owned();
        let written = blocking::begin(move || write_down(child, &target));
        let counted = async {
            let state = schema::inspect(&client).await.map_err(DumpError::from)?;
            let rows = count(&client, found.tables()).await?;
            Ok::<_, ContentError>(Facts { rows, schema_version: schema::classify::database_version(&state) })
        };
        let counted = counted.await;
        written.await.map_err(|_| ContentError::Lost)??;
        let facts = counted?;
        checkpoint("content.written");
        // Last: without it the file says nothing.
        let text = serde_json::to_vec(&facts).map_err(|error| io(error.into()))?;
        files::write_atomic(&facts_path(path), &text, 0o600).map_err(io)?;
        Ok(Self { path: path.to_owned(), facts })
    }

    /// Puts it into a database in the place of all that is there. `last` are statements that are part of that.
    pub async fn bring_into(
        &self,
        access: &Access,
        login: &Login,
        whose: Whose<'_>,
        last: &[String],
    ) -> Result<(), ContentError> {
        let mut command = access.program("psql", login);
        command
            .args(["--no-psqlrc", "--quiet", "--no-password", "--set", "ON_ERROR_STOP=1", "--file", "-"])
            .env("PGOPTIONS", "-c client_min_messages=error")
            .stdin(Stdio::piped());
        let child = start("psql", &mut command)?;
        let path = self.path.clone();
        let begin = format!("BEGIN;\n{LOCK_TIMEOUT}{}{DROP_ALL}", whose.guard());
        let end = format!("{}{}COMMIT;\n", self.rows_as_counted(), lines(last));
        let brought = blocking::run(move || bring(child, &path, (&begin, &end))).await;
        brought.map_err(|_| ContentError::Lost)??;
        checkpoint("content.in-place");
        Ok(())
    }

    /// Statements that fail where a table has another number of rows.
    fn rows_as_counted(&self) -> String {
        let check = |(table, rows): (&String, &i64)| {
            let (name, told) = (pattern(table), quoted(table).replace('\'', "''"));
            format!(
                "  IF (SELECT count(*) FROM {name}) <> {rows} THEN RAISE EXCEPTION 'the table % has not the {rows} rows \
                 that it had', '{told}'; END IF;\n"
            )
        };
        let checks: String = self.facts.rows.iter().map(check).collect();
        format!("DO $count$\nBEGIN\n{checks}END\n$count$;\n")
    }
}

fn lines(statements: &[String]) -> String {
    statements.iter().map(|statement| format!("{statement};\n")).collect()
}

fn facts_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

/// Removes one, what makes it one first.
pub fn remove(path: &Path) -> io::Result<()> {
    files::remove_any(&facts_path(path))?;
    files::remove_any(path)
}

/// Moves one, what makes it one last.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    for (from, to) in [(from.to_owned(), to.to_owned()), (facts_path(from), facts_path(to))] {
        if files::is_there(&from)? {
            files::rename_durably(&from, &to)?;
        }
    }
    Ok(())
}

fn write_down(mut child: Child, path: &Path) -> Result<(), ContentError> {
    let io = |source| ContentError::Io { path: path.to_owned(), source };
    let errors = child.stderr.take().map(|pipe| blocking::thread(move || last_words(pipe)));
    let copied = copy_out(&mut child, path);
    if copied.is_err() {
        // It could not go on writing either.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|source| DumpError::Spawn { program: "pg_dump", source })?;
    let said = errors.and_then(|thread| thread.join().ok()).unwrap_or_default();
    match copied {
        Err(error) => Err(io(error)),
        Ok(()) if !status.success() => {
            Err(DumpError::Failed { program: "pg_dump", said: command::failure(&said, status) }.into())
        }
        Ok(()) => Ok(()),
    }
}

fn copy_out(child: &mut Child, path: &Path) -> io::Result<()> {
    let mut output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut encoder = zstd::stream::write::Encoder::new(file, LEVEL)?;
    encoder.include_checksum(true)?;
    io::copy(&mut output, &mut encoder)?;
    encoder.finish()?.sync_all()
}

/// What fails on our side ends psql before it has seen the end, and with it the transaction.
fn bring(mut child: Child, path: &Path, around: (&str, &str)) -> Result<(), ContentError> {
    let io = |source| ContentError::Io { path: path.to_owned(), source };
    let errors = child.stderr.take().map(|pipe| blocking::thread(move || last_words(pipe)));
    let output = child.stdout.take().map(|pipe| blocking::thread(move || last_words(pipe)));
    let fed = feed(&mut child, path, around);
    if matches!(fed, Err(Fed::Source(_))) {
        let _ = child.kill();
    }
    drop(child.stdin.take());
    let status = child.wait().map_err(|source| DumpError::Spawn { program: "psql", source })?;
    let said = errors.and_then(|thread| thread.join().ok()).unwrap_or_default();
    drop(output.map(std::thread::JoinHandle::join));
    match fed {
        Err(Fed::Source(error)) => Err(io(error)),
        Err(Fed::Pipe) => Err(ContentError::Refused(command::failure(&said, status))),
        Ok(()) if !status.success() => Err(ContentError::Refused(command::failure(&said, status))),
        Ok(()) => Ok(()),
    }
}

enum Fed {
    /// psql has stopped reading; its own words say why.
    Pipe,
    Source(io::Error),
}

fn feed(child: &mut Child, path: &Path, (begin, end): (&str, &str)) -> Result<(), Fed> {
    let stdin = child.stdin.as_mut().ok_or(Fed::Pipe)?;
    let mut put = |bytes: &[u8]| stdin.write_all(bytes).map_err(|_| Fed::Pipe);
    put(begin.as_bytes())?;
    let mut content = zstd_decoder(BufReader::new(File::open(path).map_err(Fed::Source)?)).map_err(Fed::Source)?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match content.read(&mut buffer).map_err(Fed::Source)? {
            0 => break,
            count => put(&buffer[..count])?,
        }
    }
    put(end.as_bytes())
}
