//! DAG files of the workspace: new, changed, broken, removed and hostile ones.

use crate::support::processes::{is_alive, mentioning, signal};
use crate::support::{TestHome, states, wait_until};
use serde_json::json;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

fn one_task(dag_id: &str, body: &str) -> String {
    format!(
        "from airflow.sdk import DAG, task\nwith DAG({dag_id:?}):\n    @task\n    def t():\n        {body}\n    t()\n"
    )
}

fn import_error(test: &TestHome, file: &str) -> Option<String> {
    let list = test.dags();
    let error = list["import_errors"]
        .as_array()
        .unwrap()
        .iter()
        .find(|error| error["filename"].as_str().unwrap().ends_with(file))?;
    Some(error["stack_trace"].as_str().unwrap().to_owned())
}

fn wait_import_error(test: &TestHome, file: &str, limit: Duration) -> String {
    wait_until(&format!("an import error of {file}"), limit, || import_error(test, file).is_some());
    import_error(test, file).unwrap()
}

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_file_can_be_saved_changed_and_removed() {
    let test = TestHome::started();
    wait_until("the starter DAG", SOON, || test.dags()["dags"][0]["dag_id"] == "hello");
    test.add_dag("life", &one_task("life", "return 1"));
    assert_eq!(test.run_dag("life")["state"], "success");
    // A run that is triggered right after a save uses the saved file.
    test.save("life.py", &one_task("life", "return 2"));
    test.run(&["dags", "trigger", "life", "--wait"]).expect(0);
    assert_eq!(test.run(&["xcom", "get", "life", "latest", "t"]).expect(0).stdout, "2\n");
    // So does one after the file was renamed, and one after the module that it lacked was written.
    let renamed = test.workspace().join("renamed.py");
    std::fs::rename(test.workspace().join("life.py"), &renamed).unwrap();
    test.run(&["dags", "trigger", "life", "--wait"]).expect(0);
    std::fs::rename(renamed, test.workspace().join("life.py")).unwrap();
    test.save("life.py", &format!("import number\n{}", one_task("life", "return number.THREE")));
    test.save("number.py", "THREE = 3\n");
    test.run(&["dags", "trigger", "life", "--wait"]).expect(0);
    assert_eq!(test.run(&["xcom", "get", "life", "latest", "t"]).expect(0).stdout, "3\n");
    // Saving the earlier text again makes the earlier version current.
    test.save("life.py", &one_task("life", "return 1"));
    test.wait_dag("life", 1);
    assert!(test.run(&["dags", "source", "life", "--version", "2"]).expect(0).stdout.contains("return 2"));

    std::fs::remove_file(test.workspace().join("life.py")).unwrap();
    let dag_count = |test: &TestHome| test.dags()["dags"].as_array().unwrap().len();
    wait_until("the DAG is gone from the list", SOON, || dag_count(&test) == 1);
    assert!(test.run(&["dags", "list", "--all"]).expect(0).stdout.contains("file missing"));
    assert_eq!(test.run(&["runs", "list", "life", "--json"]).expect(0).json()["total_entries"], 4);
    assert!(test.run(&["dags", "trigger", "life"]).expect(1).stderr.contains("not found"));
    test.save("life.py", &one_task("life", "return 1"));
    wait_until("the DAG is listed again", SOON, || dag_count(&test) == 2);
    assert_eq!(test.run(&["runs", "list", "life", "--json"]).expect(0).json()["total_entries"], 4);
    test.save("young.py", &one_task("young", "return 1"));
    test.run(&["dags", "trigger", "young"]).expect(0);
}

#[test]
fn lists_say_that_files_are_still_being_imported() {
    let test = TestHome::new();
    test.first_setup();
    std::fs::remove_dir_all(test.workspace().join("hello")).unwrap();
    let gate = test.folder().join("gate");
    test.save(
        "slow.py",
        &format!(
            "import os, time\nwhile not os.path.exists({gate:?}):\n    time.sleep(0.01)\n{}",
            one_task("slow", "return 1")
        ),
    );
    test.start();
    let list = || test.run(&["dags", "list"]).expect(0);
    let listed = list();
    assert!(listed.stdout.is_empty() && listed.stderr.contains("DAG files still being imported: 1"), "{listed:?}");
    assert_eq!(test.dags()["is_importing"], true);
    let errors = test.run(&["dags", "list-import-errors"]).expect(0);
    assert!(errors.stdout.is_empty() && errors.stderr.contains("still being imported"), "{errors:?}");
    std::fs::write(gate, "").unwrap();
    test.wait_imported("slow");
    let listed = list();
    assert!(listed.stdout.contains("slow") && !listed.stderr.contains("still"), "{listed:?}");
    assert_eq!(test.dags()["is_importing"], false);
}

#[test]
fn a_broken_file_keeps_the_last_good_version() {
    let test = TestHome::started();
    test.add_dag("good", &one_task("good", "return 'good'"));
    test.save("good.py", "from airflow.sdk import DAG\nraise ValueError('dag is broken')\n");
    let error = wait_import_error(&test, "good.py", SOON);
    assert!(error.contains("good.py\", line 2") && error.contains("ValueError: dag is broken"), "{error}");
    assert!(!error.contains("leoflow/_"), "no frames of Leoflow: {error}");
    let listed = test.run(&["dags", "list"]).expect(0);
    assert!(listed.stdout.contains("import error") && listed.stderr.contains("ValueError"), "{listed:?}");
    let dag = test.dags()["dags"].as_array().unwrap().iter().find(|dag| dag["dag_id"] == "good").cloned().unwrap();
    assert_eq!(dag["import_error"], json!(error));
    let run = test.run(&["dags", "trigger", "good", "--wait"]).expect(0);
    assert!(run.stderr.contains("good.py fails to import") && run.stderr.contains("as it was before"), "{run:?}");
    assert_eq!(test.run(&["xcom", "get", "good", "latest", "t"]).expect(0).stdout, "\"good\"\n");
    let checked = test.run(&["validate"]).expect(1);
    assert!(checked.stdout.contains("ValueError: dag is broken"), "{}", checked.stdout);
    test.save("good.py", &one_task("good", "return 'better'"));
    wait_until("the import error is gone", SOON, || import_error(&test, "good.py").is_none());
    test.run(&["validate"]).expect(0);
}

#[test]
fn a_task_whose_pool_is_missing_says_what_it_waits_for() {
    let test = TestHome::started();
    test.add_dag("dry", &one_task("dry", "return 1").replace("@task\n", "@task(pool='nope')\n"));
    let remedy = "no pool nope: leoflow pools set nope 8";
    assert!(test.run(&["dags", "show", "dry"]).expect(0).stderr.contains(remedy));
    let doctor = test.run(&["doctor"]).stdout;
    assert!(doctor.contains("tasks of dry wait, because there is no pool nope"), "{doctor}");
    test.trigger("dry");
    wait_until("the reason", SOON, || test.run(&["runs", "show", "dry", "latest"]).stderr.contains(remedy));
    test.run(&["pools", "set", "nope", "8"]).expect(0);
    let run = test.run(&["runs", "watch", "dry", "latest"]).expect(0);
    assert!(run.stdout.contains("success"), "{run:?}");
    assert!(!test.run(&["runs", "show", "dry", "latest"]).expect(0).stderr.contains("pool"));
}

#[test]
fn a_changed_local_module_makes_a_new_version() {
    let test = TestHome::started();
    test.save("project/words.py", "WORD = 'one'\n");
    test.save(
        "project/dag.py",
        "from airflow.sdk import DAG, task\nfrom words import WORD\nwith DAG('words'):\n    @task\n    def t():\n        return WORD\n    t()\n",
    );
    test.wait_dag("words", 1);
    test.save("project/words.py", "WORD = 'two'\n");
    test.wait_dag("words", 2);
    assert_eq!(test.run_dag("words")["state"], "success");
    assert_eq!(test.run(&["xcom", "get", "words", "latest", "t"]).expect(0).stdout, "\"two\"\n");
    // A missing module is an import error, and the last version stays.
    std::fs::remove_file(test.workspace().join("project/words.py")).unwrap();
    let error = wait_import_error(&test, "project/dag.py", SOON);
    assert!(error.contains("No module named 'words'"), "{error}");
    test.save("project/words.py", "WORD = 'three'\n");
    test.wait_dag("words", 3);
    let caches: Vec<_> = walk(&test.workspace()).into_iter().filter(|name| name.contains("__pycache__")).collect();
    assert_eq!(caches, Vec::<String>::new(), "nothing is written to the workspace");
}

fn walk(folder: &std::path::Path) -> Vec<String> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        paths.push(entry.path().display().to_string());
        if entry.path().is_dir() {
            paths.extend(walk(&entry.path()));
        }
    }
    paths
}

#[test]
fn a_dag_id_belongs_to_one_file() {
    let test = TestHome::started();
    test.add_dag("mine", &one_task("mine", "return 1"));
    test.save("other.py", &one_task("mine", "return 2"));
    let error = wait_import_error(&test, "other.py", SOON);
    assert!(error.contains("mine.py") && error.contains("other.py"), "{error}");
    let dag = test.run(&["dags", "show", "mine", "--json"]).expect(0).json();
    assert!(dag["fileloc"].as_str().unwrap().ends_with("/mine.py"));
    std::fs::remove_file(test.workspace().join("mine.py")).unwrap();
    wait_until("the other file owns the DAG id", SOON, || {
        let dag = test.run(&["dags", "show", "mine", "--json"]).expect(0).json();
        dag["fileloc"].as_str().unwrap().ends_with("/other.py") && dag["is_stale"] == false
    });
    assert_eq!(import_error(&test, "other.py"), None);
}

#[test]
fn dags_in_yaml_need_airflows_own_sdk() {
    let test = TestHome::started();
    test.save("other.yaml", "dags: none\n");
    test.save("flow.yml", "$schema: https://airflow.apache.org/schemas/dag/2026-10-30.json\ndag_id: flow\n");
    let error = wait_import_error(&test, "flow.yml", SOON);
    let advice = "needs Airflow's own SDK of version 3.4 or newer: put `airflow: 3.4";
    assert!(error.contains(advice), "{error}");
    assert_eq!(import_error(&test, "other.yaml"), None);
}

#[test]
fn unsupported_features_are_import_errors_with_their_line() {
    let test = TestHome::started();
    for (name, text, feature) in [
        ("sdk", "from airflow.sdk import DAG\nfrom airflow.sdk import DeadlineAlert\n", "2: airflow.sdk.DeadlineAlert"),
        (
            "provider",
            "# dag\nfrom airflow.providers.http.operators.http import HttpOperator\n",
            "2: the module airflow.providers.http",
        ),
        (
            "user",
            "from airflow.sdk import DAG\nfrom airflow.operators.empty import EmptyOperator\nwith DAG('x'):\n    EmptyOperator(task_id='a', run_as_user='root')\n",
            "4: run_as_user='root'",
        ),
        (
            "attribute",
            "from airflow.sdk import DAG\nfrom airflow.operators.empty import EmptyOperator\nwith DAG('x'):\n    a = EmptyOperator(task_id='a')\n    a.queue = 'gpu'\n",
            "5: queue='gpu'",
        ),
        (
            "decorator",
            "from airflow.sdk import DAG, task\nwith DAG('x'):\n    @task.docker\n    def t(): pass\n",
            "3: @task.docker",
        ),
        (
            "partition",
            "from airflow.sdk import DAG\nfrom airflow.sdk import CronPartitionTimetable\n",
            "2: airflow.sdk.CronPartitionTimetable",
        ),
    ] {
        test.save(&format!("{name}.py"), text);
        let error = wait_import_error(&test, &format!("/{name}.py"), SOON);
        assert!(error.contains(feature) && error.contains("is not supported by Leoflow"), "{name}: {error}");
        assert!(error.contains(&format!("/{name}.py")), "{error}");
    }
}

#[test]
fn hostile_files_do_not_affect_other_dags() {
    let test = TestHome::started();
    let files: &[(&str, &str, &str)] = &[
        ("loops", "while True: pass\n", "longer than 3 s"),
        ("sleeps", "import time\ntime.sleep(3600)\n", "longer than 3 s"),
        ("exits", "import os\nos._exit(3)\n", "exit code 3"),
        ("segfaults", "import ctypes\nctypes.string_at(0)\n", "SIGSEGV"),
        ("eats", "x = []\nwhile True: x.append(bytearray(200_000_000))\n", "MemoryError"),
        (
            "floods",
            "import sys\nfor _ in range(1600): sys.stdout.write('x' * 65536)\nraise ValueError('flooded')\n",
            "flooded",
        ),
        ("latin", "# caf\u{e9}\n", "codec can't decode"),
        (
            "cycle",
            "from airflow.operators.empty import EmptyOperator as E\nwith DAG('c'):\n    a, b = E(task_id='a'), E(task_id='b')\n    a >> b >> a\n",
            "Cycle detected in Dag: c",
        ),
        ("twice", "a = DAG('same')\nb = DAG('same')\n", "'same' is used twice"),
        (
            "twins",
            "from airflow.operators.empty import EmptyOperator as E\nwith DAG('w'):\n    E(task_id='a')\n    E(task_id='a')\n",
            "Task id 'a' has already been added",
        ),
        ("exit", "import sys\nsys.exit('bye dag')\n", "bye dag"),
        (
            "forks",
            "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(3600)\nraise ValueError('forked')\n",
            "forked",
        ),
        ("nul", "dag = DAG('nul', description='a\\0b')\n", "holds the character NUL"),
        ("surrogate", "raise ValueError('strange: \\udc80')\n", "strange: \\udc80"),
        (
            "daemon",
            "import subprocess\nsubprocess.Popen(['sleep', '3599'], start_new_session=True)\nraise ValueError('left one')\n",
            "left one",
        ),
        ("many", "DAG('many', max_active_runs=3_000_000_000)\n", "max_active_runs must be a whole number"),
        ("answers", "import os\nif os.fork(): os.wait()\nraise ValueError('answered')\n", "answered"),
        (
            "threads",
            "import threading, time\nthreading.Thread(target=time.sleep, args=(3600,)).start()\nraise ValueError('threaded')\n",
            "threaded",
        ),
    ];
    std::fs::write(test.workspace().join(".env"), "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT=6\n").unwrap();
    // Files that never finish importing get a short time limit.
    std::fs::create_dir(test.workspace().join("slow")).unwrap();
    std::fs::write(test.workspace().join("slow/.env"), "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT=3\n").unwrap();
    let path_of = |name: &str| match name {
        "loops" | "sleeps" => format!("slow/bad_{name}.py"),
        _ => format!("bad_{name}.py"),
    };
    for (name, text, _) in files {
        let text = format!("from airflow.sdk import DAG\n{text}");
        // Writes Latin-1, so that one of the files is not UTF-8.
        let bytes: Vec<u8> = text.chars().map(|c| c as u8).collect();
        std::fs::write(test.workspace().join(path_of(name)), bytes).unwrap();
    }
    // A good DAG runs beside the hostile files.
    test.add_dag("good", &one_task("good", "return 1"));
    assert_eq!(test.run_dag("good")["state"], "success");
    for (name, _, expected) in files {
        let error = wait_import_error(&test, &path_of(name), Duration::from_secs(90));
        assert!(error.contains(expected), "{name}: {error}");
        assert!(error.len() < 100_000, "{name}: {} bytes", error.len());
    }
    assert_eq!(test.state(), "healthy");
    let sleepers = crate::support::processes::mentioning(test.folder()).into_iter().filter(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with("sleep\u{0}3599"))
    });
    assert_eq!(sleepers.count(), 0);
}

#[test]
fn a_dag_with_five_thousand_tasks_runs() {
    let test = TestHome::started();
    let text = "from airflow.sdk import DAG\nfrom airflow.operators.empty import EmptyOperator\n\
                with DAG('big'):\n    last = None\n    for n in range(5000):\n        task = EmptyOperator(task_id=f't{n}')\n        \
                if last is not None and n % 10:\n            last >> task\n        last = task\n";
    test.add_dag("big", text);
    let run = test.run_dag("big");
    assert_eq!(run["state"], "success");
    assert_eq!(states(&run).iter().filter(|(_, state)| state == "success").count(), 5000);
}

/// Returns a DAG file with a task for each word of the Python string expression `words`.
fn tasks_of(dag_id: &str, words: &str) -> String {
    format!(
        "import os\nfrom airflow.sdk import DAG, Variable\nfrom airflow.operators.empty import EmptyOperator\n\
         with DAG({dag_id:?}):\n    for word in {words}.split():\n        EmptyOperator(task_id=word)\n"
    )
}

fn task_ids(test: &TestHome, dag_id: &str) -> String {
    test.run(&["tasks", "list", dag_id]).stdout.replace('\n', " ").trim().to_owned()
}

#[test]
fn a_changed_input_file_or_variable_reparses_its_dag() {
    let test = TestHome::started();
    test.save("data/words.txt", "a b");
    test.save("data/dag.py", &tasks_of("data", "open(os.path.join(os.path.dirname(__file__), 'words.txt')).read()"));
    test.save("reader.py", &tasks_of("reader", "Variable.get('words', default='one')"));
    wait_until("both DAGs exist", SOON, || task_ids(&test, "data") == "a b" && task_ids(&test, "reader") == "one");
    test.save("data/words.txt", "a c");
    wait_until("the file is read again", SOON, || task_ids(&test, "data") == "a c");
    assert_eq!(test.run_dag("data")["state"], "success");
    test.run(&["variables", "set", "words", "two three"]).expect(0);
    wait_until("the Variable is read again", SOON, || task_ids(&test, "reader") == "two three");
    // A change of a symlink's target reparses the DAG.
    let target = test.folder().join("elsewhere.py");
    std::fs::write(&target, tasks_of("linked", "'x'")).unwrap();
    std::os::unix::fs::symlink(&target, test.workspace().join("linked.py")).unwrap();
    wait_until("the link is followed", SOON, || task_ids(&test, "linked") == "x");
    std::fs::write(&target, tasks_of("linked", "'y'")).unwrap();
    wait_until("the link's target is watched", SOON, || task_ids(&test, "linked") == "y");
}

#[test]
fn file_names_do_not_shadow_modules() {
    let test = TestHome::started();
    // Names of a module of the standard library, of Leoflow's packages, and of no module.
    for name in ["email", "airflow", "leoflow", "run"] {
        test.save(&format!("{name}.py"), &one_task(&format!("called_{name}"), "import urllib.request, airflow.sdk"));
    }
    test.save("other/dag.py", &one_task("other", "import urllib.request, email.message; return 1"));
    let strange = test.workspace().join(std::ffi::OsString::from_vec(b"caf\xe9.py".to_vec()));
    std::fs::write(strange, "from airflow.sdk import DAG\ndag = DAG('strange')\n").unwrap();
    test.wait_dag("other", 1);
    assert_eq!(test.run_dag("other")["state"], "success");
    for name in ["email", "airflow", "leoflow", "run"] {
        test.wait_dag(&format!("called_{name}"), 1);
        assert_eq!(test.run_dag(&format!("called_{name}"))["state"], "success", "{name}");
    }
    wait_until("the invalid file name is reported", SOON, || {
        test.dags()["import_errors"].to_string().contains("not valid UTF-8; rename the file")
    });
}

#[test]
fn a_version_runs_after_its_files_are_gone() {
    let test = TestHome::started();
    test.save("moved/lib/__init__.py", "");
    test.save("moved/lib/words.py", "WORD = 'kept'\n");
    test.save(
        "moved/dag.py",
        "from airflow.sdk import DAG, task\nfrom lib.words import WORD\nwith DAG('moved'):\n    @task\n    def t():\n        return WORD\n    t()\n",
    );
    test.wait_dag("moved", 1);
    std::fs::rename(test.workspace().join("moved/lib"), test.workspace().join("moved/library")).unwrap();
    let error = wait_import_error(&test, "moved/dag.py", SOON);
    assert!(error.contains("No module named 'lib'"), "{error}");
    assert_eq!(test.run_dag("moved")["state"], "success");
    assert_eq!(test.run(&["xcom", "get", "moved", "latest", "t"]).expect(0).stdout, "\"kept\"\n");
}

#[test]
fn a_process_detached_by_an_import_is_ended() {
    let test = TestHome::started();
    let pid_file = test.folder().join("pid");
    let text = format!(
        "from airflow.sdk import DAG\nimport os, time\n\
         if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        open({pid_file:?}, 'w').write(str(os.getpid()) + '\\n')\n        \
         os.closerange(0, 100)\n        os.execve('/bin/sleep', ['sleep', '3596'], {{}})\n    os._exit(0)\n\
         while not os.path.exists({pid_file:?}): time.sleep(0.01)\n\
         dag = DAG('forks')\n"
    );
    test.add_dag("forks", &text);
    let pid: i32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    wait_until("the detached process is ended", Duration::from_secs(20), || !is_alive(pid));
}

/// Linux ends the import with its server; in the portable half the next start does.
#[test]
fn an_import_does_not_outlive_a_killed_instance() {
    let test = TestHome::started();
    let pid_file = test.folder().join("pid");
    test.save("spin.py", &format!("import os\nfrom airflow.sdk import DAG\nopen({pid_file:?}, 'w').write(str(os.getpid()))\nwhile True: pass\n"));
    let pid = || std::fs::read_to_string(&pid_file).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    wait_until("the import began", SOON, || pid() > 0);
    let import = pid();
    // The supervisor first, so that it does not see the end of the server.
    let killed = [test.pid("supervisor"), test.pid("server")];
    killed.iter().for_each(|pid| signal(*pid, "KILL"));
    test.start();
    assert!(!is_alive(import));
}

/// Code that leaves a chain of processes, each of which starts the next and exits after 20 ms. It ends after a minute.
fn chain(beat_file: &std::path::Path) -> String {
    format!(
        "import os, signal, time\nif os.fork() == 0:\n    os.setsid()\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    \
         os.closerange(0, 100)\n    for beat in range(3000):\n        time.sleep(0.02)\n        if os.fork(): os._exit(0)\n        \
         open({beat_file:?}, 'w').write(str(beat))\n    os._exit(0)\n\
         while not os.path.exists({beat_file:?}): time.sleep(0.01)\n"
    )
}

/// True once the chain has not beaten for a while.
fn chain_has_ended(beat_file: &std::path::Path) -> bool {
    let before = std::fs::read(beat_file).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    std::fs::read(beat_file).unwrap() == before
}

#[test]
fn a_chain_of_processes_left_by_an_import_is_ended() {
    let test = TestHome::started();
    let beat_file = test.folder().join("beat");
    test.add_dag("chain", &format!("{}from airflow.sdk import DAG\ndag = DAG('chain')\n", chain(&beat_file)));
    wait_until("the chain is ended", Duration::from_secs(20), || chain_has_ended(&beat_file));
    // One more, whose import is cancelled because its file is removed.
    std::fs::remove_file(&beat_file).unwrap();
    let slow = test.save("slow.py", &format!("{}time.sleep(60)\nfrom airflow.sdk import DAG\n", chain(&beat_file)));
    wait_until("the chain began", SOON, || beat_file.exists());
    std::fs::remove_file(slow).unwrap();
    wait_until("the chain is ended with the import", Duration::from_secs(20), || chain_has_ended(&beat_file));
    // One more, whose import still runs when the instance stops.
    std::fs::remove_file(&beat_file).unwrap();
    test.save("slow.py", &format!("{}time.sleep(60)\nfrom airflow.sdk import DAG\n", chain(&beat_file)));
    wait_until("the chain began", SOON, || beat_file.exists());
    test.run(&["lite", "stop"]).expect(0);
    assert!(chain_has_ended(&beat_file), "it outlived the stop");
}

#[test]
fn installing_a_missing_package_fixes_its_import_errors() {
    let test = TestHome::new();
    test.set_up();
    let (real, site) = test.virtual_environment();
    // A Python that is slow to report its site-packages: a package installed before the report must be noticed too.
    let python = test.folder().join("slow-python");
    let script =
        format!("#!/bin/sh\ncase \"$*\" in *'import site'*) sleep 2;; esac\nexec '{}' \"$@\"\n", real.display());
    std::fs::write(&python, script).unwrap();
    std::fs::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    test.run(&["config", "set", "python", python.to_str().unwrap()]).expect(0);
    test.start();
    // Doctor checks the server's Python, not the shell's.
    let checks = test.run(&["doctor", "--json"]).json();
    let check = checks["checks"].as_array().unwrap().iter().find(|check| check["name"] == "python").unwrap();
    assert!(check["detail"].as_str().unwrap().starts_with(python.to_str().unwrap()), "{check}");
    let file =
        test.save("needs.py", "from airflow.sdk import DAG\nimport newcomer.parts\nwith DAG('needs'):\n    pass\n");
    let listed = || test.run(&["dags", "list"]);
    wait_until("an import error", Duration::from_secs(20), || listed().stderr.contains("No module named 'newcomer'"));
    assert!(listed().stderr.contains("dependencies: [PACKAGE]"), "{}", listed().stderr);
    // Writes the package first, then its metadata, as an installer does.
    std::fs::create_dir_all(site.join("newcomer")).unwrap();
    std::fs::write(site.join("newcomer/parts.py"), "").unwrap();
    std::fs::create_dir(site.join("newcomer-1.0.dist-info")).unwrap();
    test.wait_dag("needs", 1);
    assert!(test.run(&["validate", file.to_str().unwrap()]).expect(0).stdout.contains("needs"));
}

/// The imports wait while the file `slow` exists, and the files change during that time.
#[test]
fn a_file_saved_during_its_import_is_imported_again() {
    let test = TestHome::started();
    let text = |number: u32, words: &str| {
        format!(
            "import os, time\nwhile os.path.exists('slow'): time.sleep(0.02)\n{}",
            one_task(&format!("late_{number}"), &format!("return {words:?}"))
        )
    };
    let slow = test.save("slow", "");
    (0..6).for_each(|number| drop(test.save(&format!("late_{number}.py"), &text(number, "first"))));
    let imports = || mentioning(test.folder()).into_iter().filter(|pid| is_parse_process(*pid)).count();
    wait_until("an import runs", Duration::from_secs(30), || imports() > 0);
    (0..6).for_each(|number| drop(test.save(&format!("late_{number}.py"), &text(number, "second"))));
    std::fs::remove_file(slow).unwrap();
    for number in 0..6 {
        let dag_id = format!("late_{number}");
        wait_until("the last saved text is shown", Duration::from_secs(30), || {
            let shown = test.run(&["dags", "source", &dag_id]);
            shown.code == Some(0) && shown.stdout.contains("second")
        });
        assert_eq!(test.run_dag(&dag_id)["state"], "success");
        let value = test.run(&["xcom", "get", &dag_id, "latest", "t"]).expect(0).stdout;
        assert_eq!(value.trim(), "\"second\"");
    }
    wait_until("no import runs", Duration::from_secs(10), || imports() == 0);
}

/// The imports of a folder begin by creating a marker, and wait for the file `gate`.
#[test]
fn a_new_file_does_not_wait_behind_a_large_folder() {
    let test = TestHome::new();
    test.first_setup();
    let (gate, markers) = (test.folder().join("gate"), test.folder().join("markers"));
    std::fs::create_dir(&markers).unwrap();
    let processors = std::thread::available_parallelism().unwrap().get();
    let names: Vec<String> = (0..30 + 4 * processors).map(|number| format!("many_{number}")).collect();
    for name in &names {
        let marker = markers.join(name);
        let wait = "while not os.path.exists(GATE): time.sleep(0.02)";
        let head = format!("import os, time\nGATE = {gate:?}\nopen({marker:?}, 'w').close()\n{wait}\n");
        test.save(&format!("many/{name}.py"), &(head + &one_task(name, "return 1")));
    }
    test.start();
    let begun = || std::fs::read_dir(&markers).unwrap().count();
    wait_until("an import of the folder", SOON, || begun() > 0);
    test.add_dag("newer", &one_task("newer", "return 1"));
    test.add_dag("newest", &one_task("newest", "return 1"));
    assert!(begun() < names.len() && !gate.exists(), "{} of {} imports have begun", begun(), names.len());
    std::fs::write(gate, "").unwrap();
    names.iter().for_each(|name| test.wait_imported(name));
}

/// True for a process that imports a file, started cold or forked from a zygote (a warm Python).
fn is_parse_process(pid: i32) -> bool {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let is_zygote = String::from_utf8_lossy(&environment).contains("LEOFLOW_TASK=________");
    !is_zygote && command.split(|byte| *byte == 0).any(|word| word == b"parse" || word == b"zygote")
}

#[test]
fn a_timed_out_import_is_retried_without_a_change() {
    let test = TestHome::started_with(&[("LEOFLOW_IMPORT_RETRY", "3")]);
    // The marker is outside of the workspace and never opened, so no file event reports it.
    let marker = test.folder().join("there-is-time");
    test.save("heavy/.env", "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT=1.5\n");
    test.save("heavy/dag.py", &one_task("heavy", "return 1"));
    test.wait_dag("heavy", 1);
    let second = one_task("heavy", "return 2");
    test.save("heavy/dag.py", &format!("import os\nwhile not os.path.exists({marker:?}): pass\n{second}"));
    let error = wait_import_error(&test, "heavy/dag.py", SOON);
    assert!(error.contains("longer than 1.5 s") && error.contains("The next attempt is at 20"), "{error}");
    assert_eq!(test.run_dag("heavy")["state"], "success", "the last good version runs");
    assert_eq!(test.run(&["xcom", "get", "heavy", "latest", "t"]).expect(0).stdout, "1\n");
    std::fs::write(&marker, "").unwrap();
    test.wait_dag("heavy", 2);
    assert_eq!(import_error(&test, "heavy/dag.py"), None);
}
