//! The resource that the locks protect: an SQLite database with a counter for each key. All client processes write to
//! it. The resource refuses a write whose fence is older than the newest fence of the key.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

pub(crate) struct Resource {
    connection: Mutex<Connection>,
}

/// The outcome of an attempt to add one to a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// The resource has stored the new count.
    Acknowledged,
    /// Refused: an earlier write to this key had a newer fence.
    Stale,
}

impl Resource {
    /// Opens the database in a directory. Creates it if it is missing.
    pub(crate) fn open(directory: &Path) -> rusqlite::Result<Self> {
        // If a process is stopped during a write, it blocks the writes of all other processes until it is thawed.
        const PATIENCE: Duration = Duration::from_secs(20);
        let connection = Connection::open(directory.join("resource.sqlite"))?;
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // The data must survive the end of the process that wrote it. It need not survive a crash of the machine.
        connection.pragma_update(None, "synchronous", "off")?;
        connection.execute_batch(
            "create table if not exists counter (key text primary key, fence integer not null, count integer not null);
             create table if not exists increment (number integer primary key autoincrement, id text not null unique, key text not null, fence integer not null);",
        )?;
        Ok(Self {
            connection: Mutex::new(connection),
        })
    }

    /// Adds one to the counter of a key. Refuses if the counter has a newer fence. Each attempt has a unique `id`.
    pub(crate) fn add(&self, key: &str, fence: u64, id: &str) -> rusqlite::Result<Added> {
        // SQLite's integers are signed. Fences start at the Unix time in nanoseconds, which fits until the year 2262.
        let fence = i64::try_from(fence).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let newest: Option<i64> = transaction
            .query_row("select fence from counter where key = ?1", [key], |row| row.get(0))
            .optional()?;
        if newest.is_some_and(|newest| newest > fence) {
            return Ok(Added::Stale);
        }
        transaction.execute(
            "insert into counter (key, fence, count) values (?1, ?2, 1)
             on conflict (key) do update set fence = excluded.fence, count = count + 1",
            params![key, fence],
        )?;
        transaction.execute(
            "insert into increment (id, key, fence) values (?1, ?2, ?3)",
            params![id, key, fence],
        )?;
        transaction.commit()?;
        Ok(Added::Acknowledged)
    }

    /// Returns the count of each key.
    pub(crate) fn counts(&self) -> rusqlite::Result<Vec<(String, u64)>> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = connection.prepare("select key, count from counter order by key")?;
        counts.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }

    /// Returns the ID, key and fence of each accepted attempt, oldest first.
    pub(crate) fn increments(&self) -> rusqlite::Result<Vec<(String, String, i64)>> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = connection.prepare("select id, key, fence from increment order by number")?;
        all.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect()
    }
}
