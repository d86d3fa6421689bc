//! What every other part of the server may use: the datastore, the change feed, the phase of this process.

pub(crate) mod callback_tokens;
pub(crate) mod change_feed;
pub(crate) mod database;
pub(crate) mod phase;

use callback_tokens::CallbackTokens;
use change_feed::Changes;
use database::Database;
use leoflow_base::auth::cipher::Cipher;
use leoflow_base::config::{self, Config};
use leoflow_base::home::Home;
use leoflow_engine::scheduler::totals::Totals;
use phase::Phase;
use std::path::PathBuf;

pub struct Core {
    pub home: Home,
    pub database: Database,
    pub cipher: Cipher,
    pub changes: Changes,
    pub callback_tokens: CallbackTokens,
    pub phase: Phase,
    /// What the scheduler counts.
    pub totals: Totals,
}

impl Core {
    pub fn new(home: Home, database: Database, cipher: Cipher, phase: Phase) -> Self {
        let (changes, callback_tokens) = (Changes::new(), CallbackTokens::default());
        Self { home, database, cipher, changes, callback_tokens, phase, totals: Totals::default() }
    }

    /// Returns the socket at which processes started by this server can reach it now.
    pub fn own_socket(&self) -> PathBuf {
        self.phase.own_socket(&self.home)
    }

    /// Returns the configuration as it is now; `None` if it is missing or invalid.
    pub fn config(&self) -> Option<Config> {
        config::load(&self.home.config()).ok().flatten().map(|loaded| loaded.config)
    }

    /// Returns the name of this instance.
    pub fn instance_name(&self) -> String {
        config::instance_name(self.config().as_ref()).to_owned()
    }
}
