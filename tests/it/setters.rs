//! Checks three rules from the section "Names and setters" of `docs/design.md` in the sources. A setter never fails. No
//! getter has the name of a setter. A method whose name is a question changes nothing.

use std::collections::BTreeMap;

use crate::support::sources::sources;

/// The sources of clients, handles, guards and their requests. The rule that no getter has the name of a setter applies
/// to these types. The rule does not apply to all types: `Endpoint` has a getter `host`, and `ServerBuilder` has a
/// setter `host`.
const OF_CLIENTS: [&str; 10] = [
    "blocking/",
    "client/",
    "distributed/",
    "events/",
    "handle/",
    "keyed/",
    "lease/",
    "service/",
    "shards.rs",
    "signal/",
];

/// The first words of names that are questions.
const QUESTIONS: [&str; 8] = ["is_", "has_", "can_", "may_", "was_", "needs_", "counts_", "wants_"];

/// Returns the signature of each public function in a text, without `pub fn`, in one line.
fn signatures(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let behind = |word| text.split(word).skip(1);
    let functions = behind("    pub fn ").chain(behind("    pub async fn "));
    let heads = functions.filter_map(|function| Some(function.split_once('{')?.0));
    heads
        .map(|head| head.split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "("))
        .collect()
}

fn name(signature: &str) -> &str {
    signature.split(['(', '<']).next().unwrap()
}

/// Returns the return type of a setter, or `None` for another function. A setter takes `self` and a value, and returns
/// `Self`, or `Result<Self>` if it breaks the rule.
fn setter(signature: &str) -> Option<&str> {
    let takes = signature.find("self, ")?;
    let before = &signature[..takes];
    let takes_itself = before.ends_with('(') || before.ends_with("(mut ");
    let (_, returns) = signature.rsplit_once(" -> ")?;
    let returns = returns.split(" where ").next()?.trim();
    (takes_itself && ["Self", "Result<Self>"].contains(&returns)).then_some(returns)
}

fn getter(signature: &str) -> bool {
    signature.contains("(&self)") && signature.contains(" -> ")
}

fn all() -> Vec<(String, String)> {
    let of_file = |(place, text): (String, String)| {
        let signatures = signatures(&text).into_iter();
        signatures
            .map(|signature| (place.clone(), signature))
            .collect::<Vec<_>>()
    };
    sources().into_iter().flat_map(of_file).collect()
}

/// Returns the names in a text that are questions, including names of private methods and of functions in tests. The
/// second value says whether the method takes `&mut self`.
fn questions(text: &str) -> Vec<(&str, bool)> {
    let functions = text.split("fn ").skip(1);
    let named = functions.filter_map(|function| function.split_once('('));
    let asking = named.filter(|(head, _)| QUESTIONS.iter().any(|word| head.starts_with(word)));
    asking
        .map(|(head, rest)| (name(head), rest.trim_start().starts_with("&mut self")))
        .collect()
}

#[test]
fn setters_never_fail() {
    let fallible: Vec<String> = all()
        .iter()
        .filter(|(_, signature)| setter(signature) == Some("Result<Self>"))
        .map(|(place, signature)| format!("{place} {}", name(signature)))
        .collect();
    assert!(
        fallible.is_empty(),
        "return Self, and check what was given where it is used: {fallible:?}"
    );
}

#[test]
fn no_getter_has_the_name_of_a_setter() {
    let mut setters = BTreeMap::new();
    let mut getters = Vec::new();
    for (place, signature) in all() {
        if !OF_CLIENTS.iter().any(|part| place.starts_with(part)) {
            continue;
        }
        if setter(&signature).is_some() {
            setters.insert(name(&signature).to_owned(), place);
        } else if getter(&signature) {
            getters.push((name(&signature).to_owned(), place));
        }
    }
    assert!(
        setters.len() > 40 && getters.len() > 60,
        "{} {}",
        setters.len(),
        getters.len()
    );
    let both: Vec<_> = getters.iter().filter(|(name, _)| setters.contains_key(name)).collect();
    assert!(both.is_empty(), "{both:?}");
}

#[test]
fn the_search_finds_setters_by_their_form() {
    let text = "impl A {
    pub fn a(mut self, a: u8) -> Self {
    }
    pub fn b<T: Into<u8>>(
        self,
        b: T,
    ) -> Result<Self>
    where
        T: Copy,
    {
    }
    pub fn c(self) -> Self {}
    pub fn d(&self, d: u8) -> u8 {}
    pub fn e(&self) -> u8 {}
}";
    let found = signatures(text);
    let forms: Vec<_> = found.iter().map(|one| (name(one), setter(one), getter(one))).collect();
    assert_eq!(
        forms,
        [
            ("a", Some("Self"), false),
            ("b", Some("Result<Self>"), false),
            ("c", None, false),
            ("d", None, false),
            ("e", None, true),
        ]
    );
}

#[test]
fn methods_whose_names_are_questions_change_nothing() {
    let texts = sources();
    let all: Vec<(&str, &str, bool)> = texts
        .iter()
        .flat_map(|(place, text)| {
            questions(text)
                .into_iter()
                .map(move |(name, mutable)| (place.as_str(), name, mutable))
        })
        .collect();
    assert!(all.len() > 150, "{}", all.len());
    let changing: Vec<_> = all.into_iter().filter(|(.., mutable)| *mutable).collect();
    assert!(changing.is_empty(), "name what the method does: {changing:?}");
    let planted = "fn is_up(\n    &mut self,\n) {} fn is_down(&self) {}";
    assert_eq!(questions(planted), [("is_up", true), ("is_down", false)]);
}
