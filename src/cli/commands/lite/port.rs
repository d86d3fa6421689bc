//! The address that `leoflow lite` listens on: the choice of its port, and binding it.

use crate::context::Context;
use crate::error::Error;
use leoflow_base::config::{self, DEFAULT_PORT, Loaded, running_settings};
use leoflow_base::home::{self, Home, lock};
use leoflow_base::sys::net::{listener, ports};
use leoflow_lifecycle::setup;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a client may take to send its first request without counting as a connection of the present server.
const DEFER_SECONDS: u32 = 5;

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
        let written_port = match port_to_write {
            Some(port) if is_first || !home.running_settings().exists() => Some(port),
            _ => config::read_file(&home.config())?.map(|loaded| loaded.config.port),
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
        let deadline = Instant::now() + Duration::from_secs(1);
        while Instant::now() < deadline {
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
        let bound = listener::bind_at(self.host, self.port).map_err(|error| {
            // This home's own instance may hold the port.
            if let Some(holder) = other_holder(context) {
                return lock::LockError::Held { holder: Some(holder) }.into();
            }
            bind_error(self.host, self.port, &error)
        })?;
        // Optional: if it fails, the server also gets silent connections.
        let _ = listener::defer_accept(&bound, DEFER_SECONDS);
        Ok(bound)
    }
}

/// True when the port is held by a Leoflow, or by a process that cannot be inspected.
fn held_by_leoflow(port: u16) -> bool {
    ports::listening_process(port).is_none_or(|(_, arguments)| is_leoflow(&arguments))
}

/// The error of a failed bind, with the process that holds the port.
pub fn bind_error(host: Ipv4Addr, port: u16, error: &std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::AddrNotAvailable {
        return Error::failed(format!("{host} is not an address of this machine"))
            .hint("leoflow config set host 127.0.0.1");
    }
    let message = match ports::listening_process(port) {
        Some((pid, arguments)) => match leoflow_on(port, &arguments) {
            Some((home, pid)) => format!("port {port} is in use by Leoflow in {}, pid {pid}", home.root().display()),
            None => format!("port {port} is in use by `{}`, pid {pid}", shorten(&arguments.join(" "))),
        },
        None => format!("port {port} cannot be used: {error}"),
    };
    // A port below 1024 needs rights that a user does not have.
    let other = port.checked_add(1).filter(|other| *other > 1024).unwrap_or(DEFAULT_PORT);
    Error::failed(message).hint(format!("choose a free port: --port {other}, or leoflow config set port {other}"))
}

/// The home and the supervisor's pid of the Leoflow that listens on `port`: one of this user's instances, or the home in
/// `arguments`, those of the listening process.
fn leoflow_on(port: u16, arguments: &[String]) -> Option<(Home, i32)> {
    let named = home_in(arguments).and_then(|root| home::resolve(Some(&root)).ok());
    let homes = named.into_iter().chain(home::all_instances().into_iter().map(|(_, home)| home));
    homes.into_iter().find_map(|home| {
        let holder = lock::holder(&home)?;
        (holder.address()?.1 == port).then_some((home, holder.process.pid))
    })
}

/// True for the arguments of a supervisor, which is `leoflow`, or of its server, `leoflow-server`. Both listen on the
/// port.
fn is_leoflow(arguments: &[String]) -> bool {
    let name = arguments.first().and_then(|program| Path::new(program).file_name());
    name.is_some_and(|name| name.to_string_lossy().starts_with("leoflow"))
}

/// The absolute value of `--home` in the arguments of a Leoflow.
fn home_in(arguments: &[String]) -> Option<PathBuf> {
    let mut options = arguments.iter().skip_while(|argument| *argument != "--home");
    let home = options.nth(1).map(PathBuf::from)?;
    (is_leoflow(arguments) && home.is_absolute()).then_some(home)
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
    fn the_home_is_read_from_the_arguments_of_a_leoflow() {
        let home_in =
            |arguments: &[&str]| home_in(&arguments.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        let home = Some(PathBuf::from("/u/my lite/home"));
        let supervisor = ["/u/.leoflow/bin/leoflow", "--home", "/u/my lite/home", "lite", "--report-to-stdout"];
        assert_eq!(home_in(&supervisor), home);
        assert_eq!(home_in(&["leoflow-server", "--port", "8088", "--home", "/u/my lite/home", "--verbose"]), home);
        assert_eq!(home_in(&["/usr/bin/other", "--home", "/u/x", "lite"]), None);
        assert_eq!(home_in(&["leoflow", "--home", "relative", "lite"]), None);
        assert_eq!(home_in(&["leoflow", "lite"]), None);
        assert_eq!(home_in(&[]), None);
    }
}
