//! The protected resource: a counter for each key, in a file that all processes write. It rejects writes with an older
//! fence than it has seen.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

pub(crate) struct Resource {
    connection: Mutex<Connection>,
}

/// The outcome of an attempt to add one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// Done: the resource has it.
    Acknowledged,
    /// The resource has seen a newer fence.
    Stale,
}

impl Resource {
    /// Opens the database in this directory, and creates it if it is missing.
    pub(crate) fn open(directory: &Path) -> rusqlite::Result<Self> {
        // A process that is stopped while it writes blocks all others until it is thawed.
        const PATIENCE: Duration = Duration::from_secs(20);
        let connection = Connection::open(directory.join("resource.sqlite"))?;
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // Written data must survive its process, but not the machine.
        connection.pragma_update(None, "synchronous", "off")?;
        connection.execute_batch(
            "create table if not exists counter (key text primary key, fence integer not null, count integer not null);
             create table if not exists increment (number integer primary key autoincrement, id text not null unique, key text not null, fence integer not null);",
        )?;
        Ok(Self {
            connection: Mutex::new(connection),
        })
    }

    /// Adds one to the counter of a key, unless it has seen a newer fence. Each attempt has a unique ID.
    pub(crate) fn add(&self, key: &str, fence: u64, id: &str) -> rusqlite::Result<Added> {
        // SQLite's integers are signed. Fences start from the time in nanoseconds, which fits for two more centuries.
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

    /// Returns all additions in order: ID, key and fence.
    pub(crate) fn increments(&self) -> rusqlite::Result<Vec<(String, String, i64)>> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = connection.prepare("select id, key, fence from increment order by number")?;
        all.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect()
    }
}
