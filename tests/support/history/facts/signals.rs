//! The subscriptions, with the signals and the reports of gaps that each received.

use std::collections::HashMap;

use super::super::record::{Extent, Name, Subscribed, What};

#[derive(Clone, Debug)]
pub struct Pattern {
    pub pattern: Name,
    pub group: Option<Name>,
    pub since: u64,
}

/// What a subscription received: a signal, or the report of a gap.
#[derive(Clone, Debug)]
pub enum Told {
    Signal { channel: Name, payload: Name },
    Gap(Extent),
}

#[derive(Clone, Debug)]
pub struct Heard {
    pub line: usize,
    pub at: u64,
    pub told: Told,
}

#[derive(Clone, Debug)]
pub struct Subscription {
    pub process: Name,
    pub patterns: Vec<Pattern>,
    pub ended: Option<u64>,
    pub heard: Vec<Heard>,
}

#[derive(Debug, Default)]
pub struct Signals {
    pub subscriptions: Vec<Subscription>,
    by_id: HashMap<(Name, u64), usize>,
}

impl Signals {
    /// Returns false if the line must follow a line `subscribed` of its subscription, and the record has no such line.
    pub fn see(&mut self, line: usize, at: u64, what: &What) -> bool {
        match what {
            What::Subscribed(subscribed) => self.subscribe(at, subscribed),
            What::Unsubscribed(id) => {
                let subscription = self.of(&id.process, id.subscription);
                return subscription.map(|subscription| subscription.ended = Some(at)).is_some();
            }
            What::Received(received) => {
                let (channel, payload) = (received.channel.clone(), received.payload.clone());
                let told = Told::Signal { channel, payload };
                return self.hear(&received.process, received.subscription, Heard { line, at, told });
            }
            What::Gap(gap) => {
                let told = Told::Gap(gap.extent);
                return self.hear(&gap.process, gap.subscription, Heard { line, at, told });
            }
            _ => {}
        }
        true
    }

    fn subscribe(&mut self, at: u64, subscribed: &Subscribed) {
        let id = (subscribed.process.clone(), subscribed.subscription);
        let number = *self.by_id.entry(id).or_insert_with(|| {
            self.subscriptions.push(Subscription {
                process: subscribed.process.clone(),
                patterns: Vec::new(),
                ended: None,
                heard: Vec::new(),
            });
            self.subscriptions.len() - 1
        });
        self.subscriptions[number].patterns.push(Pattern {
            pattern: subscribed.pattern.clone(),
            group: subscribed.group.clone(),
            since: at,
        });
    }

    fn hear(&mut self, process: &Name, subscription: u64, heard: Heard) -> bool {
        let subscription = self.of(process, subscription);
        subscription
            .map(|subscription| subscription.heard.push(heard))
            .is_some()
    }

    fn of(&mut self, process: &Name, subscription: u64) -> Option<&mut Subscription> {
        let number = self.by_id.get(&(process.clone(), subscription))?;
        self.subscriptions.get_mut(*number)
    }
}
