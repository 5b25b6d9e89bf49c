//! Values that have names are shown, parsed and serialized as those names.

use std::fmt::Debug;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::OnUnavailable;
use crate::error::{Error, ErrorKind};
use crate::lease::state::{LeaseState, LostReason};
use crate::net::failover::FailoverReason;
use crate::net::fencing::Fencing;
use crate::service::Operation;
use crate::signal::Overflow;
use crate::types::Kind;

/// Checks that each value has a unique name, that it is parsed and serialized as this name, and that other texts are
/// rejected.
fn check_names<T>(all: &[T], name: fn(T) -> &'static str)
where
    T: Copy + Debug + PartialEq + FromStr<Err = Error> + Serialize + DeserializeOwned,
{
    for one in all {
        let name = name(*one);
        assert_eq!(name.parse::<T>().unwrap(), *one, "{name}");
        let json = format!("{name:?}");
        assert_eq!(serde_json::to_string(one).unwrap(), json);
        assert_eq!(serde_json::from_str::<T>(&json).unwrap(), *one);
    }
    for text in ["", "nonsense", "Lock", " lost"] {
        let error = text.parse::<T>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let text = error.to_string();
        assert!(all.iter().all(|one| text.contains(name(*one))), "{text}");
        assert!(serde_json::from_str::<T>(&format!("{text:?}")).is_err());
    }
}

#[test]
fn named_values_are_parsed_and_serialized_as_their_names() {
    check_names(&ErrorKind::ALL, ErrorKind::as_str);
    check_names(&FailoverReason::ALL, FailoverReason::as_str);
    check_names(&Fencing::ALL, Fencing::as_str);
    check_names(&Kind::ALL, Kind::as_str);
    check_names(&LostReason::ALL, LostReason::as_str);
    check_names(&OnUnavailable::ALL, OnUnavailable::as_str);
    check_names(&Operation::ALL, Operation::as_str);
    check_names(&Overflow::ALL, Overflow::as_str);
}

#[test]
fn named_values_are_shown_by_their_names() {
    for kind in ErrorKind::ALL {
        assert_eq!(kind.to_string(), kind.as_str());
    }
    let shown = [
        Kind::Semaphore.to_string(),
        Fencing::IfKnown.to_string(),
        OnUnavailable::FailFast.to_string(),
        Overflow::DropOldest.to_string(),
    ];
    assert_eq!(shown, ["semaphore", "if_known", "fail_fast", "drop_oldest"]);
}

#[test]
fn the_state_of_a_lease_says_why_it_is_lost() {
    for (state, said, json) in [
        (LeaseState::Held, "held", r#""held""#),
        (LeaseState::Suspect, "not confirmed", r#""suspect""#),
        (
            LeaseState::Lost(LostReason::Expired),
            "lost: it could not be renewed in time",
            r#"{"lost":"expired"}"#,
        ),
        (LeaseState::Released, "released", r#""released""#),
    ] {
        assert!(state.to_string().contains(said), "{state}");
        assert_eq!(serde_json::to_string(&state).unwrap(), json);
        assert_eq!(serde_json::from_str::<LeaseState>(json).unwrap(), state);
    }
}
