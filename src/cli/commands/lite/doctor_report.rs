//! `leoflow doctor --report`: what a bug report needs, as text.

use crate::context::Context;
use crate::error::Error;
use leoflow_base::auth::masking::SENSITIVE;
use leoflow_base::build_info::{build_info, version};
use leoflow_base::sys::{env_vars, user};
use leoflow_lifecycle::setup::{Check, Verdict};
use leoflow_processes::supervisor::{LOG_NAMES, last_lines};
use regex::Regex;
use serde_json::json;
use std::fmt::Write;
use std::path::Path;
use std::sync::LazyLock;

/// Lines of each log in the report.
const LOG_LINES: usize = 100;

/// The login in a URL, to the last @: a password may contain any character.
static LOGIN: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"://[^\s"]*@"#).expect("a valid expression"));
/// What follows a name that says that it is a secret, to the end of the line: a password may contain any character.
static SECRET: LazyLock<Regex> = LazyLock::new(|| {
    let names = SENSITIVE.lines().collect::<Vec<_>>().join("|").replace('_', "[_-]?");
    let name = format!(r"[\w-]*(?:{names}|[_-]key)[\w-]*");
    let assigned = r#"\\?["']?\s*[=:]|\\?["']?,?\s+\\?["']|\(["']"#;
    Regex::new(&format!(r"(?im)({name}(?:{assigned})|--{name}\s|bearer\s).+$"))
        .expect("the names have only letters and _")
});

/// Prints the report: versions, checks, and the end of each log of Leoflow's own processes. Settings, DAG files, task logs,
/// environment variables and failed statements of SQL are not in it.
pub fn print(context: &Context<'_>, checks: &[Check]) -> Result<u8, Error> {
    let mut text = format!(
        "leoflow {} {} for {}\n{}\n\n",
        version(),
        build_info().commit.unwrap_or("development"),
        build_info().target,
        user::kernel()
    );
    for Check { name, finding } in checks {
        let verdict = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Problem => "problem",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{verdict:<8} {name:<12} {}", finding.detail);
    }
    for name in LOG_NAMES {
        let lines = without_statements(last_lines(&context.home, name, LOG_LINES));
        if !lines.is_empty() {
            let _ = write!(text, "\n--- {name}.log\n{}\n", lines.join("\n"));
        }
    }
    let user_home = env_vars::user_home();
    let resolved = user_home.as_ref().and_then(|home| home.canonicalize().ok());
    let text = [user_home, resolved].into_iter().flatten().fold(text, |text, home| without_home(&text, &home));
    let text = without_secrets(&text);
    context.printer.show(&json!({"report": text}), |printer| printer.line(text.trim_end()))
}

/// Replaces the folder of the user, whose name may be that of a person.
fn without_home(text: &str, home: &Path) -> String {
    let name = regex::escape(&home.to_string_lossy());
    match Regex::new(&format!(r"{name}(/|\.?(?:[^\w./-]|$))")) {
        Ok(folder) if home.parent().is_some() => folder.replace_all(text, "~$1").into_owned(),
        _ => text.to_owned(),
    }
}

/// Leaves out what PostgreSQL adds to a failed statement, which may contain values. The first lines may belong to it, too:
/// further lines begin with a tab. The details of a failed start stay.
fn without_statements(lines: Vec<String>) -> Vec<String> {
    let (mut is_statement, mut is_fatal) = (true, false);
    let is_kept = |line: &String| {
        let has = |fields: &[&str]| fields.iter().any(|field| line.contains(field));
        if !line.starts_with('\t') {
            let is_detail = has(&["DETAIL:"]);
            is_statement = has(&["STATEMENT:", "QUERY:", "CONTEXT:"]) || is_detail && !is_fatal;
            is_fatal = has(&["FATAL:", "PANIC:"]) || is_detail && is_fatal;
        }
        !is_statement
    };
    lines.into_iter().filter(is_kept).collect()
}

fn without_secrets(text: &str) -> String {
    SECRET.replace_all(&LOGIN.replace_all(text, "://***@"), "$1***").into_owned()
}

#[cfg(test)]
mod tests {
    use super::{without_home, without_secrets, without_statements};
    use std::path::Path;

    #[test]
    fn names_neither_the_user_nor_passwords() {
        let home = |text: &str| without_home(text, Path::new("/home/ada"));
        assert_eq!(
            home("cannot read /home/ada/.leoflow/logs: /home/ada, /home/adam, /home/ada.b, /home/ada."),
            "cannot read ~/.leoflow/logs: ~, /home/adam, /home/ada.b, ~."
        );
        assert_eq!(without_home("/tmp/x", Path::new("/")), "/tmp/x");
        for (text, expected) in [
            ("postgresql://ada:se@c/ret@db:5432/x failed", "postgresql://***@db:5432/x failed"),
            ("http://h/a?token=abc&x=1\nnext", "http://h/a?token=***\nnext"),
            ("host=h password='se cret'", "host=h password=***"),
            (r#"{\"password\": \"hunter2\"}"#, r#"{\"password\":***"#),
            (r#"{"password":"a b","host":"h"}"#, r#"{"password":***"#),
            ("PGPASSWORD=x; \"secret_key\": \"abc\"", "PGPASSWORD=***"),
            ("password: Some(\"hunter2\")", "password:***"),
            ("Authorization: Bearer abc", "Authorization:***"),
            ("got bearer abc", "got bearer ***"),
            ("X-API-Key: abc", "X-API-Key:***"),
            ("encryption_key =  abc", "encryption_key =***"),
            ("started with --db-password hunter2", "started with --db-password ***"),
            (r#""pg_dump" "--db-password" "hunter2""#, r#""pg_dump" "--db-password" "***"#),
            ("['mysql', '--password', 'hunter2']", "['mysql', '--password', '***"),
            ("Password(\"hunter2\")", "Password(\"***"),
            ("relation \"access_token\" does not exist", "relation \"access_token\" does not exist"),
            ("ALTER ROLE x PASSWORD 'hunter2'", "ALTER ROLE x PASSWORD '***"),
            ("password authentication failed for user \"x\"", "password authentication failed for user \"x\""),
            ("see http://127.0.0.1:8088/home", "see http://127.0.0.1:8088/home"),
        ] {
            assert_eq!(without_secrets(text), expected);
        }
    }
    #[test]
    fn contains_no_statement() {
        let lines = "\tVALUES ('x')\n1 ERROR:  syntax error\n1 STATEMENT:  ALTER ROLE x\n\tPASSWORD 'y'\n2 LOG:  ready\n\tand so on\n\
                     3 ERROR:  duplicate\n3 DETAIL:  Key (a)=(b)\n4 FATAL:  incompatible\n4 DETAIL:  version 17\n4 HINT:  initdb";
        let kept = without_statements(lines.lines().map(str::to_owned).collect());
        let expected = "1 ERROR:  syntax error\n2 LOG:  ready\n\tand so on\n3 ERROR:  duplicate\n4 FATAL:  incompatible\n\
                        4 DETAIL:  version 17\n4 HINT:  initdb";
        assert_eq!(kept.join("\n"), expected);
    }
}
