#!/usr/bin/env bash
# Runs the 200 orders of examples/orders through `tasker dev` and shows what happened. Exit code 0: each ended as its
# file says. The database is a new one in a temporary directory, and nothing of it is left behind.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v cargo >/dev/null && [ -n "${CARGO_HOME:-${HOME:-}}" ]; then
  export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
fi
# The demo is not for a database that somebody uses.
unset DATABASE_URL TASKER_DATABASE_URL TASKER_SCHEMA

readonly READY_SECONDS=120 STOP_SECONDS=60
readonly LATE_ORDER=order:A-10228 # its card is charged at the third attempt
root=$PWD
dev=
work=$(mktemp -d "${TMPDIR:-/tmp}/tasker-demo.XXXXXX")
chmod 755 "$work" # run as root, the server has an account of its own, which must get in

say() { printf '\n==> %s\n' "$*"; }

is_running() { [ -n "$dev" ] && kill -0 "$dev" 2>/dev/null; }

stop_dev() { # stop_dev: ends `tasker dev` and answers its exit code
  local status=0 pid=$dev waited=0
  kill -TERM "$pid" 2>/dev/null || true
  while is_running && [ "$waited" -lt "$((STOP_SECONDS * 10))" ]; do
    sleep 0.1
    waited=$((waited + 1))
  done
  if is_running; then kill -KILL "$pid" 2>/dev/null || true; fi
  wait "$pid" || status=$?
  dev=
  return "$status"
}

clean_up() {
  local status=$?
  trap - EXIT
  # From 128 on a signal ended it.
  if [ "$status" -ne 0 ] && [ "$status" -lt 128 ] && [ -s "$work/dev.log" ]; then
    printf '\nthe demo failed; the last lines of tasker dev:\n' >&2
    tail -n 30 "$work/dev.log" >&2
  fi
  if [ -n "$dev" ]; then stop_dev || true; fi
  rm -rf "$work"
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# All of it, although the demo needs two programs: building those alone would choose other features of the dependencies, and
# `make test` would then build them once more.
say "building"
cargo build --workspace --all-targets
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$root/$target ;; esac
export PATH="$target/debug:$PATH"
export TASKER_DEV_WORKER="example-orders work" # built just now, so `cargo run` is not needed
cd examples/orders

say "tasker dev: PostgreSQL, Tasker's tables, the worker"
tasker dev --data-dir "$work/pg" --ready-file "$work/ready" >/dev/null 2>"$work/dev.log" &
dev=$!
waited=0
until [ -s "$work/ready" ]; do
  is_running || { echo "tasker dev ended before it was ready" >&2; exit 1; }
  [ "$waited" -lt "$((READY_SECONDS * 10))" ] || { echo "tasker dev is not ready after $READY_SECONDS s" >&2; exit 1; }
  sleep 0.1
  waited=$((waited + 1))
done
DATABASE_URL=$(cat "$work/ready")
export DATABASE_URL
cat "$work/dev.log"

say "200 orders, each submitted in the transaction that writes its row"
example-orders submit data/orders.json

say "tasker task list --state failed --limit 5"
tasker task list --state failed --limit 5

say "tasker task show $LATE_ORDER"
tasker task show "$LATE_ORDER"

say "tasker doctor"
tasker doctor

say "stopping"
stop_dev || { echo "tasker dev ended with code $?" >&2; exit 1; }
say "all went as it should"
