//! Programs that send and receive signals.

use std::time::Duration;

use dflockd_client::{Group, Pattern, SignalEvent, SignalOptions, SubscribeRequest};

use super::super::caller::{Caller, Operation};
use super::super::history::record::{Action, Extent, Gap, Name, Received, Subscribed, Subscription, What};
use super::locks::rest;

/// How a subscriber reads its signals.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    Fast,
    /// The subscriber pauses after each event and has a small buffer, so it misses signals.
    Slow,
    /// The subscriber is a member of a group. Each signal goes to only one member of the group.
    Shared,
}

pub async fn publisher(caller: &mut Caller) {
    let burst = match caller.random.u32(..4) {
        0 => 40,
        _ => 3,
    };
    for _ in 0..caller.random.u32(1..=burst) {
        let channel = format!("c.{}", caller.random.u32(..2));
        // Each payload is unique.
        let payload = format!("{}-{}", caller.process.name, caller.process.writer.next_id());
        let mut operation = Operation::new(Action::Emit).within(caller.process.request_timeout);
        operation.channel = Some(Name::from(&channel));
        operation.payload = Some(Name::from(&payload));
        let client = caller.process.client.clone();
        let returned = caller.call(operation, client.emit(&channel, &payload)).await;
        caller.ended(&returned);
        if caller.is_done() {
            return;
        }
    }
    rest(caller).await;
}

pub async fn subscriber(caller: &mut Caller, pace: Pace) {
    let text = ["c.*", "c.0", "c.>"][caller.random.usize(..3)];
    let Ok(pattern) = Pattern::new(text) else { return };
    let mut request = SubscribeRequest::new(pattern);
    let mut group = None;
    if pace == Pace::Slow {
        request = request.options(SignalOptions::default().buffer(4));
    }
    if pace == Pace::Shared {
        let Ok(members) = Group::new("g") else { return };
        request = request.group(members);
        group = Some(Name::from("g"));
    }
    let mut operation = Operation::new(Action::Listen).within(caller.process.request_timeout);
    operation.channel = Some(Name::from(text));
    let client = caller.process.client.clone();
    let process = caller.process.name.clone();
    let subscription = caller.process.writer.next_id();
    // If the subscription has a group, the servers may send it some of the group's signals from now on. If the call
    // fails or is dropped, these signals are lost.
    caller.note(What::Subscribed(Subscribed {
        process: process.clone(),
        subscription,
        pattern: Name::from(text),
        group,
    }));
    gap(caller, subscription, Extent::Begins);
    let returned = caller.call(operation, client.subscribe_with(request)).await;
    if let Some(Ok(_)) = returned.result {
        gap(caller, subscription, Extent::Ends);
    }
    caller.ended(&returned);
    let Some(Ok(mut signals)) = returned.result else {
        caller.note(What::Unsubscribed(Subscription { process, subscription }));
        return rest(caller).await;
    };
    let until = caller.process.writer.now() + caller.random.u64(..20_000) * 1_000_000;
    while !caller.is_done() && caller.process.writer.now() < until {
        match tokio::time::timeout(Duration::from_millis(500), signals.next_event()).await {
            Err(_) => {}
            Ok(Some(event)) => record_event(caller, subscription, event),
            Ok(None) => break,
        }
        if pace == Pace::Slow {
            caller.pause(Duration::from_millis(800)).await;
        }
    }
    // Records the events that have already arrived.
    while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, signals.next_event()).await {
        record_event(caller, subscription, event);
    }
    caller.note(What::Unsubscribed(Subscription { process, subscription }));
    drop(signals);
    rest(caller).await;
}

/// Records an event of a subscription.
fn record_event(caller: &Caller, subscription: u64, event: SignalEvent) {
    let process = caller.process.name.clone();
    match event {
        SignalEvent::Signal(signal) => caller.note(What::Received(Received {
            process,
            subscription,
            channel: Name::from(signal.channel()),
            payload: Name::from(signal.payload()),
        })),
        SignalEvent::Lost { .. } => gap(caller, subscription, Extent::Begins),
        SignalEvent::Restored { .. } => gap(caller, subscription, Extent::Ends),
        _ => gap(caller, subscription, Extent::Here),
    }
}

/// Records where the subscription may miss signals.
fn gap(caller: &Caller, subscription: u64, extent: Extent) {
    caller.note(What::Gap(Gap {
        process: caller.process.name.clone(),
        subscription,
        extent,
    }));
}
