//! Snapshots of the exact output of common commands and errors.
//! `INSTA_UPDATE=always cargo test --test it -- transcripts` updates them; review the difference as a user would.

use crate::support::{CommandOutput, TestHome};
use regex::Regex;
use std::fs;

/// A home, and the text of the commands that ran in it with their output.
struct Transcript {
    test: TestHome,
    text: String,
}

impl Transcript {
    fn new() -> Self {
        Self { test: TestHome::new(), text: String::new() }
    }

    fn run(&mut self, line: &str) {
        let arguments: Vec<&str> = line.split(' ').map(|word| if word == "''" { "" } else { word }).collect();
        let done = self.test.run(&arguments);
        self.write(line, &done);
    }

    fn run_all(&mut self, lines: &[&str]) {
        lines.iter().for_each(|line| self.run(line));
    }

    fn write(&mut self, line: &str, CommandOutput { code, stdout, stderr }: &CommandOutput) {
        self.text.push_str(&format!("$ leoflow {}\n", self.redacted(line)));
        for stream in [stdout, stderr] {
            self.text.push_str(&self.redacted(stream));
        }
        if *code != Some(0) {
            self.text.push_str(&format!("[exit code {}]\n", code.unwrap_or(-1)));
        }
        self.text.push('\n');
    }

    /// Replaces everything that differs between runs or machines.
    fn redacted(&self, text: &str) -> String {
        let mut text = text.to_owned();
        let workspace = self.test.workspace().display().to_string();
        let home = self.test.home.display().to_string();
        let folder = self.test.folder().display().to_string();
        let port = self.test.port.to_string();
        for (text_part, shown) in [
            (workspace.as_str(), "~/leoflow"),
            (home.as_str(), "~/.leoflow"),
            (folder.as_str(), "/folder"),
            (env!("CARGO_MANIFEST_DIR"), "/here"),
            (leoflow::BUILT.version, "VERSION"),
        ] {
            text = text.replace(text_part, shown);
        }
        let port = format!(r"\b{port}\b");
        for (pattern, shown) in [
            (port.as_str(), "8088"),
            (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d| [A-Z]{3,4})?", "TIME"),
            (r"\d{8}T\d{6}Z?(-\d+)?|\d{4}-\d\d-\d\dT?\d{6}Z?", "STAMP"),
            (r"\b([a-zA-Z0-9]{4}-){3}[a-zA-Z0-9]{4}\b", "PASSWORD"),
            (r"\b\d+(\.\d+)? ?(ms|s|min|h)\b", "DURATION"),
            (r"\b\d+(\.\d+)? ?([kKMG]i?)?B\b", "SIZE"),
            (r"\bpid \d+", "pid PID"),
            (r"\b[0-9a-f]{12,64}\b", "HASH"),
            (r"\b\d+ rows\b", "N rows"),
            (r"(?m) +$", ""),
            (r"(\S)  +", "$1  "),
        ] {
            text = Regex::new(pattern).unwrap().replace_all(&text, shown).into_owned();
        }
        text
    }
}

const FAILING: &str = "
from airflow.sdk import DAG, task

with DAG('failing'):

    @task
    def divide():
        return 1 / 0

    divide()
";

#[test]
fn help_texts() {
    let mut transcript = Transcript::new();
    transcript.run_all(&[
        "--help",
        "lite --help",
        "lite start --help",
        "lite backup --help",
        "dags --help",
        "upgrade --help",
    ]);
    insta::assert_snapshot!(transcript.text);
}

#[test]
fn common_commands() {
    let mut transcript = Transcript::new();
    let port = transcript.test.port.to_string();
    transcript.run_all(&["lite status", "lite stop", "version"]);
    let started = transcript.test.run(&["lite", "start", "--port", &port]);
    transcript.write("lite start", &started);
    transcript.test.wait_dag("hello", 1);
    transcript.run_all(&["lite start", "dags list", "dags show hello", "dags trigger hello --run-id first"]);
    // Not `dags trigger --wait`, whose progress lines depend on timing.
    transcript.test.wait_run("hello", "first");
    transcript.run_all(&[
        "runs list hello",
        "runs show hello first",
        "tasks list hello",
        "xcom list hello first",
        "xcom get hello first count",
        "variables list",
        "variables set bucket s3://data",
        "variables get bucket",
        "variables list",
        "variables delete bucket",
        "connections list",
        "connections add warehouse --conn-type postgres --conn-host db",
        "connections get warehouse",
        "pools list",
        "pools set narrow 3",
        "assets list",
        "backfill list",
        "hitl list",
        "env list",
        "config list",
        "config get port",
        "config set instance_name laptop",
        "config unset instance_name",
        "verify-config",
        "dags pause hello",
        "dags unpause hello",
        "lite backups list",
        "lite backup --output /folder/one.tar.zst"
            .replace("/folder", &transcript.test.folder().display().to_string())
            .as_str(),
        "versions",
        "versions --airflow",
        "instances list",
        "migrate-db status",
        "set-channel rc",
        "runs delete hello first --yes",
        "dags delete hello --yes",
        "lite stop",
        "lite stop",
    ]);
    insta::assert_snapshot!(transcript.text);
}

#[test]
fn common_errors() {
    let mut transcript = Transcript::new();
    transcript.run_all(&["dags list", "lite backup", "upgrade", "rollback"]);
    transcript.test.start();
    transcript.test.wait_dag("hello", 1);
    transcript.test.save("failing/dag.py", FAILING);
    transcript.test.wait_dag("failing", 1);
    transcript.test.run(&["dags", "trigger", "failing", "--run-id", "first"]).expect(0);
    transcript.test.wait_run("failing", "first");
    fs::write(transcript.test.folder().join("empty.tar.zst"), "").unwrap();
    let file = format!("{}/empty.tar.zst", transcript.test.folder().display());
    transcript.run_all(&[
        "frobnicate",
        "dags show nothing",
        "dags trigger nothing",
        "runs watch failing first",
        "dags trigger failing --run-id first",
        "dags trigger hello --conf {",
        "runs show hello nothing",
        "tasks logs hello nothing greet",
        "xcom get failing first nothing",
        "variables get nothing",
        "variables delete nothing",
        "connections get nothing",
        "connections add broken --conn-uri nonsense",
        "pools set default_pool -5",
        "pools delete default_pool",
        "config get nothing",
        "config set prot 1",
        "config set port many",
        "config set admin_password_hash x",
        &format!("lite restore --input {file} --force --yes"),
        "lite restore --input /nonexistent.tar.zst --force --yes",
        "lite restore --undo --yes",
        "lite backups verify nothing",
        "migrate-db rollback 1 --yes",
        "data-migrate run 99",
        "upgrade --from /nonexistent",
        "rollback --to 9.9.9",
        "set-channel weekly",
        "instances create Bad/Name",
        "instances remove nothing --yes",
        "backfill create --dag-id nothing --from-date 2026-01-01 --to-date 2026-01-02",
        "hitl respond nothing first ask yes",
        "validate /nonexistent",
        "import airflow --from /nonexistent",
        "docs nothing",
    ]);
    insta::assert_snapshot!(transcript.text);
}
