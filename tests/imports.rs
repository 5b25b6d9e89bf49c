//! Tests of the imports between modules. No two modules of the library, or of the command, import each other. The
//! imports of the library follow the order in docs/design.md. The tests ignore test code, links of the documentation,
//! imports between a parent and its children, and imports between a builder and the type that it builds.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Pairs of modules that may import each other. `X::builder()` needs the module of `XBuilder`, and `XBuilder` needs the
/// module of `X`.
const BUILDERS: [(&str, &str); 1] = [("server::builder", "server::listener")];

/// The attributes of items that exist only for tests, or only for tests and fuzzers.
const TESTS_ONLY: [&str; 2] = ["#[cfg(test)]", "#[cfg(any(test, fuzzing))]"];

/// The source of each module, by the module's path in the crate. The path of the crate's root is empty.
type Sources = BTreeMap<String, String>;

type Imports = BTreeMap<String, BTreeMap<String, String>>;

#[test]
fn no_modules_import_each_other() {
    let imports = imports(&sources());
    assert!(imports.len() > 50, "only {} modules were read", imports.len());
    assert_eq!(cycle(&imports), None);
}

#[test]
fn no_modules_of_the_command_import_each_other() {
    let imports = imports(&read(&root().join("src/bin/dflock")));
    assert!(imports.len() > 15, "only {} modules were read", imports.len());
    assert_eq!(cycle(&imports), None);
}

#[test]
fn the_order_of_the_layers_is_that_of_the_design_document() {
    let design = fs::read_to_string(root().join("docs/design.md")).unwrap();
    let rows = rows(&design);
    let sources = sources();
    let modules: BTreeSet<&str> = sources
        .keys()
        .map(|module| top(module))
        .filter(|top| !top.is_empty())
        .collect();
    let listed: BTreeSet<&str> = rows.keys().map(String::as_str).collect();
    assert_eq!(
        listed, modules,
        "docs/design.md, \"Imports\", must list exactly the modules of src/lib.rs"
    );
    let mut wrong = Vec::new();
    for (module, imported) in imports(&sources).iter().filter(|(module, _)| !module.contains("::")) {
        for (other, place) in imported {
            if !is_builder(module, other) && rows[module] <= rows[other] {
                wrong.push(format!("{module} imports {other} ({place}), which is not above it"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_server_imports_little_of_the_client() {
    let imports = imports(&sources());
    let imported: Vec<&str> = imports["server"].keys().map(String::as_str).collect();
    assert_eq!(
        imported,
        [
            "clock", "error", "escape", "io_words", "protocol", "runtime", "stats", "tls", "types", "unwind"
        ]
    );
}

#[test]
fn a_planted_cycle_is_found() {
    let cycles = [
        [("a", "use crate::b::X;"), ("b", "use crate::a::Y;")],
        [("a", "use crate::{b::{X, Z as W}};"), ("b::c", "use super::super::a;")],
        [
            ("a", "fn f() { crate::b::f() }"),
            ("b::c", "pub(crate) use crate::{a::Y, q};"),
        ],
        [("p::a", "use super::b::X;"), ("p::b", "use crate::p::a::{self, Y};")],
    ];
    for planted in cycles {
        let found = cycle(&imports(&modules(&planted)));
        assert!(found.is_some(), "{planted:?}");
    }
    let through_a_reexport = [
        ("a", "use crate::p::X;"),
        ("p", "pub use b::X;"),
        ("p::b", "use crate::a::Y;"),
    ];
    let found = cycle(&imports(&modules(&through_a_reexport)));
    assert!(found.is_some(), "through a re-export");
}

#[test]
fn exempt_imports_are_not_a_cycle() {
    let fine = [
        [("a", "use crate::b::X;"), ("b", "// use crate::a::Y;\nfn f() {}")],
        [
            ("a", "use crate::b::X;"),
            ("b", "#[cfg(test)]\nmod tests {\n    use crate::a::Y;\n    fn f() {}\n}"),
        ],
        [
            ("a", "use crate::b::X;"),
            ("b", "#[cfg(test)]\n#[allow(x)]\nuse crate::{a::Y, c};\nuse crate::c;"),
        ],
        [("a", "use crate::b::X;"), ("b", "#[cfg(doc)]\nuse crate::a::Y;")],
        [("p", "use self::a::X;"), ("p::a", "use super::Y;")],
        [
            ("server::builder", "use super::listener::X;"),
            ("server::listener", "use super::builder::Y;"),
        ],
    ];
    for modules_of in fine {
        assert_eq!(cycle(&imports(&modules(&modules_of))), None, "{modules_of:?}");
    }
    // The files of modules that exist only for tests are ignored.
    let mut files = modules(&[("a", "use crate::b::X;"), ("b", "#[cfg(test)]\nmod tests;")]);
    files.insert("b::tests".to_owned(), "use crate::a::Y;".to_owned());
    files.insert("b::tests::part".to_owned(), "use crate::a::Y;".to_owned());
    assert_eq!(cycle(&imports(&files)), None);
    let fuzzed = "#[cfg(any(test, fuzzing))]\n#[allow(x)]\npub(in crate::b) mod fuzzing;";
    let mut files = modules(&[("a", "use crate::b::X;"), ("b", fuzzed)]);
    files.insert("b::fuzzing".to_owned(), "use crate::a::Y;".to_owned());
    assert_eq!(cycle(&imports(&files)), None);
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn modules(sources: &[(&str, &str)]) -> Sources {
    let sources = sources
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    sources.collect()
}

/// Returns the row number of each module in the table under the heading "Imports". Rows are counted from the top.
fn rows(design: &str) -> BTreeMap<String, usize> {
    let section = design
        .split("### Imports\n")
        .nth(1)
        .expect("docs/design.md has the heading \"### Imports\"");
    let table = section.lines().skip_while(|line| !line.starts_with("    "));
    let rows = table.take_while(|line| line.starts_with("    ")).enumerate();
    let named = rows.flat_map(|(row, line)| line.split_whitespace().map(move |module| (module.to_owned(), row)));
    named.collect()
}

/// Reads the modules of the library. The path of a file counts as the path of its module, although a few files belong
/// to another module (`#[path = …]`).
fn sources() -> Sources {
    let mut sources = read(&root().join("src"));
    // The command is a separate crate.
    sources.retain(|module, _| top(module) != "bin");
    // These modules are compiled only as documentation.
    sources.remove("doctests");
    sources.remove("guide");
    // These modules are compiled only for tests and fuzzers.
    sources.retain(|module, _| top(module) != "fuzzing");
    sources
}

/// Reads the modules of a crate.
fn read(folder: &Path) -> Sources {
    fn read(folder: &Path, prefix: &str, sources: &mut Sources) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap();
            let below = if prefix.is_empty() {
                stem.to_owned()
            } else {
                format!("{prefix}::{stem}")
            };
            if path.is_dir() {
                read(&path, &below, sources);
            } else if ["mod", "lib", "main"].contains(&stem) {
                sources.insert(prefix.to_owned(), fs::read_to_string(&path).unwrap());
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.insert(below, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut sources = Sources::new();
    read(folder, "", &mut sources);
    sources
}

/// Removes comments, and items that exist only for tests or documentation.
fn compiled(source: &str) -> String {
    let lines = source.lines().map(|line| line.split("//").next().unwrap_or_default());
    let mut rest = lines.collect::<Vec<_>>().join("\n");
    while let Some(start) = [TESTS_ONLY[0], TESTS_ONLY[1], "#[cfg(doc)]", "#[cfg(doctest)]"]
        .iter()
        .filter_map(|cfg| rest.find(cfg))
        .min()
    {
        let end = start + item(&rest[start..]);
        rest.replace_range(start..end, "");
    }
    rest
}

/// Returns the length of the item at the start of the text, with its attributes. The item ends at a `;` or `,`, or at
/// the end of its block.
fn item(text: &str) -> usize {
    let mut depth = 0;
    let mut in_block = false;
    for (index, c) in text.char_indices() {
        match c {
            '{' if depth == 0 => (depth, in_block) = (1, true),
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth > 0 => {
                depth -= 1;
                if depth == 0 && in_block {
                    // A `;` after the block belongs to the item, as in `use a::{b};`.
                    return index + 1 + usize::from(text[index + 1..].starts_with(';'));
                }
            }
            ';' | ',' if depth == 0 => return index + 1,
            '}' => return index,
            _ => {}
        }
    }
    text.len()
}

/// Returns the modules whose files exist only for tests.
fn test_modules(sources: &Sources) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (module, source) in sources {
        for after in TESTS_ONLY.iter().flat_map(|only| source.split(only).skip(1)) {
            let mut lines = after.lines().map(str::trim);
            let item = lines.find(|line| !line.is_empty() && !line.starts_with("#["));
            let declared = item.and_then(|item| item.strip_suffix(';')?.split_once("mod "));
            if let Some((_, name)) = declared.filter(|(before, _)| before.is_empty() || before.starts_with("pub")) {
                found.insert(join(module, name));
            }
        }
    }
    found
}

fn imports(sources: &Sources) -> Imports {
    let tests = test_modules(sources);
    let mut uses: BTreeMap<&str, BTreeSet<(String, String)>> = BTreeMap::new();
    // For each name that a module imports: the (module, name) that the imported path leads to.
    let mut names: BTreeMap<(String, String), (String, String)> = BTreeMap::new();
    let is_a_test = |module: &str| {
        tests
            .iter()
            .any(|test| module == test || module.starts_with(&format!("{test}::")))
    };
    for (module, source) in sources.iter().filter(|(module, _)| !is_a_test(module)) {
        let source = compiled(source);
        let found = uses.entry(module).or_default();
        for path in used(&source) {
            if let Some(target) = resolve(module, &path, sources) {
                if !target.1.is_empty() {
                    names.insert((module.clone(), target.1.clone()), target.clone());
                }
                found.insert(target);
            }
        }
        for path in inline_paths(&source) {
            found.extend(resolve(module, &path, sources));
        }
    }
    let mut imports = Imports::new();
    for module in sources.keys() {
        imports.entry(top(module).to_owned()).or_default();
        imports.entry(module.clone()).or_default();
    }
    for (module, targets) in uses {
        for first in targets {
            let mut target = &first;
            let mut seen = BTreeSet::new();
            while let Some(next) = names
                .get(target)
                .filter(|next| *next != target && seen.insert((*next).clone()))
            {
                target = next;
            }
            if let Some((from, to)) = siblings(module, &target.0) {
                let place = format!("{module}: {}::{}", target.0, target.1);
                imports.entry(from).or_default().entry(to).or_insert(place);
            }
        }
    }
    imports
}

/// Returns the paths of all `use` declarations.
fn used(source: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for declaration in source.split(';') {
        let Some(start) = declaration.rfind("use ") else {
            continue;
        };
        let is_word = declaration[..start].chars().next_back().is_none_or(char::is_whitespace);
        if is_word {
            expand("", &declaration[start + 4..], &mut paths);
        }
    }
    paths
}

/// Adds the paths of a `use` tree: `a::{b, c::{d, e as f}}` has the paths `a::b`, `a::c::d` and `a::c::e`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((path, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default().trim();
        paths.push(format!("{prefix}{path}"));
        return;
    };
    let prefix = format!("{prefix}{}", path.trim());
    let group = group.rsplit_once('}').map_or(group, |(group, _)| group);
    let (mut depth, mut start) = (0, 0);
    for (index, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&prefix, &group[start..index], paths);
                start = index + 1;
            }
            _ => {}
        }
    }
    if !group[start..].trim().is_empty() {
        expand(&prefix, &group[start..], paths);
    }
}

/// Returns all paths that begin with `crate::` or `super::`.
fn inline_paths(source: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for start in ["crate::", "super::"] {
        for (index, _) in source.match_indices(start) {
            let is_inside = source[..index].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            let end = source[index..].find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            let path = &source[index..end.map_or(source.len(), |end| index + end)];
            if !is_inside {
                paths.push(path.trim_end_matches(':').to_owned());
            }
        }
    }
    paths
}

/// Returns the module that a path leads to, and the name in that module. Returns `None` for a path to another crate.
fn resolve(module: &str, path: &str, sources: &Sources) -> Option<(String, String)> {
    let mut parts = path.split("::").peekable();
    let mut current = match *parts.peek()? {
        "crate" => String::new(),
        "self" | "super" => module.to_owned(),
        child if sources.contains_key(&join(module, child)) => module.to_owned(),
        _ => return None,
    };
    parts.next_if_eq(&"crate");
    parts.next_if_eq(&"self");
    while parts.next_if_eq(&"super").is_some() {
        current.truncate(current.rfind("::").unwrap_or_default());
    }
    while let Some(child) =
        parts.next_if(|part| sources.contains_key(&join(&current, part)) || is_folder(&join(&current, part), sources))
    {
        current = join(&current, child);
    }
    let name = parts.next().filter(|name| *name != "self").unwrap_or_default();
    Some((current, name.to_owned()))
}

fn is_folder(module: &str, sources: &Sources) -> bool {
    let prefix = format!("{module}::");
    sources.keys().any(|name| name.starts_with(&prefix))
}

fn join(module: &str, child: &str) -> String {
    if module.is_empty() {
        child.to_owned()
    } else {
        format!("{module}::{child}")
    }
}

fn top(module: &str) -> &str {
    module.split("::").next().unwrap_or_default()
}

/// Returns the two siblings at which the paths of two modules separate. The first sibling is `from` or contains it, and
/// the second sibling is `to` or contains it. Returns `None` if one module contains the other.
fn siblings(from: &str, to: &str) -> Option<(String, String)> {
    let (a, b): (Vec<_>, Vec<_>) = (from.split("::").collect(), to.split("::").collect());
    let common = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let is_inside = common == a.len() || common == b.len() || from.is_empty() || to.is_empty();
    (!is_inside).then(|| (a[..=common].join("::"), b[..=common].join("::")))
}

fn is_builder(a: &str, b: &str) -> bool {
    BUILDERS.contains(&(a, b)) || BUILDERS.contains(&(b, a))
}

/// Returns a cycle of imports, if there is one.
fn cycle(imports: &Imports) -> Option<String> {
    fn visit<'a>(
        module: &'a str,
        imports: &'a Imports,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<String> {
        if let Some(start) = way.iter().position(|on_the_way| *on_the_way == module) {
            let steps = way[start..].iter().zip(way[start + 1..].iter().chain([&module]));
            let told = steps.map(|(from, to)| format!("{from} imports {to} ({})", imports[*from][*to]));
            return Some(told.collect::<Vec<_>>().join(", "));
        }
        if !done.insert(module) {
            return None;
        }
        way.push(module);
        let imported = imports.get(module).into_iter().flat_map(BTreeMap::keys);
        let found = imported
            .filter(|other| !is_builder(module, other))
            .find_map(|other| visit(other, imports, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    imports
        .keys()
        .find_map(|module| visit(module, imports, &mut Vec::new(), &mut done))
}
