//! Airflow's own users of its API, on Leoflow: its OpenAPI files, its official Python client, and airflowctl.

use crate::support::TestHome;
use crate::support::clients::Clients;

const DAGS: &str = include_str!("../clients/dags.py");
const UI_DAGS: &str = include_str!("../clients/ui_dags.py");
const BROKEN: &str = "# Looks like an airflow DAG.\nimport nothing_of_that_name\n";

/// Runs a file of `tests/clients` against a server that has what it expects; the end tells how many there are.
fn passes(file: &str, said_last: &str) {
    let Some(clients) = Clients::get() else {
        println!("skipped: Airflow's clients cannot be had from the package index");
        return;
    };
    // Tasks that ask people want Airflow's own SDK.
    let test = TestHome::new().with_airflow();
    if file == "ui_answers.py" {
        std::fs::write(test.workspace().join("dags.py"), UI_DAGS).unwrap();
    } else {
        std::fs::write(test.workspace().join("dags.py"), DAGS).unwrap();
        std::fs::write(test.workspace().join("broken.py"), BROKEN).unwrap();
    }
    let made = test.start();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    let (url, user, password) =
        (format!("http://127.0.0.1:{}", test.port), text("admin_email"), text("admin_password"));
    let arguments = [&url, &user, &password, clients.wheel.to_str().unwrap()];
    let (is_good, said) = clients.run(file, &arguments, &test.folder().join("tmp"));
    assert!(is_good && said.contains(said_last), "{said}");
}

#[test]
fn the_description_is_airflows() {
    passes("description.py", "128 of 128 descriptions work");
}

#[test]
fn the_web_ui_is_answered_as_airflow_answers_it() {
    passes("ui_answers.py", "68 of 68 answers to the UI work");
}

#[test]
fn every_operation_answers_as_airflow_describes_it() {
    passes("operations.py", "152 of 152 operations work");
}

#[test]
fn every_method_of_the_official_client_works() {
    passes("methods.py", "130 of 130 methods");
}

#[test]
fn every_command_of_airflowctl_works() {
    passes("commands.py", "62 of 62 commands");
}

#[test]
fn every_operation_refuses_what_it_must() {
    passes("bad_input.py", " bad requests work");
}

#[test]
fn every_command_of_af_works() {
    passes("af.py", "53 of 53 commands of af");
}
