//! Maps the errors of upgrades and rollbacks to messages with hints.

use super::Error;
use super::disk_hint::with_disk_hint_at;
use leoflow_base::sys::clock;
use leoflow_lifecycle::setup::{PackageOwner, ShellError};
use leoflow_lifecycle::upgrade::UpgradeError;
use leoflow_lifecycle::upgrade::host::HostError;
use leoflow_lifecycle::upgrade::plan::UpgradeRefusal;
use leoflow_lifecycle::upgrade::release::manifest::ManifestError;
use leoflow_lifecycle::upgrade::release::program::ProgramError;
use leoflow_lifecycle::upgrade::release::signature::SignatureError;
use leoflow_lifecycle::upgrade::release::source::FetchError;
use leoflow_lifecycle::upgrade::release::stage::StageError;
use leoflow_lifecycle::upgrade::rollback::rollback_plan::RollbackRefusal;
use leoflow_lifecycle::upgrade::rollback::target::RollbackTargetError;
use leoflow_lifecycle::upgrade::target_release::TargetError;
use leoflow_postgres::schema::SchemaError;

impl From<FetchError> for Error {
    fn from(error: FetchError) -> Self {
        let base = Self::failed(&error);
        match error {
            FetchError::Absent { ref location } if !location.contains("://") => {
                base.hint("is the folder right? leoflow upgrade --from FOLDER")
            }
            FetchError::Absent { .. } => base
                .hint("the host may be in the middle of an update: try again in a few minutes")
                .hint("is the address right? leoflow upgrade --from FOLDER_OR_URL"),
            FetchError::Page { .. } => {
                base.hint("does this network require a login? open the address in a browser").hint("nothing was changed")
            }
            FetchError::Status { status: 401 | 403, .. } => base
                .hint("the host requires a login: leoflow upgrade --from https://USER:PASSWORD@HOST/…")
                .hint("or permanently, in config.yaml (0600):  upgrade: {from: URL}"),
            FetchError::Status { status: 407, .. } => base.hint("the proxy requires a login: https_proxy=http://USER:PASSWORD@PROXY:PORT"),
            FetchError::Status { status: 429, .. } => base.hint("the host limits requests: try again in an hour"),
            FetchError::Status { .. } => base
                .hint("the host has a problem: try again in a few minutes, the download resumes")
                .hint("without the host: leoflow upgrade --from FOLDER"),
            FetchError::Certificate { .. } => base
                .hint(format!("is this machine's clock right? it says {}", clock::now_rfc3339()))
                .hint("does a proxy intercept TLS? add its certificate to the system's: SSL_CERT_FILE")
                .hint("without a network: leoflow upgrade --from FOLDER"),
            FetchError::Refused { ref location } => base
                .hint(format!("nothing answers at {location}; is the server running?"))
                .hint("without the host: leoflow upgrade --from FOLDER"),
            FetchError::Unreachable { .. } => base
                .hint("is there a network? rerun the same command, the download resumes")
                .hint("without a network: leoflow upgrade --from FOLDER"),
            FetchError::Different { is_short: true, .. } => base
                .hint("rerun the same command, the download resumes")
                .hint("or the host is in the middle of an update: try again in a few minutes"),
            FetchError::Unsigned { .. } | FetchError::TooLarge { .. } | FetchError::Different { .. } => {
                Self::refused(&base.message)
                    .hint("the host may be in the middle of an update: try again in a few minutes")
                    .hint("none of it was used; fetch it from the publisher's site")
            }
            FetchError::Write { ref path, ref source } => with_disk_hint_at(base, source, path),
            FetchError::Signature { source: SignatureError::NoKey, .. } => {
                Self::refused(&base.message).hint("install a release first: its install.sh is next to the manifest")
            }
            FetchError::Signature { .. } => {
                Self::refused(&base.message)
                    .hint("the host may be in the middle of an update: try again in a few minutes")
                    .hint("if that persists, ask the publisher whether the key has changed: then install the new release with its install.sh, which keeps your data")
                    .hint("none of it was used; otherwise do not install that release")
            }
            FetchError::Manifest { source: ManifestError::Newer(_), .. } => {
                base.hint("run the install.sh next to it: it upgrades this installation after a backup")
            }
            FetchError::Manifest { .. } => base.hint("nothing was changed; report this to the publisher of the releases"),
        }
    }
}

impl Error {
    /// The error of `leoflow upgrade plan`, whose hints repeat that command with another source.
    pub(crate) fn of_upgrade_plan(mut self) -> Self {
        for hint in &mut self.hints {
            *hint = hint.replace("leoflow upgrade --from", "leoflow upgrade plan --from");
        }
        self
    }
}

impl From<UpgradeRefusal> for Error {
    fn from(refusal: UpgradeRefusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            UpgradeRefusal::UpToDate(_) | UpgradeRefusal::Installed(_) => Self::failed(text).hint("nothing to do"),
            UpgradeRefusal::Ahead { ref newest, .. } => Self::failed(&text)
                .hint("nothing to do")
                .hint(format!("if it was withdrawn: leoflow rollback, or leoflow rollback --to {newest}")),
            UpgradeRefusal::StopGone { stop, .. } => Self::refused(text).hint(format!(
                "get it from a host or folder that has it: leoflow upgrade {stop} --from FOLDER_OR_URL"
            )),
            UpgradeRefusal::HandOver(plan) => Self::refused(text).hint(format!("leoflow upgrade {}", plan.to)),
            UpgradeRefusal::UnknownSpace => Self::refused(text).hint("check with: df -h, in the home"),
            UpgradeRefusal::UnknownComponent(_) => {
                Self::refused(text).hint("run the install.sh of that release: it upgrades this installation after a backup")
            }
            UpgradeRefusal::Older { to, .. } => {
                Self::refused(text).hint(format!("to roll back with your data: leoflow rollback --to {to}"))
            }
            UpgradeRefusal::Unknown(_) => Self::failed(text).hint("show the newest release of your channel: leoflow upgrade plan"),
            UpgradeRefusal::EmptyChannel(_) => Self::failed(text).hint("leoflow set-channel rc"),
            UpgradeRefusal::Platform(..) => Self::failed(text).hint("build it from source: cargo run --release -- lite"),
            UpgradeRefusal::Stop { stop, to } => {
                Self::refused(text).hint(format!("leoflow upgrade {stop}")).hint(format!("then: leoflow upgrade {to}"))
            }
            UpgradeRefusal::BelowFloor { floor, .. } => {
                Self::refused(text).hint(format!("upgrade to {floor} first: leoflow upgrade {floor}"))
            }
            UpgradeRefusal::NewerSchema { .. } => {
                Self::refused(text).hint("upgrade to the release that wrote it, or a later one")
            }
            UpgradeRefusal::OtherHistory { .. } | UpgradeRefusal::Damaged(_) => Self::refused(text).hint("leoflow migrate-db status"),
            UpgradeRefusal::SchemaChanged(_) => Self::refused(text)
                .hint("nothing was changed; a backup or a migration would fail: drop the objects named above (`leoflow lite psql`)"),
            UpgradeRefusal::Phase { .. } => {
                Self::refused(text).hint("nothing was changed; try an intermediate release")
            }
            UpgradeRefusal::Space { .. } => {
                Self::failed(text).hint("free some space, then rerun the same command; nothing was changed")
            }
            UpgradeRefusal::Unhealthy(_) => Self::refused(text)
                .hint("leoflow lite status")
                .hint("or stop it first, then upgrade: leoflow lite stop"),
            UpgradeRefusal::OtherMajor { .. } => Self::refused(text)
                .hint("nothing was changed; upgrade to a release with this datastore's PostgreSQL version: leoflow upgrade VERSION")
                .hint("or back up (leoflow lite backup) and restore into a new home of that release"),
            UpgradeRefusal::Manifest(_) => Self::failed(text).hint("nothing was changed; report this to the publisher of the releases"),
        }
    }
}

impl From<RollbackRefusal> for Error {
    fn from(refusal: RollbackRefusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            RollbackRefusal::Same(_) | RollbackRefusal::NotKept(_) => Self::failed(text).hint("leoflow versions"),
            RollbackRefusal::Overwritten { to, .. } => Self::failed(text)
                .hint(format!("put the program of {to} back there, then rerun the same command"))
                .hint("nothing was changed"),
            RollbackRefusal::Newer(version) => Self::failed(text).hint(format!("leoflow upgrade {version}")),
            RollbackRefusal::NoHistory(_) => {
                Self::failed(text).hint("leoflow versions").hint("leoflow rollback --to VERSION")
            }
            RollbackRefusal::Space { backups, .. } => Self::failed(text)
                .hint(format!(
                    "free some space; automatic backups take {} MB: leoflow lite backups list",
                    backups / 1_000_000
                ))
                .hint("nothing was changed"),
            RollbackRefusal::NoWay(_) => Self::refused(text)
                .hint("leoflow lite backups")
                .hint("leoflow lite restore --input FILE, with the version that made it"),
        }
    }
}

from_error! {
    error: RollbackTargetError;
    passed_on: Refused, Upgrade, Postgres, Schema;
    RollbackTargetError::NotAVersion { .. } => Self::usage(error).hint("leoflow versions"),
}

from_error! {
    error: ShellError;
    passed_on: Receipt;
    ShellError::Unquotable(_) => Self::failed(&error).hint("add it to the PATH by hand"),
}

/// Hint to the log of an upgrade.
pub(crate) const SEE_UPGRADE_LOG: &str = "see each step: leoflow lite logs upgrade";

from_error! {
    error: UpgradeError;
    passed_on: Journal, Fetch, Backup, Rehearsal, Postgres, Content, Schema, Receipt, Host;
    UpgradeError::Schema(SchemaError::Failed { .. }) => Self::failed(error)
        .hint("fix the cause, then rerun the same command; the migration was rolled back")
        .hint(SEE_UPGRADE_LOG),
    UpgradeError::Read { path, source } => Self::io("read", &path, &source),
    UpgradeError::Write { path, source } => Self::io("write", &path, &source),
    UpgradeError::Stage(StageError::Write { path, source }) => Self::io("write", &path, &source),
    UpgradeError::Program(ProgramError::Io { path, source }) => Self::io("prepare", &path, &source),
    UpgradeError::NoSnapshot(_) => Self::failed(error).hint("leoflow lite backups").hint("leoflow rollback"),
    UpgradeError::LongPause { expected, .. } => Self::failed(error)
        .hint(format!("allow it: leoflow config set upgrade.max_pause {:.0}m", (expected / 60.0).ceil() + 1.0))
        .hint("or stop it first: leoflow lite stop, then leoflow upgrade"),
    UpgradeError::Totals(_) => {
        Self::refused(error).hint("report this to the publisher of the release").hint(SEE_UPGRADE_LOG)
    }
    UpgradeError::NotAVersion { .. } => Self::bug(error),
    UpgradeError::Cancelled => Self::failed(error).hint("nothing was changed"),
    UpgradeError::Stage(_) | UpgradeError::Component { .. } | UpgradeError::Program(_) | UpgradeError::Smoke { .. } => {
        Self::failed(error).hint(SEE_UPGRADE_LOG)
    }
}

from_error! {
    error: TargetError;
    passed_on: Refused, Lock, Fetch, Upgrade;
    TargetError::Unparsable(_) => Self::usage(error).hint("leoflow upgrade stable").hint("leoflow upgrade 0.3.0"),
    TargetError::DevelopmentBuild => Self::refused(error)
        .hint("install a release over it, your data stays: sh DIR/install.sh")
        .hint("or build the newer source: git pull, then cargo run --release -- lite restart")
        .hint("leoflow docs upgrade-and-roll-back"),
    TargetError::NoHost => Self::failed(error)
        .hint("leoflow upgrade --from DIR_OR_URL")
        .hint("or set it permanently in config.yaml:  upgrade: {from: URL}"),
    TargetError::AlreadyInstalled => Self::refused(error).hint("leoflow upgrade"),
    TargetError::Owned { owner, .. } => {
        let error = Self::refused(error).hint(owner.upgrade_command());
        match owner {
            PackageOwner::Uvx => error,
            _ => error.hint("then, for the instance: leoflow upgrade"),
        }
    }
    TargetError::OlderProgram { ref program, .. } => {
        Self::refused(&error).hint(format!("{} upgrade", program.display()))
    }
    TargetError::Outdated => Self::refused(error)
        .hint("read the warnings: leoflow upgrade plan")
        .hint("if the host is as it should be: leoflow upgrade --yes --accept-old-manifest"),
    TargetError::HandedOver { .. } => {
        Self::failed(error).hint("nothing was changed; report this to the publisher of the releases")
    }
    TargetError::Run { program, source } => Self::io("run", &program, &source),
}

from_error! {
    error: HostError;
    passed_on: Private;
    HostError::InstanceStopped => Self::failed(error).hint("finish it with: leoflow lite start"),
    HostError::SupervisorExited(_) => Self::failed(error).hint("leoflow lite start"),
    HostError::NoAnswer(_) | HostError::Refused(_) | HostError::Program(_) => {
        Self::failed(error).hint("leoflow lite status").hint("leoflow upgrade --resume")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_development_build_names_ways_to_a_newer_one() {
        let error = Error::from(TargetError::DevelopmentBuild);
        assert!(error.message.starts_with("this is a development build: it has no key to verify releases"));
        assert!(error.hints.iter().all(|hint| !hint.contains("upgrade --from")), "{:?}", error.hints);
        assert!(error.hints[0].contains("sh DIR/install.sh") && error.hints[1].contains("lite restart"));
    }

    #[test]
    fn a_refused_connection_names_the_address() {
        let error = Error::from(FetchError::Refused { location: "http://127.0.0.1:9/manifest.json".to_owned() });
        assert_eq!(error.hints[0], "nothing answers at http://127.0.0.1:9/manifest.json; is the server running?");
        assert!(error.hints.iter().all(|hint| !hint.contains("resumes")), "{:?}", error.hints);
    }

    #[test]
    fn hints_of_a_plan_repeat_the_plan() {
        let error = Error::from(TargetError::NoHost).of_upgrade_plan();
        assert_eq!(error.hints[0], "leoflow upgrade plan --from DIR_OR_URL");
    }
}
