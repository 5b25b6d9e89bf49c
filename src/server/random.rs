//! The random half of tokens.

use crate::error::{Error, ErrorKind, Result};

/// Unpredictable numbers, fetched from the operating system in batches.
#[derive(Debug, Default)]
pub(super) struct Random {
    pool: Vec<u64>,
    /// Numbers that can be predicted, for runs that repeat themselves.
    seeded: Option<fastrand::Rng>,
}

const BATCH: usize = 128;

impl Random {
    /// A generator whose numbers follow from the seed, or one that is known to work.
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
                format!("the operating system gives no random numbers: {error}"),
            )
        })?;
        Ok(random)
    }

    /// A generator whose numbers follow from `seed`.
    pub(super) fn seeded(seed: u64) -> Self {
        Self {
            seeded: Some(fastrand::Rng::with_seed(seed)),
            ..Self::default()
        }
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        if let Some(seeded) = &mut self.seeded {
            return seeded.u64(..);
        }
        if self.pool.is_empty() && self.refill().is_err() {
            // It worked when the server was started. The fence in front keeps tokens unique all the same.
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
