//! Assigns shards to each key: one, or two while a fleet of clients changes its list of shards or its strategy.

use std::sync::Arc;

use super::CheckedStrategy;
use crate::error::{Error, ErrorKind, Result};

/// The placement of keys on shards. The shards of the current list come first, in its order, followed by those that
/// are only in the previous list.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    strategy: CheckedStrategy,
    /// The number of shards in the current list.
    shards: usize,
    previous: Option<Arc<Previous>>,
}

/// The previous placement of keys.
#[derive(Debug)]
struct Previous {
    strategy: CheckedStrategy,
    /// The current index of each shard of the previous list.
    shards: Vec<usize>,
    /// A number that clients with the same two lists share.
    fingerprint: u32,
}

/// The shards of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Its shard in the current list.
    pub(crate) shard: usize,
    /// Its shard in the previous list, if the key moves.
    pub(crate) previous: Option<usize>,
}

impl Placement {
    /// Creates a placement on `shards` shards by a strategy.
    pub(crate) fn new(strategy: CheckedStrategy, shards: usize) -> Self {
        Self {
            strategy,
            shards,
            previous: None,
        }
    }

    /// Adds the previous placement, which other clients still use. `shards` has the current index of each shard of the
    /// previous list, and `fingerprint` is a number that clients with the same two lists share.
    pub(crate) fn after(mut self, strategy: CheckedStrategy, shards: Vec<usize>, fingerprint: u32) -> Self {
        self.previous = Some(Arc::new(Previous {
            strategy,
            shards,
            fingerprint,
        }));
        self
    }

    /// Returns the fingerprint of the two lists in hexadecimal digits, if keys may move.
    pub(crate) fn fingerprint(&self) -> Option<String> {
        self.previous
            .as_ref()
            .map(|previous| format!("{:08x}", previous.fingerprint))
    }

    /// Returns the number of shards in the previous list, if keys may move.
    pub(crate) fn previous_shards(&self) -> Option<usize> {
        self.previous.as_ref().map(|previous| previous.shards.len())
    }

    /// Returns the number of shards in the current list.
    pub(crate) fn current_shards(&self) -> usize {
        self.shards
    }

    /// Returns the shards of a key.
    #[inline]
    pub(crate) fn place(&self, key: &str) -> Result<Placed> {
        let shard = self.strategy.shard(key, self.shards)?;
        let previous = match &self.previous {
            None => None,
            Some(previous) => Some(previous.shard(key)?).filter(|before| *before != shard),
        };
        Ok(Placed { shard, previous })
    }

    /// Returns the shard on which a channel's signals are emitted. During a transition, both lists contain this shard,
    /// so the clients of both lists listen there.
    pub(crate) fn emits_at(&self, channel: &str) -> Result<usize> {
        let placed = self.place(channel)?;
        let (Some(previous), Some(before)) = (&self.previous, placed.previous) else {
            return Ok(placed.shard);
        };
        if before < self.shards {
            return Ok(before);
        }
        if previous.shards.contains(&placed.shard) {
            return Ok(placed.shard);
        }
        let common = previous.shards.iter().copied().filter(|shard| *shard < self.shards);
        common.min().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "signals cannot be emitted while keys move between two lists that have no shard in common: clients of one list would \
                 receive signals that clients of the other do not; keep a shard of the previous list until the transition is over",
            )
        })
    }
}

impl Previous {
    fn shard(&self, key: &str) -> Result<usize> {
        let index = self.strategy.shard(key, self.shards.len())?;
        let shard = self.shards.get(index).copied();
        shard.ok_or_else(|| Error::invalid("shard index", index, "there is no such shard"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Places keys such as `1.2`: the first number is the shard in the current list, the second the shard in the
    /// previous list.
    fn placement(shards: usize, previous: Vec<usize>) -> Placement {
        fn part(key: &str, part: usize) -> usize {
            key.split('.').nth(part).and_then(|text| text.parse().ok()).unwrap_or(0)
        }
        let current = CheckedStrategy::new(|key: &str, _: usize| part(key, 0));
        let before = CheckedStrategy::new(|key: &str, _: usize| part(key, 1));
        Placement::new(current, shards).after(before, previous, 0)
    }

    #[test]
    fn a_key_moves_if_its_two_shards_differ() {
        // The previous list had the third shard, the first, and one that was removed.
        let placement = placement(3, vec![2, 0, 3]);
        for (key, shard, previous) in [
            ("0.0", 0, Some(2)),
            ("2.0", 2, None),
            ("0.1", 0, None),
            ("1.2", 1, Some(3)),
            ("0.2", 0, Some(3)),
        ] {
            assert_eq!(placement.place(key).unwrap(), Placed { shard, previous }, "{key}");
        }
        assert!(placement.place("3.0").is_err() && placement.place("0.3").is_err());
        let alone = Placement::new(CheckedStrategy::default(), 4).place("my-key").unwrap();
        assert_eq!((alone.shard, alone.previous), (3_605_215_937 % 4, None));
    }

    #[test]
    fn signals_are_emitted_where_clients_of_both_lists_listen() {
        let grows = placement(3, vec![0, 1]);
        assert_eq!(
            grows.emits_at("2.1").unwrap(),
            1,
            "clients of the previous list do not listen on the new shard"
        );
        assert_eq!(grows.emits_at("1.1").unwrap(), 1);
        let shrinks = placement(2, vec![0, 1, 2]);
        assert_eq!(shrinks.emits_at("1.2").unwrap(), 1);
        let swaps = placement(2, vec![0, 2]);
        assert_eq!(
            swaps.emits_at("1.1").unwrap(),
            0,
            "neither shard of the channel is in both lists"
        );
        let apart = placement(1, vec![1]);
        let error = apart.emits_at("0.0").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("no shard in common"), "{error}");
    }
}
