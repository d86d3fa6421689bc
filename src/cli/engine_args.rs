//! The arguments of the commands about DAGs, runs, tasks and XComs. Words and ids as in Airflow's own.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct Dags {
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
    Show { dag_id: String },
    /// Let no new runs or tasks of a DAG begin
    #[command(after_help = "Example:\n  leoflow dags pause hello")]
    Pause { dag_id: String },
    /// Let a DAG run again
    #[command(after_help = "Example:\n  leoflow dags unpause hello")]
    Unpause { dag_id: String },
    /// Start a run
    #[command(
        after_help = "Examples:\n  leoflow dags trigger hello --wait\n  leoflow dags trigger hello --conf '{\"name\": \"Ada\"}'"
    )]
    Trigger(Trigger),
    /// When the next runs of a DAG are due
    #[command(name = "next-execution", after_help = "Example:\n  leoflow dags next-execution report")]
    NextExecution { dag_id: String },
    /// Run a DAG here and now, in this terminal, without a scheduler; nothing is stored
    #[command(
        after_help = "Examples:\n  leoflow dags test hello\n  leoflow dags test hello --pdb              stop in the debugger where a task fails\n  \
                      leoflow dags test hello --file other/dag.py"
    )]
    Test(Test),
    /// Print the file of a DAG as it was when it was imported
    #[command(after_help = "Examples:\n  leoflow dags source hello\n  leoflow dags source hello --version 1")]
    Source {
        dag_id: String,
        /// An older version [default: the current one]
        #[arg(long)]
        version: Option<u32>,
    },
    /// Remove a DAG's history; a DAG whose file is still there comes back without it
    #[command(after_help = "Example:\n  leoflow dags delete old_dag")]
    Delete {
        dag_id: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Args, Debug)]
pub struct Trigger {
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
    /// Wait for the end, and show each task as it changes; the exit code is 1 when the run fails
    #[arg(long, short)]
    pub wait: bool,
    /// Unpause the DAG first
    #[arg(long)]
    pub unpause: bool,
}

#[derive(Args, Debug)]
pub struct Test {
    pub dag_id: String,
    /// Values for the run's params, as a JSON object
    #[arg(long, short)]
    pub conf: Option<String>,
    /// The file that makes the DAG [default: the one of the workspace that does]
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The date that the run is for
    #[arg(long, short)]
    pub logical_date: Option<String>,
    /// Stop in Python's debugger where a task fails
    #[arg(long)]
    pub pdb: bool,
}

#[derive(Args, Debug)]
pub struct Runs {
    #[command(subcommand)]
    pub command: RunsCommand,
}

#[derive(Subcommand, Debug)]
#[command(after_help = "Examples:\n  leoflow runs list hello\n  leoflow runs show hello latest")]
pub enum RunsCommand {
    /// The runs of a DAG, newest first
    #[command(after_help = "Examples:\n  leoflow runs list hello\n  leoflow runs list hello --state failed")]
    List {
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
        dag_id: String,
        /// The run's id, or `latest`
        run_id: String,
    },
    /// Follow a run to its end; the exit code is 1 when it fails
    #[command(after_help = "Example:\n  leoflow runs watch hello latest")]
    Watch {
        dag_id: String,
        /// The run's id, or `latest`
        run_id: String,
    },
    /// Make a run's tasks run again, with the DAG as it is now
    #[command(
        after_help = "Examples:\n  leoflow runs clear hello latest --only-failed\n  leoflow runs clear hello RUN_ID --yes"
    )]
    Clear {
        dag_id: String,
        /// The run's id, or `latest`
        run_id: String,
        /// Only tasks that failed, or could not run because others did
        #[arg(long, short = 'f')]
        only_failed: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// End a run: what runs is ended, what has not begun is skipped, the run has failed
    #[command(after_help = "Example:\n  leoflow runs cancel hello latest")]
    Cancel {
        dag_id: String,
        /// The run's id, or `latest`
        run_id: String,
    },
}

#[derive(Args, Debug)]
pub struct Tasks {
    #[command(subcommand)]
    pub command: TasksCommand,
}

#[derive(Subcommand, Debug)]
#[command(after_help = "Examples:\n  leoflow tasks list hello\n  leoflow tasks logs hello latest greet -f")]
pub enum TasksCommand {
    /// The tasks of a DAG, each after those it waits for
    #[command(after_help = "Example:\n  leoflow tasks list hello")]
    List { dag_id: String },
    /// What a task wrote
    #[command(
        after_help = "Examples:\n  leoflow tasks logs hello latest greet\n  leoflow tasks logs hello latest greet -f\n  \
                      leoflow tasks logs hello RUN_ID greet --try 1"
    )]
    Logs(TaskLogs),
    /// Make tasks of a run run again, with the DAG as it is now
    #[command(
        after_help = "Examples:\n  leoflow tasks clear hello latest greet --downstream\n  leoflow tasks clear hello RUN_ID --only-failed --yes"
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
    pub dag_id: String,
    pub task_id: String,
    /// Which instance of a mapped task
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub map_index: i32,
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
    pub dag_id: String,
    /// The run's id, or `latest`
    pub run_id: String,
    pub task_id: String,
    /// Go on until the task has ended
    #[arg(long, short)]
    pub follow: bool,
    /// Which try [default: the newest]
    #[arg(long = "try", value_name = "N")]
    pub try_number: Option<u32>,
    /// Which instance of a mapped task
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub map_index: i32,
    /// Without times and streams
    #[arg(long)]
    pub plain: bool,
}

#[derive(Args, Debug)]
pub struct ClearTasks {
    pub dag_id: String,
    /// The run's id, or `latest`
    pub run_id: String,
    /// The tasks [default: all]
    pub task_ids: Vec<String>,
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
    #[arg(long, requires = "task_ids")]
    pub map_index: Option<i32>,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

#[derive(Args, Debug)]
pub struct Xcom {
    #[command(subcommand)]
    pub command: XcomCommand,
}

#[derive(Subcommand, Debug)]
#[command(after_help = "Examples:\n  leoflow xcom list hello latest\n  leoflow xcom get hello latest greet")]
pub enum XcomCommand {
    /// What the tasks of a run have left
    #[command(after_help = "Example:\n  leoflow xcom list hello latest")]
    List {
        dag_id: String,
        /// The run's id, or `latest`
        run_id: String,
        /// Only of this task
        task_id: Option<String>,
    },
    /// Print one value, as JSON
    #[command(
        after_help = "Examples:\n  leoflow xcom get hello latest greet\n  leoflow xcom get hello RUN_ID load --key rows"
    )]
    Get {
        dag_id: String,
        /// The run's id, or `latest`
        run_id: String,
        task_id: String,
        #[arg(long, default_value = "return_value")]
        key: String,
        /// Which instance of a mapped task
        #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
        map_index: i32,
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
#[command(after_help = "Example:\n  leoflow init ~/leoflow/reports")]
pub struct Init {
    /// The project's folder; it is made, and must not hold a dag.py yet
    pub folder: PathBuf,
}
