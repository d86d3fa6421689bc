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
    context.printer.show(&json!({"ok": ok, "checks": checks}), |printer| {
        for check in &checks {
            let (colour, verdict) = if check.ok { ("32", "ok    ") } else { ("31;1", "failed") };
            let (verdict, seconds) = (printer.paint(colour, verdict), format!("{:.2} s", check.seconds));
            printer.line(format!("{verdict} {:<12} {seconds:>7}  {}", check.name, check.detail));
        }
        match ok {
            true => Ok(()),
            false => Err(Error::failed("the smoke test failed").hint("leoflow lite status").hint("leoflow doctor")),
        }
    })?;
    Ok(u8::from(!ok))
}
