//! `leoflow verify-config`: checks `config.yaml` and the settings of projects; prints problems as
//! `file:line: message`.

use crate::context::Context;
use crate::error::Error;
use clap::Args;
use leoflow_base::config::{self, ConfigError, project};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  leoflow verify-config")]
pub struct VerifyConfig {}

pub fn run(context: &Context<'_>) -> Result<u8, Error> {
    let path = context.home.config();
    let mut problems: Vec<(PathBuf, config::Problem)> = Vec::new();
    let mut warnings: Vec<(PathBuf, Vec<config::Problem>)> = Vec::new();
    match config::load_with_secrets(&path) {
        Ok(None) => {
            return Err(
                Error::failed(format!("{} does not exist", path.display())).hint("create it with leoflow setup")
            );
        }
        Ok(Some(loaded)) if loaded.text.trim().is_empty() => {
            let message = "the file is empty: the secrets that setup wrote are missing".to_owned();
            problems.push((path.clone(), config::Problem { line: 1, message }));
        }
        Ok(Some(loaded)) => warnings.extend(std::iter::once((path.clone(), loaded.warnings)).chain(loaded.others)),
        // An invalid file prevents the merge of all files, so each is checked on its own.
        Err(ConfigError::Invalid { .. }) => problems.extend(config::problems_of_each(&path)?),
        Err(ConfigError::Secret { path, line, reason }) => {
            problems.push((path, config::Problem { line, message: reason }))
        }
        Err(error) => return Err(error.into()),
    }
    let projects = project_problems(context)?;
    let printer = context.printer;
    let format_problem = |file: &Path, problem: &config::Problem| {
        format!("{}:{}: {}", file.display(), problem.line.max(1), problem.message)
    };
    if printer.json {
        let as_json = |file: &Path, problems: &[config::Problem]| -> Vec<_> {
            problems
                .iter()
                .map(|problem| json!({"file": file, "line": problem.line.max(1), "message": problem.message}))
                .collect()
        };
        let mut all_problems: Vec<_> =
            problems.iter().flat_map(|(file, problem)| as_json(file, std::slice::from_ref(problem))).collect();
        all_problems.extend(projects.iter().flat_map(|(file, problems)| as_json(file, problems)));
        let warnings: Vec<_> = warnings.iter().flat_map(|(file, warnings)| as_json(file, warnings)).collect();
        printer.json(&json!({"ok": all_problems.is_empty(), "problems": all_problems, "warnings": warnings}))?;
    } else {
        problems.iter().for_each(|(file, problem)| printer.line(format_problem(file, problem)));
        for (file, warnings) in &warnings {
            warnings.iter().for_each(|warning| printer.warning(format_problem(file, warning)));
            printer.line(format!("{} is valid", file.display()));
        }
        for (file, problems) in &projects {
            for problem in problems {
                printer.line(format!("{}:{}: {}", file.display(), problem.line.max(1), problem.message));
            }
            if problems.is_empty() {
                printer.line(format!("{} is valid", file.display()));
            }
        }
    }
    let is_valid = problems.is_empty() && projects.iter().all(|(_, problems)| problems.is_empty());
    Ok(if is_valid { 0 } else { 1 })
}

/// Checks the settings of every project in the workspace.
fn project_problems(context: &Context<'_>) -> Result<Vec<(PathBuf, Vec<config::Problem>)>, Error> {
    // The workspace is unknown if config.yaml cannot be read.
    let Ok(Some(loaded)) = config::load(&context.home.config()) else { return Ok(Vec::new()) };
    let Some(workspace) = loaded.config.workspace.filter(|workspace| workspace.is_dir()) else { return Ok(Vec::new()) };
    let projects = project::with_settings(&workspace).map_err(|error| Error::io("read", &workspace, &error))?;
    let mut checked_files = Vec::new();
    for folder in projects {
        let file = folder.join(project::FILE);
        let problems = project::check(&folder).map_err(|error| Error::io("read", &file, &error))?;
        checked_files.push((file, problems));
    }
    Ok(checked_files)
}
