//! `leoflow assets …`.

use super::dags::list_of;
use crate::cli::api::Api;
use crate::cli::args::AssetsCommand;
use crate::commands::context::Context;
use crate::error::Error;
use serde_json::{Value, json};

pub async fn run(context: &Context<'_>, command: &AssetsCommand) -> Result<u8, Error> {
    let api = Api::new(&context.home);
    let printer = context.printer;
    match command {
        AssetsCommand::List => {
            let all = api.all(ASSETS, "", "assets").await?;
            if printer.json {
                printer.json(&json!({"assets": all}))?;
            } else if all.is_empty() {
                printer.note("there are no assets; a task with outlets=[Asset(\"name\")] makes one");
            } else {
                let ids = |asset: &Value, what: &str| {
                    let mut ids: Vec<&str> = list_of(&asset[what]).filter_map(|one| one["dag_id"].as_str()).collect();
                    ids.dedup();
                    ids.join(", ")
                };
                let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
                let row = |asset: &Value| {
                    vec![
                        text(&asset["name"]),
                        text(&asset["uri"]),
                        ids(asset, "producing_tasks"),
                        ids(asset, "scheduled_dags"),
                        context.printer.time(asset["last_asset_event"]["timestamp"].as_str()),
                    ]
                };
                let header = ["NAME", "URI", "MADE BY", "WAITED FOR BY", "LAST UPDATE"];
                printer.table(&header, &all.iter().map(row).collect::<Vec<_>>());
            }
        }
        AssetsCommand::Details { name } => printer.json(&find(&api, name).await?)?,
        AssetsCommand::Events { name } => {
            let of = match name {
                Some(name) => format!("&asset_id={}", find(&api, name).await?["id"]),
                None => String::new(),
            };
            let found: Value = api.get(&format!("/api/v2/assets/events?limit=100{of}")).await?;
            if printer.json {
                printer.json(&found)?;
            } else {
                let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
                let row = |event: &Value| {
                    let by = [&event["source_dag_id"], &event["source_task_id"]].map(text).join(".");
                    vec![
                        context.printer.time(event["timestamp"].as_str()),
                        text(&event["name"]),
                        by,
                        event["extra"].to_string(),
                    ]
                };
                let rows: Vec<_> = list_of(&found["asset_events"]).map(row).collect();
                printer.table(&["TIME", "ASSET", "BY", "EXTRA"], &rows);
            }
        }
        AssetsCommand::Materialize { name } => {
            let asset = find(&api, name).await?;
            let run: Value = api.post(&format!("/api/v2/assets/{}/materialize", asset["id"]), &json!({})).await?;
            if printer.json {
                printer.json(&run)?;
            } else {
                let text = |name: &str| run[name].as_str().unwrap_or_default().to_owned();
                printer.line(format!("{}  {}", text("dag_id"), text("dag_run_id")));
            }
        }
    }
    Ok(0)
}

const ASSETS: &str = "/api/v2/assets";

async fn find(api: &Api<'_>, name: &str) -> Result<Value, Error> {
    let all = api.all(ASSETS, "", "assets").await?;
    let found = all.into_iter().find(|asset| asset["name"] == name || asset["uri"] == name);
    found.ok_or_else(|| Error::failed(format!("there is no asset {name:?}")).hint("leoflow assets list"))
}
