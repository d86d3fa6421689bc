//! Exports the content of a database to a file and imports such a file into a database, with only the rights of the
//! tables' owner. Leoflow needs this on external servers, where it may not rename databases. An import is one
//! transaction that verifies the row count of every table and the invariants, so it happens completely or not
//! at all.

use super::create::dump::{DumpError, PipeError, attend, count, lock_limit, lock_relations, start};
use super::create::survey::{Tables, pattern, survey};
use super::format::archive::zstd_decoder;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::{blocking, checkpoint};
use leoflow_engine::store::totals::INVARIANTS;
use leoflow_postgres::external::claim;
use leoflow_postgres::identifier::quoted;
use leoflow_postgres::totals::{self, Answer, Limits, TIME_LIMIT};
use leoflow_postgres::{Access, Login, PgError, locks, schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// An exported database: a file that was written completely.
#[derive(Debug, Clone)]
pub struct Content {
    path: PathBuf,
    pub facts: Facts,
}

/// Metadata, stored next to the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Rows of each table.
    pub rows: BTreeMap<String, i64>,
    pub schema_version: i64,
    /// Answers of the invariants; empty in a file of an older release.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invariants: Vec<Answer>,
}

#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    #[error(transparent)]
    Dump(#[from] DumpError),
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error("cannot write or read {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the database rejected it: {0}")]
    Refused(String),
    #[error("the copying thread ended unexpectedly")]
    ThreadEnded,
}

leoflow_postgres::from_query_error!(ContentError);

/// zstd level: fast, and the file has about a third of the dump's size.
const LEVEL: i32 = 1;
/// Drops all tables of the schema `public` in one statement, because they reference each other, then its sequences.
/// Keeps those of extensions. Fails if the schema contains a partitioned table or another object depends on a table.
const DROP_ALL: &str = "
DO $drop$
DECLARE names text;
BEGIN
  SELECT pg_catalog.min(c.relname::text) INTO names FROM pg_catalog.pg_class c
  WHERE c.relnamespace = 'public'::pg_catalog.regnamespace AND c.relkind = 'p';
  IF names IS NOT NULL THEN
    RAISE EXCEPTION 'the partitioned table % would be lost: move it to another database', names;
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
/// Advisory lock held while the owner is checked and content is imported.
const IMPORT_LOCK: &str = "DO $lock$ BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(5500411900772201); END $lock$;\n";

/// Required owner of a database that content is imported into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpectedOwner<'a> {
    /// The database must be empty.
    Unclaimed,
    /// The database must be empty or belong to the home with this id.
    Home(&'a str),
}

/// Fails unless the owner matches. `{OWNER}` is replaced by the query for its id, `{HOME}` by the home's id, or by an
/// empty string if the database must be empty. Uses EXECUTE, because a static query cannot name a table that may be
/// missing.
const GUARD: &str = "
DO $guard$
DECLARE owner_id text;
BEGIN
  IF '{HOME}' <> '' AND pg_catalog.to_regclass('public.instance_fact') IS NOT NULL THEN
    EXECUTE $query${OWNER}$query$ INTO owner_id;
    IF owner_id IS DISTINCT FROM '{HOME}' THEN
      RAISE EXCEPTION 'another home uses this database';
    END IF;
  ELSIF EXISTS (SELECT FROM pg_catalog.pg_class c
                WHERE c.relnamespace = 'public'::pg_catalog.regnamespace AND c.relkind IN ('r', 'p')
                  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                                  WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                                    AND d.objid = c.oid AND d.deptype = 'e')) THEN
    RAISE EXCEPTION 'the database contains tables';
  END IF;
END
$guard$;
";

impl ExpectedOwner<'_> {
    /// SQL that takes the advisory lock and fails if the owner does not match.
    fn guard(self) -> String {
        let home_id = match self {
            Self::Unclaimed => "",
            Self::Home(home_id) => home_id,
        };
        format!("{IMPORT_LOCK}{}", GUARD.replace("{OWNER}", claim::OWNER).replace("{HOME}", &home_id.replace('\'', "")))
    }
}

/// Checks that an import could drop the tables; the error names the objects that prevent it. Changes nothing.
pub(crate) async fn check_replaceable(access: &Access, login: &Login) -> Result<(), PgError> {
    let client = access.connect(login).await?;
    access.explain(client.batch_execute(&format!("BEGIN; {DROP_ALL} ROLLBACK")).await).await
}

impl Content {
    /// Opens an existing file; `None` if it is missing or was not written completely.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        match files::read_json(&facts_path(path), 1024 * 1024)? {
            Some(facts) if path.is_file() => Ok(Some(Self { path: path.to_owned(), facts })),
            _ => Ok(None),
        }
    }

    /// Exports the content of the database to `path`. Replaces an existing file.
    pub async fn write(access: &Access, login: &Login, path: &Path) -> Result<Self, ContentError> {
        let io_error = |source| ContentError::Io { path: path.to_owned(), source };
        remove(path).map_err(io_error)?;
        let client = access.connect(login).await?;
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let inventory = survey(&client, Tables::All).await?;
        lock_relations(access, &client, &inventory).await?;
        let snapshot: String = client.query_one("SELECT pg_catalog.pg_export_snapshot()", &[]).await?.get(0);
        let mut command = access.program("pg_dump", login);
        command
            .args(["--no-owner", "--no-privileges", "--no-comments", "--no-security-labels", "--no-tablespaces"])
            .args(["--no-sync", "--no-password", "--snapshot", &snapshot])
            .arg(lock_limit());
        for table in inventory.patterns() {
            command.arg("--table").arg(table);
        }
        let child = start("pg_dump", &mut command)?;
        let target = path.to_owned();
        let exporting = blocking::begin(move || export(child, &target));
        let counting = async {
            let state = schema::inspect(&client).await.map_err(DumpError::from)?;
            let rows = count(&client, inventory.tables()).await?;
            // An invariant has no answer if its table does not exist yet or its query exceeds the time limit. The
            // import then verifies only the row counts.
            let invariants = totals::ask(&client, INVARIANTS, Limits::each(TIME_LIMIT)).await?.answers;
            let schema_version = schema::database_version(&state);
            Ok::<_, ContentError>(Facts { rows, schema_version, invariants })
        };
        let counted = counting.await;
        exporting.await.map_err(|_| ContentError::ThreadEnded)??;
        let facts = counted?;
        checkpoint("content.written");
        // Write the metadata last: without it the file counts as incomplete.
        let text = serde_json::to_vec(&facts).map_err(|error| io_error(error.into()))?;
        files::write_atomic(&facts_path(path), &text, 0o600).map_err(io_error)?;
        Ok(Self { path: path.to_owned(), facts })
    }

    /// Replaces the content of the database with the exported one. `final_statements` run in the same transaction.
    pub(crate) async fn import_into(
        &self,
        access: &Access,
        login: &Login,
        expected_owner: ExpectedOwner<'_>,
        final_statements: &[String],
    ) -> Result<(), ContentError> {
        let mut command = access.program("psql", login);
        command
            .args(["--no-psqlrc", "--quiet", "--no-password", "--set", "ON_ERROR_STOP=1", "--file", "-"])
            .env("PGOPTIONS", "-c client_min_messages=error")
            .stdin(Stdio::piped());
        let child = start("psql", &mut command)?;
        let path = self.path.clone();
        let limit = locks::limit().as_millis();
        let begin = format!("BEGIN;\nSET LOCAL lock_timeout = {limit};\n{}{DROP_ALL}", expected_owner.guard());
        let totals = totals::sql_checks(&self.facts.invariants);
        let end = format!("{}{}{totals}COMMIT;\n", self.row_count_checks(), terminated(final_statements));
        let imported = blocking::run(move || import_content(child, &path, &begin, &end)).await;
        let imported = imported.map_err(|_| ContentError::ThreadEnded)?;
        // The error of psql does not name the session that holds a lock.
        if let Err(ContentError::Refused(_)) = &imported
            && let Err(error @ PgError::Locked(_)) = check_replaceable(access, login).await
        {
            return Err(error.into());
        }
        imported?;
        checkpoint("content.in-place");
        Ok(())
    }

    /// SQL that fails if a table's row count differs.
    fn row_count_checks(&self) -> String {
        let check = |(table, rows): (&String, &i64)| {
            let (name, literal) = (pattern(table), quoted(table).replace('\'', "''"));
            format!(
                "  IF (SELECT count(*) FROM {name}) <> {rows} THEN RAISE EXCEPTION 'table % does not have its {rows} \
                 rows', '{literal}'; END IF;\n"
            )
        };
        let checks: String = self.facts.rows.iter().map(check).collect();
        format!("DO $count$\nBEGIN\n{checks}END\n$count$;\n")
    }
}

/// Joins statements, each with a semicolon.
fn terminated(statements: &[String]) -> String {
    statements.iter().map(|statement| format!("{statement};\n")).collect()
}

/// Path of the metadata of the exported file `path`.
fn facts_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

/// Removes an exported file, its metadata first.
pub fn remove(path: &Path) -> io::Result<()> {
    files::remove_any(&facts_path(path))?;
    files::remove_any(path)
}

/// Renames an exported file, its metadata last.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    for (from, to) in [(from.to_owned(), to.to_owned()), (facts_path(from), facts_path(to))] {
        if files::is_there(&from)? {
            files::rename_durably(&from, &to)?;
        }
    }
    Ok(())
}

/// Compresses the output of `pg_dump` into the new private file `path`, and waits for the program.
fn export(child: Child, path: &Path) -> Result<(), ContentError> {
    let own = |source| PipeError::Own(ContentError::Io { path: path.to_owned(), source });
    attend("pg_dump", child, |child| {
        let mut output = child.stdout.take().ok_or(PipeError::Program)?;
        let mut copy = || {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            let mut encoder = zstd::stream::write::Encoder::new(file, LEVEL)?;
            encoder.include_checksum(true)?;
            io::copy(&mut output, &mut encoder)?;
            files::sync(&encoder.finish()?)
        };
        copy().map_err(own)
    })
}

/// Writes the statements `begin`, the file `path` and the statements `end` to `psql`, and waits for the program. If
/// reading the file fails, psql is killed before COMMIT, so that the server rolls the transaction back.
fn import_content(child: Child, path: &Path, begin: &str, end: &str) -> Result<(), ContentError> {
    let own = |source| PipeError::Own(ContentError::Io { path: path.to_owned(), source });
    let imported = attend("psql", child, |child| {
        let stdin = child.stdin.as_mut().ok_or(PipeError::Program)?;
        let mut put = |bytes: &[u8]| stdin.write_all(bytes).map_err(|_| PipeError::Program);
        put(begin.as_bytes())?;
        let mut content = zstd_decoder(BufReader::new(File::open(path).map_err(own)?)).map_err(own)?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match content.read(&mut buffer).map_err(own)? {
                0 => break,
                count => put(&buffer[..count])?,
            }
        }
        put(end.as_bytes())
    });
    imported.map_err(|error| match error {
        ContentError::Dump(DumpError::Failed { stderr, .. }) => ContentError::Refused(stderr),
        other => other,
    })
}
