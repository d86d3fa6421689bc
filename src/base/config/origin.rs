//! Origin of a setting's value: file and line, or environment variable.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    File { path: PathBuf, line: usize },
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => {
                write!(f, "{}:{line}", path.file_name().unwrap_or(path.as_os_str()).to_string_lossy())
            }
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// Origins by setting name: `port`, `backup.keep`.
pub type Origins = BTreeMap<String, Origin>;
