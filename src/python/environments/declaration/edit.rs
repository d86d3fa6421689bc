//! Adds packages to a requirements file, as `leoflow add` does.

use crate::environments::pins::name_of;

/// Returns the text with these requirements added: each replaces the line for the same package, or is appended.
pub fn added_to(text: &str, packages: &[String]) -> String {
    let line_end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut lines: Vec<&str> = text.lines().collect();
    for package in packages {
        // Keeps a line with hashes, in it or in its continuation lines: they belong to its version.
        let is_its_line = |line: &&str| {
            let is_requirement = line.starts_with(|c: char| c.is_alphanumeric()) && !line.trim_end().ends_with('\\');
            is_requirement && !line.contains("--hash") && name_of(line) == name_of(package)
        };
        match lines.iter().position(is_its_line) {
            Some(line) => lines[line] = package,
            None => lines.push(package),
        }
    }
    lines.iter().map(|line| format!("{line}{line_end}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(text: &str, packages: &[&str]) -> String {
        added_to(text, &packages.iter().map(|package| (*package).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn packages_are_appended_or_replaced() {
        assert_eq!(added("", &["pandas"]), "pandas\n");
        assert_eq!(added("# mine\na", &["b>=2"]), "# mine\na\nb>=2\n");
        assert_eq!(added("a==1\r\nB_x<2\r\n", &["b-x>=2"]), "a==1\r\nb-x>=2\r\n");
        let pinned = "a==1 \\\n    --hash=sha256:ab\n";
        assert_eq!(added(pinned, &["a==1"]), format!("{pinned}a==1\n"));
    }
}
