//! The arguments that name a DAG, or a run of one.

use super::complete;
use clap::Args;
use clap_complete::ArgValueCompleter;

#[derive(Args, Debug)]
pub struct DagArg {
    /// The DAG's id
    #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id: String,
}

#[derive(Args, Debug)]
pub struct RunArgs {
    /// The DAG's id
    #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id: String,
    /// The run's id, its logical date, or `latest`
    #[arg(add = ArgValueCompleter::new(complete::run_ids))]
    pub run_id: String,
}
