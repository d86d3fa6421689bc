//! Notifications of failed runs and of the instance, to receivers that fail, hang and are restarted.

use crate::support::http::Session;
use crate::support::receiver::Receiver;
use crate::support::{TestHome, wait_until};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Adds `notify` to the home's config.yaml.
fn notify(test: &TestHome, settings: &str) {
    let file = test.home.join("config.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let text = text.split("\nnotify:").next().unwrap();
    fs::write(&file, format!("{}\nnotify: {settings}\n", text.trim_end())).unwrap();
}

fn started() -> TestHome {
    TestHome::started_with(&[("LEOFLOW_NOTIFY_RETRY", "0.1"), ("LEOFLOW_NOTIFY_WATCH", "0.3")])
}

/// A DAG whose task fails while the file `failing` is in the test's folder.
fn add_flaky_dag(test: &TestHome, dag_id: &str) {
    let flag = test.folder().join("failing");
    test.add_dag(
        dag_id,
        &format!(
            "import os\nfrom airflow.sdk import DAG, task\nwith DAG({dag_id:?}):\n    @task\n    def load():\n        \
             if os.path.exists({flag:?}): raise ValueError('no data')\n    load()\n"
        ),
    );
}

#[test]
fn an_episode_of_failures_sends_one_message_and_one_when_it_ends() {
    let (test, receiver) = (started(), Receiver::new(0));
    let port = receiver.port;
    let rule = "on: [run_failed, run_recovered, task_failed], to: [hook]";
    notify(
        &test,
        &format!(
            "{{targets: {{hook: {{type: webhook, url: 'http://127.0.0.1:{port}/x', secret: s}}}}, rules: [{{{rule}}}]}}"
        ),
    );
    add_flaky_dag(&test, "sales");
    test.run_dag("sales");
    fs::write(test.folder().join("failing"), "").unwrap();
    let first = test.run_dag("sales")["dag_run_id"].as_str().unwrap().to_owned();
    wait_until("both messages", SOON, || receiver.all().len() == 2);
    test.run_dag("sales");
    fs::remove_file(test.folder().join("failing")).unwrap();
    let good = test.run_dag("sales")["dag_run_id"].as_str().unwrap().to_owned();
    wait_until("the recovery", SOON, || receiver.all().len() == 3);
    let texts = receiver.texts();
    let url = |run: &str| format!("\nhttp://127.0.0.1:{}/dags/sales/runs/{run}", test.port);
    let task = format!("sales.load failed in run {first}: ");
    assert!(texts.iter().any(|text| text.starts_with(&task) && text.ends_with(&url(&first))), "{texts:?}");
    assert!(texts.contains(&format!("sales failed: run {first} (reason: task_failure){}", url(&first))), "{texts:?}");
    assert_eq!(texts[2], format!("sales succeeds again: run {good}{}", url(&good)));
    let last = receiver.all().remove(2);
    assert!(
        last.header("x-leoflow-signature").unwrap().starts_with("sha256=")
            && last.header("x-leoflow-delivery").is_some()
    );
    assert_eq!((&last.json()["event"], &last.json()["dag_id"]), (&"run_recovered".into(), &"sales".into()));
    // Another failure begins another episode.
    fs::write(test.folder().join("failing"), "").unwrap();
    let failed = test.run_dag("sales")["dag_run_id"].as_str().unwrap().to_owned();
    wait_until("a second episode", SOON, || receiver.all().len() == 5);
    // So does one after a run and a task that a user has marked as successful.
    test.run_with_input(&["lite", "reset-password", "--password-stdin"], "a good long password\n").expect(0);
    let session = Session::login(test.port, "a good long password");
    let run = format!("/api/v2/dags/sales/dagRuns/{failed}");
    for (path, body) in
        [(format!("{run}/taskInstances/load"), r#"{"new_state": "success"}"#), (run, r#"{"state": "success"}"#)]
    {
        let marked = session.request("PATCH", &path, body);
        assert_eq!(marked.status, 200, "{marked:?}");
    }
    test.run_dag("sales");
    wait_until("a third episode", SOON, || receiver.all().len() == 7);
    assert!(test.run(&["notify", "list"]).expect(0).stdout.contains("run_recovered"));
}

#[test]
fn a_message_that_is_refused_is_sent_again_and_projects_add_rules() {
    let (test, receiver) = (started(), Receiver::new(2));
    let port = receiver.port;
    let targets = format!(
        "targets: {{chat: {{type: slack, url: 'http://127.0.0.1:{port}/'}}, gone: {{type: teams, url: 'http://127.0.0.1:1/'}}}}"
    );
    notify(&test, &format!("{{{targets}, rules: [{{on: [run_failed], to: [gone], dags: [sales]}}]}}"));
    fs::write(
        test.workspace().join("leoflow.yaml"),
        "notify:\n  - {on: [run_failed], to: [chat], template: '{{ dag_id }}!'}\n",
    )
    .unwrap();
    add_flaky_dag(&test, "sales");
    fs::write(test.folder().join("failing"), "").unwrap();
    test.run_dag("sales");
    wait_until("the message", SOON, || !receiver.all().is_empty());
    assert_eq!(receiver.texts(), ["sales!"]);
    let delivery = |target: &str, field: &str| {
        let listed = test.run(&["notify", "list", "--json"]).expect(0).json();
        let listed = listed["deliveries"].as_array().unwrap().clone();
        listed.iter().find(|one| one["target"] == target).unwrap()[field].clone()
    };
    wait_until("the record", SOON, || delivery("chat", "state") == "sent");
    assert_eq!(delivery("chat", "attempts"), 3);
    assert!(delivery("gone", "state") == "waiting" && delivery("gone", "error").is_string());
    test.run_with_input(&["lite", "reset-password", "--password-stdin"], "a good long password").expect(0);
    let session = Session::login(test.port, "a good long password");
    let page = session.try_request("GET", "/lite/notifications", "").unwrap();
    assert!(page.status == 200 && page.body.contains("run failed") && page.body.contains("chat"), "{page:?}");
}

#[test]
fn kills_lose_no_notification() {
    let (test, receiver) = (started(), Receiver::new(0));
    let target = format!("{{type: slack, url: 'http://127.0.0.1:{}/'}}", receiver.port);
    let rule = "{on: [run_failed], to: [chat], template: '{{ dag_id }}'}";
    notify(&test, &format!("{{targets: {{chat: {target}}}, rules: [{rule}]}}"));
    fs::write(test.folder().join("failing"), "").unwrap();
    let dags = ["a", "b", "c", "d", "e"];
    dags.iter().for_each(|dag_id| add_flaky_dag(&test, dag_id));
    // Few kills, because the supervisor waits longer after each.
    for dag_ids in [&dags[..3], &dags[3..]] {
        let runs: Vec<(&str, String)> = dag_ids.iter().map(|dag_id| (*dag_id, test.trigger(dag_id))).collect();
        test.kill_and_wait("server");
        test.wait_healthy();
        runs.iter().for_each(|(dag_id, run_id)| _ = test.wait_run(dag_id, run_id));
    }
    wait_until("all messages", SOON, || dags.iter().all(|dag_id| receiver.texts().contains(&(*dag_id).to_owned())));
    let mut ids: Vec<String> =
        receiver.all().iter().map(|one| one.header("x-leoflow-delivery").unwrap().to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), dags.len(), "a message that is repeated has the same id: {ids:?}");
}

#[test]
fn conditions_of_the_instance_are_mailed_and_heartbeats_sent() {
    let (test, receiver) = (started(), Receiver::new(0));
    let (smtp, mails) = mail_server();
    let targets = format!(
        "targets: {{me: {{type: email, to: [ada@example.org], from: leoflow@example.org, server: 'smtp://127.0.0.1:{smtp}'}}}}"
    );
    let rule = "{on: [upgrade_rolled_back, run_late], to: [me], late_after: 1s}";
    notify(&test, &format!("{{{targets}, rules: [{rule}], heartbeat: 'http://127.0.0.1:{}/beat'}}", receiver.port));
    wait_until("a heartbeat", SOON, || receiver.all().iter().any(|one| one.head.starts_with("GET /beat ")));
    test.run(&["notify", "test", "me"]).expect(0);
    let mail = || mails.lock().unwrap().join("\n");
    assert!(mail().contains("To: ada@example.org") && mail().contains("this message tests a target"), "{}", mail());
    fs::create_dir_all(test.home.join("upgrade")).unwrap();
    let failed = r#"{"version": "0.9.0", "at": "2026-01-01T00:00:00Z", "reason": "the smoke test failed"}"#;
    fs::write(test.home.join("upgrade/failed.json"), failed).unwrap();
    wait_until("the upgrade", SOON, || mail().contains("0.9.0: the smoke test failed"));
    test.add_dag("slow", "import time\nfrom airflow.sdk import DAG, task\nwith DAG('slow'):\n    @task\n    def t(): time.sleep(60)\n    t()\n");
    let run_id = test.trigger("slow");
    wait_until("the late run", SOON, || mail().contains("slow is late"));
    test.run(&["runs", "cancel", "slow", &run_id]).expect(0);
    let count = mail().matches("slow is late").count();
    std::thread::sleep(Duration::from_secs(1));
    // The subject and the text.
    assert_eq!((count, mail().matches("slow is late").count()), (2, 2));
}

/// A mail server that accepts everything; returns its port and the received messages.
fn mail_server() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, mails) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<String>>>::default());
    let log = Arc::clone(&mails);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut is_data, mut mail) = (false, String::new());
            let mut say = |line: &str| stream.write_all(format!("{line}\r\n").as_bytes()).is_ok();
            say("220 test");
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|length| length > 0) {
                let text = std::mem::take(&mut line);
                match text.trim_end() {
                    "." if is_data => {
                        is_data = false;
                        log.lock().unwrap().push(std::mem::take(&mut mail));
                        say("250 ok");
                    }
                    _ if is_data => mail += &text,
                    "DATA" => {
                        is_data = true;
                        say("354 go on");
                    }
                    "QUIT" => break,
                    _ => _ = say("250 test"),
                }
            }
        }
    });
    (port, mails)
}

#[test]
fn invalid_rules_and_targets_are_refused() {
    let test = started();
    assert!(test.run(&["notify", "test", "team"]).expect(1).stderr.contains("no target \"team\": there are none"));
    for (settings, reason) in [
        ("{rules: [{on: [run_failed], to: [team]}]}", "there is no target \"team\""),
        ("{targets: {t: {type: pager}}}", "unknown variant `pager`"),
        (
            "{targets: {t: {type: slack, url: 'http://x'}}, rules: [{on: [run_failed], to: [t], template: '{{ x'}]}",
            "template",
        ),
    ] {
        notify(&test, settings);
        let refused = test.run(&["verify-config"]).expect(1);
        assert!(refused.stderr.contains(reason) || refused.stdout.contains(reason), "{settings}: {refused:?}");
    }
    notify(&test, "{targets: {t: {type: webhook, url: 'http://127.0.0.1:1/secret-path'}}}");
    let refused = test.run(&["notify", "test", "t"]).expect(1);
    assert!(refused.stderr.contains("not sent to t") && !refused.stderr.contains("secret-path"), "{refused:?}");
    assert_eq!(test.state(), "healthy");
}
