//! Addresses (URLs) in requirements, constraints and indexes: checks them for secrets, removes their logins and
//! resolves relative references.

use super::error::LineError;
use regex::Regex;
use std::sync::LazyLock;

/// Prefixes of the access tokens of GitHub and GitLab.
const TOKEN_PREFIXES: [&str; 6] = ["ghp_", "gho_", "ghs_", "ghu_", "github_pat_", "glpat-"];
/// Length from which a user name with digits counts as a token.
const TOKEN_LENGTH: usize = 20;

/// True for `http://…` and `https://…`.
pub fn is_web(text: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .any(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
}

/// Option that includes a file, in a list of requirements.
const INCLUDE: &str = "-r";

/// The line in a list of requirements that includes the file at an address.
pub fn include_line(address: &str) -> String {
    format!("{INCLUDE} {address}")
}

/// The address in a line that includes a file; `None` for a requirement.
pub fn included_address(requirement: &str) -> Option<&str> {
    requirement.strip_prefix(INCLUDE).map(str::trim).filter(|address| is_constraints_file(address))
}

/// True for the address of an included file; a requirement or constraint begins with a package name instead.
pub fn is_constraints_file(constraint: &str) -> bool {
    is_web(constraint) || constraint.starts_with("${")
}

/// The last part of the scheme of an address, the user, and the password if there is one.
static LOGIN: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(\w*)://([^/#? :]*)(?::([^/#? ]*))?@").expect("a valid expression"));

/// Checks that an address contains no password or token, because addresses are stored in the datastore and displayed. A
/// user name alone is allowed, and `${NAME}` in place of a password.
pub fn check_login(address: &str) -> Result<(), LineError> {
    let Some(login) = LOGIN.captures(address) else { return Ok(()) };
    let password = login.get(3).map_or("", |password| password.as_str());
    if (password.is_empty() || is_variable(password)) && !is_token(&login[2]) {
        return Ok(());
    }
    Err(if &login[1] == "ssh" { LineError::SshPassword } else { LineError::Password })
}

fn is_variable(text: &str) -> bool {
    text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).is_some_and(|name| !name.contains(['$', '{', '}']))
}

fn is_token(user: &str) -> bool {
    let is_long = user.len() >= TOKEN_LENGTH && user.bytes().any(|byte| byte.is_ascii_digit());
    !is_variable(user) && (is_long || TOKEN_PREFIXES.iter().any(|prefix| user.starts_with(prefix)))
}

/// Returns the text without the logins (`user:password@`) in its addresses.
pub fn without_logins(text: &str) -> String {
    LOGIN.replace_all(text, "${1}://").into_owned()
}

/// Resolves a reference, absolute or relative, that stands in the file at the address `base`.
pub fn join(base: &str, reference: &str) -> String {
    if is_web(reference) {
        return reference.to_owned();
    }
    let base = base.split(['?', '#']).next().unwrap_or_default();
    let host = base.find("://").map_or(base.len(), |end| end + 3);
    let origin = base[host..].find('/').map_or(base.len(), |end| host + end);
    match reference.starts_with('/') {
        true => format!("{}{reference}", &base[..origin]),
        false => {
            let folder = base.rfind('/').filter(|end| *end >= origin).unwrap_or(base.len());
            format!("{}/{reference}", &base[..folder])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_is_no_secret_and_a_password_is() {
        for address in [
            "git+ssh://git@github.com/o/r.git@main",
            "https://oauth2accesstoken@europe-python.pkg.dev/p/simple/",
            "https://__token__:${TOKEN}@i.example/simple",
            "https://${USER}:${PASS}@i.example/simple",
            "git+https://${TOKEN}@github.com/o/r.git",
            "https://i.example/a@b:c/x@1.whl",
        ] {
            check_login(address).unwrap();
        }
        for (address, expected) in [
            ("https://me:secret@i.example/simple", "~/.netrc"),
            ("https://me:${A}secret@i.example/simple", "~/.netrc"),
            ("git+https://ghp_secret@github.com/o/r.git", "~/.netrc"),
            ("https://0123456789secret0123456789@i.example/simple", "~/.netrc"),
            ("git+ssh://git:secret@github.com/o/r.git", "use a key"),
        ] {
            let error = check_login(address).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn logins_are_removed_from_addresses() {
        let text = "x @ https://${U}:${P}@h/${A}/x.whl ; a == 'b@c'";
        assert_eq!(without_logins(text), "x @ https://h/${A}/x.whl ; a == 'b@c'");
        assert_eq!(without_logins("pandas"), "pandas");
    }

    #[test]
    fn references_resolve_against_the_address_of_their_file() {
        for (base, reference, expected) in [
            ("https://h/a/base.txt?ref=1", "more.txt", "https://h/a/more.txt"),
            ("https://h/a/base.txt", "/b/more.txt", "https://h/b/more.txt"),
            ("https://h", "more.txt", "https://h/more.txt"),
            ("https://h/a/base.txt", "http://other/x.txt", "http://other/x.txt"),
        ] {
            assert_eq!(join(base, reference), expected);
        }
    }
}
