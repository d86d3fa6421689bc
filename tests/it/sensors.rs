//! Sensors that know their time wait without a process; what their own code has to do is done by it.

use crate::support::{TestHome, wait_until};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

const IMPORTS: &str = "from datetime import datetime, time, timedelta, timezone\nfrom airflow.sdk import DAG, Asset, task\n\
    from airflow.providers.standard.sensors.date_time import DateTimeSensor\n\
    from airflow.providers.standard.sensors.time import TimeSensor\n\
    from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor\n\
    from airflow.providers.standard.sensors.weekday import DayOfWeekSensor\n";

#[test]
fn those_that_know_their_time_have_no_process() {
    let test = TestHome::started();
    let dag = "with DAG('timed'):\n    \
        sensors = [\n        TimeDeltaSensor(task_id='delta', delta=timedelta(seconds=8)),\n        \
        TimeDeltaSensor(task_id='rescheduled', delta=timedelta(seconds=8), mode='reschedule'),\n        \
        TimeDeltaSensor(task_id='deferred', delta=timedelta(seconds=8), deferrable=True),\n        \
        DateTimeSensor(task_id='moment', target_time='2020-01-01'),\n        TimeSensor(task_id='time', target_time=time(0, 0)),\n        \
        DayOfWeekSensor(task_id='weekday', week_day={'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday'}),\n    ]\n    \
        @task\n    def after():\n        pass\n    sensors >> after()\n";
    test.add_dag("timed", &format!("{IMPORTS}{dag}"));
    let run_id = test.trigger("timed");
    let waiting =
        "SELECT string_agg(task_id, ' ' ORDER BY task_id) FROM task_instance WHERE state = 'up_for_reschedule'";
    wait_until("three wait", SOON, || test.sql(waiting) == "deferred delta rescheduled");
    assert_eq!(test.wait_run("timed", &run_id)["state"], "success");
    assert_eq!(test.sql("SELECT string_agg(task_id, ' ') FROM task_try"), "after", "only that has had a process");
    let waited =
        "SELECT bool_and(task_instance.end_date >= run_after + interval '8 seconds') FROM task_instance JOIN dag_run
                  USING (dag_id, run_id) WHERE task_id IN ('deferred', 'delta', 'rescheduled')";
    assert_eq!(test.sql(waited), "t");
    assert_eq!(test.sql("SELECT DISTINCT try_number FROM task_instance"), "1");
}

#[test]
fn what_their_own_code_has_to_do_is_done_by_it() {
    let test = TestHome::started();
    let dag = "class Own(TimeDeltaSensor):\n    def poke(self, context):\n        return 'own' in self.task_id\n\
        with DAG('more'):\n    delta = timedelta(seconds=2)\n    \
        TimeDeltaSensor(task_id='outlet', delta=delta, outlets=[Asset('made')])\n    \
        TimeDeltaSensor(task_id='callback', delta=delta, on_success_callback=lambda context: print('told', context['ti'].task_id))\n    \
        Own(task_id='own', delta=timedelta(days=1))\n    \
        TimeDeltaSensor(task_id='gives_up', delta=timedelta(days=1), timeout=1, poke_interval=1, mode='reschedule', soft_fail=True)\n    \
        TimeDeltaSensor(task_id='started', delta=delta, on_execute_callback=lambda context: print('begins')) >> \\\n        \
        DateTimeSensor(task_id='never', target_time=datetime.max, timeout=0, soft_fail=True)\n    \
        TimeDeltaSensor(task_id='too_long', delta=timedelta(days=1), execution_timeout=timedelta(seconds=1))\n";
    test.add_dag("more", &format!("{IMPORTS}{dag}"));
    assert_eq!(test.run_dag("more")["state"], "failed");
    let states = test.sql("SELECT json_object_agg(task_id, state) FROM task_instance");
    let states: serde_json::Value = serde_json::from_str(&states).unwrap();
    let expected = json!({
        "outlet": "success", "callback": "success", "own": "success", "gives_up": "skipped", "too_long": "failed",
        "started": "success", "never": "skipped",
    });
    assert_eq!(states, expected);
    assert_eq!(test.sql("SELECT count(*) FROM asset_event"), "1");
    assert!(test.task_log("more", "callback").contains("told callback"));
}

#[test]
fn a_time_that_a_file_works_out_when_it_runs_is_for_its_process() {
    let test = TestHome::started();
    let dag = "with DAG('worked_out'):\n    \
        DateTimeSensor(task_id='t', target_time=datetime.now(timezone.utc) + timedelta(seconds=3), poke_interval=1)\n";
    test.add_dag("worked_out", &format!("{IMPORTS}{dag}"));
    // When it was imported is no matter.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(test.run_dag("worked_out")["state"], "success");
    let waited = "SELECT count(*) FROM task_try WHERE end_date - start_date >= interval '2 seconds'";
    assert_eq!(test.sql(waited), "1", "it has waited from its own beginning on");
}
