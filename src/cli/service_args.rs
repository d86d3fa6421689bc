//! The arguments of `leoflow service`.

use clap::{Args, Subcommand};

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  leoflow service install          from now on, start Leoflow when you log in\n  \
                        leoflow service install --now    and start it at once\n  leoflow service status           is it installed, does it run\n  \
                        leoflow service uninstall        no longer")]
pub struct Service {
    #[command(subcommand)]
    pub command: ServiceCommand,
}

#[derive(Subcommand, Debug)]
pub enum ServiceCommand {
    /// Have systemd (on macOS launchd) start Leoflow when you log in
    #[command(
        after_help = "Examples:\n  leoflow service install --now\n  leoflow service install --dry-run   print the file and change nothing\n\n\
                      systemd starts your services when you log in, and ends them when you log out. With `loginctl enable-linger` it \
                      starts them when the machine does, and keeps them."
    )]
    Install {
        /// Start it as a service at once; what runs by hand is stopped for it
        #[arg(long)]
        now: bool,
        /// Print the file and what would be done, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Have it start Leoflow no longer; your data stays
    #[command(after_help = "Examples:\n  leoflow service uninstall\n  leoflow service uninstall --now   and stop it")]
    Uninstall {
        /// Stop it as well, if it runs as the service
        #[arg(long)]
        now: bool,
        /// Say what would be removed, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Show the service; the exit code is 0 only when it is installed
    #[command(after_help = "Example:\n  leoflow service status --json")]
    Status,
}
