//! `leoflow lite reset-password`.

use crate::auth::password;
use crate::cli::args::ResetPassword;
use crate::commands::context::Context;
use crate::config;
use crate::error::Error;
use crate::recovery::datastore::not_set_up;
use crate::setup;
use crate::sys::{checkpoint, terminal};
use serde_json::json;
use std::io::{BufRead, Read};

const COMMAND: &str = "leoflow lite reset-password";

pub async fn run(context: &Context<'_>, args: &ResetPassword) -> Result<u8, Error> {
    let home = &context.home;
    let Some(loaded) = context.config()? else {
        return Err(not_set_up());
    };
    let new = if args.generate { password::generate() } else { asked(args)? };
    password::acceptable(&new).map_err(|why| {
        Error::failed(why).hint("choose another; or let one be made: leoflow lite reset-password --generate")
    })?;
    let hash = password::hash(&new).map_err(Error::failed)?;
    // One that was interrupted brings a configuration of its own.
    context.recovery().finish_first(COMMAND).await?;
    config::update(home, |loaded| {
        let epoch = loaded.config.session_epoch.saturating_add(1);
        vec![("admin_password_hash", hash.into()), ("session_epoch", epoch.into())]
    })?;
    checkpoint("password.written");
    tell(context, args, &new, &loaded.config.admin_email)?;
    // It is known from here on, whatever setup had not shown.
    if let Err(error) = setup::mark_password_shown(home) {
        context.printer.warning(format!("the next start may make another password: {error}"));
    }
    Ok(0)
}

fn tell(context: &Context<'_>, args: &ResetPassword, new: &str, email: &str) -> Result<(), Error> {
    let printer = context.printer;
    if printer.json {
        let shown = args.generate.then_some(new);
        printer.json(&json!({"admin_email": email, "admin_password": shown, "sessions_ended": true}))?;
    } else if args.generate {
        printer.line(new);
    }
    if args.generate && printer.reader_left() {
        return Err(Error::failed("the new password could not be shown to anybody, and is lost").hint(COMMAND));
    }
    if !printer.json {
        printer
            .note(format!("The password of {email} is new, from now on; every session and token of before has ended."));
    }
    Ok(())
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
