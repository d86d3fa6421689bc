//! `release-notes-<version>.md`: the changelog and, for the step from the last stable release, what an upgrade does by
//! itself and what it leaves to the operator. Pure.

use leoflow::contract::{Change, Contract, Difference, compare};
use leoflow::upgrade::release::manifest::{Migration, Release};
use std::fmt::Write;

/// The last stable release below the new one, and its contract, if it has one.
pub struct Base<'a> {
    pub release: &'a Release,
    pub contract: Option<Contract>,
}

pub fn text(release: &Release, contract: &Contract, base: Option<&Base<'_>>) -> String {
    let mut text = format!("# Leoflow {}\n\n{}\n", release.version, release.notes.trim());
    if let Some(base) = base {
        let changes = base.contract.as_ref().map(|old| compare(old, contract)).unwrap_or_default();
        let is_major = base.release.version.major != release.version.major;
        let title = if is_major { "Migration guide: upgrade" } else { "Upgrade" };
        let from = &base.release.version;
        // Writing to a String cannot fail.
        let _ = write!(text, "\n## {title} from {from}\n\n### What `leoflow upgrade` does by itself\n\n");
        text.push_str(&automatic(release, base.release));
        let _ = write!(text, "\n### What is left to do by hand\n\n{}", manual(release, &changes));
        text.push_str(&announced(&changes));
    }
    text
}

/// The steps that need nobody.
fn automatic(release: &Release, base: &Release) -> String {
    let mut text =
        "- It creates a backup, rehearses the upgrade on a copy, and rolls back if a check fails.\n".to_owned();
    let is_new = |migration: &&Migration| !base.migrations.contains(migration);
    for Migration { version, name, phase, reversible, .. } in release.migrations.iter().filter(is_new) {
        let when = match phase.as_str() {
            "data" => "changes rows, batch by batch, beside the running server",
            "postdeploy" => "runs after the upgrade, beside the running server",
            "contract" => {
                "NOT ADDITIVE: removes what only earlier releases use, once `upgrade.cleanup_after` has passed and no \
                           kept release needs it, after a backup"
            }
            _ => "only adds; the earlier release works with it",
        };
        let undo = if *reversible { "" } else { ". A rollback restores the backup from before it" };
        let _ = writeln!(text, "- Migration V{version:04}__{name} ({phase}): {when}{undo}.");
    }
    text
}

fn manual(release: &Release, changes: &[Change]) -> String {
    let mut text = String::new();
    for stop in &release.required_stops {
        let _ = writeln!(text, "- From a release before {stop}: upgrade to {stop} first.");
    }
    let needs_work = |change: &&Change| match &change.difference {
        Difference::Removed { .. } | Difference::Added { is_required: true } => true,
        Difference::Changed { from, .. } => from.is_some(),
        Difference::Added { .. } | Difference::Deprecated(_) => false,
    };
    for change in changes.iter().filter(needs_work) {
        let _ = writeln!(text, "- The {change}.");
    }
    if text.is_empty() { "Nothing.\n".to_owned() } else { text }
}

/// What still works, and until when.
fn announced(changes: &[Change]) -> String {
    let deprecated = changes.iter().filter(|change| matches!(change.difference, Difference::Deprecated(_)));
    let lines: String = deprecated.map(|change| format!("- The {change}.\n")).collect();
    if lines.is_empty() { lines } else { format!("\n### Deprecated\n\n{lines}") }
}
