//! `leoflow smoke`: tests the running instance, from login to a task.

use crate::context::Context;
use crate::error::Error;
use clap::Args;
use leoflow_base::protocol::control;
use leoflow_lifecycle::upgrade::smoke::{ServerEndpoint, Smoke};
use serde_json::json;

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  leoflow smoke\n  leoflow smoke --json")]
pub struct SmokeArgs {}

pub async fn run(context: &Context<'_>) -> Result<u8, Error> {
    let status = control::status_of(&context.home).ok_or_else(Error::not_running)?;
    let config = context.operation().running_config()?;
    let checks = Smoke::new(&config, ServerEndpoint::Public, status.version).all_checks().await;
    let ok = checks.iter().all(|check| check.ok);
    let printer = context.printer;
    if printer.json {
        printer.json(&json!({"ok": ok, "checks": checks}))?;
        return Ok(u8::from(!ok));
    }
    for check in &checks {
        let (colour, verdict) = if check.ok { ("32", "ok") } else { ("31;1", "failed") };
        let seconds = format!("{:.2} s", check.seconds);
        printer.line(format!(
            "{} {:<12} {:>7}  {}",
            printer.paint(colour, &format!("{verdict:<6}")),
            check.name,
            seconds,
            check.detail
        ));
    }
    if !ok {
        return Err(Error::failed("the smoke test failed").hint("leoflow lite status").hint("leoflow doctor"));
    }
    Ok(0)
}
