//! The arguments of `leoflow service`.

use clap::{Args, Subcommand};

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  leoflow service install          start Leoflow whenever you log in\n  \
                        leoflow service install --now    also start it now\n  leoflow service status           show whether it is installed and running\n  \
                        leoflow service uninstall        remove the service")]
pub struct Service {
    #[command(subcommand)]
    pub command: ServiceCommand,
}

#[derive(Subcommand, Debug)]
pub enum ServiceCommand {
    /// Install a systemd (on macOS launchd) service that starts Leoflow when you log in
    #[command(
        after_help = "Examples:\n  leoflow service install --now\n  leoflow service install --dry-run   print the file and change nothing\n\n\
                      systemd starts your services when you log in and stops them when you log out. With `loginctl enable-linger` it \
                      starts them at boot and keeps them running."
    )]
    Install {
        /// Start the service now; stops a Leoflow that was started by hand
        #[arg(long)]
        now: bool,
        /// Print the service file and what would be done, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Uninstall the service; your data stays
    #[command(after_help = "Examples:\n  leoflow service uninstall\n  leoflow service uninstall --now   also stop it")]
    Uninstall {
        /// Also stop Leoflow if it runs as the service
        #[arg(long)]
        now: bool,
        /// Print what would be removed and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Show the service; exits 0 only when it is installed
    #[command(after_help = "Example:\n  leoflow service status --json")]
    Status,
}
