//! Turns the output of uv into a message for users, who cannot give uv the options that it names.

use super::{uv_hints, uv_variables};

/// What uv suggests, and what has the same effect here.
const INSTEAD: [(&str, &str); 6] = [
    (
        "`--index-strategy unsafe-best-match`",
        "UV_INDEX_STRATEGY=unsafe-best-match in the environment that starts Leoflow",
    ),
    ("`--prerelease=allow`", "--pre in requirements.txt"),
    ("`--allow-insecure-host ", "--trusted-host in requirements.txt, as in `--trusted-host "),
    ("`--system-certs`", "UV_SYSTEM_CERTS=true"),
    ("`--native-tls`", "UV_SYSTEM_CERTS=true"),
    ("`--refresh`", "`leoflow env update --reinstall`"),
];
/// A certificate that no authority of this machine has signed.
const UNKNOWN_ISSUER: [&str; 2] = ["UnknownIssuer", "invalid peer certificate"];
const ABOUT_ISSUERS: &str = "hint: does a proxy inspect TLS? Add its certificate to the system's, or name it in \
                             SSL_CERT_FILE; see docs/how-to/use-behind-a-proxy.md";

/// uv's error message: from the first line of an error to the end.
pub fn error_message(output_lines: &[String]) -> Option<String> {
    let starts = ["error", "  ×", "×"];
    let start = output_lines.iter().position(|line| starts.iter().any(|start| line.starts_with(start)));
    let lines = &output_lines[start.unwrap_or(output_lines.len().saturating_sub(3))..];
    let text = lines.join("\n").trim().trim_start_matches("error: ").to_owned();
    (!text.is_empty()).then(|| followable(&text))
}

/// The message with hints that the user can follow.
fn followable(text: &str) -> String {
    let translated = INSTEAD.iter().fold(text.to_owned(), |text, (option, instead)| text.replace(option, instead));
    let translated = uv_hints::without_options(&translated, uv_variables::is_passed);
    match UNKNOWN_ISSUER.iter().any(|words| text.contains(words)) {
        true => format!("{translated}\n{ABOUT_ISSUERS}"),
        false => translated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extracts_the_error_message_of_uv() {
        let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let lines = owned(&["Using Python 3.11", "  × No solution found", "  ╰─▶ Because x was not found"]);
        assert_eq!(error_message(&lines).unwrap(), "× No solution found\n  ╰─▶ Because x was not found");
        assert_eq!(error_message(&owned(&["error: it is cold"])).unwrap(), "it is cold");
        assert_eq!(error_message(&[]), None);
    }

    #[test]
    fn hints_are_those_a_user_can_follow() {
        let message = |line: &str| error_message(&[format!("error: {line}")]).unwrap();
        let text = message("pre-releases weren't enabled (try: `--prerelease=allow`)");
        assert_eq!(text, "pre-releases weren't enabled (try: --pre in requirements.txt)");
        let text = message("client error\n  cause: invalid peer certificate: UnknownIssuer");
        assert!(text.contains("Add its certificate to the system's"), "{text}");
    }
}
