//! The rules of `ARCHITECTURE.md` and `CONTRIBUTING.md`, as tests, so that they hold.
//!
//! A breach names the rule, the place and what to do. Where a rule is wrong for once, change the rule here and the page
//! in the same commit; the lists of exceptions below may only shrink.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

#[path = "tidy/reading.rs"]
mod reading;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use reading::{Source, dependencies, entries, files, read, root, says, sources};

/// The crates: their folder, what they may know of ours, and what of others they must not.
const CRATES: &[(&str, &[&str], &[&str])] = &[
    ("protocol", &[], &["tokio", "getrandom", "rand", "tracing"]),
    ("journal", &[], &["tokio", "tokio-util", "serde", "rmp-serde", "getrandom", "rand"]),
    ("broker", &["protocol", "journal"], &[]),
    ("client", &["protocol"], &[]),
    ("bench", &["protocol", "client"], &[]),
    ("examples", &["broker", "client"], &[]),
    ("tests", &["protocol", "journal", "broker", "client"], &[]),
];

/// The broker's modules, floor by floor: a module uses what is below its own floor, and nothing else.
const FLOORS: &[&[&str]] = &[
    &["broker"],
    &["upkeep"],
    &["listener"],
    &["connection"],
    &["channel"],
    &["topology"],
    &["exchange", "queue"],
    &["store"],
];
/// From this floor on there are only rules and records, which need no helpers.
const FLOOR_WITHOUT_HELPERS: usize = 6;
/// Modules beside the floors, and what they use. Every floor above the rules may use them, save for `config`.
const HELPERS: &[(&str, &[&str])] = &[
    ("auth", &[]),
    ("clock", &[]),
    ("logs", &[]),
    ("config", &["auth", "logs", "machine"]),
    ("machine", &[]),
];

/// The dependencies that need no defence.
const BASE_SET: &[&str] = &[
    "anyhow",
    "bytes",
    "rmp-serde",
    "serde",
    "thiserror",
    "tokio",
    "tokio-util",
    "tracing",
    "tracing-subscriber",
];

const FILE_LINES_MAX: usize = 600;
const FOLDER_ENTRIES_MAX: usize = 16;
/// Files that are longer, with their length now. They may only shrink.
const LONG_FILES: &[(&str, usize)] = &[];
/// Folders with more entries, with their number now. They may only shrink.
const FULL_FOLDERS: &[(&str, usize)] = &[
    // One file for each chapter of promises, and the chapters are many.
    ("tests/end_to_end", 18),
];

/// What must not be said in some places.
struct Taboo {
    rule: &'static str,
    places: &'static [&'static str],
    except: &'static [&'static str],
    words: &'static [&'static str],
    instead: &'static str,
}

const LIBRARIES: &[&str] = &["protocol/src/", "journal/src/", "broker/src/", "client/src/", "bench/src/"];

const TABOOS: &[Taboo] = &[
    Taboo {
        rule: "rules are pure",
        places: &["broker/src/exchange/", "broker/src/queue/", "protocol/src/"],
        // AMQP has a method `basic.recover-async`; it is no more than a name.
        except: &["protocol/src/codec.rs", "protocol/src/amqp/methods/basic.rs"],
        words: &[
            "tokio",
            "tokio_util",
            "std::fs",
            "std::net",
            "std::thread",
            "Instant",
            "SystemTime",
            "getrandom",
            "rand",
            "async",
            "await",
        ],
        instead: "decide here and act at the edges: take what you need as an argument, return what must follow",
    },
    Taboo {
        rule: "a queue has one lock, in its handle",
        places: &["broker/src/exchange/", "broker/src/queue/"],
        except: &["broker/src/queue/handle/"],
        words: &["Mutex", "RwLock", "parking_lot"],
        instead: "let the owner guard it: `Queue` for a queue, `Vhost` for its router",
    },
    Taboo {
        rule: "operations know no runtime",
        places: &["broker/src/channel/", "broker/src/auth/", "broker/src/config/"],
        except: &[],
        words: &["tokio", "tokio_util", "async", "await"],
        instead: "wait in `connection/`, between batches",
    },
    Taboo {
        rule: "one caller of the clocks",
        places: LIBRARIES,
        except: &["broker/src/clock.rs", "client/src/connection/driver.rs", "bench/src/measure/clock.rs"],
        words: &["Instant::now", "SystemTime::now"],
        instead: "take `now` as an argument; one reading serves a batch",
    },
    Taboo {
        rule: "one door to the disk",
        places: &["broker/src/", "journal/src/", "client/src/"],
        except: &[
            "journal/src/disk.rs",
            "broker/src/broker.rs",
            "broker/src/config/file.rs",
            "broker/src/machine/mod.rs",
            // A file of another library's, which the journal's disk could not stand in for.
            "broker/src/store/checkpoint.rs",
        ],
        words: &["std::fs", "tokio::fs", "File::open", "OpenOptions"],
        instead: "go through the journal's `Disk`, so that the simulated disk can stand in",
    },
    Taboo {
        rule: "one place knows the names of the journal's files",
        places: &["broker/src/", "journal/src/"],
        except: &["journal/src/path.rs"],
        words: &[".segment\"", ".spare\""],
        instead: "ask `path.rs`",
    },
    Taboo {
        rule: "one source of randomness for each program",
        places: LIBRARIES,
        except: &[
            "broker/src/auth/entropy.rs",
            "client/src/connection/handshake.rs",
            "client/src/connection/mod.rs",
        ],
        words: &["getrandom", "rand"],
        instead: "take it as an argument, so that a test can give a seed",
    },
    Taboo {
        rule: "frames stay in `connection/`",
        places: &["broker/src/"],
        except: &["broker/src/connection/"],
        words: &[
            "Frame",
            "FrameWriter",
            "FrameCodec",
            "Control",
            "PublishParts",
            "DeliverParts",
            "SettleParts",
        ],
        instead: "translate into an operation of `channel/` or `topology/`: other protocols call these, too",
    },
    Taboo {
        rule: "nothing panics",
        places: LIBRARIES,
        except: &[],
        words: &[".unwrap()", ".expect(\"", "panic!", "todo!", "unimplemented!", "unreachable!", "dbg!"],
        instead: "make the case impossible by types, or return a typed error",
    },
    Taboo {
        rule: "every queue has a limit",
        places: LIBRARIES,
        except: &[],
        words: &["unbounded_channel", "UnboundedSender", "UnboundedReceiver"],
        instead: "use a bounded one; its bound is a named constant or a setting",
    },
];

#[test]
fn crates_know_only_what_the_map_lets_them() {
    let mut breaches = Breaches::default();
    let members = read("Cargo.toml");
    let members = members.lines().find(|line| line.starts_with("members")).unwrap_or_default().to_owned();
    for member in members.split('"').skip(1).step_by(2) {
        if !CRATES.iter().any(|(folder, ..)| *folder == member) {
            breaches.add(
                "crates",
                "Cargo.toml",
                &format!("`{member}` is new: add it to CRATES and to the map"),
            );
        }
    }
    for (folder, ours, never) in CRATES {
        let manifest = format!("{folder}/Cargo.toml");
        for dependency in dependencies(&manifest) {
            let place = format!("{manifest}:{}", dependency.line);
            let name = dependency.name.as_str();
            let self_test = dependency.value.contains("path = \".\"");
            if !dependency.value.contains("workspace = true") && !self_test {
                let advice =
                    format!("write `{name}.workspace = true`, and the version into the root manifest");
                breaches.add("one version for each dependency", &place, &advice);
            }
            if dependency.section != "dependencies" {
                continue;
            }
            if let Some(our) = name.strip_prefix("leveret-")
                && !ours.contains(&our)
            {
                let advice = format!("`{folder}` must not know `{our}`: move what it needs below both");
                breaches.add("dependencies point one way", &place, &advice);
            }
            if never.contains(&name) {
                let advice = format!("`{folder}` must not know `{name}`: that belongs to who uses it");
                breaches.add("what a crate must not know", &place, &advice);
            }
        }
    }
    breaches.report();
}

#[test]
fn modules_of_the_broker_use_only_what_is_below_them() {
    let mut breaches = Breaches::default();
    for source in sources(&["broker/src"]) {
        let below = source.path.trim_start_matches("broker/src/");
        let module = below.split(['/', '.']).next().unwrap_or_default();
        if matches!(below, "lib.rs" | "main.rs") {
            continue;
        }
        for (line, used) in source.modules_used(below) {
            if used != module && !may_use(module, &used) {
                let advice = if used == "super" {
                    "write `crate::`, so that everybody sees where it leads".to_owned()
                } else {
                    format!(
                        "`{module}` must not know `{used}`: let what is above both bring them together, or hand \
                         `{module}` a trait that it defines"
                    )
                };
                breaches.add("dependencies point one way", &format!("{}:{line}", source.path), &advice);
            }
        }
    }
    breaches.report();
}

#[test]
fn nothing_is_said_where_it_must_not_be() {
    let mut breaches = Breaches::default();
    for source in sources(&["protocol/src", "journal/src", "broker/src", "client/src", "bench/src"]) {
        for taboo in TABOOS {
            let applies = |paths: &[&str]| paths.iter().any(|path| source.path.starts_with(path));
            if source.is_test || !applies(taboo.places) || applies(taboo.except) {
                continue;
            }
            for line in source.lines.iter().filter(|line| !line.in_tests) {
                if let Some(word) = taboo.words.iter().find(|word| says(&line.code, word)) {
                    let place = format!("{}:{}", source.path, line.number);
                    breaches.add(taboo.rule, &place, &format!("`{word}`: {}", taboo.instead));
                }
            }
        }
    }
    breaches.report();
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let mut sizes = Vec::new();
    for path in files("", "rs") {
        sizes.push((path.clone(), read(&path).lines().count()));
    }
    let advice = "split it by what changes together; tests go into a file of their own";
    check_sizes("files have at most 600 lines", &sizes, FILE_LINES_MAX, LONG_FILES, advice);
}

#[test]
fn folders_can_be_seen_at_one_glance() {
    let folders: BTreeSet<String> = files("", "rs")
        .iter()
        .filter_map(|path| path.rsplit_once('/').map(|(folder, _)| folder.to_owned()))
        .collect();
    let sizes: Vec<_> = folders.into_iter().map(|folder| (folder.clone(), entries(&folder).len())).collect();
    let advice = "put what belongs together into a folder of its own";
    check_sizes("folders have at most 16 entries", &sizes, FOLDER_ENTRIES_MAX, FULL_FOLDERS, advice);
}

#[test]
fn every_dependency_is_defended_and_used() {
    let mut breaches = Breaches::default();
    let manifest = read("Cargo.toml");
    let lines: Vec<&str> = manifest.lines().collect();
    let used: BTreeSet<String> = CRATES
        .iter()
        .flat_map(|(folder, ..)| dependencies(&format!("{folder}/Cargo.toml")))
        .map(|dependency| dependency.name)
        .collect();
    for dependency in dependencies("Cargo.toml") {
        let name = dependency.name.as_str();
        let place = format!("Cargo.toml:{}", dependency.line);
        let defended = lines.get(dependency.line - 2).is_some_and(|above| above.starts_with('#'));
        if !defended && !BASE_SET.contains(&name) && !dependency.value.contains("path = ") {
            let advice = format!("say in a comment above `{name}` what it is for and why not without it");
            breaches.add("every dependency is defended", &place, &advice);
        }
        if !used.contains(name) {
            breaches.add("every dependency is used", &place, &format!("no crate uses `{name}`: remove it"));
        }
    }
    breaches.report();
}

#[test]
fn the_map_names_what_exists_and_all_of_it() {
    let mut breaches = Breaches::default();
    let page = read("ARCHITECTURE.md");
    let rule = "the map is right";
    let map: Vec<&str> = page
        .lines()
        .skip_while(|line| *line != "```map")
        .skip(1)
        .take_while(|line| *line != "```")
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for path in &map {
        if !root().join(path).exists() || path.ends_with('/') != root().join(path).is_dir() {
            breaches.add(
                rule,
                "ARCHITECTURE.md",
                &format!("{path} does not exist: correct or remove the line"),
            );
        }
    }
    for path in mappable() {
        if !map.contains(&path.as_str()) {
            let advice = "it is not in the map: add a line that says in one sentence what it is for";
            breaches.add(rule, &path, advice);
        }
    }
    let modules = |text: &str, cut: &dyn Fn(&str) -> Option<String>| -> Vec<String> {
        text.lines().filter_map(cut).collect()
    };
    let in_lib = modules(&read("broker/src/lib.rs"), &|line| {
        Some(line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod ")?.strip_suffix(';')?.to_owned())
    });
    let in_map = modules(&map.join("\n"), &|path| {
        let name = path.strip_prefix("broker/src/")?.trim_end_matches('/').trim_end_matches(".rs");
        let is_module = !name.is_empty() && !matches!(name, "main" | "lib") && !name.contains('/');
        is_module.then(|| name.to_owned())
    });
    if in_lib != in_map {
        let advice =
            format!("the order of the modules in lib.rs is {in_lib:?}, in the map {in_map:?}: make them one");
        breaches.add("the map is in the order of lib.rs", "ARCHITECTURE.md", &advice);
    }
    breaches.report();
}

#[test]
fn what_the_map_mentions_is_there() {
    let mut breaches = Breaches::default();
    let sources = sources(&["protocol/src", "journal/src", "broker/src", "client/src"]);
    let page = read("ARCHITECTURE.md");
    for (number, line) in page.lines().enumerate() {
        for word in line.split('`').skip(1).step_by(2) {
            if !is_mentioned_rightly(word, &sources) {
                let place = format!("ARCHITECTURE.md:{}", number + 1);
                breaches.add("the map is right", &place, &format!("`{word}` is not there: was it renamed?"));
            }
        }
    }
    breaches.report();
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut breaches = Breaches::default();
    for path in files("", "md") {
        let page = read(&path);
        let folder = Path::new(&path).parent().unwrap_or(Path::new("")).to_owned();
        for (number, line) in page.lines().enumerate() {
            for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let target = link.split('#').next().unwrap_or_default();
                let elsewhere = target.is_empty() || target.contains(':');
                if !elsewhere && !root().join(&folder).join(target).exists() {
                    let place = format!("{path}:{}", number + 1);
                    breaches.add("links lead somewhere", &place, &format!("{target} does not exist"));
                }
            }
        }
    }
    breaches.report();
}

/// What the map has to name: the folders at the top and their sources' folders, and the broker's top modules.
fn mappable() -> Vec<String> {
    let is_dir = |path: &String| root().join(path).is_dir();
    let mut paths: Vec<String> = entries("").into_iter().filter(is_dir).collect();
    for parent in ["docs", "tests"] {
        paths.extend(entries(parent).into_iter().filter(is_dir));
    }
    let sources = files("", "rs");
    for (folder, ..) in CRATES {
        let within = format!("{folder}/src/");
        for path in sources.iter().filter(|path| path.starts_with(&within) && !path.contains("/tests/")) {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            paths.push(folder.to_owned());
        }
    }
    let mut paths: BTreeSet<String> = paths.into_iter().map(|path| path + "/").collect();
    paths.extend(entries("broker/src").into_iter().filter(|path| !is_dir(path)));
    paths.into_iter().collect()
}

fn may_use(module: &str, used: &str) -> bool {
    let floor = |name: &str| FLOORS.iter().position(|floor| floor.contains(&name));
    let helper = |name: &str| HELPERS.iter().find(|(helper, _)| *helper == name);
    match (floor(module), floor(used), helper(used)) {
        (Some(from), Some(to), _) => to > from,
        (Some(from), _, Some(_)) => from == 0 || (from < FLOOR_WITHOUT_HELPERS && used != "config"),
        (None, ..) => helper(module).is_some_and(|(_, uses)| uses.contains(&used)),
        _ => false,
    }
}

fn is_mentioned_rightly(word: &str, sources: &[Source]) -> bool {
    let is_path = word.contains('/') || [".rs", ".md", ".toml"].iter().any(|end| word.ends_with(end));
    if is_path && !word.contains(' ') {
        return root().join(word).exists();
    }
    let is_type = word.starts_with(|c: char| c.is_uppercase());
    let (owner, member) = match (word.split_once("::"), word.split_once('.')) {
        (Some((owner, name)), _) if is_type => (owner, format!("fn {name}")),
        (_, Some((owner, name))) if is_type => (owner, format!("{name}:")),
        _ => return true,
    };
    let has = |source: &Source, what: &str| source.lines.iter().any(|line| says(&line.code, what));
    sources.iter().any(|source| has(source, owner) && has(source, &member))
}

#[derive(Default)]
struct Breaches(String);

impl Breaches {
    fn add(&mut self, rule: &str, place: &str, advice: &str) {
        writeln!(self.0, "  {place}\n      rule: {rule}\n      {advice}").unwrap();
    }

    fn report(self) {
        assert!(self.0.is_empty(), "the tree breaks its own rules:\n{}", self.0);
    }
}

/// Everything is at most `max`, or an exception that has exactly the size noted: so exceptions only shrink.
fn check_sizes(
    rule: &str,
    sizes: &[(String, usize)],
    max: usize,
    exceptions: &[(&str, usize)],
    advice: &str,
) {
    let mut breaches = Breaches::default();
    for (path, size) in sizes {
        match exceptions.iter().find(|(exception, _)| exception == path) {
            Some((_, noted)) if size <= &max || size < noted => {
                let advice =
                    format!("it has only {size} now: lower its entry in tests/tidy.rs, or remove it");
                breaches.add("exceptions only shrink", path, &advice);
            }
            Some((_, noted)) if size > noted => {
                breaches.add(
                    "exceptions only shrink",
                    path,
                    &format!("{size}, and {noted} before: {advice}"),
                );
            }
            None if *size > max => breaches.add(rule, path, &format!("it has {size}: {advice}")),
            _ => {}
        }
    }
    for (path, _) in exceptions.iter().filter(|(path, _)| !sizes.iter().any(|(found, _)| found == path)) {
        breaches.add("exceptions only shrink", path, "it is gone: remove its entry in tests/tidy.rs");
    }
    breaches.report();
}
