//! A store and the guest's instance in it: what the host links, grants, counts and takes back.

pub mod agent;
pub mod app_share;
pub mod body_functions_p3;
pub mod body_streams_p3;
pub mod command;
pub mod ending;
pub mod exchange_context;
pub mod file_functions;
pub mod file_functions_p3;
#[cfg(unix)]
pub mod file_listing;
#[cfg(unix)]
pub mod file_listing_p3;
pub mod file_streams;
pub mod file_streams_p3;
pub mod files;
pub mod folders;
pub mod grants;
pub mod host_memory;
pub mod http_functions;
pub mod instance;
pub mod instance_pool;
pub mod interfaces;
pub mod kept_handles;
pub mod limiter;
pub mod linker;
pub mod open_files;
pub mod p2;
pub mod p3;
pub mod panics;
pub mod prepared;
pub mod process_stdio;
pub mod request_checks;
pub mod restoring;
pub mod seat;
pub mod shared;
pub mod snapshot;
pub mod store;
pub mod timers;
pub mod turns;

/// The interfaces of WASI 0.2 that are linked into every component: those of `http-handler` in `wit/world.wit`.
pub const PROVIDED: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:http/outgoing-handler",
    "wasi:http/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// The interfaces of WASI 0.3 that are linked into components of WASI 0.3, besides those of 0.2: those of `http-service`.
pub const PROVIDED_P3: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/types",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/system-clock",
    "wasi:clocks/types",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:http/client",
    "wasi:http/types",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/types",
];
