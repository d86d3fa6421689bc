//! An external PostgreSQL server that the test owns, as an administrator would run it.

use super::{fast_folder, free_port, postgres_bin, quick_bin};
use leoflow::sys::process::user_namespace::Identity;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

pub struct External {
    folder: TempDir,
    pub port: u16,
    server: Option<Child>,
}

/// Options of `CREATE DATABASE` for the tests' databases, the same as the managed datastore's.
pub const DATABASE_OPTIONS: &str =
    "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'";

impl External {
    /// Starts a server with a role `ada` that owns the database `pipelines` and has no other privilege.
    pub fn started() -> Self {
        let folder = tempfile::Builder::new().prefix("leoflow-test-external-").tempdir_in(fast_folder()).unwrap();
        let mut external = Self { folder, port: free_port(), server: None };
        let password = external.folder.path().join("password");
        std::fs::write(&password, "admin\n").unwrap();
        let initdb = external
            .program(&quick_bin().join("initdb"))
            .arg("--pgdata")
            .arg(external.data())
            .arg("--pwfile")
            .arg(&password)
            .args(["--username", "postgres", "--auth", "scram-sha-256"])
            .args([
                "--encoding",
                "UTF8",
                "--locale",
                "C",
                "--locale-provider",
                "builtin",
                "--builtin-locale",
                "C.UTF-8",
            ])
            .args(["--data-checksums", "--sync-method", "syncfs", "--no-instructions", "--no-clean"])
            .output()
            .unwrap();
        assert!(initdb.status.success(), "{}", String::from_utf8_lossy(&initdb.stderr));
        external.start();
        external.sql("postgres", "CREATE ROLE ada LOGIN PASSWORD 'lovelace'");
        external.sql("postgres", &format!("CREATE DATABASE pipelines OWNER ada {DATABASE_OPTIONS}"));
        external
    }

    fn data(&self) -> PathBuf {
        let data = self.folder.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
        data
    }

    fn program(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("TMPDIR", self.folder.path()).stdin(Stdio::null());
        if let Some(single) = Identity::for_postgres().single_user() {
            single.apply(&mut command);
        }
        command
    }

    pub fn start(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let (port, sockets) = (format!("port={}", self.port), self.folder.path().display().to_string());
        let data = self.data();
        let mut command = self.program(&postgres_bin().join("postgres"));
        command.arg("-D").arg(data).args(["-c", &port, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]);
        command.args(["-c", &format!("unix_socket_directories={sockets}"), "-c", "shared_buffers=16MB"]);
        let server = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.server = Some(server);
        super::wait_until("the external server answers", Duration::from_secs(60), || {
            self.try_sql("postgres", "SELECT 1").is_ok()
        });
    }

    pub fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let pid = nix::unistd::Pid::from_raw(server.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        server.wait().unwrap();
    }

    /// Returns the URL of a database for `ada`.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://ada:lovelace@127.0.0.1:{}/{database}", self.port)
    }

    fn try_sql(&self, database: &str, text: &str) -> Result<String, String> {
        let mut psql = Command::new(postgres_bin().join("psql"))
            .args([
                "-X",
                "-A",
                "-t",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                "127.0.0.1",
                "-U",
                "postgres",
                "-d",
                database,
            ])
            .args(["-p", &self.port.to_string(), "-f", "-"])
            .env("PGPASSWORD", "admin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A psql that cannot connect exits without reading its input.
        let _ = psql.stdin.take().unwrap().write_all(text.as_bytes());
        let output = psql.wait_with_output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Runs SQL as the administrator; returns the rows.
    #[track_caller]
    pub fn sql(&self, database: &str, text: &str) -> String {
        self.try_sql(database, text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }
}

impl Drop for External {
    fn drop(&mut self) {
        self.stop();
    }
}
