//! What a rollback changes, for its plan: data, settings, files, tasks, disk and the pause.

use super::rollback_facts::Looking;
use crate::backup::{Input, changed_settings, newer_files, restore};
use crate::commands::context::Context;
use crate::commands::lite::replaced;
use crate::config;
use crate::error::Error;
use crate::schema::{self, Extent};
use crate::upgrade::capacity;
use crate::upgrade::rollback_plan::Back;
use serde_json::{Value, json};

pub struct Consequences {
    /// A line for each thing that is dropped, or becomes what it was.
    lost: Vec<String>,
    /// Settings of `config.yaml` that change with it.
    settings: Vec<String>,
    /// Objects of the user's own that keep PostgreSQL from undoing the migrations.
    pub in_the_way: Vec<String>,
}

impl Consequences {
    pub async fn of(context: &Context<'_>, looking: &Looking) -> Result<Self, Error> {
        match &looking.back {
            Back::Undo { migrations, .. } if migrations.is_empty() => {
                Ok(Self { lost: Vec::new(), settings: Vec::new(), in_the_way: Vec::new() })
            }
            Back::Undo { schema, .. } => {
                let mut client = looking.datastore.connect().await?;
                let extent = Extent::DownTo(*schema);
                let lost = schema::lost(&client, extent).await?;
                Ok(Self { lost, settings: Vec::new(), in_the_way: schema::in_the_way(&mut client, extent).await? })
            }
            Back::Restore { backup } => {
                let (then, config) = restore::peek_config(&Input::plain(backup))?;
                let now = replaced::summary(context, &looking.datastore).await?;
                let mut lost: Vec<String> = replaced::changes(&then.tables, &now.rows)
                    .into_iter()
                    .map(|change| format!("since the backup: {change}; they become what they were"))
                    .collect();
                let loaded = context.config()?;
                let workspace = loaded.as_ref().and_then(|loaded| loaded.config.workspace.as_deref());
                lost.extend(workspace.into_iter().flat_map(|workspace| {
                    let files = newer_files(&context.home, &then, backup, workspace);
                    replaced::named(&files).map(|names| {
                        format!("files of the workspace that are newer than the backup are replaced: {names}")
                    })
                }));
                lost.extend(
                    replaced::named(&now.left_behind)
                        .map(|names| format!("not restored, because backups do not contain it: {names}")),
                );
                lost.push(format!("everything is as it was at {}, the workspace too", then.created_at));
                let now = config::self_contained(&context.home.config()).ok().flatten().unwrap_or_default();
                Ok(Self { lost, settings: changed_settings(&now, &config), in_the_way: Vec::new() })
            }
        }
    }

    pub fn to_json(&self, looking: &Looking) -> Value {
        json!({
            "from": looking.facts.installed, "to": looking.to, "back": looking.back, "lost": self.lost,
            "settings": self.settings, "in_the_way": self.in_the_way, "live": looking.plan.live,
            "running_tasks": looking.facts.running_tasks, "needs": looking.needs,
            "needs_bytes": capacity::total(&looking.needs), "free_bytes": looking.facts.free_bytes,
            "last_pause": looking.last_pause,
        })
    }

    pub fn print(&self, context: &Context<'_>, looking: &Looking) {
        let printer = context.printer;
        printer.line(format!("leoflow {} -> {}", looking.facts.installed, looking.to));
        match &looking.back {
            Back::Undo { migrations, .. } if migrations.is_empty() => {
                printer.line("  nothing is lost: the schema stays");
            }
            Back::Undo { .. } if self.lost.is_empty() => printer.line("  everything you have stays"),
            Back::Undo { .. } => printer.line("  everything you have stays, but for:"),
            Back::Restore { backup } => {
                printer.line(format!("  the backup from before the upgrade is restored: {}", backup.display()));
            }
        }
        for line in self.lost.iter().chain(&self.settings) {
            printer.line(format!("  - {line}"));
        }
        if let Some(line) = interruption(looking) {
            printer.line(format!("  {line}"));
        }
        printer.line("  the current state is backed up first");
        let needs: Vec<String> =
            looking.needs.iter().map(|need| format!("{} {}", megabytes(need.bytes), need.purpose)).collect();
        printer.line(format!(
            "  disk: about {} are needed ({}), {} are free",
            megabytes(capacity::total(&looking.needs)),
            needs.join(", "),
            looking.facts.free_bytes.map_or("an unknown number of bytes".to_owned(), megabytes)
        ));
    }
}

/// What happens to running tasks and to requests; `None` for a stopped instance.
fn interruption(looking: &Looking) -> Option<String> {
    let tasks = looking.facts.running_tasks;
    let last = looking.last_pause.map(|seconds| format!(" ({seconds:.1} s the last time)")).unwrap_or_default();
    match &looking.back {
        _ if !looking.plan.live => None,
        Back::Undo { .. } => Some(format!("{tasks} running task(s) go on; requests wait for a moment{last}")),
        Back::Restore { .. } => Some(format!("{tasks} running task(s) end; Leoflow stops and starts again{last}")),
    }
}

fn megabytes(bytes: u64) -> String {
    let tenths = bytes.div_ceil(100_000);
    if tenths < 100 { format!("{}.{} MB", tenths / 10, tenths % 10) } else { format!("{} MB", tenths.div_ceil(10)) }
}
