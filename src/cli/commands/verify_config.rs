//! `leoflow verify-config`: checks `config.yaml` and the settings of projects; prints problems as
//! `file:line: message`.

use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::Printer;
use clap::Args;
use leoflow_base::config::{self, ConfigError, Problem, leoflow_yaml};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  leoflow verify-config")]
pub struct VerifyConfig {}

/// The problems and warnings of the checked files.
#[derive(Default)]
struct Report {
    /// The problems of config.yaml and the files beside it.
    problems: Vec<(PathBuf, Problem)>,
    /// The valid files, with their warnings.
    warnings: Vec<(PathBuf, Vec<Problem>)>,
    /// The settings files of projects, with their problems.
    projects: Vec<(PathBuf, Vec<Problem>)>,
}

pub fn run(context: &Context<'_>) -> Result<u8, Error> {
    let mut report = Report::of_config(&context.home.config())?;
    report.projects = project_problems(context)?;
    let json = report.json();
    context.printer.show(&json, |printer| report.print(printer))?;
    Ok(u8::from(json["ok"] != true))
}

impl Report {
    /// Checks config.yaml and the files beside it.
    fn of_config(path: &Path) -> Result<Self, Error> {
        let mut report = Self::default();
        match config::load_with_secrets(path) {
            Ok(None) => {
                return Err(
                    Error::failed(format!("{} does not exist", path.display())).hint("create it with leoflow setup")
                );
            }
            Ok(Some(loaded)) if loaded.text.trim().is_empty() => {
                let message = "the file is empty: the secrets that setup wrote are missing".to_owned();
                report.problems.push((path.to_owned(), Problem { line: 1, message }));
            }
            Ok(Some(loaded)) => {
                report.warnings.push((path.to_owned(), loaded.warnings));
                report.warnings.extend(loaded.override_warnings);
            }
            // An invalid file prevents the merge of all files, so each is checked on its own.
            Err(ConfigError::Invalid { .. }) => report.problems.extend(config::problems_of_each(path)?),
            Err(ConfigError::Secret { path, line, source }) => {
                report.problems.push((path, Problem { line, message: source.to_string() }));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(report)
    }

    fn json(&self) -> Value {
        let problem = |(file, problem): &(PathBuf, Problem)| as_json(file, problem);
        let problems_of = |(file, problems): &(PathBuf, Vec<Problem>)| -> Vec<Value> {
            problems.iter().map(|problem| as_json(file, problem)).collect()
        };
        let mut problems: Vec<Value> = self.problems.iter().map(problem).collect();
        problems.extend(self.projects.iter().flat_map(problems_of));
        let warnings: Vec<Value> = self.warnings.iter().flat_map(problems_of).collect();
        json!({"ok": problems.is_empty(), "problems": problems, "warnings": warnings})
    }

    fn print(&self, printer: &Printer) {
        self.problems.iter().for_each(|(file, problem)| printer.line(as_text(file, problem)));
        for (file, warnings) in &self.warnings {
            warnings.iter().for_each(|warning| printer.warning(as_text(file, warning)));
            printer.line(format!("{} is valid", file.display()));
        }
        for (file, problems) in &self.projects {
            problems.iter().for_each(|problem| printer.line(as_text(file, problem)));
            if problems.is_empty() {
                printer.line(format!("{} is valid", file.display()));
            }
        }
    }
}

fn as_json(file: &Path, problem: &Problem) -> Value {
    json!({"file": file, "line": problem.line.max(1), "message": problem.message})
}

fn as_text(file: &Path, problem: &Problem) -> String {
    format!("{}:{}: {}", file.display(), problem.line.max(1), problem.message)
}

/// Checks the settings of every project in the workspace.
fn project_problems(context: &Context<'_>) -> Result<Vec<(PathBuf, Vec<Problem>)>, Error> {
    // The workspace is unknown if config.yaml cannot be read.
    let Ok(Some(loaded)) = config::load(&context.home.config()) else { return Ok(Vec::new()) };
    let Some(workspace) = loaded.config.workspace.filter(|workspace| workspace.is_dir()) else { return Ok(Vec::new()) };
    let projects = leoflow_yaml::with_settings(&workspace).map_err(Error::cannot("read", &workspace))?;
    let mut checked_files = Vec::new();
    for folder in projects {
        let file = folder.join(leoflow_yaml::FILE);
        let problems = leoflow_yaml::check(&folder).map_err(Error::cannot("read", &file))?;
        checked_files.push((file, problems));
    }
    Ok(checked_files)
}
