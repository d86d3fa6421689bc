//! Airflow's list parameters.

use super::api_error::ApiError;
use crate::engine::store::Page;
use axum::http::StatusCode;
use serde::Deserialize;

/// Airflow's `maximum_page_limit`; a larger limit is lowered to it.
const MOST: i64 = 100;
const USUAL: i64 = 50;

#[derive(Debug, Default, Deserialize)]
pub struct ListParams {
    limit: Option<i64>,
    offset: Option<i64>,
    order_by: Option<String>,
    variable_key_pattern: Option<String>,
    connection_id_pattern: Option<String>,
}

impl ListParams {
    /// `column` is the one column that can be ordered by.
    pub fn page(self, column: &str) -> Result<Page, ApiError> {
        let negative = |name: &str| {
            ApiError::unprocessable(
                &["query", name],
                "greater_than_equal",
                "Input should be greater than or equal to 0",
            )
        };
        let limit = self.limit.unwrap_or(USUAL);
        let offset = self.offset.unwrap_or(0);
        if limit < 0 {
            return Err(negative("limit"));
        }
        if offset < 0 {
            return Err(negative("offset"));
        }
        let descending = match self.order_by.as_deref() {
            None => false,
            Some(order) if order == column => false,
            Some(order) if order.strip_prefix('-') == Some(column) => true,
            Some(order) => {
                let name = order.trim_start_matches('-');
                let detail =
                    format!("Ordering with '{name}' is disallowed or the attribute does not exist on the model");
                return Err(ApiError::new(StatusCode::BAD_REQUEST, detail));
            }
        };
        let pattern = self.variable_key_pattern.or(self.connection_id_pattern);
        // Airflow's patterns find a part; `~` is its word for anything.
        let pattern = pattern.filter(|text| text != "~").map(|text| format!("%{text}%"));
        Ok(Page { limit: limit.min(MOST), offset, descending, pattern })
    }
}
