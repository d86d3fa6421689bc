//! The doctor on PostgreSQL: its programs, the server that runs, and the data.

use super::check::Check;
use crate::home::Home;
use crate::postgres::acquire::Sources;
use crate::postgres::cluster::{self, ClusterState};
use crate::postgres::credentials::Credentials;
use crate::postgres::place::{self, Kind};
use crate::postgres::{Installation, NEWEST, install, version};
use crate::protocol::control;
use crate::protocol::status::InstanceState;

/// The programs in the home. `server` is what the running one says of itself.
pub fn programs(home: &Home, sources: &Sources, server: Option<&str>) -> Check {
    // A server elsewhere is the datastore's matter.
    let running = server.filter(|_| place::kind(home) == Kind::Managed);
    match install::installed(home) {
        Some(found) => in_use(&found, running),
        None => not_there(sources),
    }
}

fn in_use(found: &Installation, running: Option<&str>) -> Check {
    let shown = format!("{} ({})", found.version, found.source);
    if version::is_behind(&found.version) {
        return behind("postgres", &shown, "leoflow setup, then leoflow lite restart");
    }
    match running.filter(|running| version::numbers(running) < version::numbers(&found.version)) {
        Some(running) => {
            let detail = format!("{running} is running, and {} is installed", found.version);
            Check::warning("postgres", detail, "leoflow lite restart")
        }
        None => Check::ok("postgres", shown),
    }
}

fn behind(name: &'static str, shown: &str, remedy: &str) -> Check {
    Check::warning(name, format!("{shown} lacks the fixes of PostgreSQL {NEWEST}, among them of security"), remedy)
}

fn not_there(sources: &Sources) -> Check {
    match sources.plan() {
        Ok(plan) => {
            let places: Vec<String> = plan.iter().map(ToString::to_string).collect();
            Check::warning(
                "postgres",
                format!("not there yet; will be looked for in: {}", places.join(", ")),
                "leoflow setup",
            )
        }
        Err(error) => Check::problem("postgres", error.to_string(), "unset LEOFLOW_POSTGRES_SOURCE"),
    }
}

pub const RESTORE: &str =
    "leoflow lite backups list, then leoflow lite restore --input FILE --force, which keeps what is there";

/// `server` is what it says of itself, where it was asked.
pub fn datastore(home: &Home, server: Option<&str>) -> Check {
    let data = home.postgres_data();
    match place::recorded(home) {
        Ok(None) => {}
        Ok(Some(place)) => {
            return match place::external(home) {
                Ok(_) => match server.filter(|server| version::is_behind(server)) {
                    Some(server) => {
                        behind("datastore", &format!("{}: {server}", place.shown), update_elsewhere(place.kind))
                    }
                    None => Check::ok("datastore", place.shown),
                },
                Err(error) => {
                    Check::problem("datastore", error.to_string(), "put back what config.yaml said of the datastore")
                }
            };
        }
        Err(error) => {
            return Check::problem("datastore", error.to_string(), "put datastore.json back from a copy of the home");
        }
    }
    match cluster::state(home) {
        _ if home.set_aside_note().exists() => Check::problem(
            "datastore",
            "a restore was interrupted or is under way, and has set aside what was here",
            "leoflow lite start, which puts it back",
        ),
        ClusterState::Absent => Check::warning("datastore", "not created yet", "leoflow setup"),
        ClusterState::Ready if !matches!(Credentials::load(home), Ok(Some(_))) => {
            let detail = "managed-postgres/credentials.json is gone or cannot be read: the way into the datastore";
            Check::problem("datastore", detail, format!("put it back from a copy of the home; or {RESTORE}"))
        }
        ClusterState::Ready => match control::status_of(home).filter(|status| status.state == InstanceState::Damaged) {
            None => Check::ok("datastore", data.display().to_string()),
            Some(status) => Check::problem("datastore", status.reason.unwrap_or_default(), RESTORE),
        },
        ClusterState::OtherMajor(major) => {
            Check::problem("datastore", format!("is of PostgreSQL {major}"), "run the leoflow release that made it")
        }
        ClusterState::NotACluster(why) => Check::problem("datastore", format!("{}: {why}", data.display()), RESTORE),
    }
}

fn update_elsewhere(kind: Kind) -> &'static str {
    match kind {
        Kind::Docker => {
            "leoflow lite move-datastore --to managed, then leoflow lite move-datastore --to docker, which makes a new container"
        }
        Kind::Managed | Kind::External => "update that server to its newest minor version; the data stays as it is",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::Verdict;

    #[test]
    fn a_minor_version_that_has_fallen_behind_is_a_warning() {
        let build = |version: &str| Installation {
            version: version.to_owned(),
            bin: "/b".into(),
            source: "wheel".to_owned(),
            sha256: None,
        };
        let old = in_use(&build("18.4"), Some("18.4"));
        assert_eq!(old.verdict, Verdict::Warning);
        assert!(old.detail.contains("18.4 (wheel)") && old.detail.contains(NEWEST), "{}", old.detail);
        assert!(old.remedy.unwrap().starts_with("leoflow setup"));
        assert_eq!(in_use(&build(NEWEST), None).verdict, Verdict::Ok);
        assert_eq!(in_use(&build(NEWEST), Some(NEWEST)).verdict, Verdict::Ok);
        // Updated, and not yet restarted.
        let waiting = in_use(&build(NEWEST), Some("18.4 (Debian 18.4-1.pgdg13+1)"));
        assert_eq!((waiting.verdict, waiting.remedy.as_deref()), (Verdict::Warning, Some("leoflow lite restart")));
    }
}
