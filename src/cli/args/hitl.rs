//! The arguments of `leoflow hitl`.

use super::complete;
use super::output::Output;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;

#[derive(Args, Debug)]
pub struct Hitl {
    #[command(flatten)]
    pub output: Output,
    #[command(subcommand)]
    pub command: HitlCommand,
}

#[derive(Subcommand, Debug)]
#[command(after_help = "Examples:\n  leoflow hitl list\n  leoflow hitl respond report latest approve_it Approve")]
pub enum HitlCommand {
    /// List the tasks that wait for a response, with their questions and options
    #[command(after_help = "Examples:\n  leoflow hitl list\n  leoflow hitl list report --all")]
    List {
        /// Only tasks of this DAG [default: all DAGs]
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: Option<String>,
        /// Include tasks that were already answered
        #[arg(long)]
        all: bool,
    },
    /// Respond to a task, which then continues
    #[command(after_help = "Examples:\n  leoflow hitl respond report latest approve_it Approve\n  \
                      leoflow hitl respond report RUN_ID 'ask[2]' 'option 1' 'option 3' --param reason='too late'")]
    Respond(HitlRespond),
}

#[derive(Args, Debug)]
pub struct HitlRespond {
    /// The DAG's id
    #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id: String,
    /// The run's id, or `latest`
    #[arg(add = ArgValueCompleter::new(complete::run_ids))]
    pub run_id: String,
    /// The task's id; `work[7]` is instance 7 of a mapped task
    #[arg(add = ArgValueCompleter::new(complete::task_ids))]
    pub task_id: String,
    /// The chosen option, or several where the task allows that
    #[arg(required = true, value_name = "OPTION")]
    pub options: Vec<String>,
    /// A value for one of the task's params, as JSON or text; may be repeated
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub params: Vec<String>,
}
