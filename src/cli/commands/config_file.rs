//! Functions of the commands that read or change `config.yaml`.

use crate::context::Context;
use crate::error::Error;
use leoflow_base::config::{Loaded, Origin, SettingError, UpdateError};

/// Loads the configuration; an error if there is none.
pub fn load(context: &Context<'_>) -> Result<Loaded, Error> {
    let missing = || Error::failed(format!("{} does not exist", context.home.config().display())).hint("leoflow setup");
    context.config()?.ok_or_else(missing)
}

/// The error of a key that could not be written.
pub fn write_error(key: &str, error: UpdateError) -> Error {
    match error {
        UpdateError::Setting(SettingError::Invalid(invalid, allowed)) => {
            Error::usage(format!("{key}: {invalid} is not {allowed}")).hint("leoflow config list")
        }
        UpdateError::Setting(SettingError::File(problems)) => {
            let messages: Vec<String> = problems.into_iter().map(|problem| problem.message).collect();
            Error::usage(messages.join("; ")).hint("leoflow config list").hint("leoflow verify-config")
        }
        other => Error::from(other),
    }
}

/// Warns when another file or a variable overrides the key in config.yaml.
pub fn warn_if_overridden(context: &Context<'_>, key: &str) -> Result<(), Error> {
    let (loaded, own_file) = (load(context)?, context.home.config());
    let is_override = |origin: &&Origin| !matches!(origin, Origin::File { path, .. } if *path == own_file);
    if let Some(origin) = loaded.origins.get(key).filter(is_override) {
        context.printer.warning(format!("{origin} also sets {key} and overrides config.yaml"));
    }
    Ok(())
}
