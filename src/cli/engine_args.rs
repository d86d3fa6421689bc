//! The arguments of the commands about DAGs and runs. Words and ids as in Airflow's own.

use super::complete;
use super::output_args::Output;
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
    /// All DAGs, how their last runs ended, and files that cannot be imported
    #[command(after_help = "Examples:\n  leoflow dags list\n  leoflow dags list --json")]
    List {
        /// Also DAGs whose files are gone
        #[arg(long)]
        all: bool,
    },
    /// One DAG: its tasks and its last runs
    #[command(after_help = "Example:\n  leoflow dags show hello")]
    Show {
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
    },
    /// Let no new runs or tasks of a DAG begin
    #[command(after_help = "Example:\n  leoflow dags pause hello")]
    Pause {
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
    },
    /// Let a DAG run again
    #[command(after_help = "Example:\n  leoflow dags unpause hello")]
    Unpause {
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
    },
    /// Start a run
    #[command(
        after_help = "Examples:\n  leoflow dags trigger hello --wait\n  leoflow dags trigger hello --conf '{\"name\": \"Ada\"}'"
    )]
    Trigger(Trigger),
    /// When the next runs of a DAG are due
    #[command(
        name = "next-execution",
        after_help = "Examples:\n  leoflow dags next-execution report\n  leoflow dags next-execution report -n 5"
    )]
    NextExecution {
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// How many of them
        #[arg(long, short = 'n', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
        num_executions: u32,
    },
    /// Files that cannot be imported, and why; the exit code is 1 when there is one
    #[command(name = "list-import-errors", after_help = "Example:\n  leoflow dags list-import-errors")]
    ListImportErrors,
    /// How long each file takes to import, and what it makes
    #[command(after_help = "Example:\n  leoflow dags report")]
    Report,
    /// Run a DAG here and now, in this terminal, without a scheduler; nothing is stored
    #[command(
        after_help = "Examples:\n  leoflow dags test hello\n  leoflow dags test hello 2026-01-31         for this date\n  leoflow dags test hello --pdb              stop in the debugger where a task fails\n  \
                      leoflow dags test hello --file other/dag.py"
    )]
    Test(Test),
    /// Print the file of a DAG as it was when it was imported
    #[command(after_help = "Examples:\n  leoflow dags source hello\n  leoflow dags source hello --version 1")]
    Source {
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// An older version [default: the current one]
        #[arg(long)]
        version: Option<u32>,
    },
    /// Remove a DAG's history; a DAG whose file is still there comes back without it
    #[command(after_help = "Example:\n  leoflow dags delete old_dag")]
    Delete {
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Args, Debug)]
pub struct Trigger {
    #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id: String,
    /// Values for the run's params, as a JSON object; - reads it from stdin
    #[arg(long, short)]
    pub conf: Option<String>,
    /// The run's id [default: manual__ and the time]
    #[arg(long, short)]
    pub run_id: Option<String>,
    /// The date that the run is for, for example 2026-01-31 [default: none]
    #[arg(long, short)]
    pub logical_date: Option<String>,
    /// The partition that the run is for, of a DAG that is partitioned
    #[arg(long, value_name = "KEY")]
    pub partition_key: Option<String>,
    /// Wait for the end, and show each task as it changes; the exit code is 1 when the run fails
    #[arg(long, short)]
    pub wait: bool,
    /// Unpause the DAG first
    #[arg(long)]
    pub unpause: bool,
}

#[derive(Args, Debug)]
pub struct Test {
    #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id: String,
    /// The date that the run is for, for example 2026-01-31 [default: none]
    #[arg(conflicts_with = "logical_date")]
    pub date: Option<String>,
    /// Values for the run's params, as a JSON object
    #[arg(long, short)]
    pub conf: Option<String>,
    /// The file that makes the DAG [default: the one of the workspace that does]
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The same
    #[arg(long, short)]
    pub logical_date: Option<String>,
    /// Stop in Python's debugger where a task fails
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
    /// The runs of a DAG, newest first
    #[command(after_help = "Examples:\n  leoflow runs list hello\n  leoflow runs list hello --state failed")]
    List {
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// Only those in this state: queued, running, success or failed
        #[arg(long, value_parser = ["queued", "running", "success", "failed"])]
        state: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// One run with its tasks
    #[command(after_help = "Examples:\n  leoflow runs show hello latest\n  leoflow runs show hello RUN_ID --json")]
    Show {
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// The run's id, or `latest`
        #[arg(add = ArgValueCompleter::new(complete::run_ids))]
        run_id: String,
    },
    /// Follow a run to its end; the exit code is 1 when it fails
    #[command(after_help = "Example:\n  leoflow runs watch hello latest")]
    Watch {
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// The run's id, or `latest`
        #[arg(add = ArgValueCompleter::new(complete::run_ids))]
        run_id: String,
    },
    /// Make a run's tasks run again, with the DAG as it is now
    #[command(
        after_help = "Examples:\n  leoflow runs clear hello latest --only-failed\n  leoflow runs clear hello RUN_ID --yes"
    )]
    Clear {
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// The run's id, or `latest`
        #[arg(add = ArgValueCompleter::new(complete::run_ids))]
        run_id: String,
        /// Only tasks that failed, or could not run because others did
        #[arg(long, short = 'f')]
        only_failed: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Remove a run that has ended, with its tasks and XComs
    #[command(after_help = "Example:\n  leoflow runs delete hello RUN_ID")]
    Delete {
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// The run's id, or `latest`
        #[arg(add = ArgValueCompleter::new(complete::run_ids))]
        run_id: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// End a run: what runs is ended, what has not begun is skipped, the run has failed
    #[command(after_help = "Example:\n  leoflow runs cancel hello latest")]
    Cancel {
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// The run's id, or `latest`
        #[arg(add = ArgValueCompleter::new(complete::run_ids))]
        run_id: String,
    },
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow validate                  every DAG file of the workspace\n  leoflow validate reports/dag.py   files and folders, one or several"
)]
pub struct Validate {
    /// Files and folders [default: the workspace]
    pub paths: Vec<PathBuf>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow init ~/leoflow/reports\n  leoflow init ~/leoflow/sales --with pandas,requests"
)]
pub struct Init {
    /// The project's folder; it is made, and must not hold a dag.py yet
    pub folder: PathBuf,
    /// Packages that it depends on, as pip writes them; they go to its leoflow.yaml
    #[arg(long, value_name = "PACKAGES", value_delimiter = ',')]
    pub with: Vec<String>,
}
