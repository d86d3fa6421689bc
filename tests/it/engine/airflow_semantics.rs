//! Airflow semantics that `airflow_facts` does not compare: pools, backfills, custom timetables, callbacks, project
//! settings, and runs in the foreground.

use crate::support::http::Session;
use crate::support::{TestHome, processes, wait_until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

/// Returns the states of a DAG's runs, oldest first.
fn run_states(test: &TestHome, dag_id: &str) -> String {
    test.sql(&format!(
        "SELECT coalesce(string_agg(state, ',' ORDER BY run_after), '') FROM dag_run WHERE dag_id = '{dag_id}'"
    ))
    .trim()
    .to_owned()
}

/// Returns `TASK:MAP_INDEX:STATE:TRIES` of a DAG's task instances.
fn instances(test: &TestHome, dag_id: &str) -> String {
    let query = format!(
        "SELECT string_agg(task_id || ':' || map_index || ':' || coalesce(state, 'none') || ':' || try_number, ' '
                           ORDER BY task_id, map_index) FROM task_instance WHERE dag_id = '{dag_id}'"
    );
    test.sql(&query).trim().to_owned()
}

#[test]
fn freed_pool_slots_start_tasks_and_retries_keep_map_index() {
    let test = TestHome::started();
    test.run(&["pools", "set", "narrow", "1", "one at a time"]).expect(0);
    test.save(
        "pools.py",
        "import os, time\nfrom airflow.sdk import DAG, task\nwith DAG('holds'):\n    @task(pool='narrow')\n    def t():\n        time.sleep(60)\n    t()\n\
         with DAG('waits'):\n    @task(pool='narrow')\n    def t():\n        return 1\n    t()\n",
    );
    test.save(
        "again.py",
        "from airflow.sdk import DAG, task\nwith DAG('again'):\n    @task\n    def n():\n        return [1, 2, 3]\n    @task(retries=1, retry_delay=1)\n    def t(x, ti):\n        if x == 2 and ti.try_number == 1:\n            raise ValueError(x)\n        return x\n    t.expand(x=n())\n",
    );
    for dag_id in ["holds", "waits", "again"] {
        test.wait_dag(dag_id, 1);
    }
    test.run(&["dags", "trigger", "again"]).expect(0);
    test.run(&["dags", "trigger", "holds"]).expect(0);
    wait_until("the pool is full", SOON, || instances(&test, "holds") == "t:-1:running:1");
    test.run(&["dags", "trigger", "waits"]).expect(0);
    wait_until("a task waits for a slot", SOON, || instances(&test, "waits") == "t:-1:scheduled:1");
    let pool = test.run(&["pools", "get", "narrow", "--json"]).expect(0).json();
    assert_eq!((&pool["pools"][0]["occupied_slots"], &pool["pools"][0]["scheduled_slots"]), (&json!(1), &json!(1)));
    test.run(&["runs", "cancel", "holds", "latest"]).expect(0);
    wait_until("the waiting task has run", SOON, || run_states(&test, "waits") == "success");
    wait_until("the retry has succeeded", SOON, || run_states(&test, "again") == "success");
    assert_eq!(instances(&test, "again"), "n:-1:success:1 t:0:success:1 t:1:success:2 t:2:success:1");
    test.run(&["pools", "delete", "default_pool"]).expect(1);
    let exported = test.run(&["pools", "export", "-"]).expect(0).json();
    assert_eq!(exported["narrow"]["slots"], 1);
}

#[test]
fn custom_timetables_backfills_and_callbacks_run() {
    let test = TestHome::started();
    test.save(
        "own.py",
        "from datetime import datetime, timedelta, timezone\nfrom airflow.sdk import DAG, task\n\
         from airflow.timetables.base import DagRunInfo, DataInterval, Timetable\n\
         class Every(Timetable):\n    def infer_manual_data_interval(self, *, run_after):\n        return DataInterval(run_after - timedelta(days=2), run_after)\n    \
         def next_dagrun_info(self, *, last_automated_data_interval, restriction):\n        start = last_automated_data_interval.end if last_automated_data_interval else restriction.earliest\n        \
         if start >= datetime(2024, 1, 7, tzinfo=timezone.utc):\n            return None\n        return DagRunInfo.interval(start, start + timedelta(days=2))\n\
         with DAG('own', schedule=Every(), start_date=datetime(2024, 1, 1, tzinfo=timezone.utc), catchup=True):\n    @task\n    def t(data_interval_start):\n        return data_interval_start.isoformat()\n    t()\n",
    );
    let callback_file = test.folder().join("called");
    test.save(
    "monthly.py",
        &format!(
            "from datetime import datetime, timezone\nfrom airflow.sdk import DAG, Param, task\n\
             def note(context):\n    open({callback_file:?}, 'a').write(context['reason'] + ' ' + context['run_id'] + '\\n')\n\
             with DAG('monthly', schedule='@monthly', start_date=datetime(2030, 1, 1, tzinfo=timezone.utc), on_success_callback=note, params={{'n': Param(1, type='integer')}}):\n    @task\n    def t(params):\n        return params['n']\n    t()\n"
        ),
    );
    for dag_id in ["own", "monthly"] {
        test.wait_dag(dag_id, 1);
    }
    test.run(&["dags", "unpause", "own"]).expect(0);
    wait_until("all runs have succeeded", SOON, || run_states(&test, "own") == "success,success,success");
    let dates = test.sql("SELECT string_agg(to_char(data_interval_start AT TIME ZONE 'UTC', 'DD'), ',' ORDER BY run_after) FROM dag_run WHERE dag_id = 'own'");
    assert_eq!(dates.trim(), "01,03,05");
    test.run(&["dags", "trigger", "own", "--logical-date", "2024-03-05", "--wait"]).expect(0);
    let manual = test.sql(
        "SELECT data_interval_end - data_interval_start FROM dag_run WHERE dag_id = 'own' AND run_type = 'manual'",
    );
    assert_eq!(manual.trim(), "2 days");

    // A next run that was computed before a pause is outdated when the DAG is unpaused days later.
    test.save(
        "later.py",
        "from datetime import datetime, timezone\nfrom airflow.sdk import DAG, task\n\
         from airflow.timetables.base import DagRunInfo, DataInterval, Timetable\n\
         class Later(Timetable):\n    def infer_manual_data_interval(self, *, run_after):\n        return DataInterval.exact(run_after)\n    \
         def next_dagrun_info(self, *, last_automated_data_interval, restriction):\n        return DagRunInfo.exact(datetime(2199, 1, 1, tzinfo=timezone.utc))\n\
         with DAG('later', schedule=Later(), start_date=datetime(2024, 1, 1, tzinfo=timezone.utc), catchup=False):\n    @task\n    def t():\n        pass\n    t()\n",
    );
    test.wait_dag("later", 1);
    let is_next_run_known = || {
        test.sql("SELECT next_run_after > now() FROM dag WHERE dag_id = 'later' AND schedule_key IS NOT NULL").trim()
            == "t"
    };
    wait_until("the next run is known", SOON, is_next_run_known);
    test.sql("UPDATE dag SET next_run_after = '2024-05-05', next_logical_date = '2024-05-05' WHERE dag_id = 'later'");
    test.run(&["dags", "unpause", "later"]).expect(0);
    wait_until("the next run is computed again", SOON, is_next_run_known);
    assert_eq!(run_states(&test, "later"), "");

    let create = ["backfill", "create", "--dag-id", "monthly", "--from-date", "2024-01-01", "--to-date", "2024-03-01"];
    let dry = test.run(&[&create[..], &["--dry-run"]].concat()).expect(0);
    assert_eq!(dry.stdout.lines().count(), 3, "{}", dry.stdout);
    test.run(&[&create[..], &["--dag-run-conf", "{\"n\": \"no number\"}"]].concat()).expect(1);
    let created = test.run(&[&create[..], &["--dag-run-conf", "{\"n\": 5}", "--json"]].concat()).expect(0).json();
    assert_eq!(created["reprocess_behavior"], "none");
    test.run(&create).expect(1);
    test.run(&["dags", "unpause", "monthly"]).expect(0);
    wait_until("the backfill is over", SOON, || {
        test.run(&["backfill", "list", "--json"]).expect(0).json()["backfills"][0]["completed_at"].is_string()
    });
    assert_eq!(run_states(&test, "monthly"), "success,success,success");
    let values = test.sql("SELECT string_agg(value::text, ',') FROM xcom WHERE dag_id = 'monthly'");
    assert_eq!(values.trim(), "5,5,5");
    wait_until("the callbacks were called", SOON, || {
        std::fs::read_to_string(&callback_file).is_ok_and(|text| text.matches("success backfill__2024").count() == 3)
    });
    let refused = test.run(&["dags", "trigger", "monthly", "--conf", "{\"n\": 1.5}"]).expect(1);
    assert!(refused.stderr.contains("Invalid input for param n"), "{}", refused.stderr);
    // The runs of a paused DAG stay queued, so that the backfill can be cancelled.
    test.run(&["dags", "pause", "monthly"]).expect(0);
    let again = test.run(&[&create[..], &["--reprocess-behavior", "completed", "--json"]].concat()).expect(0).json();
    test.run(&["backfill", "cancel", &again["id"].to_string()]).expect(0);
    test.run(&["runs", "list", "monthly"]).expect(0);
}

#[test]
fn hanging_or_exiting_user_code_does_not_block_other_dags() {
    let test = TestHome::started();
    let began = Instant::now();
    let go = test.folder().join("go");
    let hangs = format!("while not os.path.exists({go:?}): pass\n        os._exit(3)");
    // Separate files, whose names put the bad DAGs first.
    for (dag_id, answer) in [("a_hangs", &*hangs), ("b_exits", "os._exit(3)"), ("z_answers", "return None")] {
        test.save(
            &format!("{dag_id}.py"),
            &format!(
                "import os\nfrom datetime import datetime, timezone\nfrom airflow.sdk import DAG, task\n\
                 from airflow.timetables.base import DagRunInfo, DataInterval, Timetable\n\
                 class Own(Timetable):\n    def infer_manual_data_interval(self, *, run_after):\n        return DataInterval.exact(run_after)\n    \
                 def next_dagrun_info(self, *, last_automated_data_interval, restriction):\n        \
                 if {is_good} and not last_automated_data_interval:\n            return DagRunInfo.exact(restriction.earliest)\n        {answer}\n\
                 with DAG({dag_id:?}, schedule=Own(), start_date=datetime(2024, 1, 1, tzinfo=timezone.utc), catchup=True, is_paused_upon_creation=False):\n    \
                 @task\n    def t():\n        pass\n    t()\n",
                is_good = if dag_id == "z_answers" { "True" } else { "False" },
            ),
        );
        test.wait_dag(dag_id, 1);
    }
    wait_until("the good DAG has run", SOON, || run_states(&test, "z_answers") == "success");
    let key = |dag_id: &str| {
        test.sql(&format!("SELECT coalesce(schedule_key, 'none') FROM dag WHERE dag_id = '{dag_id}'")).trim().to_owned()
    };
    // `dagbag_import_timeout`, 30 seconds of processor time, also ends the process that evaluates a timetable.
    assert!(key("a_hangs") == "none" || began.elapsed() > Duration::from_secs(30), "the timetable still runs");
    std::fs::write(go, "").unwrap();
    for dag_id in ["a_hangs", "b_exits"] {
        wait_until("the timetable's process has ended and is retried later", SOON, || {
            key(dag_id).starts_with("again ")
        });
    }

    let callback_file = test.folder().join("called");
    test.save(
    "calls.py",
        &format!(
            "import os, time\nfrom airflow.sdk import DAG, task\ndef exits(context):\n    os._exit(3)\ndef hangs(context):\n    time.sleep(3600)\n\
             def tells(context):\n    open({callback_file:?}, 'a').write(context['run_id'] + '\\n')\n\
             for name, callback in (('c_exits', exits), ('c_hangs', hangs), ('d_tells', tells)):\n    \
             with DAG(name, on_success_callback=callback):\n        @task\n        def t():\n            pass\n        t()\n"
        ),
    );
    for dag_id in ["c_exits", "c_hangs", "d_tells"] {
        test.wait_dag(dag_id, 1);
        test.run(&["dags", "trigger", dag_id, "--wait"]).expect(0);
    }
    let is_called = || std::fs::read_to_string(&callback_file).is_ok_and(|text| !text.is_empty());
    wait_until("the good callback was called", SOON, is_called);
    for problem in ["the callback of c_exits", "cannot compute the next run of b_exits"] {
        wait_until(problem, SOON, || {
            std::fs::read_to_string(test.home.join("logs/server.log")).unwrap().contains(problem)
        });
    }
}

#[test]
fn more_due_runs_than_one_batch_are_all_created() {
    let test = TestHome::started();
    test.save(
        "many.py",
        "from datetime import datetime\nfrom airflow.sdk import DAG\n\
         from airflow.providers.standard.operators.empty import EmptyOperator\nfor n in range(230):\n    \
         with DAG(f'once_{n}', schedule='@once', start_date=datetime(2026, 1, 1)):\n        EmptyOperator(task_id='t')\n",
    );
    let ended =
        "SELECT count(*) FROM dag_run WHERE state = 'success' AND dag_id LIKE 'once%' AND run_type = 'scheduled'";
    let paused = "SELECT count(*) FROM dag WHERE dag_id LIKE 'once%' AND is_paused";
    wait_until("the DAGs exist", SOON, || test.sql(paused) == "230");
    test.sql("UPDATE dag SET is_paused = false WHERE dag_id LIKE 'once%'");
    // Only the API notifies the scheduler, so one DAG is unpaused through the API.
    test.run(&["dags", "pause", "once_0"]).expect(0);
    test.run(&["dags", "unpause", "once_0"]).expect(0);
    wait_until("each DAG has run", SOON, || test.sql(ended) == "230");
}

/// Stops and continues all processes, as a laptop does when it sleeps.
#[test]
fn catchup_decides_whether_runs_missed_in_sleep_are_created() {
    let test = TestHome::started();
    let start = test.sql("SELECT to_char(date_trunc('second', now() AT TIME ZONE 'UTC'), 'YYYY-MM-DD HH24:MI:SS')");
    for (dag_id, catchup) in [("catches", "True"), ("skips", "False")] {
        test.save(
            &format!("{dag_id}.py"),
            &format!(
                "from datetime import datetime, timedelta, timezone\nfrom airflow.sdk import DAG\n\
                 from airflow.providers.standard.operators.empty import EmptyOperator\n\
                 with DAG({dag_id:?}, schedule=timedelta(seconds=1), start_date=datetime.fromisoformat('{}+00:00'),\n         \
                 catchup={catchup}, max_active_runs=0, is_paused_upon_creation=False):\n    EmptyOperator(task_id='t')\n",
                start.trim()
            ),
        );
        test.wait_dag(dag_id, 1);
    }
    let count = |dag_id: &str| {
        let query = format!("SELECT count(*) FROM dag_run WHERE dag_id = '{dag_id}' AND state = 'success'");
        test.sql(&query).trim().parse::<i64>().unwrap()
    };
    for dag_id in ["catches", "skips"] {
        wait_until("some runs", SOON, || count(dag_id) >= 2);
    }
    let before = count("catches");
    // Stops the supervisor first, because it would treat the others as frozen.
    let supervisor = test.pid("supervisor");
    let mut all = processes::mentioning(test.folder());
    all.sort_by_key(|pid| *pid != supervisor);
    all.iter().for_each(|pid| processes::signal(*pid, "STOP"));
    std::thread::sleep(Duration::from_secs(6));
    all.iter().rev().for_each(|pid| processes::signal(*pid, "CONT"));
    wait_until("the missed runs are created", SOON, || count("catches") >= before + 6);
    let widest_gap = |dag_id: &str| {
        let query = format!(
            "SELECT extract(epoch FROM max(gap))::integer FROM (
                SELECT logical_date - lag(logical_date) OVER (ORDER BY logical_date) AS gap
                FROM dag_run WHERE dag_id = '{dag_id}') AS gaps"
        );
        test.sql(&query).trim().parse::<i64>().unwrap()
    };
    wait_until("the DAG without catchup goes on", SOON, || widest_gap("skips") >= 5);
    assert_eq!(widest_gap("catches"), 1);
}

#[test]
fn oversized_or_invalid_task_output_fails_only_that_task() {
    let test = TestHome::started();
    test.save(
        "long.py",
        "import resource\nfrom airflow.sdk import DAG, Asset, task\nfrom airflow.providers.standard.operators.bash import BashOperator\n\
         def limit(context):\n    resource.setrlimit(resource.RLIMIT_DATA, (100 << 20, 100 << 20))\n\
         with DAG('long'):\n    \
         BashOperator(task_id='endless', bash_command='head -c 150000000 /dev/zero | tr \"\\\\0\" a', do_xcom_push=False, pre_execute=limit)\n    \
         BashOperator(task_id='pushed', bash_command='head -c 20000000 /dev/zero | tr \"\\\\0\" a')\n    \
         BashOperator(task_id='last', bash_command='echo one; printf \"two  \"')\n    \
         @task(outlets=[Asset('out')])\n    def event(outlet_events):\n        outlet_events[Asset('out')].extra = {'n': float('nan')}\n    event()\n",
    );
    test.wait_dag("long", 1);
    test.run(&["dags", "trigger", "long", "--wait"]).expect(1);
    let ended = "endless:-1:success:1 event:-1:failed:1 last:-1:success:1 pushed:-1:failed:1";
    assert_eq!(instances(&test, "long"), ended);
    let outcome = test.sql("SELECT outcome FROM task_try WHERE task_id = 'event'");
    assert!(outcome.contains("the extra of the event of"), "{outcome}");
    assert_eq!(test.sql("SELECT value FROM xcom WHERE task_id = 'last'").trim(), "\"two\"");
    let outcome = test.sql("SELECT outcome FROM task_try WHERE task_id = 'pushed'");
    assert!(outcome.contains("the limit is 10 MiB"), "{outcome}");
}

#[test]
fn project_settings_apply_to_scheduled_and_foreground_runs() {
    let test = TestHome::new().with_packages();
    test.start();
    let project = test.workspace().join("report");
    std::fs::create_dir_all(&project).unwrap();
    std::fs::write(
        project.join("dag.py"),
        "import os\nfrom airflow.sdk import DAG, task\nfrom airflow.providers.standard.operators.bash import BashOperator\n\
         with DAG('report', default_args={'owner': 'file'}):\n    @task\n    def n():\n        return [1, 2]\n    @task\n    def t(x):\n        return [x, os.environ.get('REGION')]\n    \
         @task.branch\n    def choose():\n        return 'said'\n    \
         said = BashOperator(task_id='said', bash_command='echo {{ ds }} {{ params.p }}', params={'p': 'q'})\n    \
         other = BashOperator(task_id='other', bash_command='echo other')\n    t.expand(x=n()) >> choose() >> [said, other]\n",
    )
    .unwrap();
    let settings = "schema_version: \"1.0\"\ndag_id: report\nowner: team\ntags: [a]\ndefaults: {retries: 3}\ntasks:\n  t: {retries: 1, env: {REGION: eu}}\n";
    std::fs::write(project.join("leoflow.yaml"), settings).unwrap();
    test.wait_dag("report", 1);
    test.run(&["dags", "trigger", "report", "--logical-date", "2024-01-02", "--wait"]).expect(0);
    let run = |column: &str| {
        test.sql(&format!(
            "SELECT {column} FROM task_instance WHERE dag_id = 'report' AND task_id = 't' AND map_index = 1"
        ))
        .trim()
        .to_owned()
    };
    assert_eq!(run("max_tries"), "1");
    let value = test.run(&["xcom", "get", "report", "latest", "t", "--map-index", "1"]).expect(0).stdout;
    assert_eq!(serde_json::from_str::<Value>(&value).unwrap(), json!([2, "eu"]));
    let shown = test.run(&["dags", "show", "report", "--json"]).expect(0).json();
    assert_eq!(shown["tags"], json!(["a"]), "{shown}");

    let foreground = test.run(&["dags", "test", "report", "--logical-date", "2024-01-02"]).expect(0);
    for line in ["t[1]  success", "said  success", "other  skipped"] {
        assert!(foreground.stderr.contains(line), "{line}: {}", foreground.stderr);
    }
    assert!(foreground.stdout.contains("2024-01-02 q") && foreground.stdout.ends_with("report  success\n"));
    let rendered = test.run(&["tasks", "render", "report", "said", "--logical-date", "2024-01-02"]).expect(0).stdout;
    assert!(rendered.contains("# property: bash_command") && rendered.contains("echo 2024-01-02 q"), "{rendered}");
    test.run(&["tasks", "test", "report", "n"]).expect(0);
    test.run(&["tasks", "test", "report", "t"]).expect(1);
    test.run(&["tasks", "test", "report", "nothing"]).expect(1);

    std::fs::write(project.join("leoflow.yaml"), settings.replace("  t:", "  tt:")).unwrap();
    let error = || {
        let shown = test.run(&["dags", "show", "report", "--json"]).expect(0).json();
        shown["import_error"].as_str().map(str::to_owned)
    };
    wait_until("an import error", SOON, || error().is_some_and(|text| text.contains("did you mean 't'?")));
}

#[test]
fn a_template_without_jinja2_fails_and_names_the_package() {
    let test = TestHome::started();
    test.save(
        "bare.py",
        "import importlib, urllib\nfrom airflow.sdk import DAG, task\nfrom airflow.providers.standard.operators.bash import BashOperator\n\
         # DAG files may rely on submodules that Airflow has imported.\nassert importlib.util.find_spec('os') and urllib.parse.quote('a b') == 'a%20b'\n\
         with DAG('bare'):\n    BashOperator(task_id='plain', bash_command='echo 1')\n    BashOperator(task_id='template', bash_command='echo {{ ds }}')\n",
    );
    // Hides an installed jinja2 of the system's Python.
    std::fs::write(test.workspace().join("jinja2.py"), "raise ImportError('not here')\n").unwrap();
    test.wait_dag("bare", 1);
    test.run(&["dags", "trigger", "bare", "--wait"]).expect(1);
    assert_eq!(instances(&test, "bare"), "plain:-1:success:1 template:-1:failed:1");
    let outcome = test.sql("SELECT outcome FROM task_try WHERE task_id = 'template'");
    let command = format!("`leoflow --home {} setup`", test.home.display());
    assert!(outcome.contains("jinja2") && outcome.contains(&command), "{outcome}");
}

/// `scripts/compatibility-table` generates the tables of `docs/explanation/airflow-compatibility.md` from the small
/// package and `tests/airflow/facts.json`.
#[test]
fn the_compatibility_page_matches_its_script() {
    let done = std::process::Command::new("python3")
        .args(["scripts/compatibility-table", "--check"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}

#[test]
fn a_backfill_appears_in_dag_runs_xcoms_and_events() {
    let test = TestHome::new();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    let session = Session::login(test.port, &password);
    let get = |path: &str| {
        let answer = session.request("GET", path, "");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer
    };
    test.save(
        "many.py",
        "from datetime import datetime\nfrom airflow.sdk import DAG, Asset, task\n\
         with DAG('many', schedule='@daily', start_date=datetime(2026, 1, 1), catchup=False, is_paused_upon_creation=False):\n\
        \x20   @task(outlets=[Asset('out')])\n    def each(x):\n        return x\n    each.expand(x=list(range(12)))\n",
    );
    test.wait_dag("many", 1);
    let body = json!({"dag_id": "many", "from_date": "2026-01-02T00:00:00Z", "to_date": "2026-01-02T12:00:00Z"});
    assert_eq!(session.request("POST", "/api/v2/backfills", &body.to_string()).status, 200);
    wait_until("the backfill is done", SOON, || {
        get("/api/lite/dags/many").json()["backfills"][0]["completed_at"].is_string()
    });
    let dag = get("/api/lite/dags/many").json();
    assert_eq!(dag["backfills"][0]["states"], json!({"success": 1}));
    assert!(dag["next_run_after"].is_string() && dag["is_backfillable"] == true, "{dag}");

    let run = "backfill__2026-01-02T00:00:00%2B00:00";
    let folded = get(&format!("/api/lite/dags/many/runs/{run}?fold=8")).json();
    assert_eq!(folded["task_instances"][0]["mapped"], json!({"total": 12, "states": {"success": 12}}));
    let unfolded = get(&format!("/api/lite/dags/many/runs/{run}?fold=12")).json();
    assert_eq!(unfolded["task_instances"].as_array().unwrap().len(), 12);
    let each = format!("/api/v2/dags/many/dagRuns/{run}/taskInstances/each");
    let page = get(&format!("{each}/listMapped?limit=5&offset=10")).json();
    let indices: Vec<_> =
        page["task_instances"].as_array().unwrap().iter().map(|instance| &instance["map_index"]).collect();
    assert_eq!((indices, &page["total_entries"]), (vec![&json!(10), &json!(11)], &json!(12)));
    let xcoms = get(&format!("{each}/xcomEntries?map_index=3")).json();
    assert_eq!((&xcoms["total_entries"], &xcoms["xcom_entries"][0]["map_index"]), (&json!(1), &json!(3)));
    assert_eq!(get(&format!("{each}/xcomEntries/return_value?map_index=3")).json()["value"], 3);
    // Today's scheduled run may have created events too.
    let events = get("/api/v2/assets/events?order_by=-timestamp").json();
    let times: Vec<_> =
        events["asset_events"].as_array().unwrap().iter().map(|row| row["timestamp"].as_str().unwrap()).collect();
    assert!(times.len() >= 12 && times.is_sorted_by(|newer, older| newer >= older), "{events}");
}

const RUNS: &str = "
import os, time
from airflow.sdk import DAG, setup, task, teardown

def wait_for(name):
    while not os.path.exists(name):
        time.sleep(0.02)

with DAG('marked', on_success_callback=lambda context: open('called', 'w')):
    @setup
    def make():
        pass
    @task
    def work():
        open('working', 'w').close()
        wait_for('never')
    @teardown
    def remove():
        pass
    made = make()
    made >> work() >> remove().as_teardown(setups=made)

with DAG('lengths'):
    @task
    def items():
        return [1, 2, 3]
    @task
    def gate(items):
        open('returned', 'w').close()
        wait_for('go')
        return items
    @task
    def each(item, other):
        pass
    listed = items()
    each.partial(other=gate(listed)).expand(item=listed)

with DAG('mark'):
    @task
    def number(params):
        return params['n'] or None
    @task
    def latest(ti):
        return ti.xcom_pull(task_ids='number', map_indexes=-1, include_prior_dates=True)
    number() >> latest()
";

/// From the reports apache/airflow#45530 (marked runs), #49154 (XCom backends) and #48408 (earlier XComs).
#[test]
fn marks_reported_lengths_and_earlier_xcoms_count() {
    let test = TestHome::started();
    test.save("runs.py", &RUNS.replace("with DAG('mark')", "with DAG('mark', params={'n': 0})"));
    for dag_id in ["marked", "lengths", "mark"] {
        test.wait_dag(dag_id, 1);
    }
    let run_id = test.trigger("marked");
    wait_until("the task runs", SOON, || test.workspace().join("working").exists());
    test.run(&["runs", "cancel", "marked", &run_id]).expect(0);
    assert_eq!(test.wait_run("marked", &run_id)["state"], "failed");
    assert_eq!(instances(&test, "marked"), "make:-1:success:1 remove:-1:success:1 work:-1:failed:1");
    assert!(!test.workspace().join("called").exists());
    // A clear ends the mark.
    test.sql("UPDATE task_instance SET state = 'success' WHERE task_id = 'work'");
    test.run(&["tasks", "clear", "marked", &run_id, "remove", "--yes"]).expect(0);
    assert_eq!(test.wait_run("marked", &run_id)["state"], "success");

    // What an XCom backend stores may have another length than the list.
    let run_id = test.trigger("lengths");
    wait_until("the list is stored", SOON, || test.workspace().join("returned").exists());
    test.sql(r#"UPDATE xcom SET value = '{"ref": 1, "kind": "list"}' WHERE task_id = 'items'"#);
    test.save("go", "");
    test.wait_run("lengths", &run_id);
    let count = test.sql("SELECT count(*) FROM task_instance WHERE task_id = 'each' AND map_index >= 0");
    assert_eq!(count, "3");

    let pulled = |n: i32| {
        let conf = json!({"n": n}).to_string();
        test.run(&["dags", "trigger", "mark", "--conf", &conf, "--wait"]).expect(0);
        test.sql(
            "SELECT coalesce((SELECT value::text FROM xcom x JOIN dag_run r USING (dag_id, run_id)
                   WHERE task_id = 'latest' ORDER BY r.run_after DESC LIMIT 1), 'none')",
        )
    };
    // Runs without a logical date.
    assert_eq!([pulled(0), pulled(10), pulled(20), pulled(0)], ["none", "10", "20", "20"]);
}
