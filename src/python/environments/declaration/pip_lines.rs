//! Splits the text of a requirements file into requirements and options, like pip. uv parses the requirements:
//! <https://pip.pypa.io/en/stable/reference/requirements-file-format/>.

use super::error::LineError;
use regex::bytes::Regex;
use std::sync::LazyLock;

/// A logical line that is neither blank nor a comment.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A requirement, followed by its hashes as ` --hash=…`.
    Requirement(String),
    /// Options in their long form, with their values; the value of a flag is empty.
    Options(Vec<(&'static str, String)>),
}

/// pip's options in requirements files: the long form, and the short form if it has one.
const OPTIONS: [(&str, &str); 18] = [
    ("--index-url", "-i"),
    ("--pypi-url", ""),
    ("--extra-index-url", ""),
    ("--constraint", "-c"),
    ("--requirement", "-r"),
    ("--editable", "-e"),
    ("--find-links", "-f"),
    ("--no-binary", ""),
    ("--only-binary", ""),
    ("--trusted-host", ""),
    ("--use-feature", ""),
    ("--hash", ""),
    ("--config-settings", "-C"),
    ("--global-option", ""),
    ("--no-index", ""),
    ("--prefer-binary", ""),
    ("--require-hashes", ""),
    ("--pre", ""),
];
/// Options without a value.
const FLAGS: [&str; 4] = ["--no-index", "--prefer-binary", "--require-hashes", "--pre"];
/// Options that follow a requirement and apply to it alone.
const PER_REQUIREMENT: [&str; 3] = ["--hash", "--config-settings", "--global-option"];

/// Decodes a file: by its byte order mark, by a comment such as `# coding: latin-1` in the first two lines, or as
/// UTF-8.
pub fn decode(bytes: Vec<u8>) -> Result<String, LineError> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = bytes.as_chunks::<2>().0.iter().map(|pair| unit(*pair));
        char::decode_utf16(units).collect::<Result<String, _>>().map_err(|_| LineError::NotUtf16)
    };
    match (bytes.as_slice(), declared_encoding(&bytes).as_deref()) {
        ([0xFF, 0xFE, rest @ ..], _) => utf16(rest, u16::from_le_bytes),
        ([0xFE, 0xFF, rest @ ..], _) => utf16(rest, u16::from_be_bytes),
        (_, Some("latin-1" | "latin1" | "iso-8859-1" | "iso8859-1")) => {
            Ok(bytes.iter().map(|byte| char::from(*byte)).collect())
        }
        (_, None | Some("utf-8" | "utf8" | "ascii" | "us-ascii" | "utf-8-sig")) => {
            let text = String::from_utf8(bytes).map_err(|_| LineError::NotUtf8)?;
            Ok(text.trim_start_matches('\u{feff}').to_owned())
        }
        (_, Some(other)) => Err(LineError::Encoding(other.to_owned())),
    }
}

/// The encoding in a comment of the first two lines, <https://peps.python.org/pep-0263/>.
fn declared_encoding(bytes: &[u8]) -> Option<String> {
    static COMMENT: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^(?-u:[^\n]*\n)?#(?-u:[^\n])*?coding[:=][ \t]*([-\w.]+)").expect("a valid expression")
    });
    let name = COMMENT.captures(bytes)?.get(1)?;
    Some(String::from_utf8_lossy(name.as_bytes()).to_lowercase().replace('_', "-"))
}

/// Splits the text of a file.
pub fn lines(text: &str) -> Result<Vec<Line>, LineError> {
    let joined = logical_lines(text);
    let lines = joined.iter().map(|line| without_comment(line)).filter(|line| !line.is_empty());
    lines
        .map(|line| if line.starts_with('-') { options(line) } else { Ok(Line::Requirement(requirement(line))) })
        .collect()
}

/// Joins lines: a backslash at the end continues a line, except in a comment.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut is_continued = false;
    for line in text.lines() {
        let is_comment = line.trim_start().starts_with('#');
        let continued = line.strip_suffix('\\').filter(|_| !is_comment);
        let part = continued.unwrap_or(line);
        match lines.last_mut().filter(|_| is_continued) {
            // Without the blank before it, the `#` would not start a comment.
            Some(last) if is_comment => *last = format!("{last} {part}"),
            Some(last) => last.push_str(part),
            None => lines.push(part.to_owned()),
        }
        is_continued = continued.is_some();
    }
    lines
}

/// Removes a comment, which begins with a `#` at the start of the line or after a blank: an address may contain `#`.
fn without_comment(line: &str) -> &str {
    let starts = line.match_indices('#').map(|(start, _)| start);
    let mut comments = starts.filter(|start| line[..*start].is_empty() || line[..*start].ends_with([' ', '\t']));
    line[..comments.next().unwrap_or(line.len())].trim()
}

/// The requirement with each of its hashes in the same spelling.
fn requirement(line: &str) -> String {
    static HASH: LazyLock<regex::Regex> =
        LazyLock::new(|| regex::Regex::new(r#"\s+--hash[=\s]+["']?([^\s"']*)["']?"#).expect("a valid expression"));
    HASH.replace_all(line, " --hash=$1").into_owned()
}

/// Parses options like Python's `optparse`, which accepts `-rFILE` and unique prefixes of long names.
fn options(line: &str) -> Result<Line, LineError> {
    let words = shlex::split(line).ok_or(LineError::OpenQuote)?;
    // pip ignores a marker behind an option.
    let mut words = words.into_iter().take_while(|word| !word.starts_with(';'));
    let mut options = Vec::new();
    while let Some(word) = words.next() {
        let (name, attached) = match word.split_once('=') {
            _ if !word.starts_with('-') => return Err(LineError::WordBehindOption),
            Some((name, value)) if word.starts_with("--") => (name, Some(value)),
            None if word.starts_with("--") => (word.as_str(), None),
            _ => {
                let (name, value) = word.split_at(word.char_indices().nth(2).map_or(word.len(), |(end, _)| end));
                (name, Some(value.strip_prefix('=').unwrap_or(value)).filter(|value| !value.is_empty()))
            }
        };
        let name = known(name).ok_or_else(|| LineError::NoOption(name.to_owned()))?;
        if PER_REQUIREMENT.contains(&name) {
            return Err(LineError::WithoutRequirement(name));
        }
        let value = match (FLAGS.contains(&name), attached.map(str::to_owned)) {
            (false, attached) => attached.or_else(|| words.next()).ok_or(LineError::NoValue(name))?,
            (true, Some(_)) => return Err(LineError::UnexpectedValue(name)),
            (true, None) => String::new(),
        };
        options.push((name, value));
    }
    Ok(Line::Options(options))
}

/// The long form of an option.
fn known(name: &str) -> Option<&'static str> {
    let exact = OPTIONS.iter().find(|(long, short)| [*long, *short].contains(&name));
    let mut prefixed = OPTIONS.iter().filter(|(long, _)| name.starts_with("--") && long.starts_with(name));
    exact.or_else(|| prefixed.next().filter(|_| prefixed.next().is_none())).map(|(long, _)| *long)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(text: &str) -> Line {
        Line::Requirement(text.to_owned())
    }

    fn options_of(text: &str) -> Vec<(&'static str, String)> {
        match lines(text).unwrap().pop() {
            Some(Line::Options(options)) => options,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn lines_are_joined_and_comments_removed_like_pip() {
        let text = "# first, C:\\\nrequests==2.\\\n32 \\\n    --hash sha256:ab \\\n    --hash=sha256:cd\npandas >= 2  # for frames\n\n\
                    x @ https://e.example/x-1.whl#sha256=ab\ny \\\n# a comment ends the line \\\nz\r\n\
                    w ; sys_platform == \"win32\" \\\n    --hash='sha256:ef'\nv ; python_version < '3.12'\n";
        let expected = [
            requirement("requests==2.32 --hash=sha256:ab --hash=sha256:cd"),
            requirement("pandas >= 2"),
            requirement("x @ https://e.example/x-1.whl#sha256=ab"),
            requirement("y"),
            requirement("z"),
            requirement("w ; sys_platform == \"win32\" --hash=sha256:ef"),
            requirement("v ; python_version < '3.12'"),
        ];
        assert_eq!(lines(text).unwrap(), expected);
    }

    #[test]
    fn reads_every_spelling_of_an_option() {
        let file = |name: &'static str, value: &str| vec![(name, value.to_owned())];
        for text in [
            "-r base.txt",
            "-rbase.txt",
            "-r=base.txt",
            "--requirement=base.txt",
            "--requirem base.txt",
            "-r 'base.txt'",
        ] {
            assert_eq!(options_of(text), file("--requirement", "base.txt"), "{text}");
        }
        assert_eq!(options_of("-c \"my base.txt\""), file("--constraint", "my base.txt"));
        assert_eq!(options_of("-c my\\ base.txt"), file("--constraint", "my base.txt"));
        let both =
            options_of("--index-url https://i/simple --extra-index-url=https://e/simple ; sys_platform == 'linux'");
        assert_eq!(
            both,
            [("--index-url", "https://i/simple".to_owned()), ("--extra-index-url", "https://e/simple".to_owned())]
        );
        assert_eq!(options_of("--pre"), file("--pre", ""));
    }

    #[test]
    fn errors_about_options_do_not_contain_their_values() {
        for (text, expected) in [
            ("--target /secret", "--target is not an option of requirements files"),
            ("-t /secret", "-t is not an option of requirements files"),
            ("--pre=secret", "--pre takes no value"),
            ("-r", "--requirement needs a value"),
            ("--no", "--no is not an option"),
            ("-r 'secret", "a quote is not closed"),
            ("-i https://i secret", "write it on a line of its own"),
            ("--hash=sha256:secret", "--hash stands without a requirement"),
        ] {
            let error = lines(text).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn encodings_of_editors_and_shells_are_decoded() {
        let utf16 =
            |unit: fn(u16) -> [u8; 2]| "\u{feff}pandas # é\r\n".encode_utf16().flat_map(unit).collect::<Vec<u8>>();
        for bytes in [utf16(u16::to_le_bytes), utf16(u16::to_be_bytes), "\u{feff}pandas # é\r\n".as_bytes().to_vec()] {
            assert_eq!(decode(bytes).unwrap(), "pandas # é\r\n");
        }
        assert_eq!(
            decode(b"# -*- coding: latin-1 -*-\npandas # \xe9\n".to_vec()).unwrap(),
            "# -*- coding: latin-1 -*-\npandas # é\n"
        );
        assert!(decode(b"pandas # \xe9\n".to_vec()).unwrap_err().to_string().contains("save the file as UTF-8"));
        assert!(
            decode(b"# coding=koi8-r\npandas\n".to_vec())
                .unwrap_err()
                .to_string()
                .contains("\"koi8-r\" is not supported")
        );
    }
}
