//! Arguments of the commands on Variables and Connections.

use super::output::Output;
use clap::{Args, Subcommand, ValueEnum};
use leoflow_engine::store;
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
    /// List all keys with their descriptions
    #[command(after_help = "Example:\n  leoflow variables list --json")]
    List,
    /// Print a variable's value
    #[command(after_help = "Example:\n  leoflow variables get bucket")]
    Get {
        /// The variable's key
        key: String,
        /// Print this value when the variable does not exist [default: fail]
        #[arg(long, short)]
        default: Option<String>,
    },
    /// Create or change a variable
    #[command(
        after_help = "Examples:\n  leoflow variables set bucket s3://data\n  leoflow variables set limits '{\"rows\": 100}' --description 'Row limits'"
    )]
    Set {
        /// The variable's key
        key: String,
        /// The value; - reads it from stdin
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// A description for people [default: none]
        #[arg(long)]
        description: Option<String>,
    },
    /// Delete a variable
    #[command(after_help = "Example:\n  leoflow variables delete bucket")]
    Delete {
        /// The variable's key
        key: String,
    },
    /// Import variables from a JSON file written by `airflow variables export`
    #[command(after_help = "Example:\n  leoflow variables import variables.json --action-on-existing-key skip")]
    Import {
        /// The JSON file; - reads stdin
        file: PathBuf,
        /// What to do with keys that already exist
        #[arg(long, short, value_enum, default_value_t = OnExisting::Overwrite)]
        action_on_existing_key: OnExisting,
    },
    /// Export all variables to a JSON file for `airflow variables import`
    #[command(
        after_help = "Examples:\n  leoflow variables export variables.json\n  leoflow variables export -     write to stdout"
    )]
    Export {
        /// The JSON file to write; - writes to stdout
        file: PathBuf,
    },
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
    /// List all connections, without passwords
    #[command(after_help = "Example:\n  leoflow connections list --json")]
    List,
    /// Show one connection, with its password masked
    #[command(after_help = "Example:\n  leoflow connections get db")]
    Get {
        /// The connection's id
        conn_id: String,
    },
    /// Create a connection
    #[command(
        after_help = "Examples:\n  leoflow connections add db --conn-type postgres --conn-host db.local --conn-login me\n  \
                            leoflow connections add db --conn-json '{\"conn_type\": \"http\", \"host\": \"example.org\"}'"
    )]
    Add(Box<AddConnection>),
    /// Test a connection with its provider's hook, or its host and port alone; exits 1 on failure
    #[command(after_help = "Example:\n  leoflow connections test db")]
    Test {
        /// The connection's id
        conn_id: String,
    },
    /// Delete a connection
    #[command(after_help = "Example:\n  leoflow connections delete db")]
    Delete {
        /// The connection's id
        conn_id: String,
    },
    /// Import connections from a JSON file written by `airflow connections export`
    #[command(after_help = "Example:\n  leoflow connections import connections.json --overwrite")]
    Import {
        /// The JSON file; - reads stdin
        file: PathBuf,
        /// Replace connections that already exist [default: skip them]
        #[arg(long)]
        overwrite: bool,
    },
    /// Export all connections, including passwords, to a JSON file for `airflow connections import`
    #[command(
        after_help = "Examples:\n  leoflow connections export connections.json\n  leoflow connections export -     write to stdout"
    )]
    Export {
        /// The JSON file to write; - writes to stdout
        file: PathBuf,
    },
}

#[derive(Args, Debug)]
pub struct AddConnection {
    /// The connection's id
    pub conn_id: String,
    /// The type, for example postgres or http
    #[arg(long, required_unless_present_any = ["conn_json", "conn_uri"])]
    pub conn_type: Option<String>,
    /// A description for people
    #[arg(long)]
    pub conn_description: Option<String>,
    /// The host name or address
    #[arg(long)]
    pub conn_host: Option<String>,
    /// The user name
    #[arg(long)]
    pub conn_login: Option<String>,
    /// The password; - reads it from stdin, so that no other process can see it
    #[arg(long)]
    pub conn_password: Option<String>,
    /// The schema; for many types, the name of the database
    #[arg(long)]
    pub conn_schema: Option<String>,
    /// The port [default: chosen by the provider]
    #[arg(long)]
    pub conn_port: Option<i32>,
    /// Extra fields as a JSON object; - reads it from stdin
    #[arg(long)]
    pub conn_extra: Option<String>,
    /// The whole connection as JSON, as in an export
    #[arg(long, conflicts_with = "conn_type")]
    pub conn_json: Option<String>,
    /// The whole connection as a URI, for example postgres://me@db.local:5432/data; - reads it from stdin,
    /// which keeps a password out of the process list
    #[arg(long, conflicts_with_all = ["conn_type", "conn_json"])]
    pub conn_uri: Option<String>,
}
