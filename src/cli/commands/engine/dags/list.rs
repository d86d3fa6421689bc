//! `leoflow dags list`.

use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::Printer;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::Path;

#[derive(Args, Debug)]
pub struct ListDags {
    /// Include DAGs whose files no longer exist
    #[arg(long)]
    pub all: bool,
}

/// The server's list of DAGs.
#[derive(Deserialize)]
struct Overview {
    dags: Vec<DagView>,
    import_errors: Vec<ImportErrorView>,
    being_built: Vec<BeingBuilt>,
    /// Number of DAG files that are not imported since the start; `None` until they are found.
    importing: Option<u64>,
}

/// An environment that is being built, and the DAG files that wait for it.
#[derive(Deserialize)]
struct BeingBuilt {
    files: Vec<String>,
    requirements: Vec<String>,
}

#[derive(Deserialize, Serialize)]
struct DagView {
    dag_id: String,
    is_paused: bool,
    #[serde(skip_serializing)]
    is_stale: bool,
    fileloc: String,
    bundle_name: String,
    owners: Vec<String>,
    schedule: Option<String>,
    last_run_state: Option<String>,
    import_error: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct ImportErrorView {
    filename: String,
    stack_trace: String,
}

pub async fn run(context: &Context<'_>, args: &ListDags) -> Result<u8, Error> {
    let overview: Overview = context.api().get(&format!("/api/lite/dags?all={}", args.all)).await?;
    let json = json!({
        "dags": overview.dags, "import_errors": overview.import_errors, "is_importing": overview.importing != Some(0),
    });
    context.printer.show(&json, |printer| {
        print(printer, &overview, &context.workspace()?.unwrap_or_default());
        Ok(())
    })
}

fn print(printer: &Printer, overview: &Overview, workspace: &Path) {
    let is_empty = overview.dags.is_empty() && overview.import_errors.is_empty() && overview.being_built.is_empty();
    if is_empty && overview.importing == Some(0) {
        printer.line(format!("No DAGs in {} yet", workspace.display()));
        printer.note("Create one with `leoflow init DIR`.");
        return;
    }
    if !is_empty {
        let rows = overview.dags.iter().map(|dag| row(dag, workspace));
        printer.table(&["DAG", "STATE", "SCHEDULE", "LAST RUN", "FILE"], rows);
    }
    print_import_errors(printer, &overview.import_errors);
    for BeingBuilt { files, requirements } in &overview.being_built {
        printer.note(format!("Building the environment of {} ({})", files.join(", "), requirements.join(", ")));
    }
    note_importing(printer, overview.importing);
}

fn row(dag: &DagView, workspace: &Path) -> [String; 5] {
    let state = match (dag.is_stale, dag.is_paused) {
        (true, _) => "file missing",
        (false, true) => "paused",
        (false, false) => "active",
    };
    let fileloc = Path::new(&dag.fileloc);
    [
        dag.dag_id.clone(),
        if dag.import_error.is_some() { format!("{state}, import error") } else { state.to_owned() },
        dag.schedule.clone().unwrap_or_else(|| "-".to_owned()),
        dag.last_run_state.clone().unwrap_or_else(|| "-".to_owned()),
        fileloc.strip_prefix(workspace).unwrap_or(fileloc).display().to_string(),
    ]
}

/// Number of import errors printed in full; more would push the DAGs off the screen.
const SHOWN_ERRORS: usize = 3;

fn print_import_errors(printer: &Printer, errors: &[ImportErrorView]) {
    for error in errors.iter().take(SHOWN_ERRORS) {
        let is_file = Path::new(&error.filename).extension().is_some();
        let problem = if is_file { "fails to import" } else { "was not scanned completely" };
        printer.warning(format!("{} {problem}:", error.filename));
        for line in error.stack_trace.lines() {
            printer.note(format!("  {line}"));
        }
    }
    if let Some(more) = errors.len().checked_sub(SHOWN_ERRORS).filter(|more| *more > 0) {
        printer.warning(format!("{more} more, shown by `leoflow dags list-import-errors`"));
    }
}

/// Says after a start that the list is not complete. `importing` is as in the server's list of DAGs.
pub(super) fn note_importing(printer: &Printer, importing: Option<u64>) {
    let text = match importing {
        Some(0) => return,
        Some(count) => format!("DAG files still being imported: {count}"),
        None => "The workspace is still being scanned for DAG files".to_owned(),
    };
    printer.note(format!("{text}; run the same command again in a moment."));
}
