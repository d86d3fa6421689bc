//! The documentation as the program shows it: `leoflow docs`, and the pages at `/lite/docs/`.

use crate::support::http::{Session, try_request};
use crate::support::{LEOFLOW, TestHome, wait_until};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

fn docs(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(LEOFLOW);
    command.env_clear().env("HOME", "/nonexistent").args(["docs"]).args(arguments);
    command.envs(variables.iter().copied());
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_page_is_printed_without_a_browser() {
    let (code, text, _) = docs(&["run-offline"], &[]);
    assert!(code == 0 && text.starts_with("# "), "{text}");
    let (code, list, _) = docs(&["--list"], &[]);
    assert!(code == 0 && list.contains("how-to/run-offline"), "{list}");
    let (code, _, error) = docs(&["offline"], &[]);
    assert!(code == 2 && error.contains("how-to/run-offline"), "{error}");
    // No instance runs in this home, so there is no URL to open.
    let (code, text, _) = docs(&["run-offline"], &[("BROWSER", "true")]);
    assert!(code == 0 && text.starts_with("# "), "{text}");
}

#[test]
fn pages_of_the_running_instance_link_to_one_another() {
    let test = TestHome::new();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    let user = Session::login(test.port, &password);
    let (mut pending, mut seen) = (vec!["/lite/docs/".to_owned()], BTreeSet::new());
    while let Some(path) = pending.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let page = user.request("GET", &path, "");
        assert_eq!(page.status, 200, "{path}");
        let targets = page.body.split(['"']).filter(|part| part.starts_with("/lite/docs/"));
        pending.extend(targets.map(|target| target.split('#').next().unwrap_or_default().to_owned()));
    }
    // Every page is reached from the table of contents, and the pictures that pages show are served.
    let names =
        leoflow::BUILT.documentation.pages.iter().map(|page| page.name).filter(|name| *name != leoflow::docs::CONTENTS);
    let missing: Vec<&str> = names.filter(|name| !seen.contains(&format!("/lite/docs/{name}"))).collect();
    assert!(missing.is_empty(), "no page links to {missing:?}");
    let unknown = user.request("GET", "/lite/docs/no-such-page", "");
    assert!(unknown.status == 404 && unknown.body.contains("no-such-page"), "{}", unknown.body);
    let short = user.request("GET", "/lite/docs/run-offline", "");
    assert_eq!((short.status, short.header("location")), (303, Some("/lite/docs/how-to/run-offline")));
    let anonymous = try_request(test.port, "GET", "/lite/docs/", &[], "").unwrap();
    assert!(anonymous.status == 303 && anonymous.header("location").unwrap().starts_with("/auth/login"));

    // `leoflow docs` starts a browser with the URL of the page.
    let browser = test.folder().join("browser");
    let opened = test.folder().join("opened");
    fs::write(&browser, format!("#!/bin/sh\nprintf '%s' \"$1\" > '{}'\n", opened.display())).unwrap();
    fs::set_permissions(&browser, fs::Permissions::from_mode(0o700)).unwrap();
    let home = test.home.to_str().unwrap();
    let (code, text, note) = docs(&["run-offline", "--home", home], &[("BROWSER", browser.to_str().unwrap())]);
    assert_eq!((code, text.as_str()), (0, ""), "{note}");
    let url = format!("http://127.0.0.1:{}/lite/docs/how-to/run-offline", test.port);
    wait_until("the browser was started", Duration::from_secs(20), || opened.exists());
    assert_eq!(fs::read_to_string(&opened).unwrap(), url);
    // A browser that fails shows nothing, so the page is printed.
    let (code, text, _) = docs(&["run-offline", "--home", home], &[("BROWSER", "false")]);
    assert!(code == 0 && text.starts_with("# "), "{text}");
}
