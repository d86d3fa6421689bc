//! DAGs in an environment with Apache Airflow's own SDK: the SDK parses and runs them, with any provider's operators.

use crate::support::http::socket_request;
use crate::support::processes::{is_warm_python, mentioning, signal, with_argument};
use crate::support::rounds::{is_soak, seed};
use crate::support::{TestHome, task, wait_until};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

fn test_home() -> TestHome {
    let test = TestHome::new().with_airflow().with_limit("LEOFLOW_TRIGGER_IDLE_LIMIT", "3");
    test.start();
    test
}

fn state(run: &Value, task_id: &str) -> String {
    task(run, task_id)["state"].as_str().unwrap_or_default().to_owned()
}

const ALL_KINDS: &str = r#"
import datetime, sys
from airflow.sdk import DAG, Asset, AssetAlias, BaseHook, BaseOperator, Variable, task, get_current_context
from airflow.sdk.definitions.retry_policy import ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.providers.sqlite.hooks.sqlite import SqliteHook
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from leoflow import DAG as SameDAG
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from plugins.mine import Mondays

assert SameDAG is DAG

class Fails(BaseOperator):
    def execute(self, context):
        raise ValueError("always")

# As Cosmos does for each dbt model.
class AddsOutlet(BaseOperator):
    def execute(self, context):
        self.outlets.append(AssetAlias("late"))
        context["outlet_events"][AssetAlias("late")].add(Asset("model", uri="duckdb:/shop/model"))

with DAG("kinds", schedule=Mondays(), start_date=datetime.datetime(2030, 1, 1)):
    @task
    def reads():
        import airflow
        print("the password is", BaseHook.get_connection("db").password, "of", airflow.__version__)
        Variable.set("answer", Variable.get("greeting") + "!")
        return {"pair": (1, 2), "when": datetime.date(2026, 1, 2)}

    @task
    def gets(found):
        return [found["pair"][1], found["when"].year, Variable.get("answer")]

    @task
    def uses_the_database():
        from airflow.utils.session import create_session
        with create_session() as session:
            session.execute("SELECT 1")

    @task.external_python(python=sys.executable)
    def outside(n):
        import logging, shutil, os
        from airflow.sdk import BaseHook, Variable
        try:
            Variable.get("nothing")
        except Exception as error:
            logging.getLogger("outside").warning("there is no %s", Variable.get("greeting") if "nothing" in str(error) else error)
        logging.getLogger("outside").warning("%s is a schema", BaseHook.get_connection("db").schema)
        return [n + 1, shutil.which("httpx"), os.environ["VIRTUAL_ENV"], os.environ["PATH"].split(":")[-1]]

    @task.external_python(python=sys.executable)
    def each(n):
        from airflow.sdk import Variable
        return f"{n} {Variable.get('greeting')}"

    @task
    def uses_a_missing_provider():
        from airflow.providers.snowflake.hooks.snowflake import SnowflakeHook

    @task(outlets=[Asset("made")])
    def makes(*, outlet_events):
        outlet_events[Asset("made")].extra = {"rows": 3}

    @task
    def looks(ti):
        states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[ti.run_id])
        return states[ti.run_id]["makes"], ti.get_ti_count(dag_id=ti.dag_id, states=["success"]) > 0

    query = SQLExecuteQueryOperator(task_id="query", conn_id="lite", sql="SELECT 6 * 7", handler=lambda cursor: cursor.fetchone()[0])
    makes() >> looks()
    AddsOutlet(task_id="adds_outlet")
    gets(reads())
    uses_the_database()
    uses_a_missing_provider()
    outside(1)
    each.expand(n=["one"])
    no_more = [RetryRule(exception=ValueError, action=RetryAction.FAIL)]
    Fails(task_id="gives_up", retries=3, retry_policy=ExceptionRetryPolicy(rules=no_more))
    TriggerDagRunOperator(task_id="triggers", trigger_dag_id="either", trigger_run_id="made")
    soon = [RetryRule(exception=ValueError, action=RetryAction.RETRY, retry_delay=datetime.timedelta(seconds=0.1))]
    Fails(task_id="tries_soon", retries=1, retry_delay=3600, retry_policy=ExceptionRetryPolicy(rules=soon))

from airflow.timetables.assets import AssetOrTimeSchedule
from airflow.timetables.trigger import CronTriggerTimetable
with DAG("either", schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("0 0 * * *", timezone="UTC"), assets=Asset("s://one") & Asset("s://two"))):
    pass
"#;

const PLUGIN: &str = r#"
import datetime
import os
from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import BaseOperatorLink
from airflow.timetables.base import DagRunInfo, DataInterval, Timetable

class Mondays(Timetable):
    def infer_manual_data_interval(self, *, run_after):
        return DataInterval.exact(run_after)

    def next_dagrun_info(self, *, last_automated_data_interval, restriction):
        after = last_automated_data_interval.end if last_automated_data_interval else restriction.earliest
        after = (after + datetime.timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        while after.weekday() != 0:
            after += datetime.timedelta(days=1)
        return DagRunInfo.exact(after)

class Listener:
    @hookimpl
    def on_task_instance_success(self, previous_state, task_instance):
        print("the listener received the success of", task_instance.task_id)

    @hookimpl
    def on_dag_run_running(self, dag_run, msg):
        self.note(dag_run, msg)

    @hookimpl
    def on_dag_run_failed(self, dag_run, msg):
        self.note(dag_run, msg)

    def note(self, dag_run, msg):
        from airflow.sdk import Variable
        assert Variable.get("greeting") == "hello"
        with open(os.path.join(os.path.dirname(__file__), "../listened"), "a") as file:
            print(dag_run.get_dag().dag_id, dag_run.get_state(), dag_run.start_date is not None, dag_run.end_date is not None, msg, file=file)

class Console(BaseOperatorLink):
    name = "Console"
    operators = [SQLExecuteQueryOperator]
    def get_link(self, operator, *, ti_key):
        return "https://console/" + ti_key.task_id

class Mine(AirflowPlugin):
    name = "mine"
    operator_extra_links = [Console()]
    timetables = [Mondays]
    listeners = [Listener()]
"#;

#[test]
fn real_sdk_features_work_as_on_airflow() {
    let test = test_home();
    test.run(&["variables", "set", "greeting", "hello"]).expect(0);
    test.run(&["connections", "add", "db", "--conn-uri", "http://:very-secret-word@host/main"]).expect(0);
    test.run(&["connections", "add", "lite", "--conn-type", "sqlite", "--conn-host", ":memory:"]).expect(0);
    let project = test.workspace().join("kinds");
    std::fs::create_dir_all(project.join("plugins")).unwrap();
    std::fs::write(project.join("plugins/mine.py"), PLUGIN).unwrap();
    std::fs::write(project.join("dag.py"), ALL_KINDS).unwrap();
    test.wait_imported("kinds");
    let done = test.run(&["dags", "trigger", "kinds", "--unpause", "--json"]).expect(0).json();
    let run_id = done["dag_run_id"].as_str().unwrap();
    let run = test.wait_run("kinds", run_id);
    let xcom = |task_id: &str| {
        test.sql(&format!("SELECT value FROM xcom WHERE task_id = '{task_id}' AND key = 'return_value'"))
    };
    assert_eq!(xcom("gets"), "[2, 2026, \"hello!\"]", "{run}");
    assert_eq!((xcom("query").as_str(), state(&run, "query").as_str()), ("42", "success"));
    assert!(xcom("looks").contains("\"success\", true"), "{}", xcom("looks"));
    assert_eq!(test.sql("SELECT extra FROM asset_event WHERE source_task_id = 'makes'"), "{\"rows\": 3}");
    let added = "SELECT a.uri, e.aliases FROM asset_event e JOIN asset a ON a.id = e.asset_id WHERE a.name = 'model'";
    assert_eq!(test.sql(added), "duckdb:/shop/model|{late}");
    // The environment's programs come first in the PATH, and uv comes last.
    let outside: Value =
        serde_json::from_str(&xcom("outside")).unwrap_or_else(|_| panic!("{}", test.task_log("kinds", "outside")));
    let environment = outside[2].as_str().unwrap();
    assert!(environment.starts_with(&*test.home.join("venvs").to_string_lossy()), "{outside}");
    assert_eq!((&outside[0], &outside[1]), (&json!(2), &json!(format!("{environment}/bin/httpx"))));
    assert!(outside[3].as_str().unwrap().starts_with(&*test.home.join("tools/uv").to_string_lossy()), "{outside}");
    let log = test.task_log("kinds", "outside");
    assert!(log.contains("[WARNING] outside: there is no hello"), "{log}");
    assert!(log.contains("[WARNING] outside: main is a schema"), "{log}");
    assert_eq!(xcom("each"), "\"one hello\"");
    // Logs contain Airflow's own messages, with masked secrets.
    assert!(test.task_log("kinds", "uses_the_database").contains("Direct database access via the ORM is not allowed"));
    let log = test.task_log("kinds", "uses_a_missing_provider");
    let command = format!("`leoflow --home {} add apache-airflow-providers-snowflake", test.home.display());
    assert!(log.contains(&command), "{log}");
    let log = test.task_log("kinds", "reads");
    assert!(log.contains("the password is *** of 3.3.2") && !log.contains("very-secret-word"), "{log}");
    assert!(log.contains("the listener received the success of reads"), "{log}");
    let listened = || std::fs::read_to_string(project.join("listened")).unwrap_or_default();
    let calls = "kinds running True False started\nkinds failed True True task_failure\n";
    wait_until("the listeners have heard of the run", LIMIT, || listened() == calls);
    // An asset schedule of Airflow's core, which converts its condition.
    let condition = test
        .sql("SELECT structure->'asset_condition'->'all'->1->'asset'->>'uri' FROM dag_version WHERE dag_id = 'either'");
    assert_eq!(condition, "s://two/");
    let links = |task_id: &str| {
        let path = format!("/api/v2/dags/kinds/dagRuns/{run_id}/taskInstances/{task_id}/links");
        socket_request(&test.home, "GET", &path, "", "").json()["extra_links"].clone()
    };
    let page = format!("http://127.0.0.1:{}/dags/either/runs/made", test.port);
    assert_eq!(links("triggers"), json!({"Triggered DAG": page}));
    assert_eq!(links("query"), json!({"Console": "https://console/query"}));
    // A retry policy decides the number of tries.
    assert_eq!(
        (state(&run, "gives_up"), task(&run, "gives_up")["try_number"].clone()),
        ("failed".to_owned(), json!(1))
    );
    assert_eq!(
        (state(&run, "tries_soon"), task(&run, "tries_soon")["try_number"].clone()),
        ("failed".to_owned(), json!(2))
    );
    // The DAG's own timetable computes the next run.
    let due = test.run(&["dags", "next-execution", "kinds", "--json"]).expect(0).stdout;
    let first = due.split("\"").find(|text| text.starts_with("20")).unwrap().to_owned();
    let day: jiff::Timestamp = first.parse().unwrap();
    assert_eq!(day.to_zoned(jiff::tz::TimeZone::UTC).weekday(), jiff::civil::Weekday::Monday, "{due}");
    // A plugin that Airflow leaves out is named.
    let broken = "import missing_module\nfrom airflow.plugins_manager import AirflowPlugin\n";
    std::fs::write(project.join("plugins/broken.py"), broken).unwrap();
    let checked = test.run(&["validate", project.to_str().unwrap()]).expect(0);
    let warning = "broken.py: the plugin cannot be loaded: No module named 'missing_module'";
    assert!(checked.stderr.contains(warning), "{checked:?}");
}

#[test]
fn unsupported_arguments_are_refused_with_their_line() {
    let test = test_home();
    let dag = |more: &str| {
        format!(
            "from airflow.sdk import DAG\nfrom airflow.providers.standard.operators.empty import EmptyOperator\n\
             from airflow.task.priority_strategy import PriorityWeightStrategy\n\
             class Own(PriorityWeightStrategy):\n    def get_weight(self, ti):\n        return 7 + ti.task.retries - ti.try_number\n\
             class ReadsRunId(PriorityWeightStrategy):\n    def get_weight(self, ti):\n        return len(ti.run_id)\n\
             with DAG('d'):\n    EmptyOperator(task_id='t', {more})\n"
        )
    };
    for (more, words) in [
        ("run_as_user='root'", "dag.py:11: run_as_user='root' of task 't' in DAG 'd' is not supported"),
        ("executor='CeleryExecutor'", "dag.py:11: executor='CeleryExecutor'"),
        ("weight_rule=ReadsRunId()", "(it reads ti.run_id, which does not exist before the run) of task 't'"),
    ] {
        test.save("dag.py", &dag(more));
        wait_until(words, LIMIT, || test.sql("SELECT stack_trace FROM import_error").contains(words));
    }
    let file = test.workspace().join("dag.py");
    std::fs::write(&file, dag("retries=3, weight_rule=Own()")).unwrap();
    test.wait_dag("d", 1);
    test.run_dag("d");
    assert_eq!(test.sql("SELECT priority_weight FROM task_instance WHERE task_id = 't'"), "10");
    assert_eq!(test.dags()["import_errors"], json!([]));
}

const DEFERRED: &str = r#"
import datetime
from airflow.sdk import DAG, BaseOperator
from airflow.providers.standard.triggers.file import FileTrigger
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.providers.http.sensors.http import HttpSensor
from airflow.triggers.base import StartTriggerArgs

class Waits(BaseOperator):
    def __init__(self, path, timeout=None, **more):
        super().__init__(**more)
        self.path, self.timeout = path, timeout
    def execute(self, context):
        self.defer(trigger=FileTrigger(self.path, poke_interval=0.2), method_name="after", kwargs={"given": (1, 2)}, timeout=self.timeout)
    def after(self, context, given, event=None):
        return [list(given), str(event), context["ti"].try_number]

class Starts(BaseOperator):
    template_fields = ("filepath",)
    start_from_trigger = True
    start_trigger_args = StartTriggerArgs("airflow.providers.standard.triggers.file.FileTrigger", "after", {"filepath": "/{{ 'tmp' }}"})
    filepath = None
    def execute(self, context):
        raise RuntimeError("the task begins with its trigger")
    def after(self, context, event=None):
        return str(event)
"#;

/// Returns the pids of the processes that run triggers.
fn trigger_hosts(test: &TestHome) -> Vec<i32> {
    with_argument(test.folder(), "triggers")
}

/// Returns the pids of the warm Pythons.
fn zygotes(test: &TestHome) -> Vec<i32> {
    mentioning(test.folder()).into_iter().filter(|pid| is_warm_python(*pid)).collect()
}

#[test]
fn deferred_tasks_survive_the_kill_of_any_process() {
    let test = test_home();
    let (count, rounds) = if is_soak() { (100, 50) } else { (30, 4) };
    let sign = test.workspace().join("sign");
    let tasks = format!(
        "with DAG('many'):\n    for number in range({count}):\n        Waits(task_id=f't{{number}}', path={:?})\n",
        sign.to_string_lossy()
    );
    test.add_dag("many", &format!("{DEFERRED}{tasks}"));
    let run_id = test.trigger("many");
    let deferred = || test.sql("SELECT count(*) FROM task_instance WHERE state = 'deferred'");
    // The first half of the rounds kills a process while tasks are being deferred, the second half after all are
    // deferred.
    for round in 0..rounds {
        if round >= rounds / 2 {
            wait_until("all are deferred", 2 * LIMIT, || deferred() == count.to_string());
        }
        if round >= rounds / 2 {
            wait_until("one process runs all triggers", LIMIT, || trigger_hosts(&test).len() == 1);
        }
        match (round + seed()) % 4 {
            0 => trigger_hosts(&test).into_iter().for_each(|pid| signal(pid, "KILL")),
            1 => test.kill_and_wait("server"),
            2 => test.kill_and_wait("agent"),
            _ => zygotes(&test).into_iter().for_each(|pid| signal(pid, "KILL")),
        }
        if is_soak() {
            // Lets the restart backoff of a killed process end.
            std::thread::sleep(Duration::from_secs(4));
        }
        test.wait_healthy();
        assert_eq!(test.sql("SELECT outcome FROM task_try WHERE state = 'failed'"), "", "round {round}");
    }
    wait_until("all are deferred", 2 * LIMIT, || deferred() == count.to_string());
    // Finally, kills the process that runs all triggers.
    wait_until("one process runs all triggers", LIMIT, || trigger_hosts(&test).len() == 1);
    let host = trigger_hosts(&test);
    signal(host[0], "KILL");
    wait_until("a new process runs the triggers", LIMIT, || {
        trigger_hosts(&test).len() == 1 && trigger_hosts(&test) != host
    });
    std::fs::write(&sign, "").unwrap();
    let run = test.wait_run("many", &run_id);
    assert_eq!(run["state"], "success");
    let returned = test.sql("SELECT DISTINCT value::text FROM xcom WHERE key = 'return_value'");
    assert_eq!(returned, "[[1, 2], \"True\", 1]");
    assert_eq!(test.sql("SELECT count(*), max(try_number) FROM task_try"), format!("{count}|1"));
    // A trigger logs to its task's log.
    let log = test.task_log("many", "t7");
    assert!(log.contains("FileTrigger: Found File"), "{log}");
    wait_until("no trigger process runs", LIMIT, || trigger_hosts(&test).is_empty());
}

#[test]
fn a_failed_or_timed_out_trigger_fails_its_try() {
    let test = test_home();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        }
    });
    test.run(&["connections", "add", "web", "--conn-type", "http", "--conn-host", "127.0.0.1", "--conn-port", &port])
        .expect(0);
    let tasks = "with DAG('ends'):\n    Waits(task_id='late', path='/nowhere/at/all', timeout=datetime.timedelta(seconds=1))\n    \
        Waits(task_id='wrong', path=5)\n    \
        HttpSensor(task_id='web', http_conn_id='web', endpoint='x', deferrable=True, poke_interval=1)\n    \
        Waits(task_id='gone', path='/nowhere/at/all')\n    Starts(task_id='starts')\n";
    test.add_dag("ends", &format!("{DEFERRED}{tasks}"));
    test.trigger("ends");
    // The provider's own hook tests a connection.
    let works = test.run(&["connections", "test", "web"]).expect(0).stdout;
    assert!(works.starts_with("web works, according to apache-airflow-providers-http 6.3.0: "), "{works}");
    let database = test.folder().join("some.db");
    test.run(&["connections", "add", "db", "--conn-type", "sqlite", "--conn-host", database.to_str().unwrap()])
        .expect(0);
    let works = test.run(&["connections", "test", "db", "--json"]).expect(0).json();
    assert_eq!(works["message"], "Connection successfully tested");
    let nothing = ["connections", "add", "none", "--conn-type", "ftp", "--conn-host", "127.0.0.1", "--conn-port", "1"];
    test.run(&nothing).expect(0);
    assert!(test.run(&["connections", "test", "none"]).expect(1).stdout.contains("does not work"));
    let providers = socket_request(&test.home, "GET", "/api/v2/providers", "", "").json();
    assert!(providers["providers"].as_array().unwrap().iter().any(|provider| {
        provider["package_name"] == "apache-airflow-providers-http" && provider["version"] == "6.3.0"
    }));
    let finished = "SELECT count(*) FROM task_instance WHERE state IN ('success', 'failed')";
    wait_until("four tasks have finished", LIMIT, || test.sql(finished) == "4");
    let outcome = |task_id: &str| {
        test.sql(&format!("SELECT state || ': ' || coalesce(outcome, '') FROM task_try WHERE task_id = '{task_id}'"))
    };
    assert_eq!(outcome("late"), "failed: TaskDeferralTimeout: Trigger timeout");
    assert_eq!(outcome("wrong"), "failed: TaskDeferralError: Trigger failure");
    assert!(test.task_log("ends", "wrong").contains("TypeError"), "the log contains the cause");
    assert_eq!(outcome("web"), "success:");
    assert_eq!(outcome("starts"), "success:");
    // Deleting the DAG cancels the trigger too.
    wait_until("one trigger process runs", LIMIT, || trigger_hosts(&test).len() == 1);
    test.run(&["dags", "delete", "ends", "--yes"]).expect(0);
    wait_until("no trigger process runs", LIMIT, || trigger_hosts(&test).is_empty());
}

const WRITER: &str = r#"
from asgiref.sync import sync_to_async
from airflow.sdk import DAG, BaseOperator, Variable, task
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import BaseTrigger, TriggerEvent

class Writes(BaseTrigger):
    def serialize(self):
        return "writer.Writes", {}
    def write(self):
        own = {name: getattr(self.task_instance, name) for name in ("dag_id", "run_id", "task_id", "map_index")}
        Variable.set("seen", "by the trigger")
        XCom.set(key="cursor", value={"row": 7}, **own)
        XCom.set(key="gone", value=1, **own)
        XCom.delete(key="gone", **own)
        try:
            XCom.set(key="cursor", value=1, **{**own, "task_id": "skips"})
        except Exception as error:
            refused = "belongs to another task" in str(error)
        return [Variable.get("seen"), XCom.get_one(key="cursor", **own), refused]
    async def run(self):
        yield TriggerEvent(await sync_to_async(self.write)())

class Waits(BaseOperator):
    def execute(self, context):
        self.defer(trigger=Writes(), method_name="go_on")
    def go_on(self, context, event=None):
        return [event, context["ti"].xcom_pull(key="cursor", map_indexes=context["ti"].map_index)]

with DAG("writer"):
    Waits.partial(task_id="waits").expand(doc=["a", "b"])
    @task
    def skips():
        raise AirflowSkipException("not on Sundays")
    skips()
"#;

/// <https://github.com/apache/airflow/issues/53514>
#[test]
fn triggers_write_variables_and_xcoms() {
    let test = test_home();
    test.add_dag("writer", WRITER);
    let run_id = test.trigger("writer");
    let run = test.wait_run("writer", &run_id);
    assert_eq!(run["state"], "success", "{}", test.task_log("writer", "waits"));
    let value = test.sql("SELECT DISTINCT value::text FROM xcom WHERE key = 'return_value'");
    assert_eq!(
        serde_json::from_str::<Value>(&value).unwrap(),
        json!([["by the trigger", {"row": 7}, true], {"row": 7}])
    );
    let keys = "SELECT string_agg(key || map_index, ' ' ORDER BY key, map_index) FROM xcom WHERE key <> 'return_value'";
    assert_eq!(test.sql(keys), "cursor0 cursor1");
    let reason = test.sql("SELECT outcome FROM task_try WHERE task_id = 'skips'");
    assert_eq!(reason, "AirflowSkipException: not on Sundays");
}

#[test]
fn dag_test_of_the_sdk_reads_stored_values() {
    let test = test_home();
    test.run(&["variables", "set", "city", "Nice"]).expect(0);
    test.run(&["connections", "add", "api", "--conn-type", "http", "--conn-host", "api.example"]).expect(0);
    let file = test.save(
        "p/dag.py",
        "from airflow.sdk import DAG, BaseHook, Variable, task\nTOP = Variable.get('city')\nwith DAG('p') as dag:\n    @task\n    \
         def reads():\n        print('read', TOP, Variable.get('city'), Variable.get('nope', default='none'))\n        \
         print('read', BaseHook.get_connection('api').host)\n    @task\n    def fails(): raise ValueError('no data')\n    \
         reads() >> fails()\nif __name__ == '__main__':\n    print('read', dag.test().state)\n",
    );
    test.run(&["env", "link", "p"]).expect(0);
    let python = test.workspace().join("p/.venv/bin/python");
    let output = std::process::Command::new(python).arg(file).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let read: Vec<&str> = stdout.lines().filter(|line| line.starts_with("read ")).collect();
    assert_eq!(read, ["read Nice Nice none", "read api.example", "read failed"], "{output:?}");
}

/// Tasks that return whether their process has run the DAG file itself, and what they see of their run.
const SHARED: &str = "import os\nfrom airflow.sdk import DAG, task\nRAN_IN = open('/proc/self/stat').read().split()[0]\n\
    with DAG('shared', params={'x': 1}):\n    @task\n    def t(before, ti=None, params=None):\n        \
    return [RAN_IN == str(os.getpid()), ti.task_id, params['x'], before]\n    \
    t.override(task_id='b')(t.override(task_id='a')(0))\n";

#[test]
fn tries_share_a_run_of_a_file_with_the_sdk() {
    let test = test_home();
    test.save("shared/dag.py", SHARED);
    test.wait_imported("shared");
    let run_id = test.trigger("shared");
    assert_eq!(test.wait_run("shared", &run_id)["state"], "success", "{}", test.sql("SELECT outcome FROM task_try"));
    let returned = |task_id: &str| -> Value {
        let query = format!("SELECT value FROM xcom WHERE task_id = '{task_id}' AND key = 'return_value'");
        serde_json::from_str(&test.sql(&query)).unwrap()
    };
    assert_eq!(returned("b"), json!([false, "b", 1, [false, "a", 1, 0]]));
    assert!(test.task_log("shared", "b").contains("Done. Returned value was"));
    let log = std::fs::read_to_string(test.home.join("logs/keeper.log")).unwrap();
    assert!(!log.contains("failed to warm up"), "{log}");
}
