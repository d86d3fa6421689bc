//! The documentation, embedded in the program: the Markdown pages of `docs/` and of the folder above it (README,
//! changelog, contributing, security), and the pictures of `docs/`. Only `leoflow docs` and the
//! pages below [`ROOT`] read it.

/// A page of the documentation.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// The path below `docs/` without `.md`, as `how-to/run-offline`; `README` is the table of contents. Pages above
    /// `docs/` have names of their own, such as `about` and `changelog`.
    pub name: &'static str,
    pub markdown: &'static str,
}

/// A picture that a page shows.
#[derive(Debug)]
pub struct Picture {
    /// The path below `docs/`, as `images/grid.png`.
    pub name: &'static str,
    pub bytes: &'static [u8],
}

/// The embedded documentation.
#[derive(Debug, Clone, Copy)]
pub struct Documentation {
    /// Sorted by name.
    pub pages: &'static [Page],
    pub pictures: &'static [Picture],
}

/// The URL path of the pages.
pub const ROOT: &str = "/lite/docs/";

/// The table of contents.
pub const CONTENTS: &str = "README";

impl Page {
    /// The text of the first heading; the name where there is none.
    pub fn title(&self) -> &'static str {
        self.markdown.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or(self.name)
    }
}

impl Documentation {
    /// The page with exactly this name.
    pub fn page(&self, name: &str) -> Option<&'static Page> {
        self.pages.iter().find(|page| page.name == name)
    }

    /// The page that a user means: by its name, by the last part of it (`run-offline`), or by its folder if that has no
    /// other page; in any case and with or without `.md`. `None` when no page or more than one page fits.
    pub fn find(&self, name: &str) -> Option<&'static Page> {
        let name = name.trim_matches('/').trim_start_matches("docs/").trim_end_matches(".md").to_lowercase();
        let is_named = |page: &&Page| page.name.to_lowercase() == name;
        if let Some(page) = self.pages.iter().find(is_named) {
            return Some(page);
        }
        let mut matches = self
            .pages
            .iter()
            .filter(|page| page.name.rsplit('/').next().is_some_and(|last| last.to_lowercase() == name));
        let Some(first) = matches.next() else { return self.only_page_of(&name) };
        matches.next().is_none().then_some(first)
    }

    /// The page of a folder such as `tutorial`; `None` if the folder has more than one page.
    fn only_page_of(&self, folder: &str) -> Option<&'static Page> {
        let is_in_folder = |page: &&Page| page.name.rsplit_once('/').is_some_and(|(parent, _)| parent == folder);
        let mut pages = self.pages.iter().filter(is_in_folder);
        let first = pages.next()?;
        pages.next().is_none().then_some(first)
    }

    pub fn picture(&self, name: &str) -> Option<&'static Picture> {
        self.pictures.iter().find(|picture| picture.name == name)
    }
}
