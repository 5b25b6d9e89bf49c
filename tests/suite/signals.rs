//! Cases of publish and subscribe, with either client.

use std::time::Duration;

use dflockd_client::protocol::{Channel, Payload};
use dflockd_client::{ClientBuilder, Result, SignalOptions, blocking};
use tokio::time::timeout;

use super::api::{Api, Client, on_a_thread, on_a_thread_with};
use super::low;
use super::peer::Peer;

const SOON: Duration = Duration::from_secs(10);

/// A signal connection of either client. During a call, a blocking connection moves to a thread.
enum Conn {
    Async(dflockd_client::SignalConn),
    Blocking(Option<blocking::SignalConn>),
}

impl Conn {
    async fn open(api: Api, settings: ClientBuilder) -> Self {
        let options = SignalOptions::default();
        match api {
            Api::Async => Self::Async(dflockd_client::SignalConn::open(settings, options).await.unwrap()),
            Api::Blocking => {
                let conn = on_a_thread(move || blocking::SignalConn::open(settings, options)).await;
                Self::Blocking(Some(conn.unwrap()))
            }
        }
    }

    async fn listen(&mut self, pattern: &str, group: &'static str) -> Result<()> {
        match self {
            Self::Async(conn) => conn.listen(pattern, group).await,
            Self::Blocking(conn) => {
                let pattern = pattern.to_owned();
                on_a_thread_with(conn, move |conn| conn.listen(pattern, group)).await
            }
        }
    }

    async fn unlisten(&mut self, pattern: &str) -> Result<()> {
        match self {
            Self::Async(conn) => conn.unlisten(pattern, None).await,
            Self::Blocking(conn) => {
                let pattern = pattern.to_owned();
                on_a_thread_with(conn, move |conn| conn.unlisten(pattern, None)).await
            }
        }
    }

    async fn emit(&mut self, channel: &str, payload: &str) -> Result<u64> {
        match self {
            Self::Async(conn) => conn.emit(channel, payload).await,
            Self::Blocking(conn) => {
                let (channel, payload) = (channel.to_owned(), payload.to_owned());
                on_a_thread_with(conn, move |conn| conn.emit(channel, payload)).await
            }
        }
    }

    /// Returns the channel and the payload of the next signal.
    async fn next(&mut self) -> String {
        let signal = match self {
            Self::Async(conn) => timeout(SOON, conn.next_signal()).await.unwrap(),
            Self::Blocking(conn) => on_a_thread_with(conn, |conn| conn.next_within(SOON)).await.unwrap(),
        };
        let signal = signal.expect("a signal comes");
        format!("{} {}", signal.channel(), signal.payload())
    }
}

impl Peer {
    async fn signals(&self) -> Conn {
        Conn::open(self.api, self.builder()).await
    }
}

pub async fn signals_reach_their_listeners_in_order(peer: Peer) {
    let (mut a, mut b, channel) = (peer.signals().await, peer.signals().await, peer.key("c"));
    let channel = channel.as_str();
    assert_eq!(a.emit(channel, "unheard").await.unwrap(), 0);
    a.listen(channel, "").await.unwrap();
    a.listen(channel, "").await.unwrap();
    assert_eq!(b.emit(channel, "hello world").await.unwrap(), 1);
    assert_eq!(a.emit(channel, "its own").await.unwrap(), 1);
    // The low-level functions can also emit.
    let (plain, text) = (Channel::new(channel).unwrap(), " ü 漢 ");
    let text = Payload::new(&plain, text).unwrap();
    assert_eq!(low::sig_emit(&mut peer.wire().await, plain, text).await.unwrap(), 1);
    for payload in ["hello world", "its own", " ü 漢 "] {
        assert_eq!(a.next().await, format!("{channel} {payload}"));
    }
    a.unlisten(channel).await.unwrap();
    assert_eq!(b.emit(channel, "too late").await.unwrap(), 0);
}

pub async fn wildcards_stand_for_tokens(peer: Peer) {
    let (mut star, mut rest, mut both, root) = (
        peer.signals().await,
        peer.signals().await,
        peer.signals().await,
        peer.key("w"),
    );
    star.listen(&format!("{root}.*.c"), "").await.unwrap();
    rest.listen(&format!("{root}.>"), "").await.unwrap();
    both.listen(&format!("{root}.>"), "").await.unwrap();
    both.listen(&format!("{root}.*.c"), "").await.unwrap();
    let mut emitter = peer.signals().await;
    assert_eq!(emitter.emit(root.as_str(), "the root itself").await.unwrap(), 0);
    for (tail, deliveries) in [(".b.c", 3), (".b.d", 2), (".b.c.d", 2)] {
        let delivered = emitter.emit(&format!("{root}{tail}"), tail).await.unwrap();
        assert_eq!(delivered, deliveries, "{tail}");
        let expected = format!("{root}{tail} {tail}");
        assert_eq!(rest.next().await, expected);
        assert_eq!(both.next().await, expected, "once, however many patterns match");
        if deliveries == 3 {
            assert_eq!(star.next().await, expected);
        }
    }
}

pub async fn a_group_takes_turns(peer: Peer) {
    let (mut a, mut b, channel) = (peer.signals().await, peer.signals().await, peer.key("jobs"));
    let channel = channel.as_str();
    a.listen(channel, "g").await.unwrap();
    b.listen(channel, "g").await.unwrap();
    a.listen(channel, "").await.unwrap();
    for number in 0..4 {
        assert_eq!(b.emit(channel, &number.to_string()).await.unwrap(), 2);
    }
    // `a` receives half of the signals as a member of the group, and all signals by its subscription without a group.
    let mut got = Vec::new();
    for _ in 0..6 {
        got.push(a.next().await);
    }
    got.sort();
    let expected: Vec<String> = [0, 0, 1, 2, 2, 3].map(|n| format!("{channel} {n}")).to_vec();
    assert_eq!(got, expected);
    assert_eq!(
        [b.next().await, b.next().await],
        [1, 3].map(|n| format!("{channel} {n}"))
    );
}

pub async fn a_client_subscribes_and_emits(peer: Peer) {
    let (client, channel) = (peer.client().await, peer.key("c"));
    let channel = channel.as_str().to_owned();
    let (mut conn, delivered) = match client {
        Client::Async(client) => {
            let conn = client.subscribe(&channel).await.unwrap();
            let delivered = client.emit(&channel, "1").await.unwrap();
            (Conn::Async(conn), delivered)
        }
        Client::Blocking(client) => {
            let channel = channel.clone();
            let work = move || {
                let conn = client.subscribe(&channel).unwrap();
                let delivered = client.emit(&channel, "1").unwrap();
                (Conn::Blocking(Some(conn)), delivered)
            };
            on_a_thread(work).await
        }
    };
    assert_eq!((delivered, conn.next().await), (1, format!("{channel} 1")));
}
