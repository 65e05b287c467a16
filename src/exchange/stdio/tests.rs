#![allow(clippy::unwrap_used)]
use super::*;

fn texts(stdio: &Stdio) -> Vec<(Stream, String)> {
    stdio.take(usize::MAX).into_iter().map(|line| (line.stream, line.text)).collect()
}

#[test]
fn lines_are_cut_at_newlines_whatever_the_writes() {
    let stdio = Stdio::default();
    stdio.write(Stream::Stdout, b"one\ntw");
    stdio.write(Stream::Stderr, b"error\r\n");
    stdio.write(Stream::Stdout, b"o\n\nrest");
    assert_eq!(
        texts(&stdio),
        [
            (Stream::Stdout, "one".to_owned()),
            (Stream::Stderr, "error".to_owned()),
            (Stream::Stdout, "two".to_owned()),
            (Stream::Stdout, String::new()),
        ]
    );
    stdio.finish();
    assert_eq!(texts(&stdio), [(Stream::Stdout, "rest".to_owned())]);
    assert_eq!(stdio.last_words(), ["error"]);
}

#[test]
fn a_line_without_end_is_cut_and_the_buffer_is_bounded() {
    let stdio = Stdio::default();
    for _ in 0..9 {
        stdio.write(Stream::Stdout, &[b'x'; LONGEST_LINE]);
    }
    assert!(!stdio.has_room());
    assert_eq!(stdio.take(3).len(), 3);
    assert_eq!(stdio.take(usize::MAX).len(), 5);
    assert!(stdio.has_room());
    assert_eq!(stdio.lines(), 8);
}

#[test]
fn pieces_of_a_long_line_joined_give_its_text() {
    for pattern in ["€", "é", "x€", "🦀", "ab🦀", "\r", "x"] {
        for size in [1, 7, 4096, 3 * LONGEST_LINE + 1] {
            for length in [LONGEST_LINE, LONGEST_LINE + pattern.len(), 2 * LONGEST_LINE + 5] {
                let text = pattern.repeat(length / pattern.len());
                let stdio = Stdio::default();
                for bytes in text.as_bytes().chunks(size) {
                    stdio.write(Stream::Stdout, bytes);
                }
                stdio.write(Stream::Stdout, b"!\n");
                let lines: Vec<Line> = stdio.take(usize::MAX).into();
                assert!(lines.iter().all(|line| !line.text.is_empty() && line.text.len() <= LONGEST_LINE + 1));
                let (last, pieces) = lines.split_last().unwrap();
                assert!(!last.cut && pieces.iter().all(|line| line.cut));
                let joined: String = lines.into_iter().map(|line| line.text).collect();
                assert!(joined == text.clone() + "!", "{pattern:?} {size} {length}");
            }
        }
    }
}

#[test]
fn bytes_that_are_no_text_are_cut_as_well() {
    let stdio = Stdio::default();
    stdio.write(Stream::Stdout, &vec![0x80; 2 * LONGEST_LINE + 1]);
    assert_eq!(stdio.take(usize::MAX).len(), 2);
}

#[test]
fn last_words_are_short_however_long_the_line() {
    let stdio = Stdio::default();
    stdio.write(Stream::Stderr, "€".repeat(LONGEST_LINE / 4).as_bytes());
    assert_eq!(stdio.last_words(), [format!("{}… (48129 bytes more)", "€".repeat(341))]);
}
