//! Parses the batch statements of a data migration, which runs in batches while the server works.

/// The statements after `-- step: batch` and `-- step: left`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batches {
    /// `$1`: the watermark (jsonb; null at first), `$2`: the number of rows to process (bigint). Returns one row: the
    /// next watermark (jsonb; null after the last row) and the number of changed rows (bigint).
    pub batch: String,
    /// Counts the rows still to be changed (bigint); the migration is verified when it returns 0.
    pub left: String,
}

/// Begins the line before a step.
const STEP_MARKER: &str = "-- step: ";

impl Batches {
    /// Splits a file into the text that runs once, in the migration's transaction, and the steps, if any.
    pub(super) fn split(sql: &str) -> Result<(String, Option<Self>), &'static str> {
        let Some(begin) = sql.find(&format!("\n{STEP_MARKER}")) else { return Ok((sql.to_owned(), None)) };
        let (setup, steps) = sql.split_at(begin + 1);
        let (mut batch, mut left) = (None, None);
        for step in steps.split(STEP_MARKER).skip(1) {
            let (name, text) = step.split_once('\n').unwrap_or((step, ""));
            let text = text.trim().trim_end_matches(';').to_owned();
            match name.trim() {
                "batch" => batch = Some(text),
                "left" => left = Some(text),
                _ => return Err("has an unknown step; use `batch` and `left`"),
            }
        }
        match (batch, left) {
            (Some(batch), Some(left)) => Ok((setup.to_owned(), Some(Self { batch, left }))),
            _ => Err("needs both steps, `batch` and `left`"),
        }
    }
}
