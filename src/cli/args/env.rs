//! Arguments of the commands on environments.

use super::output::Output;
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
    after_help = "A project declares its dependencies in leoflow.yaml (dependencies, requirements, python_version),\n\
                        pyproject.toml, requirements.txt, or a `# /// script` block of its DAG file.\n\n\
                        Examples:\n  leoflow env list\n  leoflow env show sales\n  leoflow env shell sales -- python -V"
)]
pub enum EnvCommand {
    /// List all environments and the projects that use them
    #[command(after_help = "Example:\n  leoflow env list --json")]
    List,
    /// Show the packages installed for a project
    #[command(after_help = "Example:\n  leoflow env show sales")]
    Show {
        /// The project: the name of a folder in the workspace
        project: String,
    },
    /// Update the locked packages to the newest versions that fit
    #[command(after_help = "Examples:\n  leoflow env update sales\n  leoflow env update")]
    Update {
        /// The project: the name of a folder in the workspace [default: all projects]
        project: Option<String>,
    },
    /// Print a project's lock in pip's format, or write it to the project
    #[command(
        after_help = "Examples:\n  leoflow env lock sales\n  leoflow env lock sales --write    write sales/requirements.lock"
    )]
    Lock {
        /// The project: the name of a folder in the workspace
        project: String,
        /// Write requirements.lock to the project's folder, for pip and other machines
        #[arg(long)]
        write: bool,
    },
    /// Remove environments that no DAG uses
    #[command(after_help = "Examples:\n  leoflow env prune --dry-run\n  leoflow env prune")]
    Prune {
        /// Print what would be removed and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Open a shell with the project's Python, or run one command in it
    #[command(
        after_help = "Examples:\n  leoflow env shell sales\n  leoflow env shell sales -- python -c 'import pandas'"
    )]
    Shell {
        /// The project: the name of a folder in the workspace
        project: String,
        /// The command to run [default: an interactive shell]
        #[arg(last = true)]
        command: Vec<OsString>,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "The packages are installed first, then written to `dependencies` in leoflow.yaml.\n\n\
                        Examples:\n  leoflow add pandas\n  leoflow add 'polars>=1' requests --project ~/leoflow/sales")]
pub struct Add {
    /// Packages in pip's syntax, for example 'polars>=1'
    #[arg(required = true, value_name = "PACKAGE")]
    pub packages: Vec<String>,
    /// The project's folder [default: the current folder]
    #[arg(long, value_name = "DIR")]
    pub project: Option<PathBuf>,
}
