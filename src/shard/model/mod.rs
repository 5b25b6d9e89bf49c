//! The shard against the server, in a model of everything between and around them: clock, network, callers, faults. All of it follows
//! from a seed.
//!
//! The shard and the server's state are the real ones, and so are the framing and matching of requests and answers
//! ([`Pipeline`](crate::net::pipeline::Pipeline), the request decoder). What stands for I/O is the model's: `lane` for `net::dial` and
//! `net::lane`, `client` for the driver in `actor::shard`, `server::model` for the server's listener and connections.
//!
//! | part | is |
//! | --- | --- |
//! | `plan` | what a seed decides beforehand |
//! | `agenda`, `trace` | the clock, and what has happened |
//! | `network`, `lane`, `host`, `faults` | wires, their ends, and what goes wrong with them |
//! | `cluster` | the members of a cluster, and what goes wrong with them and their leadership |
//! | `client`, `effects` | shards, and what their drivers do |
//! | `callers`, `acts` | who uses them |
//! | `describe` | what histories say |
//! | `book`, `order`, `checks`, `settle` | what must hold |
//!
//! # What must hold
//!
//! A *believer* is a lease in the hands of a caller whose state is `Held` or `Suspect`.
//!
//! 1. Each believer's grant is in the server's book, and the book never grants a key more often than its limit. So no key is
//!    believed to be held twice, by one client or by several. One exception, which the contract makes: where a server gave a lease
//!    up because its connection ended, or ended itself, the client must have been told when its shard has heard of the end of that
//!    connection, which must be soon. From then on the lease is lost. Where leases are known to survive their connections it is a server
//!    that ended itself, and the shard has heard of that when all of its connections to it have ended; from then on the lease is
//!    lost or `Suspect`.
//!    A lease that the server let expire is lost before, without any exception.
//! 2. A grant that no caller wants is given back at once where nothing is wrong, and never renewed.
//! 3. A call is answered, or its channel closed with its shard; its room is given back.
//! 4. No renewal is sent after the release of the same lease, and none is held after its release was answered.
//! 5. When nothing is wrong and no caller wants anything, there is nothing left but idle pipelined connections, at both ends.
//! 6. Callers of a client that wait for the same key get it in the order in which they came.
//! 7. A shard that is shut down is over when its time is, and what it reports as released is free.
//! 8. An input has no more effects than there are things to do something about, and a shard that was told the time does not want to be
//!    told the same time again.
//! 9. Nothing is sent over a connection that is not up, and no caller gets an error that no correct server causes.
//! 10. A key that is free is granted within a second to a caller that waits for it, or tries to get it, whatever else waits; plus what a
//!     few messages take. Tickets are excepted: they need a connection of their own.
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
//! A client's process may stop for longer than leases last, and go on as if nothing had happened: all of this holds then, too.
//!
//! # Running it
//!
//! `cargo test --lib shard::model`. A seed that fails is printed, with the end of its history; `MODEL_SEED=7 cargo test --lib
//! shard::model` runs that one alone and prints all of it. `MODEL_SEEDS=100000` runs so many, `MODEL_FROM=5000` from there on,
//! `MODEL_STEPS=5000` each so long.

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
