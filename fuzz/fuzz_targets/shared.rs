//! What the fuzz targets do with their input, shared with `protocol/tests/corpus.rs`, which replays the corpus on
//! stable Rust. They panic where a promise of `docs/protocol.md` is broken.

use bytes::BytesMut;
use leveret_protocol::{
    Confirm, Control, Credit, DeathHistory, Deliver, DeliverParts, FRAME_BYTES_BEFORE_OPEN, Frame,
    METADATA_BYTES_MAX, Properties, Publish, PublishParts, Return, Settle, SettleParts, check_opening, kind,
    opening,
};

/// A byte stream from a stranger: what is read as frames is written as the same bytes, and no length field makes
/// the buffer grow beyond what is allowed.
pub(crate) fn frame(input: &[u8]) {
    if let Some(first) = input.first_chunk() {
        if let Err(error) = check_opening(*first) {
            assert!(!error.to_string().contains('\n'), "the refusal is one line");
        } else {
            assert_eq!(first[..5], opening()[..5]);
        }
    }
    let mut buffer = BytesMut::from(input);
    let mut written = BytesMut::new();
    while let Ok(Some(frame)) = Frame::decode(&mut buffer, FRAME_BYTES_BEFORE_OPEN) {
        assert!(frame.payload.len() <= FRAME_BYTES_BEFORE_OPEN);
        frame.encode(&mut written);
    }
    assert!(buffer.capacity() <= 2 * input.len() + 2 * FRAME_BYTES_BEFORE_OPEN);
    written.extend_from_slice(&buffer);
    assert_eq!(written, input);
}

/// The kind, then a control frame's payload: what can be read can be written, and means the same.
pub(crate) fn control(input: &[u8]) {
    let Some((kind, payload)) = input.split_first() else { return };
    match Control::decode(*kind, payload) {
        Ok(control) => {
            assert_eq!(control.kind(), *kind);
            // Written out, defaults and short numbers may grow; far from the limit they cannot pass it.
            if payload.len() > METADATA_BYTES_MAX / 16 {
                return;
            }
            let written = control.to_frame(1).unwrap().payload;
            let again = Control::decode(*kind, &written).unwrap().to_frame(1).unwrap().payload;
            // The bytes and not the values, because a value may be NaN.
            assert_eq!(written, again);
        }
        Err(error) => assert!(error.to_string().len() < 512, "an answer fits any frame: {error}"),
    }
}

/// The kind, the flags, then a data frame's payload: what can be read can be written, and means the same.
pub(crate) fn data(input: &[u8]) {
    let &[kind, flags, ref payload @ ..] = input else { return };
    let mut out = BytesMut::new();
    match kind {
        kind::PUBLISH => publish(flags, payload, &mut out),
        kind::DELIVER => deliver(flags, payload, &mut out),
        kind::SETTLE | kind::SETTLED => {
            let Ok(settle) = Settle::decode(flags, payload) else { return };
            let ranges: Vec<_> = settle.ranges.iter().collect();
            let Settle { consumer, verb, confirm, note, .. } = settle;
            SettleParts { consumer, verb, confirm, note, ranges: &ranges }.encode(kind, 1, &mut out);
            assert_eq!(Settle::decode(out[5], &out[8..]), Ok(settle));
        }
        kind::CONFIRM => {
            let Ok(confirms) = Confirm::decode(payload) else { return };
            let confirms: Vec<_> = confirms.collect();
            for confirm in &confirms {
                assert!(confirm.first + u64::from(confirm.count) > confirm.first);
            }
            Confirm::encode(&confirms, 1, &mut out);
            assert!(Confirm::decode(&out[8..]).unwrap().eq(confirms));
        }
        kind::RETURN => {
            let Ok(returned) = Return::decode(payload) else { return };
            returned.encode(1, &mut out);
            assert_eq!(Return::decode(&out[8..]), Ok(returned));
        }
        kind::CREDIT => {
            let Ok(credit) = Credit::decode(payload) else { return };
            credit.encode(1, &mut out);
            assert_eq!(&out[8..], payload);
        }
        _ => {}
    }
}

fn publish(flags: u8, payload: &[u8], out: &mut BytesMut) {
    let Ok(publish) = Publish::decode(flags, payload) else { return };
    let (cc, bcc): (Vec<_>, Vec<_>) = (publish.cc.iter().collect(), publish.bcc.iter().collect());
    assert_eq!((cc.len(), bcc.len()), (publish.cc.len(), publish.bcc.len()));
    let Publish { route, mandatory, persistent, priority, ttl_ms, .. } = publish;
    let (properties, body) = (publish.properties(), publish.body());
    PublishParts { route, mandatory, persistent, priority, ttl_ms, cc: &cc, bcc: &bcc, properties, body }
        .encode(1, out);
    assert_eq!(Publish::decode(out[5], &out[8..]), Ok(publish));
}

fn deliver(flags: u8, payload: &[u8], out: &mut BytesMut) {
    let Ok(deliver) = Deliver::decode(flags, payload) else { return };
    let cc: Vec<_> = deliver.cc.iter().collect();
    assert_eq!(cc.len(), deliver.cc.len());
    DeliverParts { deliver, cc: cc.into_iter() }.encode(1, out);
    assert_eq!(Deliver::decode(out[5], &out[8..]), Ok(deliver));
    let _ = DeathHistory::decode(deliver.deaths);
}

/// Properties and death histories: what can be read can be written, and means the same.
pub(crate) fn value(input: &[u8]) {
    if let Ok(properties) = Properties::decode(input)
        && input.len() <= METADATA_BYTES_MAX / 16
    {
        let written = properties.encode().unwrap();
        let again = Properties::decode(&written).unwrap().encode().unwrap();
        assert_eq!(written, again);
        properties.headers.values().for_each(|value| drop(value.to_string()));
    }
    if let Ok(history) = DeathHistory::decode(input) {
        let written = history.encode().unwrap();
        assert_eq!(DeathHistory::decode(&written), Ok(history));
    }
}
