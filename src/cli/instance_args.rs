//! The arguments of `leoflow instances`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow instances                        those on this machine\n  leoflow instances create staging        ~/.leoflow-staging, with a port of its own\n  \
                  leoflow --instance staging lite start   every command takes --instance, or LEOFLOW_INSTANCE\n  leoflow instances clone trial           a copy of the usual one, with all its data"
)]
pub struct Instances {
    #[command(subcommand)]
    pub command: Option<InstancesCommand>,
}

#[derive(Subcommand, Debug)]
pub enum InstancesCommand {
    /// The instances on this machine, and whether they run
    #[command(after_help = "Example:\n  leoflow instances list --json")]
    List,
    /// Set another one up: a home, a workspace and a port of its own
    #[command(
        after_help = "Examples:\n  leoflow instances create staging\n  leoflow instances create staging --port 9000"
    )]
    Create {
        /// Lower-case letters, digits, - and _
        name: String,
        /// Its port [default: the first from 8089 on that no other instance has]
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        port: Option<u16>,
        /// Its folder for projects [default: ~/leoflow-NAME]
        #[arg(long, value_name = "DIR")]
        workspace: Option<PathBuf>,
    },
    /// Copy an instance, with its data, workspace and password, under another name
    #[command(
        after_help = "Examples:\n  leoflow instances clone trial                  of the usual one\n  leoflow instances clone trial --from staging\n\n\
                      The copy is not started: its DAGs are as they were, and those with a schedule run there too once it is."
    )]
    Clone {
        /// Of the copy
        name: String,
        /// The instance to copy [default: the one that --instance names, or the usual one]
        #[arg(long, value_name = "NAME")]
        from: Option<String>,
    },
    /// Remove an instance with everything it has
    #[command(after_help = "Example:\n  leoflow instances remove trial")]
    Remove {
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}
