//! What DAG files say and tasks do, seen from outside: names, sensors, logs, secrets, values.

use crate::support::{TestHome, wait_until};
use serde_json::json;
use std::time::Duration;

#[test]
fn a_parameter_named_like_another_asset_is_that_asset() {
    let test = TestHome::started();
    test.save(
        "made.py",
        "from airflow.providers.common.compat.sdk import asset\n\
         @asset(uri='s3://bucket/one', schedule=None)\ndef one():\n    pass\n\
         @asset(uri='s3://bucket/two', schedule=None)\ndef two(self, context, one):\n    \
         return [self.uri, one.uri, len(context['inlet_events'][one])]\n",
    );
    assert_eq!(test.run_dag("one")["state"], "success");
    assert_eq!(test.run_dag("two")["state"], "success", "{}", test.task_log("two", "two"));
    let told = test.run(&["xcom", "get", "two", "latest", "two"]).expect(0);
    assert_eq!(told.json(), json!(["s3://bucket/two", "s3://bucket/one", 1]));
}

#[test]
fn a_sensor_that_knows_its_time_does_not_wait_for_its_next_look() {
    let test = TestHome::new().with_packages();
    test.start();
    test.add_dag(
        "timed",
        "from datetime import datetime, timedelta, timezone\nfrom airflow.sdk import DAG\n\
         from airflow.providers.standard.sensors.date_time import DateTimeSensor\n\
         from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor\n\
         with DAG('timed'):\n    \
         TimeDeltaSensor(task_id='deferred', delta=timedelta(seconds=3), deferrable=True)\n    \
         TimeDeltaSensor(task_id='rescheduled', delta=timedelta(seconds=3), mode='reschedule')\n    \
         DateTimeSensor(task_id='poked', target_time='{{ dag_run.run_after + macros.timedelta(seconds=3) }}')\n",
    );
    let run_id = test.trigger("timed");
    let ended = || test.sql("SELECT count(*) FROM task_instance WHERE state = 'success'") == "3";
    wait_until("all have ended long before their next look", Duration::from_secs(30), ended);
    assert_eq!(test.wait_run("timed", &run_id)["state"], "success");
}
