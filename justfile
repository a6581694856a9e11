# Every task of the repository. Each line is a command that also works without just.

# All of what CI checks.
test:
    ./run-tests.sh

# One step of it; `just steps` lists them.
step NAME:
    ./run-tests.sh --only {{NAME}}

steps:
    ./run-tests.sh --list

# The quick half: no server, no network.
check: fmt lint
    cargo nextest run

fmt:
    cargo fmt --all --check

lint:
    cargo clippy --workspace --all-targets -- -D warnings

build:
    cargo build --release -p faas-gateway-server

start *ARGS:
    ./start-gateway.sh {{ARGS}}

bench *NAMES:
    bench/run {{NAMES}}

compare A B:
    bench/compare {{A}} {{B}}

docs:
    cargo doc --workspace --no-deps
