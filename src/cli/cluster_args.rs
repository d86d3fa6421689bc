//! The arguments of `leoflow export` and `leoflow import`.

use super::data_args::OnExisting;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  leoflow export airflow --output ~/to-airflow")]
pub struct Export {
    #[command(subcommand)]
    pub command: ExportCommand,
}

#[derive(Subcommand, Debug)]
pub enum ExportCommand {
    /// Everything that Apache Airflow needs to go on with what runs here
    #[command(after_help = "Examples:\n  leoflow export airflow --output ~/to-airflow\n  \
                      leoflow export airflow --output ~/to-airflow --recipient age1… --history\n\n\
                      Without a recipient what may be secret is left out, to be filled in.\n\
                      Its README.md says how it goes on, and what does not fit.")]
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
    /// Encrypt nothing, and leave out what may be secret, though backup.recipients are configured
    #[arg(long, conflicts_with = "recipient")]
    pub no_secrets: bool,
    /// Runs and task instances that are over, too
    #[arg(long)]
    pub history: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  leoflow import airflow --from ~/airflow --dry-run")]
pub struct Import {
    #[command(subcommand)]
    pub command: ImportCommand,
}

#[derive(Subcommand, Debug)]
pub enum ImportCommand {
    /// Variables, connections, pools and DAG files of an Apache Airflow
    #[command(after_help = "Examples:\n  leoflow import airflow --from ~/airflow --dry-run\n  \
                      leoflow import airflow --from http://localhost:8080 --username admin --password-file FILE\n\n\
                      A home has its DAG folder, and what its CLI exports into it:\n\
                      variables.json, connections.json and pools.json. A URL is of an Airflow 3:\n\
                      it masks passwords, and shows DAG files without the modules they import.\n\
                      What does not fit is listed.")]
    Airflow(ImportAirflow),
}

#[derive(Args, Debug)]
pub struct ImportAirflow {
    /// An Airflow's home, or its URL
    #[arg(long, value_name = "DIR|URL")]
    pub from: String,
    /// With a URL: who logs in there
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// The file whose first line is that user's password [default: it is asked for]
    #[arg(long, value_name = "FILE", requires = "username")]
    pub password_file: Option<PathBuf>,
    /// The file whose first line is a token of that Airflow's
    #[arg(long, value_name = "FILE", conflicts_with = "username")]
    pub token_file: Option<PathBuf>,
    /// The folder of the workspace that its DAG files come into; it must not be there yet
    #[arg(long, value_name = "NAME", default_value = "imported")]
    pub project: String,
    /// What to do with variables, connections and pools that are here already
    #[arg(long, value_enum, default_value_t = OnExisting::Skip)]
    pub action_on_existing_key: OnExisting,
    /// Tell what would be imported, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}
