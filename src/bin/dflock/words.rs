//! Words for users of shells in the library's messages: the library names its Rust API, and these users know settings
//! and flags.

/// Texts of the library, and the texts that replace them. A longer text comes before the texts that it contains.
const WORDS: [(&str, &str); 26] = [
    // This text is removed: the failure that has it also has a remedy, which says how to give the auth token.
    (" (ClientBuilder::auth_token)", ""),
    (
        "is given with ClientBuilder::auth_token",
        "is given with DFLOCKD_AUTH_TOKEN_FILE",
    ),
    (
        "give this client TLS, with ClientBuilder::tls",
        "turn TLS on with the setting tls",
    ),
    (
        "if it does not, give this client no TLS",
        "if it does not, turn TLS off (setting tls)",
    ),
    (
        "; a strategy of the program's own is given with ClientBuilder::sharding_strategy",
        "",
    ),
    (
        "use Fencing::IfKnown and Lease::transition_fences, as docs/guide/src/sharding.md says",
        "leave --fence out, and the setting fencing",
    ),
    (
        "ClientBuilder::from_url takes URLs, and ClientBuilder::tls turns TLS on",
        "--url takes URLs, and the setting tls turns TLS on",
    ),
    ("fencing is Required", "fences are required"),
    (
        "or a ClientBuilder::fencing that does not require fences",
        "or leave --fence out, and the setting fencing",
    ),
    (
        "insist on them with ClientBuilder::fencing(Fencing::Required)",
        "insist on them with --fence",
    ),
    ("see Lease::transition_fences", "see docs/guide/src/sharding.md"),
    (
        "use Shard::single (or ClientBuilder::servers) for a server that stands alone",
        "write a server that stands alone as host:port",
    ),
    (
        "use Shard::standby for independent servers of which only one is in use at a time",
        "write independent servers of which only one is in use at a time as 'host:port;host:port'",
    ),
    ("was made with Shard::standby", "was given as 'host:port;host:port'"),
    ("with Shard::stable_ref", "with the setting stable_ref"),
    (
        "name an authority with Tls::new().ca_file(…)",
        "name an authority with the setting tls_ca_file",
    ),
    (
        "add one with ca_file or ca_pem, or begin with Tls::system_roots()",
        "add one with the setting tls_ca_file, or leave tls_system_roots out",
    ),
    ("with Tls::ca_file", "with the setting tls_ca_file"),
    ("with Tls::server_name", "with the setting tls_server_name"),
    ("see Tls::server_name", "see the setting tls_server_name"),
    (
        "with Tls::client_certificate_files",
        "with the settings tls_client_certificate_file and tls_client_key_file",
    ),
    (
        ", or install a provider of rustls before (rustls::crypto::CryptoProvider::install_default)",
        "",
    ),
    (
        "turn on the feature tls-ring or tls-aws-lc-rs of dflockd-client",
        "build dflock with the feature tls-ring or tls-aws-lc-rs",
    ),
    (
        "turn on the feature tls-platform-verifier of dflockd-client",
        "build dflock with the feature tls-platform-verifier",
    ),
    (
        "turn on the feature tls of dflockd-client",
        "build dflock with the feature tls",
    ),
    (
        "docs/guide/src/configuration.md lists all settings",
        "`dflock config` lists all settings",
    ),
];

/// Returns a message of the library in the words of this program.
pub(crate) fn for_shells(message: &str) -> String {
    let mut message = message.to_owned();
    for (of_library, here) in WORDS {
        if message.contains(of_library) {
            message = message.replace(of_library, here);
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    /// Files whose texts this program does not show, and files that contain no messages.
    const UNSHOWN: [&str; 5] = [
        // Its messages are about a missing runtime, and this program has one.
        "runtime.rs",
        // Documentation.
        "lib.rs",
        "testing",
        "fuzzing",
        "bin",
    ];

    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if UNSHOWN.contains(&name) || name == "tests.rs" || name == "tests" {
                continue;
            }
            match path.is_dir() {
                true => files(&path, found),
                false => found.push(path),
            }
        }
    }

    /// Returns the string literals of a source, without those of comments and of its tests.
    fn literals(source: &str) -> Vec<String> {
        let source = source.split("#[cfg(test)]\nmod ").next().unwrap();
        let (mut literals, mut rest) = (Vec::new(), source);
        while let Some(start) = rest.find(['"', '/', '\'']) {
            let (before, from) = rest.split_at(start);
            if from.starts_with("//") {
                rest = from.find('\n').map_or("", |end| &from[end..]);
            } else if from.starts_with("'\"'") || from.starts_with("'\\\"'") {
                rest = &from[from.find("\"'").unwrap() + 2..];
            } else if let Some(inner) = from.strip_prefix('"') {
                let hashes = before.len() - before.trim_end_matches('#').len();
                let is_raw = before.trim_end_matches('#').ends_with('r');
                let end = match is_raw {
                    true => inner.find(&format!("\"{}", "#".repeat(hashes))).unwrap(),
                    false => end_of_literal(inner),
                };
                literals.push(joined(&inner[..end]));
                rest = &inner[end + 1..];
            } else {
                rest = &from[1..];
            }
        }
        literals
    }

    fn end_of_literal(inner: &str) -> usize {
        let mut is_escaped = false;
        for (at, byte) in inner.bytes().enumerate() {
            match byte {
                b'"' if !is_escaped => return at,
                b'\\' => is_escaped = !is_escaped,
                _ => is_escaped = false,
            }
        }
        panic!("a literal has no end: {inner:.80}");
    }

    /// Joins the lines of a literal, as the compiler does after a backslash.
    fn joined(literal: &str) -> String {
        let mut lines = literal.split("\\\n");
        let first = lines.next().unwrap_or_default().to_owned();
        lines.fold(first, |joined, line| joined + line.trim_start())
    }

    fn is_of_name(c: char) -> bool {
        c.is_ascii_alphanumeric() || c == '_'
    }

    /// Returns whether a message contains a Rust path. A text without blanks is no message: attributes have such
    /// texts.
    fn names_rust(message: &str) -> bool {
        message.contains(' ')
            && message.match_indices("::").any(|(at, _)| {
                message[..at].ends_with(is_of_name)
                    && message[at + 2..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            })
    }

    /// Returns the names of the variants of the public enums of a source.
    fn variants(source: &str) -> Vec<String> {
        let mut is_enum = false;
        let mut variants = Vec::new();
        for line in source.lines() {
            is_enum = match is_enum {
                true => line != "}",
                false => line.starts_with("pub enum "),
            };
            let name = line.strip_prefix("    ").filter(|_| is_enum).unwrap_or_default();
            let end = name.find(|c: char| !is_of_name(c)).unwrap_or(name.len());
            if name.starts_with(|c: char| c.is_ascii_uppercase()) {
                variants.push(name[..end].to_owned());
            }
        }
        variants
    }

    /// Returns whether a message contains the name of a variant. The first word of a sentence does not count.
    fn names_variant(message: &str, variants: &[String]) -> bool {
        let words: Vec<&str> = message.split(' ').collect();
        words.windows(2).any(|pair| {
            let is_inside = pair[0].ends_with(|c: char| is_of_name(c) || c == ',');
            let word = pair[1].split(|c| !is_of_name(c)).next().unwrap_or_default();
            is_inside && variants.iter().any(|variant| variant == word)
        })
    }

    #[test]
    fn no_message_of_the_library_names_its_rust_api_here() {
        let mut found = Vec::new();
        files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        assert!(found.len() > 100, "{}", found.len());
        let (mut read, mut renamed) = (0, 0);
        let mut faults = Vec::new();
        let sources: Vec<_> = found
            .into_iter()
            .map(|file| (fs::read_to_string(&file).unwrap(), file))
            .collect();
        let variants: Vec<String> = sources.iter().flat_map(|(source, _)| variants(source)).collect();
        assert!(variants.iter().any(|variant| variant == "Required") && variants.len() > 50);
        for (source, file) in sources {
            for literal in literals(&source) {
                read += 1;
                renamed += usize::from(names_rust(&literal));
                let shown = for_shells(&literal);
                let is_of_build = shown.contains("of dflockd-client");
                if names_rust(&shown) || names_variant(&shown, &variants) || is_of_build {
                    faults.push(format!("{}: {shown}", file.display()));
                }
            }
        }
        assert!(faults.is_empty(), "{faults:#?}");
        assert!(read > 1_000 && renamed > 10, "{renamed} of {read}");
    }

    /// A text that the library no longer has needs no replacement.
    #[test]
    fn all_words_occur_in_the_library() {
        let mut found = Vec::new();
        files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        let literals: Vec<String> = found
            .iter()
            .flat_map(|file| literals(&fs::read_to_string(file).unwrap()))
            .collect();
        for (of_library, _) in WORDS {
            let occurs = literals.iter().any(|literal| literal.contains(of_library));
            assert!(occurs, "{of_library}");
        }
    }

    #[test]
    fn literals_are_found_between_code() {
        let source =
            "let a = \"one \\\" two\"; // \"no\"\nlet b = '\"'; let c = r#\"three \"\"#; let d = \"f\\\n     g\";";
        assert_eq!(literals(source), ["one \\\" two", "three \"", "fg"]);
        let variants = variants("pub enum A {\n    /// One.\n    Wait,\n    Go(u8),\n}\n    Not");
        assert_eq!(variants, ["Wait", "Go"]);
        let names_variant = |message| names_variant(message, &variants);
        assert!(names_variant("that is Wait: no") && !names_variant("so. Wait") && !names_variant("is Waiting"));
        assert!(names_rust("see Tls::new") && !names_rust("at ::1 and a::") && !names_rust("Vec::is_empty"));
    }
}
