//! The arguments of `leoflow data-migrate`.

use clap::{Args, Subcommand};

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow data-migrate list                 what there is, and how far it has come\n  \
                  leoflow data-migrate run --dry-run        how many rows are still to be changed\n  \
                  leoflow data-migrate pause                let the machine rest; resume goes on"
)]
pub struct DataMigrate {
    #[command(subcommand)]
    pub command: DataMigrateCommand,
}

#[derive(Args, Debug)]
pub struct Chosen {
    /// The migration's number, as 13 or V0013 [default: all of them]
    #[arg(value_name = "VERSION", value_parser = version)]
    pub version: Option<i64>,
}

fn version(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['V', 'v']).unwrap_or(text);
    digits.parse().map_err(|_| "a version is a number, as 13 or V0013".to_owned())
}

#[derive(Subcommand, Debug)]
pub enum DataMigrateCommand {
    /// All of them, and how far each has come
    #[command(after_help = "Example:\n  leoflow data-migrate list --json")]
    List,
    /// Run them here and now to their end, whether or not the server does so too
    #[command(
        after_help = "Examples:\n  leoflow data-migrate run               rest between batches, as the server does\n  \
                      leoflow data-migrate run --no-rest     as fast as the datastore can\n  \
                      leoflow data-migrate run --dry-run     only count"
    )]
    Run {
        #[command(flatten)]
        chosen: Chosen,
        /// Count what is to be done and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not rest between batches: others on the datastore wait longer
        #[arg(long)]
        no_rest: bool,
    },
    /// One in detail, and what waits for them to be over
    #[command(after_help = "Example:\n  leoflow data-migrate status 13")]
    Status(Chosen),
    /// Count the rows that are left; with none of them it is verified
    #[command(after_help = "Example:\n  leoflow data-migrate verify")]
    Verify(Chosen),
    /// Stop after the batch that is under way, until it is resumed
    #[command(after_help = "Example:\n  leoflow data-migrate pause 13")]
    Pause(Chosen),
    /// Go on with what was paused, or has failed
    #[command(after_help = "Example:\n  leoflow data-migrate resume 13")]
    Resume(Chosen),
}
