//! The documentation, embedded in the program: the Markdown pages of `docs/`, the README, the changelog, and the
//! pictures that they show. Nothing of it is read at run time but by the command and the page that show it.

pub mod html;

/// A page of the documentation.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// The path below `docs/` without `.md`, as `how-to/run-offline`; `README` is the table of contents.
    pub name: &'static str,
    pub markdown: &'static str,
}

/// A picture that a page shows.
pub struct Picture {
    /// The path below `docs/`, as `images/grid.png`.
    pub name: &'static str,
    pub bytes: &'static [u8],
}

/// Every page, in the order of their names.
pub const PAGES: &[Page] = include!(concat!(env!("OUT_DIR"), "/docs_pages.rs"));

const PICTURES: &[Picture] = include!(concat!(env!("OUT_DIR"), "/docs_pictures.rs"));

/// The table of contents.
pub const CONTENTS: &str = "README";

impl Page {
    /// The text of the first heading; the name where there is none.
    pub fn title(&self) -> &'static str {
        self.markdown.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or(self.name)
    }
}

/// The page with exactly this name.
pub fn page(name: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.name == name)
}

/// The page that a user means: by its name, or by the last part of it (`run-offline`), in any case and with or
/// without `.md`. `None` when no page or more than one page fits.
pub fn find(name: &str) -> Option<&'static Page> {
    let name = name.trim_matches('/').trim_start_matches("docs/").trim_end_matches(".md").to_lowercase();
    let is_named = |page: &&Page| page.name.to_lowercase() == name;
    if let Some(page) = PAGES.iter().find(is_named) {
        return Some(page);
    }
    let mut matches =
        PAGES.iter().filter(|page| page.name.rsplit('/').next().is_some_and(|last| last.to_lowercase() == name));
    let Some(first) = matches.next() else { return only_page_of(&name) };
    matches.next().is_none().then_some(first)
}

/// The page of a folder that has just one, such as `tutorial`.
fn only_page_of(folder: &str) -> Option<&'static Page> {
    let mut pages = PAGES.iter().filter(|page| page.name.rsplit_once('/').is_some_and(|(parent, _)| parent == folder));
    let first = pages.next()?;
    pages.next().is_none().then_some(first)
}

pub fn picture(name: &str) -> Option<&'static Picture> {
    PICTURES.iter().find(|picture| picture.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_found_by_name_and_by_its_last_part() {
        let page = find("how-to/run-offline").unwrap();
        assert_eq!(page.name, "how-to/run-offline");
        for name in ["run-offline", "Run-Offline", "docs/how-to/run-offline.md", "/how-to/run-offline/"] {
            assert_eq!(find(name), Some(page), "{name}");
        }
        assert_eq!(find("tutorial"), find("first-dag"));
        assert_eq!(find("no-such-page"), None);
        assert_eq!(find(""), None);
    }

    #[test]
    fn every_page_has_a_title_of_its_own() {
        let mut titles: Vec<&str> = PAGES.iter().map(Page::title).collect();
        titles.sort_unstable();
        let before = titles.len();
        titles.dedup();
        assert_eq!(titles.len(), before);
        assert!(page(CONTENTS).is_some());
        assert!(PAGES.iter().all(|page| page.title() != page.name));
    }
}
