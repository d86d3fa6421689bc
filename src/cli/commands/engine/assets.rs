//! `leoflow assets …`.

use crate::api_client::{Api, list_of};
use crate::args::output::Output;
use crate::context::Context;
use crate::error::Error;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

#[derive(Args, Debug)]
pub struct Assets {
    #[command(flatten)]
    pub output: Output,
    #[command(subcommand)]
    pub command: AssetsCommand,
}

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
    let api = Api::new(&context.home);
    match command {
        AssetsCommand::List => list(context, &api).await?,
        AssetsCommand::Details { name } => context.printer.json(&find(&api, name).await?)?,
        AssetsCommand::Events { name } => events(context, &api, name.as_deref()).await?,
        AssetsCommand::Materialize { name } => materialize(context, &api, name).await?,
    }
    Ok(0)
}

async fn list(context: &Context<'_>, api: &Api<'_>) -> Result<(), Error> {
    let printer = context.printer;
    let assets = api.all(ASSETS, "", "assets").await?;
    if printer.json {
        return printer.json(&json!({"assets": assets}));
    }
    if assets.is_empty() {
        printer.note("No assets yet. Create one with outlets=[Asset(\"name\")] on a task.");
        return Ok(());
    }
    let ids = |asset: &Value, field: &str| {
        let mut ids: Vec<&str> = list_of(&asset[field]).filter_map(|reference| reference["dag_id"].as_str()).collect();
        ids.dedup();
        ids.join(", ")
    };
    let row = |asset: &Value| {
        vec![
            text(&asset["name"]),
            text(&asset["uri"]),
            ids(asset, "producing_tasks"),
            ids(asset, "scheduled_dags"),
            printer.time(asset["last_asset_event"]["timestamp"].as_str()),
        ]
    };
    let header = ["NAME", "URI", "PRODUCED BY", "CONSUMED BY", "LAST UPDATE"];
    printer.table(&header, &assets.iter().map(row).collect::<Vec<_>>());
    Ok(())
}

async fn events(context: &Context<'_>, api: &Api<'_>, name: Option<&str>) -> Result<(), Error> {
    let printer = context.printer;
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
    if printer.json {
        return printer.json(&response);
    }
    let row = |event: &Value| {
        let source = [&event["source_dag_id"], &event["source_task_id"]].map(text).join(".");
        vec![printer.time(event["timestamp"].as_str()), text(&event["name"]), source, event["extra"].to_string()]
    };
    let rows: Vec<_> = list_of(&response["asset_events"]).map(row).collect();
    printer.table(&["TIME", "ASSET", "SOURCE", "EXTRA"], &rows);
    Ok(())
}

async fn materialize(context: &Context<'_>, api: &Api<'_>, name: &str) -> Result<(), Error> {
    let asset = find(api, name).await?;
    let run: Value = api.post(&format!("/api/v2/assets/{}/materialize", asset["id"]), &json!({})).await?;
    if context.printer.json {
        return context.printer.json(&run);
    }
    context.printer.line(format!("{}  {}", text(&run["dag_id"]), text(&run["dag_run_id"])));
    Ok(())
}

/// A table cell; a missing value is a dash.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

const ASSETS: &str = "/api/v2/assets";

/// Finds an asset by name or URI.
async fn find(api: &Api<'_>, name: &str) -> Result<Value, Error> {
    let assets = api.all(ASSETS, "", "assets").await?;
    let asset_if_any = assets.into_iter().find(|asset| asset["name"] == name || asset["uri"] == name);
    asset_if_any.ok_or_else(|| Error::failed(format!("asset {name:?} does not exist")).hint("leoflow assets list"))
}
