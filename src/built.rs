//! What the build script found out about this program: its release and its documentation.

use leoflow_base::build_info::BuildInfo;
use leoflow_base::docs::{Documentation, Page, Picture};

/// The values of this build.
pub const BUILT: BuildInfo = BuildInfo {
    version: env!("LEOFLOW_VERSION"),
    target: env!("LEOFLOW_TARGET"),
    commit: option_env!("LEOFLOW_COMMIT"),
    public_key: option_env!("LEOFLOW_PUBLIC_KEY"),
    releases_url: option_env!("LEOFLOW_RELEASES_URL"),
    more_migrations: &[],
    contract: include_str!("../docs/reference/contract.json"),
    documentation: Documentation {
        pages: include!(concat!(env!("OUT_DIR"), "/docs_pages.rs")),
        pictures: include!(concat!(env!("OUT_DIR"), "/docs_pictures.rs")),
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use leoflow_base::docs::CONTENTS;
    use leoflow_server::docs_html;

    const DOCUMENTATION: Documentation = BUILT.documentation;

    #[test]
    fn a_page_is_found_by_name_and_by_its_last_part() {
        let page = DOCUMENTATION.find("how-to/run-offline").unwrap();
        assert_eq!(page.name, "how-to/run-offline");
        for name in ["run-offline", "Run-Offline", "docs/how-to/run-offline.md", "/how-to/run-offline/"] {
            assert_eq!(DOCUMENTATION.find(name), Some(page), "{name}");
        }
        assert_eq!(DOCUMENTATION.find("tutorial"), DOCUMENTATION.find("first-dag"));
        assert_eq!(DOCUMENTATION.find("no-such-page"), None);
        assert_eq!(DOCUMENTATION.find(""), None);
    }

    #[test]
    fn every_page_has_a_title_of_its_own() {
        let mut titles: Vec<&str> = DOCUMENTATION.pages.iter().map(Page::title).collect();
        titles.sort_unstable();
        let before = titles.len();
        titles.dedup();
        assert_eq!(titles.len(), before);
        assert!(DOCUMENTATION.page(CONTENTS).is_some());
        assert!(DOCUMENTATION.pages.iter().all(|page| page.title() != page.name));
    }

    #[test]
    fn every_page_renders_with_its_headings() {
        for page in DOCUMENTATION.pages {
            let rendered = docs_html::render(&DOCUMENTATION, page);
            assert!(rendered.html.contains("<h1 id="), "{}", page.name);
            for heading in rendered.headings {
                assert!(rendered.html.contains(&format!("<h2 id=\"{}\"", heading.id)), "{}: {heading:?}", page.name);
            }
        }
    }
}
