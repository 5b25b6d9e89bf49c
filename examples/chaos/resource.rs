//! What the locks protect: a counter for each key, in a file that all processes write. It refuses what comes with an older fence than it
//! has seen.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

pub(crate) struct Resource {
    connection: Mutex<Connection>,
}

/// What came of an attempt to add one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// Done: the resource has it.
    Acknowledged,
    /// A newer holder was here before.
    Stale,
}

impl Resource {
    /// Opens the database in this directory, and creates it if it is missing.
    pub(crate) fn open(directory: &Path) -> rusqlite::Result<Self> {
        // A process that is stopped while it writes keeps all others out until it is thawed.
        const PATIENCE: Duration = Duration::from_secs(20);
        let connection = Connection::open(directory.join("resource.sqlite"))?;
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // What is written must outlive its process, not the machine.
        connection.pragma_update(None, "synchronous", "off")?;
        connection.execute_batch(
            "create table if not exists counter (key text primary key, fence integer not null, count integer not null);
             create table if not exists increment (number integer primary key autoincrement, id text not null unique, key text not null, fence integer not null);",
        )?;
        Ok(Self {
            connection: Mutex::new(connection),
        })
    }

    /// Adds one to the counter of a key, unless that has seen a newer fence. Each attempt has an id of its own.
    pub(crate) fn add(&self, key: &str, fence: u64, id: &str) -> rusqlite::Result<Added> {
        // SQLite's numbers have a sign. Fences begin with the time in nanoseconds, which has room for two centuries.
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

    /// Of each key: its count.
    pub(crate) fn counts(&self) -> rusqlite::Result<Vec<(String, u64)>> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = connection.prepare("select key, count from counter order by key")?;
        counts.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }

    /// All that was added, in order: id, key and fence.
    pub(crate) fn increments(&self) -> rusqlite::Result<Vec<(String, String, i64)>> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = connection.prepare("select id, key, fence from increment order by number")?;
        all.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect()
    }
}
