//! The arguments of `leoflow data-migrate`.

use clap::{Args, Subcommand};

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow data-migrate list                 show the progress of each data migration\n  \
                  leoflow data-migrate run --dry-run        count the rows still to be changed\n  \
                  leoflow data-migrate pause                pause; `leoflow data-migrate resume` continues"
)]
pub struct DataMigrate {
    #[command(subcommand)]
    pub command: DataMigrateCommand,
}

#[derive(Args, Debug)]
pub struct MigrationSelector {
    /// The migration's version, for example 13 or V0013 [default: all]
    #[arg(value_name = "VERSION", value_parser = version)]
    pub version: Option<i64>,
}

fn version(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['V', 'v']).unwrap_or(text);
    digits.parse().map_err(|_| "a version is a number, for example 13 or V0013".to_owned())
}

#[derive(Subcommand, Debug)]
pub enum DataMigrateCommand {
    /// List all data migrations and their progress
    #[command(after_help = "Example:\n  leoflow data-migrate list --json")]
    List,
    /// Run data migrations in this terminal until they are complete, even while the server runs them too
    #[command(
        after_help = "Examples:\n  leoflow data-migrate run               pause between batches, as the server does\n  \
                      leoflow data-migrate run --no-rest     run as fast as the datastore can\n  \
                      leoflow data-migrate run --dry-run     count only"
    )]
    Run {
        #[command(flatten)]
        chosen: MigrationSelector,
        /// Count the rows still to be changed and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not pause between batches; other queries on the datastore wait longer
        #[arg(long)]
        no_rest: bool,
    },
    /// Show data migrations in detail, and what waits for each
    #[command(after_help = "Example:\n  leoflow data-migrate status 13")]
    Status(MigrationSelector),
    /// Count the remaining rows; a data migration with none is verified
    #[command(after_help = "Example:\n  leoflow data-migrate verify")]
    Verify(MigrationSelector),
    /// Pause data migrations after the current batch, until they are resumed
    #[command(after_help = "Example:\n  leoflow data-migrate pause 13")]
    Pause(MigrationSelector),
    /// Resume data migrations that are paused or have failed
    #[command(after_help = "Example:\n  leoflow data-migrate resume 13")]
    Resume(MigrationSelector),
}
