//! Asset watchers: each event of a trigger becomes an asset event, with Leoflow's small package and with Airflow's SDK.

use crate::support::http::socket_request;
use crate::support::processes::{signal, with_argument};
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

fn trigger_hosts(test: &TestHome) -> Vec<i32> {
    with_argument(test.folder(), "triggers")
}

fn assert_watched_events_become_asset_events(test: &TestHome) {
    test.start();
    let letter = test.workspace().join("letter");
    test.add_dag("first", &DAG.replace("LETTER", letter.to_str().unwrap()));
    for dag_id in ["first", "second"] {
        test.run(&["dags", "unpause", dag_id]).expect(0);
    }
    wait_until("one trigger host runs", LIMIT, || trigger_hosts(test).len() == 1);
    let events = || test.sql("SELECT count(*) FROM asset_event");
    for (round, killed_process) in ["", "host", "agent", "server"].into_iter().enumerate() {
        match killed_process {
            "" => {}
            "host" => signal(trigger_hosts(test)[0], "KILL"),
            name => test.kill_and_wait(name),
        }
        test.wait_healthy();
        std::fs::write(&letter, "").unwrap();
        wait_until("one event for both DAGs", LIMIT, || events() == (round + 1).to_string());
        let succeeded = || test.sql("SELECT count(*) FROM dag_run WHERE state = 'success'");
        wait_until("one run of each DAG", LIMIT, || succeeded() == (2 * (round + 1)).to_string());
    }
    let extra = test.sql("SELECT value FROM xcom WHERE dag_id = 'second' LIMIT 1");
    assert_eq!(serde_json::from_str::<Value>(&extra).unwrap(), json!([{"from_trigger": true, "payload": true}]));
    let before = trigger_hosts(test);
    test.run(&["dags", "pause", "first"]).expect(0);
    std::fs::write(&letter, "").unwrap();
    wait_until("an event for the other DAG", LIMIT, || events() == "5");
    assert_eq!(trigger_hosts(test), before, "the same trigger host keeps running");
    test.run(&["dags", "pause", "second"]).expect(0);
    wait_until("no trigger host runs", LIMIT, || trigger_hosts(test).is_empty());
    std::fs::write(&letter, "").unwrap();
    // A watcher without a trigger is an import error.
    test.save("first.py", &DAG.replace("FileDeleteTrigger(filepath=\"LETTER\", poke_interval=0.1)", "None"));
    let message = "Asset watcher trigger must inherit BaseEventTrigger";
    wait_until(message, LIMIT, || test.sql("SELECT stack_trace FROM import_error").contains(message));
    // Watchers of paused DAGs do not run.
    assert!(letter.exists());
    assert_eq!(events(), "5");
}

#[test]
fn watched_assets_get_events_with_the_small_package() {
    assert_watched_events_become_asset_events(&TestHome::new().with_limit("LEOFLOW_TRIGGER_IDLE_LIMIT", "2"));
}

#[test]
fn watched_assets_get_events_with_airflows_sdk() {
    assert_watched_events_become_asset_events(
        &TestHome::new().with_airflow().with_limit("LEOFLOW_TRIGGER_IDLE_LIMIT", "2"),
    );
}

const COUNTING: &str = r#"
import asyncio
from asgiref.sync import sync_to_async
from airflow.sdk import Asset, AssetWatcher, DAG, task
from airflow.triggers.base import BaseEventTrigger, TriggerEvent

class Counts(BaseEventTrigger):
    def serialize(self):
        return "counting.Counts", {}
    async def run(self):
        while (seen := await self.asset_state_store.aget("seen", 0)) < 3:
            await self.asset_state_store.aset("seen", seen + 1)
            yield TriggerEvent(seen)
        await asyncio.sleep(3600)

with DAG("counting", schedule=[Asset("numbers", watchers=[AssetWatcher(name="counts", trigger=Counts())])]):
    @task
    def reads(): ...
    reads()
"#;

#[test]
fn watchers_keep_state_of_their_asset() {
    let test = TestHome::new().with_newest_airflow();
    test.start();
    test.add_dag("counting", COUNTING);
    test.run(&["dags", "unpause", "counting"]).expect(0);
    let events = || test.sql("SELECT count(*) FROM asset_event");
    wait_until("three events", LIMIT, || events() == "3");
    signal(trigger_hosts(&test)[0], "KILL");
    let first = trigger_hosts(&test);
    wait_until("another trigger host runs", LIMIT, || trigger_hosts(&test).len() == 1 && trigger_hosts(&test) != first);
    let path = "/api/v2/assets/1/state-store/seen";
    let stored = socket_request(&test.home, "GET", path, "", "").json();
    assert_eq!((&stored["value"], &stored["last_updated_by"]["kind"]), (&json!(3), &json!("watcher")), "{stored}");
    assert_eq!(events(), "3", "the watcher continues where it was");
}
