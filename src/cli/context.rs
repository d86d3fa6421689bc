//! The context of every command: the home, the printer, and prompts.

use crate::api_client::Api;
use crate::args::Global;
use crate::error::Error;
use crate::terminal::printer::Printer;
use leoflow_base::build_info;
use leoflow_base::config::{self, Config, Loaded};
use leoflow_base::home::{self, Home, instances};
use leoflow_base::sys::terminal;
use leoflow_lifecycle::operation::OperationContext;
use leoflow_lifecycle::setup;
use std::io::BufRead;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use tracing::Level;

pub struct Context<'a> {
    pub home: Home,
    pub printer: &'a Printer,
    pub version: &'static str,
}

/// Whether a command asks before it changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// The user is asked on the terminal.
    Ask,
    /// The user has confirmed already, with `--yes`.
    Given,
}

/// From the value of `--yes`.
impl From<bool> for Confirmation {
    fn from(yes: bool) -> Self {
        if yes { Self::Given } else { Self::Ask }
    }
}

impl<'a> Context<'a> {
    /// Printed after a declined prompt.
    pub(crate) const DECLINED: &'static str = "Nothing was changed.";

    pub fn new(global: &Global, printer: &'a Printer) -> Result<Self, Error> {
        let instance_root = global.instance.as_deref().map(instances::root).transpose()?;
        let home = home::resolve(global.home.as_deref().or(instance_root.as_deref()))?;
        Ok(Self { home, printer, version: build_info::version() })
    }

    /// The context for another home.
    pub(crate) fn at(&self, home: Home) -> Self {
        Self { home, ..*self }
    }

    /// Loads the configuration and prints its warnings.
    pub fn config(&self) -> Result<Option<Loaded>, Error> {
        Ok(self.operation().config()?)
    }

    /// A client of the running server.
    pub(crate) fn api(&self) -> Api<'_> {
        Api::new(&self.home)
    }

    /// The configured workspace, if there is one.
    pub(crate) fn workspace(&self) -> Result<Option<PathBuf>, Error> {
        Ok(self.config()?.and_then(|loaded| loaded.config.workspace))
    }

    /// The log level of this process: the configured one, or DEBUG with `--verbose`.
    pub fn log_level(&self) -> Level {
        if self.printer.verbose {
            return Level::DEBUG;
        }
        // Errors in the file are reported by the code that needs its values.
        let configured = config::load(&self.home.config()).ok().flatten();
        configured.map_or(Level::INFO, |loaded| loaded.config.log_level)
    }

    /// The context of an operation on the home, reporting to this printer.
    pub fn operation(&self) -> OperationContext<'_> {
        OperationContext { home: &self.home, version: self.version, reporter: self.printer }
    }

    /// The URL of the web UI, for a browser on this machine.
    pub fn url(&self, config: Option<&Config>, port: u16) -> String {
        format!("http://{}:{port}", config.map_or(Ipv4Addr::LOCALHOST, Config::own_address))
    }

    /// The shell command that adds `bin/` to the PATH; `None` when the shell finds a `leoflow`, which may be that of
    /// another instance, or when `bin/` does not exist.
    pub(crate) fn path_hint(&self) -> Option<String> {
        let is_found = setup::first_on_path().is_some();
        (!is_found && self.home.bin().exists()).then(|| self.path_command())
    }

    /// The shell command that adds `bin/` to the PATH.
    pub(crate) fn path_command(&self) -> String {
        format!("export PATH=\"{}:$PATH\"", self.home.bin().display())
    }

    /// Asks for confirmation on the terminal. Fails when there is no terminal and no `--yes`.
    pub fn confirm(&self, question: &str, confirmation: Confirmation) -> Result<bool, Error> {
        let answer = self.ask(&format!("{question} [y/N]"), confirmation)?;
        Ok(answer.is_none_or(|answer| matches!(answer.as_str(), "y" | "Y" | "yes")))
    }

    /// Like [`Self::confirm`], for a command that fails when the user declines.
    pub(crate) fn require_confirmation(&self, question: &str, confirmation: Confirmation) -> Result<(), Error> {
        if self.confirm(question, confirmation)? { Ok(()) } else { Err(Error::failed(Self::DECLINED)) }
    }

    /// Asks the user to type a name, so that a slip of the finger confirms nothing. Fails when the user types another.
    pub(crate) fn require_name(&self, question: &str, name: &str, confirmation: Confirmation) -> Result<(), Error> {
        match self.ask(&format!("{question} Type {name} to confirm:"), confirmation)? {
            Some(answer) if answer != name => Err(Error::failed(Self::DECLINED)),
            _ => Ok(()),
        }
    }

    /// Asks a question and returns the answer; `None` when the user has confirmed already.
    fn ask(&self, question: &str, confirmation: Confirmation) -> Result<Option<String>, Error> {
        if confirmation == Confirmation::Given {
            return Ok(None);
        }
        if !terminal::can_ask() {
            return Err(Error::refused("this needs confirmation, and there is no terminal to ask on").hint("add --yes"));
        }
        self.printer.note(question);
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer).map_err(Error::failed)?;
        Ok(Some(answer.trim().to_owned()))
    }
}
