//! A command of WASI 0.3: it does what its first argument names.

use wasip3::cli::{environment, exit, stderr, stdin, stdout, terminal_stdin, terminal_stdout};
use wasip3::clocks::monotonic_clock;
use wasip3::exports::cli::run::Guest;
use wasip3::wit_bindgen::StreamResult;
use wasip3::wit_stream;

struct Command;
wasip3::cli::command::export!(Command);

impl Guest for Command {
    async fn run() -> Result<(), ()> {
        let args = environment::get_arguments();
        let given = |n: usize| args.get(n + 1).map(String::as_str).unwrap_or_default();
        match given(0) {
            "args" => print(args.join("\n")).await,
            "env" => {
                let all = environment::get_environment();
                print(all.iter().map(|(name, value)| format!("{name}={value}\n")).collect()).await;
            }
            "cat" => return cat().await,
            "print" => {
                print(given(1).to_owned()).await;
                let (mut into, from) = wit_stream::new();
                let done = stderr::write_via_stream(from);
                into.write_all(given(2).as_bytes().to_vec()).await;
                drop(into);
                done.await.map_err(drop)?;
            }
            "yes" => {
                let (mut into, from) = wit_stream::new();
                let _done = stdout::write_via_stream(from);
                loop {
                    // whether it is heard of or not
                    into.write_all(b"y\n".repeat(1000)).await;
                }
            }
            "terminals" => {
                let (of_in, of_out) = (terminal_stdin::get_terminal_stdin(), terminal_stdout::get_terminal_stdout());
                print(format!("{} {}", of_in.is_some(), of_out.is_some())).await;
            }
            "code" => exit::exit_with_code(given(1).parse().unwrap()),
            "fail" => return Err(()),
            "panic" => panic!("as asked"),
            "spin" => {
                print("spinning\n".to_owned()).await;
                loop {
                    std::hint::black_box(());
                }
            }
            "sleep" => {
                print("sleeping\n".to_owned()).await;
                monotonic_clock::wait_for(given(1).parse::<u64>().unwrap() * 1_000_000).await;
            }
            _ => return Err(()),
        }
        Ok(())
    }
}

async fn print(text: String) {
    let (mut into, from) = wit_stream::new();
    let done = stdout::write_via_stream(from);
    into.write_all(text.into_bytes()).await;
    drop(into);
    let _ = done.await;
}

/// Each piece as it comes.
async fn cat() -> Result<(), ()> {
    let (mut from, read) = stdin::read_via_stream();
    let (mut into, out) = wit_stream::new();
    let written = stdout::write_via_stream(out);
    let mut piece = Vec::with_capacity(64 << 10);
    loop {
        let (how, mut bytes) = from.read(piece).await;
        if let StreamResult::Complete(_) = how {
            let left = into.write_all(bytes.clone()).await;
            assert!(left.is_empty());
        } else {
            break;
        }
        bytes.clear();
        piece = bytes;
    }
    drop(into);
    written.await.map_err(drop)?;
    read.await.map_err(drop)
}
