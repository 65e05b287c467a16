//! A command of WASI 0.2: it does what its first argument names.

use std::io::{IsTerminal, Read, Write, stderr, stdin, stdout};
use std::process::ExitCode;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{Fields, OutgoingRequest, Scheme};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let given = |n: usize| args.get(n + 1).map(String::as_str).unwrap_or_default();
    let number = |n: usize| given(n).parse::<u64>().unwrap();
    match given(0) {
        "args" => println!("{}", args.join("\n")),
        "env" => std::env::vars().for_each(|(name, value)| println!("{name}={value}")),
        "cat" => cat(),
        "first" => {
            let mut byte = [0];
            stdin().read_exact(&mut byte).unwrap();
            stdout().write_all(&byte).unwrap();
        }
        "print" => {
            stdout().write_all(given(1).as_bytes()).unwrap();
            stdout().flush().unwrap();
            stderr().write_all(given(2).as_bytes()).unwrap();
        }
        "bytes" => {
            let all: Vec<u8> = (0..=255).collect();
            (0..number(1)).for_each(|_| stdout().write_all(&all).unwrap());
        }
        "yes" => loop {
            // whether it is heard of or not
            let _ = stdout().write_all(b"y\n");
        },
        "terminals" => {
            println!("{} {} {}", stdin().is_terminal(), stdout().is_terminal(), stderr().is_terminal());
        }
        "read" => println!("{}", std::fs::read_to_string(given(1)).map_or_else(|e| e.kind().to_string(), |text| text)),
        "write" => std::fs::write(given(1), given(2)).unwrap(),
        "get" => println!("{}", get(given(1), given(2))),
        "exit" => std::process::exit(number(1) as i32),
        "code" => wasip2::cli::exit::exit_with_code(number(1) as u8),
        "fail" => return ExitCode::FAILURE,
        "panic" => panic!("as asked"),
        "spin" => {
            println!("spinning");
            loop {
                std::hint::black_box(());
            }
        }
        "sleep" => {
            println!("sleeping");
            std::thread::sleep(std::time::Duration::from_millis(number(1)));
        }
        "fill" => {
            let mut kept = Vec::new();
            loop {
                kept.push(vec![1u8; 1 << 20]);
            }
        }
        other => {
            eprintln!("no such thing: {other:?}");
            return ExitCode::from(1);
        }
    }
    ExitCode::SUCCESS
}

/// Each piece as it comes.
fn cat() {
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = stdin().read(&mut piece).unwrap();
        if read == 0 {
            return;
        }
        stdout().write_all(&piece[..read]).unwrap();
        stdout().flush().unwrap();
    }
}

/// The status and the body of what an HTTP server answers, or the error-code.
fn get(authority: &str, path: &str) -> String {
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some(authority)).unwrap();
    request.set_path_with_query(Some(path)).unwrap();
    let answer = match outgoing_handler::handle(request, None) {
        Ok(answer) => answer,
        Err(code) => return format!("{code:?}"),
    };
    answer.subscribe().block();
    match answer.get().unwrap().unwrap() {
        Ok(response) => {
            let body = response.consume().unwrap();
            let stream = body.stream().unwrap();
            let mut all = Vec::new();
            while let Ok(mut chunk) = stream.blocking_read(64 << 10) {
                all.append(&mut chunk);
            }
            format!("{} {}", response.status(), String::from_utf8_lossy(&all))
        }
        Err(code) => format!("{code:?}"),
    }
}
