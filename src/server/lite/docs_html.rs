//! Renders a page of the documentation as HTML for `/lite/docs/`. Raw HTML in a page is shown as text, and comments are
//! left out, so a page cannot bring scripts; links between pages lead to `/lite/docs/`.

use leoflow_base::docs::{CONTENTS, Documentation, Page, ROOT};
use pulldown_cmark::{CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd, html};
use std::collections::HashMap;

/// A heading of a page; [`Rendered`] has those of the second level, for the list beside the page.
#[derive(Debug, PartialEq, Eq)]
pub struct Heading {
    pub id: String,
    pub text: String,
}

pub struct Rendered {
    pub html: String,
    pub headings: Vec<Heading>,
}

/// Renders a page of `documentation`.
pub fn render(documentation: &Documentation, page: &Page) -> Rendered {
    let ids = heading_ids(page.markdown);
    let mut next_id = ids.iter();
    let mut headings = Vec::new();
    let mut skipped_links = 0_usize;
    let events = Parser::new_ext(page.markdown, OPTIONS).filter_map(|event| match event {
        Event::Start(Tag::Heading { level, classes, attrs, .. }) => {
            let heading = next_id.next()?;
            if level == HeadingLevel::H2 {
                headings.push(Heading { id: heading.id.clone(), text: heading.text.clone() });
            }
            Some(Event::Start(Tag::Heading { level, id: Some(heading.id.clone().into()), classes, attrs }))
        }
        Event::Start(Tag::Link { link_type, dest_url, title, id }) => match address(documentation, page, &dest_url) {
            Some(dest_url) => Some(Event::Start(Tag::Link { link_type, dest_url, title, id })),
            // A file that is not embedded, such as a source file: only the text of the link remains.
            None => {
                skipped_links += 1;
                None
            }
        },
        Event::End(TagEnd::Link) if skipped_links > 0 => {
            skipped_links -= 1;
            None
        }
        Event::Start(Tag::Image { link_type, dest_url, title, id }) => {
            let dest_url = address(documentation, page, &dest_url).unwrap_or(dest_url);
            Some(Event::Start(Tag::Image { link_type, dest_url, title, id }))
        }
        Event::Html(text) if text.trim_start().starts_with("<!--") => None,
        Event::Html(text) | Event::InlineHtml(text) => Some(Event::Text(text)),
        event => Some(event),
    });
    let mut html = String::with_capacity(page.markdown.len() * 3 / 2);
    html::push_html(&mut html, events);
    Rendered { html, headings }
}

const OPTIONS: Options = Options::ENABLE_TABLES.union(Options::ENABLE_STRIKETHROUGH);

/// The id and the text of every heading of a page, in order. Ids follow GitHub's rule: lower case, punctuation left
/// out, blanks as hyphens, and `-1`, `-2` … after an id that the page has already.
pub fn heading_ids(markdown: &str) -> Vec<Heading> {
    let mut headings: Vec<Heading> = Vec::new();
    let mut uses: HashMap<String, usize> = HashMap::new();
    let mut text: Option<String> = None;
    for event in Parser::new_ext(markdown, OPTIONS) {
        match event {
            Event::Start(Tag::Heading { .. }) => text = Some(String::new()),
            Event::Text(part) | Event::Code(part) => {
                if let Some(text) = &mut text {
                    text.push_str(&part);
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                let text = text.take().unwrap_or_default();
                headings.push(Heading { id: free_id(&slug(&text), &mut uses), text });
            }
            _ => {}
        }
    }
    headings
}

/// `slug`, or `slug-1`, `slug-2` … if another heading has that id.
fn free_id(slug: &str, uses: &mut HashMap<String, usize>) -> String {
    let mut id = slug.to_owned();
    while uses.contains_key(&id) {
        let count = uses.entry(slug.to_owned()).or_default();
        *count += 1;
        id = format!("{slug}-{count}");
    }
    uses.insert(id.clone(), 0);
    id
}

fn slug(text: &str) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter);
    text.to_lowercase().chars().filter(kept).map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

/// The address of a link or picture of `page`: unchanged for other sites and for anchors of the page, below
/// `/lite/docs/` for pages and pictures; `None` for a file that is not embedded.
fn address<'a>(documentation: &Documentation, page: &Page, link: &CowStr<'a>) -> Option<CowStr<'a>> {
    if ["#", "https://", "http://", "mailto:"].iter().any(|start| link.starts_with(start)) {
        return Some(link.clone());
    }
    let (path, anchor) = link.split_once('#').map_or((&**link, None), |(path, anchor)| (path, Some(anchor)));
    let path = resolve(page, path)?;
    let target = match path.strip_suffix(".md") {
        Some(CONTENTS) => String::new(),
        Some(name) => documentation.page(name)?.name.to_owned(),
        None => documentation.picture(&path)?.name.to_owned(),
    };
    let anchor = anchor.map(|anchor| format!("#{anchor}")).unwrap_or_default();
    Some(format!("{ROOT}{target}{anchor}").into())
}

/// The path below `docs/` of a relative link. Pages in the folder above `docs/`, such as the README, are embedded as
/// `about.md`, `changelog.md`, `contributing.md` and `security.md`.
fn resolve(page: &Page, link: &str) -> Option<String> {
    let folder = match page.name {
        "about" | "changelog" | "contributing" | "security" => "",
        name => name,
    };
    let is_above = folder.is_empty();
    let mut parts: Vec<&str> = if is_above { Vec::new() } else { vec!["docs"] };
    parts.extend(folder.split('/').filter(|part| !part.is_empty()));
    if !is_above {
        parts.pop();
    }
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    let path = parts.join("/");
    match path.as_str() {
        "README.md" => Some("about.md".to_owned()),
        "CHANGELOG.md" => Some("changelog.md".to_owned()),
        "CONTRIBUTING.md" => Some("contributing.md".to_owned()),
        "SECURITY.md" => Some("security.md".to_owned()),
        "docs" => Some(format!("{CONTENTS}.md")),
        path => path.strip_prefix("docs/").map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Page = Page {
        name: "how-to/example",
        markdown: "# A `title`\n\n## Run it\n\n[here](#run-it) [home](../reference/home.md#files) [more](../README.md)\n\
                   [site](https://example.org/x.md) [code](../../src/main.rs) <b>bold</b> <script>x</script>\n\n\
                   <!-- generated -->\n\n## Run it\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
    };

    const DOCUMENTATION: Documentation = Documentation {
        pages: &[
            PAGE,
            Page { name: "README", markdown: "# Contents" },
            Page { name: "reference/home", markdown: "# The home\n\n## Files" },
        ],
        pictures: &[],
    };

    #[test]
    fn links_lead_to_pages_of_the_program() {
        let html = render(&DOCUMENTATION, &PAGE).html;
        for part in [
            "<a href=\"#run-it\">here</a>",
            "<a href=\"/lite/docs/reference/home#files\">home</a>",
            "<a href=\"/lite/docs/\">more</a>",
            "<a href=\"https://example.org/x.md\">site</a>",
            " code ",
            "<table>",
        ] {
            assert!(html.contains(part), "{part} in {html}");
        }
    }

    #[test]
    fn raw_html_is_shown_as_text() {
        let html = render(&DOCUMENTATION, &PAGE).html;
        assert!(html.contains("&lt;script&gt;") && !html.contains("<script") && !html.contains("generated"), "{html}");
    }

    #[test]
    fn heading_ids_follow_github() {
        let ids: Vec<String> = heading_ids(PAGE.markdown).into_iter().map(|heading| heading.id).collect();
        assert_eq!(ids, ["a-title", "run-it", "run-it-1"]);
        let ids = heading_ids("# `--home`, and more!\n# a\n# a 1\n# a\n");
        let ids: Vec<&str> = ids.iter().map(|heading| heading.id.as_str()).collect();
        assert_eq!(ids, ["--home-and-more", "a", "a-1", "a-2"]);
    }
}
