//! The arguments of `leoflow instances`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow instances                       list the instances on this machine\n  leoflow instances create staging        create ~/.leoflow-staging with its own port\n  \
                  leoflow --instance staging lite start   every command takes --instance, or LEOFLOW_INSTANCE\n  leoflow instances clone trial           copy the default instance with all its data"
)]
pub struct Instances {
    #[command(subcommand)]
    pub command: Option<InstancesCommand>,
}

#[derive(Subcommand, Debug)]
pub enum InstancesCommand {
    /// List the instances on this machine and their status
    #[command(after_help = "Example:\n  leoflow instances list --json")]
    List,
    /// Create an instance with its own home, workspace and port
    #[command(
        after_help = "Examples:\n  leoflow instances create staging\n  leoflow instances create staging --port 9000"
    )]
    Create {
        /// The new instance's name: lower-case letters, digits, - and _
        name: String,
        /// Its TCP port [default: the first from 8089 that no other instance uses]
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        port: Option<u16>,
        /// Its workspace, the folder for projects [default: ~/leoflow-NAME]
        #[arg(long, value_name = "DIR")]
        workspace: Option<PathBuf>,
    },
    /// Clone an instance, with its data, workspace and password, under another name
    #[command(
        after_help = "Examples:\n  leoflow instances clone trial                  clone the default instance\n  leoflow instances clone trial --from staging\n\n\
                      The copy is not started. Its DAGs keep their state: once it starts, active DAGs with a schedule run there too."
    )]
    Clone {
        /// The copy's name: lower-case letters, digits, - and _
        name: String,
        /// The instance to copy [default: that of --instance, or the default instance]
        #[arg(long, value_name = "NAME")]
        from: Option<String>,
    },
    /// Remove an instance and all its data
    #[command(after_help = "Example:\n  leoflow instances remove trial")]
    Remove {
        /// The instance's name
        name: String,
        /// Skip the confirmation prompt
        #[arg(long)]
        yes: bool,
    },
}
