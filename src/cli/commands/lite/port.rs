//! The address that `leoflow lite` listens on: the choice of its port, and binding it.

use crate::context::Context;
use crate::error::Error;
use leoflow_base::config::{self, DEFAULT_PORT, Loaded, running_settings};
use leoflow_base::home::{self, Home, lock};
use leoflow_base::sys::net::{listener, ports};
use leoflow_lifecycle::setup;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

pub struct ListenAddress {
    pub host: Ipv4Addr,
    pub port: u16,
    /// The port for setup to write to config.yaml: the port of `--port`, or a new instance's own.
    pub port_to_write: Option<u16>,
    /// The port of this run only: the port of `--port` or an environment variable, if config.yaml has another one.
    pub temporary_port: Option<u16>,
}

impl ListenAddress {
    /// Loads the configuration and chooses the address; `argument` is the port of `--port`.
    pub fn choose(context: &Context<'_>, argument: Option<u16>) -> Result<(Loaded, Self), Error> {
        let home = &context.home;
        let loaded = context.config()?;
        // A new instance gets its own port, and keeps it.
        let own_port = if loaded.is_none() { Some(setup::own_port(home)) } else { None };
        let (is_first, loaded) = match loaded {
            Some(loaded) => (false, loaded),
            None => (true, config::load_first(&home.config())?),
        };
        // A port from an environment variable counts like one from --port.
        let port_from_variable = running_settings::is_from_variable(&loaded, "port").then_some(loaded.config.port);
        let configured_port = (!is_first || loaded.origins.contains_key("port")).then_some(loaded.config.port);
        let requested_port = argument.or(port_from_variable);
        let port_to_write = argument.or(own_port);
        let written_port = match is_first {
            true => port_to_write,
            false => config::read_file(&home.config())?.map(|loaded| loaded.config.port),
        };
        let address = Self {
            host: loaded.config.host,
            port: requested_port.or(configured_port).or(own_port).unwrap_or(DEFAULT_PORT),
            port_to_write,
            temporary_port: requested_port.filter(|port| Some(*port) != written_port),
        };
        Ok((loaded, address))
    }

    /// Binds the port, with retries for 1 s: a concurrent first start that fails to lock the home may hold the port for
    /// a moment.
    pub fn bind_with_retries(&self, context: &Context<'_>) -> Result<TcpListener, Error> {
        for _ in 0..50 {
            match listener::bind_at(self.host, self.port) {
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && held_by_leoflow(self.port) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                _ => break,
            }
        }
        self.bind(context)
    }

    pub fn bind(&self, context: &Context<'_>) -> Result<TcpListener, Error> {
        listener::bind_at(self.host, self.port).map_err(|error| {
            // This home's own instance may hold the port.
            if let Some(holder) = other_holder(context) {
                return lock::LockError::Held { holder: Some(holder) }.into();
            }
            bind_error(self.host, self.port, &error)
        })
    }
}

/// True when the port is held by a Leoflow, or by a process that cannot be inspected.
fn held_by_leoflow(port: u16) -> bool {
    ports::listening_process(port).is_none_or(|(_, line)| line.contains("leoflow"))
}

/// The error of a failed bind, with the process that holds the port.
pub fn bind_error(host: Ipv4Addr, port: u16, error: &std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::AddrNotAvailable {
        return Error::failed(format!("{host} is not an address of this machine"))
            .hint("leoflow config set host 127.0.0.1");
    }
    let message = match ports::listening_process(port).map(|(pid, line)| (leoflow_on(port, &line), pid, line)) {
        Some((Some((home, pid)), ..)) => {
            format!("port {port} is in use by Leoflow in {}, pid {pid}", home.root().display())
        }
        Some((None, pid, line)) => format!("port {port} is in use by `{}`, pid {pid}", shorten(&line)),
        None => format!("port {port} cannot be used: {error}"),
    };
    // A port below 1024 needs rights that a user does not have.
    let other = port.checked_add(1).filter(|other| *other > 1024).unwrap_or(DEFAULT_PORT);
    Error::failed(message).hint(format!("choose a free port: --port {other}, or leoflow config set port {other}"))
}

/// The home and the supervisor's pid of the Leoflow that listens on `port`: one of this user's instances, or the home in
/// `line`, the command line of the listening process.
fn leoflow_on(port: u16, line: &str) -> Option<(Home, i32)> {
    let named = home_in(line).and_then(|root| home::resolve(Some(&root)).ok());
    let homes = named.into_iter().chain(home::all_instances().into_iter().map(|(_, home)| home));
    homes.into_iter().find_map(|home| {
        let holder = lock::holder(&home)?;
        (holder.address()?.1 == port).then_some((home, holder.process.pid))
    })
}

/// The value of `--home` in the command line of a detached supervisor or of a server. Both listen on the port.
fn home_in(line: &str) -> Option<PathBuf> {
    let (before, after) = line.split_once(" --home ")?;
    let program = before.split(" --port ").next()?;
    match program.ends_with("leoflow-server") {
        true => Some(after.into()),
        false => after.split_once(" lite").filter(|_| program.ends_with("leoflow")).map(|(home, _)| home.into()),
    }
}

/// The running instance of this home, if it is another process.
fn other_holder(context: &Context<'_>) -> Option<lock::Holder> {
    let own_pid = std::process::id() as i32;
    lock::holder(&context.home).filter(|holder| holder.url.is_some() && holder.process.pid != own_pid)
}

/// Shortens a command line to 60 characters.
fn shorten(line: &str) -> String {
    if line.chars().count() <= 60 { line.to_owned() } else { line.chars().take(57).chain("...".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_is_read_from_a_command_line() {
        let line = "/u/.leoflow/bin/leoflow --home /u/my home lite --report-to-stdout";
        assert_eq!(home_in(line), Some("/u/my home".into()));
        assert_eq!(home_in("leoflow-server --port 8088 --home /u/my home"), Some("/u/my home".into()));
        assert_eq!(home_in("/usr/bin/other --home /u/x lite"), None);
        assert_eq!(home_in("leoflow lite"), None);
    }
}
