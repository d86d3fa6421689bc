//! Builds the property list of a service for launchd: launchd.plist(5). Pure.

use super::manager::HEAD;
use leoflow_base::protocol::child::{SERVICE, SERVICE_OF_LAUNCHD};
use std::path::Path;

/// Start of the line with the search path.
pub(super) const SEARCH_PATH: &str = "<key>PATH</key>";
pub(super) const COMMENT: &str = "<!--";
const HOME: &str = "<string>--home</string><string>";

pub(super) fn label(name: &str) -> String {
    format!("io.github.leoflow.{name}")
}

/// Returns the home named in a property list; `None` if it is not ours.
pub(super) fn home_in(text: &str) -> Option<String> {
    let home = |line: &str| line.trim().strip_prefix(HOME)?.strip_suffix("</string>").map(unescaped);
    text.lines().find_map(home)
}

pub(super) fn text(label: &str, program: &Path, home: &Path, search_path: Option<&str>) -> String {
    let program = escaped(&program.to_string_lossy());
    let home = escaped(&home.to_string_lossy());
    let search_path = match search_path {
        Some(path) => format!("    {SEARCH_PATH}<string>{}</string>\n", escaped(path)),
        None => String::new(),
    };
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
{COMMENT} {HEAD} -->
<plist version="1.0">
<dict>
  <key>Label</key><string>{label}</string>
  <key>ProgramArguments</key>
  <array>
    <string>{program}</string>
    {HOME}{home}</string>
    <string>lite</string>
  </array>
  <key>EnvironmentVariables</key>
  <dict>
    <key>{SERVICE}</key><string>{SERVICE_OF_LAUNCHD}</string>
{search_path}  </dict>
  <key>RunAtLoad</key><true/>
  <key>KeepAlive</key><dict><key>SuccessfulExit</key><false/></dict>
  {COMMENT} The supervisor stops its processes. Tasks keep running and the next start adopts them. -->
  <key>AbandonProcessGroup</key><true/>
  <key>ExitTimeOut</key><integer>90</integer>
  {COMMENT} launchd slows down other types. -->
  <key>ProcessType</key><string>Interactive</string>
  <key>StandardErrorPath</key><string>{home}/logs/supervisor.log</string>
</dict>
</plist>
"#
    )
}

/// A newline would end the line that [`home_in`] reads.
const ESCAPES: [(char, &str); 4] = [('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('\n', "&#10;")];

fn escaped(text: &str) -> String {
    let escape =
        |c: char| ESCAPES.iter().find(|(character, _)| *character == c).map(|(_, escape)| (*escape).to_owned());
    text.chars().map(|c| escape(c).unwrap_or_else(|| c.to_string())).collect()
}

fn unescaped(text: &str) -> String {
    ESCAPES.iter().rev().fold(text.to_owned(), |text, (character, escape)| text.replace(escape, &character.to_string()))
}

#[cfg(test)]
mod tests {
    use super::{escaped, unescaped};

    #[test]
    fn any_path_is_read_as_it_was_written() {
        for path in ["/Users/ada/.leoflow", "/a <b>&amp;lt;/c\n--d", "&amp;"] {
            assert_eq!(unescaped(&escaped(path)), path);
            assert!(!escaped(path).contains(['<', '\n']));
        }
    }
}
