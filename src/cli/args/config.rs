//! The arguments of `leoflow config`.

use clap::{Args, Subcommand};
use leoflow_base::config::SETTINGS;

#[derive(Args, Debug)]
#[command(after_help = config_help())]
pub struct Config {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// Lists every key, from the table that validates them.
fn config_help() -> String {
    let lines: Vec<String> = SETTINGS
        .iter()
        .map(|setting| format!("  {}\n      {}\n      default: {}", setting.name, setting.help, setting.default))
        .collect();
    format!(
        "Keys:\n{}\n\nFiles config-*.yaml beside config.yaml override it, in the order of their names; environment variables \
         such as LEOFLOW_PORT or LEOFLOW_BACKUP_KEEP override all files.\n\nExamples:\n  leoflow config list\n  leoflow config set port 9000\n  \
         leoflow config set python ~/venv/bin/python",
        lines.join("\n")
    )
}

#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// List every setting with its current value
    #[command(
        after_help = "Examples:\n  leoflow config list\n  leoflow config list --origin     show the file and line, or the variable, of each value"
    )]
    List {
        /// Show where each value comes from
        #[arg(long)]
        origin: bool,
    },
    /// Print one setting
    #[command(after_help = "Example:\n  leoflow config get workspace")]
    Get {
        /// The setting's key, as `leoflow config list` shows it
        key: String,
    },
    /// Change one setting; the rest of config.yaml stays as you wrote it
    #[command(after_help = "Examples:\n  leoflow config set port 9000\n  leoflow config set backup.keep 10")]
    Set {
        /// The setting's key, as `leoflow config list` shows it
        key: String,
        /// The new value
        value: String,
    },
    /// Remove one setting from config.yaml, so that its default applies
    #[command(after_help = "Example:\n  leoflow config unset python")]
    Unset {
        /// The setting's key, as `leoflow config list` shows it
        key: String,
    },
}
