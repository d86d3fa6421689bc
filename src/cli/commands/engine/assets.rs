//! `leoflow assets …`.

use crate::api_client::{Api, cell, list_of};
use crate::context::Context;
use crate::error::Error;
use clap::Subcommand;
use serde_json::{Value, json};

#[derive(Subcommand, Debug)]
#[command(after_help = "Examples:\n  leoflow assets list\n  leoflow assets materialize orders")]
pub enum AssetsCommand {
    /// List all assets with the DAGs that produce and consume them
    #[command(after_help = "Example:\n  leoflow assets list")]
    List,
    /// Show one asset
    #[command(after_help = "Example:\n  leoflow assets details orders")]
    Details {
        /// The asset's name or URI
        name: String,
    },
    /// List the newest 100 asset events, newest last
    #[command(after_help = "Example:\n  leoflow assets events orders")]
    Events {
        /// Only events of this asset, by name or URI [default: all assets]
        name: Option<String>,
    },
    /// Trigger the DAG that produces an asset
    #[command(after_help = "Example:\n  leoflow assets materialize orders")]
    Materialize {
        /// The asset's name or URI
        name: String,
    },
}

pub async fn run(context: &Context<'_>, command: &AssetsCommand) -> Result<u8, Error> {
    let api = context.api();
    match command {
        AssetsCommand::List => list(context, &api).await,
        AssetsCommand::Details { name } => context.printer.json(&find(&api, name).await?).map(|()| 0),
        AssetsCommand::Events { name } => events(context, &api, name.as_deref()).await,
        AssetsCommand::Materialize { name } => materialize(context, &api, name).await,
    }
}

async fn list(context: &Context<'_>, api: &Api<'_>) -> Result<u8, Error> {
    let assets = api.all(ASSETS, "", "assets").await?;
    context.printer.show(&json!({"assets": assets}), |printer| {
        if assets.is_empty() {
            return printer.note("No assets yet. Create one with outlets=[Asset(\"name\")] on a task.");
        }
        let ids = |references: &Value| {
            let mut ids: Vec<&str> = list_of(references).filter_map(|reference| reference["dag_id"].as_str()).collect();
            ids.dedup();
            ids.join(", ")
        };
        let row = |asset: &Value| {
            [
                cell(&asset["name"]),
                cell(&asset["uri"]),
                ids(&asset["producing_tasks"]),
                ids(&asset["scheduled_dags"]),
                printer.time(asset["last_asset_event"]["timestamp"].as_str()),
            ]
        };
        printer.table(&["NAME", "URI", "PRODUCED BY", "CONSUMED BY", "LAST UPDATE"], assets.iter().map(row));
    })
}

async fn events(context: &Context<'_>, api: &Api<'_>, name: Option<&str>) -> Result<u8, Error> {
    let filter = match name {
        Some(name) => format!("&asset_id={}", find(api, name).await?["id"]),
        None => String::new(),
    };
    // Requests the newest events first because of the limit; the output lists the newest event last.
    let path = format!("/api/v2/assets/events?limit=100&order_by=-timestamp{filter}");
    let mut response: Value = api.get(&path).await?;
    if let Some(events) = response["asset_events"].as_array_mut() {
        events.reverse();
    }
    context.printer.show(&response, |printer| {
        let row = |event: &Value| {
            let source = [&event["source_dag_id"], &event["source_task_id"]].map(cell).join(".");
            [printer.time(event["timestamp"].as_str()), cell(&event["name"]), source, event["extra"].to_string()]
        };
        printer.table(&["TIME", "ASSET", "SOURCE", "EXTRA"], list_of(&response["asset_events"]).map(row));
    })
}

async fn materialize(context: &Context<'_>, api: &Api<'_>, name: &str) -> Result<u8, Error> {
    let asset = find(api, name).await?;
    let run: Value = api.post(&format!("/api/v2/assets/{}/materialize", asset["id"]), &json!({})).await?;
    context.printer.show(&run, |printer| {
        printer.line(format!("{}  {}", cell(&run["dag_id"]), cell(&run["dag_run_id"])));
    })
}

const ASSETS: &str = "/api/v2/assets";

/// Finds an asset by name or URI.
async fn find(api: &Api<'_>, name: &str) -> Result<Value, Error> {
    let assets = api.all(ASSETS, "", "assets").await?;
    let asset_if_any = assets.into_iter().find(|asset| asset["name"] == name || asset["uri"] == name);
    asset_if_any.ok_or_else(|| Error::failed(format!("asset {name:?} does not exist")).hint("leoflow assets list"))
}
