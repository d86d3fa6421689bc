//! The arguments of `leoflow hitl`.

use super::complete;
use super::output_args::Output;
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
    /// The tasks that wait for an answer: what they ask, and what may be chosen
    #[command(after_help = "Examples:\n  leoflow hitl list\n  leoflow hitl list report --all")]
    List {
        /// Only of this DAG
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: Option<String>,
        /// Those that have been answered too
        #[arg(long)]
        all: bool,
    },
    /// Answer; the task goes on with it
    #[command(after_help = "Examples:\n  leoflow hitl respond report latest approve_it Approve\n  \
                      leoflow hitl respond report RUN_ID 'ask[2]' 'option 1' 'option 3' --param reason='too late'")]
    Respond(HitlRespond),
}

#[derive(Args, Debug)]
pub struct HitlRespond {
    #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id: String,
    /// The run's id, or `latest`
    #[arg(add = ArgValueCompleter::new(complete::run_ids))]
    pub run_id: String,
    /// The task; `work[7]` is one instance of a mapped one
    #[arg(add = ArgValueCompleter::new(complete::task_ids))]
    pub task_id: String,
    /// What is chosen: one of its options, or several where it allows that
    #[arg(required = true, value_name = "OPTION")]
    pub options: Vec<String>,
    /// A value for one of its params, as JSON or as text
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub params: Vec<String>,
}
