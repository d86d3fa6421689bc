//! `leoflow import`.

use crate::airflow::import::{self, ImportAirflow};
use crate::context::Context;
use crate::error::Error;
use clap::{Args, Subcommand};

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  leoflow import airflow --from ~/airflow --dry-run")]
pub struct Import {
    #[command(subcommand)]
    pub command: ImportCommand,
}

#[derive(Subcommand, Debug)]
pub enum ImportCommand {
    /// Import variables, connections, pools and DAG files from Apache Airflow
    #[command(after_help = "Examples:\n  leoflow import airflow --from ~/airflow --dry-run\n  \
                      leoflow import airflow --from http://localhost:8080 --username admin --password-file FILE\n\n\
                      From an Airflow home, Leoflow reads the DAG folder and the files that its CLI exports there:\n\
                      variables.json, connections.json and pools.json. A URL must be that of an Airflow 3 server,\n\
                      whose API masks passwords and returns DAG files without the modules they import.\n\
                      What cannot be imported is listed.")]
    Airflow(ImportAirflow),
}

pub async fn run(context: &Context<'_>, command: &ImportCommand) -> Result<u8, Error> {
    match command {
        ImportCommand::Airflow(args) => import::airflow(context, args).await,
    }
}
