//! `leoflow notify …`.

use crate::api_client::{cell, list_of};
use crate::context::Context;
use crate::error::Error;
use clap::Subcommand;
use serde_json::{Value, json};

#[derive(Subcommand, Debug)]
#[command(after_help = "Examples:\n  leoflow notify test team\n  leoflow notify list")]
pub enum NotifyCommand {
    /// Send a message to a target of `notify` in config.yaml, to test it
    #[command(after_help = "Example:\n  leoflow notify test team")]
    Test {
        /// The target's name
        target: String,
    },
    /// List the newest notifications and their deliveries
    #[command(after_help = "Example:\n  leoflow notify list")]
    List,
}

pub async fn run(context: &Context<'_>, command: &NotifyCommand) -> Result<u8, Error> {
    let api = context.api();
    match command {
        NotifyCommand::Test { target } => {
            let sent: Value = api.post("/api/lite/notify/test", &json!({"target": target})).await?;
            context.printer.show(&sent, |printer| printer.line(format!("Sent a message to {target}")))
        }
        NotifyCommand::List => {
            let found: Value = api.get("/api/lite/notify/deliveries").await?;
            context.printer.show(&found, |printer| {
                if list_of(&found["deliveries"]).next().is_none() {
                    return printer.line("Nothing was notified yet");
                }
                let row = |delivery: &Value| {
                    let about = delivery["dag_id"].as_str().or(delivery["subject"].as_str()).unwrap_or_default();
                    let state = match delivery["error"].as_str() {
                        Some(error) => format!("{}: {error}", cell(&delivery["state"])),
                        None => cell(&delivery["state"]),
                    };
                    let happened_at = printer.time(delivery["happened_at"].as_str());
                    [happened_at, cell(&delivery["event"]), about.to_owned(), cell(&delivery["target"]), state]
                };
                let rows = list_of(&found["deliveries"]).map(row);
                printer.table(&["HAPPENED", "EVENT", "ABOUT", "TARGET", "DELIVERY"], rows);
            })
        }
    }
}
