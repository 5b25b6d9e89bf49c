//! Writes records, either into memory or as lines of JSON.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::record::{Line, Name, Use, What};

/// Records events. Any number of tasks and threads can share a writer.
pub struct Writer {
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
    last_id: AtomicU64,
    sink: Mutex<Sink>,
}

struct Sink {
    lines: Vec<Line>,
    out: Option<Box<dyn io::Write + Send>>,
    /// The first error of a write.
    failure: Option<io::Error>,
}

impl Writer {
    /// Keeps the lines in memory. `clock` returns the nanoseconds since the start that all lines share.
    pub fn in_memory(clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self::new(clock, None)
    }

    /// Writes each line to `out` at once, and keeps no lines. If `out` is not buffered, the record loses at most one
    /// line when the process is killed. A `File` is not buffered.
    pub fn to(out: impl io::Write + Send + 'static, clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self::new(clock, Some(Box::new(out)))
    }

    fn new(clock: impl Fn() -> u64 + Send + Sync + 'static, out: Option<Box<dyn io::Write + Send>>) -> Self {
        let sink = Sink {
            lines: Vec::new(),
            out,
            failure: None,
        };
        Self {
            clock: Box::new(clock),
            last_id: AtomicU64::new(0),
            sink: Mutex::new(sink),
        }
    }

    pub fn now(&self) -> u64 {
        (self.clock)()
    }

    /// Returns a number that this writer has not returned before, for an operation, a holder or a subscription.
    pub fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Records an event at the current time.
    pub fn note(&self, what: What) {
        self.note_at(self.now(), what);
    }

    pub fn note_at(&self, at: u64, what: What) {
        let line = Line { at, what };
        let mut sink = self.sink();
        let Some(out) = &mut sink.out else {
            return sink.lines.push(line);
        };
        if let Err(error) = write(out, &line) {
            sink.failure.get_or_insert(error);
        }
    }

    /// Calls `is_held` and returns its result. Records the result as a use of the holder.
    pub fn note_use(&self, process: &Name, holder: u64, is_held: impl FnOnce() -> bool) -> bool {
        let before = self.now();
        let held = is_held();
        let at = if held { before } else { self.now() };
        let process = process.clone();
        self.note_at(at, What::Use(Use { process, holder, held }));
        held
    }

    /// Takes the lines that were kept. If a line could not be written, returns the first error instead.
    pub fn finish(&self) -> io::Result<Vec<Line>> {
        let mut sink = self.sink();
        match sink.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(std::mem::take(&mut sink.lines)),
        }
    }

    fn sink(&self) -> MutexGuard<'_, Sink> {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the line and its newline with one call.
fn write(out: &mut dyn io::Write, line: &Line) -> io::Result<()> {
    let mut written = serde_json::to_vec(line)?;
    written.push(b'\n');
    out.write_all(&written)
}
