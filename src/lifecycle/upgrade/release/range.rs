//! Interprets a host's response to a range request when a download resumes.

use reqwest::StatusCode;
use reqwest::header::HeaderValue;

/// A host's response to a request for the rest of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum RangeAnswer {
    /// The requested rest of the file.
    Rest,
    /// The whole file.
    Whole,
    /// Another part of the file, or none: the whole file must be requested.
    Useless,
    /// An error that a request for the whole file would return too.
    Failed,
}

/// Classifies a response. `from` is the offset of the first requested byte, `size` the size of the whole file. The
/// header is `Content-Range: bytes FIRST-LAST/TOTAL` (<https://www.rfc-editor.org/rfc/rfc9110#section-14.4>).
pub fn answer_to_range(status: StatusCode, content_range: Option<&HeaderValue>, from: u64, size: u64) -> RangeAnswer {
    let range = content_range.and_then(|value| value.to_str().ok()).and_then(|text| text.trim().strip_prefix("bytes "));
    let (first, total) = match range.and_then(|range| range.split_once('/')) {
        Some((span, total)) => {
            (span.split('-').next().and_then(|first| first.trim().parse().ok()), total.trim().parse().ok())
        }
        None => (None, None),
    };
    let is_same_file = total.is_none_or(|total: u64| total == size);
    match status {
        StatusCode::PARTIAL_CONTENT if first == Some(from) && is_same_file => RangeAnswer::Rest,
        StatusCode::PARTIAL_CONTENT if first == Some(0) => RangeAnswer::Whole,
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => RangeAnswer::Useless,
        status if status.is_success() => RangeAnswer::Whole,
        // Some hosts refuse the Range header itself.
        StatusCode::BAD_REQUEST | StatusCode::PRECONDITION_FAILED | StatusCode::NOT_IMPLEMENTED => RangeAnswer::Useless,
        _ => RangeAnswer::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resumes_only_from_the_requested_range() {
        let answer = |status: u16, range: &'static str| {
            let header = (!range.is_empty()).then(|| HeaderValue::from_static(range));
            answer_to_range(StatusCode::from_u16(status).unwrap(), header.as_ref(), 300, 1000)
        };
        assert_eq!(answer(206, "bytes 300-999/1000"), RangeAnswer::Rest);
        assert_eq!(answer(206, "bytes 300-999/*"), RangeAnswer::Rest);
        assert_eq!(answer(206, "bytes 0-999/1000"), RangeAnswer::Whole);
        assert_eq!(answer(200, ""), RangeAnswer::Whole);
        for (status, range) in [
            (206, "bytes 200-999/1000"),
            (206, "bytes 300-899/900"),
            (206, ""),
            (206, "multipart"),
            (416, "bytes */1000"),
            (416, ""),
            (400, ""),
            (501, ""),
        ] {
            assert_eq!(answer(status, range), RangeAnswer::Useless, "{status} {range}");
        }
        for status in [401, 403, 404, 500, 503] {
            assert_eq!(answer(status, ""), RangeAnswer::Failed, "{status}");
        }
    }
}
