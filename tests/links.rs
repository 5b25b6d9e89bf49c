//! Tests that every link of the documents leads to an existing file and heading, and that every test named in a
//! document exists. The tests do not use the network.
//!
//! The chapters of the guide are read in three places: in the repository, as a book, and on docs.rs as
//! `dflockd_client::guide`. So a link between chapters is a reference (`[text][loss.md#causes]`), and each chapter
//! defines its labels. On docs.rs, these labels must lead to modules. The definitions for docs.rs are in
//! `docs/guide/rustdoc-links.md`. Each module of the guide includes `rustdoc-links.md` before the chapter, because the
//! first definition of a label counts. `WRITE_GUIDE_LINKS=1 cargo test --test links` writes `rustdoc-links.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const GUIDE: &str = "docs/guide/src";
const MODULES: &str = "https://docs.rs/dflockd-client/latest/dflockd_client/guide/";
const SOURCES: &str = "https://docs.rs/crate/dflockd-client/latest/source/";

#[test]
fn every_link_of_a_document_leads_to_a_file_and_a_heading() {
    let documents = files("md");
    assert!(documents.len() > 20, "{documents:?}");
    let mut broken = Vec::new();
    let mut followed = 0;
    for document in &documents {
        let text = fs::read_to_string(root().join(document)).unwrap();
        for link in links(&text) {
            followed += 1;
            let verdict = match &link {
                Link::To(target) => follow(document, target),
                Link::Undefined(label) => Err(format!("the label [{label}] is not defined")),
            };
            if let Err(why) = verdict {
                broken.push(format!("{}: {why}", document.display()));
            }
        }
    }
    assert!(followed > 100, "only {followed} links were found");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_link_of_the_sources_to_the_guide_leads_to_a_chapter() {
    let mut seen = 0;
    for source in files("rs").into_iter().filter(|path| path.starts_with("src")) {
        let text = fs::read_to_string(root().join(&source)).unwrap();
        for start in [MODULES, SOURCES] {
            for rest in text.split(start).skip(1) {
                let end = rest.find([')', '>', ' ', '\n', '"', '`']).unwrap_or(rest.len());
                let target = format!("{start}{}", &rest[..end]);
                follow(&source, &target).unwrap_or_else(|why| panic!("{}: {why}", source.display()));
                seen += 1;
            }
        }
    }
    assert!(seen > 5, "only {seen} links were found");
}

#[test]
fn every_chapter_is_in_the_book_and_on_docs_rs() {
    let summary = fs::read_to_string(root().join(GUIDE).join("SUMMARY.md")).unwrap();
    let module = fs::read_to_string(root().join("src/guide.rs")).unwrap();
    for chapter in chapters() {
        assert!(
            summary.contains(&format!("]({chapter})")),
            "{chapter} is missing in SUMMARY.md"
        );
        assert!(
            module.contains(&format!("include_str!(\"../{GUIDE}/{chapter}\")")),
            "{chapter} is missing in src/guide.rs"
        );
    }
    // Each module of the guide includes the definitions for docs.rs.
    let included = module.matches("include_str!(\"../docs/guide/src/").count();
    assert_eq!(
        module
            .matches("include_str!(\"../docs/guide/rustdoc-links.md\")")
            .count(),
        included
    );
}

#[test]
fn links_between_chapters_have_a_definition_for_docs_rs() {
    let mut defined = BTreeMap::new();
    for chapter in chapters() {
        let text = fs::read_to_string(root().join(GUIDE).join(&chapter)).unwrap();
        let prose = prose(&text);
        for inline in prose.match_indices("](").map(|(at, _)| &prose[at + 2..]) {
            let target = &inline[..inline.find(')').unwrap()];
            let may_be_inline = target.starts_with('#') || target.starts_with("https://");
            assert!(
                may_be_inline,
                "{chapter}: write [text][{target}], and [{target}]: {target} at the end, for docs.rs"
            );
        }
        for (label, target) in definitions(&prose) {
            if target.starts_with("https://") {
                continue;
            }
            assert_eq!(label, target, "{chapter}: a label must be equal to its target");
            defined.insert(label, for_docs_rs(&target));
        }
    }
    let mut expected = String::new();
    for (label, target) in &defined {
        writeln!(expected, "[{label}]: {target}").unwrap();
    }
    let path = root().join("docs/guide/rustdoc-links.md");
    if std::env::var_os("WRITE_GUIDE_LINKS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap();
    let of = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (found, expected) = (of(&found), of(&expected));
    // The line of a picture has thousands of characters, so only the label is shown.
    let labels: BTreeSet<&str> = found
        .symmetric_difference(&expected)
        .map(|line| line.split("]: ").next().unwrap())
        .collect();
    assert!(
        labels.is_empty(),
        "run WRITE_GUIDE_LINKS=1 cargo test --test links, as these have changed: {labels:?}"
    );
}

/// Documents name a test in full, or by the beginning of its name (`a_test_that_…`). If a test is renamed, the
/// documents must change too.
#[test]
fn every_test_that_a_document_names_exists() {
    let mut sources = String::new();
    for source in files("rs") {
        sources.push_str(&fs::read_to_string(root().join(source)).unwrap());
    }
    let planted: Vec<PathBuf> = files("patch");
    let is_planted = |name: &str| {
        planted
            .iter()
            .any(|path| path.file_stem().is_some_and(|stem| stem == name))
    };
    let mut named = 0;
    let mut unknown = Vec::new();
    for document in [
        "docs/testing.md",
        "docs/failover-tests.md",
        "docs/guide/src/security.md",
    ] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        for test in tests_named(&text) {
            named += 1;
            let function = match test.strip_suffix('…') {
                Some(beginning) => format!("fn {beginning}"),
                None => format!("fn {test}("),
            };
            if !sources.contains(&function) && !is_planted(test) {
                unknown.push(format!("{document}: {test}"));
            }
        }
    }
    assert!(named > 150, "only {named} names of tests were found");
    assert!(unknown.is_empty(), "there is no such test:\n{}", unknown.join("\n"));
}

/// Returns the names in code that look like names of tests, without their modules. Such a name has at least four words.
fn tests_named(text: &str) -> Vec<&str> {
    let code = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let names = code.filter_map(|code| code.rsplit([':', ' ']).next());
    names
        .filter(|name| {
            let words = name.trim_end_matches('…');
            words.matches('_').count() >= 3
                && words
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        })
        .collect()
}

#[test]
fn a_planted_broken_link_is_found() {
    let readme = Path::new("README.md");
    assert!(follow(readme, "docs/guide/src/none.md").is_err());
    assert!(follow(readme, "README.md#no-such-heading").is_err());
    assert!(follow(readme, &format!("{MODULES}none/index.html")).is_err());
    assert!(follow(readme, &format!("{SOURCES}none.md")).is_err());
    assert!(follow(readme, "LICENSE-MIT").is_ok());
    assert_eq!(
        tests_named("`it: one_that_is_whole`, `unit::a_test_that_…`, `bad_input`"),
        ["one_that_is_whole", "a_test_that_…"]
    );
    let text = "[a](one.md) `[no](two.md)` [b][three.md] [c][four]\n```sh\n[d](five.md)\n```\n\n[three.md]: three.md\n";
    assert_eq!(
        links(text),
        [
            Link::To("one.md".to_owned()),
            Link::To("three.md".to_owned()),
            Link::Undefined("four".to_owned()),
        ]
    );
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Link {
    To(String),
    Undefined(String),
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the files of the project with this extension, relative to its root.
fn files(extension: &str) -> Vec<PathBuf> {
    fn read(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                if !name.starts_with('.') && !["target", "corpus", "node_modules"].contains(&name.as_str())
                    || name == ".github"
                {
                    read(&path, extension, found);
                }
            } else if path.extension().is_some_and(|of| of == extension) && !name.contains("venv") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    read(Path::new(""), extension, &mut found);
    found.retain(|path| !path.components().any(|part| part.as_os_str() == "site-packages"));
    found.sort();
    found
}

fn chapters() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(root().join(GUIDE))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".md") && name != "SUMMARY.md")
        .collect();
    names.sort();
    names
}

/// Returns the text without code blocks, and with each character of inline code replaced by `x`.
fn prose(text: &str) -> String {
    let mut prose = String::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block && !line.starts_with("    ") {
            prose.push_str(&without_code(line));
        }
        prose.push('\n');
    }
    prose
}

/// Replaces each character of code between backticks by `x`, so that no link is found in code.
fn without_code(line: &str) -> String {
    let mut out = String::new();
    for (index, part) in line.split('`').enumerate() {
        if index % 2 == 1 {
            out.extend(part.chars().map(|_| 'x'));
        } else {
            out.push_str(part);
        }
    }
    out
}

fn definitions(prose: &str) -> BTreeMap<String, String> {
    let lines = prose.lines().filter(|line| line.starts_with('['));
    let pairs = lines.filter_map(|line| line.split_once("]: "));
    pairs
        .map(|(label, target)| (label[1..].to_owned(), target.trim().to_owned()))
        .collect()
}

/// Returns the targets of the links of a text. A link in brackets alone, such as `[text]`, is not read, because rustdoc
/// warns if it is broken.
fn links(text: &str) -> Vec<Link> {
    let prose = prose(text);
    let defined = definitions(&prose);
    let mut found = BTreeSet::new();
    for (at, _) in prose.match_indices("](") {
        let target = &prose[at + 2..];
        let end = target.find([')', ' ', '\n']).unwrap();
        found.insert(Link::To(target[..end].to_owned()));
    }
    for (at, _) in prose.match_indices("][") {
        let label = &prose[at + 2..];
        let label = &label[..label.find(']').unwrap()];
        found.insert(match defined.get(label) {
            Some(target) => Link::To(target.clone()),
            None => Link::Undefined(label.to_owned()),
        });
    }
    found.into_iter().collect()
}

/// Checks a link in the file `from`. If the link leads nowhere, the error says why.
fn follow(from: &Path, target: &str) -> Result<(), String> {
    let (file, anchor) = match target.split_once('#') {
        Some((file, anchor)) => (file, Some(anchor)),
        None => (target, None),
    };
    let path = if let Some(rest) = target.strip_prefix(MODULES) {
        let module = rest.split(['/', '#']).next().unwrap();
        match module {
            "index.html" => PathBuf::from(GUIDE).join("introduction.md"),
            _ => PathBuf::from(GUIDE).join(format!("{}.md", module.replace('_', "-"))),
        }
    } else if let Some(rest) = file.strip_prefix(SOURCES) {
        PathBuf::from(rest)
    } else if target.starts_with("https://") || target.starts_with("http://") {
        return Ok(());
    } else if file.is_empty() {
        from.to_path_buf()
    } else {
        from.parent().unwrap().join(file)
    };
    if !root().join(&path).exists() {
        return Err(format!("{target} leads to {}, which does not exist", path.display()));
    }
    let Some(anchor) = anchor else {
        return Ok(());
    };
    let text = fs::read_to_string(root().join(&path)).unwrap();
    if anchors(&text).contains(anchor) {
        Ok(())
    } else {
        Err(format!("{target}: {} has no such heading", path.display()))
    }
}

/// Returns the anchors of a document's headings, in the form of GitHub, mdBook and rustdoc.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        }
        if in_block || !line.starts_with('#') {
            continue;
        }
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        anchors.insert(anchor);
    }
    anchors
}

/// Returns the target of a label on docs.rs. For a chapter, this is a module. For a picture, this is the encoded
/// picture.
fn for_docs_rs(target: &str) -> String {
    if target.ends_with(".svg") {
        let picture = fs::read_to_string(root().join(GUIDE).join(target)).unwrap();
        let mut encoded = "data:image/svg+xml,".to_owned();
        for byte in picture.split_whitespace().collect::<Vec<_>>().join(" ").bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' | b':' | b'=' | b',' | b';' => {
                    encoded.push(char::from(byte));
                }
                _ => write!(encoded, "%{byte:02X}").unwrap(),
            }
        }
        return encoded;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let module = match file.strip_suffix(".md").expect("a chapter") {
        "introduction" => "crate::guide".to_owned(),
        name => format!("crate::guide::{}", name.replace('-', "_")),
    };
    match anchor {
        "" => module,
        _ => format!("{module}#{anchor}"),
    }
}
