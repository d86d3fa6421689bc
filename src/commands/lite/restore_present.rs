//! What a restore replaces: what is there now, as far as it can be read.

use super::replaced::{self, Summary};
use super::restart::WasRunning;
use super::stop;
use crate::backup::set_aside;
use crate::commands::context::Context;
use crate::error::Error;
use crate::home::Home;
use crate::home::lock::{self, HomeLock};
use crate::postgres::words::{self, Cause};
use crate::protocol::control;
use crate::protocol::status::InstanceState;
use crate::recovery::datastore::Datastore;
use crate::supervisor::last_lines;
use crate::sys::files;
use std::path::PathBuf;

pub const COMMAND: &str = "leoflow lite restore";

/// What is there now.
pub struct Present {
    pub opened: Option<Datastore>,
    /// What is lost by replacing it.
    pub before: Summary,
    /// Why it cannot be read.
    pub unreadable: Option<Error>,
}

impl Present {
    /// With `may_be_damaged`, what cannot be read is written down instead of refused.
    pub async fn read(
        &mut self,
        context: &Context<'_>,
        held: Option<HomeLock>,
        may_be_damaged: bool,
    ) -> Result<(), Error> {
        match read_present(context, held).await {
            Ok((datastore, summary)) => (self.opened, self.before) = (Some(datastore), summary),
            Err(error) if may_be_damaged && (error.is_damage || has_failed_for_damage(context)) => {
                self.unreadable = Some(error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// With what is lost by replacing it.
async fn read_present(context: &Context<'_>, held: Option<HomeLock>) -> Result<(Datastore, Summary), Error> {
    let datastore = open(context, held).await?;
    context.recovery().clean_up(Some(&datastore.access)).await?;
    let summary = replaced::summary(context, &datastore).await?;
    Ok((datastore, summary))
}

/// Whether a running instance has given its datastore up for that.
fn has_failed_for_damage(context: &Context<'_>) -> bool {
    let has_failed = control::status_of(&context.home).is_some_and(|status| status.state == InstanceState::Failed);
    let words = words::last(&last_lines(&context.home, "postgres", LAST_LINES));
    has_failed && words.is_some_and(|words| words.cause == Cause::Damaged)
}

const LAST_LINES: usize = 100;

pub async fn open(context: &Context<'_>, held: Option<HomeLock>) -> Result<Datastore, Error> {
    match held {
        Some(held) => Datastore::open_held(&context.home, held).await,
        None => Datastore::open(&context.recovery(), COMMAND).await,
    }
}

/// The configuration that cannot be read, out of the way. Dropped before the restore is in force, it is there again.
pub struct ConfigAside {
    config: PathBuf,
    place: PathBuf,
    had_one: bool,
    is_kept: bool,
}

impl ConfigAside {
    pub fn begin(home: &Home) -> Result<Self, Error> {
        // A link stays one.
        let config = home.config().canonicalize().unwrap_or_else(|_| home.config());
        let place = set_aside::damaged(home, "config.yaml");
        let failed = |error| Error::io("move", &config, &error);
        let had_one = config.exists();
        if had_one {
            std::fs::copy(&config, &place).map_err(failed)?;
        }
        files::write_atomic(&config, b"", 0o600).map_err(failed)?;
        Ok(Self { config, place, had_one, is_kept: false })
    }

    pub fn keep(mut self) -> PathBuf {
        self.is_kept = true;
        self.place.clone()
    }
}

impl Drop for ConfigAside {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        // Where this fails, the copy stays, and the message about the empty file names the ways on.
        let _ =
            if self.had_one { std::fs::rename(&self.place, &self.config) } else { std::fs::remove_file(&self.config) };
    }
}

/// A datastore that nobody else is connected to: a running instance is stopped first, and returned too.
pub async fn alone_with_it(
    context: &Context<'_>,
    datastore: Datastore,
) -> Result<(Datastore, Option<WasRunning>), Error> {
    if !datastore.runs_for_lite {
        return Ok((datastore, None));
    }
    drop(datastore);
    refuse_beside_a_terminal(context)?;
    let was_running = WasRunning::of(context);
    stop::stop_whole(context)?;
    match Datastore::open(&context.recovery(), COMMAND).await {
        Ok(datastore) if datastore.runs_for_lite => {
            Err(Error::failed("Leoflow was started again meanwhile; nothing was changed")
                .hint("run the same command again"))
        }
        Ok(datastore) => Ok((datastore, Some(was_running))),
        Err(error) => {
            drop(was_running.restart(context));
            Err(error)
        }
    }
}

/// An instance in the foreground belongs to a terminal, which nobody but its user may end.
pub fn refuse_beside_a_terminal(context: &Context<'_>) -> Result<(), Error> {
    match control::status_of(&context.home) {
        Some(status) if !status.detached => {
            Err(Error::refused(format!("Leoflow runs in a terminal (pid {})", status.pid))
                .hint("stop it there with Ctrl-C, or with `leoflow lite stop`; then run the same command again"))
        }
        Some(_) => Ok(()),
        None => match lock::holder(&context.home).filter(|_| lock::is_held(&context.home).unwrap_or(false)) {
            Some(holder) => Err(lock::LockError::Held { holder: Some(holder) }.into()),
            None => Ok(()),
        },
    }
}
