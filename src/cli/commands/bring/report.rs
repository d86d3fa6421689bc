//! Prints the plan and its result.

use super::Bring;
use super::plan::{Decision, ProjectPlan};
use super::repository::Repository;
use super::survey::Fact;
use crate::airflow::airflow_content::AirflowContent;
use crate::commands::engine::validate::CheckedFile;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::{Printer, counted};
use serde_json::json;
use std::collections::BTreeMap;

/// Places that are printed for one thing.
const PLACES: usize = 2;

pub struct Report<'a> {
    pub repository: &'a Repository,
    pub plans: &'a [ProjectPlan],
    pub content: &'a AirflowContent,
    /// What the checkout lacks.
    pub missing: &'a [Decision],
    pub args: &'a Bring,
}

impl Report<'_> {
    /// Prints the result; before it is done, the plan.
    pub fn show(&self, context: &Context<'_>, checked: &[CheckedFile]) -> Result<u8, Error> {
        let failed: Vec<&CheckedFile> = checked.iter().filter(|file| file.error.is_some()).collect();
        let value = json!({
            "projects": self.plans, "outside": self.repository.outside, "unscanned": self.repository.unscanned,
            "missing": self.missing,
            "variables": self.content.variables.iter().map(|entry| &entry.key).collect::<Vec<_>>(),
            "connections": self.content.connections.iter().map(|entry| &entry.connection_id).collect::<Vec<_>>(),
            "pools": self.content.pools.iter().map(|entry| &entry.name).collect::<Vec<_>>(),
            "dry_run": self.args.dry_run, "files": checked,
        });
        context.printer.show(&value, |printer| {
            if self.args.dry_run {
                self.print_plan(printer);
                return;
            }
            let imported = checked.len() - failed.len();
            printer.line(format!("{imported} of {} can be imported", counted(checked.len(), "DAG file")));
            // Files often fail for one reason.
            let mut by_error: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            for file in &failed {
                let path = file.path.display().to_string();
                by_error.entry(reason(file.error.as_deref().unwrap_or_default())).or_default().push(path);
            }
            for (error, files) in by_error {
                let more = if files.len() > 1 { format!(" and {} more", files.len() - 1) } else { String::new() };
                printer.line(format!("  {}{more}: {error}", files[0]));
            }
            let places: Vec<String> = self.plans.iter().map(|plan| plan.name.clone()).collect();
            if !failed.is_empty() {
                let place = self.plans[0].link.as_ref().unwrap_or(&self.plans[0].folder).display();
                printer.advice(format!("whole errors: `leoflow validate {place}`"));
            }
            printer.advice(format!("the DAGs of {} are in `leoflow dags list`", places.join(", ")));
        })
    }

    pub fn print_plan(&self, printer: &Printer) {
        for plan in self.plans {
            self.print_project(printer, plan);
        }
        let outside: Vec<String> = self.repository.outside.iter().map(|path| self.repository.shown(path)).collect();
        if !outside.is_empty() {
            let count = counted(outside.len(), "file");
            printer
                .note(format!("Not brought, because outside of a project's `dags`: {count}, such as {}", outside[0]));
        }
        self.repository.unscanned.iter().for_each(|unscanned| printer.warning(unscanned));
        decide(printer, "Missing in this checkout:", self.missing);
        let AirflowContent { variables, connections, pools, .. } = self.content;
        let names = [
            ("variable", variables.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>()),
            ("connection", connections.iter().map(|entry| entry.connection_id.as_str()).collect()),
            ("pool", pools.iter().map(|entry| entry.name.as_str()).collect()),
        ];
        for (kind, names) in names.iter().filter(|(_, names)| !names.is_empty()) {
            printer.note(format!("Imports {}: {}", counted(names.len(), kind), names.join(", ")));
        }
    }

    fn print_project(&self, printer: &Printer, plan: &ProjectPlan) {
        let folder = plan.folder.display();
        printer.note(format!("Project {}: {} in {folder}", plan.name, counted(plan.dag_files, "DAG file")));
        if let Some(link) = &plan.link {
            printer.note(format!("  link      {}", link.display()));
        }
        if let Some(settings) = &plan.settings {
            printer.note(format!("  settings  {}", settings.path.display()));
        }
        list(
            printer,
            &format!("adds {} that the files import", counted(plan.packages.len(), "package")),
            &plan.packages,
        );
        list(printer, "leaves out of the project's lists", &plan.left_out);
        if let Some(first) = plan.translated.first() {
            let count = counted(plan.translated.iter().map(|fact| fact.count).sum::<usize>(), "use");
            printer.note(format!("  translates {count} of what Airflow 3 removed, such as:"));
            printer.note(format!("    {}{}", first.what.lines().next().unwrap_or_default(), places(first)));
        }
        if let Some(image_folder) = &plan.image_folder {
            printer.note(format!(
                "  shows its folder at the image's path {}{}",
                image_folder.what,
                places(image_folder)
            ));
        }
        if let Some(variables) = &plan.variables {
            let count = counted(plan.taken_over.len(), "variable");
            printer.note(format!("  takes over {count} into {}:", variables.path.display()));
            let mut by_file: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for fact in &plan.taken_over {
                let place = &fact.places[0];
                by_file.entry(place.split(':').next().unwrap_or(place)).or_default().push(&fact.what);
            }
            by_file.iter().for_each(|(file, names)| printer.note(format!("    {file}: {}", names.join(", "))));
        }
        decide(printer, "  for you to decide:", &plan.decisions);
        list(printer, "settings without effect here", &plan.ignored_settings);
        if plan.other_settings > 0 {
            let count = counted(plan.other_settings, "setting");
            printer.note(format!(
                "  {count} of parts of Airflow that Leoflow does not have, such as executors and its database"
            ));
        }
    }
}

fn decide(printer: &Printer, heading: &str, decisions: &[Decision]) {
    if !decisions.is_empty() {
        printer.note(heading);
    }
    let mut decisions = decisions.iter().peekable();
    while let Some(Decision { fact, remedy }) = decisions.next() {
        let text = fact.what.trim_end().replace('\n', "\n      ");
        printer.note(format!("    {text}{}", places(fact)));
        // Several often have one remedy.
        if decisions.peek().is_none_or(|next| next.remedy != *remedy) {
            printer.note(format!("      {remedy}"));
        }
    }
}

fn list(printer: &Printer, heading: &str, facts: &[Fact]) {
    if facts.is_empty() {
        return;
    }
    printer.note(format!("  {heading}:"));
    for fact in facts {
        printer.note(format!("    {}{}", fact.what, places(fact)));
    }
}

/// `  (dags/a.py:3, dags/b.py:7 and 4 more)`.
fn places(fact: &Fact) -> String {
    let shown: Vec<&str> =
        fact.places.iter().map(String::as_str).filter(|place| !place.is_empty()).take(PLACES).collect();
    let more = fact.count.saturating_sub(shown.len());
    match (shown.is_empty(), more) {
        (true, _) => String::new(),
        (false, 0) => format!("  ({})", shown.join(", ")),
        (false, more) => format!("  ({} and {more} more)", shown.join(", ")),
    }
}

/// The line of an import error that says why: that of the exception, without the traceback.
fn reason(error: &str) -> &str {
    let is_reason =
        |line: &&str| !line.starts_with([' ', '\t']) && !line.starts_with("Traceback") && !line.trim().is_empty();
    error.lines().find(is_reason).unwrap_or(error)
}
