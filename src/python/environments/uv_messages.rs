//! Turns the output of uv into a message for users. uv's hints name options of uv, which Leoflow's users cannot pass,
//! so they are replaced by variables and settings.

use super::uv_variables;
use regex::{Captures, Regex};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

/// Options that uv suggests and that no variable sets, each with a replacement. `{}` is the option's value.
const REPLACEMENTS: [(&str, &str); 3] = [
    ("prerelease", "--pre in requirements.txt"),
    ("allow-insecure-host", "`--trusted-host {}` in requirements.txt"),
    ("refresh", "`leoflow env update --reinstall`"),
];
/// The start of a command of this program in a replacement.
const COMMAND: &str = "`leoflow ";
/// Texts in uv's message about a certificate that no authority of this machine has signed.
const UNKNOWN_ISSUER: [&str; 2] = ["UnknownIssuer", "invalid peer certificate"];
const ABOUT_ISSUERS: &str = "hint: does a proxy inspect TLS? Add its certificate to the system's, or name it in \
                             SSL_CERT_FILE; see docs/how-to/use-behind-a-proxy.md";

/// uv's error message, from the first line of an error to the end of the output; without such a line, the last three
/// lines. `None` if that is empty. `home_option` chooses the home in the commands of this program.
pub fn error_message(output_lines: &[String], home_option: Option<&str>) -> Option<String> {
    let starts = ["error", "  ×", "×"];
    let start = output_lines.iter().position(|line| starts.iter().any(|start| line.starts_with(start)));
    let lines = &output_lines[start.unwrap_or(output_lines.len().saturating_sub(3))..];
    let text = lines.join("\n").trim().trim_start_matches("error: ").to_owned();
    (!text.is_empty()).then(|| with_usable_hints(&text, home_option))
}

/// Replaces hints by hints that a user of Leoflow can follow.
fn with_usable_hints(text: &str, home_option: Option<&str>) -> String {
    let translated = with_options_replaced(text, |option, value| {
        replacement(option, value, home_option).or_else(|| variable(option, value, uv_variables::is_passed))
    });
    match UNKNOWN_ISSUER.iter().any(|words| text.contains(words)) {
        true => format!("{translated}\n{ABOUT_ISSUERS}"),
        false => translated,
    }
}

/// Replaces the place in a staged `file` with this text (`FILE` at position BYTE, or FILE:LINE:COLUMN) by the place in
/// the project's file that has the line. `None` if the message names no line of the file.
pub fn with_origin(message: &str, file: &Path, text: &str, origins: &BTreeMap<String, String>) -> Option<String> {
    let (before, after) = message.split_once(&*file.to_string_lossy())?;
    let numbers = after.trim_start_matches("` at position ").trim_start_matches(':');
    let end = numbers.find(|c: char| !c.is_ascii_digit()).unwrap_or(numbers.len());
    let number: usize = numbers[..end].parse().ok()?;
    let (line, quote) = match after.strip_prefix('`') {
        Some(_) => (text.get(..number)?.matches('\n').count(), "`"),
        None => (number.checked_sub(1)?, ""),
    };
    let origin = origin_of(text.lines().nth(line)?, origins)?;
    let rest = numbers[end..].trim_start_matches(|c: char| c == ':' || c.is_ascii_digit());
    Some(format!("{before}{origin}{quote}{rest}"))
}

/// The place of a requirement in the project, such as `FILE:LINE`; without a line number if it has several lines.
pub fn origin_of(requirement: &str, origins: &BTreeMap<String, String>) -> Option<String> {
    let origin = origins.get(requirement)?;
    let has_requirement = |line: &str| line.contains(requirement.split(" --hash").next().unwrap_or_default());
    let number = std::fs::read_to_string(origin).ok().and_then(|text| text.lines().position(has_requirement));
    Some(format!("{origin}{}", number.map(|index| format!(":{}", index + 1)).unwrap_or_default()))
}

/// The setting or command of Leoflow that replaces an option of uv.
fn replacement(option: &str, value: Option<&str>, home_option: Option<&str>) -> Option<String> {
    let (_, text) = REPLACEMENTS.iter().find(|(name, _)| *name == option)?;
    let command = home_option.map_or_else(|| COMMAND.to_owned(), |option| format!("{COMMAND}{option} "));
    Some(text.replace("{}", value.unwrap_or("HOST")).replace(COMMAND, &command))
}

/// The environment variable that replaces an option of uv, if Leoflow passes it to uv.
fn variable(option: &str, value: Option<&str>, is_passed: impl Fn(&str) -> bool) -> Option<String> {
    let name = format!("UV_{}", option.replace('-', "_").to_uppercase());
    is_passed(&name).then(|| format!("`{name}={}`", value.unwrap_or("1")))
}

/// Replaces each quoted option of uv in a message by the text that `instead` returns for its name and value. Removes a
/// hint with an option that has no replacement.
fn with_options_replaced(message: &str, instead: impl Fn(&str, Option<&str>) -> Option<String>) -> String {
    static OPTION: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"`--([^\s=`]+)[\s=]*([^\s`]+)?[^`]*`").expect("a valid expression"));
    let mut blocks: Vec<Vec<&str>> = vec![Vec::new()];
    for line in message.lines() {
        let ends_hint = line.trim().is_empty() && blocks.last().is_some_and(|block| is_hint(block));
        if is_hint(&[line]) || ends_hint {
            blocks.push(Vec::new());
        }
        if let Some(block) = blocks.last_mut() {
            block.push(line);
        }
    }
    let rewritten = blocks.iter().filter_map(|block| {
        let mut is_complete = true;
        let text = block.join("\n");
        let text = OPTION.replace_all(&text, |option: &Captures<'_>| {
            let replacement = instead(&option[1], option.get(2).map(|value| value.as_str()));
            is_complete &= replacement.is_some();
            replacement.unwrap_or_else(|| option[0].to_owned())
        });
        if !is_hint(block) {
            return Some(text.into_owned());
        }
        let text = text.replace("command-line flag", "variable of the environment in which Leoflow starts");
        (is_complete && !text.contains("command-line")).then_some(text)
    });
    rewritten.collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

fn is_hint(block: &[&str]) -> bool {
    block.first().is_some_and(|line| line.trim_start().starts_with("hint:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extracts_the_error_message_of_uv() {
        let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let lines = owned(&["Using Python 3.11", "  × No solution found", "  ╰─▶ Because x was not found"]);
        assert_eq!(error_message(&lines, None).unwrap(), "× No solution found\n  ╰─▶ Because x was not found");
        assert_eq!(error_message(&owned(&["error: it is cold"]), None).unwrap(), "it is cold");
        assert_eq!(error_message(&[], None), None);
    }

    #[test]
    fn hints_are_those_a_user_can_follow() {
        let message = |line: &str| error_message(&[format!("error: {line}")], None).unwrap();
        let text = message("pre-releases weren't enabled (try: `--prerelease=allow`)");
        assert_eq!(text, "pre-releases weren't enabled (try: --pre in requirements.txt)");
        let text = message("client error\n  cause: invalid peer certificate: UnknownIssuer");
        assert!(text.contains("Add its certificate to the system's"), "{text}");
    }

    #[test]
    fn hints_name_a_setting_in_place_of_an_option() {
        let message = |line: &str| error_message(&[format!("error: it is cold\n  hint: {line}")], None).unwrap();
        let text = message("Consider `--allow-insecure-host\n  a.example`, or not");
        assert_eq!(text, "it is cold\n  hint: Consider `--trusted-host a.example` in requirements.txt, or not");
        let text = message("use `--index-strategy unsafe-best-match` and `--prerelease=allow`");
        assert_eq!(text, "it is cold\n  hint: use `UV_INDEX_STRATEGY=unsafe-best-match` and --pre in requirements.txt");
        assert_eq!(message("try `--refresh`"), "it is cold\n  hint: try `leoflow env update --reinstall`");
        assert_eq!(message("try `--frozen` or `--refresh`"), "it is cold");
        let of_home = error_message(&["error: try `--refresh`".into()], Some("--home /h"));
        assert_eq!(of_home.unwrap(), "try `leoflow --home /h env update --reinstall`");
        assert_eq!(error_message(&["error: no `--frozen` or `x".into()], None).unwrap(), "no `--frozen` or `x");
    }

    fn without_options(message: &str, is_passed: impl Fn(&str) -> bool) -> String {
        with_options_replaced(message, |option, value| variable(option, value, &is_passed))
    }

    #[test]
    fn hints_have_variables_in_place_of_options() {
        let message = "× No solution found\n  ╰─▶ Because `a` was not found\n\n      hint: If all indexes are equally trusted, use \
                       `--index-strategy\n      unsafe-best-match` to consider all.\n\n      hint: Pre-releases are available, \
                       try: `--prerelease=allow`\n      hint: `a` was found, but not for Python 3.9";
        let expected = "× No solution found\n  ╰─▶ Because `a` was not found\n\n      hint: If all indexes are equally trusted, \
                        use `UV_INDEX_STRATEGY=unsafe-best-match` to consider all.\n\n      hint: `a` was found, but not for \
                        Python 3.9";
        assert_eq!(without_options(message, |name| name == "UV_INDEX_STRATEGY"), expected);
        let certificates = "error\n  hint: Consider the system's, with the `--system-certs` command-line flag";
        assert_eq!(
            without_options(certificates, |_| true),
            "error\n  hint: Consider the system's, with the `UV_SYSTEM_CERTS=1` variable of the environment in which Leoflow \
             starts"
        );
        assert_eq!(without_options(certificates, |_| false), "error");
        assert_eq!(without_options("no `--hint` here", |_| false), "no `--hint` here");
    }

    #[test]
    fn a_refused_line_is_named_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let origin = folder.path().join("requirements.txt");
        std::fs::write(&origin, "# mine\na\nb== # why\n").unwrap();
        let origins = [("b==".to_owned(), origin.display().to_string())].into();
        let staged = Path::new("/s/requirements.in");
        let named = |message: &str| with_origin(message, staged, "a\nb==\n", &origins);
        let place = format!("{}:3", origin.display());
        let expected = format!("Couldn't parse requirement in `{place}`\n  cause: b==");
        let refused = "Couldn't parse requirement in `/s/requirements.in` at position 2\n  cause: b==";
        assert_eq!(named(refused), Some(expected));
        assert_eq!(named("Expected x: /s/requirements.in:2:7\n"), Some(format!("Expected x: {place}\n")));
        assert_eq!(named("Expected x: /s/requirements.in:1:7"), None);
        assert_eq!(named("no solution"), None);
    }
}
