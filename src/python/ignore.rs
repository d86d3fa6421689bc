//! What a workspace says itself is not to be looked at: `.airflowignore`, in the form that Airflow is configured
//! for, and `.leoflowignore`, which is always of globs.
//! <https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/dags.html#airflowignore>

use crate::sys::{env_vars, files};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use regex::Regex;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const IGNORE_FILE: &str = ".leoflowignore";
const AIRFLOW_FILE: &str = ".airflowignore";
const SIZE_LIMIT: u64 = 256 * 1024;

/// Airflow's `[core] dag_ignore_file_syntax`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    Glob,
    Regexp,
}

impl Syntax {
    /// `AIRFLOW__CORE__DAG_IGNORE_FILE_SYNTAX`, as for Airflow; globs where it says nothing else.
    pub fn from_environment() -> Self {
        match env_vars::text("AIRFLOW__CORE__DAG_IGNORE_FILE_SYNTAX") {
            Some(word) if word.eq_ignore_ascii_case("regexp") => Self::Regexp,
            _ => Self::Glob,
        }
    }
}

enum Rule {
    /// A file as git reads its own.
    Globs(Gitignore),
    /// Searched for in the path below the workspace.
    Expressions(Vec<Regex>),
}

/// The rules that are in force in a folder: those of the folders above it, and its own.
#[derive(Clone)]
pub struct Rules {
    workspace: Arc<PathBuf>,
    syntax: Syntax,
    /// From the top down.
    rules: Arc<Vec<Arc<Rule>>>,
}

impl Rules {
    pub fn new(workspace: &Path, syntax: Syntax) -> Self {
        Self { workspace: Arc::new(workspace.to_owned()), syntax, rules: Arc::default() }
    }

    /// With those that the folder itself has. A file that cannot be read has none.
    pub fn with_those_of(self, folder: &Path) -> Self {
        let airflow = match self.syntax {
            Syntax::Glob => globs(folder, AIRFLOW_FILE),
            Syntax::Regexp => expressions(folder),
        };
        let own: Vec<Rule> = [airflow, globs(folder, IGNORE_FILE)].into_iter().flatten().collect();
        if own.is_empty() {
            return self;
        }
        let rules = self.rules.iter().cloned().chain(own.into_iter().map(Arc::new)).collect();
        Self { rules: Arc::new(rules), ..self }
    }

    pub fn leave_out(&self, path: &Path, is_folder: bool) -> bool {
        // Of globs the last that says something counts, and the nearest file is the last.
        let globs = self.rules.iter().rev().find_map(|rule| match &**rule {
            Rule::Globs(globs) => Some(globs.matched(path, is_folder)).filter(|found| !found.is_none()),
            Rule::Expressions(_) => None,
        });
        let below = path.strip_prefix(&*self.workspace).unwrap_or(path).to_string_lossy();
        globs.is_some_and(|found| found.is_ignore())
            || self.rules.iter().any(|rule| match &**rule {
                Rule::Globs(_) => false,
                Rule::Expressions(all) => all.iter().any(|one| one.is_match(&below)),
            })
    }
}

/// The lines of an ignore file that say something.
fn lines(folder: &Path, name: &str) -> Option<Vec<String>> {
    let text = files::read_text(&folder.join(name), SIZE_LIMIT).ok().flatten()?;
    let said = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    Some(text.lines().filter(said).map(str::to_owned).collect())
}

fn globs(folder: &Path, name: &str) -> Option<Rule> {
    let mut builder = GitignoreBuilder::new(folder);
    for line in lines(folder, name)? {
        // A line that is no glob leaves nothing out.
        let _ = builder.add_line(None, &line);
    }
    builder.build().ok().map(Rule::Globs)
}

fn expressions(folder: &Path) -> Option<Rule> {
    let without_comment = |line: &String| line.split('#').next().unwrap_or_default().trim_end().to_owned();
    let all = lines(folder, AIRFLOW_FILE)?;
    Some(Rule::Expressions(all.iter().filter_map(|line| Regex::new(&without_comment(line)).ok()).collect()))
}
