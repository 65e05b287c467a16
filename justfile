# The project's tasks. `uv run just TASK`; CI runs `uv run just ci`.

set shell := ["bash", "-euo", "pipefail", "-c"]

# for benchmarks: this crate as for a release, too: without assertions, and with its parts inlined into each other
optimised := "--config build.incremental=false" + prepend(" --config profile.dev.package.wasgi.", "opt-level=3 codegen-units=16 debug-assertions=false overflow-checks=false")
target := env("CARGO_TARGET_DIR", justfile_directory() / "target")

# Lists the tasks.
default:
    @just --list

# Builds the native module into the environment (dev profile).
build:
    maturin develop --uv

# Formatting, lints, types, stubs.
check:
    cargo fmt --check
    cargo fmt --check --manifest-path fuzz/Cargo.toml
    cargo clippy --all-targets --locked -- -D warnings
    cargo clippy --all-targets --locked --no-default-features -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-default-features --no-deps --lib --document-private-items
    cargo deny --locked check licenses bans sources
    ruff format --check .
    ruff check .
    mypy
    python -m mypy.stubtest wasgi._wasgi --allowlist tests/stubtest_allowlist.txt

# Puts the code into form.
fmt:
    cargo fmt
    cargo fmt --manifest-path fuzz/Cargo.toml
    ruff check --fix .
    ruff format .

# The tests of the core, and its example, without Python.
test-rust:
    cargo test --locked --no-default-features
    cargo run --locked --quiet --no-default-features --example handle

# All tests but the slow ones.
test: test-rust
    pytest

# All tests.
test-all: test-rust
    pytest -m "slow or not slow"

# Prints the floor in plain Rust beside the core, app.handle and app.handle_async, all optimised.
bench *options:
    cargo build {{ optimised }} --locked --no-default-features --example floor --example core
    maturin develop --uv {{ optimised }}
    python benches/hello.py {{ target }}/debug/examples {{ options }}

# A large body through an echo guest: speed, and peak memory.
bench-echo *options:
    maturin develop --uv {{ optimised }}
    python benches/echo.py {{ options }}

# uvicorn with a plain hello beside uvicorn with an App (needs wrk).
bench-asgi *options:
    maturin develop --uv {{ optimised }}
    python -m benches.asgi {{ options }}

# What a guest's outgoing request costs, beside a plain client's.
bench-network *options:
    cargo build {{ optimised }} --locked --example client
    maturin develop --uv {{ optimised }}
    python -m benches.network {{ target }}/debug/examples/client {{ options }}

# The native server beside `wasmtime serve` (`--wasmtime PROGRAM`) and granian (needs wrk).
bench-serve *options:
    maturin develop --uv {{ optimised }}
    python benches/serve.py {{ options }}

# 1 GiB through an echo guest by `wasgi serve`, beside `wasmtime serve` (`--wasmtime PROGRAM`).
bench-serve-echo *options:
    maturin develop --uv {{ optimised }}
    python benches/serve_echo.py {{ options }}

# 10,000 idle connections: memory of each, and a request beside them.
bench-serve-idle *options:
    python benches/serve_idle.py {{ options }}

# What an exchange costs on fresh and on reused instances.
bench-reuse *options:
    maturin develop --uv {{ optimised }}
    python -m benches.reuse {{ options }}

# What an exchange costs on instances that are put back, beside fresh and reused ones.
bench-isolated *options:
    maturin develop --uv {{ optimised }}
    python -m benches.isolated {{ options }}

# What one tenant feels of another that means harm.
bench-hostile *options:
    maturin develop --uv {{ optimised }}
    python -m benches.hostile {{ options }}

# What the fixtures of the pytest plug-in cost a test.
bench-fixtures *options:
    maturin develop --uv {{ optimised }}
    python -m benches.fixtures {{ options }}

# Mixed load for a long time: memory and descriptors stay where they are.
soak *options:
    python benches/soak.py {{ options }}

# The server with clients that hang up at random: memory, descriptors and stats stay where they are.
soak-serve *options:
    python benches/serve_soak.py {{ options }}

# Exchanges at random; the tests run some thousands of them.
chaos *options:
    python -m tests.chaos {{ options }}

# Fuzzes what turns foreign bytes into our types, so many seconds each (needs `cargo install cargo-fuzz`). What it finds
# interesting goes into a folder of its own; `cargo fuzz cmin` puts it into the corpus.
fuzz seconds="60":
    for target in url server fields pattern census debug_info; do \
      found=$(mktemp -d); \
      cargo fuzz run --sanitizer none "$target" "$found" "fuzz/corpus/$target" -- \
        -max_len=256 -max_total_time={{ seconds }}; \
    done

# Mutants of policy and state machines, as the tests of the core see them (needs `cargo install cargo-mutants`; hours for all rooms,
# so a room may be named: `just mutants guest_clock`). Survivors are in `mutants.out/missed.txt` below the target folder.
mutants room="*":
    CARGO_TARGET_DIR={{ target }} nice cargo mutants --jobs 1 --timeout 120 --no-default-features --output {{ target }} \
      --cargo-arg=--lib --cargo-arg=--config=profile.dev.package.wasgi.opt-level=0 \
      $(for room in app/admission app/history app/incoming app/slice exchange/body_check exchange/guest_clock \
        exchange/handle exchange/phase exchange/request_body exchange/response_body exchange/unread guest/instance_pool \
        network/pool_state scheduler/credit scheduler/queue scheduler/stuck scheduler/turn simulation/time_state \
        simulation/virtual_time; do [[ ${room##*/} == {{ room }} ]] && echo "--file src/$room.rs"; done)

# A wheel for users.
wheel:
    maturin build --release --locked
