//! The options that every command takes.

use clap::Args;
use std::path::PathBuf;

/// The heading of the options that every command takes.
const GLOBAL: &str = "Global options";

#[derive(Args, Debug, Clone, Default)]
pub struct Global {
    /// The home: the folder with all of Leoflow's files [default: LEOFLOW_HOME, or ~/.leoflow]
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// The name of the instance, whose home is ~/.leoflow-NAME [default: LEOFLOW_INSTANCE, or the default instance]
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "NAME", conflicts_with = "home")]
    pub instance: Option<String>,
    /// Print the result as JSON
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,
    /// Print times in UTC [default: this machine's time zone]
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub utc: bool,
    /// Print details of each step
    #[arg(long, short, global = true, help_heading = GLOBAL)]
    pub verbose: bool,
}
