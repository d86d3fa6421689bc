//! Checks the settings, secrets and files that a start needs. A command that restarts a running instance checks before
//! it stops the instance, so that a mistake in the settings does not end an instance that works.

use super::port::bind_error;
use crate::context::Context;
use crate::error::Error;
use leoflow_base::config::{self, Config, DatastoreSetting, SecretReference, running_settings};
use leoflow_base::sys::env_vars;
use leoflow_base::sys::net::listener;
use leoflow_base::sys::process::{Environment, environment_of};
use leoflow_lifecycle::operation::{instance, set_up};
use leoflow_lifecycle::setup::Request;
use leoflow_postgres::Credentials;
use leoflow_postgres::external::database_check;
use leoflow_postgres::location::LocationError;
use std::net::Ipv4Addr;

/// The process that starts the new processes; they inherit its environment.
#[derive(Debug, Clone, Copy)]
pub enum Starter {
    ThisCommand,
    /// The running supervisor with this pid, which restarts its children.
    Supervisor(i32),
    /// The service manager, whose environment is not known.
    ServiceManager,
}

impl Starter {
    fn environment(self) -> Option<Environment> {
        match self {
            Self::ThisCommand => {
                let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                };
                Some(env_vars::all().into_iter().filter_map(text).collect())
            }
            Self::Supervisor(pid) => environment_of(pid),
            Self::ServiceManager => None,
        }
    }
}

const NOTHING_STOPPED: &str = "nothing was stopped";

/// Fails if a start would fail for its settings, its secrets or missing files.
pub fn run(context: &Context<'_>, starter: Starter) -> Result<(), Error> {
    check(context, starter).map_err(|error| error.hint(NOTHING_STOPPED))
}

/// Fails if a start cannot listen on the configured host and the port, by default the configured one.
pub fn address(context: &Context<'_>, starter: Starter, requested_port: Option<u16>) -> Result<(), Error> {
    let Some(loaded) = config::load_for_process(&context.home.config(), starter.environment().as_ref())? else {
        return Ok(());
    };
    let (host, port) = (loaded.config.host, requested_port.unwrap_or(loaded.config.port));
    // 0 is any free port: whether the host is an address of this machine is all that can be tried.
    let tried_port = if is_held_by_running_instance(context, host, port) { 0 } else { port };
    listener::bind_at(host, tried_port).map(drop).map_err(|error| bind_error(host, port, &error).hint(NOTHING_STOPPED))
}

/// True when the running instance itself prevents a second bind of this address.
fn is_held_by_running_instance(context: &Context<'_>, host: Ipv4Addr, port: u16) -> bool {
    // A host from an environment variable is not recorded, and may be all addresses.
    let overlaps = |running: Ipv4Addr| running == host || running.is_unspecified() || host.is_unspecified();
    instance::running_address(&context.home).is_some_and(|(_, running_port)| running_port == port)
        && running_settings::recorded_host(&context.home).is_none_or(overlaps)
}

/// Fails if a changed Python cannot be used, or an external datastore does not answer.
pub async fn surroundings(context: &Context<'_>, starter: Starter) -> Result<(), Error> {
    check_surroundings(context, starter).await.map_err(|error| error.hint(NOTHING_STOPPED))
}

async fn check_surroundings(context: &Context<'_>, starter: Starter) -> Result<(), Error> {
    let Some(loaded) = config::load_for_process(&context.home.config(), starter.environment().as_ref())? else {
        return Ok(());
    };
    if let Some(python) = &loaded.config.python
        && running_settings::changed_since(&context.home, &loaded).contains(&"python")
    {
        leoflow_python::find(Some(python))
            .map_err(|error| Error::failed(error).hint("leoflow config set python /usr/bin/python3"))?;
    }
    let setting = &loaded.config.datastore;
    if knows_url(setting, starter)
        && let Some(url) = setting.external().map_err(LocationError::Url)?
    {
        database_check::read_info(&url).await?;
    }
    Ok(())
}

/// True unless the datastore's URL is in a variable of an environment that is not this process's.
fn knows_url(setting: &DatastoreSetting, starter: Starter) -> bool {
    match setting {
        DatastoreSetting::UrlReference(SecretReference::Variable(_)) => matches!(starter, Starter::ThisCommand),
        _ => true,
    }
}

fn check(context: &Context<'_>, starter: Starter) -> Result<(), Error> {
    let home = &context.home;
    config::check_for_process(&home.config(), starter.environment().as_ref())?;
    let config = context.config()?.map(|loaded| loaded.config);
    if let Starter::ThisCommand = starter {
        // A start adds missing parts; the plan refuses if a part is missing that a start must not add.
        set_up::plan(home, context.version, &Request::default())?;
    } else if let (Starter::Supervisor(_), Some(key)) = (&starter, missing_key(config.as_ref())) {
        return Err(Error::failed(format!("config.yaml has no {key}")).hint("leoflow verify-config"));
    }
    if config.is_some_and(|config| knows_url(&config.datastore, starter)) {
        Credentials::require(home)?;
    }
    Ok(())
}

/// The first key that the server requires and that only a start of the whole instance adds.
fn missing_key(config: Option<&Config>) -> Option<&'static str> {
    let Some(config) = config else { return Some("content") };
    let keys = [("encryption_key", &config.encryption_key), ("jwt_secret", &config.jwt_secret)];
    keys.into_iter().find_map(|(name, value)| value.is_none().then_some(name))
}
