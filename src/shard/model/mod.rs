//! Runs the shard against the server in a model of their environment: clock, network, callers and faults. A seed
//! determines everything.
//!
//! The shard, the server's state, and the framing and matching of requests and answers are the real code
//! ([`Pipeline`](crate::net::pipeline::Pipeline), the request decoder). The I/O is modelled: `lane` for `net::dial`
//! and `net::lane`, `client` for the driver in `actor::shard`, `server::model` for the server's listener and
//! connections.
//!
//! | part | is |
//! | --- | --- |
//! | `plan` | the parameters that a seed determines |
//! | `agenda`, `trace` | the clock, and the history |
//! | `network`, `lane`, `host`, `faults` | wires, their ends, and their faults |
//! | `cluster` | the members of a cluster, and faults of members and leadership |
//! | `client`, `effects` | shards and their drivers |
//! | `callers`, `acts` | the callers of the shards |
//! | `describe` | the texts of histories |
//! | `book`, `order`, `checks`, `settle` | the invariants |
//!
//! # Invariants
//!
//! A *believer* is a lease that a caller has and whose state is `Held` or `Suspect`.
//!
//! 1. Each believer's grant is in the server's book, and the book never grants a key more often than its limit. So no
//!    key is believed to be held twice, by one client or by several. The contract makes one exception: a server gives
//!    up a lease because the lease's connection or the server itself has ended. The shard must learn of the end of that
//!    connection soon, and from then on the lease is lost. If the client's settings say that leases survive their
//!    connections, only the end of the server counts. The shard learns of it when all of its connections to that server
//!    have ended, and from then on the lease is lost or `Suspect`. There is no exception for a lease that expired at
//!    the server: it must be lost before.
//! 2. Without faults, a grant that no caller wants is released at once. It is never renewed.
//! 3. Each call is answered, or its channel is closed with its shard; its permit is returned.
//! 4. No renewal is sent after the release of the same lease, and no lease is held after its release was answered.
//! 5. Without faults and requests, only idle pipelined connections are left, at both ends.
//! 6. Callers of a client that wait for the same key get it in the order of their arrival.
//! 7. A shard that is shut down ends within the given time, and each lease that it had is released, unless its report
//!    names the lease's key as unreleased.
//! 8. The number of an input's effects is limited: a constant, plus a few effects for each object that the client has.
//!    A timer does not ask for the same time again.
//! 9. Nothing is sent over a connection that is not up, and no caller gets an error that a correct server cannot
//!    cause.
//! 10. A free key is granted within a second, plus the time of a few messages, to a caller that waits for it or tries
//!     it, regardless of other waits. Tickets are an exception, because each needs its own connection.
//!
//! # Clusters
//!
//! One seed in three has a cluster of three members that share one state. The leadership moves to another member, and
//! the former leader may name that member or not. Leaders die, are shut down in an orderly way, are replaced while a
//! request is under way, or continue as a minority. Members name a wrong leader, or none. While a member leads,
//! all of the above holds, and in addition:
//!
//! 11. A grant without a caller does not expire, because the client releases it, unless something makes that
//!     impossible. That is the case if
//!     - the client's connections or the cluster had a fault for so long that the client could not release the grant in
//!       time, or the client had ended;
//!     - the leader's process, or that of a later leader, did not see the end of the connection to which the key was
//!       granted. Then no other connection of the session can reclaim the grant. The same holds if the name of the
//!       session was presented again before that end was seen: the session may have two queue positions, and each
//!       request finds one of them;
//!     - the request was executed after the client had closed the connection;
//!     - the server was full and rejected the session, and no other connection may reclaim the grant.
//!
//!     The test counts these cases and prints their numbers.
//! 12. A queue position that has outlived a change of leaders is not given up over a working connection while waiting
//!     callers of its client need it. This is checked for clients without tickets for the key, for up to two changes,
//!     and while no member shuts down.
//!
//! All of this also holds if a client's process stops for longer than its leases last and then continues.
//!
//! # Running it
//!
//! `cargo test --lib shard::model`. The test prints a failing seed, with the end of its history. `MODEL_SEED=7 cargo
//! test --lib shard::model` runs seed 7 alone and prints its whole history. `MODEL_SEEDS=100000` sets the number of
//! seeds, `MODEL_FROM=5000` the first seed, and `MODEL_STEPS=5000` the steps of each.

mod acts;
mod agenda;
mod book;
mod callers;
mod checks;
mod client;
mod cluster;
mod describe;
mod effects;
mod faults;
mod host;
mod lane;
mod network;
mod order;
mod plan;
mod settle;
mod trace;
mod world;

mod tests;
