//! Checks PostgreSQL: its programs, the running server, and the data.

use crate::setup::check::{Finding, ok, problem, warning};
use leoflow_base::home::Home;
use leoflow_base::protocol::status::{InstanceState, InstanceStatus};
use leoflow_postgres::acquire::Sources;
use leoflow_postgres::cluster::{self, ClusterState};
use leoflow_postgres::credentials::Credentials;
use leoflow_postgres::install::{self, version};
use leoflow_postgres::location::{self, Kind};
use leoflow_postgres::{Installation, NEWEST};

/// Checks the programs in the home. `server` is the version of the running server.
pub fn programs(home: &Home, sources: &Sources, server: Option<&str>) -> Finding {
    // `datastore` checks the version of an external server.
    let running = server.filter(|_| location::kind(home) == Kind::Managed);
    match install::installed(home) {
        Some(installation) => check_installed(&installation, running),
        None => not_installed(sources),
    }
}

fn check_installed(installation: &Installation, running: Option<&str>) -> Finding {
    let description = format!("{} ({})", installation.version, installation.source);
    if version::is_behind(&installation.version) {
        return outdated(&description, "leoflow setup, then leoflow lite restart");
    }
    match running.filter(|running| version::numbers(running) < version::numbers(&installation.version)) {
        Some(running) => {
            let detail = format!("{running} is running, but {} is installed", installation.version);
            warning(detail, "leoflow lite restart")
        }
        None => ok(description),
    }
}

fn outdated(description: &str, remedy: &str) -> Finding {
    warning(format!("{description} lacks fixes of PostgreSQL {NEWEST}, including security fixes"), remedy)
}

fn not_installed(sources: &Sources) -> Finding {
    match sources.plan() {
        Ok(plan) => {
            let sources: Vec<String> = plan.iter().map(ToString::to_string).collect();
            warning(format!("not installed yet; sources: {}", sources.join(", ")), "leoflow setup")
        }
        Err(error) => problem(error.to_string(), "unset LEOFLOW_POSTGRES_SOURCE"),
    }
}

/// Remedy for lost data.
pub const RESTORE: &str =
    "leoflow lite backups list, then leoflow lite restore --input FILE --force, which keeps the current data";

/// Checks the datastore. `server` is the version reported by the server, if it was reached.
pub fn datastore(home: &Home, server: Option<&str>, status: Option<&InstanceStatus>) -> Finding {
    let data = home.postgres_data();
    match location::recorded(home) {
        Ok(None) => {}
        Ok(Some(location)) => {
            return match location::external(home) {
                Ok(_) => match server.filter(|server| version::is_behind(server)) {
                    Some(server) => {
                        outdated(&format!("{}: {server}", location.display_text), update_remedy(location.kind))
                    }
                    None => ok(location.display_text),
                },
                Err(error) => problem(error.to_string(), "put the previous `datastore` setting back into config.yaml"),
            };
        }
        Err(error) => {
            return problem(error.to_string(), "restore datastore.json from a copy of the home");
        }
    }
    match cluster::state(home) {
        _ if home.quarantine_note().exists() => problem(
            "a restore is in progress or was interrupted; the previous data is set aside",
            "leoflow lite start puts it back",
        ),
        ClusterState::Absent => warning("not created yet", "leoflow setup"),
        ClusterState::Ready if !matches!(Credentials::load(home), Ok(Some(_))) => {
            let detail = "managed-postgres/credentials.json, which opens the datastore, is missing or unreadable";
            problem(detail, format!("restore it from a copy of the home; or {RESTORE}"))
        }
        ClusterState::Ready => match status.filter(|status| status.state == InstanceState::Damaged) {
            None => ok(data.display().to_string()),
            Some(status) => problem(status.reason.clone().unwrap_or_default(), RESTORE),
        },
        ClusterState::OtherMajor(major) => {
            problem(format!("belongs to PostgreSQL {major}"), "run the leoflow release that created it")
        }
        ClusterState::NotACluster(why) => problem(format!("{}: {why}", data.display()), RESTORE),
    }
}

fn update_remedy(kind: Kind) -> &'static str {
    match kind {
        Kind::Docker => {
            "leoflow lite move-datastore --to managed, then leoflow lite move-datastore --to docker, which makes a new container"
        }
        Kind::Managed | Kind::External => "update that server to the newest minor version; the data stays unchanged",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::Verdict;

    #[test]
    fn an_outdated_minor_version_is_a_warning() {
        let build = |version: &str| Installation {
            version: version.to_owned(),
            bin: "/b".into(),
            source: "wheel".to_owned(),
            sha256: None,
            installed_at: String::new(),
        };
        let old = check_installed(&build("18.4"), Some("18.4"));
        assert_eq!(old.verdict, Verdict::Warning);
        assert!(old.detail.contains("18.4 (wheel)") && old.detail.contains(NEWEST), "{}", old.detail);
        assert!(old.remedy.unwrap().starts_with("leoflow setup"));
        assert_eq!(check_installed(&build(NEWEST), None).verdict, Verdict::Ok);
        assert_eq!(check_installed(&build(NEWEST), Some(NEWEST)).verdict, Verdict::Ok);
        // Updated but not yet restarted.
        let waiting = check_installed(&build(NEWEST), Some("18.4 (Debian 18.4-1.pgdg13+1)"));
        assert_eq!((waiting.verdict, waiting.remedy.as_deref()), (Verdict::Warning, Some("leoflow lite restart")));
    }
}
