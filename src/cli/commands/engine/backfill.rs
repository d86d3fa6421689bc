//! `leoflow backfill …`.

use super::run_inputs::{read_conf, read_date};
use crate::api_client::{Api, encode, list_of};
use crate::args::BackfillCommand;
use crate::args::asset::CreateBackfill;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::{Printer, counted};
use serde_json::{Value, json};

pub async fn run(context: &Context<'_>, command: &BackfillCommand) -> Result<u8, Error> {
    let api = Api::new(&context.home);
    match command {
        BackfillCommand::Create(args) => create(context, &api, args).await,
        BackfillCommand::List { dag_id } => {
            let filter = dag_id.as_ref().map(|id| format!("&dag_id={}", encode(id))).unwrap_or_default();
            let response: Value = api.get(&format!("/api/v2/backfills?limit=100{filter}")).await?;
            if context.printer.json {
                context.printer.json(&response)?;
            } else if list_of(&response["backfills"]).next().is_none() {
                context.printer.note("No backfills yet. Create one with `leoflow backfill create`.");
            } else {
                let rows: Vec<_> = list_of(&response["backfills"]).map(|entry| row(context.printer, entry)).collect();
                context.printer.table(&["ID", "DAG", "FROM", "TO", "STATE"], &rows);
            }
            Ok(0)
        }
        BackfillCommand::Pause { id } => change(context, &api, *id, "pause").await,
        BackfillCommand::Unpause { id } => change(context, &api, *id, "unpause").await,
        BackfillCommand::Cancel { id } => change(context, &api, *id, "cancel").await,
    }
}

fn row(printer: &Printer, backfill: &Value) -> Vec<String> {
    let text = |name: &str| backfill[name].as_str().unwrap_or("-").to_owned();
    let time = |name: &str| printer.time(backfill[name].as_str());
    let state = match (backfill["completed_at"].is_string(), backfill["is_paused"] == true) {
        (true, _) => "completed",
        (false, true) => "paused",
        (false, false) => "running",
    };
    vec![backfill["id"].to_string(), text("dag_id"), time("from_date"), time("to_date"), state.to_owned()]
}

/// Pauses, unpauses or cancels a backfill.
async fn change(context: &Context<'_>, api: &Api<'_>, id: i64, action: &str) -> Result<u8, Error> {
    let changed: Value = api.put(&format!("/api/v2/backfills/{id}/{action}"), &json!({})).await?;
    if context.printer.json {
        context.printer.json(&changed)?;
    } else {
        context.printer.line(row(context.printer, &changed).join("  "));
    }
    Ok(0)
}

async fn create(context: &Context<'_>, api: &Api<'_>, args: &CreateBackfill) -> Result<u8, Error> {
    let body = json!({
        "dag_id": args.dag_id(),
        "from_date": read_date("--from-date", &args.from_date)?.to_string(),
        "to_date": read_date("--to-date", &args.to_date)?.to_string(),
        "dag_run_conf": read_conf(args.dag_run_conf.as_deref())?,
        "run_backwards": args.run_backwards,
        "reprocess_behavior": args.reprocess_behavior,
        "max_active_runs": args.max_active_runs,
    });
    if args.dry_run {
        let response: Value = api.post("/api/v2/backfills/dry_run", &body).await?;
        if context.printer.json {
            context.printer.json(&response)?;
        } else {
            for entry in list_of(&response["backfills"]) {
                context.printer.line(context.printer.time(entry["logical_date"].as_str()));
            }
            context.printer.note(format!("Would create {}", counted(&response["total_entries"], "run")));
        }
        return Ok(0);
    }
    let created: Value = api.post("/api/v2/backfills", &body).await?;
    if context.printer.json {
        context.printer.json(&created)?;
    } else {
        context.printer.line(row(context.printer, &created).join("  "));
        let outcome: Value = api.get(&format!("/api/lite/backfills/{}/outcome", created["id"])).await?;
        context.printer.note(outcome["summary"].as_str().unwrap_or_default());
        context.printer.note(format!("List its runs with: leoflow runs list {}", args.dag_id()));
    }
    Ok(0)
}
