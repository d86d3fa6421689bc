//! What a child of the supervisor says for its log: the supervisor keeps what it prints.

use std::fmt::Display;
use std::io::Write;

/// One line. That it cannot be said is nothing that can be said.
pub fn say(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
