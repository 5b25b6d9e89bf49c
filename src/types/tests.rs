//! Tests of the checks of values, and of their text and serialized forms.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{Debug, Display};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;
use crate::error::{ErrorKind, Result};

fn message(result: Result<Key>) -> String {
    match result {
        Ok(key) => panic!("{key:?} was accepted"),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            error.to_string()
        }
    }
}

#[test]
fn keys_are_measured_in_bytes() {
    assert!(Key::new("k".repeat(256)).is_ok());
    assert!(Key::new("ü".repeat(128)).is_ok());
    assert!(message(Key::new("ü".repeat(129))).contains("258 bytes"));
}

#[test]
fn invalid_keys_are_refused_and_quoted_in_the_error() {
    assert!(message(Key::new("")).contains("empty"));
    for bad in ["a b", "a\tb", "a\nb", "a\rb", "a\0b", "a\u{3000}b"] {
        let text = message(Key::new(bad));
        assert!(text.contains(&format!("{bad:?}")), "{text}");
    }
}

#[test]
fn long_values_are_cut_in_messages() {
    assert!(message(Key::new("k".repeat(10_000))).len() < 200);
}

#[test]
fn tokens_are_shortened() {
    let token = Token::new("00000000000000ffDEADBEEFdeadbeef").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(token.first_half(), 255);
    let all = Token::new("0123456789abcdefFEDCBA9876543210").unwrap();
    assert_eq!(all.first_half(), 0x0123_4567_89ab_cdef);
    let upper = Token::new("FEDCBA9876543210ffffffffffffffff").unwrap();
    assert_eq!(upper.first_half(), 0xfedc_ba98_7654_3210);
    assert_eq!(format!("{token} {token:?}"), "00000000… Token(00000000…)");
    assert!(Token::new("xyz").is_err_and(|e| !e.to_string().contains("xyz")));
    assert!(Token::new("g".repeat(32)).is_err());
}

#[test]
fn seconds_are_rounded_up_and_bounded() {
    assert!(Ttl::new(Duration::from_millis(999)).is_err());
    assert_eq!(Ttl::new(Duration::from_millis(1001)).map(Ttl::as_secs).ok(), Some(2));
    assert!(Ttl::new(Duration::MAX).is_err());
    assert_eq!(Ttl::from_secs(0), None);
    assert_eq!(WaitSecs::covering(Duration::ZERO), WaitSecs::TRY);
    assert_eq!(WaitSecs::covering(Duration::from_millis(1)).as_secs(), 1);
    assert_eq!(WaitSecs::covering(Duration::MAX).as_secs(), MAX_SECONDS);
    assert!(Limit::new(0).is_err());
}

#[test]
fn a_key_is_parsed_serialized_and_found_by_its_text() {
    let key: Key = "jobs/42".parse().unwrap();
    assert_eq!((key.as_ref(), key.as_str()), ("jobs/42", "jobs/42"));
    assert_eq!(
        Key::try_from("jobs/42").unwrap(),
        Key::try_from("jobs/42".to_owned()).unwrap()
    );
    assert_eq!(String::from(key.clone()), "jobs/42");
    assert!(HashMap::from([(key.clone(), 1)]).contains_key("jobs/42"));
    assert!(BTreeMap::from([(key.clone(), 1)]).contains_key("jobs/42"));
    let json = serde_json::to_string(&HashMap::from([(&key, 1)])).unwrap();
    assert_eq!(json, r#"{"jobs/42":1}"#);
    let read: HashMap<Key, u32> = serde_json::from_str(&json).unwrap();
    assert_eq!(read.get("jobs/42"), Some(&1));
    let error = serde_json::from_str::<Key>(r#""a b""#).unwrap_err().to_string();
    assert!(error.contains("whitespace"), "{error}");
    // `Display` escapes invisible characters.
    let hidden = Key::new("a\u{202e}b").unwrap();
    assert_eq!(hidden.to_string(), "a\\u{202e}b");
    assert_eq!(
        serde_json::from_str::<Key>(&serde_json::to_string(&hidden).unwrap()).unwrap(),
        hidden
    );
}

#[test]
fn parsing_a_token_gives_the_same_as_new() {
    let digits = "0123456789abcdefFEDCBA9876543210";
    assert_eq!(digits.parse::<Token>().unwrap(), Token::new(digits).unwrap());
    assert!("short".parse::<Token>().is_err());
}

#[test]
fn a_target_is_shown_with_its_limit() {
    let slots = Target::Semaphore(Limit::new(3).unwrap());
    assert_eq!(
        (Target::Lock.to_string(), slots.to_string()),
        ("lock".into(), "semaphore of limit 3".into())
    );
}

#[test]
fn an_invalid_ttl_or_limit_is_refused_with_its_value() {
    for text in ["", "s", "0", "0s", "33", "+33s", "-1s", "33ms", "9223372037s", "1.5"] {
        let error = text.parse::<Ttl>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
    }
    for json in ["0", "9223372037", "-1", "\"33\"", "\"0s\"", "1.5", "true"] {
        assert!(serde_json::from_str::<Ttl>(json).is_err(), "{json}");
    }
    for (text, secs) in [
        ("33s", 33),
        ("33 s", 33),
        ("1m30s", 90),
        ("1.5s", 2),
        ("1500ms", 2),
        ("9223372036s", MAX_SECONDS),
    ] {
        assert_eq!(text.parse::<Ttl>().unwrap().as_secs(), secs, "{text}");
        assert_eq!(
            serde_json::from_value::<Ttl>(text.into()).unwrap().as_secs(),
            secs,
            "{text}"
        );
        assert_eq!(text.parse::<WaitSecs>().unwrap().as_secs(), secs, "{text}");
        assert_eq!(
            serde_json::from_value::<WaitSecs>(text.into()).unwrap().as_secs(),
            secs,
            "{text}"
        );
        let as_setting =
            crate::ClientOptions::from_url(&format!("dflockd://a/?lease_ttl={}", text.replace(' ', "%20")));
        assert!(as_setting.is_ok(), "{text}");
    }
    for (json, secs) in [("0", 0), ("33", 33), ("\"0\"", 0)] {
        assert_eq!(
            serde_json::from_str::<WaitSecs>(json).unwrap().as_secs(),
            secs,
            "{json}"
        );
    }
    for json in ["9223372037", "-1", "\"1\"", "\"9223372037s\""] {
        assert!(serde_json::from_str::<WaitSecs>(json).is_err(), "{json}");
    }
    assert_eq!(serde_json::to_string(&WaitSecs::from_secs(7)).unwrap(), "7");
    for text in ["", "0", "-1", "4294967296", "many"] {
        assert_eq!(
            text.parse::<Limit>().unwrap_err().kind(),
            ErrorKind::InvalidInput,
            "{text}"
        );
    }
    for json in ["0", "-1", "4294967296"] {
        assert!(serde_json::from_str::<Limit>(json).is_err(), "{json}");
    }
    assert!(Ttl::try_from(Duration::from_millis(1)).is_err() && Limit::try_from(0).is_err());
}

/// Checks that a value can be restored from its text and from JSON.
fn round_trips<T>(value: T) -> std::result::Result<(), TestCaseError>
where
    T: Copy + Debug + Display + PartialEq + FromStr<Err: Debug> + Serialize + DeserializeOwned,
{
    prop_assert_eq!(value.to_string().parse::<T>().unwrap(), value);
    let json = serde_json::to_string(&value).unwrap();
    prop_assert_eq!(serde_json::from_str::<T>(&json).unwrap(), value);
    Ok(())
}

proptest! {
    #[test]
    fn numbers_round_trip_through_text_json_and_their_source_types(
        fence: u64, limit in 1_u32.., secs in 1..=MAX_SECONDS, millis in 1_000_u64..1_000_000_000,
    ) {
        round_trips(Fence::from(fence))?;
        prop_assert_eq!(u64::from(Fence(fence)), fence);
        round_trips(Limit::try_from(limit).unwrap())?;
        prop_assert_eq!(u32::from(Limit::from(NonZeroU32::new(limit).unwrap())), limit);
        round_trips(Ttl::from_secs(secs).unwrap())?;
        let wait = WaitSecs::from_secs(secs).unwrap();
        prop_assert_eq!((Duration::from(wait), wait.to_string()), (Duration::from_secs(secs), format!("{secs}s")));
        let asked = Duration::from_millis(millis);
        let ttl = Duration::from(Ttl::try_from(asked).unwrap());
        prop_assert!(ttl >= asked && ttl < asked + Duration::from_secs(1));
    }

    #[test]
    fn keys_round_trip_through_text_and_json(text in "[^\\s\\x00]{1,60}") {
        let key: Key = text.parse().unwrap();
        prop_assert_eq!(serde_json::from_str::<Key>(&serde_json::to_string(&key).unwrap()).unwrap(), key.clone());
        prop_assert_eq!(String::from(key), text);
    }
}
