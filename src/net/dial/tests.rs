use std::sync::{Arc, Mutex};

use super::*;
use crate::client::builder::ClientBuilder;
use crate::net::connect::Purpose;
use crate::net::reach::Resolver;
use crate::server::Server;
use crate::telemetry::sink::ShardSink;

/// A request that no test sends.
struct NeverSent;

impl Caller for NeverSent {
    fn is_gone(&self) -> bool {
        false
    }
}

fn dial(builder: ClientBuilder) -> Dial {
    let config = builder.check().unwrap();
    Dial {
        connect: config.shard.reach(0, config.shards[0].first(), Purpose::Requests),
        metrics: LaneMetrics::new(&ShardSink::nowhere()),
    }
}

/// The events of a connection.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<LaneEvent<NeverSent>>>>);

impl Told {
    fn teller(&self) -> impl Fn(LaneEvent<NeverSent>) + Send + use<> {
        let told = Arc::clone(&self.0);
        move |event| told.lock().unwrap().push(event)
    }

    /// Returns the only end, with the number of `Up` events. There must be no other events.
    fn end(&self) -> (usize, Error) {
        let mut events = std::mem::take(&mut *self.0.lock().unwrap());
        let end = match events.pop() {
            Some(LaneEvent::Failed(error)) => error,
            Some(LaneEvent::Ended(end)) => end.cause.unwrap(),
            _ => panic!("no end was reported"),
        };
        assert!(events.iter().all(|event| matches!(event, LaneEvent::Up(_))));
        (events.len(), end)
    }

    fn is_up(&self) -> bool {
        let events = self.0.lock().unwrap();
        matches!(events.first(), Some(LaneEvent::Up(_)))
    }
}

fn queue() -> mpsc::UnboundedReceiver<Command<NeverSent>> {
    // Stays open for as long as the test runs.
    let (commands, queue) = mpsc::unbounded_channel();
    std::mem::forget(commands);
    queue
}

fn of_nowhere(resolver: Resolver) -> Dial {
    dial(ClientBuilder::default().servers(["nowhere:1"]).resolver(resolver))
}

#[tokio::test]
async fn a_panic_while_connecting_is_a_failure_with_the_message_of_the_panic() {
    let told = Told::default();
    let resolver = Resolver::of(|_, _| panic!("the resolver has a bug"));
    of_nowhere(resolver).run(Duration::ZERO, queue(), told.teller()).await;
    let (ups, error) = told.end();
    assert_eq!((ups, error.kind()), (0, ErrorKind::Connect));
    assert_eq!(error.endpoint(), Some("nowhere:1"));
    let text = error.to_string();
    assert!(text.contains("panicked: the resolver has a bug"), "{text}");
}

#[tokio::test]
async fn a_task_that_is_dropped_before_it_is_connected_has_failed() {
    let resolver = || Resolver::of(|_, _| Ok(Vec::new()));
    let hour = Duration::from_secs(3600);
    let told = Told::default();
    drop(of_nowhere(resolver()).run(hour, queue(), told.teller()));
    assert_eq!(told.end().1.kind(), ErrorKind::Connect, "it had not begun");

    let task = tokio::spawn(of_nowhere(resolver()).run(hour, queue(), told.teller()));
    tokio::task::yield_now().await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(
        told.end().1.kind(),
        ErrorKind::Connect,
        "it was pausing before its attempt"
    );
}

#[tokio::test]
async fn a_task_that_is_dropped_when_it_is_up_has_ended() {
    let server = Server::builder().port(0).start().await.unwrap();
    let told = Told::default();
    let dial = dial(ClientBuilder::default().servers([server.local_addr().to_string()]));
    let task = tokio::spawn(dial.run(Duration::ZERO, queue(), told.teller()));
    while !told.is_up() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let dropped = Moment::now();
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    let LaneEvent::Ended(end) = told.0.lock().unwrap().pop().unwrap() else {
        panic!("it was up");
    };
    assert!(end.heard.at <= dropped.at);
    assert_eq!(end.cause.unwrap().kind(), ErrorKind::Disconnected);
    assert_eq!(told.0.lock().unwrap().len(), 1);
}
