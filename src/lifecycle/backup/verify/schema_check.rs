//! Compares the schemas of two databases by the statements that `pg_dump` writes. A restored schema must equal the one
//! that our migrations create: an added trigger, function or view could later run with the rights of our sessions.

/// Returns the first difference between two schema dumps, `None` if there is none. Ignores comments, blank lines, and
/// additional plain indexes in `actual`.
pub fn difference(expected: &str, actual: &str) -> Option<String> {
    let mut remaining = statements(expected).peekable();
    for line in statements(actual) {
        if remaining.peek() == Some(&line) {
            remaining.next();
        } else if !is_plain_index(line) {
            return Some(shortened(line));
        }
    }
    remaining.next().map(|line| format!("{} is missing", shortened(line)))
}

fn statements(text: &str) -> impl Iterator<Item = &str> {
    // `\restrict` and `\unrestrict` contain a random word.
    let is_ignored = |line: &&str| line.is_empty() || line.starts_with("--") || line.starts_with("\\");
    text.lines().filter(move |line| !is_ignored(line))
}

/// Matches `CREATE INDEX name ON public.table USING method (column, column DESC);` with plain names only: no expression
/// that could call a function.
pub fn is_plain_index(line: &str) -> bool {
    let split_statement = || {
        let rest = line.strip_prefix("CREATE INDEX ")?;
        let (name, rest) = rest.split_once(" ON public.")?;
        let (table, rest) = rest.split_once(" USING ")?;
        let (method, rest) = rest.split_once(" (")?;
        let columns = rest.strip_suffix(");")?;
        Some((name, table, method, columns))
    };
    let Some((name, table, method, columns)) = split_statement() else { return false };
    let is_plain_column = |column: &str| {
        let sort_order =
            [" DESC NULLS LAST", " NULLS FIRST", " DESC"].iter().find_map(|sort_order| column.strip_suffix(sort_order));
        is_plain_name(sort_order.unwrap_or(column))
    };
    [name, table].into_iter().all(is_plain_name)
        && ["btree", "hash", "brin"].contains(&method)
        && columns.split(", ").all(is_plain_column)
}

fn is_plain_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn shortened(line: &str) -> String {
    let line = line.trim();
    if line.chars().count() <= 120 { line.to_owned() } else { line.chars().take(117).chain("...".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "-- a comment\n\nCREATE TABLE public.a (\n    id integer\n);\nALTER TABLE public.a ADD x;\n";

    #[test]
    fn ignores_comments_and_blank_lines() {
        let other = "\\restrict abc\n-- another\nCREATE TABLE public.a (\n    id integer\n);\n\n\nALTER TABLE public.a ADD x;\n\\unrestrict abc\n";
        assert_eq!(difference(OURS, other), None);
    }

    #[test]
    fn accepts_additional_plain_indexes_only() {
        let ours_and = |line: &str| format!("{OURS}{line}\n");
        for plain in [
            "CREATE INDEX mine ON public.a USING btree (id);",
            "CREATE INDEX mine ON public.a USING btree (id DESC, x);",
            "CREATE INDEX mine ON public.a USING hash (id);",
        ] {
            assert_eq!(difference(OURS, &ours_and(plain)), None, "{plain}");
        }
        for other in [
            "CREATE INDEX mine ON public.a USING btree (evil(id));",
            "CREATE UNIQUE INDEX mine ON public.a USING btree (id);",
            "CREATE INDEX mine ON public.a USING btree (id) WHERE evil(id);",
            "CREATE INDEX mine ON other.a USING btree (id);",
            "CREATE TRIGGER t AFTER INSERT ON public.a FOR EACH ROW EXECUTE FUNCTION public.f();",
            "CREATE FUNCTION public.f() RETURNS trigger",
            "GRANT ALL ON TABLE public.a TO PUBLIC;",
        ] {
            assert_eq!(difference(OURS, &ours_and(other)), Some(other.to_owned()));
        }
    }

    #[test]
    fn reports_missing_and_reordered_statements() {
        assert!(difference(OURS, "CREATE TABLE public.a (\n    id integer\n);\n").unwrap().contains("is missing"));
        assert!(difference(OURS, "").is_some());
        assert!(difference("a\nb\n", "b\na\n").is_some());
    }
}
