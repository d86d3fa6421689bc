//! `leoflow lite reset-password`.

use super::context::Context;
use crate::auth::password;
use crate::cli::args::ResetPassword;
use crate::config;
use crate::error::Error;
use crate::setup;
use crate::sys::terminal;
use serde_json::json;
use std::io::{BufRead, Read};

pub fn run(context: &Context<'_>, args: &ResetPassword) -> Result<u8, Error> {
    let home = &context.home;
    if context.config()?.is_none() {
        return Err(Error::failed("Leoflow is not set up in this home").hint("leoflow setup"));
    }
    let new = if args.generate { password::generate() } else { asked(args)? };
    password::acceptable(&new).map_err(|why| {
        Error::failed(why).hint("choose another; or let one be made: leoflow lite reset-password --generate")
    })?;
    let hash = password::hash(&new).map_err(Error::failed)?;
    config::update(home, |loaded| {
        let epoch = loaded.config.session_epoch.saturating_add(1);
        vec![("admin_password_hash", hash.into()), ("session_epoch", epoch.into())]
    })?;
    // It is known from here on, whatever setup had not shown.
    setup::mark_password_shown(home)?;
    let printer = context.printer;
    let email = context.config()?.map(|loaded| loaded.config.admin_email).unwrap_or_default();
    if printer.json {
        let shown = args.generate.then_some(&new);
        printer.json(&json!({"admin_email": email, "admin_password": shown, "sessions_ended": true}))?;
        return Ok(0);
    }
    if args.generate {
        printer.line(&new);
    }
    printer.note(format!("The password of {email} is new, from now on; every session and token of before has ended."));
    Ok(0)
}

/// From stdin, or twice from the terminal.
fn asked(args: &ResetPassword) -> Result<String, Error> {
    if args.password_stdin {
        let mut line = String::new();
        let limit = password::LONGEST as u64 + 2;
        std::io::stdin().lock().take(limit).read_line(&mut line).map_err(Error::failed)?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    if !terminal::can_ask() {
        return Err(Error::usage("there is no terminal to ask for the new password on")
            .hint("leoflow lite reset-password --generate")
            .hint("leoflow lite reset-password --password-stdin < FILE"));
    }
    let read = |prompt: &str| {
        terminal::read_secret(prompt).map_err(|error| match error.kind() {
            std::io::ErrorKind::Interrupted => Error::signal(2, "stopped; the password is the old one"),
            _ => Error::failed("no password was typed; it is the old one").cause(error),
        })
    };
    let first = read("New password:")?;
    if first != read("Again:")? {
        return Err(Error::failed("these were two different passwords; the old one stays").hint("try again"));
    }
    Ok(first)
}
