//! Checks the section "By request" of `docs/failover-tests.md`: every test exists in the module that the document
//! names. `tests/links.rs` checks the names of tests in the rest of the document.

use std::fs::{read_dir, read_to_string};
use std::path::Path;

/// Returns the source of a module in `tests/it`, or the source of the unit tests in `src/shard/cluster_tests`.
fn source_of(module: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = match module {
        "unit" => root.join("src/shard/cluster_tests"),
        _ => {
            let file = root.join(format!("tests/it/{module}.rs"));
            if file.exists() {
                return read_to_string(file).unwrap();
            }
            root.join("tests/it").join(module)
        }
    };
    let files = read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    files
        .map(|file| read_to_string(file.unwrap().path()).unwrap())
        .collect()
}

#[test]
fn the_tests_that_the_document_names_exist() {
    let document = read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/failover-tests.md")).unwrap();
    let (_, section) = document
        .split_once("## By request")
        .expect("the document has this section");
    let (section, _) = section.split_once("\n## ").expect("another follows");
    let named: Vec<_> = section
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|text| text.split_once(": "))
        .collect();
    assert!(named.len() > 20, "{named:?}");
    for (target, name) in named {
        assert!(
            source_of(target).contains(&format!("fn {name}(")),
            "{target} has no {name}"
        );
    }
}
