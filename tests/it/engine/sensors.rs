//! Sensors that the scheduler can evaluate wait without a process; sensors with code of their own run it in one.

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
fn time_sensors_wait_without_a_process() {
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
    wait_until("three sensors wait", SOON, || test.sql(waiting) == "deferred delta rescheduled");
    assert_eq!(test.wait_run("timed", &run_id)["state"], "success");
    assert_eq!(test.sql("SELECT string_agg(task_id, ' ') FROM task_try"), "after", "only this task had a process");
    let waited =
        "SELECT bool_and(task_instance.end_date >= run_after + interval '8 seconds') FROM task_instance JOIN dag_run
                  USING (dag_id, run_id) WHERE task_id IN ('deferred', 'delta', 'rescheduled')";
    assert_eq!(test.sql(waited), "t");
    assert_eq!(test.sql("SELECT DISTINCT try_number FROM task_instance"), "1");
}

#[test]
fn sensors_with_own_code_run_it_in_a_process() {
    let test = TestHome::started();
    let dag = "class Own(TimeDeltaSensor):\n    def poke(self, context):\n        return 'own' in self.task_id\n\
        with DAG('more'):\n    delta = timedelta(seconds=2)\n    \
        TimeDeltaSensor(task_id='outlet', delta=delta, outlets=[Asset('made')])\n    \
        TimeDeltaSensor(task_id='callback', delta=delta, on_success_callback=lambda context: print('called for', context['ti'].task_id))\n    \
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
    assert!(test.task_log("more", "callback").contains("called for callback"));
}

#[test]
fn a_sensor_with_a_computed_target_time_runs_in_a_process() {
    let test = TestHome::started();
    let dag = "with DAG('computed'):\n    \
        DateTimeSensor(task_id='t', target_time=datetime.now(timezone.utc) + timedelta(seconds=3), poke_interval=1)\n";
    test.add_dag("computed", &format!("{IMPORTS}{dag}"));
    // The target time of the first import passes; the sensor's process imports the file again.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(test.run_dag("computed")["state"], "success");
    let waited = "SELECT count(*) FROM task_try WHERE end_date - start_date >= interval '2 seconds'";
    assert_eq!(test.sql(waited), "1", "the sensor waits for the target time that its process computed");
}

#[test]
fn external_task_sensors_wait_without_a_process() {
    let test = TestHome::started();
    test.add_dag(
        "other",
        "from airflow.sdk import DAG, task\nwith DAG('other'):\n    @task\n    def made():\n        pass\n    made()\n    \
         @task\n    def fails():\n        raise ValueError('no')\n    fails()\n",
    );
    let dag = "from airflow.sdk import DAG\nfrom datetime import timedelta\n\
        from airflow.providers.standard.sensors.external_task import ExternalTaskSensor\n\
        def wait(task_id, **more):\n    \
            return ExternalTaskSensor(task_id=task_id, external_dag_id='other', poke_interval=0.5, **more)\n\
        with DAG('waits'):\n    wait('task', external_task_id='made')\n    \
        wait('run', allowed_states=['failed'], mode='reschedule')\n    \
        wait('earlier', external_task_id='made', execution_delta=timedelta(days=1), timeout=3600, soft_fail=True)\n    \
        wait('bad', failed_states=['failed'], external_task_ids=['fails', 'made'])\n    \
        ExternalTaskSensor(task_id='absent', external_dag_id='nothing', poke_interval=0.5, timeout=1, soft_fail=True)\n";
    test.add_dag("waits", dag);
    let date = ["--logical-date", "2026-03-01", "--json"];
    let run = test.run(&[&["dags", "trigger", "waits"], &date[..]].concat()).expect(0).json();
    let run_id = run["dag_run_id"].as_str().unwrap().to_owned();
    let states = |state: &str| {
        let query =
            format!("SELECT string_agg(task_id, ' ' ORDER BY task_id) FROM task_instance WHERE state = '{state}'");
        test.sql(&query)
    };
    wait_until("one sensor has timed out", SOON, || states("skipped") == "absent");
    assert_eq!(states("up_for_reschedule"), "bad earlier run task");
    assert_eq!(
        test.sql("SELECT string_agg(task_id, ' ') FROM task_try"),
        "absent",
        "only the timed-out sensor had a process"
    );
    test.run(&[&["dags", "trigger", "other"], &date[..]].concat()).expect(0);
    // The timeout counts from the start of the wait, so the process of a timed-out sensor ends at once, not in an hour.
    test.sql(
        "UPDATE task_instance SET start_date = start_date - interval '2 hours', due_at = now() WHERE task_id = 'earlier'",
    );
    test.plan_again();
    assert_eq!(test.wait_run("waits", &run_id)["state"], "failed");
    assert_eq!(
        [states("success"), states("skipped"), states("failed")],
        ["made run task", "absent earlier", "bad fails"]
    );
    let tries = "SELECT string_agg(task_id, ' ' ORDER BY task_id) FROM task_try WHERE dag_id = 'waits'";
    assert_eq!(test.sql(tries), "absent bad earlier");
    assert!(test.task_log("waits", "bad").contains("Some of the external tasks of other failed."));
}

#[test]
fn file_sensors_wait_without_a_process_for_literal_paths() {
    let test = TestHome::started();
    let file = test.folder().join("expected");
    let missing = test.folder().join("missing");
    let dag = format!(
        "from airflow.sdk import DAG\nfrom airflow.providers.standard.sensors.filesystem import FileSensor\n\
         with DAG('files'):\n    FileSensor(task_id='plain', filepath={file:?}, poke_interval=0.3)\n    \
         FileSensor(task_id='pattern', filepath={file:?} + '*', poke_interval=0.3, mode='reschedule')\n    \
         FileSensor(task_id='folder', filepath={:?}, poke_interval=0.3)\n    \
         FileSensor(task_id='gives_up', filepath={missing:?}, poke_interval=0.3, timeout=1, soft_fail=True)\n",
        test.folder()
    );
    test.add_dag("files", &dag);
    let run_id = test.trigger("files");
    let state = |task: &str| test.sql(&format!("SELECT state FROM task_instance WHERE task_id = '{task}'"));
    wait_until("one sensor has timed out", SOON, || state("gives_up") == "skipped");
    assert_eq!(state("plain"), "up_for_reschedule");
    let duration = "SELECT end_date - start_date >= interval '1 second' FROM task_instance WHERE task_id = 'gives_up'";
    assert_eq!(test.sql(duration), "t", "its duration includes the wait");
    std::fs::write(&file, "").unwrap();
    assert_eq!(test.wait_run("files", &run_id)["state"], "success");
    let tries = "SELECT string_agg(task_id, ' ' ORDER BY task_id) FROM task_try";
    assert_eq!(test.sql(tries), "folder gives_up pattern");
}

const DELTAS: &str = "with DAG('deltas'):\n    \
    TimeDeltaSensor(task_id='one', delta=timedelta(hours=1), retries=1)\n    @task_group\n    def group(n):\n        \
        TimeDeltaSensor(task_id='each', delta=timedelta(hours=1))\n    group.expand(n=[1, 2])\n\
    with DAG('other'):\n    EmptyOperator(task_id='nothing')\n";

#[test]
fn waiting_sensors_survive_clear_pause_and_another_release() {
    let test = TestHome::started();
    let more_imports =
        "from airflow.sdk import task_group\nfrom airflow.providers.standard.operators.empty import EmptyOperator\n";
    test.add_dag("deltas", &format!("{IMPORTS}{more_imports}{DELTAS}"));
    let run_id = test.trigger("deltas");
    let states = || {
        test.sql("SELECT string_agg(task_id || map_index || ' ' || state, ', ' ORDER BY task_id, map_index) FROM task_instance
                  WHERE dag_id = 'deltas'")
    };
    let waiting = "group.each0 up_for_reschedule, group.each1 up_for_reschedule, one-1 up_for_reschedule";
    wait_until("all sensors wait", SOON, || states() == waiting);
    let began = || test.sql("SELECT start_date FROM task_instance WHERE task_id = 'one'");
    let first = began();
    test.run(&["runs", "clear", "deltas", &run_id, "--yes"]).expect(0);
    wait_until("the sensors have restarted", SOON, || states() == waiting && began() != first);
    assert_eq!(test.sql("SELECT try_number FROM task_instance WHERE task_id = 'one'"), "2");
    // The sensors keep waiting across a restart.
    test.run(&["lite", "stop"]).expect(0);
    test.run(&["lite", "start"]).expect(0);
    wait_until("all sensors still wait", SOON, || states() == waiting);
    test.run(&["dags", "pause", "deltas"]).expect(0);
    let hour_ago = "UPDATE dag_run SET run_after = run_after - interval '1 hour',
                                       data_interval_end = data_interval_end - interval '1 hour';
                    UPDATE task_instance SET due_at = now()";
    test.sql(hour_ago);
    test.plan_again();
    assert_eq!(test.run_dag("other")["state"], "success", "the scheduler has planned all runs");
    assert_eq!(states(), waiting, "nothing starts in a paused DAG");
    // Without `waits`, as another release writes the structure, the sensor runs in a process.
    test.sql("UPDATE dag_version SET structure = (structure::jsonb #- '{tasks,0,waits}')::json");
    test.run(&["lite", "restart"]).expect(0);
    test.run(&["dags", "unpause", "deltas"]).expect(0);
    assert_eq!(test.wait_run("deltas", &run_id)["state"], "success");
    assert_eq!(
        test.sql("SELECT task_id || ' ' || try_number FROM task_try"),
        "one 2",
        "only this sensor had a process"
    );
}
