//! Leoflow downloads a Python version that a project requires and the machine lacks, from the list of downloads that uv
//! is configured with.

use crate::support::index::Index;
use crate::support::mirror;
use crate::support::{TestHome, uv, wait_until};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// The Python downloads that the test's web server offers to uv.
#[derive(Clone, Default)]
struct Downloads(Arc<Mutex<Archives>>);

/// `(version, archive)`.
type Archives = Vec<(String, Vec<u8>)>;

impl Downloads {
    /// Offers a Python of this version: a script that runs the machine's own Python.
    fn add(&self, version: &str) {
        let minor = version.rsplit_once('.').unwrap().0;
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let python_script = python_script(version);
        let mut header = tar::Header::new_gnu();
        header.set_size(python_script.len() as u64);
        header.set_mode(0o755);
        archive.append_data(&mut header, format!("python/bin/python{minor}"), python_script.as_bytes()).unwrap();
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        archive.append_link(&mut link, "python/bin/python3", format!("python{minor}")).unwrap();
        let platform = format!("linux_{}-linux-gnu", std::env::consts::ARCH);
        let library = b"# system configuration generated and used by the sysconfig module\nbuild_time_vars = {}\n";
        let mut header = tar::Header::new_gnu();
        header.set_size(library.len() as u64);
        header.set_mode(0o644);
        let path = format!("python/lib/python{minor}/_sysconfigdata__{platform}.py");
        archive.append_data(&mut header, path, &library[..]).unwrap();
        let bytes = archive.into_inner().unwrap().finish().unwrap();
        self.0.lock().unwrap().push((version.to_owned(), bytes));
    }

    /// Serves the list and the archives; returns the URL of the list.
    fn serve(&self) -> String {
        let (downloads, address) = (self.clone(), Arc::new(Mutex::new(String::new())));
        let own_address = address.clone();
        let answer = move |path: &str| {
            let all = downloads.0.lock().unwrap();
            if let Some((_, bytes)) = all.iter().find(|(version, _)| path == format!("/{version}.tar.gz")) {
                return (200, bytes.clone());
            }
            let list: serde_json::Map<String, Value> = all
                .iter()
                .map(|(version, bytes)| download_entry(&own_address.lock().unwrap(), version, bytes))
                .collect();
            (200, Value::from(list).to_string().into_bytes())
        };
        let served = mirror::serve(Arc::new(answer), false);
        address.lock().unwrap().clone_from(&served);
        format!("{served}/downloads.json")
    }
}

fn download_entry(address: &str, version: &str, bytes: &[u8]) -> (String, Value) {
    let numbers: Vec<u32> = version.split('.').map(|part| part.parse().unwrap()).collect();
    let architecture = std::env::consts::ARCH;
    let entry = json!({
        "name": "cpython", "arch": {"family": architecture, "variant": null}, "os": "linux", "libc": "gnu",
        "major": numbers[0], "minor": numbers[1], "patch": numbers[2], "prerelease": "", "variant": null,
        "build": "20261101", "url": format!("{address}/{version}.tar.gz"), "sha256": hex::encode(Sha256::digest(bytes)),
    });
    (format!("cpython-{version}-linux-{architecture}-gnu"), entry)
}

/// A Python script that reports `version` to Leoflow's probe and otherwise runs the machine's own Python.
fn python_script(version: &str) -> String {
    let printed = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    let real = String::from_utf8(printed.stdout).unwrap();
    format!(
        "#!/bin/sh\ncase \" $* \" in *\" -S \"*) echo \"{version} $0\" ;; *) exec '{}' \"$@\" ;; esac\n",
        real.trim()
    )
}

/// Creates a folder with links to all programs of the system except Python.
fn link_programs_except_python(test: &TestHome) {
    let folder = test.folder().join("programs");
    std::fs::create_dir(&folder).unwrap();
    for entry in ["/usr/bin", "/bin"].iter().filter_map(|path| std::fs::read_dir(path).ok()).flatten().flatten() {
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with("python") {
            // `/bin` and `/usr/bin` are one folder on most systems.
            let _ = symlink(entry.path(), folder.join(name));
        }
    }
}

fn home_with_uv() -> TestHome {
    let test = TestHome::new();
    let folder = test.home.join("tools/uv/0.13.9");
    std::fs::create_dir_all(&folder).unwrap();
    symlink(uv(), folder.join("uv")).unwrap();
    link_programs_except_python(&test);
    test
}

/// Creates a home whose only Python reports version 3.97.0.
fn test_home() -> TestHome {
    let test = home_with_uv();
    let plain = test.folder().join("plain-python");
    std::fs::write(&plain, python_script("3.97.0")).unwrap();
    std::fs::set_permissions(&plain, std::fs::Permissions::from_mode(0o755)).unwrap();
    test.set_up();
    test.run(&["config", "set", "python", plain.to_str().unwrap()]).expect(0);
    test
}

fn command(test: &TestHome, downloads: &str, arguments: &[&str]) -> Command {
    let mut command = test.command(arguments);
    let own_path = command.get_envs().find_map(|(name, value)| (name == "PATH").then_some(value?)).unwrap().to_owned();
    let postgres = own_path.to_string_lossy().split(':').next().unwrap().to_owned();
    let path = format!("{postgres}:{}", test.folder().join("programs").display());
    command.env("PATH", path).env("UV_PYTHON_DOWNLOADS_JSON_URL", downloads).env("UV_HTTP_RETRIES", "0");
    command
}

fn project(test: &TestHome, index: &Index, python: &str) -> PathBuf {
    let folder = test.workspace().join("p");
    std::fs::create_dir_all(&folder).unwrap();
    let settings = format!("index: {}\npython_version: '{python}'\ndependencies: [paint]\n", index.address);
    std::fs::write(folder.join("leoflow.yaml"), settings).unwrap();
    let dag = "import paint\nfrom airflow.sdk import DAG, task\n@task\ndef t():\n    return paint.NAME\n\
               with DAG('p', description=paint.NAME):\n    t()\n";
    std::fs::write(folder.join("dag.py"), dag).unwrap();
    folder
}

fn managed_pythons(home: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(home.join("python/managed")).into_iter().flatten().flatten();
    let is_folder = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let mut names: Vec<String> =
        entries.filter(is_folder).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.starts_with("cpython"));
    names.sort();
    names
}

/// Returns the Python version of each environment, sorted.
fn environment_versions(test: &TestHome) -> Vec<String> {
    let folders = std::fs::read_dir(test.home.join("venvs")).into_iter().flatten().flatten();
    let stamp = |folder: std::fs::DirEntry| std::fs::read(folder.path().join(".leoflow-deps")).ok();
    let version = |text: Vec<u8>| serde_json::from_slice::<Value>(&text).ok()?["version"].as_str().map(str::to_owned);
    let mut all: Vec<String> = folders.filter_map(stamp).filter_map(version).collect();
    all.sort();
    all
}

#[test]
fn a_missing_python_is_downloaded_used_and_updated() {
    let (test, index, downloads) = (test_home(), Index::new(), Downloads::default());
    index.add("paint", "1.0", "NAME = 'red'\n", &[]);
    let address = downloads.serve();
    project(&test, &index, ">=3.98");
    let port = test.port.to_string();
    let started = command(&test, &address, &["lite", "start", "--port", &port]).output().unwrap();
    assert!(started.status.success(), "{started:?}");
    let error = || test.sql("SELECT stack_trace FROM import_error");
    wait_until("uv's error", LIMIT, || error().contains("No download found"));
    assert!(
        error().contains("Python >=3.98 is required, but this machine has none: 3.97.0 does not match"),
        "{}",
        error()
    );
    downloads.add("3.98.1");
    // The command that retries the failed download.
    test.run(&["env", "update"]).expect(0);
    test.wait_dag("p", 1);
    assert_eq!(test.run_dag("p")["state"], "success");
    assert_eq!(managed_pythons(&test.home).len(), 1, "{:?}", managed_pythons(&test.home));
    assert_eq!(environment_versions(&test), ["3.98.1"]);
    downloads.add("3.98.2");
    test.run(&["env", "update", "p"]).expect(0);
    assert_eq!(environment_versions(&test), ["3.98.1", "3.98.2"]);
    assert_eq!(test.run_dag("p")["state"], "success");
    test.run(&["uninstall", "--purge", "--yes"]).expect(0);
    assert!(!test.home.exists());
}

#[test]
fn validate_downloads_the_required_python_and_reports_it() {
    let (test, index, downloads) = (test_home(), Index::new(), Downloads::default());
    index.add("paint", "1.0", "NAME = 'red'\n", &[]);
    downloads.add("3.98.1");
    downloads.add("3.98.2");
    let address = downloads.serve();
    let folder = project(&test, &index, "3.98");
    let refused = command(&test, &address, &["validate"]).arg(&folder).env("UV_PYTHON_DOWNLOADS", "never").output();
    let refused = refused.unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let stdout = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(stdout.contains("Python 3.98 is required") && stdout.contains("Python downloads are"), "{stdout}");
    assert_eq!(managed_pythons(&test.home), [""; 0]);
    let done = command(&test, &address, &["validate"]).arg(&folder).output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{stderr}{}", String::from_utf8_lossy(&done.stdout));
    assert!(stderr.contains("Installing Python 3.98"), "{stderr}");
    assert!(managed_pythons(&test.home)[0].starts_with("cpython-3.98.2"), "{:?}", managed_pythons(&test.home));
}

#[test]
fn a_machine_without_python_gets_one() {
    let (test, downloads) = (home_with_uv(), Downloads::default());
    let address = downloads.serve();
    let port = test.port.to_string();
    let set_up = command(&test, &address, &["setup", "--port", &port]).output().unwrap();
    let stdout = String::from_utf8_lossy(&set_up.stdout).into_owned();
    assert!(stdout.contains("no Python for your DAGs; Leoflow installs one when it starts"), "{stdout}");
    downloads.add("3.13.1");
    let started = command(&test, &address, &["lite", "start"]).output().unwrap();
    assert!(started.status.success(), "{started:?}");
    test.wait_dag("hello", 1);
    assert_eq!(test.run_dag("hello")["state"], "success");
}
