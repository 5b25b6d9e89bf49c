//! A trie of patterns with wildcards, by their tokens.

use std::collections::HashMap;

use super::pattern::{RawPattern, tokens};

/// A set of patterns that finds those that match a channel without visiting the others: for each token of the channel,
/// the search continues at the child for that token and at the child for `*`.
#[derive(Default)]
pub(super) struct PatternTrie {
    root: Node,
}

#[derive(Default)]
struct Node {
    /// The pattern that ends at this node.
    ends: Option<RawPattern>,
    /// The pattern that ends at this node with a further `>`.
    rest: Option<RawPattern>,
    /// The children by their token, other than `*`.
    named: HashMap<Box<[u8]>, Node>,
    /// The child for the token `*`.
    any: Option<Box<Node>>,
}

impl PatternTrie {
    /// Adds a pattern. Adding it again changes nothing.
    pub(super) fn insert(&mut self, pattern: &RawPattern) {
        let mut node = &mut self.root;
        for token in pattern.tokens() {
            node = match token {
                b">" => {
                    node.rest = Some(pattern.clone());
                    return;
                }
                b"*" => node.any.get_or_insert_default(),
                name => node.named.entry(name.into()).or_default(),
            };
        }
        node.ends = Some(pattern.clone());
    }

    /// Removes a pattern, and the nodes that only this pattern needed.
    pub(super) fn remove(&mut self, pattern: &RawPattern) {
        self.root.remove(pattern.tokens());
    }

    /// Calls `found` for each pattern that matches a channel. Returns the number of visited nodes.
    pub(super) fn each_match<'a>(&'a self, channel: &[u8], mut found: impl FnMut(&'a RawPattern)) -> usize {
        self.root.find(tokens(channel), &mut found)
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn is_empty(&self) -> bool {
        self.root.is_empty()
    }
}

impl Node {
    fn find<'a, 'c, F: FnMut(&'a RawPattern)>(
        &'a self,
        mut tokens: impl Iterator<Item = &'c [u8]> + Clone,
        found: &mut F,
    ) -> usize {
        let Some(token) = tokens.next() else {
            self.ends.iter().for_each(&mut *found);
            return 1;
        };
        self.rest.iter().for_each(&mut *found);
        let named = self.named.get(token);
        let children = named.into_iter().chain(self.any.as_deref());
        1 + children.map(|child| child.find(tokens.clone(), found)).sum::<usize>()
    }

    fn remove<'c>(&mut self, mut tokens: impl Iterator<Item = &'c [u8]>) {
        match tokens.next() {
            None => self.ends = None,
            Some(b">") => self.rest = None,
            Some(b"*") => {
                if let Some(child) = &mut self.any {
                    child.remove(tokens);
                    if child.is_empty() {
                        self.any = None;
                    }
                }
            }
            Some(name) => {
                if let Some(child) = self.named.get_mut(name) {
                    child.remove(tokens);
                    if child.is_empty() {
                        self.named.remove(name);
                    }
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.ends.is_none() && self.rest.is_none() && self.named.is_empty() && self.any.is_none()
    }
}
