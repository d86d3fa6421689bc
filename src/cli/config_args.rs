//! The arguments of `leoflow config`.

use crate::config::SETTINGS;
use clap::{Args, Subcommand};

#[derive(Args, Debug)]
#[command(after_help = config_help())]
pub struct Config {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// Every key, from the table that checks them.
fn config_help() -> String {
    let lines: Vec<String> = SETTINGS
        .iter()
        .map(|setting| format!("  {}\n      {}\n      default: {}", setting.name, setting.help, setting.default))
        .collect();
    format!(
        "Keys:\n{}\n\nconfig-*.yaml beside config.yaml go over it, in the order of their names, and variables over those: \
         LEOFLOW_PORT, LEOFLOW_BACKUP_KEEP.\n\nExamples:\n  leoflow config list\n  leoflow config set port 9000\n  \
         leoflow config set python ~/venv/bin/python",
        lines.join("\n")
    )
}

#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Every setting, with what is in force
    #[command(
        after_help = "Examples:\n  leoflow config list\n  leoflow config list --origin     which file and line, or which variable, says it"
    )]
    List {
        /// Tell where each value comes from
        #[arg(long)]
        origin: bool,
    },
    /// Print one
    #[command(after_help = "Example:\n  leoflow config get workspace")]
    Get { key: String },
    /// Change one; the rest of config.yaml stays as you wrote it
    #[command(after_help = "Examples:\n  leoflow config set port 9000\n  leoflow config set backup.keep 10")]
    Set { key: String, value: String },
    /// Take one out, so that the default is in force again
    #[command(after_help = "Example:\n  leoflow config unset python")]
    Unset { key: String },
}
