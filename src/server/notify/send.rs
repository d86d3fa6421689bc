//! Sends a message to a target.

use hmac::{Hmac, KeyInit, Mac};
use leoflow_base::config::{NotifyTarget, Secret};
use leoflow_base::protocol::web;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use serde_json::{Value, json};
use sha2::Sha256;
use std::time::Duration;

/// Time limit of one attempt.
const LIMIT: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("its {0} cannot be read: {1}")]
    Secret(&'static str, String),
    #[error("{}", web::chain(.0))]
    Http(reqwest::Error),
    #[error("the server answered {0}")]
    Status(reqwest::StatusCode),
    #[error("{}", web::chain(.0))]
    Smtp(#[from] lettre::transport::smtp::Error),
    #[error("{0}")]
    Address(#[from] lettre::address::AddressError),
    #[error("{0}")]
    Message(#[from] lettre::error::Error),
    #[error("no answer within {} s", LIMIT.as_secs())]
    TimedOut,
}

impl From<reqwest::Error> for SendError {
    /// The address may contain a secret.
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error.without_url())
    }
}

fn read(name: &'static str, secret: &Secret) -> Result<String, SendError> {
    secret.read().map_err(|error| SendError::Secret(name, error.to_string()))
}

/// Sends `text`; a webhook also gets the fields of `context`. `id` is the same in each attempt.
pub async fn send(target: &NotifyTarget, id: &str, text: &str, context: &Value) -> Result<(), SendError> {
    let sending = async {
        match target {
            NotifyTarget::Webhook { url, secret } => {
                let mut body = context.clone();
                (body["id"], body["text"]) = (id.into(), text.into());
                let secret = secret.as_ref().map(|secret| read("secret", secret)).transpose()?;
                post(url, id, body, secret.as_deref()).await
            }
            NotifyTarget::Slack { url } => post(url, id, json!({"text": text}), None).await,
            NotifyTarget::Teams { url } => post(url, id, card(text), None).await,
            NotifyTarget::Email { to, from, server, password } => {
                let password = password.as_ref().map(|password| read("password", password)).transpose()?;
                mail((to, from), &read("server", server)?, password, (id, text)).await
            }
        }
    };
    tokio::time::timeout(LIMIT, sending).await.unwrap_or(Err(SendError::TimedOut))
}

/// Calls an address; any answer with a status of success will do.
pub async fn call(url: &Secret) -> Result<(), SendError> {
    let request = web::client().timeout(LIMIT).build()?.get(read("URL", url)?);
    succeeded(request.send().await?)
}

fn succeeded(response: reqwest::Response) -> Result<(), SendError> {
    if response.status().is_success() { Ok(()) } else { Err(SendError::Status(response.status())) }
}

async fn post(url: &Secret, id: &str, body: Value, secret: Option<&str>) -> Result<(), SendError> {
    let body = body.to_string();
    // A redirect could lead the message elsewhere.
    let client = web::client().redirect(reqwest::redirect::Policy::none()).build()?;
    let mut request =
        client.post(read("url", url)?).header("Content-Type", "application/json").header("X-Leoflow-Delivery", id);
    if let Some(secret) = secret {
        request = request.header("X-Leoflow-Signature", format!("sha256={}", signature(secret, &body)));
    }
    succeeded(request.body(body).send().await?)
}

/// The HMAC-SHA256 of a body, in hexadecimal.
fn signature(secret: &str, body: &str) -> String {
    // HMAC takes a key of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(body.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// A message for a workflow of Teams that posts to a channel.
/// <https://learn.microsoft.com/en-us/microsoftteams/platform/webhooks-and-connectors/how-to/add-incoming-webhook>
fn card(text: &str) -> Value {
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": {
                "type": "AdaptiveCard", "version": "1.4",
                "body": [{"type": "TextBlock", "text": text, "wrap": true}],
            },
        }],
    })
}

async fn mail(
    (to, from): (&[String], &str),
    server: &str,
    password: Option<String>,
    (id, text): (&str, &str),
) -> Result<(), SendError> {
    let subject = text.lines().next().unwrap_or_default();
    let message_id = format!("<{}@leoflow>", id.replace('/', "."));
    let message = Message::builder().from(from.parse::<Mailbox>()?).subject(subject);
    let mut message = message.message_id(Some(message_id)).header(ContentType::TEXT_PLAIN);
    for address in to {
        message = message.to(address.parse::<Mailbox>()?);
    }
    let message = message.body(text.to_owned())?;
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(server)?.timeout(Some(LIMIT));
    if let Some(password) = password {
        transport = transport.credentials(Credentials::new(user_of(server, from), password));
    }
    transport.build().send(message).await?;
    Ok(())
}

/// The user that a server's address names, otherwise the sender.
fn user_of(server: &str, from: &str) -> String {
    let authority = server.split_once("://").map_or(server, |(_, rest)| rest);
    let user = authority.rsplit_once('@').map(|(user, _)| user.split(':').next().unwrap_or(user));
    let user = user.unwrap_or(from);
    percent_encoding::percent_decode_str(user).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_and_users_are_those_of_the_target() {
        // RFC 4231, test case 2.
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signature("Jefe", "what do ya want for nothing?"), expected);
        assert_eq!(user_of("smtps://ada%40example.org@mail:465", "x@y"), "ada@example.org");
        assert_eq!(user_of("smtp://mail:25", "x@y"), "x@y");
    }
}
