//! `leoflow config`: the settings of `config.yaml`, one by one.

use crate::cli::args::{Config, ConfigCommand};
use crate::commands::context::Context;
use crate::config::{self, DatastoreSetting, Loaded, Origin, SECRETS, Setting, SettingError, UpdateError};
use crate::error::Error;
use crate::home::{absolute_workspace, check_workspace};
use crate::postgres::cluster::{self, ClusterState};
use crate::protocol::control;
use crate::python;
use crate::sys::files;
use crate::upgrade::source::Source;
use serde_json::json;
use std::net::Ipv4Addr;
use std::path::Path;

pub fn run(context: &Context<'_>, args: &Config) -> Result<u8, Error> {
    match &args.command {
        ConfigCommand::List { origin } => list(context, *origin),
        ConfigCommand::Get { key } => get(context, key),
        ConfigCommand::Set { key, value } => change(context, key, Some(value)),
        ConfigCommand::Unset { key } => change(context, key, None),
    }
}

fn list(context: &Context<'_>, with_origin: bool) -> Result<u8, Error> {
    let loaded = loaded(context)?;
    let origin = |setting: &Setting| loaded.origins.get(setting.name);
    if context.printer.json {
        let all: Vec<_> = config::SETTINGS
            .iter()
            .map(|setting| {
                let value = setting.value_in(&loaded);
                json!({
                    "key": setting.name, "value": value, "default": default_of(setting), "help": setting.help,
                    "origin": origin(setting).map(ToString::to_string), "variable": config::variable_of(setting),
                    "needs_restart": setting.needs_restart,
                })
            })
            .collect();
        context.printer.json(&json!({"file": context.home.config(), "settings": all}))?;
        return Ok(0);
    }
    let row = |setting: &Setting| {
        let value = setting.value_in(&loaded).unwrap_or_else(|| format!("({})", setting.default));
        let last = match (with_origin, origin(setting)) {
            (true, Some(origin)) => origin.to_string(),
            (true, None) => "default".to_owned(),
            (false, _) => setting.help.to_owned(),
        };
        vec![setting.name.to_owned(), value, last]
    };
    let header = ["key", "value", if with_origin { "origin" } else { "" }];
    context.printer.table(&header, &config::SETTINGS.iter().map(row).collect::<Vec<_>>());
    context
        .printer
        .note(format!("In brackets is what is in force without being said. {}", context.home.config().display()));
    Ok(0)
}

fn get(context: &Context<'_>, key: &str) -> Result<u8, Error> {
    let setting = find(key)?;
    let loaded = loaded(context)?;
    let value = setting.value_in(&loaded);
    if context.printer.json {
        let origin = loaded.origins.get(key).map(ToString::to_string);
        context.printer.json(&json!({"key": key, "value": value, "default": default_of(setting), "origin": origin}))?;
    } else {
        match value {
            Some(value) => context.printer.line(value),
            None if setting.is_value => context.printer.line(setting.default),
            None => context.printer.note(format!("{key} is not set: {}", setting.default)),
        }
    }
    Ok(0)
}

/// Without a password.
fn shown(key: &str, value: &str) -> String {
    match DatastoreSetting::parse(value) {
        Ok(setting) if key.starts_with("datastore") => setting.to_string(),
        _ if key == "upgrade.from" => Source::parse(value).to_string(),
        _ => value.to_owned(),
    }
}

/// `None` takes it out.
fn change(context: &Context<'_>, key: &str, value: Option<&str>) -> Result<u8, Error> {
    let setting = find(key)?;
    if key.starts_with("datastore") && cluster::state(&context.home) != ClusterState::Absent {
        let text = "another datastore in the configuration would not have your data";
        return Err(Error::refused(text).hint("leoflow lite move-datastore --to WHERE moves it there"));
    }
    let value = value.map(|value| looked_at(context, setting, value)).transpose()?;
    let changed = config::rewrite(&context.home, |text| match &value {
        Some(value) => setting.set(text, value),
        None => setting.unset(text),
    });
    changed.map_err(|error| match error {
        UpdateError::Setting(SettingError::Invalid(found, allowed)) => {
            Error::usage(format!("{key}: {found} is not {allowed}")).hint("leoflow config list")
        }
        UpdateError::Setting(SettingError::File(problems)) => {
            let told: Vec<String> = problems.into_iter().map(|problem| problem.message).collect();
            Error::usage(told.join("; ")).hint("leoflow config list").hint("leoflow verify-config")
        }
        other => Error::from(other),
    })?;
    if context.printer.json {
        context.printer.json(&json!({"key": key, "value": value.as_deref().map(|value| shown(key, value))}))?;
    } else {
        match &value {
            Some(value) => context.printer.line(format!("{key} is {} now", shown(key, value))),
            None => context.printer.line(format!("{key} is {} again", setting.default)),
        }
    }
    if key == "port" {
        // What the last start was asked for is over.
        let asked = context.home.asked_port();
        files::remove_any(&asked).map_err(|error| Error::io("remove", &asked, &error))?;
    }
    warn_of_others(context, key)?;
    if setting.needs_restart && control::status_of(&context.home).is_some() {
        context.printer.note("It is in force after:  leoflow lite restart --if-needed");
    }
    Ok(0)
}

/// What goes over config.yaml has the last word.
pub fn warn_of_others(context: &Context<'_>, key: &str) -> Result<(), Error> {
    let (loaded, own) = (loaded(context)?, context.home.config());
    let is_other = |origin: &&Origin| !matches!(origin, Origin::File { path, .. } if *path == own);
    if let Some(origin) = loaded.origins.get(key).filter(is_other) {
        context.printer.warning(format!("{origin} says {key}, too, and goes before config.yaml"));
    }
    Ok(())
}

fn default_of(setting: &Setting) -> Option<&'static str> {
    setting.is_value.then_some(setting.default)
}

/// What the machine says to a value, before it is written.
fn looked_at(context: &Context<'_>, setting: &Setting, value: &str) -> Result<String, Error> {
    match setting.name {
        "python" => {
            let path = std::path::absolute(value).map_err(Error::failed)?;
            python::find(Some(&path))
                .map_err(|reason| Error::usage(reason).hint("leoflow config set python /usr/bin/python3"))?;
            Ok(path.display().to_string())
        }
        "workspace" => {
            let path = absolute_workspace(Path::new(value))?;
            check_workspace(&context.home, &path)?;
            if !path.is_dir() {
                return Err(Error::failed(format!("{} is no folder", path.display()))
                    .hint(format!("mkdir -p {}", path.display())));
            }
            context.printer.note("DAGs that are not in the new folder stay as they were, without their files; what was in the old one stays there.");
            Ok(path.display().to_string())
        }
        "host" => {
            if value.parse().is_ok_and(|host: Ipv4Addr| !host.is_loopback()) {
                context.printer.warning(
                    "whoever reaches this machine over its network reaches the login page, and passwords and data pass \
                     unencrypted. Every check stays: the login, the throttle, and which address the page was asked by. Where \
                     others share the network, leave it and use a tunnel (ssh -L 8088:127.0.0.1:8088).",
                );
            }
            Ok(value.to_owned())
        }
        _ => Ok(value.to_owned()),
    }
}

fn find(key: &str) -> Result<&'static Setting, Error> {
    if let Some((_, way)) = SECRETS.iter().find(|(name, _)| *name == key) {
        return Err(Error::usage(format!("{key} is a secret, and not read or set by hand")).hint(*way));
    }
    Setting::find(key).ok_or_else(|| Error::usage(format!("there is no setting {key:?}")).hint("leoflow config list"))
}

fn loaded(context: &Context<'_>) -> Result<Loaded, Error> {
    let missing = || Error::failed(format!("there is no {}", context.home.config().display())).hint("leoflow setup");
    context.config()?.ok_or_else(missing)
}
