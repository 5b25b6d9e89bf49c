//! Patterns with wildcards, by their tokens.

use std::collections::HashMap;

use super::pattern::{RawPattern, tokens};

/// A set of patterns in which a channel finds those that match it without looking at the others: each step goes from a
/// token of the channel to the child of that name and to that of `*`.
#[derive(Default)]
pub(super) struct PatternTrie {
    root: Node,
}

#[derive(Default)]
struct Node {
    /// The pattern whose tokens lead here.
    ends: Option<RawPattern>,
    /// The pattern whose tokens lead here, and `>`.
    rest: Option<RawPattern>,
    /// By the next token, if it is not `*`.
    named: HashMap<Box<[u8]>, Node>,
    /// By the next token, `*`.
    any: Option<Box<Node>>,
}

impl PatternTrie {
    /// Adds a pattern. Once is enough.
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

    /// Removes a pattern, and what led to it alone.
    pub(super) fn remove(&mut self, pattern: &RawPattern) {
        self.root.remove(pattern.tokens());
    }

    /// Finds the patterns that a channel matches. How many nodes that took.
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
