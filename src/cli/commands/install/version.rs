//! `leoflow version`.

use crate::error::Error;
use crate::terminal::printer::Printer;
use clap::Args;
use leoflow_base::build_info;
use leoflow_lifecycle::upgrade::release::manifest::Migration;
use leoflow_postgres as postgres;
use leoflow_postgres::schema::{EmbeddedMigration, embedded, known};
use serde_json::json;

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  leoflow version --json")]
pub struct Version {}

/// The migrations in the form of a release's manifest.
fn migrations() -> Vec<Migration> {
    let manifest_migration = |known: &EmbeddedMigration| Migration {
        version: known.version,
        name: known.name.clone(),
        phase: known.phase.name().to_owned(),
        sha256: known.sha256.clone(),
        reversible: known.rollback.is_some(),
    };
    known().iter().map(manifest_migration).collect()
}

pub fn run(printer: &Printer) -> Result<u8, Error> {
    let (schema, build) = (embedded::newest(known()), build_info::build_info());
    let value = json!({
        "version": build_info::version(), "target": build.target, "commit": build.commit, "schema_version": schema,
        "postgres_major": postgres::MAJOR, "migrations": migrations(),
    });
    printer.show(&value, |printer| {
        printer.line(format!("leoflow {}", build_info::version()));
        printer.detail(format!("{}, schema {schema}, PostgreSQL {}", build.target, postgres::MAJOR));
    })
}
