//! How the rules read the tree: sources without their comments, manifests, folders.

use std::fs;
use std::path::{Path, PathBuf};

/// A source file.
pub(crate) struct Source {
    pub(crate) path: String,
    /// The whole file serves tests.
    pub(crate) is_test: bool,
    pub(crate) lines: Vec<Line>,
}

/// A line without its comment.
pub(crate) struct Line {
    pub(crate) number: usize,
    pub(crate) code: String,
    /// Inside the `mod tests` at the end of a file.
    pub(crate) in_tests: bool,
}

impl Source {
    fn new(path: &str) -> Self {
        let text = read(path);
        let mut lines: Vec<Line> = Vec::new();
        let mut in_tests = false;
        for (index, line) in text.lines().enumerate() {
            in_tests |= line.starts_with("mod tests {");
            let code = if line.trim_start().starts_with("//") { "" } else { line };
            let code = code.split(" // ").next().unwrap_or_default().to_owned();
            lines.push(Line { number: index + 1, code, in_tests });
        }
        let is_test = path.contains("/tests/") || path.ends_with("/tests.rs");
        Self { path: path.to_owned(), is_test, lines }
    }

    /// The modules of the crate that this file names, with the line; `below` is its path in `src`. A way over
    /// `super` to the root is given as `super`, which nobody may use: it hides where it leads.
    pub(crate) fn modules_used(&self, below: &str) -> Vec<(usize, String)> {
        let depth = below.trim_end_matches("/mod.rs").split('/').count();
        let mut used = Vec::new();
        for (index, line) in self.lines.iter().enumerate() {
            for (at, _) in line.code.match_indices("crate::").filter(|(at, _)| starts_word(&line.code, *at)) {
                let rest = &line.code[at + "crate::".len()..];
                if rest.starts_with('{') {
                    let behind = self.lines.iter().skip(index + 1).map(|line| line.code.as_str());
                    let tree: String = std::iter::once(rest).chain(behind).collect::<Vec<_>>().join("\n");
                    used.extend(names_in_group(&tree).into_iter().map(|name| (line.number, name)));
                } else {
                    used.push((line.number, rest.chars().take_while(|c| is_word(*c)).collect()));
                }
            }
            let steps = line.code.matches("super::").count();
            let chained = (1..=steps).rev().find(|steps| line.code.contains(&"super::".repeat(*steps)));
            if chained.unwrap_or(0) >= depth + usize::from(line.in_tests) {
                used.push((line.number, "super".to_owned()));
            }
        }
        used.retain(|(_, name)| name.starts_with(|c: char| c.is_lowercase()));
        used
    }
}

/// `{a::x, b::{y, z}}...` -> a, b
fn names_in_group(tree: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    let mut name = String::new();
    let mut in_name = false;
    for c in tree.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 1 && (c == '{' || c == ',') {
            in_name = true;
        } else if depth == 1 && in_name && is_word(c) {
            name.push(c);
        } else if !name.is_empty() {
            names.push(std::mem::take(&mut name));
            in_name = false;
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// Whether a line says a word, and not only a part of another one.
pub(crate) fn says(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let ends = |c: Option<char>| !c.is_some_and(is_word);
        let ends_in_word = word.ends_with(is_word);
        starts_word(code, at) && (!ends_in_word || ends(code[at + word.len()..].chars().next()))
    })
}

fn starts_word(code: &str, at: usize) -> bool {
    !code[at..].starts_with(is_word) || !code[..at].ends_with(is_word)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// One line of a manifest.
pub(crate) struct Dependency {
    pub(crate) line: usize,
    pub(crate) section: String,
    pub(crate) name: String,
    pub(crate) value: String,
}

/// Every dependency of a manifest, of whatever kind. A manifest is written one dependency a line.
pub(crate) fn dependencies(manifest: &str) -> Vec<Dependency> {
    let mut section = String::new();
    let mut found = Vec::new();
    for (index, line) in read(manifest).lines().enumerate() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if section.ends_with("dependencies")
            && let Some((name, value)) = line.split_once('=')
            && !line.starts_with('#')
        {
            let name = name.trim();
            let (name, value) = match name.strip_suffix(".workspace") {
                Some(name) => (name, format!("workspace = {}", value.trim())),
                None => (name, value.to_owned()),
            };
            found.push(Dependency {
                line: index + 1,
                section: section.clone(),
                name: name.to_owned(),
                value,
            });
        }
    }
    found
}

/// Sources under these folders.
pub(crate) fn sources(folders: &[&str]) -> Vec<Source> {
    folders.iter().flat_map(|folder| files(folder, "rs")).map(|path| Source::new(&path)).collect()
}

/// All files with this extension, as paths from the root.
pub(crate) fn files(folder: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    for path in entries(folder) {
        if root().join(&path).is_dir() {
            found.extend(files(&path, extension));
        } else if Path::new(&path).extension().is_some_and(|end| end == extension) {
            found.push(path);
        }
    }
    found
}

/// What is in a folder, as paths from the root, in order. Nothing that a build or a run leaves there.
pub(crate) fn entries(folder: &str) -> Vec<String> {
    let names = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| !matches!(name.as_str(), ".git" | "target" | "leveret-data"));
    names.sort();
    let within = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    names.into_iter().map(|name| format!("{within}{name}")).collect()
}

/// A file's text.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
