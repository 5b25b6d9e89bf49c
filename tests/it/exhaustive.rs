//! Later releases of this crate can add variants to a public enum, and public fields to a struct that has public
//! fields. So these types are `#[non_exhaustive]`. A variant of a public enum is `#[non_exhaustive]`, too, if it has
//! named fields or several fields. `COMPLETE` lists the exceptions.

use crate::support::sources::sources;

/// The exceptions, each with its reason. An entry has the source file and the name of a type. If `::*` follows the
/// name, the type is an enum that is `#[non_exhaustive]`, and its variants are the exceptions. Otherwise the type is
/// the exception, and its documentation says that it cannot grow.
const COMPLETE: [(&str, &str); 8] = [
    ("call.rs Enqueued", "a server gives one of two answers"),
    ("distributed/mod.rs EnqueueStatus", "a server gives one of two answers"),
    ("fence.rs Fence", "a number"),
    (
        "protocol/request.rs Request::*",
        "users make requests, and the protocol fixes their fields",
    ),
    ("service/request.rs Request::*", "users of the service make requests"),
    ("target.rs Kind", "the protocol has two namespaces"),
    ("target.rs Target", "the protocol has two namespaces"),
    ("ticket.rs Enqueued", "a server gives one of two answers"),
];

/// If a public enum or struct begins in this line, returns whether it is an enum, and its name.
fn begins(line: &str) -> Option<(bool, &str)> {
    let line = line.trim_start();
    let (is_enum, rest) = match line.strip_prefix("pub enum ") {
        Some(rest) => (true, rest),
        None => (false, line.strip_prefix("pub struct ")?),
    };
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    Some((is_enum, name))
}

/// Returns whether the struct that begins with these lines has a public field.
fn has_public_field(lines: &[&str]) -> bool {
    let first = lines[0];
    if let Some((_, fields)) = first.split_once('(') {
        return fields.contains("pub ") && !fields.contains("pub(");
    }
    if !first.trim_end().ends_with('{') {
        return false;
    }
    let fields = lines[1..].iter().take_while(|line| line.trim() != "}");
    fields.into_iter().any(|line| line.trim_start().starts_with("pub "))
}

/// Returns `Enum::*` if a variant of this enum has named fields or several fields and is not `#[non_exhaustive]`.
fn complete_variants(name: &str, lines: &[&str]) -> Option<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let end = format!("{}}}", " ".repeat(indent(lines[0])));
    let variants = indent(lines[0]) + 4;
    let body = lines[1..].iter().take_while(|line| **line != end);
    let mut can_grow = false;
    for line in body.filter(|line| indent(line) == variants) {
        let line = line.trim();
        if line == "#[non_exhaustive]" {
            can_grow = true;
        } else if line.starts_with(char::is_alphabetic) {
            let several = line.ends_with('{') || line.trim_end_matches("),").contains(", ");
            if several && !can_grow {
                return Some(format!("{name}::*"));
            }
            can_grow = false;
        }
    }
    None
}

/// Returns the types of a source file that need `#[non_exhaustive]` and do not have it. `Enum::*` in the result means
/// that a variant of this enum needs `#[non_exhaustive]` and does not have it.
fn complete(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let Some((is_enum, name)) = begins(line) else { continue };
        let above = lines[..number].iter().rev();
        let mut attributes = above.take_while(|line| {
            let line = line.trim_start();
            line.starts_with("#[") || line.starts_with("///") || line.starts_with(')')
        });
        let can_grow = attributes.any(|line| line.contains("non_exhaustive"));
        if !can_grow && (is_enum || has_public_field(&lines[number..])) {
            found.push(name.to_owned());
        }
        if is_enum {
            found.extend(complete_variants(name, &lines[number..]));
        }
    }
    found
}

#[test]
fn public_types_can_grow_unless_they_are_listed() {
    let mut unexplained = Vec::new();
    let mut explained = Vec::new();
    for (path, text) in sources() {
        for name in complete(&text) {
            let found = format!("{path} {name}");
            match COMPLETE.iter().find(|(listed, _)| found.ends_with(listed)) {
                Some((listed, _)) => explained.push(*listed),
                None => unexplained.push(found),
            }
        }
    }
    assert_eq!(
        unexplained, [""; 0],
        "make these types #[non_exhaustive], or add them to COMPLETE with a reason"
    );
    for (listed, _) in COMPLETE {
        assert!(explained.contains(&listed), "{listed} is listed but does not exist");
    }
}

#[test]
fn the_search_finds_types_that_cannot_grow() {
    let text = "\
pub enum A {\n    B,\n}\n/// C.\n#[derive(Debug)]\n#[non_exhaustive]\npub enum C {\n    D,\n}\npub struct E {\n    f: u8,\n}\n\
pub struct G {\n    /// H.\n    pub h: u8,\n}\npub struct I(pub u64);\npub struct J(u64);\npub struct K(pub(crate) u64);\npub struct L;\n";
    assert_eq!(complete(text), ["A", "G", "I"]);
    let variants = |attribute: &str| {
        format!(
            "#[non_exhaustive]\npub enum A {{\n    /// B.\n    B(u8),\n    C,\n    {attribute}\n    D {{\n        e: u8,\n    }},\n}}\n"
        )
    };
    assert_eq!(complete(&variants("#[non_exhaustive]")), [""; 0]);
    assert_eq!(complete(&variants("/// D.")), ["A::*"]);
    assert_eq!(
        complete("#[non_exhaustive]\npub enum A {\n    B(u8, u8),\n}\n"),
        ["A::*"]
    );
}
