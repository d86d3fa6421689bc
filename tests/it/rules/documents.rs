//! Checks of the documentation: the targets of links and anchors exist, commands parse, and the pages and source paths
//! that texts name exist.

use leoflow::BUILT;
use leoflow::cli::args::help;
use leoflow::cli::commands::Cli;
use leoflow::server::docs_html;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Returns the path and text of every page of the repository.
fn pages() -> Vec<(PathBuf, String)> {
    let mut files: Vec<PathBuf> = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
        .iter()
        .map(|name| Path::new(ROOT).join(name))
        .collect();
    collect(&Path::new(ROOT).join("docs"), "md", &mut files);
    files.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

fn collect(folder: &Path, extension: &str, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, extension, files);
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
}

/// Returns the targets of the links and pictures of a page, outside of code.
fn links(markdown: &str) -> Vec<String> {
    use pulldown_cmark::{Event, Parser, Tag};
    Parser::new_ext(markdown, pulldown_cmark::Options::ENABLE_TABLES)
        .filter_map(|event| match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => Some(dest_url.to_string()),
            _ => None,
        })
        .collect()
}

#[test]
fn targets_of_links_and_anchors_exist() {
    let mut broken = Vec::new();
    for (path, text) in pages() {
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) =
                link.split_once('#').map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let has_anchor = |anchor: &str| {
                let text = fs::read_to_string(&target).unwrap_or_default();
                docs_html::heading_ids(&text).iter().any(|heading| heading.id == anchor)
            };
            if !target.exists() || anchor.is_some_and(|anchor| !has_anchor(anchor)) {
                broken.push(format!("{}: {link}", path.strip_prefix(ROOT).unwrap().display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Returns the lines of shell code blocks, joining lines that end with a backslash.
fn code_lines(markdown: &str) -> Vec<String> {
    let (mut lines, mut block, mut continued) = (Vec::new(), None, String::new());
    for line in markdown.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            block = match block {
                Some(_) => None,
                None => Some(["", "sh", "console", "bash", "shell"].contains(&language)),
            };
            continue;
        }
        if block == Some(true) {
            match line.strip_suffix('\\') {
                Some(part) => continued.push_str(part),
                None => lines.push(std::mem::take(&mut continued) + line),
            }
        }
    }
    lines
}

/// Splits a command line into words as a shell does, up to a comment, a pipe, a redirection or the next command.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_word, mut quote) = (Vec::new(), String::new(), false, None);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (Some(_), letter) => word.push(letter),
            (None, '\'' | '"') => (quote, is_word) = (Some(letter), true),
            (None, '#') if !is_word => break,
            (None, '|' | ';' | '>' | '<' | '&') => break,
            (None, letter) if letter.is_whitespace() => {
                if is_word {
                    words.push(std::mem::take(&mut word));
                }
                is_word = false;
            }
            (None, letter) => {
                word.push(letter);
                is_word = true;
            }
        }
    }
    if is_word {
        words.push(word);
    }
    words
}

#[test]
fn every_command_of_the_documentation_parses() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (path, text) in pages() {
        for line in code_lines(&text) {
            let line = line.trim_start().trim_start_matches("$ ");
            let words: Vec<String> = words(line).into_iter().skip_while(|word| is_variable(word)).collect();
            if words.first().is_none_or(|word| word != "leoflow") {
                continue;
            }
            count += 1;
            if let Err(error) = help::command::<Cli>().try_get_matches_from(&words)
                && error.exit_code() != 0
            {
                let first = error.to_string().lines().next().unwrap_or_default().to_owned();
                wrong.push(format!("{}: {line}: {first}", path.strip_prefix(ROOT).unwrap().display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 100, "only {count} commands were found");
}

/// An assignment in front of a command: `NAME=value`.
fn is_variable(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_')
    })
}

#[test]
fn pages_that_messages_name_exist() {
    let (mut files, mut missing) = (Vec::new(), Vec::new());
    collect(&Path::new(ROOT).join("src"), "rs", &mut files);
    collect(&Path::new(ROOT).join("src"), "py", &mut files);
    collect(&Path::new(ROOT).join("src"), "html", &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        // A message names a page as `leoflow docs NAME`, a comment as `docs/NAME.md`.
        let in_program = text.split("leoflow docs ").skip(1).map(|rest| (rest, false));
        let in_source = text.split("docs/").skip(1).map(|rest| (rest, true));
        for (rest, is_path) in in_program.chain(in_source) {
            let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && !"-/._".contains(letter));
            let name = rest[..end.unwrap_or(rest.len())].trim_end_matches('.');
            let is_page = match is_path {
                true => name.ends_with(".md"),
                false => name.starts_with(|letter: char| letter.is_ascii_lowercase()),
            };
            let found = if is_path {
                Path::new(ROOT).join("docs").join(name).exists()
            } else {
                BUILT.documentation.find(name).is_some()
            };
            // The tests in the module `docs` name pages that do not exist.
            if is_page && !found && !file.ends_with("docs/html.rs") && !file.ends_with("docs/mod.rs") {
                missing.push(format!("{}: {name}", file.strip_prefix(ROOT).unwrap().display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// A path such as `src/engine/store` in a page or a comment must exist, also after files have moved.
#[test]
fn source_paths_that_texts_name_exist() {
    let mut files: Vec<PathBuf> = pages().into_iter().map(|(path, _)| path).collect();
    for (folder, extension) in
        [("src", "rs"), ("src", "py"), ("tests", "rs"), ("tests", "py"), ("scripts", "rs"), ("benches", "rs")]
    {
        collect(&Path::new(ROOT).join(folder), extension, &mut files);
    }
    let (mut count, mut missing) = (0, Vec::new());
    for file in files {
        for line in fs::read_to_string(&file).unwrap().lines() {
            let is_page = file.extension().is_some_and(|extension| extension == "md");
            let is_comment = ["//", "#"].iter().any(|mark| line.trim_start().starts_with(mark));
            for name in paths_in(line).into_iter().filter(|_| is_page || is_comment) {
                count += 1;
                // `V0015__name.sql` is a placeholder.
                if !Path::new(ROOT).join(&name).exists() && !name.contains("__name") {
                    missing.push(format!("{}: {name}", file.strip_prefix(ROOT).unwrap().display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(count > 40, "only {count} paths were found");
}

/// Returns the paths of a line that begin with a folder of the repository's sources.
fn paths_in(line: &str) -> Vec<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "/_.-".contains(letter);
    line.split(|letter| !is_part(letter))
        .map(|word| word.trim_end_matches(['.', '-', '/']))
        .filter(|word| {
            ["src/", "tests/", "scripts/", "migrations/", "install/"].iter().any(|top| word.starts_with(top))
        })
        .map(str::to_owned)
        .collect()
}
