//! Kills, freezes and disks that are full.

use crate::support::http::{self, Session};
use crate::support::mounts::{can_mount, in_own_mounts};
use crate::support::processes::{self, is_alive, signal};
use crate::support::{TestHome, newest, wait_until};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[test]
fn the_whole_tree_killed_during_writes_keeps_every_acknowledged_one() {
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
        processes::end_all(test.folder());
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().unwrap();
        }
        test.start();
        let kept = test.run(&["variables", "export", "-"]).expect(0).json();
        for key in acknowledged.lock().unwrap().iter() {
            assert_eq!(kept[key], key.as_str(), "acknowledged and lost");
        }
    }
}

#[test]
fn the_supervisor_killed_alone_the_children_leave_by_themselves() {
    let test = TestHome::started();
    let pids = ["postgres", "server", "agent"].map(|name| test.pid(name));
    signal(test.pid("supervisor"), "KILL");
    wait_until("the children have left", Duration::from_secs(10), || pids.iter().all(|pid| !is_alive(*pid)));
    assert_eq!(test.state(), "stopped");
    test.start();
}

/// Pid of a backend that runs a query for ever.
fn busy_backend(test: &TestHome) -> (std::process::Child, i32) {
    let sql = "SELECT count(*) FROM generate_series(1, 1000000000000)";
    let psql = test
        .command(&["lite", "psql", "--", "-X", "-c", sql])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let find = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT count(*) FROM generate_series%'";
    let mut pid = String::new();
    wait_until("the query runs", Duration::from_secs(10), || {
        pid = test.sql(find);
        !pid.is_empty()
    });
    (psql, pid.parse().unwrap())
}

#[test]
fn a_busy_backend_without_its_postmaster_does_not_block_the_next_start() {
    let test = TestHome::started();
    for frozen in [false, true] {
        let (mut psql, backend) = busy_backend(&test);
        let (postmaster, supervisor) = (test.pid("postgres"), test.pid("supervisor"));
        if frozen {
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
fn each_process_killed_is_back_and_the_rest_goes_on() {
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
        wait_until("serving", Duration::from_secs(10), || http::get(test.port, "/api/healthz").status == 200);
    }
    let restarts: Vec<i64> =
        test.status()["processes"].as_array().unwrap().iter().map(|p| p["restarts"].as_i64().unwrap()).collect();
    assert_eq!(restarts, [0, 1, 1, 1]);
}

#[test]
fn while_postgres_is_away_health_says_so_and_requests_get_a_clear_503() {
    let test = TestHome::new();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    let session = Session::login(test.port, &password);
    signal(test.pid("postgres"), "STOP");
    // Connections that exist go on; a frozen postmaster takes no new ones.
    for backend in processes::mentioning(&test.home.join("managed-postgres/data")) {
        signal(backend, "STOP");
    }
    let health = http::get(test.port, "/api/healthz");
    assert_eq!((health.status, health.json()["ok"].clone()), (503, false.into()));
    assert!(health.json()["reason"].as_str().unwrap().contains("datastore"));
    let refused = session.request("GET", "/api/v2/variables", "");
    assert_eq!((refused.status, refused.json()["detail"].as_str()), (503, Some("The datastore is not available")));
    for backend in processes::mentioning(&test.home.join("managed-postgres/data")) {
        signal(backend, "CONT");
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
fn frozen_children_do_not_keep_a_stop_from_ending() {
    let test = TestHome::started();
    for name in ["server", "postgres"] {
        signal(test.pid(name), "STOP");
    }
    test.run(&["lite", "stop"]).expect(0);
    test.assert_nothing_runs();
    test.start();
}

#[test]
fn a_frozen_supervisor_is_nobody_elses_fault_once_it_goes_on() {
    let test = TestHome::started_with(&[("LEOFLOW_SILENCE_LIMIT", "5")]);
    let (supervisor, server) = (test.pid("supervisor"), test.pid("server"));
    signal(supervisor, "STOP");
    // Longer than a child may say nothing.
    std::thread::sleep(Duration::from_secs(8));
    // A busy machine's datastore may take longer to answer than who asks for health waits.
    wait_until("served all the while", Duration::from_secs(20), || http::get(test.port, "/api/healthz").status == 200);
    let status = test.status();
    assert!(status["reason"].as_str().unwrap().contains("does not answer"), "{status}");
    signal(supervisor, "CONT");
    wait_until("healthy again", Duration::from_secs(20), || test.state() == "healthy");
    assert_eq!(test.pid("server"), server);
}

#[test]
fn sockets_and_lock_removed_while_running_are_no_way_in() {
    let test = TestHome::started();
    for name in ["lite.lock", "control.sock", "api.sock", "notify.sock"] {
        std::fs::remove_file(test.home.join("run").join(name)).unwrap();
    }
    test.run(&["lite"]).expect(1);
    let socket = |name: &str| test.home.join("run").join(name).exists();
    wait_until("the sockets are back", Duration::from_secs(30), || {
        socket("control.sock") && socket("api.sock") && socket("notify.sock")
    });
    wait_until("serving there", Duration::from_secs(30), || test.run(&["variables", "list"]).code == Some(0));
    wait_until("healthy", Duration::from_secs(30), || test.state() == "healthy");
    assert_eq!(test.state(), "healthy");
    test.run(&["lite", "stop"]).expect(0);
    test.assert_nothing_runs();
}

#[test]
fn strangers_datagrams_change_nothing() {
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
fn a_leftover_that_still_has_the_port_is_ended_by_the_next_start() {
    let test = TestHome::new();
    test.set_up();
    let mut left = processes::leave_a_server_behind(&test.home, test.port);
    let reaper = std::thread::spawn(move || left.wait());
    test.start();
    assert!(!reaper.join().unwrap().unwrap().success());
}

#[test]
fn postgres_and_the_server_killed_together_are_both_back() {
    let test = TestHome::started();
    let (postgres, server) = (test.pid("postgres"), test.pid("server"));
    signal(postgres, "KILL");
    signal(server, "KILL");
    wait_until("both are back", Duration::from_secs(30), || {
        let back = |name: &str, old: i32| test.running_pid(name).is_some_and(|pid| pid != old);
        back("postgres", postgres) && back("server", server) && test.state() == "healthy"
    });
    assert_eq!(http::get(test.port, "/api/healthz").status, 200);
}

#[test]
fn a_full_disk_is_a_message_at_every_size_and_the_home_works_once_there_is_room() {
    if !can_mount() {
        return;
    }
    let binary_mib = std::fs::metadata(crate::support::LEOFLOW).unwrap().len() / 1_048_576;
    // The cluster takes 39 MiB: with less than that and the binary it ends somewhere in between.
    let sizes =
        ["64k".to_owned(), "2m".to_owned(), "20m".to_owned(), "36m".to_owned(), format!("{}m", binary_mib + 35)];
    for size in &sizes {
        let test = TestHome::new().with_real_initdb();
        std::fs::create_dir(&test.home).unwrap();
        // $1 is the home, the rest is the command. What it left is set up again with room.
        let script = "mount -t tmpfs -o size=SIZE tmpfs \"$1\" || exit 99; home=$1; shift; \"$@\"; code=$?; \
                      mount -o remount,size=400m \"$home\" || exit 98; \"$@\" >/dev/null || exit 97; exit $code";
        let done = in_own_mounts(&test, &script.replace("SIZE", size), &["setup"]);
        assert_eq!(done.code, Some(1), "{size}: {}{}", done.stdout, done.stderr);
        assert!(done.stderr.contains("hint:") && !done.stderr.contains("panic"), "{size}: {}", done.stderr);
    }
}

/// A disk that is full for a while: what it was full for is told, and when there is room all goes on by itself.
#[test]
fn a_disk_that_was_full_for_a_while_is_got_over_without_a_hand() {
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
    let done = in_own_mounts(&test, script, &["lite", "start", "--port", &test.port.to_string()]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("No space left on device. Free some space"), "{done:?}");
    assert!(!done.stdout.contains("failed"), "{done:?}");
}

#[test]
fn seven_ends_in_a_minute_are_recovered_from_and_a_start_does_not_wait() {
    let test = TestHome::started_with(&[("LEOFLOW_QUICK_BACKOFF", "0.5")]);
    for _ in 0..7 {
        // Its pauses grow, twenty-fold in the end.
        test.kill_and_wait("agent");
    }
    let old = test.pid("agent");
    signal(old, "KILL");
    wait_until("status says why", Duration::from_secs(10), || {
        let reason = test.status()["reason"].as_str().unwrap_or_default().to_owned();
        reason.contains("8 times in a row") && reason.contains("started again in")
    });
    assert_eq!(test.state(), "degraded");
    test.run(&["lite", "start"]).expect(0);
    assert_eq!(test.state(), "healthy");
    assert_ne!(test.pid("agent"), old);
}
