//! `docs/semantics.md` promises nothing that no test keeps.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One line of the document: `- **P1** ... (`path::name`)`, continued on indented lines.
struct Promise {
    id: String,
    text: String,
}

fn promises(document: &str) -> Vec<Promise> {
    let mut promises: Vec<Promise> = Vec::new();
    let mut open = false;
    for line in document.lines() {
        if let Some((id, text)) = line.strip_prefix("- **").and_then(|rest| rest.split_once("** ")) {
            promises.push(Promise { id: id.to_owned(), text: text.to_owned() });
            open = true;
        } else if open && line.starts_with("  ") {
            let promise = promises.last_mut().unwrap();
            promise.text.push('\n');
            promise.text.push_str(line.trim());
        } else {
            open = false;
        }
    }
    promises
}

/// The tests that a promise names: paths from the root of the repository, and the function.
fn tests_of(promise: &Promise) -> Vec<(String, String)> {
    let quoted = promise.text.split('`').skip(1).step_by(2);
    let named = quoted.filter_map(|quoted| quoted.split_once(".rs::"));
    named.map(|(file, name)| (format!("{file}.rs"), name.to_owned())).collect()
}

#[test]
fn every_promise_has_a_number_of_its_own_and_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let promises = promises(&fs::read_to_string(root.join("docs/semantics.md")).unwrap());
    assert!(promises.len() > 50, "the document was not understood: {} promises", promises.len());
    let mut ids = HashSet::new();
    let mut wrong = Vec::new();
    for (index, promise) in promises.iter().enumerate() {
        if promise.id != format!("P{}", index + 1) || !ids.insert(promise.id.clone()) {
            wrong.push(format!("{} is number {} of the document", promise.id, index + 1));
        }
        let tests = tests_of(promise);
        if tests.is_empty() {
            wrong.push(format!("{} names no test", promise.id));
        }
        for (file, name) in tests {
            let source = fs::read_to_string(root.join(&file)).unwrap_or_default();
            let lines: Vec<_> = source.lines().map(str::trim).collect();
            let declared = |line: &str| {
                let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
                function.is_some_and(|rest| rest.starts_with(&format!("{name}(")))
            };
            let at = lines.iter().position(|line| declared(line));
            let is_test = at.is_some_and(|at| {
                let attributes = lines[..at]
                    .iter()
                    .rev()
                    .take_while(|line| line.starts_with('#') || line.starts_with("//"));
                attributes
                    .into_iter()
                    .any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
            });
            if !is_test {
                wrong.push(format!("{} names {file}::{name}, which is no test", promise.id));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The files of a folder and of those in it.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files_in(&path) } else { vec![path] }).collect()
}

#[test]
fn every_test_over_a_socket_keeps_a_promise() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.parent().unwrap().join("docs/semantics.md")).unwrap();
    let mut unnamed = Vec::new();
    for folder in ["end_to_end", "amqp"] {
        for path in files_in(&root.join(folder)) {
            let file = path.strip_prefix(root.join(folder)).unwrap().to_str().unwrap().to_owned();
            let source = fs::read_to_string(&path).unwrap();
            if file == "promises.rs" {
                continue;
            }
            for after in source.split("#[tokio::test]\n").skip(1).chain(source.split("#[test]\n").skip(1)) {
                let Some((_, rest)) = after.split_once("fn ") else { continue };
                let name = rest.split_once('(').unwrap().0;
                let named = format!("tests/{folder}/{file}::{name}");
                if !document.contains(&named) {
                    unnamed.push(named);
                }
            }
        }
    }
    assert!(unnamed.is_empty(), "tests that no promise names: {unnamed:#?}");
}
