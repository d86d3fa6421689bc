//! Fetches the files that a declaration includes by address (`-r https://…`, `-c https://…`), when it is resolved.

use super::declaration::addresses::without_logins;
use super::declaration::declared::Declared;
use super::declaration::error::{DeclarationError, LineError};
use super::declaration::pip_lines::decode;
use super::declaration::project_text::SIZE_LIMIT;
use super::declaration::requirements::Role;
use super::declaration::requirements_file::{MAX_FILES, read_fetched};
use leoflow_base::protocol::web;
use std::collections::BTreeSet;

/// All requirements and constraints of a declaration and of the files that it includes.
pub type Lines = BTreeSet<(Role, String)>;

/// Fetches the included files. The error names the address without its login.
pub fn included(declared: &Declared) -> Result<Lines, DeclarationError> {
    collect(declared, &|address| {
        let url = declared.variables.expand(address)?;
        decode(web::fetch(&url, SIZE_LIMIT).map_err(|error| LineError::Fetch(error.to_string()))?)
    })
}

fn collect(declared: &Declared, fetch: &dyn Fn(&str) -> Result<String, LineError>) -> Result<Lines, DeclarationError> {
    let mut pending: Vec<(Role, String)> = declared.lines().map(|(role, line)| (role, line.clone())).collect();
    let (mut lines, mut files) = (Lines::new(), 0);
    while let Some((role, line)) = pending.pop() {
        let Some(address) = role.included_address(&line) else {
            lines.insert((role, line));
            continue;
        };
        let named = DeclarationError::in_origin(without_logins(address));
        files += 1;
        if files > MAX_FILES {
            return Err(named(LineError::TooManyAddresses(MAX_FILES)));
        }
        let found = fetch(address).and_then(|text| read_fetched(address, &text, role)).map_err(&named)?;
        found.iter().try_for_each(|(role, line)| role.check(line)).map_err(&named)?;
        pending.extend(found);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(address: &str) -> Result<String, LineError> {
        Ok(match address {
            "https://h/a/r.txt" => "x==1\n-r more.txt\n-c c.txt\n",
            "https://h/a/more.txt" => "y\n",
            "https://h/a/c.txt" => "z<2\n",
            "https://me@h/loop.txt" => "-r loop.txt\n",
            _ => return Err(LineError::Fetch("404 Not Found".to_owned())),
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
        let of_role = |role| found.iter().filter(|(of, _)| *of == role).map(|(_, line)| line).collect::<Vec<_>>();
        assert_eq!(of_role(Role::Requirements), ["a", "x==1", "y"]);
        assert_eq!(of_role(Role::Constraints), ["b<1", "z<2"]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = |requirement: &str| collect(&declared(&[requirement], &[]), &files).unwrap_err().to_string();
        assert_eq!(error("-r https://h/none.txt"), "https://h/none.txt: 404 Not Found");
        assert!(error("-r https://me@h/loop.txt").starts_with("https://h/loop.txt: more than"));
    }
}
