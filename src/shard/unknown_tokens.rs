//! Tokens whose leases must be checked, and whose grants have not arrived yet.

use std::collections::VecDeque;

use crate::types::Token;

/// The maximum number of tokens that are kept. Most of them belong to other shards, so their grants never arrive here.
const MOST: usize = 1024;

/// The most recent tokens that must be checked and that this shard does not know.
#[derive(Debug, Default)]
pub(super) struct UnknownTokens(VecDeque<Token>);

impl UnknownTokens {
    pub(super) fn note(&mut self, token: Token) {
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back(token);
    }

    /// Removes a token. Returns whether it was present.
    pub(super) fn take(&mut self, token: &Token) -> bool {
        let found = self.0.iter().position(|unknown| unknown == token);
        found.is_some_and(|index| self.0.remove(index).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Fence;

    #[test]
    fn the_most_recent_tokens_are_kept_and_each_is_found_once() {
        let mut tokens = UnknownTokens::default();
        let token = |number| Token::compose(Fence(number), 0);
        for number in 0..=MOST as u64 {
            tokens.note(token(number));
        }
        assert!(!tokens.take(&token(0)) && tokens.take(&token(1)) && !tokens.take(&token(1)));
        assert!(tokens.take(&token(MOST as u64)));
    }
}
