//! Upgrades and rollbacks, in the user's words.

use super::{Error, with_disk_hint};
use crate::schema::SchemaError;
use crate::setup::ShellError;
use crate::sys::clock;
use crate::upgrade::UpgradeError;
use crate::upgrade::host::HostError;
use crate::upgrade::manifest::ManifestError;
use crate::upgrade::plan::Refusal;
use crate::upgrade::program::ProgramError;
use crate::upgrade::rollback_plan;
use crate::upgrade::signature::SignatureError;
use crate::upgrade::source::FetchError;
use crate::upgrade::stage::StageError;

impl From<FetchError> for Error {
    fn from(error: FetchError) -> Self {
        let base = Self::failed(&error);
        match error {
            FetchError::Absent { .. } => base
                .hint("the host may be in the middle of an update: try again in a few minutes")
                .hint("is it the right address? leoflow upgrade --from FOLDER_OR_URL"),
            FetchError::Page { .. } => {
                base.hint("does this network want a login? open the address in a browser").hint("nothing was changed")
            }
            FetchError::Status { status: 401 | 403, .. } => base
                .hint("the host wants a login: leoflow upgrade --from https://USER:PASSWORD@HOST/…")
                .hint("or once, in config.yaml (0600):  upgrade: {from: URL}"),
            FetchError::Status { status: 407, .. } => base.hint("the proxy wants a login: https_proxy=http://USER:PASSWORD@PROXY:PORT"),
            FetchError::Status { status: 429, .. } => base.hint("the host limits how often it is asked: try again in an hour"),
            FetchError::Status { .. } => base
                .hint("the host has a problem of its own: try again in a few minutes, it goes on where it was")
                .hint("without it: leoflow upgrade --from FOLDER"),
            FetchError::Unreachable { ref reason, .. } if reason.contains("certificate") => base
                .hint(format!("is this machine's clock right? it says {}", clock::now_rfc3339()))
                .hint("does a proxy look into TLS? its certificate has to be among the system's: SSL_CERT_FILE")
                .hint("without a network: leoflow upgrade --from FOLDER"),
            FetchError::Unreachable { .. } => base
                .hint("is there a network? run the same command again, it goes on where it was")
                .hint("without a network: leoflow upgrade --from FOLDER"),
            FetchError::Different { is_short: true, .. } => base
                .hint("run the same command again, it goes on where it was")
                .hint("or the host is in the middle of an update: try again in a few minutes"),
            FetchError::Unsigned { .. } | FetchError::TooLarge { .. } | FetchError::Different { .. } => {
                Self::refused(&base.message)
                    .hint("the host may be in the middle of an update: try again in a few minutes")
                    .hint("nothing of it was used; fetch it from where the releases are published")
            }
            FetchError::Write { ref source, .. } => with_disk_hint(base, Some(source)),
            FetchError::Signature { source: SignatureError::NoKey, .. } => {
                Self::refused(&base.message).hint("install a release first: its install.sh is beside the manifest")
            }
            FetchError::Signature { .. } => {
                Self::refused(&base.message)
                    .hint("the host may be in the middle of an update: try again in a few minutes")
                    .hint("if it stays so, ask the publishers whether their key has changed: a new release then comes by its install.sh, which keeps your data")
                    .hint("nothing of it was used; otherwise do not install what is there")
            }
            FetchError::Manifest { source: ManifestError::Newer(_), .. } => {
                base.hint("run the install.sh that is beside it: it upgrades what is here, with a backup")
            }
            FetchError::Manifest { .. } => base.hint("nothing was changed; tell whoever publishes the releases"),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::UpToDate(_) | Refusal::Installed(_) => Self::failed(text).hint("nothing has to be done"),
            Refusal::Ahead { ref newest, .. } => Self::failed(&text)
                .hint("nothing has to be done")
                .hint(format!("if it was withdrawn there: leoflow rollback, or leoflow rollback --to {newest}")),
            Refusal::StopGone { stop, .. } => Self::refused(text).hint(format!(
                "take it from a host or folder that has it: leoflow upgrade {stop} --from FOLDER_OR_URL"
            )),
            Refusal::UnknownSpace => Self::refused(text).hint("df -h, in the home"),
            Refusal::UnknownComponent(_) => {
                Self::refused(text).hint("run the install.sh of that release: it upgrades what is here, with a backup")
            }
            Refusal::Older { to, .. } => {
                Self::refused(text).hint(format!("to go back, with your data: leoflow rollback --to {to}"))
            }
            Refusal::Unknown(_) => Self::failed(text).hint("the newest of your channel: leoflow upgrade plan"),
            Refusal::EmptyChannel(_) => Self::failed(text).hint("leoflow set-channel rc"),
            Refusal::Platform(..) => Self::failed(text).hint("build it from source: cargo run --release -- lite"),
            Refusal::Stop { stop, to } => {
                Self::refused(text).hint(format!("leoflow upgrade {stop}")).hint(format!("then: leoflow upgrade {to}"))
            }
            Refusal::BelowFloor { floor, .. } => {
                Self::refused(text).hint(format!("upgrade to {floor} first: leoflow upgrade {floor}"))
            }
            Refusal::NewerSchema { .. } => {
                Self::refused(text).hint("upgrade to the release that made it, or a later one")
            }
            Refusal::OtherHistory { .. } | Refusal::Damaged(_) => Self::refused(text).hint("leoflow migrate-db status"),
            Refusal::Phase { .. } => {
                Self::refused(text).hint("nothing was changed; an intermediate release may take it")
            }
            Refusal::Space { .. } => {
                Self::failed(text).hint("free some space, then run the same command again; nothing was changed")
            }
            Refusal::Ailing(_) => Self::refused(text)
                .hint("leoflow lite status")
                .hint("or stop it, and upgrade what is stopped: leoflow lite stop"),
            Refusal::OtherMajor { .. } => Self::refused(text)
                .hint("nothing was changed; a release with the PostgreSQL of this datastore: leoflow upgrade VERSION")
                .hint("or move: leoflow lite backup, then restore it into a new home of that release"),
            Refusal::Manifest(_) => Self::failed(text).hint("nothing was changed; tell whoever publishes the releases"),
        }
    }
}

impl From<rollback_plan::Refusal> for Error {
    fn from(refusal: rollback_plan::Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            rollback_plan::Refusal::Same(_) | rollback_plan::Refusal::NotKept(_) => {
                Self::failed(text).hint("leoflow versions")
            }
            rollback_plan::Refusal::Newer(version) => Self::failed(text).hint(format!("leoflow upgrade {version}")),
            rollback_plan::Refusal::NoHistory(_) => {
                Self::failed(text).hint("leoflow versions").hint("leoflow rollback --to VERSION")
            }
            rollback_plan::Refusal::Space { backups, .. } => Self::failed(text)
                .hint(format!(
                    "free some space; automatic backups take {} MB: leoflow lite backups list",
                    backups / 1_000_000
                ))
                .hint("nothing was changed"),
            rollback_plan::Refusal::NoWay { .. } => Self::refused(text)
                .hint("leoflow lite backups")
                .hint("leoflow lite restore --input FILE, by the version that made it"),
        }
    }
}

impl From<ShellError> for Error {
    fn from(error: ShellError) -> Self {
        match error {
            ShellError::Unquotable(_) => Self::failed(&error).hint("put it on the PATH by hand"),
            ShellError::Receipt(error) => error.into(),
        }
    }
}

/// The way to an upgrade's own account of itself.
pub const WHAT_WAS_DONE: &str = "what was done, step by step: leoflow lite logs upgrade";

impl From<UpgradeError> for Error {
    fn from(error: UpgradeError) -> Self {
        let text = error.to_string();
        match error {
            UpgradeError::Journal(error) => error.into(),
            UpgradeError::Fetch(error) => error.into(),
            UpgradeError::Backup(error) => error.into(),
            UpgradeError::Rehearsal(error) => error.into(),
            UpgradeError::Postgres(error) => error.into(),
            UpgradeError::Content(error) => error.into(),
            UpgradeError::Schema(SchemaError::Failed { .. }) => Self::failed(text)
                .hint("mend the cause, then run the same command again; nothing of the migration stays")
                .hint(WHAT_WAS_DONE),
            UpgradeError::Schema(error) => error.into(),
            UpgradeError::Receipt(error) => error.into(),
            UpgradeError::Host(error) => error.into(),
            UpgradeError::Read { path, source } => Self::io("read", &path, &source),
            UpgradeError::Write { path, source } => Self::io("write", &path, &source),
            UpgradeError::Stage(StageError::Write { path, source }) => Self::io("write", &path, &source),
            UpgradeError::Program(ProgramError::Io { path, source }) => Self::io("prepare", &path, &source),
            UpgradeError::NoSnapshot(_) => Self::failed(text).hint("leoflow lite backups").hint("leoflow rollback"),
            UpgradeError::LongPause { expected, .. } => Self::failed(text)
                .hint(format!("allow it: leoflow config set upgrade.max_pause {:.0}m", (expected / 60.0).ceil() + 1.0))
                .hint("or stop it first: leoflow lite stop, then leoflow upgrade"),
            UpgradeError::Cancelled => Self::failed(text).hint("nothing was changed"),
            UpgradeError::Stage(_)
            | UpgradeError::Component { .. }
            | UpgradeError::Program(_)
            | UpgradeError::Smoke { .. } => Self::failed(text).hint(WHAT_WAS_DONE),
        }
    }
}

impl From<HostError> for Error {
    fn from(error: HostError) -> Self {
        let text = error.to_string();
        match error {
            HostError::Private(error) => error.into(),
            HostError::Gone => Self::failed(text).hint("the next start finishes it: leoflow lite start"),
            HostError::Silent(_) | HostError::Refused(_) | HostError::Program(_) => {
                Self::failed(text).hint("leoflow lite status").hint("leoflow upgrade --resume")
            }
        }
    }
}
