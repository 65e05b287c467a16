#![allow(clippy::unwrap_used)]
use std::io::Read;

use http::HeaderMap;

use super::*;
use crate::server::testing::Folder;

const SOON: Duration = Duration::from_secs(60);

fn log(destination: Destination) -> AccessLog {
    told_of(destination).0
}

/// And what the journal hears.
fn told_of(destination: Destination) -> (AccessLog, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::<Mutex<Vec<String>>>::default();
    let hears = heard.clone();
    let journal: Journal = Arc::new(move |level, line| {
        assert_eq!(level, Level::WARN);
        lock(&hears).push(line);
    });
    (AccessLog::open(Format::parse("%(U)s").unwrap(), destination, journal).unwrap(), heard)
}

fn add(log: &AccessLog, line: &str) {
    let nothing = HeaderMap::new();
    log.log(&Entry { method: "GET", target: line.as_bytes(), status: 200, ..Entry::unread(&nothing) });
}

fn to_pipe() -> (io::PipeReader, OwnedFd) {
    let (reader, writer) = io::pipe().unwrap();
    (reader, writer.into())
}

/// Lines of different lengths, each of which tells whether it is whole.
fn nth(number: usize, length: usize) -> String {
    format!("{number}:{}.", "x".repeat(length))
}

fn assert_whole(line: &str, length: usize) {
    let (number, _) = line.split_once(':').unwrap();
    assert_eq!(line, nth(number.parse().unwrap(), length));
}

#[test]
fn lines_are_added_to_the_end_and_a_rotated_file_is_left() {
    let folder = Folder::new();
    let (path, rotated) = (folder.path("access.log"), folder.path("access.log.1"));
    std::fs::write(&path, "old\n").unwrap();
    let log = log(Destination::File(path.clone()));
    add(&log, "one");
    assert!(log.flush(SOON));
    std::fs::rename(&path, &rotated).unwrap();
    add(&log, "two");
    assert!(log.flush(SOON));
    assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "old\none\ntwo\n");
    log.reopen().unwrap();
    assert!(log.flush(SOON));
    add(&log, "three");
    assert!(log.flush(SOON));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "old\none\ntwo\n");
    // one that cannot be opened leaves the present one
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(log.reopen().is_err());
    add(&log, "four");
    assert!(log.flush(SOON));
    assert_eq!(log.dropped(), 0);
}

#[test]
fn what_cannot_be_opened_is_told() {
    let folder = Folder::new();
    let format = Format::parse("json").unwrap();
    assert!(AccessLog::open(format, Destination::File(folder.path("none/access.log")), Arc::new(|_, _| {})).is_err());
}

#[test]
fn what_waits_is_written_though_the_log_is_closed() {
    let (mut reader, writer) = to_pipe();
    let log = log(Destination::Fd(writer));
    for number in 0..1000 {
        add(&log, &nth(number, number % 50));
    }
    drop(log);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text.lines().count(), 1000);
    for (number, line) in text.lines().enumerate() {
        assert_eq!(line, nth(number, number % 50));
    }
}

#[test]
fn a_slow_log_holds_up_nobody_and_loses_whole_lines() {
    let (mut reader, writer) = to_pipe();
    let (log, heard) = told_of(Destination::Fd(writer));
    // more than the pipe, the queue and the writer's batch hold
    let sent = 40_000;
    for number in 0..sent {
        add(&log, &nth(number, 100));
    }
    let dropped = usize::try_from(log.dropped()).unwrap();
    assert!(dropped > 0);
    assert!(!log.flush(Duration::from_millis(1)));
    drop(log);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text.lines().count(), sent - dropped);
    let told = lock(&heard).iter().filter_map(|line| line.split(' ').nth(6)?.parse::<usize>().ok()).sum::<usize>();
    assert_eq!(told, dropped);
    text.lines().for_each(|line| assert_whole(line, 100));
}

#[test]
fn a_log_that_nobody_reads_any_more_ends() {
    let (reader, writer) = to_pipe();
    let log = log(Destination::Fd(writer));
    drop(reader);
    add(&log, "one");
    assert!(log.flush(SOON));
    for number in 0..40_000 {
        add(&log, &nth(number, 100));
    }
    assert!(log.flush(SOON));
    assert_eq!(log.dropped(), 0);
    log.reopen().unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_loses_lines_alone() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let log = log(Destination::Fd(full.into()));
    for _ in 0..3 {
        add(&log, "lost");
        assert!(log.flush(SOON));
    }
    assert_eq!(log.dropped(), 0);
}

#[test]
fn a_line_that_was_cut_is_ended_before_the_next() {
    let (mut reader, fd) = to_pipe();
    let mut writer = Writer::new(File::from(fd));
    writer.write(b"one\ntw").unwrap();
    writer.write(b"three\n").unwrap();
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "one\ntw\nthree\n");
}

#[test]
fn a_pipe_that_does_not_block_is_waited_for() {
    let (mut reader, writer) = to_pipe();
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
    let log = log(Destination::Fd(writer));
    for number in 0..5_000 {
        add(&log, &nth(number, 100));
    }
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    drop(log);
    let text = reading.join().unwrap();
    assert_eq!(text.lines().count(), 5_000);
    text.lines().for_each(|line| assert_whole(line, 100));
}

#[test]
fn lines_of_two_processes_do_not_mix() {
    let (mut reader, writer) = to_pipe();
    let logs = [log(Destination::Fd(writer.try_clone().unwrap())), log(Destination::Fd(writer))];
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    for number in 0..5_000 {
        logs.iter().for_each(|log| add(log, &nth(number, 77)));
    }
    drop(logs);
    let text = reading.join().unwrap();
    assert_eq!(text.lines().count(), 10_000);
    text.lines().for_each(|line| assert_whole(line, 77));
}

#[test]
fn a_pipe_gets_whole_lines_in_pieces_that_it_takes_at_once() {
    let line = |length: usize| "x".repeat(length - 1) + "\n";
    assert_eq!(whole_lines(line(10).as_bytes()), 10);
    assert_eq!(whole_lines(line(ATOMIC).as_bytes()), ATOMIC);
    assert_eq!(whole_lines((line(10) + &line(ATOMIC - 10) + "y\n").as_bytes()), ATOMIC);
    assert_eq!(whole_lines((line(10) + &line(ATOMIC - 9)).as_bytes()), 10);
    assert_eq!(whole_lines((line(ATOMIC + 1) + "y\n").as_bytes()), ATOMIC + 1);
    assert_eq!(whole_lines("x".repeat(ATOMIC * 2).as_bytes()), ATOMIC * 2);
}
