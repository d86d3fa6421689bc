//! Assets that a trigger watches: each event of it is one of the asset, with both packages.

use crate::support::processes::{called, signal};
use crate::support::{TestHome, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

const DAG: &str = r#"
from airflow.providers.standard.triggers.file import FileDeleteTrigger
from airflow.sdk import Asset, AssetWatcher, DAG, task

inbox = Asset("inbox", watchers=[AssetWatcher(name="letters", trigger=FileDeleteTrigger(filepath="LETTER", poke_interval=0.1))])

for name in ("first", "second"):
    with DAG(name, schedule=[inbox]):
        @task
        def reads(triggering_asset_events=None):
            return [event.extra for events in triggering_asset_events.values() for event in events]
        reads()
"#;

fn hosts(test: &TestHome) -> Vec<i32> {
    called(test.folder(), "triggers")
}

fn what_is_seen_is_an_event_of_the_asset(test: &TestHome) {
    test.start();
    let letter = test.workspace().join("letter");
    test.add_dag("first", &DAG.replace("LETTER", letter.to_str().unwrap()));
    for dag_id in ["first", "second"] {
        test.run(&["dags", "unpause", dag_id]).expect(0);
    }
    wait_until("somebody watches", LIMIT, || hosts(test).len() == 1);
    let events = || test.sql("SELECT count(*) FROM asset_event");
    for (round, victim) in ["", "host", "agent", "server"].into_iter().enumerate() {
        match victim {
            "" => {}
            "host" => signal(hosts(test)[0], "KILL"),
            name => test.kill_and_wait(name),
        }
        test.wait_healthy();
        std::fs::write(&letter, "").unwrap();
        wait_until("it is seen, once for both", LIMIT, || events() == (round + 1).to_string());
        let ended = || test.sql("SELECT count(*) FROM dag_run WHERE state = 'success'");
        wait_until("a run of each comes of it", LIMIT, || ended() == (2 * (round + 1)).to_string());
    }
    let told = test.sql("SELECT value FROM xcom WHERE dag_id = 'second' LIMIT 1");
    assert_eq!(serde_json::from_str::<Value>(&told).unwrap(), json!([{"from_trigger": true, "payload": true}]));
    let before = hosts(test);
    test.run(&["dags", "pause", "first"]).expect(0);
    std::fs::write(&letter, "").unwrap();
    wait_until("it is seen for the other", LIMIT, || events() == "5");
    assert_eq!(hosts(test), before, "the same process goes on");
    test.run(&["dags", "pause", "second"]).expect(0);
    wait_until("nobody watches any more", LIMIT, || hosts(test).is_empty());
    std::fs::write(&letter, "").unwrap();
    // What does not know what it watches is no DAG.
    test.save("first.py", &DAG.replace("FileDeleteTrigger(filepath=\"LETTER\", poke_interval=0.1)", "None"));
    let words = "Asset watcher trigger must inherit BaseEventTrigger";
    wait_until(words, LIMIT, || test.sql("SELECT stack_trace FROM import_error").contains(words));
    // Of DAGs that are paused nothing is watched.
    assert!(letter.exists());
    assert_eq!(events(), "5");
}

#[test]
fn with_our_own_package() {
    what_is_seen_is_an_event_of_the_asset(&TestHome::new().with_limit("LEOFLOW_IDLE_LIMIT", "2"));
}

#[test]
fn with_airflows_own_sdk() {
    what_is_seen_is_an_event_of_the_asset(&TestHome::new().with_airflow().with_limit("LEOFLOW_IDLE_LIMIT", "2"));
}
