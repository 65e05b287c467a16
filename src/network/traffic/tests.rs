//! What is seen of traffic, however it is cut.

#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

/// Of a connection with a request under way.
fn busy() -> Traffic {
    let traffic = Traffic::new(0);
    traffic.users().store(1, Ordering::Relaxed);
    traffic
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x40, name.len() as u8];
    bytes.extend(name);
    bytes.extend([0x7f, (value.len() - 127) as u8]);
    bytes.extend(value);
    bytes
}

#[test]
fn the_size_of_a_head_is_known_however_it_is_cut_and_whatever_is_indexed() {
    // `:status: 200`, then a field of 200 bytes, and 9 times the same by its index
    let mut block = vec![0x88];
    block.extend(literal(b"x", &[b'y'; 200]));
    block.extend([0x80 | 62; 9]);
    let (first, second) = block.split_at(50);
    let mut padded = vec![2];
    padded.extend([0; 5]);
    padded.extend(first);
    padded.extend([0; 2]);
    let mut bytes = frame(4, 0, 0, &[]);
    bytes.extend(frame(kind::HEADERS, PADDED | PRIORITY, 1, &padded));
    bytes.extend(frame(kind::CONTINUATION, END_HEADERS, 1, second));
    for (head, oversized) in [(2000, 1), (2500, 0)] {
        for cut in 1..bytes.len() {
            let traffic = busy();
            let mut frames = Frames::new(head, 1 << 20);
            for piece in bytes.chunks(cut) {
                traffic.read(piece, Some(&mut frames)).unwrap();
            }
            assert_eq!((traffic.oversized(), traffic.received()), (oversized, bytes.len() as u64), "{cut}");
        }
    }
}

#[test]
fn a_length_without_a_body_is_seen() {
    for (block, flags, is_seen) in [
        // `content-length: 5`, its value as it is, Huffman-coded, and with a name of its own
        (&[0x88, 0x5c, 1, b'5'][..], END_STREAM, true),
        (&[0x88, 0x0f, 13, 0x81, 0x6f], END_STREAM, true),
        (b"\x88\0\x0econtent-length\x015", END_STREAM, true),
        (&[0x88, 0x5c, 1, b'5'], 0, false),
        (&[0x88, 0x5c, 1, b'0'], END_STREAM, false),
        (&[0x88, 0x5c, 0x81, 0x07], END_STREAM, false),
        (&[0x88, 0x5b, 1, b'5'], END_STREAM, false),
    ] {
        let traffic = busy();
        let mut frames = Frames::new(1000, 1000);
        traffic.read(&frame(kind::HEADERS, END_HEADERS | flags, 1, block), Some(&mut frames)).unwrap();
        assert_eq!(traffic.bodiless() > 0, is_seen, "{block:?}");
    }
}

#[test]
fn heads_that_do_not_end_are_a_flood_and_ended_ones_are_not() {
    let traffic = busy();
    let mut frames = Frames::new(100, 100);
    for stream in 0..1000 {
        let bytes = frame(kind::HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, &[0x88; 50]);
        traffic.read(&bytes, Some(&mut frames)).unwrap();
    }
    assert!(frames.streams.is_empty() && traffic.is_fit());
    let hint = frame(kind::HEADERS, END_HEADERS, 5001, &[0x88; 50]);
    traffic.read(&hint, Some(&mut frames)).unwrap();
    assert_eq!(traffic.read(&hint, Some(&mut frames)), Err(Flood::Heads));
    assert_eq!(traffic.flood(), Some(Flood::Heads));
}

#[test]
fn a_peer_that_goes_away_is_seen_to() {
    let (traffic, mut frames) = (busy(), Frames::new(100, 100));
    traffic.read(&frame(kind::GOAWAY, 0, 0, &[0; 8]), Some(&mut frames)).unwrap();
    assert!(!traffic.is_fit());
}

#[test]
fn what_brings_nothing_is_bounded() {
    let traffic = Traffic::new(100);
    for _ in 0..2 {
        traffic.is_of_use();
        assert!(traffic.read(&[0; 60], None).is_ok());
    }
    assert_eq!(traffic.read(&[0; 60], None), Err(Flood::Nothing));
    assert_eq!(traffic.flood(), Some(Flood::Nothing));
}

#[test]
fn frames_that_bring_nothing_are_bounded_and_answers_to_what_was_written_are_not() {
    let ping = frame(kind::PING, 0, 0, &[0; 8]);
    let window = frame(kind::WINDOW_UPDATE, 0, 0, &[0; 4]);
    let flood = |traffic: &Traffic, bytes: &[u8], written: usize| {
        let mut frames = Frames::new(100, 100);
        (0..1 << 20).find(|_| {
            traffic.wrote(Some(written));
            traffic.read(bytes, Some(&mut frames)).is_err()
        })
    };
    for (traffic, most) in [(busy(), FRAMES.0), (Traffic::new(0), FRAMES.1)] {
        for bytes in [&ping, &window] {
            traffic.is_of_use();
            let came = flood(&traffic, bytes, 0).unwrap() as u64 * bytes.len() as u64;
            // what is forgotten meanwhile is little
            assert!((most - 64..4 * most).contains(&came), "{came}");
        }
    }
    // the answer to a PING is no reason for the next one; the smallest of DATA is for two of WINDOW_UPDATE
    assert!(flood(&busy(), &ping, ping.len()).is_some());
    assert!(flood(&busy(), &[window.clone(), window].concat(), HEADER + 1).is_none());
}

proptest! {
    #[test]
    fn any_bytes_are_read(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..20)) {
        let traffic = Traffic::new(1 << 20);
        let mut frames = Frames::new(100, 1000);
        for piece in pieces {
            if traffic.read(&piece, Some(&mut frames)).is_err() {
                break;
            }
            prop_assert!(frames.streams.len() <= STREAMS && frames.block.len() <= 1000);
        }
    }
}
