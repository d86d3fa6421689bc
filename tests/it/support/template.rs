//! A template home that is set up and migrated, created once per test run and program by the first test that needs it;
//! other homes start as copies of it. Large programs are hard links, because they never change.

use super::releases::is_release;
use super::{LEOFLOW, SHARED_MEMORY, TestHome, quick_bin};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

struct Template {
    home: PathBuf,
    workspace: PathBuf,
    password: String,
}

/// Prefix of the folder in `/dev/shm` that contains the templates of a test run.
const TEMPLATE_PREFIX: &str = "leoflow-template-";

/// Templates by the fingerprint of their program, because release lists share programs as hard links with other paths.
static TEMPLATES: Mutex<BTreeMap<String, Option<&'static Template>>> = Mutex::new(BTreeMap::new());

/// Returns the template of homes that `program` sets up; `None` if it cannot be created.
fn template(program: &Path) -> Option<&'static Template> {
    let name = super::run::fingerprint(program);
    let mut templates = TEMPLATES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let create = || create(program, &name).map(|template| &*Box::leak(Box::new(template)));
    *templates.entry(name.clone()).or_insert_with(create)
}

fn create(program: &Path, name: &str) -> Option<Template> {
    let run = Path::new(SHARED_MEMORY).join(format!("{TEMPLATE_PREFIX}{}", super::run::id()));
    let folder = run.join(name);
    let _lock = super::cache_lock("lock-template");
    let (home, workspace, password) = (folder.join("home"), folder.join("workspace"), folder.join("password"));
    if let Ok(password) = fs::read_to_string(&password) {
        return Some(Template { home, workspace, password });
    }
    if !run.exists() {
        super::run::remove_stale(Path::new(SHARED_MEMORY), TEMPLATE_PREFIX);
        fs::create_dir(&run).ok()?;
        super::run::remove_at_end(&run);
    }
    // A failed attempt may have left files.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).ok()?;
    let test = TestHome::with_program(program.to_owned());
    let setup = test.run(&["setup", "--json", "--port", &test.port.to_string()]);
    let admin_password = (setup.code == Some(0)).then(|| setup.json())?["admin_password"].as_str()?.to_owned();
    if test.run(&["migrate-db"]).code != Some(0) {
        return None;
    }
    copy(&test.home, &home);
    copy(&test.workspace(), &workspace);
    rewrite(&home, &[(text(&test.home), text(&home)), (text(&test.workspace()), text(&workspace))]);
    // These logs belong to no test. The folder stays, as in any home that was set up.
    for log in fs::read_dir(home.join("logs")).unwrap().flatten() {
        fs::remove_file(log.path()).unwrap();
    }
    // Modules are compiled after the copy, because the run changes the home's database.
    compile_modules(&test)?;
    copy(&test.home.join("python/compiled"), &home.join("python/compiled"));
    move_compiled(&test.home, &home);
    // The password is written last and atomically, because its file marks the template as complete.
    let partial = password.with_extension("partial");
    fs::write(&partial, &admin_password).ok()?;
    fs::rename(partial, password).ok()?;
    Some(Template { home, workspace, password: admin_password })
}

/// Runs the starter DAG, so that Python compiles the modules that every home uses. Compiling them takes half the time
/// of a short test.
fn compile_modules(test: &TestHome) -> Option<()> {
    test.run(&["lite", "start", "--port", &test.port.to_string()]).code.filter(|code| *code == 0)?;
    test.run_dag("hello");
    test.run(&["lite", "stop"]).code.filter(|code| *code == 0).map(drop)
}

/// Renames the cache folder of modules compiled from sources in `from`, after `from` was copied to `to`: the folder has
/// the path of the sources.
fn move_compiled(from: &Path, to: &Path) {
    let below = |home: &Path| to.join("python/compiled").join(home.strip_prefix("/").unwrap());
    fs::create_dir_all(below(to).parent().unwrap()).unwrap();
    fs::rename(below(from), below(to)).unwrap();
}

/// Copies the template's home and workspace to `test`. Returns the administrator's password; `None` if there is no
/// template, if the home or workspace exists, or if the home is not in memory or uses another program or PostgreSQL.
pub fn copy_template(test: &TestHome) -> Option<String> {
    if test.workspace().exists() {
        return None;
    }
    let password = copy_template_home(test)?;
    copy(&template(&test.program)?.workspace, &test.workspace());
    Some(password)
}

/// Copies the template's home without a workspace, see [`copy_template`].
pub fn copy_template_home(test: &TestHome) -> Option<String> {
    let is_ordinary = (test.program == Path::new(LEOFLOW) || is_release(&test.program))
        && test.home.starts_with(SHARED_MEMORY)
        && test.postgres == quick_bin().as_path();
    if !is_ordinary || test.home.exists() {
        return None;
    }
    let template = template(&test.program)?;
    copy(&template.home, &test.home);
    move_compiled(&template.home, &test.home);
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
                // Python compares a source's modification time with the one recorded in the compiled module.
                let times = fs::FileTimes::new().set_modified(meta.modified().unwrap());
                if let Ok(file) = fs::File::options().append(true).open(&target) {
                    file.set_times(times).unwrap();
                }
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
