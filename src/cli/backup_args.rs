//! Arguments of the commands that copy, prove, bring back and remove what the user has.

use super::all_args::All;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow lite backup                               into the home, with the others\n  \
                  leoflow lite backup --output /mnt/usb/mine.tar.zst\n  \
                  leoflow lite backup --all                         of every instance of yours"
)]
pub struct Backup {
    /// The file to write, .tar.zst or .tar.gz [default: leoflow-backup-<UTC>.tar.zst in the
    /// home's `backups` folder, where `leoflow lite backups` lists it]
    #[arg(long, short, value_name = "FILE", conflicts_with = "all")]
    pub output: Option<PathBuf>,
    /// Begun by the server, because one is due
    #[arg(long, hide = true, conflicts_with_all = ["output", "all"])]
    pub scheduled: bool,
    #[command(flatten)]
    pub all: All,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  leoflow lite backups                              those in the home\n  \
                  leoflow lite backups verify mine.tar.zst          restore it on trial\n  \
                  leoflow lite backups verify --all --quick         only compare hashes")]
pub struct Backups {
    #[command(subcommand)]
    pub command: Option<BackupsCommand>,
}

#[derive(Subcommand, Debug)]
pub enum BackupsCommand {
    /// The backups in the home, and when each was last verified
    #[command(after_help = "Example:\n  leoflow lite backups list --json")]
    List,
    /// Compare every hash, then restore on trial into a database that is dropped again
    #[command(after_help = "Examples:\n  leoflow lite backups verify                       the newest in the home\n  \
                      leoflow lite backups verify mine.tar.zst --quick")]
    Verify(VerifyBackups),
    /// Remove automatic backups that are over the limits of config.yaml; the newest and the newest that was proven stay
    #[command(
        after_help = "Examples:\n  leoflow lite backups prune --dry-run\n  leoflow config set backup.keep 3      then: leoflow lite backups prune"
    )]
    Prune {
        /// Say what would go, and why; change nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// By what an encrypted backup opens.
#[derive(Args, Debug, Default)]
pub struct Decryption {
    /// The file of a private key that opens an encrypted backup: age's, or of ssh-ed25519
    #[arg(long, value_name = "FILE")]
    pub identity: Vec<PathBuf>,
    /// The file whose first line is the passphrase of an encrypted backup
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct VerifyBackups {
    /// The backup to verify [default: the newest in the home]
    pub file: Option<PathBuf>,
    /// All that are in the home
    #[arg(long, conflicts_with = "file")]
    pub all: bool,
    /// Only compare hashes, restore nothing
    #[arg(long)]
    pub quick: bool,
    /// Begun by the server, because it is due
    #[arg(long, hide = true, conflicts_with_all = ["file", "all", "quick"])]
    pub scheduled: bool,
    #[command(flatten)]
    pub decryption: Decryption,
}

#[derive(Args, Debug, Default)]
#[command(
    group = clap::ArgGroup::new("what").required(true).args(["input", "undo"]),
    after_help = "Examples:\n  leoflow lite restore --input mine.tar.zst              on a new machine\n  \
                  leoflow lite restore --input mine.tar.zst --dry-run    only check it, and say what it would replace\n  \
                  leoflow lite restore --input mine.tar.zst --force      replace what is here; it is kept for --undo\n  \
                  leoflow lite restore --input mine.tar.zst.age --identity key.txt    an encrypted one\n  \
                  leoflow lite restore --undo"
)]
pub struct Restore {
    /// The backup to restore
    #[arg(long, short, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Bring back what the last restore replaced
    #[arg(long)]
    pub undo: bool,
    /// Replace the instance that is here; it is kept for --undo
    #[arg(long)]
    pub force: bool,
    /// Check everything and print what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Restore the workspace into this folder [default: the workspace of this machine]
    #[arg(long, value_name = "DIR", conflicts_with = "undo")]
    pub workspace: Option<PathBuf>,
    #[command(flatten)]
    pub decryption: Decryption,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow lite reset-password                       asks for the new one, twice\n  \
                  leoflow lite reset-password --generate            makes one and prints it\n  \
                  pass show leoflow | leoflow lite reset-password --password-stdin"
)]
pub struct ResetPassword {
    /// Read the new password from stdin, its first line
    #[arg(long, conflicts_with = "generate")]
    pub password_stdin: bool,
    /// Make a new password and print it
    #[arg(long)]
    pub generate: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  leoflow uninstall --dry-run        what would go, and how large it is\n  \
                  leoflow uninstall                  remove the programs, keep your data\n  \
                  leoflow uninstall --purge          remove everything, the workspace too")]
pub struct Uninstall {
    /// Remove everything: datastore, configuration, logs, backups and the workspace
    #[arg(long)]
    pub purge: bool,
    /// Print what would be removed and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Purge all but the workspace
    #[arg(long, requires = "purge")]
    pub keep_workspace: bool,
    /// Purge also a workspace that was there before Leoflow
    #[arg(long, requires = "purge", conflicts_with = "keep_workspace")]
    pub include_workspace: bool,
    /// Purge also repositories with work that is not committed or not pushed
    #[arg(long, requires = "purge")]
    pub include_repositories: bool,
}
