//! Merges the declarations for a DAG file. Two conflicting declarations are an error that names both files.

use super::declared::Declared;
use super::error::DeclarationError;
use super::python_range::PythonRange;
use super::requirements::{Declaration, Role};
use std::collections::BTreeSet;
use std::fmt::Display;

/// A declaration, and the file that contains it.
pub struct Source {
    pub origin: String,
    pub declaration: Declaration,
}

/// The error for two sources that do not agree.
pub fn conflict(first: impl Display, second: impl Display, subject: &'static str) -> DeclarationError {
    DeclarationError::Conflict { first: first.to_string(), second: second.to_string(), subject }
}

/// Checks and merges the declarations; `None` if they contain no requirement and no Python version.
pub fn merge(sources: Vec<Source>) -> Result<Option<Declared>, DeclarationError> {
    let mut declared = Declared::default();
    let (mut requirements, mut constraints) = (BTreeSet::new(), BTreeSet::new());
    let mut first: Option<(&str, BTreeSet<String>)> = None;
    let mut index: Option<(&str, &String)> = None;
    for Source { origin, declaration } in &sources {
        let named = DeclarationError::in_origin(origin);
        let listed = declaration.requirements.iter().flatten().chain(&declaration.additional);
        listed.clone().try_for_each(|line| Role::Requirements.check(line)).map_err(&named)?;
        declaration.constraints.iter().try_for_each(|line| Role::Constraints.check(line)).map_err(&named)?;
        // uv accepts the lines of lock files, which are long.
        let written = declaration.constraints.iter().filter(|line| !line.contains("--hash="));
        for line in listed.clone().chain(written) {
            let file = declaration.origins.get(line).map(|file| file.display().to_string());
            declared.origins.insert(line.trim().to_owned(), file.unwrap_or_else(|| origin.clone()));
        }
        requirements.extend(trimmed(listed));
        constraints.extend(trimmed(declaration.constraints.iter()));
        // An empty list, as tools write into a new project, conflicts with nothing.
        let list: BTreeSet<String> = trimmed(declaration.requirements.iter().flatten()).collect();
        match &first {
            _ if list.is_empty() => {}
            Some((other, before)) if *before != list => return Err(conflict(other, origin, "the requirements")),
            _ => first = Some((origin, list)),
        }
        if let Some(range) = &declaration.python {
            range.parse::<PythonRange>().map_err(&named)?;
            declared.python.push(range.clone());
        }
        declaration.index.check().map_err(&named)?;
        match (index, &declaration.index.first) {
            (_, None) => {}
            (Some((other, before)), Some(url)) if before != url => return Err(conflict(other, origin, "the index")),
            (_, Some(url)) => index = Some((origin, url)),
        }
        declared.index.extend(&declaration.index);
    }
    declared.index.first = index.map(|(_, url)| url.clone());
    (declared.requirements, declared.constraints) =
        (requirements.into_iter().collect(), constraints.into_iter().collect());
    let has_declarations = !declared.requirements.is_empty() || !declared.python.is_empty();
    Ok(has_declarations.then_some(declared))
}

fn trimmed<'a>(lines: impl Iterator<Item = &'a String>) -> impl Iterator<Item = String> {
    lines.map(|line| line.trim().to_owned())
}
