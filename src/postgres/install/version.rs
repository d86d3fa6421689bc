//! Minor versions of PostgreSQL, which are drop-in replacements within a major version: the data directory is
//! compatible. Source: <https://www.postgresql.org/support/versioning/>.

use crate::{MAJOR, NEWEST, PgError};
use tokio_postgres::Client;

/// Numbers of a version, for comparison. A part that is not a number counts as 0.
pub fn numbers(version: &str) -> Vec<u32> {
    // `18.4 (Debian ...)` is 18.4.
    let version = version.split_whitespace().next().unwrap_or_default();
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// True when a server of the supported major version lacks fixes of the newest minor version.
pub fn is_behind(version: &str) -> bool {
    let numbers = numbers(version);
    numbers.first() == Some(&MAJOR) && numbers < self::numbers(NEWEST)
}

/// Version reported by the server, possibly with its packager's name.
pub async fn of_server(client: &Client) -> Result<String, PgError> {
    let row = client.query_one("SELECT current_setting('server_version')", &[]).await?;
    Ok(row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DOWNLOAD_VERSION;

    #[test]
    fn an_older_minor_version_is_behind() {
        for (version, expected) in [
            ("18.4", true),
            ("18.4 (Debian 18.4-1.pgdg13+1)", true),
            (NEWEST, false),
            ("18.10", false),
            // Other major versions are refused elsewhere.
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
