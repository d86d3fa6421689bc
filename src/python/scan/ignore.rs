//! Ignore files of a workspace or another DAG folder: `.airflowignore`, in the syntax that Airflow is configured for,
//! and `.leoflowignore`, which always contains globs.
//! <https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/dags.html#airflowignore>

use ::ignore::gitignore::{Gitignore, GitignoreBuilder};
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
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
    /// Reads `AIRFLOW__CORE__DAG_IGNORE_FILE_SYNTAX`, as Airflow does; the default is globs.
    pub fn from_environment() -> Self {
        match env_vars::text("AIRFLOW__CORE__DAG_IGNORE_FILE_SYNTAX") {
            Some(syntax) if syntax.eq_ignore_ascii_case("regexp") => Self::Regexp,
            _ => Self::Glob,
        }
    }
}

/// The kind of a path: some globs match only folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    File,
    Folder,
}

enum Rule {
    /// Globs of one file, in the syntax of `.gitignore`.
    Globs(Gitignore),
    /// Regular expressions, searched for in the path below the top folder (`Rules::workspace`).
    Expressions(Vec<Regex>),
}

/// The rules that apply in a folder: its own, and those of the folders above it.
#[derive(Clone)]
pub struct Rules {
    workspace: Arc<PathBuf>,
    syntax: Syntax,
    /// Ordered from the top folder down.
    rules: Arc<Vec<Arc<Rule>>>,
}

impl Rules {
    pub fn new(workspace: &Path, syntax: Syntax) -> Self {
        Self { workspace: Arc::new(workspace.to_owned()), syntax, rules: Arc::default() }
    }

    /// Adds the rules in a folder's ignore files. An unreadable file has no rules.
    pub fn with_folder(self, folder: &Path) -> Self {
        let airflow = match self.syntax {
            Syntax::Glob => globs(folder, AIRFLOW_FILE),
            Syntax::Regexp => expressions(folder),
        };
        let own_rules: Vec<Rule> = [airflow, globs(folder, IGNORE_FILE)].into_iter().flatten().collect();
        if own_rules.is_empty() {
            return self;
        }
        let rules = self.rules.iter().cloned().chain(own_rules.into_iter().map(Arc::new)).collect();
        Self { rules: Arc::new(rules), ..self }
    }

    /// True if the rules exclude a path.
    pub fn excludes(&self, path: &Path, kind: PathKind) -> bool {
        // As in git, the last matching glob of the nearest file decides.
        let globs = self.rules.iter().rev().find_map(|rule| match &**rule {
            Rule::Globs(globs) => {
                Some(globs.matched(path, kind == PathKind::Folder)).filter(|matched| !matched.is_none())
            }
            Rule::Expressions(_) => None,
        });
        let relative = path.strip_prefix(&*self.workspace).unwrap_or(path).to_string_lossy();
        globs.is_some_and(|matched| matched.is_ignore())
            || self.rules.iter().any(|rule| match &**rule {
                Rule::Globs(_) => false,
                Rule::Expressions(all) => all.iter().any(|expression| expression.is_match(&relative)),
            })
    }
}

/// The rules in an ignore file: its lines without comments and blank lines. `None` if the file cannot be read.
fn lines(folder: &Path, name: &str) -> Option<Vec<String>> {
    let text = files::read_text(&folder.join(name), SIZE_LIMIT).ok().flatten()?;
    let is_rule = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    Some(text.lines().filter(is_rule).map(str::to_owned).collect())
}

fn globs(folder: &Path, name: &str) -> Option<Rule> {
    let mut builder = GitignoreBuilder::new(folder);
    for line in lines(folder, name)? {
        // An invalid glob is skipped.
        let _ = builder.add_line(None, &line);
    }
    builder.build().ok().map(Rule::Globs)
}

fn expressions(folder: &Path) -> Option<Rule> {
    let without_comment = |line: &String| line.split('#').next().unwrap_or_default().trim_end().to_owned();
    let all = lines(folder, AIRFLOW_FILE)?;
    Some(Rule::Expressions(all.iter().filter_map(|line| Regex::new(&without_comment(line)).ok()).collect()))
}
