//! `leoflow setup`: everything `leoflow lite` would set up, without starting it.

use super::context::Context;
use super::lite_run::{planned, set_up};
use super::recovery::{self, Purges};
use crate::cli::args::Setup;
use crate::config::{self, DEFAULT_PORT};
use crate::error::Error;
use crate::home::resolve_workspace;
use crate::setup::{self, Plan, Wishes};
use crate::sys::env_vars;
use serde_json::json;

pub async fn run(context: &Context<'_>, args: &Setup) -> Result<u8, Error> {
    let wishes = Wishes {
        port: args.port,
        workspace: args.workspace.as_deref().map(|path| resolve_workspace(Some(path))).transpose()?,
        install_always: true,
    };
    let plan = planned(context, &wishes)?;
    if args.dry_run {
        return show_plan(context, &plan);
    }
    let password = if plan.steps.is_empty() && !plan.resumes {
        // Also beside a running instance: there is nothing to do.
        None
    } else if plan.is_only_packages() {
        setup::get_packages(&context.home, context.printer).await;
        None
    } else {
        let home = &context.home;
        home.create().map_err(|error| Error::io("create", home.root(), &error))?;
        let _lock = recovery::take_home(context, "leoflow setup", None, Purges::Finish, context.printer).await?;
        set_up(context, &wishes, context.printer).await?
    };
    show_result(context, &plan, password.as_deref())?;
    if password.is_some() && !context.printer.reader_left() {
        setup::mark_password_shown(&context.home)?;
    }
    if args.modify_path {
        modify_path(context);
    }
    Ok(0)
}

/// What cannot be done is only said: everything else is set up.
fn modify_path(context: &Context<'_>) {
    let by_hand = context.path_hint().unwrap_or_default();
    let Some(user_home) = env_vars::user_home() else {
        return context.printer.warning(format!("HOME is not set; by hand: {by_hand}"));
    };
    match setup::add_to_path(&context.home, &user_home) {
        Ok(changed) => {
            let names: Vec<String> = changed.iter().map(|path| path.display().to_string()).collect();
            context.printer.note(format!("put it on the PATH in {}; a new terminal has it", names.join(", ")));
        }
        Err(error) => context.printer.warning(format!("{error}; by hand: {by_hand}")),
    }
}

fn show_plan(context: &Context<'_>, plan: &Plan) -> Result<u8, Error> {
    let steps: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
    if context.printer.json {
        context.printer.json(&json!({"steps": steps, "resumes": plan.resumes}))?;
        return Ok(0);
    }
    if plan.resumes {
        context.printer.line("An earlier setup was interrupted; this would finish it.");
    }
    for step in &steps {
        context.printer.line(format!("would {step}"));
    }
    if steps.is_empty() {
        context.printer.line("Everything is set up; nothing would be done.");
    }
    Ok(0)
}

fn show_result(context: &Context<'_>, plan: &Plan, password: Option<&str>) -> Result<(), Error> {
    let home = &context.home;
    let config = config::load(&home.config())?.map(|loaded| loaded.config);
    let url = context.url(config.as_ref().map_or(DEFAULT_PORT, |config| config.port));
    let email = config.map(|config| config.admin_email).unwrap_or_default();
    if context.printer.json {
        return context.printer.json(&json!({
            "home": home.root(),
            "workspace": plan.workspace,
            "url": url,
            "admin_email": email,
            "admin_password": password,
        }));
    }
    let printer = context.printer;
    printer.line(format!("Leoflow is set up in {}", home.root().display()));
    printer.line(format!("  workspace  {}", plan.workspace.display()));
    printer.line(format!("  page       {url}   (once it runs)"));
    if let Some(password) = password {
        printer.line(format!("  e-mail     {email}"));
        printer.line(format!("  password   {password}   (shown only now)"));
    }
    let program = if context.path_hint().is_some() {
        home.bin().join("leoflow").display().to_string()
    } else {
        "leoflow".to_owned()
    };
    printer.line(format!("Start it:  {program} lite start"));
    if let Some(hint) = context.path_hint() {
        printer.line(format!("To have `leoflow` on your PATH:  {hint}"));
    }
    Ok(())
}
