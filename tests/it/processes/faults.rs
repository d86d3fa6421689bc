//! Kills, freezes and full disks.

use crate::support::http::{self, Session};
use crate::support::mounts::{can_mount, run_in_mount_namespace};
use crate::support::processes::{self, is_alive, signal};
use crate::support::{TestHome, newest, wait_until};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[test]
fn acknowledged_writes_survive_when_all_processes_are_killed() {
    let test = TestHome::new();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    for round in 0..3 {
        let session = Arc::new(Session::login(test.port, &password));
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (session, acknowledged, stop) = (session.clone(), acknowledged.clone(), stop.clone());
                std::thread::spawn(move || {
                    for n in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let key = format!("k{round}-{writer}-{n}");
                        let body = serde_json::json!({"key": key, "value": key}).to_string();
                        if session.try_request("POST", "/api/v2/variables", &body).is_some_and(|r| r.status == 201) {
                            acknowledged.lock().unwrap().push(key);
                        }
                    }
                })
            })
            .collect();
        wait_until("some writes", Duration::from_secs(20), || acknowledged.lock().unwrap().len() > 50);
        processes::kill_all(test.folder());
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().unwrap();
        }
        test.start();
        let kept = test.run(&["variables", "export", "-"]).expect(0).json();
        for key in acknowledged.lock().unwrap().iter() {
            assert_eq!(kept[key], key.as_str(), "an acknowledged write is lost");
        }
    }
}

#[test]
fn children_exit_when_only_the_supervisor_is_killed() {
    let test = TestHome::started();
    let pids = ["postgres", "server", "agent"].map(|name| test.pid(name));
    signal(test.pid("supervisor"), "KILL");
    wait_until("the children have exited", Duration::from_secs(10), || pids.iter().all(|pid| !is_alive(*pid)));
    assert_eq!(test.state(), "stopped");
    test.start();
}

/// Starts a query that runs for hours; returns psql and the backend's pid.
fn busy_backend(test: &TestHome) -> (std::process::Child, i32) {
    let sql = "SELECT count(*) FROM generate_series(1, 1000000000000)";
    let psql = test
        .command(&["lite", "psql", "--", "-X", "-c", sql])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let find_backend = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT count(*) FROM generate_series%'";
    let mut pid = String::new();
    wait_until("the query runs", Duration::from_secs(10), || {
        pid = test.sql(find_backend);
        !pid.is_empty()
    });
    (psql, pid.parse().unwrap())
}

#[test]
fn a_busy_orphaned_backend_does_not_block_the_next_start() {
    let test = TestHome::started();
    for is_frozen in [false, true] {
        let (mut psql, backend) = busy_backend(&test);
        let (postmaster, supervisor) = (test.pid("postgres"), test.pid("supervisor"));
        if is_frozen {
            signal(backend, "STOP");
        }
        signal(supervisor, "KILL");
        signal(postmaster, "KILL");
        wait_until("both are dead", Duration::from_secs(5), || !is_alive(postmaster) && !is_alive(supervisor));
        test.start();
        assert!(!is_alive(backend));
        psql.kill().unwrap();
        psql.wait().unwrap();
    }
}

#[test]
fn each_killed_process_is_replaced_alone() {
    let test = TestHome::started();
    for name in ["postgres", "server", "agent"] {
        let others: Vec<(&str, i32)> = ["postgres", "server", "agent"]
            .into_iter()
            .filter(|other| *other != name)
            .map(|other| (other, test.pid(other)))
            .collect();
        let old = test.pid(name);
        signal(old, "KILL");
        wait_until(name, Duration::from_secs(20), || {
            test.state() == "healthy" && test.running_pid(name).is_some_and(|pid| pid != old)
        });
        for (other, pid) in others {
            assert_eq!(test.pid(other), pid, "{other} while {name} was killed");
        }
        wait_until("answering", Duration::from_secs(10), || http::get(test.port, "/api/healthz").status == 200);
    }
    let restarts: Vec<i64> =
        test.status()["processes"].as_array().unwrap().iter().map(|p| p["restarts"].as_i64().unwrap()).collect();
    assert_eq!(restarts, [0, 1, 1, 1]);
}

#[test]
fn a_frozen_postgres_makes_health_and_requests_return_503() {
    let test = TestHome::new();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    let session = Session::login(test.port, &password);
    signal(test.pid("postgres"), "STOP");
    // Freezes the backends too: a frozen postmaster only blocks new connections.
    let backends = || leoflow::sys::process::working_in(&test.home.join("managed-postgres/data"));
    for backend in backends() {
        signal(backend.pid, "STOP");
    }
    let health = http::get(test.port, "/api/healthz");
    assert_eq!((health.status, health.json()["ok"].clone()), (503, false.into()));
    assert!(health.json()["reason"].as_str().unwrap().contains("datastore"));
    let refused = session.request("GET", "/api/v2/variables", "");
    assert_eq!((refused.status, refused.json()["detail"].as_str()), (503, Some("The datastore is not available")));
    for backend in backends() {
        signal(backend.pid, "CONT");
    }
    wait_until("healthy again", Duration::from_secs(20), || http::get(test.port, "/api/healthz").status == 200);
    assert_eq!(session.request("GET", "/api/v2/variables", "").status, 200);
}

#[test]
fn a_frozen_server_is_replaced() {
    let test = TestHome::started_with(&[("LEOFLOW_SILENCE_LIMIT", "5")]);
    let frozen = test.pid("server");
    signal(frozen, "STOP");
    wait_until("a new server", Duration::from_secs(60), || test.running_pid("server").is_some_and(|pid| pid != frozen));
    assert!(!is_alive(frozen));
    assert_eq!(http::get(test.port, "/api/healthz").status, 200);
}

#[test]
fn frozen_children_do_not_block_a_stop() {
    let test = TestHome::started();
    for name in ["server", "postgres"] {
        signal(test.pid(name), "STOP");
    }
    test.run(&["lite", "stop"]).expect(0);
    test.assert_nothing_runs();
    test.start();
}

#[test]
fn a_continued_supervisor_does_not_replace_its_children() {
    let test = TestHome::started_with(&[("LEOFLOW_SILENCE_LIMIT", "5")]);
    let (supervisor, server) = (test.pid("supervisor"), test.pid("server"));
    signal(supervisor, "STOP");
    // Longer than LEOFLOW_SILENCE_LIMIT, after which a supervisor replaces a silent child.
    std::thread::sleep(Duration::from_secs(8));
    // On a busy machine the datastore may answer later than the health check's deadline.
    wait_until("requests are still served", Duration::from_secs(20), || {
        http::get(test.port, "/api/healthz").status == 200
    });
    let status = test.status();
    assert!(status["reason"].as_str().unwrap().contains("does not respond"), "{status}");
    let doctor = test.run(&["doctor"]).expect(1);
    assert!(doctor.stdout.contains(&format!("the supervisor, pid {supervisor}, does not respond")), "{doctor:?}");
    signal(supervisor, "CONT");
    wait_until("healthy again", Duration::from_secs(20), || test.state() == "healthy");
    assert_eq!(test.pid("server"), server);
}

#[test]
fn removed_sockets_return_and_a_removed_lock_stays_held() {
    let test = TestHome::started();
    for name in ["lite.lock", "control.sock", "api.sock", "notify.sock"] {
        std::fs::remove_file(test.home.join("run").join(name)).unwrap();
    }
    test.run(&["lite"]).expect(1);
    let socket = |name: &str| test.home.join("run").join(name).exists();
    wait_until("the sockets are back", Duration::from_secs(30), || {
        socket("control.sock") && socket("api.sock") && socket("notify.sock")
    });
    wait_until("the API socket serves requests", Duration::from_secs(30), || {
        test.run(&["variables", "list"]).code == Some(0)
    });
    wait_until("healthy", Duration::from_secs(30), || test.state() == "healthy");
    assert_eq!(test.state(), "healthy");
    test.run(&["lite", "stop"]).expect(0);
    test.assert_nothing_runs();
}

#[test]
fn foreign_notify_datagrams_are_ignored() {
    use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket};
    use std::io::IoSlice;
    use std::os::fd::AsRawFd;
    let test = TestHome::started();
    let target = UnixAddr::new(&test.home.join("run/notify.sock")).unwrap();
    let descriptor = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::empty(), None).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let descriptors = [file.as_raw_fd(); 20];
    for (text, attached) in [("READY=1", true), ("X_LEOFLOW_SCHEMA=9999\nSTOPPING=1\nWATCHDOG=1", false), ("", false)] {
        let control = [ControlMessage::ScmRights(&descriptors)];
        let control: &[ControlMessage] = if attached { &control } else { &[] };
        sendmsg(descriptor.as_raw_fd(), &[IoSlice::new(text.as_bytes())], control, MsgFlags::empty(), Some(&target))
            .unwrap();
    }
    std::thread::sleep(Duration::from_millis(200));
    let status = test.status();
    assert_eq!((status["state"].as_str(), status["schema_version"].as_i64()), (Some("healthy"), Some(newest())));
}

#[test]
fn a_stale_server_on_the_port_is_ended_by_the_next_start() {
    let test = TestHome::new();
    test.set_up();
    let mut stale_server = processes::leave_stale_server(&test.home, test.port);
    // Without a waiting parent the ended server would stay a zombie.
    let reaper = std::thread::spawn(move || stale_server.wait());
    test.start();
    assert!(!reaper.join().unwrap().unwrap().success());
}

#[test]
fn postgres_and_server_killed_together_are_both_replaced() {
    let test = TestHome::started();
    let (postgres, server) = (test.pid("postgres"), test.pid("server"));
    signal(postgres, "KILL");
    signal(server, "KILL");
    wait_until("both are replaced", Duration::from_secs(30), || {
        let is_replaced = |name: &str, old: i32| test.running_pid(name).is_some_and(|pid| pid != old);
        is_replaced("postgres", postgres) && is_replaced("server", server) && test.state() == "healthy"
    });
    assert_eq!(http::get(test.port, "/api/healthz").status, 200);
}

#[test]
fn setup_reports_a_full_disk_and_succeeds_once_there_is_space() {
    if !can_mount() {
        return;
    }
    let binary_mib = std::fs::metadata(crate::support::LEOFLOW).unwrap().len() / 1_048_576;
    // The cluster takes 39 MiB. With less space than that and the binary need, setup fails at various steps.
    let sizes =
        ["64k".to_owned(), "2m".to_owned(), "20m".to_owned(), "36m".to_owned(), format!("{}m", binary_mib + 35)];
    for size in &sizes {
        let test = TestHome::new().with_real_initdb();
        std::fs::create_dir(&test.home).unwrap();
        // $1 is the home, the rest is the command, which must succeed after the disk has grown. Without the device, a
        // remount repeats the disk's owner, who is unknown in the namespace of an ordinary user.
        let script = "mount -t tmpfs -o size=SIZE tmpfs \"$1\" || exit 99; home=$1; shift; \"$@\"; code=$?; \
                      mount -o remount,size=400m tmpfs \"$home\" || exit 98; \"$@\" >/dev/null || exit 97; exit $code";
        let done = run_in_mount_namespace(&test, &script.replace("SIZE", size), &["setup"]);
        assert_eq!(done.code, Some(1), "{size}: {}{}", done.stdout, done.stderr);
        assert!(done.stderr.contains("hint:") && !done.stderr.contains("panic"), "{size}: {}", done.stderr);
    }
}

#[test]
fn setup_names_a_lack_of_inodes() {
    if !can_mount() {
        return;
    }
    let test = TestHome::new().with_real_initdb();
    std::fs::create_dir(&test.home).unwrap();
    // A cluster has about a thousand files.
    let script = "mount -t tmpfs -o size=400m,nr_inodes=300 tmpfs \"$1\" || exit 99; shift; \"$@\"";
    let done = run_in_mount_namespace(&test, script, &["setup"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("no more files can be created on"), "{done:?}");
}

/// Fills the disk and kills PostgreSQL: the status reports the full disk, and Lite recovers once there is space.
#[test]
fn lite_recovers_by_itself_once_a_full_disk_has_space() {
    if !can_mount() {
        return;
    }
    let test = TestHome::new();
    std::fs::create_dir(&test.home).unwrap();
    let script =
        "mount -t tmpfs -o size=500m tmpfs \"$1\" || exit 99; home=$1; leoflow=$2; shift; \"$@\" >&2 || exit 98
        dd if=/dev/zero of=\"$home/run/filler\" bs=1M 2>/dev/null
        kill -9 $(head -n 1 \"$home/managed-postgres/data/postmaster.pid\")
        status() { \"$leoflow\" --home \"$home\" lite status; }
        for i in $(seq 100); do status | grep 'No space left' && break; sleep 0.2; done
        sleep 3; status
        rm \"$home/run/filler\"
        for i in $(seq 100); do status | grep -q '^healthy' && break; sleep 0.1; done
        status; code=$?; \"$leoflow\" --home \"$home\" lite stop >&2; exit $code";
    let done = run_in_mount_namespace(&test, script, &["lite", "start", "--port", &test.port.to_string()]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("No space left on device. Free some space"), "{done:?}");
    assert!(!done.stdout.contains("failed"), "{done:?}");
}

#[test]
fn repeated_agent_crashes_back_off_and_start_skips_the_wait() {
    let test = TestHome::started_with(&[("LEOFLOW_QUICK_BACKOFF", "60")]);
    for _ in 0..5 {
        // The restart backoff grows from 20 ms to 5 s with these exits; the next one is 20 s.
        test.kill_and_wait("agent");
    }
    let old = test.pid("agent");
    signal(old, "KILL");
    wait_until("the status shows the reason", Duration::from_secs(10), || {
        let reason = test.status()["reason"].as_str().unwrap_or_default().to_owned();
        reason.contains("6 times in a row") && reason.contains("restart in")
    });
    assert_eq!(test.state(), "degraded");
    test.run(&["lite", "start"]).expect(0);
    assert_eq!(test.state(), "healthy");
    assert_ne!(test.pid("agent"), old);
}
