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
//! | `plan` | what a seed decides beforehand |
//! | `agenda`, `trace` | the clock, and what has happened |
//! | `network`, `lane`, `host`, `faults` | wires, their ends, and their faults |
//! | `cluster` | the members of a cluster, and faults of members and leadership |
//! | `client`, `effects` | shards, and what their drivers do |
//! | `callers`, `acts` | who uses them |
//! | `describe` | what histories say |
//! | `book`, `order`, `checks`, `settle` | what must hold |
//!
//! # What must hold
//!
//! A *believer* is a lease that a caller holds and whose state is `Held` or `Suspect`.
//!
//! 1. Each believer's grant is in the server's book, and the book never grants a key more often than its limit. So no key is
//!    believed to be held twice, by one client or by several. One exception, which the contract makes: where a server gave a lease
//!    up because its connection ended, or ended itself, the client must have been told when its shard has heard of the end of that
//!    connection, which must be soon. From then on the lease is lost. Where leases are known to survive their connections it is a server
//!    that ended itself, and the shard has heard of that when all of its connections to it have ended; from then on the lease is
//!    lost or `Suspect`.
//!    A lease that the server let expire is lost before, without any exception.
//! 2. Without faults, a grant that no caller wants is released at once. It is never renewed.
//! 3. Each call is answered, or its channel is closed with its shard; its permit is returned.
//! 4. No renewal is sent after the release of the same lease, and none is held after its release was answered.
//! 5. Without faults and requests, only idle pipelined connections are left, at both ends.
//! 6. Callers of a client that wait for the same key get it in the order of their arrival.
//! 7. A shard that is shut down ends within the given time, and the keys that it reports as released are free.
//! 8. An input has no more effects than the shard has objects, and a timer does not ask for the same time again.
//! 9. Nothing is sent over a connection that is not up, and no caller gets an error that a correct server cannot
//!    cause.
//! 10. A free key is granted within a second, plus the time of a few messages, to a caller that waits for it or tries
//!     it, regardless of other waits. Tickets are an exception, because each needs its own connection.
//!
//! # Clusters
//!
//! One seed of three has a cluster of three members on one state. Their leadership moves on, with and without a member that says where
//! to; members that lead die, are shut down in order, fall with a request under way, or go on believing in a minority; others are named
//! than lead. All of the above holds then, too, as long as a member
//! leads, and in addition:
//!
//! 11. A grant that no caller has is not left to its TTL, unless the server makes that unavoidable. That is so where
//!     - something was wrong with its client's connections, or with the cluster, until it was too late, or its client was over;
//!     - the end of the connection that it was granted to was not seen by the process that leads, or that led after it: no other
//!       connection of the session is given what a connection to the same process has. A session whose name was presented again
//!       meanwhile may have two places, and is given one of them for each time that it asks;
//!     - the request was carried out when its client had closed the connection and gone on;
//!     - the server was full: it turned away the session that the connection belonged to, and no other connection may take it back.
//!
//!     These are counted, and the test says how many there were.
//! 12. A queue position that has outlived a change of leaders is not given up over a connection that stands while callers of its client
//!     wait that have no other. Looked at are clients that want no tickets of the key, up to two changes, and times at
//!     which no member shuts down.
//!
//! All of this also holds if a client's process stops for longer than its leases last and then continues.
//!
//! # Running it
//!
//! `cargo test --lib shard::model`. A seed that fails is printed, with the end of its history; `MODEL_SEED=7 cargo
//! test --lib shard::model` runs that one alone and prints all of it. `MODEL_SEEDS=100000` sets the number of seeds,
//! `MODEL_FROM=5000` the first seed, and `MODEL_STEPS=5000` the steps of each.

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
