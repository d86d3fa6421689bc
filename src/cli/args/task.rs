//! The arguments of the commands about tasks and XComs, named as in Airflow's CLI.

use super::complete;
use super::output::Output;
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
    /// List the tasks of a DAG in topological order
    #[command(after_help = "Example:\n  leoflow tasks list hello")]
    List {
        /// The DAG's id
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
    },
    /// Show the state of one task instance
    #[command(
        after_help = "Examples:\n  leoflow tasks state hello latest greet\n  leoflow tasks state hello latest 'work[7]'"
    )]
    State {
        /// The DAG's id
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// The run's id, or `latest`
        #[arg(add = ArgValueCompleter::new(complete::run_ids))]
        run_id: String,
        /// The task's id; `work[7]` is instance 7 of a mapped task
        #[arg(add = ArgValueCompleter::new(complete::task_ids))]
        task_id: String,
    },
    /// Show the log of a task instance
    #[command(
        after_help = "Examples:\n  leoflow tasks logs hello latest greet\n  leoflow tasks logs hello latest greet -f\n  \
                      leoflow tasks logs hello RUN_ID greet --try 1"
    )]
    Logs(TaskLogs),
    /// Rerun tasks of a run with the current DAG version
    #[command(
        after_help = "Examples:\n  leoflow tasks clear hello latest greet --downstream\n  leoflow tasks clear hello RUN_ID --only-failed --yes\n  \
                      leoflow tasks clear hello -t '^load' -s 2026-01-01 -e 2026-01-31    in every run of these dates"
    )]
    Clear(ClearTasks),
    /// Run one task in this terminal, regardless of its dependencies; nothing is stored
    #[command(
        after_help = "Examples:\n  leoflow tasks test hello greet\n  leoflow tasks test hello greet --pdb     open the debugger where it fails"
    )]
    Test(TestTask),
    /// Render a task's template fields and print them
    #[command(after_help = "Example:\n  leoflow tasks render hello greet --logical-date 2026-01-31")]
    Render(TestTask),
}

#[derive(Args, Debug)]
pub struct TestTask {
    /// The DAG's id
    #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id: String,
    /// The task's id
    #[arg(add = ArgValueCompleter::new(complete::task_ids))]
    pub task_id: String,
    /// The instance of a mapped task, counted from 0; `work[7]` as the task's id means the same
    #[arg(long, value_parser = clap::value_parser!(i32).range(-1..), allow_negative_numbers = true)]
    pub map_index: Option<i32>,
    /// Params of the run, as a JSON object [default: those of the DAG]
    #[arg(long, short)]
    pub conf: Option<String>,
    /// The DAG file [default: the file in the workspace that defines the DAG]
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The logical date, for example 2026-01-31 [default: none]
    #[arg(long, short)]
    pub logical_date: Option<String>,
    /// Open Python's debugger where the task fails
    #[arg(long)]
    pub pdb: bool,
}

#[derive(Args, Debug)]
pub struct TaskLogs {
    /// The DAG's id
    #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id: String,
    /// The run's id, or `latest`
    #[arg(add = ArgValueCompleter::new(complete::run_ids))]
    pub run_id: String,
    /// The task's id
    #[arg(add = ArgValueCompleter::new(complete::task_ids))]
    pub task_id: String,
    /// Keep printing new lines until the task ends
    #[arg(long, short)]
    pub follow: bool,
    /// The number of the try, counted from 1 [default: the newest]
    #[arg(long = "try", value_name = "N")]
    pub try_number: Option<u32>,
    /// The instance of a mapped task, counted from 0; `work[7]` as the task's id means the same
    #[arg(long, value_parser = clap::value_parser!(i32).range(-1..), allow_negative_numbers = true)]
    pub map_index: Option<i32>,
    /// Print lines without time and stream
    #[arg(long)]
    pub plain: bool,
}

#[derive(Args, Debug)]
pub struct ClearTasks {
    /// The DAG's id
    #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id: String,
    /// The run's id, or `latest`; not together with --start-date or --end-date
    #[arg(required_unless_present_any = ["start_date", "end_date"], conflicts_with_all = ["start_date", "end_date"], add = ArgValueCompleter::new(complete::run_ids))]
    pub run_id: Option<String>,
    /// The tasks' ids; `work[7]` is instance 7 of a mapped task [default: all tasks]
    #[arg(add = ArgValueCompleter::new(complete::task_ids))]
    pub task_ids: Vec<String>,
    /// Only tasks whose id matches this regular expression
    #[arg(long, short)]
    pub task_regex: Option<String>,
    /// Tasks of every run whose logical date is this date or later
    #[arg(long, short)]
    pub start_date: Option<String>,
    /// Tasks of every run whose logical date is this date or earlier
    #[arg(long, short)]
    pub end_date: Option<String>,
    /// Only running tasks
    #[arg(long, short = 'r', conflicts_with = "only_failed")]
    pub only_running: bool,
    /// Also all downstream tasks
    #[arg(long, short)]
    pub downstream: bool,
    /// Also all upstream tasks
    #[arg(long, short)]
    pub upstream: bool,
    /// Only tasks that failed or did not run because an upstream task failed
    #[arg(long, short = 'f')]
    pub only_failed: bool,
    /// Only this instance of a mapped task, counted from 0
    #[arg(long, requires = "task_ids", value_parser = clap::value_parser!(i32).range(0..))]
    pub map_index: Option<i32>,
    /// Skip the confirmation prompt
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
    /// List the XComs of a run
    #[command(after_help = "Example:\n  leoflow xcom list hello latest")]
    List {
        /// The DAG's id
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// The run's id, or `latest`
        #[arg(add = ArgValueCompleter::new(complete::run_ids))]
        run_id: String,
        /// Only XComs of this task [default: all tasks]
        #[arg(add = ArgValueCompleter::new(complete::task_ids))]
        task_id: Option<String>,
    },
    /// Print one XCom's value as JSON
    #[command(
        after_help = "Examples:\n  leoflow xcom get hello latest greet\n  leoflow xcom get hello RUN_ID load --key rows"
    )]
    Get {
        /// The DAG's id
        #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
        dag_id: String,
        /// The run's id, or `latest`
        #[arg(add = ArgValueCompleter::new(complete::run_ids))]
        run_id: String,
        /// The task's id
        #[arg(add = ArgValueCompleter::new(complete::task_ids))]
        task_id: String,
        /// The XCom's key
        #[arg(long, default_value = "return_value")]
        key: String,
        /// The instance of a mapped task, counted from 0; `work[7]` as the task's id means the same
        #[arg(long, value_parser = clap::value_parser!(i32).range(-1..), allow_negative_numbers = true)]
        map_index: Option<i32>,
    },
}
