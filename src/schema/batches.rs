//! What a data migration does batch by batch, beside the running server: read from its file.

/// The statements after `-- step: batch` and `-- step: left`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batches {
    /// `$1`: the watermark (jsonb; null at the beginning), `$2`: how many rows to look at (bigint). Returns one row: the
    /// next watermark (jsonb; null when there is nothing behind it) and how many rows it changed (bigint).
    pub batch: String,
    /// How many rows are still to be changed (bigint): 0 is what verified means.
    pub left: String,
}

const MARK: &str = "-- step: ";

impl Batches {
    /// The text that runs once, in the migration's own transaction, and the steps, where there are any.
    pub(super) fn split(file: &str, sql: &str) -> Result<(String, Option<Self>), String> {
        let Some(begin) = sql.find(&format!("\n{MARK}")) else { return Ok((sql.to_owned(), None)) };
        let (once, steps) = sql.split_at(begin + 1);
        let (mut batch, mut left) = (None, None);
        for step in steps.split(MARK).skip(1) {
            let (name, text) = step.split_once('\n').unwrap_or((step, ""));
            let text = text.trim().trim_end_matches(';').to_owned();
            match name.trim() {
                "batch" => batch = Some(text),
                "left" => left = Some(text),
                other => return Err(format!("{file} has a step {other:?}; there are `batch` and `left`")),
            }
        }
        match (batch, left) {
            (Some(batch), Some(left)) => Ok((once.to_owned(), Some(Self { batch, left }))),
            _ => Err(format!("{file} needs both steps, `batch` and `left`")),
        }
    }
}
