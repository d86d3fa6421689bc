//! `leoflow config`: the settings of `config.yaml`, one by one.

use super::config_file::{load, warn_if_overridden, write_error};
use crate::context::Context;
use crate::error::Error;
use clap::Subcommand;
use leoflow_base::config::{self, DatastoreSetting, SECRETS, SETTINGS, SecretReference, Setting};
use leoflow_base::home::{absolute_workspace, check_workspace};
use leoflow_base::protocol::control;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use leoflow_lifecycle::upgrade::release::source::Source;
use leoflow_postgres::cluster::{self, ClusterState};
use leoflow_python as python;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::path::Path;

/// Lists every key, from the table that validates them.
fn config_help() -> String {
    let lines: Vec<String> = SETTINGS
        .iter()
        .map(|setting| format!("  {}\n      {}\n      default: {}", setting.name, setting.help, setting.default))
        .collect();
    format!(
        "Keys:\n{}\n\nFiles config-*.yaml beside config.yaml override it, in the order of their names; environment variables \
         such as LEOFLOW_PORT or LEOFLOW_BACKUP_KEEP override all files.\n\nExamples:\n  leoflow config list\n  leoflow config set port 9000\n  \
         leoflow config set python ~/venv/bin/python",
        lines.join("\n")
    )
}

#[derive(Subcommand, Debug)]
#[command(after_help = config_help())]
pub enum ConfigCommand {
    /// List every setting with its current value
    #[command(
        after_help = "Examples:\n  leoflow config list\n  leoflow config list --origin     show the file and line, or the variable, of each value"
    )]
    List {
        /// Show where each value comes from
        #[arg(long)]
        origin: bool,
    },
    /// Print one setting
    #[command(after_help = "Example:\n  leoflow config get workspace")]
    Get {
        /// The setting's key, as `leoflow config list` shows it
        key: String,
    },
    /// Change one setting; the rest of config.yaml stays as you wrote it
    #[command(after_help = "Examples:\n  leoflow config set port 9000\n  leoflow config set backup.keep 10")]
    Set {
        /// The setting's key, as `leoflow config list` shows it
        key: String,
        /// The new value
        value: String,
    },
    /// Remove one setting from config.yaml, so that its default applies
    #[command(after_help = "Example:\n  leoflow config unset python")]
    Unset {
        /// The setting's key, as `leoflow config list` shows it
        key: String,
    },
}

pub fn run(context: &Context<'_>, command: &ConfigCommand) -> Result<u8, Error> {
    match command {
        ConfigCommand::List { origin } => list(context, *origin),
        ConfigCommand::Get { key } => get(context, key),
        ConfigCommand::Set { key, value } => change(context, key, Some(value)),
        ConfigCommand::Unset { key } => change(context, key, None),
    }
}

fn list(context: &Context<'_>, with_origin: bool) -> Result<u8, Error> {
    let loaded = load(context)?;
    let origin = |setting: &Setting| loaded.origins.get(setting.name);
    let entry = |setting: &Setting| {
        json!({
            "key": setting.name, "value": setting.value_in(&loaded), "default": default_value(setting),
            "help": setting.help, "origin": origin(setting).map(ToString::to_string),
            "variable": config::variable_of(setting), "needs_restart": setting.needs_restart,
        })
    };
    let entries: Vec<Value> = SETTINGS.iter().map(entry).collect();
    context.printer.show(&json!({"file": context.home.config(), "settings": entries}), |printer| {
        let row = |setting: &Setting| {
            let value = setting.value_in(&loaded).unwrap_or_else(|| format!("({})", setting.default));
            let last_column = match (with_origin, origin(setting)) {
                (true, Some(origin)) => origin.to_string(),
                (true, None) => "default".to_owned(),
                (false, _) => setting.help.to_owned(),
            };
            [setting.name.to_owned(), value, last_column]
        };
        let last = if with_origin { "ORIGIN" } else { "DESCRIPTION" };
        printer.table(&["KEY", "VALUE", last], SETTINGS.iter().map(row));
        printer.note(format!("Values in parentheses are defaults. File: {}", context.home.config().display()));
    })
}

pub(super) fn get(context: &Context<'_>, key: &str) -> Result<u8, Error> {
    let setting = find(key)?;
    let loaded = load(context)?;
    let value = setting.value_in(&loaded);
    let origin = loaded.origins.get(key).map(ToString::to_string);
    let entry = json!({"key": key, "value": value, "default": default_value(setting), "origin": origin});
    context.printer.show(&entry, |printer| match &value {
        Some(value) => printer.line(value),
        None if setting.is_value => printer.line(setting.default),
        None => printer.note(format!("{key} is not set (default: {})", setting.default)),
    })
}

/// Formats a value for display, without passwords.
fn display_value(key: &str, value: &str) -> String {
    match DatastoreSetting::parse(value) {
        Ok(setting) if key.starts_with("datastore") => setting.to_string(),
        _ if key == "upgrade.from" => Source::parse(value).to_string(),
        _ => value.to_owned(),
    }
}

/// Replaces a secret in config.yaml by a reference to a file or environment variable that holds it.
fn refer_secret(context: &Context<'_>, key: &str, reference: &SecretReference) -> Result<u8, Error> {
    config::set_secret_reference(&context.home, key, reference).map_err(|error| write_error(key, error))?;
    context.printer.show(&json!({"key": key, "value": reference.to_string()}), |printer| {
        printer.line(format!("Set {key} to {reference}"));
    })
}

/// Sets a key, or removes it with `None`.
fn change(context: &Context<'_>, key: &str, value: Option<&str>) -> Result<u8, Error> {
    if SECRETS.iter().any(|(name, _)| *name == key)
        && let Some(reference) = value.and_then(SecretReference::parse)
    {
        return refer_secret(context, key, &reference);
    }
    let setting = find(key)?;
    if key.starts_with("datastore") && cluster::state(&context.home) != ClusterState::Absent {
        let text = "a datastore set here would not contain your data";
        return Err(Error::refused(text).hint("move your data with leoflow lite move-datastore --to WHERE"));
    }
    let value = value.map(|value| check_value(context, setting, value)).transpose()?;
    let changed = config::rewrite(&context.home, |text| match &value {
        Some(value) => setting.set(text, value),
        None => setting.unset(text),
    });
    changed.map_err(|error| write_error(key, error))?;
    let displayed = value.as_deref().map(|value| display_value(key, value));
    context.printer.show(&json!({"key": key, "value": displayed}), |printer| match &displayed {
        Some(value) => printer.line(format!("Set {key} to {value}")),
        None => printer.line(format!("Reset {key} to its default: {}", setting.default)),
    })?;
    if key == "port" {
        // The new setting also replaces the port that the last start requested.
        let port_file = context.home.requested_port();
        files::remove_any(&port_file).map_err(Error::cannot("remove", &port_file))?;
    }
    warn_if_overridden(context, key)?;
    if setting.needs_restart && control::status_of(&context.home).is_some() {
        context.printer.note("Takes effect after:  leoflow lite restart --if-needed");
    }
    Ok(0)
}

/// The default of a setting; `None` if the default is described in words.
fn default_value(setting: &Setting) -> Option<&'static str> {
    setting.is_value.then_some(setting.default)
}

/// Checks a value against this machine before it is written. Returns the value to write.
fn check_value(context: &Context<'_>, setting: &Setting, value: &str) -> Result<String, Error> {
    match setting.name {
        "python" => {
            let path = env_vars::absolute(Path::new(value))?;
            python::find(Some(&path))
                .map_err(|reason| Error::usage(reason).hint("leoflow config set python /usr/bin/python3"))?;
            Ok(path.display().to_string())
        }
        "workspace" => {
            let path = absolute_workspace(Path::new(value))?;
            check_workspace(&context.home, &path)?;
            if !path.is_dir() {
                return Err(Error::failed(format!("{} is not a folder", path.display()))
                    .hint(format!("mkdir -p {}", path.display())));
            }
            context.printer.note(
                "DAGs that are not in the new folder remain listed without their files; the old folder is not changed.",
            );
            Ok(path.display().to_string())
        }
        "host" => {
            if value.parse().is_ok_and(|host: Ipv4Addr| !host.is_loopback()) {
                context.printer.warning(
                    "anyone who can reach this machine over its network can reach the login page, and passwords and data \
                     are sent unencrypted. The login, its rate limit and the check of the Host header stay active. On a \
                     shared network, keep the default and use a tunnel instead (ssh -L 8088:127.0.0.1:8088).",
                );
            }
            Ok(value.to_owned())
        }
        _ => Ok(value.to_owned()),
    }
}

/// Finds a setting by its key; an error for secrets and unknown keys.
fn find(key: &str) -> Result<&'static Setting, Error> {
    if let Some((_, alternative)) = SECRETS.iter().find(|(name, _)| *name == key) {
        return Err(Error::usage(format!("{key} is a secret and cannot be read or set here"))
            .hint(*alternative)
            .hint(format!("only its place can be set: leoflow config set {key} file:/PATH (or env:NAME)")));
    }
    if let Some(renamed) = config::DEPRECATED.iter().find(|old| old.name == key) {
        return Err(Error::usage(format!("{key} was renamed")).hint(format!("use {}", renamed.replacement)));
    }
    Setting::find(key).ok_or_else(|| {
        let names: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
        let error = Error::usage(format!("unknown setting {key:?}"));
        match config::leoflow_yaml::nearest(key, &names) {
            Some(name) => error.hint(format!("did you mean {name}?")),
            None => error,
        }
        .hint("leoflow config list")
    })
}
