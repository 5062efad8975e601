#!/usr/bin/env bash
# Runs every test. Called by `make test` under with-services, so that all test binaries share one server.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo test --workspace --all-targets --no-fail-fast
cargo test --workspace --doc
