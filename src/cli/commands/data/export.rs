//! `leoflow export`.

use crate::airflow::export::{self, ExportAirflow};
use crate::context::Context;
use crate::error::Error;
use clap::{Args, Subcommand};

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  leoflow export airflow --output ~/to-airflow")]
pub struct Export {
    #[command(subcommand)]
    pub command: ExportCommand,
}

#[derive(Subcommand, Debug)]
pub enum ExportCommand {
    /// Export everything that Apache Airflow needs to run these DAGs
    #[command(after_help = "Examples:\n  leoflow export airflow --output ~/to-airflow\n  \
                      leoflow export airflow --output ~/to-airflow --recipient age1… --history\n\n\
                      Without a recipient, possible secrets are left out for you to fill in.\n\
                      README.md in the export lists the next steps and what Airflow does not support.")]
    Airflow(ExportAirflow),
}

pub async fn run(context: &Context<'_>, command: &ExportCommand) -> Result<u8, Error> {
    match command {
        ExportCommand::Airflow(args) => export::airflow(context, args).await,
    }
}
