//! Fetches the files that a declaration includes by address (`-r https://…`, `-c https://…`), when it is resolved.

use super::declaration::addresses::{included_address, is_constraints_file, without_logins};
use super::declaration::declared::Declared;
use super::declaration::project_text::SIZE_LIMIT;
use super::declaration::requirements::{check, check_constraint};
use super::declaration::requirements_file::{MAX_FILES, Role, decode, read_fetched};
use leoflow_base::protocol::web;

/// All requirements and constraints of a declaration and of the files that it includes.
#[derive(Debug, Default)]
pub struct Included {
    pub requirements: Vec<String>,
    pub constraints: Vec<String>,
}

impl Included {
    /// The requirements and constraints, which may pin a file or a commit.
    pub fn pin_lines(&self) -> impl Iterator<Item = &String> {
        self.requirements.iter().chain(&self.constraints)
    }
}

/// Fetches the included files. The error, a message for the user, names the address without its login.
pub fn included(declared: &Declared) -> Result<Included, String> {
    collect(declared, &|address| {
        let url = declared.variables.expand(address)?;
        let bytes = web::fetch(&url, SIZE_LIMIT)?;
        decode(bytes)
    })
}

fn collect(declared: &Declared, fetch: &dyn Fn(&str) -> Result<String, String>) -> Result<Included, String> {
    let requirements = declared.requirements.iter().map(|line| (Role::Requirements, line.clone()));
    let constraints = declared.constraints.iter().map(|line| (Role::Constraints, line.clone()));
    let mut pending: Vec<(Role, String)> = requirements.chain(constraints).collect();
    let (mut included, mut files) = (Included::default(), 0);
    while let Some((role, line)) = pending.pop() {
        let address = match role {
            Role::Requirements => included_address(&line),
            Role::Constraints => Some(line.as_str()).filter(|line| is_constraints_file(line)),
        };
        let Some(address) = address else {
            match role {
                Role::Requirements => included.requirements.push(line),
                Role::Constraints => included.constraints.push(line),
            }
            continue;
        };
        let shown = without_logins(address);
        files += 1;
        if files > MAX_FILES {
            return Err(format!("{shown}: more than {MAX_FILES} files are included, or one includes itself"));
        }
        let named = |reason: String| format!("{shown}: {reason}");
        let lines = fetch(address).and_then(|text| read_fetched(address, &text, role)).map_err(named)?;
        for (role, line) in &lines {
            match role {
                Role::Requirements => check(line),
                Role::Constraints => check_constraint(line),
            }
            .map_err(named)?;
        }
        pending.extend(lines);
    }
    for lines in [&mut included.requirements, &mut included.constraints] {
        lines.sort();
        lines.dedup();
    }
    Ok(included)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(address: &str) -> Result<String, String> {
        Ok(match address {
            "https://h/a/r.txt" => "x==1\n-r more.txt\n-c c.txt\n",
            "https://h/a/more.txt" => "y\n",
            "https://h/a/c.txt" => "z<2\n",
            "https://me@h/loop.txt" => "-r loop.txt\n",
            _ => return Err("404 Not Found".to_owned()),
        }
        .to_owned())
    }

    fn declared(requirements: &[&str], constraints: &[&str]) -> Declared {
        let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        Declared { requirements: owned(requirements), constraints: owned(constraints), ..Declared::default() }
    }

    #[test]
    fn files_at_addresses_are_read_with_those_they_include() {
        let found = collect(&declared(&["a", "-r https://h/a/r.txt"], &["b<1", "https://h/a/c.txt"]), &files).unwrap();
        assert_eq!(found.requirements, ["a", "x==1", "y"]);
        assert_eq!(found.constraints, ["b<1", "z<2"]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = |requirement: &str| collect(&declared(&[requirement], &[]), &files).unwrap_err();
        assert_eq!(error("-r https://h/none.txt"), "https://h/none.txt: 404 Not Found");
        assert!(error("-r https://me@h/loop.txt").starts_with("https://h/loop.txt: more than"));
    }
}
