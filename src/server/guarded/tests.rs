#![allow(clippy::indexing_slicing, clippy::unwrap_used)]
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::server::settings::Timeouts;

/// What hyper reads of it, and the heads that were taken note of: their targets, or what they are refused with.
fn passed(sent: &[u8], pieces: usize) -> (Vec<u8>, Vec<Result<Vec<u8>, u16>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let timeouts = Timeouts { header: None, body: None, idle: None };
    let watch = Watch::new(timeouts, Instant::now());
    let noted = watch.clone();
    let read = runtime.block_on(async move {
        let (mut client, server) = tokio::io::duplex(pieces);
        let mut guarded = Guarded::new(server, BytesMut::new(), 256, watch);
        let sending = async {
            // one that is refused reads no more
            let _ = tokio::io::AsyncWriteExt::write_all(&mut client, sent).await;
            drop(client);
        };
        let reading = async {
            let mut read = Vec::new();
            guarded.read_to_end(&mut read).await.unwrap();
            drop(guarded);
            read
        };
        tokio::join!(reading, sending).0
    });
    let heads = noted.take_heads().into_iter().map(|head| match &head.refused {
        Some(refusal) => Err(refusal.status),
        None => Ok(head.target().to_vec()),
    });
    (read, heads.collect())
}

const REQUESTS: &[u8] = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n\
    POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nGET /POST /c HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n\
    3;a=b\r\n\r\nG\r\n00\r\nx-t: GET / HTTP/1.1\r\n\r\nGET /d HTTP/1.0\r\n\r\n";

proptest! {
    #[test]
    fn what_comes_passes_whatever_the_segments(pieces in 1..400_usize) {
        let (read, heads) = passed(REQUESTS, pieces);
        // hyper counts extensions, and none of them means anything
        let expected = String::from_utf8_lossy(REQUESTS).replace(";a=b", "");
        prop_assert_eq!(String::from_utf8_lossy(&read), expected);
        let targets = [&b"/a"[..], b"/b", b"/c", b"/d"].map(|target| Ok(target.to_vec()));
        prop_assert_eq!(heads, targets);
    }

    #[test]
    fn an_empty_line_before_a_request_is_passed_over_whatever_the_segments(pieces in 1..4_usize) {
        let sent = [&b"\r\n\r\n"[..], REQUESTS].concat();
        prop_assert_eq!(passed(&sent, pieces), passed(REQUESTS, REQUESTS.len()));
    }

    #[test]
    fn nothing_after_a_head_that_is_refused_is_a_request(pieces in 1..400_usize, which in 0..5_usize) {
        let wrong = [
            &b"GET /x HTTP/1.1\nhost: x\r\n\r\n"[..],
            b"GET /x HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
            b"GET /x HTTP/1.1\r\n\r\n",
            b"GET /x HTTP/1.1\r\nhost: x\r\n folded\r\n\r\n",
            b"GET /xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
              xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx HTTP/1.1\r\nhost: x\r\n\r\n",
        ];
        let sent = [wrong[which], REQUESTS].concat();
        let (read, heads) = passed(&sent, pieces);
        prop_assert_eq!(&read[..], STAND_IN);
        let status = if which == 4 { 431 } else { 400 };
        prop_assert_eq!(heads, [Err(status)]);
    }
}

#[test]
fn a_body_that_is_none_ends_what_is_read() {
    let head = "POST /c HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let many = format!("0\r\n{}\r\n", "x: y\r\n".repeat(MOST_FIELDS + 1));
    for wrong in
        [many.as_str(), "3\r\nabcd\r\n", "3\r\nabc\n0\r\n\r\n", "x\r\n", "3\nabc\r\n", "\r\n", "0\r\nx: y\n\r\n"]
    {
        // the body comes later: before that its guest has begun
        let sent = format!("{head}{wrong}GET /secret HTTP/1.1\r\nhost: x\r\n\r\n");
        for pieces in [1, 7, head.len()] {
            let (read, heads) = passed(sent.as_bytes(), pieces);
            assert!(!String::from_utf8_lossy(&read).contains("secret"), "{wrong:?}");
            assert!(heads.len() <= 1, "{wrong:?}");
        }
    }
}
