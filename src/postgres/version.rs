//! Minor versions of PostgreSQL. One is a drop-in replacement for another of its major version: the data directory stays.
//! Source: <https://www.postgresql.org/support/versioning/>.

use super::{MAJOR, NEWEST, PgError};
use tokio_postgres::Client;

/// The numbers of a version, to compare. What is no number counts as 0.
pub fn numbers(version: &str) -> Vec<u32> {
    // `18.4 (Debian ...)` is 18.4.
    let version = version.split_whitespace().next().unwrap_or_default();
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// Whether a server of our major version lacks the fixes of the newest minor version.
pub fn is_behind(version: &str) -> bool {
    let numbers = numbers(version);
    numbers.first() == Some(&MAJOR) && numbers < self::numbers(NEWEST)
}

/// What the server says of itself, perhaps with the name of its packager.
pub async fn of_server(client: &Client) -> Result<String, PgError> {
    let row = client.query_one("SELECT current_setting('server_version')", &[]).await?;
    Ok(row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::DOWNLOAD_VERSION;

    #[test]
    fn an_older_minor_version_is_behind() {
        for (version, expected) in [
            ("18.4", true),
            ("18.4 (Debian 18.4-1.pgdg13+1)", true),
            (NEWEST, false),
            ("18.10", false),
            // Another major version is refused elsewhere.
            ("17.11", false),
            ("19beta1", false),
        ] {
            assert_eq!(is_behind(version), expected, "{version}");
        }
    }

    #[test]
    fn the_newest_minor_version_is_the_one_downloaded() {
        assert_eq!(DOWNLOAD_VERSION, format!("{NEWEST}.0"));
    }
}
