//! The random numbers that tokens are made of.

use crate::error::{Error, ErrorKind, Result};

/// Unpredictable numbers, fetched from the operating system in batches.
#[derive(Debug, Default)]
pub(super) struct Random {
    pool: Vec<u64>,
    /// A predictable generator, for reproducible runs.
    seeded: Option<fastrand::Rng>,
}

const BATCH: usize = 128;

impl Random {
    /// Creates a generator from the seed. Without a seed, it takes numbers from the operating system, and fails if
    /// there are none.
    pub(super) fn of(seed: Option<u64>) -> Result<Self> {
        match seed {
            Some(seed) => Ok(Self::seeded(seed)),
            None => Self::unpredictable(),
        }
    }

    fn unpredictable() -> Result<Self> {
        let mut random = Self::default();
        random.refill().map_err(|error| {
            Error::new(
                ErrorKind::Connect,
                format!("the operating system provides no random numbers: {error}"),
            )
        })?;
        Ok(random)
    }

    /// Creates a generator whose numbers follow from `seed`.
    pub(super) fn seeded(seed: u64) -> Self {
        Self {
            seeded: Some(fastrand::Rng::with_seed(seed)),
            ..Self::default()
        }
    }

    /// Returns the next number.
    pub(super) fn next(&mut self) -> u64 {
        if let Some(seeded) = &mut self.seeded {
            return seeded.u64(..);
        }
        if self.pool.is_empty() && self.refill().is_err() {
            // The operating system provided numbers when the server started. From release 2.1 on, the fence in the first
            // half keeps tokens unique even so.
            return fastrand::u64(..);
        }
        self.pool.pop().unwrap_or_else(|| fastrand::u64(..))
    }

    fn refill(&mut self) -> Result<(), getrandom::Error> {
        let mut bytes = [0_u8; BATCH * 8];
        getrandom::fill(&mut bytes)?;
        let numbers = bytes
            .chunks_exact(8)
            .map(|chunk| chunk.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
        self.pool.extend(numbers);
        Ok(())
    }
}
