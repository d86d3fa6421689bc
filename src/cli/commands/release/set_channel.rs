//! `leoflow set-channel`.

use crate::commands::config_file::warn_if_overridden;
use crate::context::Context;
use crate::error::Error;
use clap::Args;
use leoflow_base::config;
use serde_json::json;
use serde_yaml::Value;

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  leoflow set-channel rc      also get release candidates")]
pub struct SetChannel {
    /// The channel; rc includes release candidates
    #[arg(value_parser = ["stable", "rc"])]
    pub channel: String,
}

pub fn run(context: &Context<'_>, args: &SetChannel) -> Result<u8, Error> {
    config::update(&context.home, |loaded| {
        let upgrade_section =
            serde_yaml::from_str::<Value>(&loaded.text).ok().and_then(|value| value.get("upgrade").cloned());
        let mut settings = upgrade_section.and_then(|value| value.as_mapping().cloned()).unwrap_or_default();
        settings.insert("channel".into(), args.channel.clone().into());
        vec![("upgrade", Value::Mapping(settings))]
    })?;
    warn_if_overridden(context, "upgrade.channel")?;
    context.printer.show(&json!({"channel": args.channel}), |printer| {
        printer.line(format!("Set the channel to {}", args.channel));
    })
}
