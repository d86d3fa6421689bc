//! The consequences of a rollback, for its plan: data, settings, files, tasks, disk space and the pause.

use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::counted;
use leoflow_base::config;
use leoflow_lifecycle::backup::Input;
use leoflow_lifecycle::backup::restore;
use leoflow_lifecycle::backup::{changed_settings, newer_files};
use leoflow_lifecycle::operation::rollback::PlannedRollback;
use leoflow_lifecycle::operation::summary::{self, Summary};
use leoflow_lifecycle::upgrade::rollback::capacity;
use leoflow_lifecycle::upgrade::rollback::rollback_plan::RollbackPlan;
use leoflow_postgres::schema::{self, Extent};
use serde_json::{Value, json};

#[derive(Default)]
pub struct Consequences {
    /// A line for each loss: an object that is dropped, or data that returns to its earlier state.
    lost: Vec<String>,
    /// Settings of `config.yaml` that change.
    settings: Vec<String>,
    /// The user's own objects that prevent PostgreSQL from undoing the migrations.
    pub in_the_way: Vec<String>,
}

impl Consequences {
    /// Compares the current state with the one after the rollback.
    pub async fn find(context: &Context<'_>, planned: &PlannedRollback) -> Result<Self, Error> {
        match &planned.rollback_plan {
            RollbackPlan::Undo { migrations, .. } if migrations.is_empty() => Ok(Self::default()),
            RollbackPlan::Undo { schema, .. } => {
                let mut client = planned.datastore.connect().await?;
                let extent = Extent::DownTo(*schema);
                let lost = schema::rollback_losses(&client, extent).await?;
                let in_the_way = schema::blocking_dependents(&mut client, extent).await?;
                Ok(Self { lost, in_the_way, ..Self::default() })
            }
            RollbackPlan::Restore { backup } => {
                let (backup_manifest, config) = restore::peek_config(&Input::plain(backup))?;
                let current = Summary::of_current(&context.operation(), &planned.datastore).await?;
                let mut lost: Vec<String> = summary::changes(&backup_manifest.tables, &current.rows)
                    .into_iter()
                    .map(|change| format!("since the backup: {change}; these changes are undone"))
                    .collect();
                let loaded = context.config()?;
                let workspace = loaded.as_ref().and_then(|loaded| loaded.config.workspace.as_deref());
                lost.extend(workspace.into_iter().flat_map(|workspace| {
                    let files = newer_files(&context.home, &backup_manifest, backup, workspace);
                    summary::list_names(&files)
                        .map(|names| format!("workspace files newer than the backup are replaced: {names}"))
                }));
                lost.extend(
                    summary::list_names(&current.left_behind)
                        .map(|names| format!("not restored, because backups do not contain them: {names}")),
                );
                lost.push(format!(
                    "all data returns to its state of {}, including the workspace",
                    backup_manifest.created_at
                ));
                let current_config = config::self_contained(&context.home.config()).ok().flatten().unwrap_or_default();
                Ok(Self { lost, settings: changed_settings(&current_config, &config), ..Self::default() })
            }
        }
    }

    pub fn to_json(&self, planned: &PlannedRollback) -> Value {
        json!({
            "from": planned.facts.installed, "to": planned.to, "back": planned.rollback_plan, "lost": self.lost,
            "settings": self.settings, "in_the_way": self.in_the_way, "live": planned.plan.live,
            "running_tasks": planned.facts.running_tasks, "needs": planned.needs,
            "needs_bytes": capacity::total(&planned.needs), "free_bytes": planned.facts.free_bytes,
            "last_pause": planned.last_pause,
        })
    }

    pub fn print(&self, context: &Context<'_>, planned: &PlannedRollback) {
        let printer = context.printer;
        printer.line(format!("leoflow {} -> {}", planned.facts.installed, planned.to));
        match &planned.rollback_plan {
            RollbackPlan::Undo { migrations, .. } if migrations.is_empty() => {
                printer.line("  no data is lost: the schema stays");
            }
            RollbackPlan::Undo { .. } if self.lost.is_empty() => printer.line("  no data is lost"),
            RollbackPlan::Undo { .. } => printer.line("  all data stays, except:"),
            RollbackPlan::Restore { backup } => {
                printer.line(format!("  the backup from before the upgrade is restored: {}", backup.display()));
            }
        }
        for line in self.lost.iter().chain(&self.settings) {
            printer.line(format!("  - {line}"));
        }
        if let Some(line) = interruption(planned) {
            printer.line(format!("  {line}"));
        }
        printer.line("  a backup of the current state is created first");
        let needs: Vec<String> =
            planned.needs.iter().map(|need| format!("{} {}", megabytes(need.bytes), need.purpose)).collect();
        printer.line(format!(
            "  disk space: about {} needed ({}), {} free",
            megabytes(capacity::total(&planned.needs)),
            needs.join(", "),
            planned.facts.free_bytes.map_or("unknown".to_owned(), megabytes)
        ));
    }
}

/// Describes the effect on running tasks and requests; `None` for a stopped instance.
fn interruption(planned: &PlannedRollback) -> Option<String> {
    let tasks = counted(planned.facts.running_tasks, "running task");
    let last = planned.last_pause.map(|seconds| format!(" ({seconds:.1} s last time)")).unwrap_or_default();
    match &planned.rollback_plan {
        _ if !planned.plan.live => None,
        RollbackPlan::Undo { .. } => Some(format!("{tasks} will continue; requests wait for a moment{last}")),
        RollbackPlan::Restore { .. } => Some(format!("{tasks} will end; Leoflow stops and starts again{last}")),
    }
}

/// Formats a size, rounded up.
fn megabytes(bytes: u64) -> String {
    let tenths = bytes.div_ceil(100_000);
    if tenths < 100 { format!("{}.{} MB", tenths / 10, tenths % 10) } else { format!("{} MB", tenths.div_ceil(10)) }
}
