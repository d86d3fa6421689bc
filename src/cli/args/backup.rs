//! Arguments of the commands that back up, verify, restore and remove the user's data.

use super::all::All;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow lite backup                               into the home's `backups` folder\n  \
                  leoflow lite backup --output /mnt/usb/mine.tar.zst\n  \
                  leoflow lite backup --all                         back up every instance"
)]
pub struct Backup {
    /// The file to write, .tar.zst or .tar.gz [default: leoflow-backup-<UTC>.tar.zst in the
    /// home's `backups` folder, which `leoflow lite backups` lists]
    #[arg(long, short, value_name = "FILE", conflicts_with = "all")]
    pub output: Option<PathBuf>,
    /// Started by the server when a backup is due
    #[arg(long, hide = true, conflicts_with_all = ["output", "all"])]
    pub scheduled: bool,
    #[command(flatten)]
    pub all: All,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow lite backups                              list the backups in the home\n  \
                  leoflow lite backups verify mine.tar.zst          test-restore a backup\n  \
                  leoflow lite backups verify --all --quick         compare hashes only"
)]
pub struct Backups {
    #[command(subcommand)]
    pub command: Option<BackupsCommand>,
}

#[derive(Subcommand, Debug)]
pub enum BackupsCommand {
    /// List the backups in the home and when each was last verified
    #[command(after_help = "Example:\n  leoflow lite backups list --json")]
    List,
    /// Verify a backup: compare every hash, then test-restore it into a temporary database
    #[command(
        after_help = "Examples:\n  leoflow lite backups verify                       verify the newest in the home\n  \
                      leoflow lite backups verify mine.tar.zst --quick"
    )]
    Verify(VerifyBackups),
    /// Remove automatic backups beyond the limits of config.yaml; the newest and the newest verified one stay
    #[command(
        after_help = "Examples:\n  leoflow lite backups prune --dry-run\n  leoflow config set backup.keep 3 && leoflow lite backups prune"
    )]
    Prune {
        /// Print what would be removed and why, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Skip the confirmation prompt
        #[arg(long)]
        yes: bool,
    },
}

/// The keys that decrypt a backup.
#[derive(Args, Debug, Default)]
pub struct Decryption {
    /// The file of a private key that decrypts the backup: an age key or an ssh-ed25519 key; may be repeated
    #[arg(long, value_name = "FILE")]
    pub identity: Vec<PathBuf>,
    /// The file whose first line is the passphrase that decrypts the backup
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct VerifyBackups {
    /// The backup to verify [default: the newest in the home]
    pub file: Option<PathBuf>,
    /// Verify every backup in the home
    #[arg(long, conflicts_with = "file")]
    pub all: bool,
    /// Compare hashes only, without a test restore
    #[arg(long)]
    pub quick: bool,
    /// Started by the server when a verification is due
    #[arg(long, hide = true, conflicts_with_all = ["file", "all", "quick"])]
    pub scheduled: bool,
    #[command(flatten)]
    pub decryption: Decryption,
}

#[derive(Args, Debug, Default)]
#[command(
    group = clap::ArgGroup::new("what").required(true).args(["input", "undo"]),
    after_help = "Examples:\n  leoflow lite restore --input mine.tar.zst              restore on a new machine\n  \
                  leoflow lite restore --input mine.tar.zst --dry-run    check it and print what it would replace\n  \
                  leoflow lite restore --input mine.tar.zst --force      replace the current data, kept for --undo\n  \
                  leoflow lite restore --input mine.tar.zst.age --identity key.txt    restore an encrypted backup\n  \
                  leoflow lite restore --undo"
)]
pub struct Restore {
    /// The backup file to restore
    #[arg(long, short, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Undo the last restore: bring back the data it replaced
    #[arg(long)]
    pub undo: bool,
    /// Replace the existing instance, which is kept for --undo
    #[arg(long)]
    pub force: bool,
    /// Check everything, print what would be done and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Restore the workspace into this folder [default: this machine's workspace]
    #[arg(long, value_name = "DIR", conflicts_with = "undo")]
    pub workspace: Option<PathBuf>,
    #[command(flatten)]
    pub decryption: Decryption,
    /// Skip the confirmation prompt
    #[arg(long)]
    pub yes: bool,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow lite reset-password                       prompt for the new password, twice\n  \
                  leoflow lite reset-password --generate            generate a password and print it\n  \
                  pass show leoflow | leoflow lite reset-password --password-stdin"
)]
pub struct ResetPassword {
    /// Read the new password from the first line of stdin
    #[arg(long, conflicts_with = "generate")]
    pub password_stdin: bool,
    /// Generate a new password and print it
    #[arg(long)]
    pub generate: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  leoflow uninstall --dry-run        print what would be removed, with sizes\n  \
                  leoflow uninstall                  remove the programs, keep your data\n  \
                  leoflow uninstall --purge          remove everything, including the workspace")]
pub struct Uninstall {
    /// Also remove the datastore, configuration, logs, backups and the workspace
    #[arg(long)]
    pub purge: bool,
    /// Print what would be removed and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Skip the confirmation prompt
    #[arg(long)]
    pub yes: bool,
    /// With --purge: keep the workspace
    #[arg(long, requires = "purge")]
    pub keep_workspace: bool,
    /// With --purge: also remove a workspace that existed before Leoflow
    #[arg(long, requires = "purge", conflicts_with = "keep_workspace")]
    pub include_workspace: bool,
    /// With --purge: also remove repositories with uncommitted or unpushed work
    #[arg(long, requires = "purge")]
    pub include_repositories: bool,
}
