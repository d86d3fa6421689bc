//! `leoflow verify-config`: what is wrong with `config.yaml`, each as `file:line: message`.

use super::context::Context;
use crate::config::{self, ConfigError};
use crate::error::Error;
use serde_json::json;

pub fn run(context: &Context<'_>) -> Result<u8, Error> {
    let path = context.home.config();
    let (problems, warnings) = match config::load(&path) {
        Ok(None) => {
            return Err(Error::failed(format!("there is no {}", path.display())).hint("leoflow setup writes one"));
        }
        Ok(Some(loaded)) if loaded.text.trim().is_empty() => {
            let message = "the file is empty: the secrets that setup wrote are gone".to_owned();
            (vec![config::Problem { line: 1, message }], Vec::new())
        }
        Ok(Some(loaded)) => (Vec::new(), loaded.warnings),
        Err(ConfigError::Invalid { problems, .. }) => (problems, Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let printer = context.printer;
    let shown = |problem: &config::Problem| format!("{}:{}: {}", path.display(), problem.line.max(1), problem.message);
    if printer.json {
        let list = |problems: &[config::Problem]| -> Vec<_> {
            problems.iter().map(|p| json!({"file": path, "line": p.line.max(1), "message": p.message})).collect()
        };
        printer.json(&json!({"ok": problems.is_empty(), "problems": list(&problems), "warnings": list(&warnings)}))?;
    } else {
        for warning in &warnings {
            printer.warning(shown(warning));
        }
        for problem in &problems {
            printer.line(shown(problem));
        }
        if problems.is_empty() {
            printer.line(format!("{} is good", path.display()));
        }
    }
    Ok(if problems.is_empty() { 0 } else { 1 })
}
