//! Hands an upgrade over to the target release's program, because this program cannot plan it.

use crate::context::Context;
use crate::error::Error;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::protocol::child::{HANDED_OVER, RELEASE_SOURCE};
use leoflow_base::sys::env_vars;
use leoflow_base::sys::process::replace;
use leoflow_lifecycle::upgrade::plan::UpgradePlan;
use leoflow_lifecycle::upgrade::target_release::TargetRelease;
use std::process::Command;

/// Downloads the release's program and execs it with the same arguments. Returns only on failure.
pub async fn run(context: &Context<'_>, plan: &UpgradePlan, release: &TargetRelease) -> Result<(), Error> {
    if let Some(earlier) = env_vars::text(HANDED_OVER) {
        let text = format!("leoflow {earlier} has handed the upgrade to {} over to {}", plan.to, context.version);
        return Err(Error::failed(format!("{text}, which cannot plan it either"))
            .hint("nothing was changed; report this to the publisher of the releases"));
    }
    let text = format!("leoflow {} plans this upgrade itself; downloading it", plan.to);
    context.printer.report(Progress::Note(text));
    let program = release.fetch_upgrader(&context.home, plan, context.printer).await?;
    let mut command = Command::new(&program);
    command.args(env_vars::arguments().into_iter().skip(1)).env(HANDED_OVER, context.version);
    // The source may contain a password, so it is not an argument.
    command.envs(release.host().map(|host| (RELEASE_SOURCE, host.with_secrets())));
    Err(Error::io("run", &program, &replace::replace_self_by(command)))
}
