//! Why a declaration of dependencies cannot be used. Each text is a message for the user, and contains no value that may
//! be a secret.

use crate::io_error::IoError;
use leoflow_base::config::ConfigError;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum DeclarationError {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error(transparent)]
    Settings(#[from] ConfigError),
    #[error("{}: {source}", path.display())]
    Toml { path: PathBuf, source: toml::de::Error },
    #[error("{origin}: {source}")]
    In { origin: String, source: LineError },
    #[error("{first} and {second} do not agree on {subject}; keep one of the two, or make both the same")]
    Conflict { first: String, second: String, subject: &'static str },
    #[error("{}: its dependencies are `dynamic`, so only a build can list them; list them in [project]", .0.display())]
    Dynamic(PathBuf),
    #[error(
        "{}: {key} of [tool.{tool}] is not supported; leoflow.yaml has `index`, `extra_index` and `constraints`; an \
         address goes into the requirement, as in `name @ https://…`",
        path.display()
    )]
    ToolSetting { path: PathBuf, key: String, tool: &'static str },
    #[error("{}: it has {count} blocks `# /// script`; only one is allowed", path.display())]
    ScriptBlocks { path: PathBuf, count: usize },
}

impl DeclarationError {
    /// Adds to the reason the file, setting or variable that contains the line.
    pub(crate) fn in_origin(origin: impl ToString) -> impl Fn(LineError) -> Self {
        move |source| Self::In { origin: origin.to_string(), source }
    }
}

/// Why a line, an option or an address is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    #[error("{0}: {1}")]
    Requirement(String, Box<LineError>),
    #[error("not valid UTF-16 text")]
    NotUtf16,
    #[error("not UTF-8 text; save the file as UTF-8")]
    NotUtf8,
    #[error("the encoding {0:?} is not supported; save the file as UTF-8")]
    Encoding(String),
    #[error("a quote is not closed")]
    OpenQuote,
    #[error("a word stands behind an option; write it on a line of its own")]
    WordBehindOption,
    #[error("{0} is not an option of requirements files")]
    NoOption(String),
    #[error("{0} needs a value")]
    NoValue(&'static str),
    #[error("{0} takes no value")]
    UnexpectedValue(&'static str),
    #[error("{0} stands without a requirement; write it behind one")]
    WithoutRequirement(&'static str),
    #[error("{0}")]
    Unsupported(&'static str),
    #[error("{0} is not a requirement; options belong into a requirements.txt")]
    OptionAsRequirement(String),
    #[error(
        "{0:?}: a folder or file cannot be locked; put a wheel into a folder of the project, name that with \
         --find-links in its requirements.txt, and write NAME==VERSION"
    )]
    FileOrFolder(String),
    #[error("no such file: {}", .0.display())]
    NoFile(PathBuf),
    #[error("no such folder: {}", .0.display())]
    NoFolder(PathBuf),
    #[error("it includes more than {0} files, or itself")]
    TooManyFiles(usize),
    #[error("more than {0} files are included, or one includes itself")]
    TooManyAddresses(usize),
    #[error("{0}")]
    Fetch(String),
    #[error("{0} is not supported in a file at an address; move it to the project's file")]
    OptionAtAddress(&'static str),
    #[error(
        "a file at an address must not name variables, because it would learn their values; save it in the project"
    )]
    VariableAtAddress,
    #[error(
        "its address must not contain a password, which ssh does not read there; use a key, as in git+ssh://git@HOST/…"
    )]
    SshPassword,
    #[error(
        "its address must not contain a password or a token; put it into ~/.netrc, or write ${{NAME}} in its place and \
         set NAME in the project's .env"
    )]
    Password,
    #[error("{0:?} is not a valid index address")]
    IndexAddress(String),
    #[error("${{{0}}} is not set; set {0} in the project's .env, or in the environment that starts Leoflow")]
    Unset(String),
    #[error("{0:?} is not a Python version, such as \"3.12\" or \">=3.10,<3.13\"")]
    PythonVersion(String),
    #[error("a hash of {algorithm:?} does not pin a file; use {supported}")]
    WeakHash { algorithm: String, supported: String },
    #[error("{hash:?} is not a valid hash: {algorithm} has {digits} hexadecimal digits")]
    HashDigits { hash: String, algorithm: String, digits: usize },
    #[error("a git address has no files with hashes; pin its commit, as in `{0} @ git+https://…@COMMIT`")]
    GitHash(String),
}

impl LineError {
    /// Adds the name of the requirement, or another subject, to the reason.
    pub fn about(subject: impl ToString) -> impl Fn(Self) -> Self {
        move |reason| Self::Requirement(subject.to_string(), Box::new(reason))
    }
}
