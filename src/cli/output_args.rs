//! How results are printed.

use super::args::{Cli, Command};
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

impl Cli {
    pub fn format(&self) -> Option<OutputFormat> {
        let output = match &self.command {
            Command::Dags(args) => &args.output,
            Command::Runs(args) => &args.output,
            Command::Tasks(args) => &args.output,
            Command::Xcom(args) => &args.output,
            Command::Variables(args) => &args.output,
            Command::Connections(args) => &args.output,
            Command::Pools(args) => &args.output,
            Command::Assets(args) => &args.output,
            Command::Backfill(args) => &args.output,
            _ => return None,
        };
        output.output
    }
}
