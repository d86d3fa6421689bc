//! The arguments of the commands about tasks and XComs. Words and ids as in Airflow's own.

use super::complete;
use super::output_args::Output;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct Tasks {
    #[command(flatten)]
    pub output: Output,
    #[command(subcommand)]
    pub command: TasksCommand,
}

#[derive(Subcommand, Debug)]
#[command(after_help = "Examples:\n  leoflow tasks list hello\n  leoflow tasks logs hello latest greet -f")]
pub enum TasksCommand {
    /// The tasks of a DAG, each after those it waits for
    #[command(after_help = "Example:\n  leoflow tasks list hello")]
    List {
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
    },
    /// The state of a task of a run
    #[command(
        after_help = "Examples:\n  leoflow tasks state hello latest greet\n  leoflow tasks state hello latest 'work[7]'"
    )]
    State {
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// The run's id, or `latest`
        #[arg(add = ArgValueCompleter::new(complete::run_ids))]
        run_id: String,
        /// The task; `work[7]` is one instance of a mapped one
        #[arg(add = ArgValueCompleter::new(complete::task_ids))]
        task_id: String,
    },
    /// What a task wrote
    #[command(
        after_help = "Examples:\n  leoflow tasks logs hello latest greet\n  leoflow tasks logs hello latest greet -f\n  \
                      leoflow tasks logs hello RUN_ID greet --try 1"
    )]
    Logs(TaskLogs),
    /// Make tasks of a run run again, with the DAG as it is now
    #[command(
        after_help = "Examples:\n  leoflow tasks clear hello latest greet --downstream\n  leoflow tasks clear hello RUN_ID --only-failed --yes\n  \
                      leoflow tasks clear hello -t '^load' -s 2026-01-01 -e 2026-01-31    of every run for these dates"
    )]
    Clear(ClearTasks),
    /// Run one task here and now, in this terminal, whatever it waits for; nothing is stored
    #[command(
        after_help = "Examples:\n  leoflow tasks test hello greet\n  leoflow tasks test hello greet --pdb     stop in the debugger where it fails"
    )]
    Test(TestTask),
    /// Print a task's template fields as they would be
    #[command(after_help = "Example:\n  leoflow tasks render hello greet --logical-date 2026-01-31")]
    Render(TestTask),
}

#[derive(Args, Debug)]
pub struct TestTask {
    #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id: String,
    #[arg(add = ArgValueCompleter::new(complete::task_ids))]
    pub task_id: String,
    /// Which instance of a mapped task; `work[7]` says the same
    #[arg(long, value_parser = clap::value_parser!(i32).range(-1..), allow_negative_numbers = true)]
    pub map_index: Option<i32>,
    /// Values for the run's params, as a JSON object
    #[arg(long, short)]
    pub conf: Option<String>,
    /// The file that makes the DAG [default: the one of the workspace that does]
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The date that the run is for
    #[arg(long, short)]
    pub logical_date: Option<String>,
    /// Stop in Python's debugger where it fails
    #[arg(long)]
    pub pdb: bool,
}

#[derive(Args, Debug)]
pub struct TaskLogs {
    #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id: String,
    /// The run's id, or `latest`
    #[arg(add = ArgValueCompleter::new(complete::run_ids))]
    pub run_id: String,
    #[arg(add = ArgValueCompleter::new(complete::task_ids))]
    pub task_id: String,
    /// Go on until the task has ended
    #[arg(long, short)]
    pub follow: bool,
    /// Which try [default: the newest]
    #[arg(long = "try", value_name = "N")]
    pub try_number: Option<u32>,
    /// Which instance of a mapped task; `work[7]` says the same
    #[arg(long, value_parser = clap::value_parser!(i32).range(-1..), allow_negative_numbers = true)]
    pub map_index: Option<i32>,
    /// Without times and streams
    #[arg(long)]
    pub plain: bool,
}

#[derive(Args, Debug)]
pub struct ClearTasks {
    #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id: String,
    /// The run's id, or `latest`; not with dates
    #[arg(required_unless_present_any = ["start_date", "end_date"], conflicts_with_all = ["start_date", "end_date"], add = ArgValueCompleter::new(complete::run_ids))]
    pub run_id: Option<String>,
    /// The tasks; `work[7]` is one instance of a mapped one [default: all]
    #[arg(add = ArgValueCompleter::new(complete::task_ids))]
    pub task_ids: Vec<String>,
    /// Only tasks whose id this regular expression finds
    #[arg(long, short)]
    pub task_regex: Option<String>,
    /// Of every run whose logical date is this or later
    #[arg(long, short)]
    pub start_date: Option<String>,
    /// Of every run whose logical date is this or earlier
    #[arg(long, short)]
    pub end_date: Option<String>,
    /// Only those that run
    #[arg(long, short = 'r', conflicts_with = "only_failed")]
    pub only_running: bool,
    /// Also all that wait for them
    #[arg(long, short)]
    pub downstream: bool,
    /// Also all that they wait for
    #[arg(long, short)]
    pub upstream: bool,
    /// Only those that failed, or could not run because others did
    #[arg(long, short = 'f')]
    pub only_failed: bool,
    /// Only this instance of a mapped task
    #[arg(long, requires = "task_ids", value_parser = clap::value_parser!(i32).range(0..))]
    pub map_index: Option<i32>,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

#[derive(Args, Debug)]
pub struct Xcom {
    #[command(flatten)]
    pub output: Output,
    #[command(subcommand)]
    pub command: XcomCommand,
}

#[derive(Subcommand, Debug)]
#[command(after_help = "Examples:\n  leoflow xcom list hello latest\n  leoflow xcom get hello latest greet")]
pub enum XcomCommand {
    /// What the tasks of a run have left
    #[command(after_help = "Example:\n  leoflow xcom list hello latest")]
    List {
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// The run's id, or `latest`
        #[arg(add = ArgValueCompleter::new(complete::run_ids))]
        run_id: String,
        /// Only of this task
        #[arg(add = ArgValueCompleter::new(complete::task_ids))]
        task_id: Option<String>,
    },
    /// Print one value, as JSON
    #[command(
        after_help = "Examples:\n  leoflow xcom get hello latest greet\n  leoflow xcom get hello RUN_ID load --key rows"
    )]
    Get {
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// The run's id, or `latest`
        #[arg(add = ArgValueCompleter::new(complete::run_ids))]
        run_id: String,
        #[arg(add = ArgValueCompleter::new(complete::task_ids))]
        task_id: String,
        #[arg(long, default_value = "return_value")]
        key: String,
        /// Which instance of a mapped task; `work[7]` says the same
        #[arg(long, value_parser = clap::value_parser!(i32).range(-1..), allow_negative_numbers = true)]
        map_index: Option<i32>,
    },
}
