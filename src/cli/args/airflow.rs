//! The arguments of `leoflow export` and `leoflow import`.

use super::data::OnExisting;
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
    /// Export everything that Apache Airflow needs to run these DAGs
    #[command(after_help = "Examples:\n  leoflow export airflow --output ~/to-airflow\n  \
                      leoflow export airflow --output ~/to-airflow --recipient age1… --history\n\n\
                      Without a recipient, possible secrets are left out for you to fill in.\n\
                      README.md in the export lists the next steps and what Airflow does not support.")]
    Airflow(ExportAirflow),
}

#[derive(Args, Debug)]
pub struct ExportAirflow {
    /// The folder to create; it must not exist yet
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Encrypt variables and connections to this age or SSH public key; may be repeated
    /// [default: backup.recipients]
    #[arg(long, value_name = "KEY")]
    pub recipient: Vec<String>,
    /// Encrypt nothing and leave out possible secrets, even when backup.recipients is set
    #[arg(long, conflicts_with = "recipient")]
    pub no_secrets: bool,
    /// Also export finished runs and task instances
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
    /// Import variables, connections, pools and DAG files from Apache Airflow
    #[command(after_help = "Examples:\n  leoflow import airflow --from ~/airflow --dry-run\n  \
                      leoflow import airflow --from http://localhost:8080 --username admin --password-file FILE\n\n\
                      From an Airflow home, Leoflow reads the DAG folder and the files that its CLI exports there:\n\
                      variables.json, connections.json and pools.json. A URL must be that of an Airflow 3 server,\n\
                      whose API masks passwords and returns DAG files without the modules they import.\n\
                      What cannot be imported is listed.")]
    Airflow(ImportAirflow),
}

#[derive(Args, Debug)]
pub struct ImportAirflow {
    /// An Airflow home folder, or the URL of an Airflow 3 server
    #[arg(long, value_name = "DIR|URL")]
    pub from: String,
    /// With a URL: the user to log in as
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// The file whose first line is that user's password [default: prompt for it]
    #[arg(long, value_name = "FILE", requires = "username")]
    pub password_file: Option<PathBuf>,
    /// The file whose first line is an access token for that Airflow
    #[arg(long, value_name = "FILE", conflicts_with = "username")]
    pub token_file: Option<PathBuf>,
    /// The workspace folder for the DAG files; it must not exist yet
    #[arg(long, value_name = "NAME", default_value = "imported")]
    pub project: String,
    /// What to do with variables, connections and pools that already exist
    #[arg(long, value_enum, default_value_t = OnExisting::Skip)]
    pub action_on_existing_key: OnExisting,
    /// Print what would be imported and change nothing
    #[arg(long)]
    pub dry_run: bool,
}
