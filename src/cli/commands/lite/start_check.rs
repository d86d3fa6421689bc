//! Checks the settings, secrets and files that a start needs. A command that restarts a running instance checks before
//! it stops the instance, so that a mistake in the settings does not end an instance that works.

use super::run::plan_setup;
use crate::context::Context;
use crate::error::Error;
use leoflow_base::config::{self, Config, DatastoreSetting, SecretReference};
use leoflow_base::sys::env_vars;
use leoflow_base::sys::process::{Environment, environment_of};
use leoflow_lifecycle::setup::Request;
use leoflow_postgres::Credentials;

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

/// Fails if a start would fail for its settings, its secrets or missing files.
pub fn run(context: &Context<'_>, starter: Starter) -> Result<(), Error> {
    check(context, starter).map_err(|error| error.hint("nothing was stopped"))
}

fn check(context: &Context<'_>, starter: Starter) -> Result<(), Error> {
    let home = &context.home;
    config::check_for_process(&home.config(), starter.environment().as_ref())?;
    let config = context.config()?.map(|loaded| loaded.config);
    if let Starter::ThisCommand = starter {
        // A start adds missing parts; the plan refuses if a part is missing that a start must not add.
        plan_setup(context, &Request::default())?;
    } else if let (Starter::Supervisor(_), Some(key)) = (&starter, missing_key(config.as_ref())) {
        return Err(Error::failed(format!("config.yaml has no {key}")).hint("leoflow verify-config"));
    }
    let has_known_url = match config.as_ref().map(|config| &config.datastore) {
        Some(DatastoreSetting::UrlReference(SecretReference::Variable(_))) => matches!(starter, Starter::ThisCommand),
        _ => true,
    };
    if has_known_url && config.is_some() {
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
