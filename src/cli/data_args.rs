//! Arguments of the commands on Variables and Connections.

use super::output_args::Output;
use crate::engine::store;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnExisting {
    Overwrite,
    Fail,
    Skip,
}

impl OnExisting {
    pub fn for_store(self) -> store::OnExisting {
        match self {
            Self::Overwrite => store::OnExisting::Overwrite,
            Self::Fail => store::OnExisting::Fail,
            Self::Skip => store::OnExisting::Skip,
        }
    }
}

#[derive(Args, Debug)]
pub struct Variables {
    #[command(flatten)]
    pub output: Output,
    #[command(subcommand)]
    pub command: VariablesCommand,
}

#[derive(Subcommand, Debug)]
#[command(
    after_help = "Examples:\n  leoflow variables set bucket s3://data\n  leoflow variables export variables.json"
)]
pub enum VariablesCommand {
    /// All keys with their descriptions
    #[command(after_help = "Example:\n  leoflow variables list --json")]
    List,
    /// Print a variable's value
    #[command(after_help = "Example:\n  leoflow variables get bucket")]
    Get {
        key: String,
        /// Print this when there is none
        #[arg(long, short)]
        default: Option<String>,
    },
    /// Make or change a variable
    #[command(
        after_help = "Examples:\n  leoflow variables set bucket s3://data\n  leoflow variables set limits '{\"rows\": 100}' --description 'Row limits'"
    )]
    Set {
        key: String,
        /// The value; - reads it from stdin
        #[arg(allow_hyphen_values = true)]
        value: String,
        #[arg(long)]
        description: Option<String>,
    },
    /// Remove a variable
    #[command(after_help = "Example:\n  leoflow variables delete bucket")]
    Delete { key: String },
    /// Read variables from a JSON file as `airflow variables export` writes it
    #[command(after_help = "Example:\n  leoflow variables import variables.json --action-on-existing-key skip")]
    Import {
        file: PathBuf,
        /// What to do with keys that exist
        #[arg(long, short, value_enum, default_value_t = OnExisting::Overwrite)]
        action_on_existing_key: OnExisting,
    },
    /// Write all variables to a JSON file that `airflow variables import` reads
    #[command(
        after_help = "Examples:\n  leoflow variables export variables.json\n  leoflow variables export -     to stdout"
    )]
    Export { file: PathBuf },
}

#[derive(Args, Debug)]
pub struct Connections {
    #[command(flatten)]
    pub output: Output,
    #[command(subcommand)]
    pub command: ConnectionsCommand,
}

#[derive(Subcommand, Debug)]
#[command(
    after_help = "Examples:\n  leoflow connections add db --conn-type postgres --conn-host db.local\n  leoflow connections export connections.json"
)]
pub enum ConnectionsCommand {
    /// All connections, passwords hidden
    #[command(after_help = "Example:\n  leoflow connections list --json")]
    List,
    /// One connection, its password hidden
    #[command(after_help = "Example:\n  leoflow connections get db")]
    Get { conn_id: String },
    /// Make a connection
    #[command(
        after_help = "Examples:\n  leoflow connections add db --conn-type postgres --conn-host db.local --conn-login me\n  \
                            leoflow connections add db --conn-json '{\"conn_type\": \"http\", \"host\": \"example.org\"}'"
    )]
    Add(Box<AddConnection>),
    /// Try whether its host answers; the exit code is 1 when not
    #[command(after_help = "Example:\n  leoflow connections test db")]
    Test { conn_id: String },
    /// Remove a connection
    #[command(after_help = "Example:\n  leoflow connections delete db")]
    Delete { conn_id: String },
    /// Read connections from a JSON file as `airflow connections export` writes it
    #[command(after_help = "Example:\n  leoflow connections import connections.json --overwrite")]
    Import {
        file: PathBuf,
        /// Replace connections that exist; otherwise they are left as they are
        #[arg(long)]
        overwrite: bool,
    },
    /// Write all connections, passwords included, to a JSON file that `airflow connections import` reads
    #[command(
        after_help = "Examples:\n  leoflow connections export connections.json\n  leoflow connections export -     to stdout"
    )]
    Export { file: PathBuf },
}

#[derive(Args, Debug)]
pub struct AddConnection {
    pub conn_id: String,
    #[arg(long, required_unless_present_any = ["conn_json", "conn_uri"])]
    pub conn_type: Option<String>,
    #[arg(long)]
    pub conn_description: Option<String>,
    #[arg(long)]
    pub conn_host: Option<String>,
    #[arg(long)]
    pub conn_login: Option<String>,
    /// The password; - reads it from stdin, so that no other process can see it
    #[arg(long)]
    pub conn_password: Option<String>,
    #[arg(long)]
    pub conn_schema: Option<String>,
    #[arg(long)]
    pub conn_port: Option<i32>,
    /// A JSON object; - reads it from stdin
    #[arg(long)]
    pub conn_extra: Option<String>,
    /// All of it as JSON, as in an export; - reads it from stdin
    #[arg(long, conflicts_with = "conn_type")]
    pub conn_json: Option<String>,
    /// All of it as a URI, for example postgres://me@db.local:5432/data; - reads it from stdin, which is
    /// the place for one with a password
    #[arg(long, conflicts_with_all = ["conn_type", "conn_json"])]
    pub conn_uri: Option<String>,
}
