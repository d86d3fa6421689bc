//! DAG authoring features, tested end to end: assets, sensors, logs, secrets, XCom values, settings.

use crate::support::http::Session;
use crate::support::{TestHome, wait_until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::Duration;

#[test]
fn a_parameter_named_like_an_asset_receives_the_asset() {
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
    let returned = test.run(&["xcom", "get", "two", "latest", "two"]).expect(0);
    assert_eq!(returned.json(), json!(["s3://bucket/two", "s3://bucket/one", 1]));
}

#[test]
fn a_mapped_instance_has_its_rendered_name_while_it_runs() {
    let test = TestHome::new().with_packages();
    test.start();
    let go = test.folder().join("go");
    test.add_dag(
        "named",
        &format!(
            "import os, time\nfrom airflow.sdk import DAG, task\nwith DAG('named'):\n    \
             @task(map_index_template=\"number {{{{ task.op_kwargs['n'] }}}}\")\n    def t(n):\n        \
             while not os.path.exists({go:?}):\n            time.sleep(0.05)\n    t.expand(n=[7])\n"
        ),
    );
    let run_id = test.trigger("named");
    let name = "SELECT rendered_map_index FROM task_instance WHERE state = 'running'";
    wait_until("the running instance has its name", Duration::from_secs(30), || test.sql(name) == "number 7");
    std::fs::write(go, "").unwrap();
    assert_eq!(test.wait_run("named", &run_id)["state"], "success");
}

#[test]
fn time_sensors_do_not_wait_for_the_next_poke() {
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
    wait_until("all tasks finish long before their next poke", Duration::from_secs(30), ended);
    assert_eq!(test.wait_run("timed", &run_id)["state"], "success");
}

#[test]
fn task_output_stays_in_order() {
    let test = TestHome::started();
    test.add_dag(
        "ordered",
        "import logging, os, subprocess, sys\nfrom airflow.sdk import DAG, task\nwith DAG('ordered'):\n    @task\n    def t():\n        \
         for n in range(200):\n            print('line', 4 * n)\n            logging.getLogger('x').info('line %d', 4 * n + 1)\n            \
         print('line', 4 * n + 2, file=sys.stderr)\n            os.write(1, b'line %d\\n' % (4 * n + 3))\n    t()\n",
    );
    assert_eq!(test.run_dag("ordered")["state"], "success");
    let log = test.task_log("ordered", "t");
    let numbers: Vec<u32> = log.lines().filter_map(|line| line.rsplit_once("line ")?.1.trim().parse().ok()).collect();
    assert_eq!(numbers, (0..800).collect::<Vec<_>>());
}

#[test]
fn secrets_are_masked_in_logs_xcoms_and_errors() {
    let test = TestHome::new().with_packages();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    let session = Session::login(test.port, &password);
    let connection = r#"[{"connection_id": "db", "conn_type": "postgres", "login": "u", "password": "pa ss/wörd", "extra": "{\"api_key\": \"key-of-extra\", \"path\": \"visible\"}"}]"#;
    let entries: Value = serde_json::from_str(connection).unwrap();
    let body = json!({"connection_id": "db", "conn_type": "postgres", "login": "u", "password": entries[0]["password"], "extra": entries[0]["extra"]});
    assert_eq!(session.request("POST", "/api/v2/connections", &body.to_string()).status, 201);
    test.run(&["variables", "set", "my_token", "token-of-variable"]).expect(0);
    test.add_dag(
        "leaks",
        "import logging, os, subprocess, sys\nfrom airflow.sdk import DAG, Connection, Variable, task\n\
         from airflow.providers.standard.operators.bash import BashOperator\nwith DAG('leaks'):\n    @task\n    def t():\n        \
         conn = Connection.get('db')\n        token = Variable.get('my_token')\n        print('password', conn.password)\n        \
         print('uri', conn.get_uri())\n        print('in a word x' + conn.password + 'x')\n        logging.error('extra %s', conn.extra_dejson)\n        \
         subprocess.run(['sh', '-c', 'echo from a child $0', token])\n        os.write(2, ('raw ' + token + '\\n').encode())\n        \
         return {'plain': conn.password, 'path': conn.extra_dejson['path'], token: 1}\n    @task\n    def fails():\n        \
         raise ValueError('with ' + Variable.get('my_token'))\n    t()\n    fails()\n    \
         BashOperator(task_id='shell', bash_command='echo {{ var.value.my_token }}', env={'PW': '{{ conn.db.password }}'})\n",
    );
    assert_eq!(test.run_dag("leaks")["state"], "failed");
    let has_secret = |text: &str| {
        ["pa ss", "pa%20ss", "pa+ss", "key-of-extra", "token-of-variable"].iter().any(|secret| text.contains(secret))
    };
    let log = test.task_log("leaks", "t");
    assert!(!has_secret(&log), "{log}");
    for shown in
        ["password ***", "uri postgres://u:***@", "in a word x***x", "'visible'", "from a child ***", "raw ***"]
    {
        assert!(log.contains(shown), "{shown}: {log}");
    }
    // Values that cannot be decrypted do not prevent the masking of others.
    test.sql(
        "INSERT INTO connection (connection_id, conn_type, password_encrypted) VALUES ('unreadable', 'http', 'x');
         INSERT INTO variable (key, value_encrypted) VALUES ('unreadable', 'x')",
    );
    let value = test.run(&["xcom", "get", "leaks", "latest", "t"]).expect(0).json();
    assert_eq!(value, json!({"plain": "***", "path": "visible", "***": 1}));
    assert_eq!(test.sql("SELECT outcome FROM task_try WHERE task_id = 'fails'"), "ValueError: with ***");
    assert!(!has_secret(&test.task_log("leaks", "fails")));
    let rendered = test.run(&["tasks", "render", "leaks", "shell", "--json"]).expect(0).json();
    assert_eq!(rendered["rendered_fields"]["bash_command"], "echo ***");
    let rendered = test.run(&["tasks", "render", "leaks", "shell"]).expect(0).stdout;
    assert!(rendered.contains("echo ***") && !has_secret(&rendered), "{rendered}");
    let tested = test.run(&["tasks", "test", "leaks", "t"]).expect(0).stdout;
    assert!(tested.contains("password ***\nuri postgres://u:***@"), "{tested}");
    // The stored XCom is unmasked, because tasks need the value.
    assert!(test.sql("SELECT value::text FROM xcom WHERE task_id = 't'").contains("token-of-variable"));
}

#[test]
fn xcoms_accept_the_same_types_as_airflow() {
    let test = TestHome::started();
    test.add_dag(
        "values",
        "import dataclasses, datetime as d, decimal, math, uuid, zoneinfo\nfrom airflow.sdk import DAG, task\n\
         @dataclasses.dataclass\nclass Point:\n    x: int\n    at: d.datetime\n\
         class Own:\n    def serialize(self):\n        return {'n': 5}\n    @staticmethod\n    def deserialize(data, version):\n        return data['n']\n\
         WHEN = d.datetime(2024, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo('Europe/Rome'))\n\
         ALL = {'date': d.date(2024, 1, 2), 'time': d.time(1, 2), 'delta': d.timedelta(days=1), 'naive': d.datetime(2024, 1, 1),\n       \
         'utc': d.datetime(2024, 1, 1, tzinfo=d.timezone.utc), 'rome': WHEN, 'decimal': decimal.Decimal('1.25'), 'set': {1, 2},\n       \
         'frozen': frozenset('a'), 'bytes': b'x\\0', 'uuid': uuid.UUID(int=7), 'infinity': [math.inf], 'tuple': (1, {2}),\n       \
         'point': Point(1, WHEN)}\n\
         with DAG('values'):\n    @task\n    def gives():\n        return {**ALL, 'nan': math.nan, 'own': Own()}\n    \
         @task\n    def takes(got):\n        assert math.isnan(got.pop('nan')) and got.pop('own') == 5\n        \
         for name, value in ALL.items():\n            assert got[name] == value and type(got[name]) is type(value), (name, got[name])\n    takes(gives())\n",
    );
    let run = test.run_dag("values");
    assert_eq!(
        run["state"],
        "success",
        "{run} {} {}",
        test.task_log("values", "gives"),
        test.sql("SELECT string_agg(outcome, chr(59)) FROM task_try")
    );
    let stored = test.run(&["xcom", "get", "values", "latest", "gives"]).expect(0).json();
    assert_eq!(stored["date"], json!({"__classname__": "datetime.date", "__version__": 2, "__data__": "2024-01-02"}));
    assert_eq!(stored["nan"]["__data__"], "nan");
}

#[test]
fn dags_test_retries_and_names_missing_input() {
    let test = TestHome::new();
    test.set_up();
    test.save(
        "again.py",
        "import os\nfrom airflow.sdk import DAG, Param, task\nwith DAG('again'):\n    @task(retries=2, retry_delay=0)\n    def t(ti=None):\n        \
         if ti.try_number < 3:\n            raise ValueError('not yet')\n        return 'now'\n    t()\n\
         with DAG('needs', params={'name': Param(type='string')}):\n    @task\n    def t(params=None): pass\n    t()\n\
         with DAG('dated'):\n    @task\n    def t(ds): print('date', ds)\n    t()\n",
    );
    let done = test.run(&["dags", "test", "again"]).expect(0);
    assert!(done.stdout.ends_with("again  success\n") && done.stderr.contains("try 3 of 3"), "{done:?}");
    let done = test.run(&["dags", "test", "again", "--json"]).expect(0).json();
    assert_eq!((&done["state"], &done["task_instances"][0]["try_number"]), (&json!("success"), &json!(3)));
    let done = test.run(&["tasks", "test", "again", "t", "--json"]).expect(1).json();
    assert_eq!((&done["state"], &done["reason"]), (&json!("failed"), &json!("ValueError: not yet")));
    // From the report apache/airflow#56953.
    test.save(
        "mapped.py",
        "from airflow.sdk import DAG, task\nwith DAG('mapped'):\n    @task\n    def numbers(): return [1]\n    @task\n    \
         def twice(x): return 2 * x\n    twice.expand(x=numbers())\n",
    );
    let done = test.run(&["tasks", "test", "mapped", "twice", "--map-index", "0"]).expect(1);
    assert!(done.stderr.contains("the tasks before it (numbers); with them: `leoflow"), "{done:?}");
    let done = test.run(&["dags", "test", "needs"]).expect(1);
    assert!(done.stderr.contains("Invalid input for param name") && !done.stderr.contains("Traceback"), "{done:?}");
    let done = test.run(&["dags", "test", "dated"]).expect(1);
    assert!(
        done.stderr.contains("no logical date, so there is no `ds`") && done.stderr.contains("--logical-date"),
        "{done:?}"
    );
    let done = test.run(&["dags", "test", "dated", "--logical-date", "2026-01-31"]).expect(0);
    assert!(done.stdout.contains("date 2026-01-31"), "{done:?}");
}

/// From the report apache/airflow#64649.
#[test]
fn dags_test_calls_the_callbacks_of_the_dag() {
    let test = TestHome::new();
    test.set_up();
    test.save(
        "alerts.py",
        "from airflow.sdk import DAG, BaseNotifier, task\nclass Tells(BaseNotifier):\n    \
         def __init__(self, text):\n        super().__init__()\n        self.text = text\n    \
         def notify(self, context):\n        print(self.text, context['ti'].task_id, context['reason'], context['ti'].xcom_pull(task_ids='fine', map_indexes=-1))\n\
         def broken(context):\n    raise ValueError('no mail')\n\
         with DAG('alerts', on_failure_callback=[Tells('alert'), broken]):\n    @task\n    def fine():\n        return 'value'\n    \
         @task\n    def breaks(x):\n        raise ValueError(x)\n    breaks(fine())\n",
    );
    let done = test.run(&["dags", "test", "alerts"]).expect(1);
    assert!(done.stdout.contains("alert breaks task_failure value\n"), "{done:?}");
    assert!(done.stderr.contains("error: the callback broken failed:") && done.stderr.contains("no mail"), "{done:?}");
}

#[test]
fn a_file_that_calls_dag_test_runs_in_its_process() {
    let test = TestHome::started();
    test.run(&["variables", "set", "city", "Nice"]).expect(0);
    test.save(
        "p/dag.py",
        "from airflow.sdk import DAG, Variable, task\nVALUES = [Variable.get('city'), Variable.get('other', default='none')]\n\
         with DAG('shell') as dag:\n    @task\n    def t(params=None): print('task', *VALUES, params['n'])\n    t()\n\
         if __name__ == '__main__':\n    print('run', dag.test(run_conf={'n': 7}).state)\n",
    );
    let file = test.workspace().join("p/dag.py");
    let done = test.run(&["env", "shell", "p", "--", "python", file.to_str().unwrap()]).expect(0);
    assert_eq!(done.stdout, "task Nice none 7\nrun success\n", "{done:?}");
    // Without the environment of a shell, in the virtual environment of editors.
    test.run(&["env", "link", "p"]).expect(0);
    let python = test.workspace().join("p/.venv/bin/python");
    let output = std::process::Command::new(&python).arg(&file).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "task Nice none 7\nrun success\n", "{output:?}");
    test.save(
        "p/dag.py",
        "from airflow.sdk import dag, task\n@dag\ndef shell():\n    @task\n    def one(): print('one'); return 1\n    \
         @task\n    def two(x): print('two', x + 1)\n    @task\n    def three(): print('three')\n    two(one()) >> three()\nshell()\n",
    );
    let mut command = std::process::Command::new(&python);
    command.args(["-m", "leoflow.outside.run"]).arg(&file);
    assert_eq!(String::from_utf8_lossy(&command.output().unwrap().stdout), "one\ntwo 2\nthree\n");
    assert_eq!(String::from_utf8_lossy(&command.arg("two").output().unwrap().stdout), "one\ntwo 2\n");
}

#[test]
fn env_shell_and_tasks_have_airflows_command() {
    let test = TestHome::started();
    test.save(
        "p/dag.py",
        "from airflow.sdk import DAG, task\nimport subprocess\n\
         with DAG('own'):\n    @task\n    def t(): return subprocess.check_output(['airflow', 'variables', 'get', 'city'], text=True)\n    \
         t()\n",
    );
    // The command acts on its own instance all the same.
    test.save("p/.env", "LEOFLOW_HOME=/other\n");
    assert_eq!(test.run(&["env", "shell", "p", "--", "printenv", "LEOFLOW_HOME"]).expect(0).stdout, "/other\n");
    let in_shell = |words: &[&str]| test.run(&[&["env", "shell", "p", "--", "airflow"], words].concat());
    in_shell(&["variables", "set", "city", "Nice"]).expect(0);
    let run = test.run_dag("own");
    assert_eq!(run["state"], "success", "{}", test.task_log("own", "t"));
    assert_eq!(test.run(&["xcom", "get", "own", "latest", "t"]).expect(0).json(), "Nice\n");
    let runs = in_shell(&["dags", "list-runs", "-d", "own", "--state", "success", "-o", "json"]).expect(0).json();
    assert_eq!(runs[0]["run_id"], run["dag_run_id"]);
    assert_eq!(in_shell(&["dags", "state", "own", "latest"]).expect(0).stdout, "success\n");
    let run_id = run["dag_run_id"].as_str().unwrap();
    assert_eq!(in_shell(&["tasks", "state", "own", "t", run_id]).expect(0).stdout, "success\n");
    assert_eq!(
        in_shell(&["tasks", "clear", "own", "-y"]).expect(0).stdout,
        "Cleared 1 task of own RUN\n".replace("RUN", run_id)
    );
    let refused = in_shell(&["users", "list"]).expect(2).stderr;
    // Without it, `leoflow` acts on another instance.
    assert!(refused.contains(&format!("leoflow --home {} lite reset-password", test.home.display())), "{refused}");
    in_shell(&["variables", "set", "--json", "limits", "{\"rows\": 1}"]).expect(0);
    assert_eq!(test.run(&["variables", "get", "limits"]).expect(0).stdout, "\"{\\\"rows\\\": 1}\"\n");
    assert_eq!(in_shell(&["variables", "get", "--json", "limits"]).expect(0).stdout, "{\"rows\": 1}\n");
    assert_eq!(test.run(&["variables", "get", "-j", "limits"]).expect(0).stdout, "{\"rows\": 1}\n");
    assert!(in_shell(&["variables", "get", "city", "-j"]).expect(1).stderr.contains("city is not JSON"));
    assert_eq!(in_shell(&["variables", "get", "none", "-j", "-d", "x"]).expect(0).stdout, "x\n");
    assert!(in_shell(&["dags", "list-runs"]).expect(2).stderr.contains("Usage: leoflow runs list"));
    let list = in_shell(&["dags", "list", "-o", "json"]).expect(0).json();
    assert_eq!((&list[0]["owners"], &list[0]["bundle_name"]), (&json!(["airflow"]), &json!("workspace")));
    let states = in_shell(&["tasks", "states-for-dag-run", "own", run_id, "-o", "json"]).expect(0).json();
    assert_eq!((&states[0]["dag_id"], &states[0]["task_id"]), (&json!("own"), &json!("t")));
    assert!(states[0].as_object().unwrap().contains_key("logical_date"));
    let details = in_shell(&["dags", "details", "own", "-o", "json"]).expect(0).json();
    assert_eq!((&details[0]["dag_id"], &details[0]["is_paused"]), (&json!("own"), &json!(false)));
    test.run(&["runs", "delete", "own", run_id, "--yes"]).expect(0);
    let nothing = in_shell(&["tasks", "clear", "own", "-y"]).expect(1).stderr;
    assert!(nothing.contains("own has no runs\n"), "{nothing}");
}

/// Answers one SMTP session with success; returns the message that it received.
fn receive_email(listener: &TcpListener) -> String {
    let (stream, _) = listener.accept().unwrap();
    let (mut lines, mut answer) = (BufReader::new(&stream).lines(), &stream);
    answer.write_all(b"220 ready\r\n").unwrap();
    let mut message = Vec::new();
    while let Some(Ok(line)) = lines.next() {
        if line.eq_ignore_ascii_case("data") {
            answer.write_all(b"354 go on\r\n").unwrap();
            message.extend(lines.by_ref().map_while(Result::ok).take_while(|line| line != "."));
        }
        answer.write_all(if line.eq_ignore_ascii_case("quit") { b"221 bye\r\n" } else { b"250 done\r\n" }).unwrap();
    }
    message.join("\n")
}

#[test]
fn failed_tasks_send_email_and_files_warn_without_a_mail_server() {
    let test = TestHome::new();
    test.start();
    test.save(
        "p/mail.py",
        "from airflow.sdk import DAG, task\nwith DAG('mail', default_args={'email': ['a@b.c']}):\n    @task\n    def t(): raise ValueError('no data')\n    t()\n",
    );
    let warned = test.run(&["validate"]).expect(0);
    let warning = "The e-mails of mail are not sent: no mail server is known: create the connection 'smtp_default'";
    assert!(warned.stdout.contains(warning) || warned.stderr.contains(warning), "{warned:?}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    test.save(
        "p/.env",
        &format!("AIRFLOW_CONN_SMTP_DEFAULT=smtp://127.0.0.1:{port}?disable_ssl=true&disable_tls=true\n"),
    );
    let validated = test.run(&["validate"]).expect(0);
    assert!(!validated.stdout.contains("e-mails") && !validated.stderr.contains("e-mails"), "{validated:?}");
    let mail = std::thread::spawn(move || receive_email(&listener));
    test.wait_imported("mail");
    test.run(&["dags", "trigger", "mail", "--wait"]).expect(1);
    let mail = mail.join().unwrap();
    for part in ["To: a@b.c", "Subject: Airflow alert: <TaskInstance: mail.t", "no data"] {
        assert!(mail.contains(part), "{mail}");
    }
}

#[test]
fn tasks_get_variables_from_dotenv_not_from_lites_shell() {
    let test = TestHome::new();
    let port = test.port.to_string();
    let started =
        test.command(&["lite", "start", "--port", &port]).env("LEAKED", "x").env("AIRFLOW_VAR_OWN", "passed").output();
    assert!(started.unwrap().status.success());
    std::fs::write(test.workspace().join(".env"), "WIDE=workspace\nNEAR=workspace # not this\n").unwrap();
    let text = "import os\nfrom airflow.sdk import DAG, task\nfrom airflow.providers.standard.operators.bash import BashOperator\n\
         with DAG('env', tags=[os.environ.get('NEAR', 'none')]):\n    @task\n    def t():\n        \
         return {name: os.environ.get(name) for name in ('WIDE', 'NEAR', 'LEAKED', 'AIRFLOW_VAR_OWN')}\n    t()\n    \
         BashOperator(task_id='b', bash_command='echo $NEAR')\n";
    test.save("p/dag.py", text);
    test.wait_dag("env", 1);
    std::fs::write(test.workspace().join("p/.env"), "# of the project\nexport NEAR=\"the project\"\n").unwrap();
    wait_until("the file is parsed again", Duration::from_secs(30), || {
        test.run(&["dags", "show", "env", "--json"]).stdout.contains("the project")
    });
    assert_eq!(test.run_dag("env")["state"], "success");
    let seen = test.run(&["xcom", "get", "env", "latest", "t"]).expect(0).json();
    assert_eq!(seen, json!({"WIDE": "workspace", "NEAR": "the project", "LEAKED": null, "AIRFLOW_VAR_OWN": "passed"}));
    assert_eq!(test.run(&["xcom", "get", "env", "latest", "b"]).expect(0).json(), "the project");
}

#[test]
fn validate_refuses_what_the_server_refuses() {
    let test = TestHome::new();
    test.set_up();
    let dag =
        |id: &str, schedule: &str| format!("from airflow.sdk import DAG\ndag = DAG('{id}', schedule='{schedule}')\n");
    let bad = test.save("bad.py", &dag("bad", "61 * * * *"));
    let one = test.save("one/dag.py", &dag("same", "@daily"));
    let two = test.save("two/dag.py", &dag("same", "@daily"));
    let done = test.run(&["validate", bad.to_str().unwrap(), one.to_str().unwrap()]).expect(1);
    let location = format!("{}:2: Dag \"bad\": ", bad.display());
    assert!(done.stdout.contains(&location) && done.stdout.contains("61 * * * *"), "{done:?}");
    let env = test.save("one/.env", "A=1\nno assignment\n");
    let done = test.run(&["validate", one.to_str().unwrap(), "--json"]).expect(0).json();
    assert_eq!(done["files"][0]["warnings"], json!([format!("{}:2 is not NAME=value, and is ignored", env.display())]));
    let done = test.run(&["validate", one.to_str().unwrap(), two.to_str().unwrap()]).expect(1);
    assert!(done.stderr.contains("is not NAME=value"), "{done:?}");
    let both = format!("  {}\n    {}", one.display(), two.display());
    assert!(done.stdout.contains("used in two files") && done.stdout.contains(&both), "{done:?}");
}

#[test]
fn validate_names_dependencies_that_are_not_read() {
    let test = TestHome::new();
    test.set_up();
    let poetry = "[project]\nname = 'p'\nversion = '1'\n[tool.poetry.dependencies]\nnewcomer = '*'\n";
    let pyproject = test.save("p/pyproject.toml", poetry);
    let named = format!(
        "{}: its [tool.poetry.dependencies] is not read; run in its folder: poetry export --without-hashes -o \
         requirements.txt",
        pyproject.display()
    );
    let dag = test.save("p/dag.py", "from airflow.sdk import DAG\nimport newcomer\ndag = DAG('p')\n");
    let done = test.run(&["validate", dag.to_str().unwrap()]).expect(1);
    assert!(done.stdout.contains(&named), "{done:?}");
    test.save("p/dag.py", "from airflow.sdk import DAG\ndag = DAG('p')\n");
    let done = test.run(&["validate", dag.to_str().unwrap(), "--json"]).expect(0).json();
    assert_eq!(done["files"][0]["warnings"], json!([named]));
}

#[test]
fn max_map_length_limits_mapped_tasks() {
    let test = TestHome::new();
    test.set_up();
    test.run(&["config", "set", "max_map_length", "3"]).expect(0);
    test.start();
    test.add_dag(
        "lengths",
        "from airflow.sdk import DAG, task\nwith DAG('lengths'):\n    @task\n    def three():\n        return [1, 2, 3]\n    @task\n    def four():\n        \
         return [1, 2, 3, 4]\n    @task\n    def one(n):\n        return n\n    one.override(task_id='of_three').expand(n=three())\n    \
         one.override(task_id='of_four').expand(n=four())\n",
    );
    assert_eq!(test.run_dag("lengths")["state"], "failed");
    let states =
        test.sql("SELECT string_agg(task_id || ' ' || state, ', ' ORDER BY task_id, map_index) FROM task_instance");
    assert_eq!(
        states,
        "four failed, of_four upstream_failed, of_three success, of_three success, of_three success, three success"
    );
    let log = test.task_log("lengths", "four");
    assert!(log.contains("4 > 3; the setting max_map_length raises the limit"), "{log}");
    let tested = test.run(&["dags", "test", "lengths"]);
    assert!(tested.stdout.contains("lengths  failed"), "{}{}", tested.stdout, tested.stderr);
}
