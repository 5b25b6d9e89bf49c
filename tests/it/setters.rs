//! Two rules of `docs/design.md`, "Names and setters", that can be checked in the sources: a setter never fails, and no
//! getter has its name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The sources of the types to which the rule about names applies: clients, handles, guards, and their requests. It
/// does not apply to all types: an `Endpoint` has a getter `host`, and a `ServerBuilder` has a setter `host`.
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

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
            false => {}
        }
    }
}

/// Returns each public function of a text, from its name to its body, in one line.
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut all = Vec::new();
    for file in files {
        let place = file.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(&file).unwrap();
        all.extend(
            signatures(&text)
                .into_iter()
                .map(|signature| (place.clone(), signature)),
        );
    }
    all
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
