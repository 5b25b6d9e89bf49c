//! The chapter on tests names a file, which contains the blocks of the chapter. Readers can copy this file whole.

use std::fs;

use crate::{blocks, chapter, root};

#[test]
fn the_blocks_of_the_chapter_on_tests_stand_in_the_file_that_it_names() {
    let file = fs::read_to_string(root().join("tests/it/testing_your_code.rs")).unwrap();
    let file: String = file.split_whitespace().collect();
    let blocks = blocks(&chapter("testing-your-code.md"), "rust,ignore");
    for block in &blocks {
        let code: String = block.split_whitespace().collect();
        assert!(file.contains(&code), "this stands in the guide only:\n{block}");
    }
    assert!(blocks.len() > 10, "{} blocks", blocks.len());
}

/// A reader copies the file alone, without the modules beside it and without the guide.
#[test]
fn the_file_that_the_chapter_on_tests_names_needs_no_other_file_of_this_repository() {
    let file = fs::read_to_string(root().join("tests/it/testing_your_code.rs")).unwrap();
    for needs in ["crate::", "super::", "include_str!", "env!", "\nmod "] {
        assert!(!file.contains(needs), "testing_your_code.rs has {needs}");
    }
}
