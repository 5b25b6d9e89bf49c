//! The history of a run: always its hash, and its text on request.

use std::time::Duration;

use tokio::time::Instant;

use crate::types::Token;

/// Returns the name of a grant in histories: the first half of its token, which is unique for grants of one server.
pub(super) fn grant(token: Token) -> String {
    let first = &token.as_str()[..16];
    format!("grant {}", first.trim_start_matches('0'))
}

/// The history of a run.
pub(super) struct SimTrace {
    begun: Instant,
    hash: u64,
    /// `None` if only the hash is needed.
    lines: Option<Vec<(Duration, String)>>,
}

impl SimTrace {
    pub(super) fn new(begun: Instant, with_text: bool) -> Self {
        Self {
            begun,
            hash: 0xcbf2_9ce4_8422_2325,
            lines: with_text.then(Vec::new),
        }
    }

    /// Notes an event. `what` and `numbers` are hashed; `text` is only for readers.
    pub(super) fn log(&mut self, now: Instant, what: &'static str, numbers: &[u64], text: impl FnOnce() -> String) {
        let at = now.saturating_duration_since(self.begun);
        self.mix(at.as_nanos() as u64);
        self.mix(what.len() as u64 | u64::from(what.as_bytes().first().copied().unwrap_or_default()) << 8);
        for number in numbers {
            self.mix(*number);
        }
        if let Some(lines) = &mut self.lines {
            let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
            lines.push((at, format!("{what} [{}] {}", numbers.join(" "), text())));
        }
    }

    /// Returns the hash of the history, which is equal for equal histories.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// Returns the last `most` lines.
    pub(super) fn text(&self, most: usize) -> String {
        let lines = self.lines.as_deref().unwrap_or_default();
        let left_out = lines.len().saturating_sub(most);
        let mut text = match left_out {
            0 => String::new(),
            _ => format!("({left_out} lines before)\n"),
        };
        for (at, line) in &lines[left_out..] {
            text.push_str(&format!("{:>10.4} {line}\n", at.as_secs_f64()));
        }
        text
    }

    fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
}
