//! Compares the fields that `--json` prints with the promised ones in `docs/reference/contract.json`.
//! `LEOFLOW_UPDATE_DOCS=1 cargo test --test it -- json_shapes` updates the file.

use crate::support::TestHome;
use leoflow::contract::{Contract, Promise, Section};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Commands that run in this order on a new instance, whose DAG `hello` has a finished run `first`.
const COMMANDS: [&str; 42] = [
    "version",
    "lite status",
    "instances list",
    "dags list",
    "dags show hello",
    "dags list-import-errors",
    "dags pause hello",
    "dags unpause hello",
    "runs list hello",
    "runs show hello first",
    "runs watch hello first",
    "tasks list hello",
    "tasks logs hello first greet",
    "xcom list hello first",
    "variables set bucket s3://data",
    "variables list",
    "variables get bucket",
    "variables delete bucket",
    "connections add warehouse --conn-type postgres --conn-host db",
    "connections list",
    "connections get warehouse",
    "connections delete warehouse",
    "pools set narrow 3",
    "pools list",
    "pools delete narrow",
    "assets list",
    "backfill list",
    "hitl list",
    "env list",
    "config list",
    "config get port",
    "verify-config",
    "validate",
    "doctor",
    "smoke",
    "lite backup",
    "lite backups list",
    "lite backups verify",
    "versions",
    "migrate-db status",
    "data-migrate list",
    "runs delete hello first --yes",
];

type Fields = BTreeMap<String, Promise>;

/// Adds each field below a value, such as `dags[].dag_id`, with its type.
fn collect_fields(value: &Value, path: &str, command: &str, fields: &mut Fields) {
    let type_name = match value {
        Value::Object(entries) => {
            // The keys of `tables` are table names, not promised fields.
            for (key, value) in entries.iter().filter(|_| !path.ends_with("tables")) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                collect_fields(value, &path, command, fields);
            }
            "object"
        }
        Value::Array(items) => {
            items.iter().for_each(|item| collect_fields(item, &format!("{path}[]"), command, fields));
            "array"
        }
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "boolean",
        Value::Null => "null",
    };
    if path.is_empty() || path.ends_with("[]") {
        return;
    }
    let promise = fields.entry(format!("leoflow {command}: {path}")).or_default();
    // Another output may show the type of a field that is null in this one.
    if type_name != "null" {
        promise.facts.insert("type".to_owned(), type_name.to_owned());
    }
}

/// Runs all commands on one instance; returns the fields that they print.
fn collect_printed_fields() -> Fields {
    let test = TestHome::new();
    test.start();
    test.wait_dag("hello", 1);
    test.run(&["dags", "trigger", "hello", "--run-id", "first"]).expect(0);
    test.wait_run("hello", "first");
    let mut fields = Fields::new();
    for command in COMMANDS {
        let mut arguments: Vec<&str> = command.split(' ').collect();
        let options = arguments.iter().position(|word| word.starts_with("--")).unwrap_or(arguments.len());
        // The name of a field begins with the command, without its arguments and options.
        let words = arguments[..options].iter().take_while(|word| !["hello", "first", "port"].contains(word));
        let name: Vec<&str> = words.copied().take(2).collect();
        let single_words = ["version", "smoke", "doctor", "validate", "verify-config", "versions"];
        let name = if single_words.contains(&name[0]) { name[0].to_owned() } else { name.join(" ") };
        arguments.push("--json");
        let output = test.run(&arguments);
        assert!(output.code == Some(0) || command == "doctor", "{command}: {output:?}");
        // A command that reports progress prints several values.
        for value in serde_json::Deserializer::from_str(&output.stdout).into_iter::<Value>() {
            let value = value.unwrap_or_else(|error| panic!("{command}: {error}: {}", output.stdout));
            collect_fields(&value, "", &name, &mut fields);
        }
    }
    fields
}

#[test]
fn json_output_has_the_fields_of_the_contract() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/contract.json");
    let printed = collect_printed_fields();
    // Read after the commands have run, because another test may write the other sections meanwhile.
    let mut contract = Contract::parse(&fs::read(&path).unwrap()).unwrap();
    if std::env::var_os("LEOFLOW_UPDATE_DOCS").is_some() {
        let mut written = printed.clone();
        let earlier = contract.sections.remove(&Section::JsonFields).unwrap_or_default();
        // A field that is null this time keeps the type of an earlier run.
        for (name, promise) in written.iter_mut().filter(|(_, promise)| promise.facts.is_empty()) {
            promise.clone_from(earlier.get(name).unwrap_or(&promise.clone()));
        }
        contract.sections.insert(Section::JsonFields, written);
        fs::write(&path, serde_json::to_string_pretty(&contract).unwrap() + "\n").unwrap();
    }
    let promised = &contract.sections[&Section::JsonFields];
    let missing: Vec<&String> = promised.keys().filter(|name| !printed.contains_key(*name)).collect();
    let new: Vec<&String> = printed.keys().filter(|name| !promised.contains_key(*name)).collect();
    assert!(missing.is_empty() && new.is_empty(), "missing: {missing:#?}\nnew: {new:#?}");
    for (name, promise) in &printed {
        let (actual, expected) = (promise.facts.get("type"), promised[name].facts.get("type"));
        // The type of a field that was always null is unknown.
        let is_equal = actual == expected || actual.is_none() || expected.is_none();
        assert!(is_equal, "{name} is {actual:?} instead of {expected:?}");
    }
}
