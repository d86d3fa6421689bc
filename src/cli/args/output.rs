//! The output format of results.

use clap::{Args, ValueEnum};

/// The format of a printed result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    Table,
    Json,
    Yaml,
    /// A table without colours
    Plain,
}

/// `--output`, as in Airflow's CLI.
#[derive(Args, Debug, Clone, Default)]
pub struct Output {
    /// The output format [default: table]
    #[arg(long, short, global = true, value_enum)]
    pub output: Option<OutputFormat>,
}
