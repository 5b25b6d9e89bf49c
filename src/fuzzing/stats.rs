//! The statistics of a server: any JSON is parsed or rejected, and parsed statistics stay the same when they are
//! written and parsed again.

use crate::protocol::{Call, Response};
use crate::stats::Stats;

/// Parses bytes as the answer to `stats`.
pub fn stats(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let answered = Call::stats().finish(Response::Json(text.into()));
    let read: Option<Stats> = serde_json::from_str(text).ok();
    if let Err(error) = &answered {
        let kept = format!("{error:?}");
        assert!(kept.len() < 1_000, "{} bytes of an answer are kept", kept.len());
    }
    assert_eq!(
        answered.ok(),
        read,
        "the answer and the same text are parsed differently"
    );
    let Some(read) = read else { return };
    let written = serde_json::to_string(&read).unwrap();
    let again: Stats = serde_json::from_str(&written).unwrap();
    assert_eq!(again, read, "{written}");
    let mut merged = read.clone();
    merged.merge(again);
    assert_eq!(merged.locks.len(), 2 * read.locks.len());
    assert_eq!(merged.cluster, read.cluster);
    let twice = read.connections.saturating_mul(2);
    assert_eq!(merged.connections, twice);
}
