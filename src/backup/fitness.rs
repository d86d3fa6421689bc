//! Whether the tables of two databases are made the same way, by the statements that `pg_dump` writes
//! for them. A restored database has to be what our own migrations make, and nothing more: a trigger,
//! a function or a view would act later, as whoever touches it.

/// What is different, if anything. Comments and blank lines do not count; plain indexes that `found`
/// has beside the expected ones do not either.
pub fn difference(expected: &str, found: &str) -> Option<String> {
    let mut wanted = statements(expected).peekable();
    for line in statements(found) {
        if wanted.peek() == Some(&line) {
            wanted.next();
        } else if !is_plain_index(line) {
            return Some(shortened(line));
        }
    }
    wanted.next().map(|line| format!("{} is missing", shortened(line)))
}

fn statements(text: &str) -> impl Iterator<Item = &str> {
    // `\restrict` and its end carry a random word.
    let says_nothing = |line: &&str| line.is_empty() || line.starts_with("--") || line.starts_with("\\");
    text.lines().filter(move |line| !says_nothing(line))
}

/// `CREATE INDEX name ON public.table USING method (column, column DESC);`, all of it plain names: no
/// expression that could call something.
pub fn is_plain_index(line: &str) -> bool {
    let parts = || {
        let rest = line.strip_prefix("CREATE INDEX ")?;
        let (name, rest) = rest.split_once(" ON public.")?;
        let (table, rest) = rest.split_once(" USING ")?;
        let (method, rest) = rest.split_once(" (")?;
        let columns = rest.strip_suffix(");")?;
        Some((name, table, method, columns))
    };
    let Some((name, table, method, columns)) = parts() else { return false };
    let plain_column = |column: &str| {
        let end = [" DESC NULLS LAST", " NULLS FIRST", " DESC"].iter().find_map(|end| column.strip_suffix(end));
        is_plain_name(end.unwrap_or(column))
    };
    [name, table].into_iter().all(is_plain_name)
        && ["btree", "hash", "brin"].contains(&method)
        && columns.split(", ").all(plain_column)
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
    fn the_same_statements_are_the_same_whatever_is_said_about_them() {
        let other = "\\restrict abc\n-- another\nCREATE TABLE public.a (\n    id integer\n);\n\n\nALTER TABLE public.a ADD x;\n\\unrestrict abc\n";
        assert_eq!(difference(OURS, other), None);
    }

    #[test]
    fn an_index_of_the_users_own_is_no_difference_if_it_is_plain() {
        let with = |line: &str| format!("{OURS}{line}\n");
        for plain in [
            "CREATE INDEX mine ON public.a USING btree (id);",
            "CREATE INDEX mine ON public.a USING btree (id DESC, x);",
            "CREATE INDEX mine ON public.a USING hash (id);",
        ] {
            assert_eq!(difference(OURS, &with(plain)), None, "{plain}");
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
            assert_eq!(difference(OURS, &with(other)), Some(other.to_owned()));
        }
    }

    #[test]
    fn what_is_missing_or_out_of_order_is_named() {
        assert!(difference(OURS, "CREATE TABLE public.a (\n    id integer\n);\n").unwrap().contains("is missing"));
        assert!(difference(OURS, "").is_some());
        assert!(difference("a\nb\n", "b\na\n").is_some());
    }
}
