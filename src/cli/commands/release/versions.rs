//! `leoflow versions`: lists the releases in `versions/`, or the versions of Airflow that this release runs.

use crate::context::Context;
use crate::error::Error;
use clap::Args;
use leoflow_base::airflow_minors::{Version, minors, ui_of};
use leoflow_lifecycle::upgrade::release::versions;
use leoflow_lifecycle::upgrade::rollback::history;
use serde_json::{Value, json};

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  leoflow versions\n  leoflow versions --airflow\n  leoflow versions --json")]
pub struct Versions {
    /// List the versions of Apache Airflow that this release runs, and those whose web UI it serves
    #[arg(long)]
    airflow: bool,
}

pub fn run(context: &Context<'_>, args: &Versions) -> Result<u8, Error> {
    if args.airflow {
        return airflow(context);
    }
    let folder = context.home.versions();
    let releases = versions::list(&context.home).map_err(Error::cannot("read", &folder))?;
    let value = json!({"versions": releases, "history": history::history(&context.home)});
    context.printer.show(&value, |printer| {
        if releases.is_empty() {
            return printer.advice("No releases installed. Install this one with `leoflow setup`.");
        }
        let rows = releases.iter().map(|release| {
            [
                release.version.to_string(),
                if release.current { "in use".to_owned() } else { String::new() },
                release.schema_version.map_or_else(|| "?".to_owned(), |schema| format!("{schema:04}")),
                format!("{:.1} MB", release.size_bytes as f64 / 1e6),
            ]
        });
        printer.table(&["VERSION", "STATUS", "SCHEMA", "SIZE"], rows);
    })
}

fn airflow(context: &Context<'_>) -> Result<u8, Error> {
    let text = |version: Version| format!("{}.{}", version.0, version.1);
    let rows: Vec<[String; 5]> = minors()
        .iter()
        .map(|minor| {
            let airflow = text(minor.airflow);
            let ui = ui_of(&airflow).map_or_else(String::new, |ui| ui.version.to_owned());
            [airflow, text(minor.sdk), text(minor.python), minor.tried.to_owned(), ui]
        })
        .collect();
    let names = ["airflow", "task_sdk", "oldest_python", "tried", "web_ui"];
    let object = |row: &[String; 5]| -> Value {
        names.into_iter().map(str::to_owned).zip(row.iter().cloned().map(Value::from)).collect()
    };
    let value = json!({"airflow": rows.iter().map(object).collect::<Vec<_>>()});
    context.printer.show(&value, |printer| {
        printer.table(&["AIRFLOW", "TASK SDK", "OLDEST PYTHON", "TRIED WITH", "WEB UI"], rows.clone());
    })
}
