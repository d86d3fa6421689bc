//! Arguments of the commands on environments.

use super::output_args::Output;
use clap::{Args, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct Env {
    #[command(flatten)]
    pub output: Output,
    #[command(subcommand)]
    pub command: EnvCommand,
}

#[derive(Subcommand, Debug)]
#[command(
    after_help = "A project says what it depends on in leoflow.yaml (dependencies, requirements, python_version),\n\
                        pyproject.toml, requirements.txt, or in a `# /// script` block of its DAG file.\n\n\
                        Examples:\n  leoflow env list\n  leoflow env show sales\n  leoflow env shell sales -- python -V"
)]
pub enum EnvCommand {
    /// All environments, with the projects that use them
    #[command(after_help = "Example:\n  leoflow env list --json")]
    List,
    /// What is installed for a project
    #[command(after_help = "Example:\n  leoflow env show sales")]
    Show {
        /// A folder of the workspace
        project: String,
    },
    /// Work out anew what is installed, with the newest versions that fit
    #[command(after_help = "Examples:\n  leoflow env update sales\n  leoflow env update")]
    Update {
        /// A folder of the workspace; all projects when none is named
        project: Option<String>,
    },
    /// Print the lock of a project, as pip reads it, or write it beside its DAG
    #[command(
        after_help = "Examples:\n  leoflow env lock sales\n  leoflow env lock sales --write    # sales/requirements.lock"
    )]
    Lock {
        /// A folder of the workspace
        project: String,
        /// Write it to requirements.lock in the project's folder, for pip and other machines
        #[arg(long)]
        write: bool,
    },
    /// Remove environments that no DAG uses any more
    #[command(after_help = "Examples:\n  leoflow env prune --dry-run\n  leoflow env prune")]
    Prune {
        /// Print what would be removed
        #[arg(long)]
        dry_run: bool,
    },
    /// A shell with the project's Python, or one command in it
    #[command(
        after_help = "Examples:\n  leoflow env shell sales\n  leoflow env shell sales -- python -c 'import pandas'"
    )]
    Shell {
        /// A folder of the workspace
        project: String,
        /// What to run in the place of a shell
        #[arg(last = true)]
        command: Vec<OsString>,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "It is installed first, and then written to `dependencies` of leoflow.yaml.\n\n\
                        Examples:\n  leoflow add pandas\n  leoflow add 'polars>=1' requests --project ~/leoflow/sales")]
pub struct Add {
    /// As pip writes them
    #[arg(required = true, value_name = "PACKAGE")]
    pub packages: Vec<String>,
    /// The project's folder; this one when none is named
    #[arg(long, value_name = "DIR")]
    pub project: Option<PathBuf>,
}
