//! A home that is set up and migrated, created once by the first test that needs one; other homes start as copies of
//! it. The program, which never changes, is shared by hard links.

use super::{LEOFLOW, TestHome, processes, quick_bin};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

struct Template {
    home: PathBuf,
    workspace: PathBuf,
    password: String,
}

/// Prefix of the template's folder in `/dev/shm`, one for each test process.
const TEMPLATE_PREFIX: &str = "leoflow-template-";

static TEMPLATE: LazyLock<Option<Template>> = LazyLock::new(|| {
    // nextest runs each test in its own process, so each test would create a template.
    if std::env::var_os("NEXTEST").is_some() || std::env::var_os("LEOFLOW_TEST_ON_DISK").is_some() {
        return None;
    }
    remove_stale_templates();
    let folder = Path::new("/dev/shm").join(format!("{TEMPLATE_PREFIX}{}", std::process::id()));
    fs::create_dir(&folder).ok()?;
    remove_at_exit(&folder);
    let test = TestHome::new();
    let setup = test.run(&["setup", "--json", "--port", &test.port.to_string()]);
    let password = (setup.code == Some(0)).then(|| setup.json())?["admin_password"].as_str()?.to_owned();
    if test.run(&["migrate-db"]).code != Some(0) {
        return None;
    }
    let (home, workspace) = (folder.join("home"), folder.join("workspace"));
    copy(&test.home, &home);
    copy(&test.workspace(), &workspace);
    rewrite(&home, &[(text(&test.home), text(&home)), (text(&test.workspace()), text(&workspace))]);
    // These logs belong to no test.
    let _ = fs::remove_dir_all(home.join("logs"));
    Some(Template { home, workspace, password })
});

/// Copies the template's home and workspace to `test`. Returns the administrator's password; `None` if there is no
/// template, or if the test starts with other files, programs or disks.
pub fn copy_template(test: &TestHome) -> Option<String> {
    let is_ordinary =
        test.program == Path::new(LEOFLOW) && test.memory.is_some() && test.postgres == quick_bin().as_path();
    if !is_ordinary || test.home.exists() || test.workspace().exists() {
        return None;
    }
    let template = TEMPLATE.as_ref()?;
    copy(&template.home, &test.home);
    copy(&template.workspace, &test.workspace());
    let config = fs::read_to_string(test.home.join("config.yaml")).unwrap();
    let port = config.lines().find(|line| line.starts_with("port: ")).unwrap().to_owned();
    rewrite(
        &test.home,
        &[
            (text(&template.home), text(&test.home)),
            (text(&template.workspace), text(&test.workspace())),
            (port, format!("port: {}", test.port)),
        ],
    );
    for name in ["jwt_secret", "encryption_key"] {
        renew_secret(&test.home.join("config.yaml"), name);
    }
    Some(template.password.clone())
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Copies a folder: large programs by hard links, everything else byte by byte.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, target, kind) = (entry.path(), to.join(entry.file_name()), entry.file_type().unwrap());
        if kind.is_dir() {
            copy(&path, &target);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&path).unwrap(), &target).unwrap();
        } else if kind.is_file() {
            let meta = entry.metadata().unwrap();
            let is_program = meta.permissions().mode() & 0o111 != 0 && meta.size() > 1024 * 1024;
            if !is_program || fs::hard_link(&path, &target).is_err() {
                fs::copy(&path, &target).unwrap();
            }
        }
    }
}

/// Replaces texts in the two files that contain the paths of home and workspace, and the port.
fn rewrite(home: &Path, changes: &[(String, String)]) {
    for name in ["config.yaml", "setup.json"] {
        let path = home.join(name);
        let mut text = fs::read_to_string(&path).unwrap();
        for (old, new) in changes {
            text = text.replace(old, new);
        }
        fs::write(&path, text).unwrap();
    }
}

fn renew_secret(config: &Path, name: &str) {
    let mut bytes = [0; 32];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom").unwrap(), &mut bytes).unwrap();
    let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = fs::read_to_string(config).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name}: "))).unwrap().to_owned();
    fs::write(config, text.replace(&line, &format!("{name}: '{secret}'"))).unwrap();
}

/// Removes the templates of ended test processes.
fn remove_stale_templates() {
    for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(TEMPLATE_PREFIX).and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid| !processes::is_alive(pid)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Removes the folder when this process ends. Statics are never dropped, so a child waits for the end of a pipe.
fn remove_at_exit(folder: &Path) {
    let script = "cat >/dev/null; rm -rf \"$0\"";
    let mut cleaner = Command::new("setsid");
    cleaner.args(["sh", "-c", script]).arg(folder).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // Leaks the write end, which the kernel closes when this process ends.
    std::mem::forget(cleaner.spawn().unwrap().stdin.take());
}
