//! Rewrites the hints in uv's messages: its options cannot be given to Leoflow, but some have a variable that can.

/// Returns the message with uv's options replaced by variables that uv receives from Leoflow. A hint with an option that
/// has none is removed.
pub fn without_options(message: &str, is_passed: impl Fn(&str) -> bool) -> String {
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
    let rewritten = blocks.iter().filter_map(|block| match is_hint(block) {
        true => with_variables(&block.join("\n"), &is_passed),
        false => Some(block.join("\n")),
    });
    rewritten.collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

fn is_hint(block: &[&str]) -> bool {
    block.first().is_some_and(|line| line.trim_start().starts_with("hint:"))
}

/// Replaces each quoted option; `None` if one has no variable.
fn with_variables(hint: &str, is_passed: &impl Fn(&str) -> bool) -> Option<String> {
    let mut parts = hint.split('`');
    let mut text = parts.next()?.to_owned();
    for (index, part) in parts.enumerate() {
        // Every second part is quoted.
        match part.strip_prefix("--").filter(|_| index % 2 == 0) {
            Some(option) => {
                let mut words = option.split(|c: char| c.is_whitespace() || c == '=').filter(|word| !word.is_empty());
                let name = format!("UV_{}", words.next()?.replace('-', "_").to_uppercase());
                if !is_passed(&name) {
                    return None;
                }
                text.push_str(&format!("`{name}={}", words.next().unwrap_or("1")));
            }
            None => {
                text.push('`');
                text.push_str(part);
            }
        }
    }
    let text = text.replace("command-line flag", "variable of the environment in which Leoflow starts");
    (!text.contains("command-line")).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
