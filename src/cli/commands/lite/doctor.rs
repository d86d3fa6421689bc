//! `leoflow doctor`.

use super::doctor_report;
use crate::commands::engine::validate::servers_python;
use crate::context::{Confirmation, Context};
use crate::error::Error;
use crate::terminal::printer::Printer;
use clap::Args;
use leoflow_base::home::Home;
use leoflow_base::home::journal::{self, Entry, Operation};
use leoflow_base::home::lock::{self, HomeLock};
use leoflow_base::protocol::control;
use leoflow_base::protocol::status::InstanceStatus;
use leoflow_lifecycle::backup::restore;
use leoflow_lifecycle::operation::open::Datastore;
use leoflow_lifecycle::setup::{self, Check, Fix, SchemaReport, SchemaUnavailable, Verdict, uninstall};
use leoflow_postgres::acquire::Sources;
use leoflow_postgres::cluster::{self, ClusterState};
use leoflow_postgres::install::version;
use leoflow_postgres::schema::{self, State, data_migration};
use leoflow_postgres::{Access, PgError};
use leoflow_processes::supervisor;
use serde_json::json;
use std::time::Duration;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow doctor                 check only\n  leoflow doctor --fix --yes     apply the safe fixes\n  \
                  leoflow doctor --report        print what a bug report needs"
)]
pub struct Doctor {
    /// Apply the safe fixes, which lose no data, after showing them
    #[arg(long)]
    pub fix: bool,
    /// Print the checks, the versions and the last lines of the logs as text for a bug report; read it before you send it
    #[arg(long, conflicts_with = "fix")]
    pub report: bool,
    /// Skip the confirmation prompt
    #[arg(long)]
    pub yes: bool,
}

/// Time limit of the queries.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

pub async fn run(context: &Context<'_>, args: &Doctor) -> Result<u8, Error> {
    let supervisor = control::request_status(&context.home);
    let schema = schema_state(context, supervisor.status()).await;
    let servers = servers_python(context).await.unwrap_or_default();
    let checks = setup::examine(&context.home, &Sources::for_home(&context.home), schema, &servers, &supervisor);
    let fixes: Vec<&Fix> = checks.iter().filter_map(|check| check.finding.fix.as_ref()).collect();
    if args.report {
        return doctor_report::print(context, &checks);
    }
    let healthy = checks.iter().all(|check| check.finding.verdict != Verdict::Problem);
    context.printer.show(&json!({"ok": healthy, "checks": checks}), |printer| show(printer, &checks))?;
    if args.fix && !fixes.is_empty() {
        return fix(context, &fixes, args.yes.into());
    }
    Ok(u8::from(!healthy))
}

/// Reads the schema from the running datastore, or from a private server. `None` without a datastore, or while another
/// command uses the home.
async fn schema_state(
    context: &Context<'_>,
    status: Option<&InstanceStatus>,
) -> Option<Result<SchemaReport, SchemaUnavailable>> {
    if cluster::state(&context.home) != ClusterState::Ready {
        return None;
    }
    let held = lock::is_held(&context.home).unwrap_or(false);
    if held && status.is_none() {
        // Another command uses the home for a moment; that is not a problem.
        return None;
    }
    if !held && let Some(obstacle) = obstacle_to_start(&context.home) {
        return Some(Err(obstacle));
    }
    let report = read_schema(context).await;
    Some(report.map_err(|error| {
        let remedy = match error.is_damage {
            true => setup::RESTORE.to_owned(),
            false => error.hints.first().cloned().unwrap_or_else(|| "leoflow lite logs postgres".to_owned()),
        };
        SchemaUnavailable { reason: error.in_one_line(), remedy }
    }))
}

/// Returns the reason not to start the datastore: an interrupted operation or leftover processes. A start would finish
/// or end them, but a check must not change anything.
fn obstacle_to_start(home: &Home) -> Option<SchemaUnavailable> {
    let interrupted = journal::unfinished(home).ok().flatten().filter(|e| e.operation != Operation::Setup);
    let is_purge = |e: &Entry| e.operation == Operation::Purge && uninstall::may_have_removed_something(e);
    let (reason, remedy) = if interrupted.as_ref().is_some_and(is_purge) {
        ("a purge was interrupted, and part of the home is removed", "leoflow uninstall --purge")
    } else if interrupted.is_some() || restore::has_leftovers(home) {
        ("an operation was interrupted; the next start finishes it", "leoflow lite start")
    } else if supervisor::find_leftovers(home).is_ok_and(|leftovers| !leftovers.is_empty()) {
        ("cannot check while processes of a killed run exist", "leoflow lite start, which ends them")
    } else {
        return None;
    };
    Some(SchemaUnavailable { reason: reason.to_owned(), remedy: remedy.to_owned() })
}

async fn read_schema(context: &Context<'_>) -> Result<SchemaReport, Error> {
    let datastore = Datastore::open(&context.operation(), "leoflow doctor").await?;
    let result = tokio::time::timeout(QUERY_TIMEOUT, query_schema(&datastore.access)).await;
    result.unwrap_or_else(|_| Err(Error::failed("the datastore does not respond")))
}

async fn query_schema(access: &Access) -> Result<SchemaReport, Error> {
    let config = access.credentials.application(&access.endpoint);
    let client = match access.endpoint.connect(&config).await {
        Ok(client) => client,
        // A check must not create a missing role or database.
        Err(PgError::NoDatabase | PgError::WrongPassword) => {
            return Ok(SchemaReport { state: State::Fresh, failed: None, server_version: None });
        }
        Err(error) => return Err(error.into()),
    };
    let state = schema::classify(schema::known(), &schema::inspect(&client).await?);
    let data = match state {
        State::Current { .. } => data_migration::list(&client, schema::known()).await?,
        _ => Vec::new(),
    };
    let failed = data.into_iter().find(|migration| migration.status == data_migration::Status::Failed);
    Ok(SchemaReport { state, failed, server_version: Some(version::of_server(&client).await?) })
}

fn show(printer: &Printer, checks: &[Check]) {
    for Check { name, finding } in checks {
        let label = match finding.verdict {
            Verdict::Ok => printer.paint("32", "ok     "),
            Verdict::Warning => printer.paint("33", "warning"),
            Verdict::Problem => printer.paint("31", "problem"),
        };
        let detail = finding.detail.replace('\n', "\n                       ");
        printer.line(format!("{label}  {name:<12} {detail}"));
        if let Some(remedy) = &finding.remedy {
            printer.advice(format!("         {:<12} -> {remedy}", ""));
        }
    }
}

/// Applies the fixes after a confirmation.
fn fix(context: &Context<'_>, fixes: &[&Fix], confirmation: Confirmation) -> Result<u8, Error> {
    for fix in fixes {
        context.printer.note(format!("Would {fix}"));
    }
    if !context.confirm("Apply these fixes?", confirmation)? {
        context.printer.note(Context::DECLINED);
        return Ok(1);
    }
    // Ends leftover processes only under the home's lock. The other fixes also work while the instance runs.
    let _lock = match fixes.iter().any(|fix| matches!(fix, Fix::EndLeftovers)) {
        true => Some(HomeLock::take(&context.home, "leoflow doctor --fix", None)?),
        false => None,
    };
    for fix in fixes {
        setup::fix(&context.home, fix).map_err(|error| Error::failed(format!("failed to {fix}")).cause(error))?;
        context.printer.note(format!("Done: {fix}"));
    }
    Ok(0)
}
