//! The trace of a world: a text with one line for each event. The tests compare the checksums of traces. The text is
//! kept only on request.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::net::Time;

/// The trace of a world. All clones share one trace.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Kept>>);

struct Kept {
    sum: u64,
    line: String,
    text: Option<String>,
}

impl Trace {
    pub fn new(keeps_text: bool) -> Self {
        Self(Arc::new(Mutex::new(Kept {
            sum: 0xcbf2_9ce4_8422_2325,
            line: String::new(),
            text: keeps_text.then(String::new),
        })))
    }

    pub fn note(&self, at: Time, what: fmt::Arguments<'_>) {
        let mut kept = self.kept();
        let Kept { sum, line, text } = &mut *kept;
        line.clear();
        let written = writeln!(line, "{:>10.3} {what}", at as f64 / 1e6);
        debug_assert!(written.is_ok(), "a string takes everything");
        for byte in line.bytes() {
            *sum = (*sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(text) = text {
            text.push_str(line);
        }
    }

    /// Returns the checksum of all lines.
    pub fn sum(&self) -> u64 {
        self.kept().sum
    }

    /// Returns all lines, if they were kept.
    pub fn text(&self) -> String {
        self.kept().text.clone().unwrap_or_default()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
