//! The generated pages of `docs/reference/` match the code. `LEOFLOW_UPDATE_DOCS=1 cargo test --test it --
//! reference_pages` updates them.

use clap::{Arg, Command};
use leoflow::cli::args::airflow::{self, Action, Flag, Outcome};
use leoflow::cli::args::help;
use leoflow::cli::commands::Cli;
use leoflow::config::leoflow_yaml::keys::{HISTORY, PROJECT, ProjectKey, TASK};
use leoflow::config::{SECRETS, SETTINGS, Setting, variable_of};
use leoflow::python::airflow_keys::{self, Meaning};
use leoflow::server::openapi_document;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

pub const GENERATED: &str = "<!-- generated: LEOFLOW_UPDATE_DOCS=1 cargo test --test it -- rules -->\n";

/// Compares a page, or writes it with `LEOFLOW_UPDATE_DOCS=1`.
#[track_caller]
pub fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference").join(name);
    if std::env::var_os("LEOFLOW_UPDATE_DOCS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let first = written.lines().zip(text.lines()).position(|(written, now)| written != now);
    assert!(
        written == text,
        "docs/reference/{name} is out of date from line {} on: run LEOFLOW_UPDATE_DOCS=1 cargo test --test it -- reference_pages",
        first.unwrap_or(0) + 1
    );
}

/// Escapes a text for a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|").replace('<', "&lt;")
}

/// Makes a text a sentence, with a capital first letter and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}

#[test]
fn commands_page_is_current() {
    let mut command = help::command::<Cli>();
    command.build();
    let mut text = format!(
        "# Commands\n\n{GENERATED}\nThis page lists every command with its arguments and options. `leoflow COMMAND --help` \
         shows the same in the terminal.\n\n## Global options\n\nEvery command takes these options.\n\n"
    );
    let global: Vec<&Arg> = command.get_arguments().filter(|arg| arg.is_global_set()).collect();
    options(&global, &mut text);
    for sub in command.get_subcommands().filter(|sub| is_shown(sub)) {
        describe(sub, "leoflow", &mut text);
    }
    text.push_str(
        "\nNext: [Configuration](configuration.md) · [Exit codes](exit-codes.md) · \
         [Environment variables](environment-variables.md)\n",
    );
    check("commands.md", &text);
}

#[test]
fn airflow_commands_page_is_current() {
    let mut text = format!(
        "# Airflow's commands\n\n{GENERATED}\nThis page lists the commands of Airflow 3.3 and what runs here. In `leoflow env shell` \
         and in tasks they run as `airflow COMMAND`, on the instance of the shell or task, whatever LEOFLOW_HOME and LEOFLOW_INSTANCE say. \
         `leoflow COMMAND` accepts the same words everywhere, except for flags that have a meaning of its own. The program \
         `airflow` is in no other PATH. Without a command, it prints this list.\n\n\
         A refused command exits with 2 and names ours. Commands that only read an installed Airflow are run by the program \
         `airflow` of the project's environment, if that has one. Where a command takes a run, it also takes the run's logical date \
         or `latest`.\n\n## Accepted\n\n| `airflow` | runs | differences |\n|---|---|---|\n"
    );
    let (rules, common) = airflow::rules();
    for rule in &rules {
        let Outcome::Ours(ours) = rule.outcome else { continue };
        let flags = rule.flags.iter().map(difference);
        let note = (!rule.note.is_empty()).then(|| sentence(rule.note));
        let differences: Vec<String> = note.into_iter().chain(flags).collect();
        let ours = ours.strip_prefix("airflow ").map_or_else(|| format!("`leoflow {ours}`"), |_| "the same".to_owned());
        writeln!(
            text,
            "| `{}` | {ours} | {} |",
            rule.command,
            cell(&differences.join("<br>")).replace("&lt;br>", "<br>")
        )
        .unwrap();
    }
    let with_keys: Vec<String> =
        rules.iter().filter(|rule| rule.rows.is_some()).map(|rule| format!("`{}`", rule.command)).collect();
    writeln!(
        text,
        "\n`-o json` of the program `airflow` prints Airflow's keys for `dags details`, {}; for other commands Leoflow's.",
        with_keys.join(", ")
    )
    .unwrap();
    text.push_str("\nFor every command:\n\n");
    common.iter().for_each(|flag| writeln!(text, "- {}", difference(flag)).unwrap());
    text.push_str("\n## Refused\n\n| `airflow` | instead |\n|---|---|\n");
    for rule in &rules {
        if let Outcome::Refused(reason) | Outcome::Installed(reason) = rule.outcome {
            let installed =
                if matches!(rule.outcome, Outcome::Installed(_)) { "the installed Airflow; without one: " } else { "" };
            writeln!(text, "| `{}` | {} |", rule.command, cell(&sentence(&format!("{installed}{reason}")))).unwrap();
        }
    }
    text.push_str("\nNext: [Commands](commands.md) · [Airflow settings](airflow-settings.md)\n");
    check("airflow-commands.md", &text);
}

/// Says what happens to a flag of Airflow.
fn difference(flag: &Flag) -> String {
    let names: Vec<String> = flag.names.iter().map(|name| format!("`{name}`")).collect();
    let text = match flag.action {
        _ if !flag.for_leoflow => "as in Airflow; `leoflow` prints its result as JSON".to_owned(),
        Action::Drop => "no effect".to_owned(),
        Action::As(ours) => format!("`{ours}`"),
        Action::Value => "a positional argument of `leoflow`".to_owned(),
        Action::Only(value, reason) => format!("only `{value}`; {reason}"),
        Action::Refuse(reason) => format!("refused; {reason}"),
    };
    sentence(&format!("{}: {text}", names.join(", ")))
}

fn is_shown(command: &Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

fn describe(command: &Command, parent: &str, text: &mut String) {
    let name = format!("{parent} {}", command.get_name());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    assert!(!about.trim().is_empty(), "`{name}` is not described");
    let level = if parent == "leoflow" { "##" } else { "###" };
    writeln!(text, "\n{level} {name}\n\n{}\n", sentence(&about)).unwrap();
    let mut usage = command.clone().bin_name(&name);
    let usage = usage.render_usage().to_string();
    writeln!(text, "```text\n{}\n```\n", usage.trim_start_matches("Usage: ").trim().replace("\n       ", "\n"))
        .unwrap();
    let own = |arg: &&Arg| !arg.is_hide_set() && !arg.is_global_set() && arg.get_id() != "help";
    options(&command.get_arguments().filter(own).collect::<Vec<_>>(), text);
    after_help(command, text);
    for sub in command.get_subcommands().filter(|sub| is_shown(sub)) {
        describe(sub, &name, text);
    }
}

/// Writes the text around the examples as paragraphs and the examples as a code block. Replaces a list of keys with a
/// link to the page that has it.
fn after_help(command: &Command, text: &mut String) {
    let Some(help) = command.get_after_help().map(ToString::to_string) else { return };
    let mut examples: Vec<&str> = Vec::new();
    let mut is_example = false;
    for line in help.lines() {
        match line {
            "Example:" | "Examples:" => is_example = true,
            "" if is_example => is_example = false,
            _ if is_example => examples.push(line.strip_prefix("  ").unwrap_or(line)),
            "" => {}
            _ if line.starts_with(' ') => {}
            "Keys:" => text.push_str("The keys are listed in [Configuration](configuration.md).\n\n"),
            _ => writeln!(text, "{}\n", cell(line)).unwrap(),
        }
    }
    writeln!(text, "```sh\n{}\n```", commented(&examples).join("\n")).unwrap();
}

/// Formats examples for a shell: their descriptions become `#` comments.
fn commented(lines: &[&str]) -> Vec<String> {
    let split =
        |line: &&str| line.split_once("   ").map(|(command, text)| (command.to_owned(), text.trim().to_owned()));
    let width = lines.iter().filter_map(split).map(|(command, _)| command.chars().count()).max().unwrap_or(0);
    lines
        .iter()
        .map(|line| match split(line) {
            Some((command, text)) => format!("{command:<width$}  # {text}"),
            None => (*line).to_owned(),
        })
        .collect()
}

fn options(args: &[&Arg], text: &mut String) {
    if args.is_empty() {
        return;
    }
    text.push_str("| option | description |\n|---|---|\n");
    for arg in args {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        assert!(!help.trim().is_empty(), "{} is not described", arg.get_id());
        let values = arg
            .get_value_names()
            .filter(|_| arg.get_action().takes_values())
            .map(|names| names.iter().map(|name| name.to_string()).collect::<Vec<_>>().join(" "));
        let short = arg.get_short().map(|short| format!("-{short}"));
        let long = arg.get_long().map(|long| format!("--{long}"));
        let name = match (short, long) {
            (Some(short), Some(long)) => format!("{short}, {long}"),
            (None, Some(name)) | (Some(name), None) => name,
            (None, None) => String::new(),
        };
        let name = match values {
            Some(values) if name.is_empty() => values,
            Some(values) => format!("{name} {values}"),
            None => name,
        };
        let possible: Vec<String> = match arg.get_action().takes_values() {
            true => arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect(),
            false => Vec::new(),
        };
        let possible = match possible.is_empty() {
            true => String::new(),
            false => format!(" One of {}.", possible.join(", ")),
        };
        writeln!(text, "| `{}` | {}{possible} |", cell(&name).replace("&lt;", "<"), cell(&sentence(&help))).unwrap();
    }
    text.push('\n');
}

#[test]
fn configuration_page_is_current() {
    let mut text = format!(
        "# Configuration\n\n{GENERATED}\nThis page lists every key of `config.yaml`, the settings of one instance. \
         `leoflow config list` shows what is in effect and `leoflow config set KEY VALUE` changes one; \
         [Configuration layers](../explanation/configuration-layers.md) explains the files and variables that values \
         come from.\n"
    );
    let groups: Vec<&str> = SETTINGS.iter().filter_map(|setting| Some(setting.name.split_once('.')?.0)).collect();
    let group_of = |setting: &Setting| {
        let outer = setting.name.split('.').next().unwrap();
        groups.iter().copied().find(|group| *group == outer).unwrap_or("")
    };
    let mut names: Vec<&str> = vec![""];
    names.extend(&groups);
    names.dedup();
    for name in names {
        let title = if name.is_empty() { "Instance".to_owned() } else { format!("`{name}`") };
        writeln!(text, "\n## {title}\n\n| key | default | description | environment variable |\n|---|---|---|---|")
            .unwrap();
        for setting in SETTINGS.iter().filter(|setting| group_of(setting) == name) {
            writeln!(text, "{}", row(setting)).unwrap();
        }
    }
    text.push_str(
        "\n## Secrets\n\nThese keys are written by Leoflow; `leoflow config` neither shows nor sets them.\n\n\
         | key | how to change it |\n|---|---|\n",
    );
    for (name, how) in SECRETS {
        let how = if how.starts_with("leoflow ") { format!("`{how}`") } else { (*how).to_owned() };
        writeln!(text, "| `{name}` | {} |", cell(&how)).unwrap();
    }
    text.push_str(
        "\nNext: [Project settings](project-settings.md) · [Environment variables](environment-variables.md) · \
         [The home](home.md)\n",
    );
    check("configuration.md", &text);
}

fn row(setting: &Setting) -> String {
    let default = if setting.is_value { format!("`{}`", setting.default) } else { setting.default.to_owned() };
    let restart = if setting.needs_restart { " Takes effect after a restart." } else { "" };
    let variable = variable_of(setting).map(|name| format!("`{name}`")).unwrap_or_default();
    format!("| `{}` | {} | {}{restart} | {variable} |", setting.name, cell(&default), cell(&sentence(setting.help)))
}

#[test]
fn project_settings_page_is_current() {
    let mut text = format!(
        "# Project settings\n\n{GENERATED}\nThis page lists every key of `leoflow.yaml`, the optional settings file beside a \
         project's `dag.py`. `leoflow verify-config` checks it; an unknown key is an import error that names the nearest \
         known one. A key of `tasks` takes precedence over `defaults`, and both over `dag.py`.\n\n\
         ```yaml\nschema_version: \"1.0\"\ndag_id: report\ndescription: Daily report\nowner: analytics\ntags: [daily]\n\
         python_version: \"3.12\"\ndependencies: [pandas]\n\
         defaults: {{retries: 2, retry_delay_seconds: 60, execution_timeout_seconds: 3600}}\ntasks:\n  \
         load: {{retries: 5, env: {{REGION: eu}}}}\n```\n"
    );
    let tables =
        [("Keys of the file", PROJECT), ("Keys of `defaults` and of each task", TASK), ("Keys of `history`", HISTORY)];
    for (title, keys) in tables {
        writeln!(text, "\n## {title}\n\n| key | value | description |\n|---|---|---|").unwrap();
        for ProjectKey { name, value, help } in keys {
            writeln!(text, "| `{name}` | {} | {} |", cell(value), cell(help)).unwrap();
        }
    }
    text.push_str(
        "\nNext: [Environments](../explanation/environments.md) · [Add packages](../how-to/add-packages.md)\n",
    );
    check("project-settings.md", &text);
}

/// A JSON schema of keys for editors; `nested` has those that are mappings of known keys.
fn schema(keys: &[ProjectKey], nested: &[(&str, Value)]) -> Value {
    let property = |key: &ProjectKey| {
        let description = key.help.replace('`', "");
        let kind = match key.value {
            "list of rules" => json!({"type": "array", "items": {"type": "object"}}),
            value if value.starts_with("list") => json!({"type": "array", "items": {"type": "string"}}),
            value if value.starts_with("mapping") => json!({"type": "object"}),
            "whole number" => json!({"type": "integer", "minimum": 0}),
            "seconds" => json!({"type": "number", "minimum": 0}),
            // YAML reads `3.3` as a number, which is accepted.
            "version" => json!({"type": ["string", "number"]}),
            "true or false" => json!({"type": "boolean"}),
            "shared or fresh" => json!({"enum": ["shared", "fresh"]}),
            "text" | "path" | "URL" | "date or time" | "\"1.0\"" => json!({"type": "string"}),
            other => panic!("a new kind of value: {other}"),
        };
        let known = nested.iter().find(|(name, _)| *name == key.name).map_or(kind, |(_, known)| known.clone());
        let mut property = known;
        property["description"] = description.into();
        (key.name.to_owned(), property)
    };
    let properties: serde_json::Map<String, Value> = keys.iter().map(property).collect();
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

#[test]
fn project_settings_schema_is_current() {
    let task = schema(TASK, &[]);
    let mut defaults = task.clone();
    defaults["properties"].as_object_mut().unwrap().remove("env");
    let tasks = json!({"type": "object", "additionalProperties": task});
    let history = schema(HISTORY, &[]);
    let mut schema = schema(PROJECT, &[("defaults", defaults), ("tasks", tasks), ("history", history)]);
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    schema["title"] = "Project settings of Leoflow, leoflow.yaml".into();
    check("leoflow.schema.json", &format!("{}\n", serde_json::to_string_pretty(&schema).unwrap()));
    let example = json!({
        "schema_version": "1.0", "airflow": 3.3, "airflow_2": true, "isolation": "fresh", "tags": ["daily"], "defaults": {"retries": 2},
        "tasks": {"load": {"retries": 5, "env": {"REGION": "eu"}}},
    });
    let validator = jsonschema::validator_for(&schema).unwrap();
    assert!(validator.is_valid(&example));
    assert!(!validator.is_valid(&json!({"dependencys": []})) && !validator.is_valid(&json!({"defaults": {"env": {}}})));
}

#[test]
fn airflow_settings_page_is_current() {
    let mut text = format!(
        "# Airflow settings\n\n{GENERATED}\nThis page lists the settings of Airflow 3.3 that have a meaning here. Set them as \
         `AIRFLOW__SECTION__KEY` in the `.env` of the project or of the workspace, or in the environment that starts Leoflow; \
         an `airflow.cfg` is read by `leoflow bring` only. Keys that are not listed configure parts of Airflow that Leoflow does \
         not have, such as executors, its database and its web server. `leoflow validate`, `leoflow doctor`, the start and the \
         page `/lite/` warn about settings without effect.\n"
    );
    for (meaning, title) in [
        (Meaning::Honoured, "Honoured by both packages"),
        (Meaning::OnlySdk, "Honoured by Airflow's own SDK only"),
        (Meaning::Ignored, "Without effect, though DAGs may depend on them"),
    ] {
        writeln!(text, "\n## {title}\n\n| section | keys |\n|---|---|").unwrap();
        let mut sections: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for row in airflow_keys::rows().filter(|row| row.meaning == meaning) {
            sections.entry(row.section).or_default().push(format!("`{}`", row.key));
        }
        for (section, keys) in sections {
            writeln!(text, "| `{section}` | {} |", keys.join(", ")).unwrap();
        }
    }
    text.push_str(
        "\nNext: [Environment variables](environment-variables.md) · [Airflow's own SDK](../explanation/airflow-sdk.md)\n",
    );
    check("airflow-settings.md", &text);
}

#[test]
fn rest_api_page_is_current() {
    let description = openapi_document();
    let mut groups: BTreeMap<String, Vec<[String; 3]>> = BTreeMap::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let operation_id = text(&operation["operationId"]);
            let group = groups.entry(text(&operation["tags"][0])).or_default();
            group.push([method.to_uppercase(), path.clone(), operation_id]);
        }
    }
    let mut text = format!(
        "# REST API\n\n{GENERATED}\nThis page lists every operation of the REST API, which has the paths, parameters and \
         types of Apache Airflow {}. A running instance shows parameters and types at `/docs`, and the OpenAPI document at \
         `/openapi.json`. [Compatibility with Airflow](../explanation/airflow-compatibility.md#rest-api) lists the \
         differences.\n\nA client sends `POST /auth/token` with `{{\"username\": …, \"password\": …}}` and passes the token \
         that it receives with every request, as `Authorization: Bearer TOKEN`. A program that runs for longer than a day \
         uses an [API token](../explanation/security.md#api-tokens).\n",
        description["info"]["version"].as_str().unwrap(),
    );
    for (group, mut operations) in groups {
        operations.sort_by(|a, b| (&a[1], &a[0]).cmp(&(&b[1], &b[0])));
        writeln!(text, "\n## {group}\n\n| operation | id in clients |\n|---|---|").unwrap();
        for [method, path, operation_id] in operations {
            writeln!(text, "| `{method} {path}` | `{operation_id}` |").unwrap();
        }
    }
    text.push_str(
        "\nNext: [Compatibility with Airflow](../explanation/airflow-compatibility.md) · [Commands](commands.md)\n",
    );
    check("rest-api.md", &text);
}
