//! `leoflow lite reset-password`.

use crate::context::Context;
use crate::error::Error;
use clap::Args;
use leoflow_base::auth::password;
use leoflow_base::config;
use leoflow_base::sys::{checkpoint, random, terminal};
use leoflow_lifecycle::setup;
use serde_json::json;
use std::io::{BufRead, Read};

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow lite reset-password                       prompt for the new password, twice\n  \
                  leoflow lite reset-password --generate            generate a password and print it\n  \
                  pass show leoflow | leoflow lite reset-password --password-stdin"
)]
pub struct ResetPassword {
    /// Read the new password from the first line of stdin
    #[arg(long, conflicts_with = "generate")]
    pub password_stdin: bool,
    /// Generate a new password and print it
    #[arg(long)]
    pub generate: bool,
}

const COMMAND: &str = "leoflow lite reset-password";

pub async fn run(context: &Context<'_>, args: &ResetPassword) -> Result<u8, Error> {
    let home = &context.home;
    let Some(loaded) = context.config()? else {
        return Err(Error::not_set_up());
    };
    let new_password = if args.generate { password::generate() } else { read_password(args)? };
    password::acceptable(&new_password).map_err(|reason| {
        Error::failed(reason).hint("choose another, or generate one: leoflow lite reset-password --generate")
    })?;
    let hash = password::hash(&new_password).map_err(Error::failed)?;
    // Finish an interrupted operation first, because it may replace config.yaml.
    context.operation().finish_first(COMMAND).await?;
    let mut jwt_reference = None;
    config::update(home, |loaded| {
        let epoch = loaded.config.session_epoch.saturating_add(1);
        let mut changes = vec![("admin_password_hash", hash.into()), ("session_epoch", epoch.into())];
        jwt_reference = loaded.secret_references().into_iter().find(|(name, _)| *name == "jwt_secret");
        if jwt_reference.is_none() {
            // Anyone who has read the old key, for example in a backup, could sign tokens of the new epoch.
            changes.push(("jwt_secret", random::hex_256().into()));
        }
        changes
    })?;
    checkpoint("password.written");
    print_password(context, args, &new_password, &loaded.config.admin_email)?;
    if let Some((_, reference)) = jwt_reference {
        context.printer.warning(format!(
            "the key that signs sessions was not changed, because jwt_secret is kept in {reference}; if someone else \
             may have read it, store a new one there: 64 hexadecimal digits"
        ));
    }
    // The user knows the password now, so the next start must not generate another.
    if let Err(error) = setup::mark_password_shown(home) {
        context.printer.warning(format!("the next start may generate another password: {error}"));
    }
    Ok(0)
}

fn print_password(context: &Context<'_>, args: &ResetPassword, new_password: &str, email: &str) -> Result<(), Error> {
    let printer = context.printer;
    let printed_password = args.generate.then_some(new_password);
    let value = json!({"admin_email": email, "admin_password": printed_password, "sessions_ended": true});
    printer.show(&value, |printer| printed_password.iter().for_each(|password| printer.line(password)))?;
    if args.generate && printer.stdout_closed() {
        return Err(Error::failed("the new password could not be printed and is lost").hint(COMMAND));
    }
    printer.part(|printer| {
        printer.note(format!("The password of {email} was changed. All earlier sessions and tokens are invalid."));
    });
    Ok(())
}

/// Reads the new password from stdin, or twice from the terminal.
fn read_password(args: &ResetPassword) -> Result<String, Error> {
    if args.password_stdin {
        let mut line = String::new();
        let limit = password::LONGEST as u64 + 2;
        std::io::stdin().lock().take(limit).read_line(&mut line).map_err(Error::failed)?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    if !terminal::can_ask() {
        return Err(Error::usage("no terminal to prompt for the new password")
            .hint("leoflow lite reset-password --generate")
            .hint("leoflow lite reset-password --password-stdin < FILE"));
    }
    let prompt_secret = |prompt: &str| {
        terminal::read_secret(prompt).map_err(|error| match error.kind() {
            std::io::ErrorKind::Interrupted => Error::signal(2, "interrupted; the password was not changed"),
            _ => Error::failed("no password was entered; the password was not changed").cause(error),
        })
    };
    let first_entry = prompt_secret("New password:")?;
    if first_entry != prompt_secret("Repeat the password:")? {
        return Err(Error::failed("the passwords do not match; the password was not changed").hint("try again"));
    }
    Ok(first_entry)
}
