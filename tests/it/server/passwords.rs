//! A new admin password takes effect at once and ends all earlier sessions.

use crate::support::TestHome;
use crate::support::http::{self, Session};
use std::fs;

#[test]
fn a_new_password_ends_all_earlier_sessions_at_once() {
    let test = TestHome::new();
    let ready = test.start();
    let old = ready["admin_password"].as_str().unwrap().to_owned();
    let session = Session::login(test.port, &old);
    assert_eq!(session.request("GET", "/api/v2/dags", "").status, 200);
    let jwt_secret = || config_line(&test, "jwt_secret");
    let old_secret = jwt_secret();
    let done = test.run_with_input(&["lite", "reset-password", "--password-stdin"], "correct horse\n").expect(0);
    assert_ne!(jwt_secret(), old_secret, "tokens signed with the old secret are invalid");
    assert!(done.stderr.contains("All earlier sessions and tokens are invalid"), "{}", done.stderr);
    assert_eq!(session.request("GET", "/api/v2/dags", "").status, 401);
    assert_eq!(http::token(test.port, "admin@leoflow.local", &old).status, 401);
    let session = Session::login(test.port, "correct horse");
    assert_eq!(session.request("GET", "/api/v2/dags", "").status, 200);
    // Generates a password while the instance is stopped.
    test.run(&["lite", "stop"]).expect(0);
    let generated = test.run(&["lite", "reset-password", "--generate"]).expect(0);
    let started = test.start();
    assert!(started["admin_password"].is_null());
    assert_eq!(session.request("GET", "/api/v2/dags", "").status, 401);
    Session::login(test.port, generated.stdout.trim());
    // A secret in a file that config.yaml refers to is not changed.
    let file = test.folder().join("jwt");
    fs::write(&file, "ab".repeat(32)).unwrap();
    let config = test.home.join("config.yaml");
    let reference = format!("jwt_secret: file:{}", file.display());
    fs::write(&config, fs::read_to_string(&config).unwrap().replace(&jwt_secret(), &reference)).unwrap();
    let done = test.run(&["lite", "reset-password", "--generate"]).expect(0);
    assert!(done.stderr.contains("was not changed, because jwt_secret is kept in file:"), "{}", done.stderr);
    assert_eq!(jwt_secret(), reference);
}

fn config_line(test: &TestHome, key: &str) -> String {
    let text = fs::read_to_string(test.home.join("config.yaml")).unwrap();
    text.lines().find(|line| line.starts_with(key)).unwrap().to_owned()
}

#[test]
fn a_refused_password_keeps_the_old_one() {
    let test = TestHome::new();
    test.set_up();
    let before = fs::read(test.home.join("config.yaml")).unwrap();
    let short = test.run_with_input(&["lite", "reset-password", "--password-stdin"], "short\n").expect(1);
    assert!(short.stderr.contains("at least 8 characters"), "{}", short.stderr);
    test.run(&["lite", "reset-password"]).expect(2);
    test.run_with_input(&["lite", "reset-password", "--password-stdin"], "").expect(1);
    assert_eq!(fs::read(test.home.join("config.yaml")).unwrap(), before);
    TestHome::new().run(&["lite", "reset-password", "--generate"]).expect(1);
}

#[test]
fn a_hash_with_weaker_parameters_is_renewed_at_login() {
    use argon2::password_hash::PasswordHasher;
    let test = TestHome::new();
    test.set_up();
    let params = argon2::Params::new(8 * 1024, 1, 1, None).unwrap();
    let weak = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let weak = weak.hash_password_with_salt(b"an old password", &[7; 16]).unwrap().to_string();
    let config = test.home.join("config.yaml");
    let text = fs::read_to_string(&config).unwrap();
    let is_hash = |line: &&str| line.starts_with("admin_password_hash");
    let changed = text.replace(text.lines().find(is_hash).unwrap(), &format!("admin_password_hash: '{weak}'"));
    fs::write(&config, changed).unwrap();
    test.start();
    let session = Session::login(test.port, "an old password");
    let text = fs::read_to_string(&config).unwrap();
    assert!(!text.contains(&weak) && text.contains("m=19456"), "{text}");
    assert_eq!(session.request("GET", "/api/v2/dags", "").status, 200, "the session stays valid");
    Session::login(test.port, "an old password");
}

#[test]
fn a_login_racing_a_password_reset_leaves_no_valid_session() {
    let test = TestHome::new();
    let old = test.start()["admin_password"].as_str().unwrap().to_owned();
    for round in 0..4 {
        let current = if round == 0 { old.clone() } else { format!("password {round}") };
        let next = format!("password {}", round + 1);
        let is_reset = std::sync::atomic::AtomicBool::new(false);
        let (succeeded, first) = std::sync::mpsc::channel();
        // Logins repeat until the password is reset; the reset starts once a login has succeeded.
        let log_in = |succeeded: std::sync::mpsc::Sender<()>| {
            let mut sessions = Vec::new();
            while !is_reset.load(std::sync::atomic::Ordering::Relaxed) {
                let answer = http::token(test.port, "admin@leoflow.local", &current);
                if answer.status == 201 {
                    let token = answer.json()["access_token"].as_str().unwrap().to_owned();
                    sessions.push(Session { port: test.port, token });
                    let _ = succeeded.send(());
                }
            }
            sessions
        };
        let sessions: Vec<Session> = std::thread::scope(|scope| {
            let logins: Vec<_> = (0..2)
                .map(|_| {
                    let succeeded = succeeded.clone();
                    scope.spawn(|| log_in(succeeded))
                })
                .collect();
            first.recv_timeout(std::time::Duration::from_secs(60)).expect("a login");
            test.run_with_input(&["lite", "reset-password", "--password-stdin"], &format!("{next}\n")).expect(0);
            is_reset.store(true, std::sync::atomic::Ordering::Relaxed);
            logins.into_iter().flat_map(|login| login.join().unwrap()).collect()
        });
        for session in sessions {
            assert_eq!(session.request("GET", "/api/v2/dags", "").status, 401, "round {round}");
        }
    }
}

#[test]
fn a_reset_killed_after_the_write_keeps_the_new_password() {
    let test = TestHome::new();
    test.set_up();
    let mut command = test.command(&["lite", "reset-password", "--generate"]);
    let killed = command.env("LEOFLOW_KILL_AT", "password.written").output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.status), Some(9));
    test.run_with_input(&["lite", "reset-password", "--password-stdin"], "another one\n").expect(0);
    test.start();
    Session::login(test.port, "another one");
}

#[test]
fn a_reset_password_is_printed_even_if_setup_json_is_broken() {
    let test = TestHome::new();
    test.set_up();
    fs::write(test.home.join("setup.json"), "not json").unwrap();
    let done = test.run(&["lite", "reset-password", "--generate"]).expect(0);
    assert!(done.stdout.trim().len() > 15 && done.stderr.contains("is damaged"), "{done:?}");
    fs::remove_file(test.home.join("setup.json")).unwrap();
    test.start();
    Session::login(test.port, done.stdout.trim());
}
