//! The shards of the current and the previous list, each once.

use std::net::{IpAddr, SocketAddr};

use super::ClientOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::net::endpoint::Endpoint;
use crate::net::failover::Policy;
use crate::net::fencing::Fencing;
use crate::sharding::{CheckedStrategy, Placement};
use crate::shards::{Shard, ShardPlan, check_all};

impl ClientOptions {
    /// Returns all shards, first those of the current list, and the placement of keys on them.
    pub(super) fn place(&self) -> Result<(Vec<ShardPlan>, Placement)> {
        let (shards, placement) = self.all_shards()?;
        Ok((check_all(&shards)?, placement))
    }

    /// Reduces the options to the shards of one key.
    pub(crate) fn of_key(mut self, key: &str) -> Result<Self> {
        let (shards, placement) = self.all_shards()?;
        let placed = placement.place(key)?;
        let alone = |index: usize| -> Vec<Shard> { shards.get(index).cloned().into_iter().collect() };
        (self.shards, self.strategy) = (alone(placed.shard), CheckedStrategy::default());
        (self.previous_shards, self.previous_strategy) = match placed.previous {
            None => (None, None),
            Some(previous) => (Some(alone(previous)), Some(CheckedStrategy::default())),
        };
        Ok(self)
    }

    fn all_shards(&self) -> Result<(Vec<Shard>, Placement)> {
        let placement = Placement::new(self.strategy.clone(), self.shards.len());
        let Some(strategy) = &self.previous_strategy else {
            return match &self.previous_shards {
                None => Ok((self.shards.clone(), placement)),
                Some(_) => refuse(
                    "previous_servers is given without previous_sharding_strategy: say how keys were spread over them \
                     (stable_hash_shard, if clients did not set a strategy)",
                ),
            };
        };
        if self.fencing == Fencing::Required {
            return refuse(
                "fences are required, and keys move: such a key has the fences of two servers, which cannot be compared. While keys move, \
                 use Fencing::IfKnown and Lease::transition_fences, as docs/guide/src/sharding.md says",
            );
        }
        let previous = self.previous_shards.as_ref().unwrap_or(&self.shards);
        // Checks each list by itself. The combined list would hide a server that is repeated in the previous list.
        let current = identities(&check_all(&self.shards)?);
        let before = identities(&check_all(previous)?);
        let mut all = self.shards.clone();
        let mut places = Vec::with_capacity(previous.len());
        for (shard, identity) in previous.iter().zip(&before) {
            let place = match current.iter().position(|other| other == identity) {
                Some(place) => place,
                None if current.iter().any(|other| other.shares_a_server_with(identity)) => {
                    return Err(Error::invalid(
                        "shard of previous_servers",
                        shard,
                        "one of its servers is in a different shard of the setting servers: write a shard in the same way in both lists, and keep its members \
                         until the transition is over",
                    ));
                }
                None => {
                    all.push(shard.clone());
                    all.len() - 1
                }
            };
            places.push(place);
        }
        let stays = places.iter().copied().eq(0..self.shards.len());
        if stays && strategy.name().is_some() && strategy.name() == self.strategy.name() {
            return refuse(
                "the previous servers and sharding strategy are the current ones, so no key moves: leave previous_servers and \
                 previous_sharding_strategy out",
            );
        }
        let lists = fingerprint([(&self.strategy, &current), (strategy, &before)]);
        Ok((all, placement.after(strategy.clone(), places, lists)))
    }
}

/// The identity of a shard, regardless of the spelling of its addresses.
#[derive(PartialEq, Eq)]
struct Identity {
    policy: Policy,
    servers: Vec<String>,
}

impl Identity {
    fn shares_a_server_with(&self, other: &Self) -> bool {
        self.servers.iter().any(|server| other.servers.contains(server))
    }
}

/// Returns a checksum of both lists. Clients with the same lists have the same number. Two different pairs of lists
/// have the same number with a probability of 1 in 2^32.
fn fingerprint(lists: [(&CheckedStrategy, &Vec<Identity>); 2]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    // No name or address contains a control character, so different pairs of lists have different texts.
    for (strategy, shards) in lists {
        hasher.update(strategy.name().unwrap_or("custom").as_bytes());
        for shard in shards {
            hasher.update(format!("\n{:?}", shard.policy).as_bytes());
            for server in &shard.servers {
                hasher.update(b"\t");
                hasher.update(server.as_bytes());
            }
        }
        hasher.update(b"\0");
    }
    hasher.finalize()
}

fn identities(plans: &[ShardPlan]) -> Vec<Identity> {
    let identity = |plan: &ShardPlan| {
        let mut servers: Vec<String> = plan.endpoints.iter().map(address).collect();
        // The order of a cluster's members does not matter.
        if plan.policy == Policy::Cluster {
            servers.sort_unstable();
        }
        Identity {
            policy: plan.policy,
            servers,
        }
    };
    plans.iter().map(identity).collect()
}

/// Returns an address in its canonical spelling.
fn address(endpoint: &Endpoint) -> String {
    let (Some(host), Some(port)) = (endpoint.host(), endpoint.port()) else {
        return endpoint.as_str().to_owned();
    };
    match host.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, port).to_string(),
        Err(_) => format!("{}:{port}", host.to_ascii_lowercase()),
    }
}

fn refuse<T>(problem: &'static str) -> Result<T> {
    Err(Error::new(ErrorKind::InvalidInput, problem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Supplied;

    fn placed(url: &str) -> (Vec<String>, Placement) {
        let config = ClientOptions::from_url(url)
            .and_then(|options| options.check(Supplied::default()))
            .unwrap_or_else(|error| panic!("{url}: {error}"));
        let shards = config.shards.iter().map(|plan| plan.first().to_string()).collect();
        (shards, config.placement)
    }

    fn refusal(url: &str) -> String {
        let checked = ClientOptions::from_url(url).and_then(|options| options.check(Supplied::default()));
        let error = checked.map(|_| panic!("{url} was accepted")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.to_string()
    }

    #[test]
    fn clients_with_the_same_two_lists_have_the_same_fingerprint_and_others_have_others() {
        let fingerprint = |servers: &str, previous: &str, strategy: &str| {
            let strategies = format!("sharding_strategy={strategy}&previous_sharding_strategy=stable_hash_shard");
            let url = format!("dflockd://{servers}/?previous_servers={previous}&{strategies}");
            placed(&url).1.fingerprint().unwrap()
        };
        let rendezvous = "rendezvous_hash_shard";
        let known = fingerprint("a:1,b:1+c:1", "a:1", rendezvous);
        assert_eq!(known.len(), 8, "{known}");
        assert_eq!(fingerprint("A:01,b:1+c:1", "A:1", rendezvous), known);
        for (servers, previous, strategy) in [
            ("a:1", "a:1,b:1%2Bc:1", rendezvous),
            ("a:1,b:1+c:1", "a:1", "stable_hash_shard"),
            ("a:1,b:1+c:1", "d:1", rendezvous),
            ("a:1,b:1,c:1", "a:1", rendezvous),
            ("a:1", "b:1%2Bc:1", rendezvous),
        ] {
            assert_ne!(
                fingerprint(servers, previous, strategy),
                known,
                "{servers} after {previous}"
            );
        }
        assert_eq!(placed("dflockd://a:1").1.fingerprint(), None);
    }

    #[test]
    fn each_shard_is_listed_once_and_the_current_ones_come_first() {
        let (shards, placement) = placed(
            "dflockd://a:1,b:1+c:1,D:1/?sharding_strategy=rendezvous_hash_shard\
             &previous_servers=e:1,d:1,c:1%2Bb:1&previous_sharding_strategy=stable_hash_shard",
        );
        assert_eq!(shards, ["a:1", "b:1", "D:1", "e:1"]);
        let places = [3, 2, 1];
        for key in (0..200).map(|number| format!("orders/{number}")) {
            let placed = placement.place(&key).unwrap();
            let before = places[crate::stable_hash_shard(&key, 3)];
            assert_eq!(placed.shard, crate::rendezvous_hash_shard(&key, 3));
            assert_eq!(
                placed.previous,
                Some(before).filter(|before| *before != placed.shard),
                "{key}"
            );
        }
    }

    #[test]
    fn a_strategy_may_change_alone() {
        let (shards, placement) = placed(
            "dflockd://a:1,b:1/?sharding_strategy=rendezvous_hash_shard&previous_sharding_strategy=stable_hash_shard",
        );
        assert_eq!(shards.len(), 2);
        assert_eq!((placement.current_shards(), placement.previous_shards()), (2, Some(2)));
        assert_eq!(placed("dflockd://a:1,b:1").1.previous_shards(), None);
    }

    #[test]
    fn an_invalid_transition_is_refused_with_the_remedy() {
        for (parameters, said) in [
            ("previous_servers=a:1", "without previous_sharding_strategy"),
            ("previous_sharding_strategy=stable_hash_shard", "no key moves"),
            (
                "previous_servers=A:1,b:01&previous_sharding_strategy=stable_hash_shard",
                "no key moves",
            ),
            (
                "previous_servers=a:1%2Bc:1&previous_sharding_strategy=stable_hash_shard",
                "cluster[\"a:1\", \"c:1\"] is not acceptable: one of its servers is in a different shard",
            ),
            (
                "previous_servers=c:1,c:1&previous_sharding_strategy=stable_hash_shard",
                "name each server once",
            ),
            (
                "previous_servers=c:1&previous_sharding_strategy=stable_hash_shard&fencing=required",
                "Lease::transition_fences",
            ),
            ("previous_servers=c:x", "previous_servers"),
            (
                "previous_sharding_strategy=mine",
                "stable_hash_shard or rendezvous_hash_shard",
            ),
        ] {
            let error = refusal(&format!("dflockd://a:1,b:1/?{parameters}"));
            assert!(error.contains(said), "{parameters}: {error}");
        }
    }
}
