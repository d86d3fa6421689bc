//! Tasks forked by a warm Python behave as tasks with a Python of their own, even when the warm Python dies.

use crate::support::processes::{is_warm_python, mentioning, signal};
use crate::support::{TestHome, task, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
/// A limit with which no warm Python ends because it is idle.
const STAYS: (&str, &str) = ("LEOFLOW_IDLE_LIMIT", "600");

/// A DAG whose tasks return the state of their process (`seen`) and what the process could do (`done`). `warm` and
/// `warm_again` are forked from a warm Python or a template; `cold` gets a Python of its own because it sets an environment
/// variable.
const PROBE: &str = r#"
import json, os, resource, signal, subprocess, sys, threading
from airflow.sdk import DAG, task

# The process that has run this file.
RAN_IN = open("/proc/self/stat").read().split()[0]

def dispositions():
    names = {one: str(signal.getsignal(one)) for one in signal.valid_signals() if one not in (9, 19)}
    return {str(one): name.split(" at 0x")[0] for one, name in names.items()}

def keeper():
    return open(f"/proc/{os.getppid()}/cmdline").read().split("\0")[0]

def seen():
    status = open("/proc/self/status").read()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    mark = [one for one in open("/proc/self/environ").read().split("\0") if one.startswith("LEOFLOW_TASK=")]
    own = {"_", "LC_OF_ITS_OWN", "LEOFLOW_TASK", "AIRFLOW_CTX_TASK_ID"}
    return {
        "group": os.getpgid(0) == os.getpid(), "session": os.getsid(0) == os.getsid(os.getppid()),
        "keeper": keeper(),
        "mark": mark == ["LEOFLOW_TASK=" + os.environ["LEOFLOW_TASK"]] and len(mark[0]) == 37,
        "descriptors": [[one, os.readlink(f"/proc/self/fd/{one}").split(":")[0]] for one in range(3)],
        "more": sorted(int(one) for one in os.listdir("/proc/self/fd"))[3:5],
        "environment": sorted(set(os.environ) - own), "folder": os.getcwd(), "umask": fields["Umask"],
        "blocked": fields["SigBlk"], "ignored": fields["SigIgn"], "dispositions": dispositions(),
        "threads": fields["Threads"], "limits": [resource.getrlimit(one) for one in range(10)],
        "oom": open("/proc/self/oom_score_adj").read(), "nice": os.nice(0), "children": fields["State"],
        "flags": str(sys.flags), "encoding": [sys.stdout.encoding, sys.stdout.line_buffering, sys.getfilesystemencoding()],
        "path": sys.path, "argv": len(sys.argv), "stdin": sys.stdin.read(), "recursion": sys.getrecursionlimit(),
        "collects": __import__("gc").isenabled(), "main": __name__,
    }

def double(number):
    return number * 2

def done():
    import asyncio, multiprocessing, random, tempfile, time, uuid
    result = {}
    worker = threading.Thread(target=lambda: result.update(thread=True))
    worker.start()
    worker.join()
    async def later():
        await asyncio.sleep(0)
        return "async"
    result["asyncio"] = asyncio.run(later())
    result["subprocess"] = subprocess.run(["sh", "-c", "echo $PPID"], capture_output=True, text=True).stdout.strip() == str(os.getpid())
    with multiprocessing.get_context("fork").Pool(2) as pool:
        result["pool"] = pool.map(double, [1, 2])
    child = os.fork()
    if child == 0:
        os._exit(3)
    result["fork"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    received = []
    signal.signal(signal.SIGUSR1, lambda number, frame: received.append(number))
    os.kill(os.getpid(), signal.SIGUSR1)
    result["signal"] = received == [signal.SIGUSR1]
    os.chdir(tempfile.gettempdir())
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    result["zone"] = time.tzname[0]
    result["chance"] = [random.random(), uuid.uuid4().hex, os.urandom(4).hex()]
    return result

def probe():
    found = {"seen": seen(), "done": done()}
    found["warm"] = "zygote" in open("/proc/self/cmdline").read().split("\0")
    found["shared"] = RAN_IN != str(os.getpid())
    return found

def add(task_id):
    @task(task_id=task_id)
    def run():
        return probe()
    return run()

with DAG("probe"):
    add("warm") >> add("warm_again") >> add("cold")
"#;

#[test]
fn a_task_behaves_the_same_cold_warm_and_from_a_template() {
    let test = TestHome::started_with(&[STAYS]);
    let settings = "dag_id: probe\nowner: ada\ntasks:\n  cold: {env: {LC_OF_ITS_OWN: x}}\n";
    test.save("probe/leoflow.yaml", &format!("{settings}isolation: fresh\n"));
    test.save("probe/dag.py", PROBE);
    test.wait_dag("probe", 1);
    let returned = |run_id: &str, task_id: &str| -> Value {
        let query = format!(
            "SELECT value FROM xcom WHERE run_id = '{run_id}' AND task_id = '{task_id}' AND key = 'return_value'"
        );
        serde_json::from_str(&test.sql(&query)).unwrap()
    };
    let run_to_success = || {
        let run_id = test.trigger("probe");
        let run = test.wait_run("probe", &run_id);
        assert_eq!(run["state"], "success", "{}", test.sql("SELECT task_id, outcome FROM task_try"));
        run_id
    };
    let fresh = run_to_success();
    test.save("probe/leoflow.yaml", settings);
    test.wait_dag("probe", 2);
    let shared = run_to_success();
    let mut cold = returned(&fresh, "cold");
    let mut others = [("warm", &fresh), ("warm_again", &fresh), ("warm", &shared), ("warm_again", &shared)]
        .map(|(task_id, run_id)| returned(run_id, task_id));
    let kind = |probed: &Value| [&probed["warm"], &probed["shared"]].map(|value| value.as_bool().unwrap());
    assert_eq!(kind(&cold), [false, false]);
    assert_eq!(others.each_ref().map(kind), [[true, false], [true, false], [true, true], [true, true]]);
    let mut random_values: Vec<Value> = Vec::new();
    for result in others.iter_mut().chain([&mut cold]) {
        result.as_object_mut().unwrap().retain(|name, _| name == "seen" || name == "done");
        random_values.extend(result["done"]["chance"].take().as_array().unwrap().clone());
    }
    for (index, random_value) in random_values.iter().enumerate() {
        assert!(!random_values[..index].contains(random_value), "repeated random value: {random_values:?}");
    }
    for (index, compared) in others.iter().enumerate() {
        for part in ["seen", "done"] {
            for (key, value) in cold[part].as_object().unwrap() {
                assert_eq!(&compared[part][key], value, "{key} of {index}");
            }
        }
    }
    assert_eq!(cold["seen"]["keeper"], json!("leoflow-keeper"));
    for fact in ["group", "mark", "collects"] {
        assert_eq!(cold["seen"][fact], json!(true), "{fact}");
    }
    for fact in ["thread", "subprocess", "signal"] {
        assert_eq!(cold["done"][fact], json!(true), "{fact}");
    }
    assert_eq!((&cold["done"]["pool"], &cold["done"]["fork"]), (&json!([2, 4]), &json!(3)));
}

/// Runs a DAG of three tasks in a row. The file begins with `top`. Returns for each task whether its process has run the
/// file itself, and `value`.
fn run_tasks(test: &TestHome, dag_id: &str, top: &str, value: &str) -> Vec<(bool, Value)> {
    let text = format!(
        "import os\nfrom airflow.sdk import DAG, task\n{top}\nRAN_IN = open('/proc/self/stat').read().split()[0]\n\
         with DAG({dag_id:?}):\n    @task\n    def t(before):\n        return [RAN_IN == str(os.getpid()), {value}]\n    \
         t.override(task_id='c')(t.override(task_id='b')(t.override(task_id='a')(0)))\n"
    );
    test.save(&format!("{dag_id}/dag.py"), &text);
    test.wait_dag(dag_id, 1);
    let run_id = test.trigger(dag_id);
    let run = test.wait_run(dag_id, &run_id);
    assert_eq!(run["state"], "success", "{}", test.sql("SELECT task_id, outcome FROM task_try"));
    let query = format!("SELECT value FROM xcom WHERE run_id = '{run_id}' AND key = 'return_value' ORDER BY task_id");
    let returned = test.sql(&query);
    let values = returned.lines().map(|line| serde_json::from_str::<(bool, Value)>(line).unwrap());
    values.collect()
}

#[test]
fn tries_share_a_run_of_their_file_until_what_it_reads_changes() {
    let test = TestHome::started_with(&[STAYS]);
    let outside = test.folder().join("outside.txt");
    let all = |is_own: bool, text: &str| vec![(is_own, json!(text)); 3];
    let inside = test.workspace().join("inside/settings.txt");
    for (dag_id, path, name) in [("inside", &inside, "settings.txt"), ("outside", &outside, outside.to_str().unwrap())]
    {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "one").unwrap();
        let run = || run_tasks(&test, dag_id, &format!("TEXT = open({name:?}).read()"), "TEXT");
        for _ in 0..2 {
            assert_eq!(run(), all(false, "one"), "{name}");
        }
        std::fs::write(path, "two").unwrap();
        let values = run();
        assert_eq!(values[0], (true, json!("two")), "the template is out of date: {values:?}");
        assert!(values.iter().all(|(_, text)| text == "two"), "{values:?}");
        assert_eq!(run(), all(false, "two"), "{name}");
    }
}

#[test]
fn a_file_whose_import_may_differ_is_run_for_each_try() {
    let test = TestHome::started_with(&[STAYS]);
    for (reason, top) in [
        ("the_time", "from datetime import datetime\nNOW = datetime.now()"),
        ("a_thread", "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()"),
        ("an_open_file", "FILE = open(os.devnull)"),
        ("a_program", "import subprocess\nTEXT = subprocess.check_output(['date'])"),
        ("a_written_file", "with open('written', 'w') as file:\n    file.write('x')"),
        ("shared_memory", "import multiprocessing\nLOCK = multiprocessing.Lock()"),
        ("a_fork", "if os.fork() == 0:\n    os._exit(0)\nos.wait()"),
    ] {
        for _ in 0..2 {
            let is_own = run_tasks(&test, reason, top, "0").into_iter().map(|(is_own, _)| is_own).collect::<Vec<_>>();
            assert_eq!(is_own, [true; 3], "{reason}");
        }
    }
    let log = std::fs::read_to_string(test.home.join("logs/keeper.log")).unwrap();
    assert_eq!(log.matches("runs its file again: ").count(), 7, "{log}");
}

/// Returns the pid of the warm Python of `leoflow-keeper` or `leoflow-server`.
fn zygote(test: &TestHome, owner: &str) -> Option<i32> {
    let is_of_owner = |pid: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap_or_default();
        std::fs::read(format!("/proc/{parent}/cmdline")).is_ok_and(|command| command.starts_with(owner.as_bytes()))
    };
    mentioning(test.folder()).into_iter().filter(|pid| is_warm_python(*pid)).find(is_of_owner)
}

const KEEPER: &str = "leoflow-keeper";
const SERVER: &str = "leoflow-server";

/// The beginning of a DAG file: `how` is `warm` or `cold`, by the Python that parses the file.
const PARSED: &str = "from airflow.sdk import DAG, task\nhow = 'warm' if 'zygote' in open('/proc/self/cmdline').read().split(chr(0)) else 'cold'\n";

#[test]
fn forked_parses_do_not_affect_one_another() {
    let test = TestHome::started();
    // None of these files defines a DAG, and some leave a process running.
    let hostile = [
        ("leaves", "import os\nos._exit(0)\n"),
        ("kills_itself", "import os\nos.killpg(0, 9)\n"),
        ("eats", "whole = bytearray(3 << 30)\n"),
        ("closes", "import os\nos.closerange(0, 1000)\nraise ValueError('closed')\n"),
        ("breaks", "import json, sys\nsys.modules.clear()\njson.dumps = None\n"),
        ("answers_twice", "import os\nos.fork()\nraise ValueError('forked')\n"),
        (
            "stays",
            "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(3600)\n    os._exit(0)\nraise ValueError('left')\n",
        ),
    ];
    let good = "SELECT count(*) FROM dag WHERE dag_id LIKE 'good%' AND is_active";
    let bad = "SELECT count(*) FROM import_error";
    for round in 0..3 {
        for (name, text) in hostile {
            test.save(&format!("{name}_{round}.py"), &format!("from airflow.sdk import DAG\n{text}"));
        }
        for n in 0..4 {
            let dag = format!(
                "{PARSED}with DAG('good_{round}_{n}', default_args={{'owner': how}}):\n    @task\n    def t():\n        pass\n    t()\n"
            );
            test.save(&format!("good_{round}_{n}.py"), &dag);
        }
        let rounds = round + 1;
        wait_until("all good DAGs are there", SOON, || test.sql(good) == (4 * rounds).to_string());
        wait_until("the other files have import errors", SOON, || {
            test.sql(bad) == (hostile.len() * rounds).to_string()
        });
    }
    // The first files may be parsed before the warm Python has started.
    let warm = "SELECT count(*) FROM dag_version WHERE structure->'owners' ? 'warm'";
    assert!(test.sql(warm).parse::<u32>().unwrap() >= 4, "most parses are forks");
    let has_workspace_cwd =
        |pid: &i32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == test.workspace());
    wait_until("no process of a parse is left", SOON, || !mentioning(test.folder()).iter().any(has_workspace_cwd));
    wait_until("the idle warm Python of the server has ended", SOON, || zygote(&test, SERVER).is_none());
    assert_eq!(test.state(), "healthy");
}

#[test]
fn a_warm_python_is_prepared_before_any_task_and_ends_idle() {
    let test = TestHome::started_with(&[("LEOFLOW_PREPARE_DELAY", "0")]);
    wait_until("a warm Python of the keeper runs", SOON, || zygote(&test, KEEPER).is_some());
    assert_eq!(test.sql("SELECT count(*) FROM task_try"), "0");
    wait_until("the idle warm Python of the keeper has ended", SOON, || zygote(&test, KEEPER).is_none());
    assert_eq!(test.state(), "healthy");
}

#[test]
fn a_killed_warm_python_disturbs_no_task() {
    let test = TestHome::started_with(&[STAYS]);
    let text = "import os, time\nfrom airflow.sdk import DAG, task\nwith DAG('d'):\n    @task\n    def first():\n        pass\n    \
                @task\n    def waits():\n        open('begun', 'w').close()\n        while not os.path.exists('go on'): time.sleep(0.02)\n    \
                @task\n    def last():\n        pass\n    first() >> waits() >> last()\n";
    test.save("d/dag.py", text);
    test.wait_dag("d", 1);
    let run_id = test.trigger("d");
    let folder = test.workspace().join("d");
    wait_until("the task waits", SOON, || folder.join("begun").exists());
    let pid = zygote(&test, KEEPER).expect("a warm Python");
    signal(pid, "KILL");
    std::fs::write(folder.join("go on"), "").unwrap();
    let run = test.wait_run("d", &run_id);
    assert_eq!(run["state"], "success", "{run}");
    for id in ["first", "waits", "last"] {
        assert_eq!(task(&run, id)["try_number"], 1, "{id}");
    }
    assert_eq!(test.run_dag("d")["state"], "success");
    assert!(zygote(&test, KEEPER).is_some_and(|other| other != pid), "a new warm Python has started");
    assert_eq!(test.state(), "healthy");
}

/// Behaves like numpy: reads environment variables when it is imported and has a random state of its own.
const LIKE_NUMPY: &str =
    "import os\nthreads, loaded_by = os.environ.get('OMP_NUM_THREADS'), os.getpid()\nfrom numpy import random\n";
const LIKE_NUMPY_RANDOM: &str = "import random\nstate = random.Random()\nseed, number = state.seed, state.random\n";
const USES_NUMPY: &str = "from airflow.sdk import DAG, task\nwith DAG('NAME'):\n    @task\n    def t():\n        \
    import numpy, os\n        return [numpy.loaded_by != os.getpid(), numpy.threads, numpy.random.number()]\n    t()\n";

#[test]
fn preloaded_numpy_behaves_the_same() {
    let test = TestHome::new().with_limit(STAYS.0, STAYS.1);
    test.set_up();
    let (python, site) = test.virtual_environment();
    std::fs::create_dir_all(site.join("numpy")).unwrap();
    std::fs::write(site.join("numpy/__init__.py"), LIKE_NUMPY).unwrap();
    std::fs::write(site.join("numpy/random.py"), LIKE_NUMPY_RANDOM).unwrap();
    test.run(&["config", "set", "python", python.to_str().unwrap()]).expect(0);
    test.start();
    for name in ["plain", "project", "file"] {
        let set = if name == "file" { "import os\nos.environ['OMP_NUM_THREADS'] = '2'\n" } else { "" };
        test.save(&format!("{name}/dag.py"), &format!("{set}{}", USES_NUMPY.replace("NAME", name)));
    }
    test.save("project/.env", "OMP_NUM_THREADS=1\n");
    let run = |dag_id: &str| -> Value {
        assert_eq!(test.run_dag(dag_id)["state"], "success", "{}", test.sql("SELECT outcome FROM task_try"));
        let query = format!("SELECT value FROM xcom WHERE dag_id = '{dag_id}' ORDER BY created_at DESC LIMIT 1");
        serde_json::from_str(&test.sql(&query)).unwrap()
    };
    let mut numbers = Vec::new();
    let mut checked_run = |dag_id: &str| {
        let mut value = run(dag_id);
        let number = value[2].take();
        assert!(!numbers.contains(&number), "the same random number twice: {number}");
        numbers.push(number);
        (value[0] == json!(true), value[1].clone())
    };
    let mut preloaded_runs = 0;
    wait_until("numpy is preloaded", SOON, || {
        let (is_preloaded, threads) = checked_run("plain");
        assert_eq!(threads, Value::Null);
        preloaded_runs += usize::from(is_preloaded);
        preloaded_runs == 2
    });
    // Both set OMP_NUM_THREADS, which numpy reads on import, so their Python starts over without the preloaded numpy or
    // never had it.
    for _ in 0..3 {
        assert_eq!(checked_run("project"), (false, json!("1")));
        assert_eq!(checked_run("file"), (false, json!("2")));
    }
    assert!(checked_run("plain").0, "numpy is still preloaded");
}

const STARTS_A_THREAD: &str =
    "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n";
const USES_PANDAS: &str = "from airflow.sdk import DAG, task\nwith DAG('d'):\n    @task\n    def t():\n        \
    import pandas\n        return 'zygote' in open('/proc/self/cmdline').read().split(chr(0))\n    t()\n";

#[test]
fn a_library_that_starts_threads_keeps_tasks_warm() {
    let test = TestHome::new().with_limit(STAYS.0, STAYS.1);
    test.set_up();
    let (python, site) = test.virtual_environment();
    std::fs::create_dir_all(site.join("pandas")).unwrap();
    std::fs::write(site.join("pandas/__init__.py"), STARTS_A_THREAD).unwrap();
    test.run(&["config", "set", "python", python.to_str().unwrap()]).expect(0);
    test.start();
    test.save("d/dag.py", USES_PANDAS);
    test.wait_dag("d", 1);
    let is_reported = || {
        let checks = test.run(&["doctor", "--json"]).json();
        let mut process_checks =
            checks["checks"].as_array().unwrap().iter().filter(|check| check["name"] == "processes");
        process_checks.any(|check| check["detail"].as_str().unwrap().contains("is without pandas since "))
    };
    let value = "SELECT value FROM xcom ORDER BY created_at DESC LIMIT 1";
    let mut warm_while_reported = 0;
    wait_until("tasks are warm without pandas", SOON, || {
        assert_eq!(test.run_dag("d")["state"], "success", "{}", test.sql("SELECT outcome FROM task_try"));
        warm_while_reported += usize::from(test.sql(value) == "true" && is_reported());
        warm_while_reported == 2
    });
    assert_eq!(test.state(), "healthy");
}
