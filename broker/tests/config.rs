//! What the server is told, and what it answers when that is wrong.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use leveret_broker::auth::Credential;
use leveret_broker::config::{Arguments, ArgumentsError, Config, MESSAGE_EXTRA_BYTES};
use leveret_protocol::sasl::{Secret, Verifier};
use tempfile::TempDir;

const EXAMPLE: &str = include_str!("../../leveret.example.toml");

/// What the server would run with, or what it says. The file's name is shown as `leveret.toml`.
fn load(file: Option<&str>, flags: &[&str], variables: &[(&str, &str)]) -> Result<Config, String> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("leveret.toml");
    let mut line = vec![OsString::from("leveret")];
    if let Some(text) = file {
        fs::write(&path, text).unwrap();
        line.extend(["--config".into(), path.clone().into()]);
    }
    line.extend(flags.iter().map(OsString::from));
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    let arguments = Arguments::parse(line, |name| variables.get(name).map(OsString::from));
    let loaded = arguments.map_err(|error| error.to_string())?.load();
    loaded.map_err(|error| error.to_string().replace(path.to_str().unwrap(), "leveret.toml"))
}

fn from_file(text: &str) -> Result<Config, String> {
    load(Some(text), &[], &[])
}

fn help() -> String {
    match Arguments::parse(["leveret", "--help"], |_| None) {
        Err(ArgumentsError::CommandLine(answer)) => answer.to_string(),
        other => panic!("{other:?}"),
    }
}

/// `(table.key, value)` of every setting that the example file writes.
fn example_settings() -> Vec<(String, String)> {
    let mut table = String::new();
    let mut settings = Vec::new();
    for line in EXAMPLE.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            table = format!("{name}.");
        } else if let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            settings.push((format!("{table}{key}"), value.to_owned()));
        }
    }
    settings
}

#[test]
fn without_anything_the_broker_serves_this_machine_only() {
    let config = load(None, &[], &[]).unwrap();
    assert_eq!(config.listen, ["127.0.0.1:7672".parse().unwrap()]);
    assert_eq!(config.data_dir, PathBuf::from("leveret-data"));
    assert_eq!(config.vhosts.len(), 1);
    assert!(config.users.guest && config.users.users.is_empty());
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    assert_eq!(config.limits.frame_bytes_max - config.limits.message_bytes_max, MESSAGE_EXTRA_BYTES);
}

#[test]
fn the_example_file_is_the_defaults() {
    let config = from_file(EXAMPLE).unwrap();
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
}

#[test]
fn the_users_of_the_example_file_can_be_uncommented() {
    let block = EXAMPLE.split("#\n# [[users]]").nth(1).unwrap().replace("\n# ", "\n");
    let config = from_file(&format!("{EXAMPLE}\n[[users]]{block}")).unwrap();
    assert_eq!(config.users.users.len(), 1);
    assert_eq!(config.users.users[0].0, "orders");
}

#[test]
fn the_example_file_and_the_help_show_every_setting() {
    let help = help();
    let mut keys: Vec<_> = example_settings().into_iter().map(|(key, _)| key).collect();
    // These depend on who reads them: on their passwords, and on the machine.
    keys.extend(["users".to_owned(), "memory.messages_bytes_max".to_owned()]);
    keys.push("memory.resident_bytes_max".to_owned());
    assert!(EXAMPLE.contains("[[users]]") && EXAMPLE.contains("# messages_bytes_max = "));
    for key in &keys {
        let flag = format!("\n      --{} <", key.replace(['.', '_'], "-"));
        let variable = format!("[env: LEVERET_{}]", key.replace('.', "_").to_uppercase());
        assert!(help.contains(&flag) && help.contains(&variable), "{key}: {help}");
    }
    assert_eq!(help.matches("[env: LEVERET_").count(), keys.len() + 1, "one for each, and LEVERET_CONFIG");
    for part in
        ["127.0.0.1:7672", "A flag wins over a variable", "Examples:", "leveret --config leveret.toml"]
    {
        assert!(help.contains(part), "{part}");
    }
}

#[test]
fn every_setting_is_a_flag_and_a_variable_too() {
    for (key, value) in example_settings() {
        let text = value.trim_matches(['[', ']', '"']).replace('_', "");
        let flag = format!("--{}", key.replace(['.', '_'], "-"));
        let variable = format!("LEVERET_{}", key.replace('.', "_").to_uppercase());
        load(None, &[&flag, &text], &[]).unwrap();
        load(None, &[], &[(&variable, &text)]).unwrap();
        if key == "data_dir" {
            continue; // Every text is a folder.
        }
        let wrong = load(None, &[], &[(&variable, "¿")]).map(drop);
        if key != "vhosts" {
            assert!(
                wrong.unwrap_err().starts_with(&format!("environment variable {variable}: {key}: ")),
                "{key}"
            );
        }
    }
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let file = "[limits]\nheartbeat = \"2 s\"";
    let variable = [("LEVERET_LIMITS_HEARTBEAT", "3 s")];
    let flag = ["--limits-heartbeat", "4 s"];
    let cases = [
        (load(None, &[], &[]), 30),
        (load(Some(file), &[], &[]), 2),
        (load(Some(file), &[], &variable), 3),
        (load(Some(file), &flag, &variable), 4),
        (load(None, &flag, &[]), 4),
        (load(Some(file), &[], &[("LEVERET_LIMITS_HEARTBEAT", "")]), 2),
    ];
    for (config, seconds) in cases {
        assert_eq!(config.unwrap().limits.heartbeat, Duration::from_secs(seconds));
    }
}

#[test]
fn lists_are_written_in_a_file_a_variable_and_flags() {
    let listen = |config: Result<Config, String>| config.unwrap().listen.len();
    assert_eq!(listen(from_file("listen = \"[::1]:7672\"")), 1);
    assert_eq!(listen(from_file("listen = [\"127.0.0.1:0\", \"[::1]:0\"]")), 2);
    assert_eq!(listen(from_file("listen = \"none\"")), 0);
    assert_eq!(listen(load(None, &[], &[("LEVERET_LISTEN", "127.0.0.1:1, 127.0.0.1:2")])), 2);
    assert_eq!(listen(load(None, &["--listen", "127.0.0.1:1", "--listen", "127.0.0.1:2,[::1]:3"], &[])), 3);
    let users = load(None, &[], &[("LEVERET_USERS", "a:b\nc:d,e:f  g:h")]).unwrap().users.users;
    assert_eq!(users.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a", "c", "g"]);
}

#[test]
fn variables_of_others_are_ignored() {
    let kubernetes = [("LEVERET_PORT", "tcp://10.0.0.1:7672"), ("LEVERET_SERVICE_HOST", "10.0.0.1")];
    load(None, &[], &kubernetes).unwrap();
}

#[test]
fn the_file_can_be_named_by_a_variable() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("by-variable.toml");
    fs::write(&path, "guest = true\nvhosts = \"one\"").unwrap();
    let variable = |name: &str| (name == "LEVERET_CONFIG").then(|| path.clone().into_os_string());
    let config = Arguments::parse(["leveret"], variable).unwrap().load().unwrap();
    assert_eq!(config.vhosts[0].as_str(), "one");
}

/// File, and exactly what is said about it.
const REFUSED_FILES: &[(&str, &str)] = &[
    ("colour = \"red\"", "leveret.toml:1: there is no setting colour; `leveret --help` lists all settings"),
    ("heartbeat = \"1 s\"", "leveret.toml:1: there is no setting heartbeat; did you mean limits.heartbeat?"),
    (
        "frame_byte_max = 1",
        "leveret.toml:1: there is no setting frame_byte_max; did you mean limits.frame_bytes_max?",
    ),
    (
        "guest = true\n\n[limits]\nchanels_max = 1",
        "leveret.toml:4: there is no setting limits.chanels_max; did you mean limits.channels_max?",
    ),
    (
        "[limit]\nheartbeat = \"1 s\"",
        "leveret.toml:1: there is no setting limit; the tables are [limits], [journal] and [[users]]",
    ),
    (
        "limits = 5",
        "leveret.toml:1: there is no setting limits; limits is a table; write [limits] and its settings below it",
    ),
    ("guest = true\nguest = true", "leveret.toml:2: duplicate key"),
    ("\nguest = maybe", "leveret.toml:2: string values must be quoted, expected literal string"),
    ("guest = \"perhaps\"", "leveret.toml:1: guest: \"perhaps\" is not right; write true or false"),
    (
        "[limits]\n\nheartbeat = 30",
        "leveret.toml:3: limits.heartbeat: 30 is not right; write a number with its unit, such as \"30 s\", \"500 ms\" \
         or \"2 min\"",
    ),
    (
        "[journal]\nsegment_bytes = \"64 M\"",
        "leveret.toml:2: journal.segment_bytes: \"64 M\" is not right; write a whole number with B, KiB, MiB or GiB (or \
         kB, MB, GB for powers of 1000), such as \"64 MiB\"",
    ),
    (
        "[limits]\nchannels_max = 1.5",
        "leveret.toml:2: limits.channels_max: a fraction stands here; write a whole number, such as 256",
    ),
    (
        "[limits]\nchannels_max = 0",
        "leveret.toml:2: limits.channels_max: 0 is out of range; write 1 to 65535",
    ),
    (
        "[limits]\noutbox_bytes_max = \"1 KiB\"",
        "leveret.toml:2: limits.outbox_bytes_max: 1 KiB is out of range; write 64 KiB to 1 GiB",
    ),
    (
        "listen = [\n  \"127.0.0.1:7672\",\n  \"localhost\",\n]",
        "leveret.toml:3: listen: \"localhost\" is not right; write an IP address with a port, such as \"127.0.0.1:7672\" \
         or \"[::1]:7672\", or only \"none\"",
    ),
    (
        "data_dir = \"\"",
        "leveret.toml:1: data_dir: the path is empty; write a folder, such as \"/var/lib/leveret\"",
    ),
    ("data_dir = 5", "leveret.toml:1: data_dir: a number stands here; write a text in quotes"),
    ("vhosts = []", "leveret.toml:1: vhosts: there is none, and a client enters one; write [\"/\"]"),
    ("vhosts = [\"/\", \"/\"]", "leveret.toml:1: vhosts: \"/\" stands there twice; remove one"),
    ("vhosts = [\"\"]", "leveret.toml:1: vhosts: a vhost name has at least one character"),
    (
        "log = \"info,debg\"",
        "leveret.toml:1: log: \"debg\" is not right; write a level (error, warn, info, debug, trace, off), and \
         module=level after a comma",
    ),
    (
        "guest = true\nlisten = \"0.0.0.0:7672\"",
        "leveret.toml:2: listen: 0.0.0.0:7672 can be reached from other machines, and the only user is guest, whose \
         password everybody knows and who is let in from this machine only; add a user under [[users]], or listen on \
         127.0.0.1 or [::1]",
    ),
    (
        "guest = false",
        "leveret.toml:1: guest: nobody could log in: there are no users, and guest is off; add a user under [[users]]",
    ),
    (
        "[limits]\nmessage_bytes_max = \"20 MiB\"",
        "leveret.toml:2: limits.message_bytes_max: a message of 20 MiB and 64 KiB for its names do not fit into a frame \
         (16448 KiB); raise limits.frame_bytes_max to 20544 KiB, or lower limits.message_bytes_max to 16 MiB",
    ),
    (
        "[journal]\nsegment_bytes = \"48 MiB\"",
        "leveret.toml:2: journal.segment_bytes: 48 MiB is not a power of two, as a segment must be; write 32 MiB or \
         64 MiB",
    ),
    (
        "[disk]\nfree_bytes_high = \"1 MiB\"",
        "leveret.toml:2: disk.free_bytes_high: 1 MiB is less than disk.free_bytes_low (256 MiB), and there is nothing between \
         to wait for; write 256 MiB or more",
    ),
    (
        "[memory]\nresident_bytes_max = \"1 MiB\"",
        "leveret.toml:2: memory.resident_bytes_max: 1 MiB is out of range; write 64 MiB to 1048576 TiB",
    ),
    (
        "[journal]\nsegment_bytes = \"2 GiB\"",
        "leveret.toml:2: journal.segment_bytes: 2 GiB is out of range; write 8 KiB to 1 GiB",
    ),
    (
        "[journal]\nsegment_bytes = \"16 MiB\"",
        "leveret.toml:2: limits.message_bytes_max: a message of 16 MiB and 64 KiB for its names do not fit into half a \
         segment (8 MiB); raise journal.segment_bytes to 64 MiB, or lower limits.message_bytes_max to 8128 KiB",
    ),
    ("[[users]]\npassword = \"x\"", "leveret.toml:1: users: this user has no name; add name = \"...\""),
    (
        "[[users]]\nname = \"a\"\npassword = \"x\"\n[[users]]\nname = \"b\"",
        "leveret.toml:4: users: this user has neither a password nor a verifier; add one of them",
    ),
    (
        "[[users]]\nname = \"a\"\nrole = \"x\"",
        "leveret.toml:3: users: a user has no role; it has a name, and a password or a verifier",
    ),
    (
        "[[users]]\nname = \"a\"\npassword = \"x\"\n[[users]]\nname = \"a\"\npassword = \"y\"",
        "leveret.toml:1: users: \"a\" stands there twice; remove one",
    ),
];

#[test]
fn a_wrong_file_is_refused_with_its_line_and_what_would_be_right() {
    for (file, message) in REFUSED_FILES {
        assert_eq!(from_file(file).map(drop), Err((*message).to_owned()), "{file}");
    }
}

#[test]
fn a_wrong_flag_or_variable_is_refused_by_its_name() {
    let cases = [
        (
            load(None, &["--limits-heartbeat", "soon"], &[]),
            "flag --limits-heartbeat: limits.heartbeat: \"soon\" is not right; write a number with its unit, such as \
             \"30 s\", \"500 ms\" or \"2 min\"",
        ),
        (
            load(None, &["--limits-channels-max", "-1"], &[]),
            "flag --limits-channels-max: limits.channels_max: \"-1\" is not right; write a whole number, such as 256",
        ),
        (
            load(None, &[], &[("LEVERET_LIMITS_CHANNELS_MAX", "70000")]),
            "environment variable LEVERET_LIMITS_CHANNELS_MAX: limits.channels_max: \"70000\" is not right; write a \
             whole number, such as 256",
        ),
        (
            load(Some("guest = true"), &["--guest", "false"], &[]),
            "flag --guest: guest: nobody could log in: there are no users, and guest is off; add a user under [[users]]",
        ),
    ];
    for (result, message) in cases {
        assert_eq!(result.map(drop), Err(message.to_owned()));
    }
    let unknown = load(None, &["--limits-heart-beat", "1 s"], &[]).unwrap_err();
    assert!(unknown.contains("'--limits-heartbeat'"), "{unknown}");
    let missing = load(None, &["--config", "/does/not/exist.toml"], &[]).unwrap_err();
    assert!(
        missing.starts_with("cannot read the configuration file /does/not/exist.toml: No such file"),
        "{missing}"
    );
}

#[test]
fn other_machines_are_served_once_there_is_a_user() {
    let users = [("LEVERET_USERS", "orders:s3cret")];
    for address in ["0.0.0.0:7672", "[::]:7672", "192.0.2.1:7672", "[::ffff:192.0.2.1]:7672"] {
        load(None, &["--listen", address], &[]).unwrap_err();
        load(None, &["--listen", address], &[("LEVERET_USERS", "guest:changed")]).unwrap_err();
        load(None, &["--listen", address, "--guest", "false"], &users).unwrap();
    }
    for address in ["127.0.0.2:7672", "[::1]:7672", "[::ffff:127.0.0.1]:7672", "none"] {
        load(None, &["--listen", address], &[]).unwrap();
    }
}

#[test]
fn a_user_has_a_password_or_a_verifier() {
    let verifier = Verifier::derive(&Secret::from("s3cret"), vec![7; 16], 4096).unwrap().encode();
    let file = format!(
        "[[users]]\nname = \"a\"\npassword = \"s3cret\"\n[[users]]\nname = \"b\"\nverifier = \"{}\"",
        verifier.expose()
    );
    let variable = format!("a:s3cret b:{}", verifier.expose());
    for config in [from_file(&file), load(None, &[], &[("LEVERET_USERS", &variable)])] {
        match &*config.unwrap().users.users {
            [(a, Credential::Password(password)), (b, Credential::Verifier(verifier))] => {
                assert_eq!((a.as_str(), b.as_str(), password.expose()), ("a", "b", "s3cret"));
                assert!(verifier.matches(password));
            }
            users => panic!("{users:?}"),
        }
    }
}

#[test]
fn no_password_is_shown_by_debug_or_in_a_message() {
    let secret = "canary-4711";
    let config = load(None, &[], &[("LEVERET_USERS", "orders:canary-4711")]).unwrap();
    assert!(!format!("{config:?}").contains(secret));
    let arguments = Arguments::parse(["leveret", "--users", "orders:canary-4711"], |_| None).unwrap();
    assert!(!format!("{arguments:?}").contains(secret));

    let refused = [
        "[[users]]\nname = \"a\"\npassword = \"canary-4711",
        "[[users]]\nname = \"a\"\npassword = \"canary-4711\\u0000\"",
        "[[users]]\nname = \"a\"\npassword = [\"canary-4711\"]",
        "[[users]]\nname = \"a\"\npassword = canary-4711",
        "[[users]]\nname = \"a\"\nverifier = \"canary-4711\"",
        "[[users]]\nname = \"a\"\nverifier = \"x\"\npassword = \"canary-4711\"",
        "[[users]]\npassword = \"canary-4711\"",
        "users = [\"canary-4711\"]",
        "users = [\"a:SCRAM-SHA-256$canary-4711\"]",
        "users = [[\"canary-4711\"]]",
    ];
    for file in refused {
        let message = from_file(file).unwrap_err();
        assert!(!message.contains(secret), "{message}");
    }
    for variable in ["canary-4711", "a:x canary-4711", "a:SCRAM-SHA-256$canary-4711"] {
        let message = load(None, &[], &[("LEVERET_USERS", variable)]).unwrap_err();
        assert!(
            !message.contains(secret) && message.starts_with("environment variable LEVERET_USERS: users: ")
        );
    }
}
