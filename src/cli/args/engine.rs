//! The arguments of the commands about DAGs and runs, named as in Airflow's CLI.

use super::complete;
use super::output::Output;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct Dags {
    #[command(flatten)]
    pub output: Output,
    #[command(subcommand)]
    pub command: DagsCommand,
}

#[derive(Subcommand, Debug)]
#[command(after_help = "Examples:\n  leoflow dags list\n  leoflow dags trigger hello --wait")]
pub enum DagsCommand {
    /// List all DAGs, their last runs, and files that fail to import
    #[command(after_help = "Examples:\n  leoflow dags list\n  leoflow dags list --json")]
    List {
        /// Include DAGs whose files no longer exist
        #[arg(long)]
        all: bool,
    },
    /// Show one DAG with its tasks and last runs
    #[command(after_help = "Example:\n  leoflow dags show hello")]
    Show {
        /// The DAG's id
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
    },
    /// Pause a DAG: no new runs or tasks start
    #[command(after_help = "Example:\n  leoflow dags pause hello")]
    Pause {
        /// The DAG's id
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
    },
    /// Unpause a DAG: its runs and tasks may start
    #[command(after_help = "Example:\n  leoflow dags unpause hello")]
    Unpause {
        /// The DAG's id
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
    },
    /// Trigger a run of a DAG
    #[command(
        after_help = "Examples:\n  leoflow dags trigger hello --wait\n  leoflow dags trigger hello --conf '{\"name\": \"Ada\"}'"
    )]
    Trigger(Trigger),
    /// Show when the next runs of a DAG are due
    #[command(
        name = "next-execution",
        after_help = "Examples:\n  leoflow dags next-execution report\n  leoflow dags next-execution report -n 5"
    )]
    NextExecution {
        /// The DAG's id
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// The number of runs to show
        #[arg(long, short = 'n', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
        num_executions: u32,
    },
    /// List DAG files that fail to import, with their errors; exits 1 when there are any
    #[command(name = "list-import-errors", after_help = "Example:\n  leoflow dags list-import-errors")]
    ListImportErrors,
    /// Show each DAG file's import time and DAGs
    #[command(after_help = "Example:\n  leoflow dags report")]
    Report,
    /// Run a DAG in this terminal without the scheduler; nothing is stored
    #[command(
        after_help = "Examples:\n  leoflow dags test hello\n  leoflow dags test hello 2026-01-31         run it for this date\n  leoflow dags test hello --pdb              open the debugger where a task fails\n  \
                      leoflow dags test hello --file other/dag.py"
    )]
    Test(Test),
    /// Print the source of a DAG's file as it was imported
    #[command(after_help = "Examples:\n  leoflow dags source hello\n  leoflow dags source hello --version 1")]
    Source {
        /// The DAG's id
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// The DAG version [default: the current one]
        #[arg(long)]
        version: Option<u32>,
    },
    /// Delete a DAG and its history; if its file still exists, the DAG returns without history
    #[command(after_help = "Example:\n  leoflow dags delete old_dag")]
    Delete {
        /// The DAG's id
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// Skip the confirmation prompt
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Args, Debug)]
pub struct Trigger {
    /// The DAG's id
    #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id: String,
    /// Params of the run, as a JSON object; - reads it from stdin [default: those of the DAG]
    #[arg(long, short)]
    pub conf: Option<String>,
    /// The run's id [default: manual__ and the current time]
    #[arg(long, short)]
    pub run_id: Option<String>,
    /// The logical date, for example 2026-01-31 [default: none]
    #[arg(long, short)]
    pub logical_date: Option<String>,
    /// The partition key of the run, for a partitioned DAG
    #[arg(long, value_name = "KEY")]
    pub partition_key: Option<String>,
    /// Wait until the run ends and print each task's state changes; exits 1 when the run fails
    #[arg(long, short)]
    pub wait: bool,
    /// Unpause the DAG first
    #[arg(long)]
    pub unpause: bool,
}

#[derive(Args, Debug)]
pub struct Test {
    /// The DAG's id
    #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id: String,
    /// The logical date, for example 2026-01-31 [default: none]
    #[arg(conflicts_with = "logical_date")]
    pub date: Option<String>,
    /// Params of the run, as a JSON object [default: those of the DAG]
    #[arg(long, short)]
    pub conf: Option<String>,
    /// The DAG file [default: the file in the workspace that defines the DAG]
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The logical date as an option
    #[arg(long, short)]
    pub logical_date: Option<String>,
    /// Open Python's debugger where a task fails
    #[arg(long)]
    pub pdb: bool,
}

#[derive(Args, Debug)]
pub struct Runs {
    #[command(flatten)]
    pub output: Output,
    #[command(subcommand)]
    pub command: RunsCommand,
}

#[derive(Subcommand, Debug)]
#[command(after_help = "Examples:\n  leoflow runs list hello\n  leoflow runs show hello latest")]
pub enum RunsCommand {
    /// List the runs of a DAG, newest first
    #[command(after_help = "Examples:\n  leoflow runs list hello\n  leoflow runs list hello --state failed")]
    List {
        /// The DAG's id
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// Only runs in this state [default: all states]
        #[arg(long, value_parser = ["queued", "running", "success", "failed"])]
        state: Option<String>,
        /// The maximum number of runs to list
        #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Show one run with its tasks
    #[command(after_help = "Examples:\n  leoflow runs show hello latest\n  leoflow runs show hello RUN_ID --json")]
    Show {
        /// The DAG's id
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// The run's id, or `latest`
        #[arg(add = ArgValueCompleter::new(complete::run_ids))]
        run_id: String,
    },
    /// Follow a run until it ends; exits 1 when it fails
    #[command(after_help = "Example:\n  leoflow runs watch hello latest")]
    Watch {
        /// The DAG's id
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// The run's id, or `latest`
        #[arg(add = ArgValueCompleter::new(complete::run_ids))]
        run_id: String,
    },
    /// Rerun a run's tasks with the current DAG version
    #[command(
        after_help = "Examples:\n  leoflow runs clear hello latest --only-failed\n  leoflow runs clear hello RUN_ID --yes"
    )]
    Clear {
        /// The DAG's id
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// The run's id, or `latest`
        #[arg(add = ArgValueCompleter::new(complete::run_ids))]
        run_id: String,
        /// Only tasks that failed or did not run because an upstream task failed
        #[arg(long, short = 'f')]
        only_failed: bool,
        /// Skip the confirmation prompt
        #[arg(long, short)]
        yes: bool,
    },
    /// Delete a finished run with its tasks and XComs
    #[command(after_help = "Example:\n  leoflow runs delete hello RUN_ID")]
    Delete {
        /// The DAG's id
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// The run's id, or `latest`
        #[arg(add = ArgValueCompleter::new(complete::run_ids))]
        run_id: String,
        /// Skip the confirmation prompt
        #[arg(long, short)]
        yes: bool,
    },
    /// Cancel a run: stop its running tasks, skip the others and mark the run failed
    #[command(after_help = "Example:\n  leoflow runs cancel hello latest")]
    Cancel {
        /// The DAG's id
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// The run's id, or `latest`
        #[arg(add = ArgValueCompleter::new(complete::run_ids))]
        run_id: String,
    },
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow validate                  check every DAG file in the workspace\n  leoflow validate reports/dag.py   check some files or folders"
)]
pub struct Validate {
    /// The files and folders to check [default: the workspace]
    pub paths: Vec<PathBuf>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow init ~/leoflow/reports\n  leoflow init ~/leoflow/sales --with pandas,requests"
)]
pub struct Init {
    /// The project's folder; it is created, and must not contain a dag.py yet
    pub folder: PathBuf,
    /// Packages to add to its leoflow.yaml as dependencies, comma-separated, in pip's syntax
    #[arg(long, value_name = "PACKAGES", value_delimiter = ',')]
    pub with: Vec<String>,
}
