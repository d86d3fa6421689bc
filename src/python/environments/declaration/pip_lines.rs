//! Splits the text of a requirements file into requirements and options, like pip:
//! <https://pip.pypa.io/en/stable/reference/requirements-file-format/>.

/// A logical line that is neither blank nor a comment.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A requirement, followed by its hashes as ` --hash=…`.
    Requirement(String),
    /// Options in their long form, with their values; the value of a flag is empty.
    Options(Vec<(&'static str, String)>),
}

/// Whether an option takes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Value,
    Nothing,
}

/// pip's options in requirements files: the long form, the letter of the short form, and whether it takes a value.
const OPTIONS: &[(&str, Option<char>, Takes)] = &[
    ("--index-url", Some('i'), Takes::Value),
    ("--pypi-url", None, Takes::Value),
    ("--extra-index-url", None, Takes::Value),
    ("--no-index", None, Takes::Nothing),
    ("--constraint", Some('c'), Takes::Value),
    ("--requirement", Some('r'), Takes::Value),
    ("--editable", Some('e'), Takes::Value),
    ("--find-links", Some('f'), Takes::Value),
    ("--no-binary", None, Takes::Value),
    ("--only-binary", None, Takes::Value),
    ("--prefer-binary", None, Takes::Nothing),
    ("--require-hashes", None, Takes::Nothing),
    ("--pre", None, Takes::Nothing),
    ("--trusted-host", None, Takes::Value),
    ("--use-feature", None, Takes::Value),
    ("--hash", None, Takes::Value),
    ("--config-settings", Some('C'), Takes::Value),
    ("--global-option", None, Takes::Value),
];

/// Decodes a file: by its byte order mark, by a comment such as `# coding: latin-1` in the first two lines, or as
/// UTF-8. The error is a message for the user.
pub fn decode(bytes: Vec<u8>) -> Result<String, String> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = bytes.as_chunks::<2>().0.iter().map(|pair| unit(*pair));
        char::decode_utf16(units).collect::<Result<String, _>>().map_err(|_| "not valid UTF-16 text".to_owned())
    };
    match bytes.as_slice() {
        [0xFF, 0xFE, rest @ ..] => return utf16(rest, u16::from_le_bytes),
        [0xFE, 0xFF, rest @ ..] => return utf16(rest, u16::from_be_bytes),
        _ => {}
    }
    match declared_encoding(&bytes).as_deref() {
        Some("latin-1" | "latin1" | "iso-8859-1" | "iso8859-1") => {
            return Ok(bytes.iter().map(|byte| char::from(*byte)).collect());
        }
        Some(other) if !["utf-8", "utf8", "ascii", "us-ascii", "utf-8-sig"].contains(&other) => {
            return Err(format!("the encoding {other:?} is not supported; save the file as UTF-8"));
        }
        _ => {}
    }
    let text = String::from_utf8(bytes).map_err(|_| "not UTF-8 text; save the file as UTF-8".to_owned())?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

/// The encoding in a comment of the first two lines, <https://peps.python.org/pep-0263/>.
fn declared_encoding(bytes: &[u8]) -> Option<String> {
    let comments = bytes.split(|byte| *byte == b'\n').take(2).filter(|line| line.starts_with(b"#"));
    let mut names = comments.filter_map(|line| {
        let text = String::from_utf8_lossy(line).into_owned();
        let (_, rest) = text.split_once("coding")?;
        let rest = rest.strip_prefix([':', '='])?.trim_start();
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || "-_.".contains(*c)).collect();
        (!name.is_empty()).then(|| name.to_lowercase().replace('_', "-"))
    });
    names.next()
}

/// Parses the text of a file. The error, a message for the user, contains no option values: one may be a secret.
pub fn lines(text: &str) -> Result<Vec<Line>, String> {
    let joined = logical_lines(text);
    joined.iter().map(|line| strip_comment(line)).filter(|line| !line.is_empty()).map(parse).collect()
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
fn strip_comment(line: &str) -> &str {
    let line = line.trim();
    if line.starts_with('#') {
        return "";
    }
    let end = [" #", "\t#"].iter().filter_map(|start| line.find(start)).min();
    end.map_or(line, |end| line[..end].trim_end())
}

fn parse(line: &str) -> Result<Line, String> {
    let is_option = |word: &&str| word.starts_with('-');
    let Some(first_option) = line.split([' ', '\t']).find(is_option) else {
        return Ok(Line::Requirement(line.to_owned()));
    };
    // The difference of the addresses is the option's offset: it is a slice of `line`.
    let (requirement, rest) = line.split_at(first_option.as_ptr() as usize - line.as_ptr() as usize);
    let options = options(&words(rest)?)?;
    if requirement.trim().is_empty() {
        return match options.iter().find(|(name, _)| is_per_requirement(name)) {
            Some((name, _)) => Err(format!("{name} stands without a requirement; write it behind one")),
            None => Ok(Line::Options(options)),
        };
    }
    let mut text = requirement.trim().to_owned();
    for (name, value) in options {
        match name {
            "--hash" => text.push_str(&format!(" --hash={value}")),
            _ if is_per_requirement(name) => return Err(no_build_options(name)),
            _ => return Err(format!("{name} stands behind a requirement; write it on a line of its own")),
        }
    }
    Ok(Line::Requirement(text))
}

fn no_build_options(name: &str) -> String {
    let instead = "build a wheel of the package, put it into a folder of the project and name that with --find-links";
    format!("{name} is not supported, because a lock has no options of builds; {instead}")
}

/// True for the options that follow a requirement and apply to it alone.
fn is_per_requirement(name: &str) -> bool {
    ["--hash", "--config-settings", "--global-option"].contains(&name)
}

/// Parses options like Python's `optparse`, which accepts `-rFILE` and unique prefixes of long names.
fn options(words: &[String]) -> Result<Vec<(&'static str, String)>, String> {
    let mut options = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word.starts_with(';') {
            // pip ignores a marker behind an option.
            break;
        }
        let (name, takes, attached) = option(word)?;
        let value = match (takes, attached) {
            (Takes::Value, Some(value)) => value,
            (Takes::Value, None) => words.next().cloned().ok_or_else(|| format!("{name} needs a value"))?,
            (Takes::Nothing, Some(_)) => return Err(format!("{name} takes no value")),
            (Takes::Nothing, None) => String::new(),
        };
        options.push((name, value));
    }
    Ok(options)
}

/// Parses the word of an option: returns its long form, whether it takes a value, and the value in the same word.
fn option(word: &str) -> Result<(&'static str, Takes, Option<String>), String> {
    if let Some(long) = word.strip_prefix("--") {
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value.to_owned())));
        let matches = |exact: bool| {
            OPTIONS
                .iter()
                .filter(move |(known, _, _)| if exact { &known[2..] == name } else { known[2..].starts_with(name) })
        };
        let found = matches(true).next().or_else(|| matches(false).next().filter(|_| matches(false).count() == 1));
        return match found {
            Some((known, _, takes)) => Ok((*known, *takes, value)),
            None => Err(format!("--{name} is not an option of requirements files")),
        };
    }
    let Some(letter) = word.strip_prefix('-').and_then(|rest| rest.chars().next()) else {
        return Err("a word stands behind an option; write it on a line of its own".to_owned());
    };
    let found = OPTIONS.iter().find(|(_, short, _)| *short == Some(letter));
    let (name, _, takes) = found.ok_or_else(|| format!("-{letter} is not an option of requirements files"))?;
    let rest = word.get(2..).unwrap_or_default();
    let value = rest.strip_prefix('=').unwrap_or(rest);
    Ok((*name, *takes, (!value.is_empty()).then(|| value.to_owned())))
}

/// Splits at blanks as a shell does, with quotes and backslashes.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(characters.next()),
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, ' ' | '\t') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    if quote.is_some() { Err("a quote is not closed".to_owned()) } else { Ok(words) }
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
                    x @ https://e.example/x-1.whl#sha256=ab\ny \\\n# a comment ends the line \\\nz\r\n";
        let expected = [
            requirement("requests==2.32 --hash=sha256:ab --hash=sha256:cd"),
            requirement("pandas >= 2"),
            requirement("x @ https://e.example/x-1.whl#sha256=ab"),
            requirement("y"),
            requirement("z"),
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
            ("pandas --index-url https://secret", "--index-url stands behind a requirement"),
            ("pandas -C secret=1", "--config-settings is not supported"),
            ("--hash=sha256:secret", "--hash stands without a requirement"),
        ] {
            let error = lines(text).unwrap_err();
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
        assert!(decode(b"pandas # \xe9\n".to_vec()).unwrap_err().contains("save the file as UTF-8"));
        assert!(decode(b"# coding=koi8-r\npandas\n".to_vec()).unwrap_err().contains("\"koi8-r\" is not supported"));
    }
}
