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

/// The problems that make a file invalid, or the warnings of a valid one.
struct CheckedFile {
    path: PathBuf,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

pub fn run(context: &Context<'_>) -> Result<u8, Error> {
    let mut files = check_config(&context.home.config())?;
    files.extend(check_projects(context)?);
    let problems: Vec<Value> = files.iter().flat_map(|file| file.as_json(&file.problems)).collect();
    let warnings: Vec<Value> = files.iter().flat_map(|file| file.as_json(&file.warnings)).collect();
    let is_valid = problems.is_empty();
    let json = json!({"ok": is_valid, "problems": problems, "warnings": warnings});
    context.printer.show(&json, |printer| files.iter().for_each(|file| file.print(printer)))?;
    Ok(u8::from(!is_valid))
}

/// Checks config.yaml and the files beside it.
fn check_config(path: &Path) -> Result<Vec<CheckedFile>, Error> {
    let invalid = |path: PathBuf, problem| CheckedFile { path, problems: vec![problem], warnings: Vec::new() };
    match config::load_with_secrets(path) {
        Ok(None) => {
            Err(Error::failed(format!("{} does not exist", path.display())).hint("create it with leoflow setup"))
        }
        Ok(Some(loaded)) if loaded.text.trim().is_empty() => {
            let message = "the file is empty: the secrets that setup wrote are missing".to_owned();
            Ok(vec![invalid(path.to_owned(), Problem { line: 1, message })])
        }
        Ok(Some(loaded)) => {
            let files = [(path.to_owned(), loaded.warnings)].into_iter().chain(loaded.override_warnings);
            Ok(files.map(|(path, warnings)| CheckedFile { path, problems: Vec::new(), warnings }).collect())
        }
        // An invalid file prevents the merge of all files, so each is checked on its own.
        Err(ConfigError::Invalid { .. }) => {
            let problems = config::problems_of_each(path)?;
            Ok(problems.into_iter().map(|(path, problem)| invalid(path, problem)).collect())
        }
        Err(ConfigError::Secret { path, line, source }) => {
            Ok(vec![invalid(path, Problem { line, message: source.to_string() })])
        }
        Err(error) => Err(error.into()),
    }
}

impl CheckedFile {
    fn as_json(&self, problems: &[Problem]) -> Vec<Value> {
        let entry =
            |problem: &Problem| json!({"file": self.path, "line": problem.line.max(1), "message": problem.message});
        problems.iter().map(entry).collect()
    }

    fn print(&self, printer: &Printer) {
        let path = self.path.display();
        let text = |problem: &Problem| format!("{path}:{}: {}", problem.line.max(1), problem.message);
        self.problems.iter().for_each(|problem| printer.line(text(problem)));
        self.warnings.iter().for_each(|warning| printer.warning(text(warning)));
        if self.problems.is_empty() {
            printer.line(format!("{path} is valid"));
        }
    }
}

/// Checks the settings of every project in the workspace.
fn check_projects(context: &Context<'_>) -> Result<Vec<CheckedFile>, Error> {
    // The workspace is unknown if config.yaml cannot be read.
    let Ok(Some(loaded)) = config::load(&context.home.config()) else { return Ok(Vec::new()) };
    let Some(workspace) = loaded.config.workspace.filter(|workspace| workspace.is_dir()) else { return Ok(Vec::new()) };
    let projects = leoflow_yaml::with_settings(&workspace).map_err(Error::cannot("read", &workspace))?;
    let check = |folder: PathBuf| {
        let path = leoflow_yaml::path(&folder);
        let problems = leoflow_yaml::check(&folder).map_err(Error::cannot("read", &path))?;
        Ok(CheckedFile { path, problems, warnings: Vec::new() })
    };
    projects.into_iter().map(check).collect()
}
