//! Merges the declarations for a DAG file. Two conflicting declarations are an error that names both files.

use super::declared::Declared;
use super::python_range::PythonRange;
use super::requirements::{self, Declaration};
use std::fmt::Display;

/// A declaration, and the file that contains it.
pub struct Source {
    pub origin: String,
    pub declaration: Declaration,
}

/// The error for two sources that do not agree.
pub fn conflict<T>(first: impl Display, second: impl Display, subject: &str) -> Result<T, String> {
    Err(format!("{first} and {second} do not agree on {subject}; keep one of the two, or make both the same"))
}

/// Merges the declarations; `None` if they contain no requirement and no Python version. The error is a message for the
/// user.
pub fn merge(sources: Vec<Source>) -> Result<Option<Declared>, String> {
    let mut declared = Declared::default();
    let mut first: Option<(&str, Vec<String>)> = None;
    let mut index: Option<(&str, &String)> = None;
    for source in &sources {
        let origin = source.origin.as_str();
        // An empty list, as tools write into a new project, conflicts with nothing.
        if let Some(requirements) = source.declaration.requirements.as_ref().filter(|all| !all.is_empty()) {
            for requirement in requirements {
                requirements::check(requirement).map_err(|error| format!("{origin}: {error}"))?;
            }
            let requirements = sorted_unique(requirements);
            match &first {
                Some((other, before)) if *before != requirements => return conflict(other, origin, "the requirements"),
                _ => first = Some((origin, requirements)),
            }
        }
        for requirement in &source.declaration.additional {
            requirements::check(requirement).map_err(|error| format!("{origin}: {error}"))?;
        }
        if let Some(range) = &source.declaration.python {
            range.parse::<PythonRange>().map_err(|error| format!("{origin}: {error}"))?;
            declared.python.push(range.clone());
        }
        source.declaration.index.check().map_err(|error| format!("{origin}: {error}"))?;
        if let Some(url) = &source.declaration.index.first {
            match index {
                Some((other, before)) if before != url => return conflict(other, origin, "the index"),
                _ => index = Some((origin, url)),
            }
        }
        declared.index.extend(&source.declaration.index);
        for constraint in &source.declaration.constraints {
            requirements::check_constraint(constraint).map_err(|error| format!("{origin}: {error}"))?;
            declared.constraints.push(constraint.clone());
        }
    }
    declared.index.first = index.map(|(_, url)| url.clone());
    let additional = sources.iter().flat_map(|source| source.declaration.additional.clone());
    let requirements = first.into_iter().flat_map(|(_, requirements)| requirements);
    declared.requirements = sorted_unique(&requirements.chain(additional).collect::<Vec<_>>());
    declared.constraints = sorted_unique(&declared.constraints);
    let has_declarations = !declared.requirements.is_empty() || !declared.python.is_empty();
    Ok(has_declarations.then_some(declared))
}

fn sorted_unique(lines: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = lines.iter().map(|line| line.trim().to_owned()).collect();
    lines.sort();
    lines.dedup();
    lines
}
