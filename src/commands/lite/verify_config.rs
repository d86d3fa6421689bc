//! `leoflow verify-config`: what is wrong with `config.yaml` and with the settings of projects, each as
//! `file:line: message`.

use crate::commands::context::Context;
use crate::config::{self, ConfigError, project};
use crate::error::Error;
use serde_json::json;
use std::path::{Path, PathBuf};

pub fn run(context: &Context<'_>) -> Result<u8, Error> {
    let path = context.home.config();
    let mut problems: Vec<(PathBuf, config::Problem)> = Vec::new();
    let mut warnings: Vec<(PathBuf, Vec<config::Problem>)> = Vec::new();
    match config::load_with_secrets(&path) {
        Ok(None) => {
            return Err(Error::failed(format!("there is no {}", path.display())).hint("leoflow setup writes one"));
        }
        Ok(Some(loaded)) if loaded.text.trim().is_empty() => {
            let message = "the file is empty: the secrets that setup wrote are gone".to_owned();
            problems.push((path.clone(), config::Problem { line: 1, message }));
        }
        Ok(Some(loaded)) => warnings.extend(std::iter::once((path.clone(), loaded.warnings)).chain(loaded.others)),
        // The first that is wrong keeps the others from being merged, not from being looked at.
        Err(ConfigError::Invalid { .. }) => problems.extend(config::problems_of_each(&path)?),
        Err(ConfigError::Secret { path, line, what }) => problems.push((path, config::Problem { line, message: what })),
        Err(error) => return Err(error.into()),
    }
    let projects = project_problems(context)?;
    let printer = context.printer;
    let shown = |file: &Path, problem: &config::Problem| {
        format!("{}:{}: {}", file.display(), problem.line.max(1), problem.message)
    };
    if printer.json {
        let list = |file: &Path, problems: &[config::Problem]| -> Vec<_> {
            problems.iter().map(|p| json!({"file": file, "line": p.line.max(1), "message": p.message})).collect()
        };
        let mut all: Vec<_> =
            problems.iter().flat_map(|(file, problem)| list(file, std::slice::from_ref(problem))).collect();
        all.extend(projects.iter().flat_map(|(file, problems)| list(file, problems)));
        let warnings: Vec<_> = warnings.iter().flat_map(|(file, warnings)| list(file, warnings)).collect();
        printer.json(&json!({"ok": all.is_empty(), "problems": all, "warnings": warnings}))?;
    } else {
        problems.iter().for_each(|(file, problem)| printer.line(shown(file, problem)));
        for (file, warnings) in &warnings {
            warnings.iter().for_each(|warning| printer.warning(shown(file, warning)));
            printer.line(format!("{} is good", file.display()));
        }
        for (file, problems) in &projects {
            for problem in problems {
                printer.line(format!("{}:{}: {}", file.display(), problem.line.max(1), problem.message));
            }
            if problems.is_empty() {
                printer.line(format!("{} is good", file.display()));
            }
        }
    }
    let good = problems.is_empty() && projects.iter().all(|(_, problems)| problems.is_empty());
    Ok(if good { 0 } else { 1 })
}

/// The settings of every project of the workspace, with what is wrong with each.
fn project_problems(context: &Context<'_>) -> Result<Vec<(PathBuf, Vec<config::Problem>)>, Error> {
    // A config that cannot be read names no workspace.
    let Ok(Some(loaded)) = config::load(&context.home.config()) else { return Ok(Vec::new()) };
    let Some(workspace) = loaded.config.workspace.filter(|workspace| workspace.is_dir()) else { return Ok(Vec::new()) };
    let projects = project::with_settings(&workspace).map_err(|error| Error::io("read", &workspace, &error))?;
    let mut found = Vec::new();
    for folder in projects {
        let file = folder.join(project::FILE);
        let problems = project::check(&folder).map_err(|error| Error::io("read", &file, &error))?;
        found.push((file, problems));
    }
    Ok(found)
}
