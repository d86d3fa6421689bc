//! Schedules, retries and deferrals after a clock that was hours ahead is set back.

use crate::support::{TestHome, wait_until};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

const DAGS: &str = r#"
import datetime
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.triggers.file import FileTrigger
from airflow.sdk import DAG, BaseOperator, task

with DAG("often", schedule=datetime.timedelta(seconds=2), start_date=datetime.datetime(2026, 1, 1), catchup=False, max_active_runs=1):
    EmptyOperator(task_id="t")

with DAG("ever", schedule="@continuous", start_date=datetime.datetime(2026, 1, 1), max_active_runs=1):
    EmptyOperator(task_id="t")

class Holds(BaseOperator):
    def execute(self, context):
        self.defer(trigger=FileTrigger("/nowhere/at/all"), method_name="after", timeout=datetime.timedelta(hours=1))

with DAG("again"):
    Holds(task_id="holds")
    @task(retries=1, retry_delay=datetime.timedelta(hours=1))
    def fails(ti):
        if ti.try_number == 1:
            raise ValueError("once")
    fails()
"#;

/// Changes the datastore to what it would contain if the clock had been three hours ahead until now.
const AHEAD: &str = "
    UPDATE task_instance SET end_date = now() + interval '3 hours', due_at = now() + interval '3 hours 1 second'
    WHERE task_id = 'fails';
    UPDATE task_trigger SET created_at = now() + interval '3 hours', timeout_at = now() + interval '3 hours 1 second';
    INSERT INTO dag_run (dag_id, run_id, run_type, state, logical_date, data_interval_start, data_interval_end, run_after,
                         queued_at, dag_version_id)
    SELECT 'often', 'ahead_' || state, 'scheduled', state, at, at, at, at, at, current_version_id
    FROM dag, (VALUES ('success', now() + interval '3 hours'), ('queued', now() + interval '2 hours')) ahead (state, at)
    WHERE dag_id = 'often';
    UPDATE dag SET next_run_after = now() + interval '3 hours', next_logical_date = now() + interval '3 hours',
        schedule_key = regexp_replace(schedule_key, '^at [^ ]+',
                                      'at ' || to_char(now() AT TIME ZONE 'UTC' + interval '3 hours', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'))
    WHERE dag_id IN ('often', 'ever');
    UPDATE dag_run SET data_interval_end = now() + interval '3 hours', run_after = now() + interval '3 hours',
        queued_at = now() + interval '3 hours'
    WHERE dag_id = 'ever' AND logical_date = (SELECT max(logical_date) FROM dag_run WHERE dag_id = 'ever');";

#[test]
fn schedules_go_on_after_the_clock_is_set_back() {
    let test = TestHome::started();
    test.save("dags.py", DAGS);
    for dag_id in ["often", "ever", "again"] {
        test.wait_dag(dag_id, 1);
    }
    for dag_id in ["often", "ever"] {
        test.run(&["dags", "unpause", dag_id]).expect(0);
    }
    let run_id = test.trigger("again");
    let again_states = "SELECT string_agg(state, ' ' ORDER BY task_id) FROM task_instance WHERE dag_id = 'again'";
    wait_until("both tasks wait", LIMIT, || test.sql(again_states) == "up_for_retry deferred");
    let often_runs = "SELECT count(*) FROM dag_run WHERE dag_id = 'often' AND run_after <= now() AND state = 'success'";
    wait_until("the schedule runs", LIMIT, || test.sql(often_runs) != "0");
    let ever_runs = "SELECT count(*) FROM dag_run WHERE dag_id = 'ever' AND run_after <= now() AND state = 'success'";
    wait_until("the continuous schedule runs", LIMIT, || test.sql(ever_runs) != "0");
    test.run(&["dags", "pause", "ever"]).expect(0);
    test.sql(AHEAD);
    let ever_runs_before: i64 = test.sql(ever_runs).parse().unwrap();
    test.run(&["dags", "unpause", "ever"]).expect(0);
    let often_runs_before: i64 = test.sql(often_runs).parse().unwrap();
    test.kill_and_wait("server");
    wait_until("the schedule goes on", LIMIT, || test.sql(often_runs).parse::<i64>().unwrap() > often_runs_before + 1);
    let started_at = Instant::now();
    while test.sql(ever_runs).parse::<i64>().unwrap() <= ever_runs_before + 1 {
        let state =
            "SELECT schedule_key, is_paused, next_run_after, next_logical_date, (SELECT string_agg(concat_ws(' ',
                         run_id, state, run_after, data_interval_end), ', ' ORDER BY logical_date DESC)
                     FROM (SELECT * FROM dag_run WHERE dag_id = 'ever' ORDER BY logical_date DESC LIMIT 4) r)
                     FROM dag WHERE dag_id = 'ever'";
        assert!(started_at.elapsed() < LIMIT, "the continuous schedule does not go on: {}", test.sql(state));
        std::thread::sleep(Duration::from_millis(50));
    }
    let queued = "SELECT state FROM dag_run WHERE run_id = 'ahead_queued'";
    wait_until("the queued run succeeds", LIMIT, || test.sql(queued) == "success");
    test.wait_run("again", &run_id);
    assert_eq!(test.sql(again_states), "success failed");
    let outcome = test.sql("SELECT outcome FROM task_try WHERE task_id = 'holds'");
    assert!(outcome.starts_with("TaskDeferralTimeout: "), "{outcome}");
    let duplicates = "SELECT count(*) - count(DISTINCT logical_date) FROM dag_run WHERE dag_id = 'often'";
    assert_eq!(test.sql(duplicates), "0");
}
