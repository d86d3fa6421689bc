//! Counts with their nouns, for messages.

use std::fmt::Display;

/// Formats a count with its noun: `1 task`, `2 tasks`, `3 batches`.
pub fn counted(count: impl Display, noun: &str) -> String {
    let count = count.to_string();
    let ending = match noun {
        _ if count == "1" => "",
        _ if noun.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{count} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_singular() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "package")), ["0 packages", "1 package", "2 packages"]);
        assert_eq!(counted(3, "batch"), "3 batches");
    }
}
