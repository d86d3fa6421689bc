//! How results are printed.

use clap::{Args, ValueEnum};

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    Table,
    Json,
    Yaml,
    /// As a table, without colours
    Plain,
}

/// For the commands that Airflow has too.
#[derive(Args, Debug, Clone, Default)]
pub struct Output {
    /// How the result is printed
    #[arg(long, short, global = true, value_enum)]
    pub output: Option<OutputFormat>,
}
