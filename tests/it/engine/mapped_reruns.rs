//! Reruns of mapped tasks: with another list, of a single mapped task group instance, and before later runs.

use crate::support::TestHome;
use crate::support::http::{Api, Session};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn started_home(dags: &str, dag_id: &str) -> (TestHome, Api) {
    let test = TestHome::new();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    test.save("dags.py", dags);
    test.wait_dag(dag_id, 1);
    let api = Api(Session::login(test.port, &password));
    (test, api)
}

/// Maps each task instance to its state and number of tries.
fn instances(api: &Api, run: &str) -> BTreeMap<String, (String, i64)> {
    let found = api.get(&format!("{run}/taskInstances?limit=100"));
    let instance = |instance: &Value| {
        let name = format!("{}[{}]", instance["task_id"].as_str().unwrap(), instance["map_index"]);
        (name, (instance["state"].as_str().unwrap_or("none").to_owned(), instance["try_number"].as_i64().unwrap()))
    };
    found["task_instances"].as_array().unwrap().iter().map(instance).collect()
}

const LISTS: &str = "
from airflow.sdk import Variable, dag, task, task_group

@dag(schedule=None)
def lists():
    @task
    def files():
        return Variable.get('files', deserialize_json=True)

    @task
    def load(name):
        return name.upper()

    @task
    def longer(name):
        return name * 2

    @task_group
    def group(name):
        return longer(load.override(task_id='inner')(name))

    @task
    def total(names, longer):
        # As in Airflow, a mapped group's output is the value itself if there is one, and None without values.
        longer = [longer] if isinstance(longer, str) else longer or []
        return [sorted(names), sorted(longer)]

    found = files()
    total(load.expand(name=found), group.expand(name=found))

lists()
";

#[test]
fn a_mapped_rerun_with_another_list_returns_its_values() {
    let (test, api) = started_home(LISTS, "lists");
    let run = "dags/lists/dagRuns/first";
    let mut max_length = 0;
    for (round, list) in ["abc", "x", "pqrs", "", "mn"].into_iter().enumerate() {
        let names: Vec<String> = list.chars().map(String::from).collect();
        test.run(&["variables", "set", "files", &json!(names).to_string()]).expect(0);
        if round == 0 {
            test.run(&["dags", "trigger", "lists", "--run-id", "first", "--wait"]).expect(0);
        } else {
            let body = json!({"dag_run_id": "first", "dry_run": false, "only_failed": false, "task_ids": ["files"],
                              "include_downstream": true});
            api.expect("POST", "dags/lists/clearTaskInstances", body, 200);
            assert_eq!(test.wait_run("lists", "first")["state"], "success");
        }
        max_length = max_length.max(names.len());
        let found = instances(&api, run);
        for task_id in ["load", "group.inner", "group.longer"] {
            for index in 0..max_length {
                let expected = if index < names.len() { "success" } else { "removed" };
                assert_eq!(found[&format!("{task_id}[{index}]")].0, expected, "{list}: {found:?}");
            }
        }
        let total = api.get(&format!("{run}/taskInstances/total/xcomEntries/return_value?stringify=false"));
        let each = |times: usize| names.iter().map(|name| name.to_uppercase().repeat(times)).collect::<Vec<_>>();
        assert_eq!(total["value"], json!([each(1), each(2)]), "{list}");
    }
}

const LANES: &str = "
from airflow.sdk import dag, task, task_group

@dag(schedule=None)
def lanes():
    @task
    def letters():
        return ['a', 'b', 'c']

    @task
    def first(one):
        return one

    @task
    def second(one):
        return one + one

    @task_group
    def lane(one):
        second(first(one))

    @task
    def after():
        return 'after'

    lane.expand(one=letters()) >> after()

lanes()
";

#[test]
fn clearing_one_mapped_group_instance_reruns_only_that_one() {
    let (test, api) = started_home(LANES, "lanes");
    let run = "dags/lanes/dagRuns/first";
    test.run(&["dags", "trigger", "lanes", "--run-id", "first", "--wait"]).expect(0);
    let names = |answer: &Value| {
        let instance =
            |instance: &Value| format!("{}[{}]", instance["task_id"].as_str().unwrap(), instance["map_index"]);
        answer["task_instances"].as_array().unwrap().iter().map(instance).collect::<Vec<_>>()
    };
    let clear = |task: Value, upstream: bool, downstream: bool, dry_run: bool| {
        let body = json!({"dag_run_id": "first", "dry_run": dry_run, "only_failed": false, "task_ids": [task],
                          "include_upstream": upstream, "include_downstream": downstream});
        names(&api.expect("POST", "dags/lanes/clearTaskInstances", body, 200))
    };
    let rerun = ["after[-1]", "lane.first[1]", "lane.second[1]"];
    assert_eq!(clear(json!(["lane.first", 1]), false, true, true), rerun);
    assert_eq!(clear(json!(["lane.second", 2]), true, false, true), ["lane.first[2]", "lane.second[2]", "letters[-1]"]);
    // As in Airflow, this includes the downstream tasks of all upstream ones: every task.
    assert_eq!(clear(json!(["lane.second", 2]), true, true, true).len(), 8);
    let mark = json!({"new_state": "failed", "include_downstream": true});
    let marked = api.expect("PATCH", &format!("{run}/taskInstances/lane.first/1/dry_run"), mark, 200);
    assert_eq!(names(&marked), rerun);

    assert_eq!(clear(json!(["lane.first", 1]), false, true, false), rerun);
    assert_eq!(test.wait_run("lanes", "first")["state"], "success");
    let with_tries = |tries: i64| {
        let found = instances(&api, run).into_iter().filter(|(_, instance)| instance.1 == tries);
        found.map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(with_tries(2), rerun);
    test.run(&["tasks", "clear", "lanes", "first", "lane.first[0]", "--downstream", "--yes"]).expect(0);
    assert_eq!(test.wait_run("lanes", "first")["state"], "success");
    assert_eq!(
        (with_tries(2), with_tries(3)),
        (
            ["lane.first[0]", "lane.first[1]", "lane.second[0]", "lane.second[1]"].map(String::from).to_vec(),
            vec!["after[-1]".to_owned()]
        )
    );
}

const PAST: &str = "
from airflow.sdk import DAG, Variable, task

with DAG('past', default_args={'depends_on_past': True, 'wait_for_downstream': True}):
    @task
    def files():
        return Variable.get('files', deserialize_json=True)

    @task
    def load(name):
        return name

    load.expand(name=files())
";

#[test]
fn removed_mapped_instances_do_not_block_later_runs() {
    let (test, api) = started_home(PAST, "past");
    let set = |files: &[&str]| test.run(&["variables", "set", "files", &json!(files).to_string()]).expect(0);
    let run_to_success = |date: &str, files: &[&str]| {
        set(files);
        test.run(&["dags", "trigger", "past", "--logical-date", date, "--run-id", date, "--wait"]).expect(0);
    };
    run_to_success("2024-01-01", &["a", "b"]);
    set(&["a"]);
    test.run(&["runs", "clear", "past", "2024-01-01", "--yes"]).expect(0);
    test.wait_run("past", "2024-01-01");
    assert_eq!(instances(&api, "dags/past/dagRuns/2024-01-01")["load[1]"].0, "removed");
    run_to_success("2024-01-02", &["a", "b"]);
}
