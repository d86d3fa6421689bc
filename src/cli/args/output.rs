//! The output format of results.

use clap::{Args, Subcommand, ValueEnum};

/// The format of a printed result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    Table,
    Json,
    Yaml,
    /// A table without colours
    Plain,
}

/// A command with `--output`, as in Airflow's CLI.
#[derive(Args, Debug)]
pub struct WithOutput<C: Subcommand> {
    /// The output format [default: table]
    #[arg(long, short, global = true, value_enum)]
    pub output: Option<OutputFormat>,
    #[command(subcommand)]
    pub command: C,
}
