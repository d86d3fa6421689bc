//! What every command has: the home, the printer, and questions to the user.

use crate::build_info;
use crate::cli::args::Global;
use crate::cli::printer::Printer;
use crate::config::{self, Config, Loaded};
use crate::error::Error;
use crate::home::{self, Home, instances};
use crate::recovery::Recovery;
use crate::sys::{env_vars, terminal};
use std::io::BufRead;
use std::net::Ipv4Addr;
use tracing::Level;

pub struct Context<'a> {
    pub home: Home,
    pub printer: &'a Printer,
    pub version: &'static str,
}

impl<'a> Context<'a> {
    pub fn new(global: &Global, printer: &'a Printer) -> Result<Self, Error> {
        let named = global.instance.as_deref().map(instances::root).transpose()?;
        let home = home::resolve(global.home.as_deref().or(named.as_deref()))?;
        Ok(Self { home, printer, version: build_info::version() })
    }

    /// The configuration, its warnings said.
    pub fn config(&self) -> Result<Option<Loaded>, Error> {
        self.recovery().config()
    }

    /// How much this process says for its log: what is configured, or everything that helps with `--verbose`.
    pub fn log_level(&self) -> Level {
        if self.printer.verbose {
            return Level::DEBUG;
        }
        // What is wrong with the file is told by whoever needs it.
        let configured = config::load(&self.home.config()).ok().flatten();
        configured.map_or(Level::INFO, |loaded| loaded.config.log_level)
    }

    /// What looks after what was left half done, and tells of it here.
    pub fn recovery(&self) -> Recovery<'_> {
        Recovery { home: &self.home, version: self.version, reporter: self.printer }
    }

    /// Of the page, for a browser on this machine.
    pub fn url(&self, config: Option<&Config>, port: u16) -> String {
        format!("http://{}:{port}", config.map_or(Ipv4Addr::LOCALHOST, Config::own_address))
    }

    /// What makes a command one for this home: nothing for the usual one.
    pub fn own_option(&self) -> String {
        match instances::name_of(&self.home).as_deref() {
            Some(instances::DEFAULT) => String::new(),
            Some(name) => format!(" --instance {name}"),
            None => format!(" --home '{}'", self.home.root().display()),
        }
    }

    /// How to get `bin/` on the PATH, when it is not.
    pub fn path_hint(&self) -> Option<String> {
        let bin = self.home.bin();
        let found = env_vars::search_path().contains(&bin);
        (!found && bin.exists()).then(|| format!("export PATH=\"{}:$PATH\"", bin.display()))
    }

    /// Asks on the terminal. Without one and without `--yes` the answer is a refusal.
    pub fn confirm(&self, question: &str, yes: bool) -> Result<bool, Error> {
        let answer = self.ask(&format!("{question} [y/N]"), yes)?;
        Ok(answer.is_none_or(|answer| matches!(answer.as_str(), "y" | "Y" | "yes")))
    }

    /// Asks for a name to be typed: for what cannot be taken back by a slip.
    pub fn confirm_by_name(&self, what: &str, name: &str, yes: bool) -> Result<bool, Error> {
        let answer = self.ask(&format!("{what} Type {name} to go on:"), yes)?;
        Ok(answer.is_none_or(|answer| answer == name))
    }

    /// `None` when nobody has to be asked.
    fn ask(&self, question: &str, yes: bool) -> Result<Option<String>, Error> {
        if yes {
            return Ok(None);
        }
        if !terminal::can_ask() {
            return Err(
                Error::refused("this has to be confirmed, and there is no terminal to ask on").hint("add --yes")
            );
        }
        self.printer.note(question);
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer).map_err(Error::failed)?;
        Ok(Some(answer.trim().to_owned()))
    }
}
