use proptest::prelude::*;

use super::*;
use crate::NameError;

// The example of RFC 7677, section 3.
const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const SERVER_FIRST: &str =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                            p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn client() -> ScramClient {
    ScramClient::new("user", "pencil".into(), CLIENT_NONCE).unwrap().0
}

fn verifier(password: &str) -> Verifier {
    Verifier::derive(&password.into(), text::decode_base64("salt", SALT).unwrap(), 4096).unwrap()
}

fn challenged(client_first: &str) -> ScramServerChallenged {
    ScramServer::new(SERVER_NONCE, client_first.as_bytes()).unwrap().challenge(verifier("pencil")).0
}

#[test]
fn the_example_of_rfc_7677_comes_out_to_the_byte() {
    let (client, first) = ScramClient::new("user", "pencil".into(), CLIENT_NONCE).unwrap();
    assert_eq!(first, CLIENT_FIRST.as_bytes());
    let server = ScramServer::new(SERVER_NONCE, &first).unwrap();
    assert_eq!(server.user(), "user");
    let (server, first) = server.challenge(verifier("pencil"));
    assert_eq!(first, SERVER_FIRST.as_bytes());
    let (client, last) = client.respond(&first).unwrap();
    assert_eq!(last, CLIENT_FINAL.as_bytes());
    let last = server.finish(&last).unwrap();
    assert_eq!(last, SERVER_FINAL.as_bytes());
    client.verify(&last).unwrap();
}

#[test]
fn a_wrong_password_is_a_wrong_proof() {
    let (client, first) = ScramClient::new("user", "pencils".into(), CLIENT_NONCE).unwrap();
    let (server, first) = ScramServer::new(SERVER_NONCE, &first).unwrap().challenge(verifier("pencil"));
    let (_, last) = client.respond(&first).unwrap();
    assert_eq!(server.finish(&last), Err(SaslError::WrongProof));
}

#[test]
fn the_first_message_is_bound_into_the_proof() {
    // A user changed on the way, an extension added on the way, and a channel binding header changed.
    for first in ["n,,n=root,r=rOprNGfwEbeRWgbNEkqO", "n,,n=user,r=rOprNGfwEbeRWgbNEkqO,x=1"] {
        assert_eq!(challenged(first).finish(CLIENT_FINAL.as_bytes()), Err(SaslError::WrongProof));
    }
    let downgraded = CLIENT_FIRST.replacen('n', "y", 1);
    assert_eq!(challenged(&downgraded).finish(CLIENT_FINAL.as_bytes()), Err(SaslError::ChannelBinding));
}

#[test]
fn a_client_that_could_bind_to_the_channel_is_welcome() {
    let server = challenged(&CLIENT_FIRST.replacen('n', "y", 1));
    let without_proof = CLIENT_FINAL.replacen("biws", "eSws", 1);
    let without_proof = without_proof.split_once(",p=").unwrap().0;
    let exchange = format!("n=user,r={CLIENT_NONCE},{SERVER_FIRST},{without_proof}");
    let salt = text::decode_base64("salt", SALT).unwrap();
    let client_key = verifier::Keys::derive(&"pencil".into(), &salt, 4096).client;
    let signature = verifier::sign(&verifier::hash(&client_key), exchange.as_bytes());
    let proof = text::encode_base64(verifier::xor(&client_key, &signature));
    assert!(server.finish(format!("{without_proof},p={proof}").as_bytes()).is_ok());
}

#[test]
fn client_first_messages_are_refused_for_the_right_reason() {
    let form = SaslError::Form { what: "client-first message", form: "n,,n=<user>,r=<nonce>" };
    let long = format!("{CLIENT_FIRST}{}", "x".repeat(MESSAGE_BYTES_MAX));
    let cases: [(&str, SaslError); 14] = [
        ("", form.clone()),
        ("n", form.clone()),
        ("n,", form.clone()),
        ("n,,", form.clone()),
        ("n,,n=user", form.clone()),
        ("n,,r=abc,n=user", form.clone()),
        ("p=tls-exporter,,n=user,r=abc", SaslError::ChannelBinding),
        ("n,a=root,n=user,r=abc", SaslError::AuthorizationIdentity),
        ("n,,m=x,n=user,r=abc", SaslError::MandatoryExtension),
        ("n,,n=,r=abc", SaslError::User(NameError::Empty { what: "user name" })),
        ("n,,n=a=b,r=abc", SaslError::UserEscape),
        ("n,,n=user,r=", SaslError::Nonce),
        ("n,,n=user,r=a\tb", SaslError::Nonce),
        (&long, SaslError::TooLong(long.len())),
    ];
    for (first, expected) in cases {
        assert_eq!(ScramServer::new(SERVER_NONCE, first.as_bytes()).unwrap_err(), expected, "{first:.40}");
    }
    assert_eq!(ScramServer::new(SERVER_NONCE, b"n,,n=\xff,r=abc").unwrap_err(), SaslError::NotUtf8);
    assert_eq!(ScramServer::new("short", CLIENT_FIRST.as_bytes()).unwrap_err(), SaslError::Nonce);
}

#[test]
fn a_client_refuses_a_tampered_challenge() {
    let form = SaslError::Form { what: "server-first message", form: "r=<nonce>,s=<salt>,i=<iterations>" };
    let cases: [(&str, &str, SaslError); 9] = [
        ("rOpr", "rOpp", SaslError::NonceMismatch),
        (SERVER_NONCE, "", SaslError::NonceMismatch),
        (SERVER_NONCE, "\x7f", SaslError::Nonce),
        (SALT, "W22", SaslError::Base64("salt")),
        (SALT, "", form.clone()),
        ("i=4096", "i=4095", SaslError::Iterations(4095)),
        ("i=4096", "i=1000001", SaslError::Iterations(1_000_001)),
        ("i=4096", "i=-1", form),
        ("r=rO", "m=x,r=rO", SaslError::MandatoryExtension),
    ];
    for (from, to, expected) in cases {
        let first = SERVER_FIRST.replace(from, to);
        assert_eq!(client().respond(first.as_bytes()).unwrap_err(), expected, "{first}");
    }
}

#[test]
fn a_challenge_whose_salt_cost_or_nonce_was_changed_leads_to_a_wrong_proof() {
    for (from, to) in [("W22Z", "W22a"), ("i=4096", "i=4097"), ("i=4096", "i=4096,x=1")] {
        let first = SERVER_FIRST.replace(from, to);
        let (_, last) = client().respond(first.as_bytes()).unwrap();
        assert_eq!(challenged(CLIENT_FIRST).finish(&last), Err(SaslError::WrongProof), "{first}");
    }
    let (_, last) = client().respond(SERVER_FIRST.replace("k0,", "k1,").as_bytes()).unwrap();
    assert_eq!(challenged(CLIENT_FIRST).finish(&last), Err(SaslError::NonceMismatch));
}

#[test]
fn no_byte_of_the_final_messages_can_be_changed() {
    let verifier = verifier("pencil");
    for at in 0..CLIENT_FINAL.len() {
        for flip in [1, 2, 32, 128] {
            let mut message = CLIENT_FINAL.as_bytes().to_vec();
            message[at] ^= flip;
            let server = ScramServer::new(SERVER_NONCE, CLIENT_FIRST.as_bytes()).unwrap();
            assert!(server.challenge(verifier.clone()).0.finish(&message).is_err(), "byte {at} ^ {flip}");
        }
    }
    for at in 0..SERVER_FINAL.len() {
        let (client, _) = client().respond(SERVER_FIRST.as_bytes()).unwrap();
        let mut message = SERVER_FINAL.as_bytes().to_vec();
        message[at] ^= 1;
        assert!(client.verify(&message).is_err(), "byte {at}");
    }
}

#[test]
fn a_client_believes_no_server_that_only_claims_success() {
    let cases = [
        ("e=invalid-proof", SaslError::RefusedByServer),
        ("", SaslError::Form { what: "server-final message", form: "v=<server signature>" }),
        ("v=", SaslError::Base64("server signature")),
        ("v=AAAA", SaslError::Base64("server signature")),
        ("v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", SaslError::WrongServerSignature),
    ];
    for (last, expected) in cases {
        let (client, _) = client().respond(SERVER_FIRST.as_bytes()).unwrap();
        assert_eq!(client.verify(last.as_bytes()), Err(expected), "{last}");
    }
}

#[test]
fn a_user_name_with_comma_and_equals_sign_arrives_as_it_was() {
    let (_, first) = ScramClient::new("a,b==2C", "pencil".into(), CLIENT_NONCE).unwrap();
    assert_eq!(first, b"n,,n=a=2Cb=3D=3D2C,r=rOprNGfwEbeRWgbNEkqO");
    assert_eq!(ScramServer::new(SERVER_NONCE, &first).unwrap().user(), "a,b==2C");
}

#[test]
fn verifiers_keep_their_text_form_and_refuse_others() {
    let made = verifier("pencil");
    let text = made.encode();
    let read = Verifier::parse(text.expose()).unwrap();
    assert!(text.expose().starts_with("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"));
    assert_eq!(read.encode().expose(), text.expose());
    assert!(read.matches(&"pencil".into()) && !read.matches(&"pencils".into()));

    let form = SaslError::Form {
        what: "SCRAM verifier",
        form: "SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>",
    };
    let cases: [(&str, &str, SaslError); 6] = [
        ("SHA-256", "SHA-1", form.clone()),
        ("4096:", "", form.clone()),
        ("4096", "many", form),
        ("4096", "1", SaslError::Iterations(1)),
        (SALT, "AAAA", SaslError::Salt(3)),
        ("=:", ":", SaslError::Base64("stored key")),
    ];
    for (from, to, expected) in cases {
        assert_eq!(Verifier::parse(&text.expose().replace(from, to)).unwrap_err(), expected, "{to}");
    }
}

#[test]
fn plain_reads_what_it_writes_and_refuses_the_rest() {
    let message = encode_plain("user", &"pencil".into()).unwrap();
    assert_eq!(message.as_slice(), b"\0user\0pencil");
    let read = PlainCredentials::decode(b"user\0user\0pencil").unwrap();
    assert_eq!((read.user.as_str(), read.password.expose()), ("user", "pencil"));

    let form = SaslError::Form { what: "PLAIN message", form: "NUL user NUL password" };
    let long = vec![b'a'; MESSAGE_BYTES_MAX + 1];
    let cases: [(&[u8], SaslError); 9] = [
        (b"", form.clone()),
        (b"\0user", form.clone()),
        (b"\0user\0pencil\0", form),
        (b"root\0user\0pencil", SaslError::AuthorizationIdentity),
        (b"\0\0pencil", SaslError::User(NameError::Empty { what: "user name" })),
        (b"\0user\0", SaslError::Password),
        (b"\0user\0pen\ncil", SaslError::Password),
        (b"\0user\0\xff", SaslError::NotUtf8),
        (&long, SaslError::TooLong(MESSAGE_BYTES_MAX + 1)),
    ];
    for (message, expected) in cases {
        assert_eq!(PlainCredentials::decode(message).unwrap_err(), expected);
    }
    let control = NameError::Control { what: "user name", character: '\0', at: 2 };
    assert_eq!(encode_plain("us\0er", &"p".into()).unwrap_err(), SaslError::User(control));
    assert_eq!(encode_plain("user", &"".into()).unwrap_err(), SaslError::Password);
}

#[test]
fn no_debug_output_shows_a_password_or_a_key() {
    let password = Secret::from("canary");
    let (client, _) = ScramClient::new("user", password.clone(), CLIENT_NONCE).unwrap();
    let credentials = PlainCredentials::decode(b"\0user\0canary").unwrap();
    let shown = format!("{password:?} {client:?} {credentials:?} {:?}", verifier("pencil"));
    assert!(!shown.contains("canary"), "{shown}");
    assert!(shown.ends_with("Verifier { iterations: 4096, .. }"), "{shown}");
}

#[test]
fn mechanisms_are_found_by_their_registered_names() {
    for mechanism in Mechanism::ALL {
        assert_eq!(Mechanism::from_name(mechanism.name()), Some(mechanism));
    }
    assert_eq!(Mechanism::from_name("plain"), None);
}

proptest! {
    #[test]
    fn no_message_makes_either_end_panic(
        noise in prop::collection::vec(any::<u8>(), 0..64),
        shaped in "(n,,|y,,|c=biws|r=rOprNGfwEbeRWgbNEkqOx)?[nrspicmv=,0-9A-Za-z+/\0]{0,48}",
    ) {
        for message in [noise.as_slice(), shaped.as_bytes()] {
            let _ = PlainCredentials::decode(message);
            let _ = ScramServer::new(SERVER_NONCE, message);
            let _ = Verifier::parse(&String::from_utf8_lossy(message));
            let _ = client().respond(message);
            let made = Verifier::new(vec![0; 16], 4096, [0; 32], [0; 32]).unwrap();
            let (server, _) = ScramServer::new(SERVER_NONCE, CLIENT_FIRST.as_bytes()).unwrap().challenge(made);
            prop_assert!(server.finish(message).is_err());
        }
    }

    #[test]
    fn every_user_name_survives_its_escaping(user in "[^\\p{Cc}]{1,60}") {
        prop_assert_eq!(text::unescape_user(&text::escape_user(&user)), Ok(user));
    }
}
