//! The arguments of `leoflow export` and `leoflow import`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct Export {
    #[command(subcommand)]
    pub command: ExportCommand,
}

#[derive(Subcommand, Debug)]
pub enum ExportCommand {
    /// Everything that Apache Airflow needs to go on with what runs here
    #[command(after_help = "Examples:\n  leoflow export airflow --output ~/to-airflow\n  \
                      leoflow export airflow --output ~/to-airflow --recipient age1… --history\n\n\
                      Without a recipient passwords of connections are left out, to be filled in. Its README.md says how it goes on,\n\
                      and what does not fit.")]
    Airflow(ExportAirflow),
}

#[derive(Args, Debug)]
pub struct ExportAirflow {
    /// The folder to make; what is there already is left alone
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Encrypt variables and connections to this public key of age's or of SSH's; may be given several times
    /// [default: backup.recipients]
    #[arg(long, value_name = "KEY")]
    pub recipient: Vec<String>,
    /// Leave secrets out, though backup.recipients are configured
    #[arg(long, conflicts_with = "recipient")]
    pub no_secrets: bool,
    /// Runs and task instances that are over, too
    #[arg(long)]
    pub history: bool,
}
