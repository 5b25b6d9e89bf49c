//! The low-level functions over an async socket, or over a blocking socket on a thread.

use dflockd_client::protocol::functions::{self as tasks, Wire as RawWire};
use dflockd_client::protocol::{Channel, Enqueued, Payload, blocking as threads};
use dflockd_client::{Grant, Key, Limit, Result, Token, Ttl, WaitSecs};

use super::api::{Api, on_a_thread, on_a_thread_with};

/// A stream of either kind. During a call, a blocking stream moves to a thread.
pub enum Wire {
    Async(RawWire<tokio::net::TcpStream>),
    Blocking(Option<RawWire<std::net::TcpStream>>),
}

impl Wire {
    pub async fn connect(api: Api, address: &str) -> Self {
        match api {
            Api::Async => Self::Async(RawWire::new(tokio::net::TcpStream::connect(address).await.unwrap())),
            Api::Blocking => {
                let address = address.to_owned();
                let stream = on_a_thread(move || std::net::TcpStream::connect(address)).await;
                Self::Blocking(Some(RawWire::new(stream.unwrap())))
            }
        }
    }
}

type Threads = RawWire<std::net::TcpStream>;

pub async fn acquire(wire: &mut Wire, key: &Key, wait: WaitSecs, ttl: Option<Ttl>) -> Result<Grant> {
    let k = key.clone();
    match wire {
        Wire::Async(wire) => tasks::acquire(wire, key, wait, ttl).await,
        Wire::Blocking(wire) => on_a_thread_with(wire, move |wire| threads::acquire(wire, &k, wait, ttl)).await,
    }
}

pub async fn release(wire: &mut Wire, key: &Key, token: &Token) -> Result<()> {
    let (k, t) = (key.clone(), *token);
    match wire {
        Wire::Async(wire) => tasks::release(wire, key, token).await,
        Wire::Blocking(wire) => on_a_thread_with(wire, move |wire| threads::release(wire, &k, &t)).await,
    }
}

pub async fn renew(wire: &mut Wire, key: &Key, token: &Token, ttl: Option<Ttl>) -> Result<Option<u64>> {
    let (k, t) = (key.clone(), *token);
    match wire {
        Wire::Async(wire) => tasks::renew(wire, key, token, ttl).await,
        Wire::Blocking(wire) => on_a_thread_with(wire, move |wire| threads::renew(wire, &k, &t, ttl)).await,
    }
}

pub async fn enqueue(wire: &mut Wire, key: &Key, ttl: Option<Ttl>) -> Result<Enqueued> {
    let k = key.clone();
    match wire {
        Wire::Async(wire) => tasks::enqueue(wire, key, ttl).await,
        Wire::Blocking(wire) => on_a_thread_with(wire, move |wire| threads::enqueue(wire, &k, ttl)).await,
    }
}

pub async fn wait(wire: &mut Wire, key: &Key, wait: WaitSecs) -> Result<Grant> {
    let k = key.clone();
    match wire {
        Wire::Async(wire) => tasks::wait(wire, key, wait).await,
        Wire::Blocking(wire) => on_a_thread_with(wire, move |wire| threads::wait(wire, &k, wait)).await,
    }
}

pub async fn sem_acquire(wire: &mut Wire, key: &Key, wait: WaitSecs, limit: Limit, ttl: Option<Ttl>) -> Result<Grant> {
    let k = key.clone();
    match wire {
        Wire::Async(wire) => tasks::sem_acquire(wire, key, wait, limit, ttl).await,
        Wire::Blocking(wire) => {
            on_a_thread_with(wire, move |wire| threads::sem_acquire(wire, &k, wait, limit, ttl)).await
        }
    }
}

pub async fn sem_release(wire: &mut Wire, key: &Key, token: &Token) -> Result<()> {
    let (k, t) = (key.clone(), *token);
    match wire {
        Wire::Async(wire) => tasks::sem_release(wire, key, token).await,
        Wire::Blocking(wire) => on_a_thread_with(wire, move |wire| threads::sem_release(wire, &k, &t)).await,
    }
}

pub async fn sem_renew(wire: &mut Wire, key: &Key, token: &Token, ttl: Option<Ttl>) -> Result<Option<u64>> {
    let (k, t) = (key.clone(), *token);
    match wire {
        Wire::Async(wire) => tasks::sem_renew(wire, key, token, ttl).await,
        Wire::Blocking(wire) => on_a_thread_with(wire, move |wire| threads::sem_renew(wire, &k, &t, ttl)).await,
    }
}

pub async fn sem_enqueue(wire: &mut Wire, key: &Key, limit: Limit, ttl: Option<Ttl>) -> Result<Enqueued> {
    let k = key.clone();
    match wire {
        Wire::Async(wire) => tasks::sem_enqueue(wire, key, limit, ttl).await,
        Wire::Blocking(wire) => on_a_thread_with(wire, move |wire| threads::sem_enqueue(wire, &k, limit, ttl)).await,
    }
}

pub async fn sem_wait(wire: &mut Wire, key: &Key, wait: WaitSecs) -> Result<Grant> {
    let k = key.clone();
    match wire {
        Wire::Async(wire) => tasks::sem_wait(wire, key, wait).await,
        Wire::Blocking(wire) => on_a_thread_with(wire, move |wire| threads::sem_wait(wire, &k, wait)).await,
    }
}

pub async fn sig_emit(wire: &mut Wire, channel: Channel, payload: Payload) -> Result<u64> {
    match wire {
        Wire::Async(wire) => tasks::sig_emit(wire, channel, payload).await,
        Wire::Blocking(wire) => on_a_thread_with(wire, move |wire| threads::sig_emit(wire, channel, payload)).await,
    }
}
