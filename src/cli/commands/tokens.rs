//! `leoflow tokens …`.

use crate::context::Context;
use crate::error::Error;
use clap::Subcommand;
use leoflow_base::auth::api_token::{self, ApiToken, ApiTokenError, MAX_LIFETIME, Scope};
use leoflow_base::config::{self, UpdateError};
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Subcommand, Debug)]
#[command(
    after_help = "Examples:\n  leoflow tokens create agent --read-only   print a token for a program that only reads\n  \
                  leoflow tokens revoke agent"
)]
pub enum TokensCommand {
    /// List the API tokens that are valid
    #[command(after_help = "Example:\n  leoflow tokens list")]
    List,
    /// Create an API token and print it; it is not shown again
    #[command(after_help = "Examples:\n  leoflow tokens create agent --read-only --expires 7d\n  \
                      TOKEN=$(leoflow tokens create ci)\n  \
                      curl -H \"Authorization: Bearer $TOKEN\" http://localhost:8088/api/v2/dags\n\n\
                      `leoflow lite reset-password` and a restore end all tokens.")]
    Create {
        /// A name for the list and the audit log
        name: String,
        /// Refuse requests that change something
        #[arg(long)]
        read_only: bool,
        /// How long the token is valid, such as 12h or 90d; at most 366d
        #[arg(long, value_name = "TIME", default_value = "30d", value_parser = lifetime)]
        expires: Duration,
    },
    /// End an API token at once
    #[command(after_help = "Example:\n  leoflow tokens revoke agent")]
    Revoke {
        /// The token's name
        name: String,
    },
}

fn lifetime(text: &str) -> Result<Duration, &'static str> {
    let lifetime = config::duration(text).filter(|lifetime| !lifetime.is_zero() && *lifetime <= MAX_LIFETIME);
    lifetime.ok_or("expected a time of at most 366d, such as 12h or 90d")
}

pub fn run(context: &Context<'_>, command: &TokensCommand) -> Result<u8, Error> {
    match command {
        TokensCommand::List => list(context),
        TokensCommand::Create { name, read_only, expires } => {
            let scope = if *read_only { Scope::ReadOnly } else { Scope::Full };
            let (token, text) = api_token::create(&context.home, name, scope, *expires).map_err(failed)?;
            let mut value = view(&token);
            value["token"] = text.as_str().into();
            context.printer.show(&value, |printer| printer.line(&text))?;
            if context.printer.stdout_closed() {
                // The token was not shown.
                api_token::revoke(&context.home, name).map_err(failed)?;
                return Err(Error::failed("the token could not be printed and was revoked").hint("create it again"));
            }
            context.printer.part(|printer| {
                let until = printer.time(Some(&token.expires_at.to_string()));
                printer.note(format!("This token, {name}, is not shown again. It is valid until {until}."));
            });
            Ok(0)
        }
        TokensCommand::Revoke { name } => {
            api_token::revoke(&context.home, name).map_err(failed)?;
            context.printer.note(format!("Revoked token {name}"));
            Ok(0)
        }
    }
}

fn list(context: &Context<'_>) -> Result<u8, Error> {
    let rows: Vec<Value> = api_token::list(&context.home).map_err(failed)?.iter().map(view).collect();
    context.printer.show(&json!({"tokens": rows}), |printer| {
        let row = |row: &Value| {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            [
                text("name"),
                text("scope"),
                printer.time(row["created_at"].as_str()),
                printer.time(row["expires_at"].as_str()),
            ]
        };
        printer.table(&["TOKEN", "SCOPE", "CREATED", "EXPIRES"], rows.iter().map(row));
    })
}

fn view(token: &ApiToken) -> Value {
    json!({
        "name": token.name, "scope": token.scope, "created_at": token.created_at, "expires_at": token.expires_at,
    })
}

fn failed(error: ApiTokenError) -> Error {
    let hint = match &error {
        ApiTokenError::Exists(name) => Some(format!("leoflow tokens revoke {name}")),
        ApiTokenError::Unknown(_) | ApiTokenError::TooMany => Some("leoflow tokens list".to_owned()),
        ApiTokenError::Read { path, .. } => Some(format!("remove {}, which ends all tokens", path.display())),
        ApiTokenError::Update(UpdateError::Missing(_)) => Some("leoflow setup".to_owned()),
        _ => None,
    };
    let error = Error::failed(error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
