#!/usr/bin/env bash
# Builds the guests and puts the components, with the hash of their sources, into components/.
#
#   tests/guests/build.sh            (needs `rustup target add wasm32-wasip2`)
#   CARGO=... tests/guests/build.sh  (with another cargo that has the target)
#
# The components are committed: running the tests needs no wasm toolchain. tests/test_guests.py fails when they do
# not match their sources.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p components
env -u CARGO_TARGET_DIR "${CARGO:-cargo}" build --release --target wasm32-wasip2 -p board -p command -p command_p3 -p demo -p greeter -p hello -p hello_p3 -p keeper -p keeper_p3 -p lines -p middleware -p probe -p probe_p3 -p spin-guest -p wstd-guest
env -u CARGO_TARGET_DIR cargo run --quiet -p everything -- ../../wit http-handler components/everything.wasm
env -u CARGO_TARGET_DIR cargo run --quiet -p everything -- ../../wit http-everything components/everything_p3.wasm
built=target/wasm32-wasip2/release
cp "$built/command.wasm" "$built/command_p3.wasm" "$built/hello.wasm" "$built/hello_p3.wasm" "$built/keeper.wasm" "$built/keeper_p3.wasm" "$built/lines.wasm" "$built/middleware.wasm" "$built/probe.wasm" "$built/probe_p3.wasm" "$built/spin.wasm" "$built/wstd.wasm" components/
cp "$built/demo.wasm" ../../python/wasgi/demo.wasm # part of the package
cp "$built/board.wasm" ../../examples/plugins/components/
cp "$built/greeter.wasm" ../../examples/greeter/components/
python3 hashes.py --write
