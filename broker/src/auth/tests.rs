use std::net::SocketAddr;

use leveret_protocol::sasl::{
    Mechanism, SaslError, ScramClient, ScramClientProved, Secret, Verifier, encode_plain,
};

use super::*;

const NONCE: &str = "serverserverserver";
const HERE: &str = "127.0.0.1:40000";
const THERE: &str = "192.0.2.1:40000";

fn users(config: UsersConfig) -> Users {
    Users::new(config, BootKey::from_bytes(&[7; 64])).unwrap()
}

fn password(name: &str, password: &str) -> (String, Credential) {
    (name.into(), Credential::Password(password.into()))
}

fn verifier(name: &str, password: &str, salt: &[u8], iterations: u32) -> (String, Credential) {
    let made = Verifier::derive(&password.into(), salt.to_vec(), iterations).unwrap();
    (name.into(), Credential::Verifier(Verifier::parse(made.encode().expose()).unwrap()))
}

fn peer(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn plain(users: &Users, name: &str, password: &str, from: &str) -> Result<String, Refusal> {
    let message = encode_plain(name, &password.into()).unwrap();
    result(Authenticator::begin(users, Mechanism::Plain, peer(from), &message, NONCE)).map(|(user, _)| user)
}

/// The server's challenge, and both ends after it.
fn challenge(
    users: &Users,
    name: &str,
    password: &str,
    from: &str,
) -> (String, Authenticator, ScramClientProved, Vec<u8>) {
    let (client, first) = ScramClient::new(name, password.into(), "clientclientclient").unwrap();
    match Authenticator::begin(users, Mechanism::ScramSha256, peer(from), &first, NONCE) {
        Outcome::Challenge { message, next } => {
            let (client, proof) = client.respond(&message).unwrap();
            (String::from_utf8(message).unwrap(), next, client, proof)
        }
        other => panic!("{other:?}"),
    }
}

fn scram(users: &Users, name: &str, password: &str, from: &str) -> Result<String, Refusal> {
    let (_, server, client, proof) = challenge(users, name, password, from);
    let (user, server_final) = result(server.step(&proof))?;
    client.verify(&server_final).unwrap();
    Ok(user)
}

fn result(outcome: Outcome) -> Result<(String, Vec<u8>), Refusal> {
    match outcome {
        Outcome::Done { user, server_final } => Ok((user.to_string(), server_final)),
        Outcome::Refused(refusal) => Err(refusal),
        Outcome::Challenge { message, .. } => panic!("{message:?}"),
    }
}

fn wrong(user: &str) -> Refusal {
    Refusal::Credentials { user: user.into() }
}

#[test]
fn the_right_password_lets_in_by_both_mechanisms_and_any_other_does_not() {
    let salt = [3; 16];
    let list = vec![password("ann", "red"), verifier("bob", "blue", &salt, 5000), password("a,b=c", "green")];
    let users = users(UsersConfig { users: list, ..UsersConfig::default() });
    for log_in in [plain, scram] {
        for (name, password) in [("ann", "red"), ("bob", "blue"), ("a,b=c", "green")] {
            assert_eq!(log_in(&users, name, password, THERE), Ok(name.to_owned()));
            assert_eq!(log_in(&users, name, "black", THERE), Err(wrong(name)));
            assert_eq!(log_in(&users, name, password, THERE), Ok(name.to_owned()));
        }
        assert_eq!(log_in(&users, "Ann", "red", THERE), Err(wrong("Ann")));
    }
}

#[test]
fn guest_logs_in_from_this_machine_only() {
    let standard = users(UsersConfig::default());
    let own = users(UsersConfig { users: vec![password(GUEST, "own")], ..UsersConfig::default() });
    let none = users(UsersConfig { guest: false, ..UsersConfig::default() });
    let away = Refusal::LoopbackOnly { user: GUEST.into() };
    for log_in in [plain, scram] {
        for here in [HERE, "127.8.9.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(log_in(&standard, GUEST, GUEST, here), Ok(GUEST.to_owned()), "{here}");
            assert_eq!(log_in(&none, GUEST, GUEST, here), Err(wrong(GUEST)), "{here}");
        }
        for there in [THERE, "[2001:db8::1]:1", "[::ffff:192.0.2.1]:1", "[::127.0.0.1]:1", "0.0.0.0:1"] {
            assert_eq!(log_in(&standard, GUEST, GUEST, there), Err(away.clone()), "{there}");
            assert_eq!(log_in(&own, GUEST, "own", there), Err(away.clone()), "{there}");
        }
        assert_eq!(log_in(&own, GUEST, "own", HERE), Ok(GUEST.to_owned()));
        assert_eq!(log_in(&own, GUEST, GUEST, HERE), Err(wrong(GUEST)));
    }
}

#[test]
fn a_challenge_does_not_tell_whether_the_user_exists() {
    let config = UsersConfig { users: vec![password("ann", "red")], ..UsersConfig::default() };
    let users = users(config);
    let shape = |name: &str, from: &str| {
        let message = challenge(&users, name, "red", from).0;
        let again = challenge(&users, name, "other", from).0;
        assert_eq!(message, again, "{name}");
        let (_, rest) = message.split_once(",s=").unwrap();
        let (salt, iterations) = rest.split_once(",i=").unwrap();
        (salt.to_owned(), iterations.to_owned())
    };
    let (ann, cost) = shape("ann", THERE);
    let (eve, decoy_cost) = shape("eve", THERE);
    assert_eq!((ann.len(), &cost), (eve.len(), &decoy_cost));
    assert_ne!(ann, eve);
    // The user that is kept to this machine looks the same from inside and from outside.
    assert_eq!(shape(GUEST, HERE), shape(GUEST, THERE));
}

#[test]
fn decoys_take_the_costs_and_the_salt_lengths_of_real_users() {
    let list = vec![verifier("ann", "red", &[1; 8], 5000), verifier("bob", "blue", &[2; 32], 6000)];
    let users = users(UsersConfig { users: list, guest: false, ..UsersConfig::default() });
    let mut seen = [false; 2];
    for number in 0..20 {
        let message = challenge(&users, &format!("nobody{number}"), "x", THERE).0;
        let (_, rest) = message.split_once(",s=").unwrap();
        let (salt, cost) = rest.split_once(",i=").unwrap();
        match (salt.len(), cost) {
            (12, "5000") => seen[0] = true,
            (44, "6000") => seen[1] = true,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, [true; 2]);
}

#[test]
fn refusals_name_the_user_for_the_log_and_nothing_for_the_peer() {
    let users = users(UsersConfig::default());
    let refusal = plain(&users, "eve", "canary", THERE).unwrap_err();
    assert_eq!(refusal.user(), Some("eve"));
    assert_eq!(refusal.to_string(), "the name or the password of user \"eve\" is wrong");
    assert_eq!(Refusal::PEER_TEXT, "authentication failed");
}

#[test]
fn malformed_messages_are_refused_as_such_for_known_and_unknown_users() {
    let users = users(UsersConfig::default());
    for mechanism in Mechanism::ALL {
        let refusal = result(Authenticator::begin(&users, mechanism, peer(HERE), b"", NONCE)).unwrap_err();
        assert!(matches!(refusal, Refusal::Malformed(SaslError::Form { .. })), "{refusal:?}");
        assert_eq!(refusal.user(), None);
    }
    for name in [GUEST, "eve"] {
        let (_, server, _, _) = challenge(&users, name, GUEST, HERE);
        let refusal = result(server.step(b"c=biws,r=other,p=AAAA")).unwrap_err();
        assert_eq!(refusal, Refusal::Malformed(SaslError::NonceMismatch));
    }
}

#[test]
fn users_that_cannot_be_set_up_are_named() {
    let new = |users, iterations| {
        let config = UsersConfig { users, guest: false, iterations };
        Users::new(config, BootKey::from_bytes(&[7; 64])).err().map(|error| error.to_string())
    };
    let twice = new(vec![password("ann", "a"), password("bob", "b"), password("ann", "c")], 4096);
    assert_eq!(twice.unwrap(), "user \"ann\" is configured twice; each user has one password");
    let cases = [(password("a\nb", "x"), 4096), (password("", "x"), 4096), (password("ann", ""), 4096)];
    for (user, iterations) in cases {
        let expected = format!("user {:?} cannot be set up", user.0);
        assert!(new(vec![user], iterations).unwrap().starts_with(&expected));
    }
    let cheap = new(vec![password("ann", "red")], 1).unwrap();
    assert_eq!(
        cheap,
        "user \"ann\" cannot be set up: an iteration count is 4096 to 1000000, and this one is 1"
    );
}

#[test]
fn nonces_and_boot_keys_are_fresh() {
    let nonces = [nonce().unwrap(), nonce().unwrap()];
    assert_ne!(nonces[0], nonces[1]);
    assert!(ScramClient::new("ann", Secret::from("red"), &nonces[0]).is_ok());
    let [one, other] = [BootKey::random().unwrap(), BootKey::random().unwrap()];
    assert_ne!(one.sign("test", &[b"x"]), other.sign("test", &[b"x"]));
    assert_ne!(one.sign("test", &[b"ab", b"c"]), one.sign("test", &[b"a", b"bc"]));
}
