//! The arguments of `leoflow lite restore`, and those that decrypt a backup.

use crate::commands::lite::restart;
use crate::context::Context;
use crate::error::Error;
use clap::Args;
use leoflow_base::protocol::control;
use std::path::PathBuf;

#[derive(Args, Debug, Default)]
#[command(
    group = clap::ArgGroup::new("what").required(true).args(["input", "undo"]),
    after_help = "Examples:\n  leoflow lite restore --input mine.tar.zst              restore on a new machine\n  \
                  leoflow lite restore --input mine.tar.zst --dry-run    check it and print what it would replace\n  \
                  leoflow lite restore --input mine.tar.zst --force      replace the current data, kept for --undo\n  \
                  leoflow lite restore --input mine.tar.zst.age --identity key.txt    restore an encrypted backup\n  \
                  leoflow lite restore --input s3://bucket/leoflow       restore the newest backup that was copied there\n  \
                  leoflow lite restore --undo"
)]
pub struct Restore {
    /// The backup to restore: a file, or a folder, s3:// or sftp:// address that backups were copied to, of which the
    /// newest is taken
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
    /// Leave Leoflow stopped after the restore, to read the restored DAG files before they run
    #[arg(long)]
    pub no_start: bool,
    /// In a home without a config.yaml, also take over backup.recipients, backup.passphrase, backup.identity,
    /// backup.copies and upgrade.from of the backup; only for a backup that you made yourself
    #[arg(long, conflicts_with = "undo")]
    pub take_over_settings: bool,
    /// Skip the confirmation prompt
    #[arg(long)]
    pub yes: bool,
}

/// How Leoflow starts with the restored data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStart {
    /// The restore restarts the instance that it stops.
    ByRestore,
    ByUser,
}

impl Restore {
    pub fn next_start(&self, context: &Context<'_>) -> NextStart {
        match control::status_of(&context.home) {
            Some(_) if !self.no_start => NextStart::ByRestore,
            _ => NextStart::ByUser,
        }
    }

    /// Fails if the running instance, which the restore stops, could not listen at its address again.
    pub fn check_address(&self, context: &Context<'_>) -> Result<(), Error> {
        match self.next_start(context) {
            NextStart::ByRestore => restart::check_address(context),
            NextStart::ByUser => Ok(()),
        }
    }
}

/// The keys that decrypt a backup.
#[derive(Args, Debug, Default)]
pub struct Decryption {
    /// The file of a private key that decrypts the backup: as `age-keygen` writes it; may be repeated
    #[arg(long, value_name = "FILE")]
    pub identity: Vec<PathBuf>,
    /// The file whose first line is the passphrase that decrypts the backup
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

impl Decryption {
    /// True when the user gave a key.
    pub fn is_given(&self) -> bool {
        !self.identity.is_empty() || self.passphrase_file.is_some()
    }
}
