//! `leoflow docs`.

use crate::context::Context;
use crate::error::Error;
use clap::Args;
use leoflow_base::build_info::documentation;
use leoflow_base::docs::{self, Page};
use leoflow_base::protocol::control;
use leoflow_base::sys::{browser, env_vars};
use serde_json::{Value, json};

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow docs                   open the table of contents\n  leoflow docs run-offline       open one page\n  \
                  leoflow docs run-offline --print | less"
)]
pub struct Docs {
    /// The name of a page, or the last part of it [default: the table of contents]
    pub page: Option<String>,
    /// Print the page as Markdown; without a browser or a running instance it is printed in any case
    #[arg(long)]
    pub print: bool,
    /// List every page with its title
    #[arg(long, conflicts_with_all = ["page", "print"])]
    pub list: bool,
}

pub fn run(context: &Context<'_>, args: &Docs) -> Result<u8, Error> {
    if args.list {
        return list(context);
    }
    let page = match &args.page {
        Some(name) => find(name)?,
        None => find(docs::CONTENTS)?,
    };
    let value = json!({"page": page.name, "title": page.title(), "markdown": page.markdown});
    context.printer.show(&value, |printer| {
        if args.print || !open(context, page) {
            printer.raw(page.markdown);
        }
    })
}

fn list(context: &Context<'_>) -> Result<u8, Error> {
    let pages = &documentation().pages;
    let entries: Vec<Value> = pages.iter().map(|page| json!({"page": page.name, "title": page.title()})).collect();
    context.printer.show(&json!({"pages": entries}), |printer| {
        let rows = pages.iter().map(|page| [page.name, page.title()].map(str::to_owned));
        printer.table(&["PAGE", "TITLE"], rows);
    })
}

/// Finds a page; the error suggests pages with a similar name.
fn find(name: &str) -> Result<&'static Page, Error> {
    documentation().find(name).ok_or_else(|| {
        let error = Error::usage(format!("there is no page {name:?} in the documentation"));
        let last_part = name.rsplit('/').next().unwrap_or(name).to_lowercase();
        let similar: Vec<&str> = documentation()
            .pages
            .iter()
            .map(|page| page.name)
            .filter(|page| !last_part.is_empty() && page.to_lowercase().contains(&last_part))
            .collect();
        let error = match similar.is_empty() {
            true => error,
            false => error.hint(format!("pages with a similar name: {}", similar.join(", "))),
        };
        error.hint("leoflow docs --list shows every page")
    })
}

/// Opens the page of the running instance in a browser. Returns false if no instance is running or no browser opens.
fn open(context: &Context<'_>, page: &Page) -> bool {
    let Some(browser) = browser::command(env_vars::text) else { return false };
    let Some(status) = control::status_of(&context.home) else { return false };
    let name = if page.name == docs::CONTENTS { "" } else { page.name };
    let url = format!("{}{}{name}", status.url.trim_end_matches('/'), docs::ROOT);
    if !browser::open(&browser, &url) {
        return false;
    }
    context.printer.note(format!("Opened {url}"));
    true
}
