//! Airflow's OpenAPI files, its official Python client and airflowctl, run against Leoflow.

use crate::support::TestHome;
use crate::support::clients::Clients;

const DAGS: &str = include_str!("../../clients/dags.py");
const UI_DAGS: &str = include_str!("../../clients/ui_dags.py");
const BROKEN: &str = "# Looks like an airflow DAG.\nimport nothing_of_that_name\n";

/// Runs a file of `tests/clients` against a server with the DAGs it needs; its output must contain `summary`.
fn assert_passes(file: &str, summary: &str) {
    assert_pass(&[(file, summary)]);
}

/// An argument that stands for the wheel of the newest version.
const NEWEST: &str = "newest";

/// Runs files of `tests/clients`, with the summaries that their outputs must contain, against one server.
fn assert_pass(files: &[(&str, &str)]) {
    let Some(clients) = clients() else { return };
    // Human-in-the-loop tasks need Airflow's own SDK.
    let test = TestHome::new().with_airflow();
    if files[0].0 == "ui_answers.py" {
        std::fs::write(test.workspace().join("dags.py"), UI_DAGS).unwrap();
    } else {
        std::fs::write(test.workspace().join("dags.py"), DAGS).unwrap();
        std::fs::write(test.workspace().join("broken.py"), BROKEN).unwrap();
    }
    assert_pass_on(&test, &clients, files);
}

fn clients() -> Option<Clients> {
    let clients = Clients::get();
    if clients.is_none() {
        println!("skipped: the package index does not provide Airflow's clients");
    }
    clients
}

/// Starts the server of `test` and runs files of `tests/clients` against it.
fn assert_pass_on(test: &TestHome, clients: &Clients, files: &[(&str, &str)]) {
    let started = test.start();
    let text = |name: &str| started[name].as_str().unwrap().to_owned();
    let (url, user, password) =
        (format!("http://127.0.0.1:{}", test.port), text("admin_email"), text("admin_password"));
    for (command, summary) in files {
        let mut words = command.split(' ');
        let file = words.next().unwrap();
        let others: Vec<&str> = words.collect();
        let wheel = if others.contains(&NEWEST) { &clients.newest_wheel } else { &clients.wheel };
        let mut arguments = vec![url.as_str(), &user, &password, wheel.to_str().unwrap()];
        arguments.extend(others.into_iter().filter(|other| *other != NEWEST));
        let (is_success, output) = clients.run(file, &arguments, &test.folder().join("tmp"));
        assert!(is_success && output.contains(summary), "{file}: {output}");
    }
}

#[test]
fn the_openapi_description_matches_airflows() {
    let Some(clients) = clients() else { return };
    assert_pass_on(
        &TestHome::new(),
        &clients,
        &[
            ("description.py newest", "134 of 134 descriptions work"),
            ("description.py older", "128 of 128 descriptions work"),
        ],
    );
}

#[test]
fn the_web_ui_gets_the_same_answers_as_from_airflow() {
    assert_passes("ui_answers.py", "68 of 68 answers to the UI work");
}

#[test]
fn every_operation_refuses_invalid_requests_and_answers_valid_ones() {
    assert_pass(&[("bad_input.py", " bad requests work"), ("operations.py", "152 of 152 operations work")]);
}

#[test]
fn every_operation_of_the_newest_version_answers_as_described() {
    assert_passes("operations.py newest", "168 of 168 operations work");
}

#[test]
fn every_method_of_the_official_client_works() {
    assert_passes("methods.py", "130 of 130 methods");
}

#[test]
fn every_command_of_airflowctl_works() {
    assert_passes("commands.py", "62 of 62 commands");
}

#[test]
fn every_command_of_af_works() {
    assert_passes("af.py", "53 of 53 commands of af");
}
