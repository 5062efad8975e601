# For the demos: `. scripts/throwaway.sh` at their start, then `in_throwaway PROGRAM...` and what it defines. The demo is started a second
# time, under with-services, which gives it a PostgreSQL that is thrown away afterwards. Whatever ends the demo, nothing of it stays.
# shellcheck shell=bash

if ! command -v cargo >/dev/null && [ -n "${CARGO_HOME:-${HOME:-}}" ]; then
  export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
fi

readonly STOP_SECONDS=30
worker=

say() { printf '\n==> %s\n' "$*"; }

shown() { # shown COMMAND...: says what is run, and runs it
  printf '\n$ %s\n' "$*"
  "$@"
}

fail() {
  printf 'the demo failed: %s\n' "$*" >&2
  exit 1
}

soon() { # soon SECONDS WHAT COMMAND...: tries the command until it succeeds, or fails the demo
  local until=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    [ "$SECONDS" -lt "$until" ] || fail "$what"
    sleep 0.05
  done
}

in_throwaway() { # in_throwaway: returns in the demo's second start, with a database, programs and a directory for its files
  if [ -z "${DEMO_INSIDE:-}" ]; then
    say "building"
    # All of it, although the demo needs three programs: building those alone would choose other features of the dependencies, and
    # `make test` would then build them once more.
    cargo build --workspace --all-targets
    local target=${CARGO_TARGET_DIR:-$PWD/target}
    case $target in /*) ;; *) target=$PWD/$target ;; esac
    export DEMO_INSIDE=1 PATH="$target/debug:$PATH"
    # The demo is not for a database that somebody uses.
    unset DATABASE_URL TASKER_DATABASE_URL TASKER_TEST_DATABASE_URL TASKER_SCHEMA TASKER_QUEUES TASKER_PGBOUNCER TASKER_DIRECT_DATABASE_URL
    exec with-services "$0"
  fi
  work=$(mktemp -d "${TMPDIR:-/tmp}/tasker-demo.XXXXXX")
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap 'exit 129' HUP
  export DATABASE_URL=$TASKER_TEST_DATABASE_URL
}

start_worker() { # start_worker PROGRAM: starts `PROGRAM work` and waits until it serves
  "$1" work >>"$work/worker.log" 2>&1 </dev/null &
  worker=$!
  soon 60 "the worker is not ready after a minute" worker_serves
}

worker_serves() {
  kill -0 "$worker" 2>/dev/null || fail "the worker ended before it was ready"
  tasker worker list --output json 2>/dev/null | grep "\"pid\": *$worker\b" >/dev/null
}

kill_worker() { # kill_worker: kill -9, and waits until it is dead
  kill -KILL "$worker"
  # The shell says `Killed` where it learns of it.
  { wait "$worker" || true; } 2>/dev/null
  worker=
}

stop_worker() {
  local waited=0 pid=$worker
  kill -TERM "$pid" 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null && [ "$waited" -lt "$((STOP_SECONDS * 10))" ]; do
    sleep 0.1
    waited=$((waited + 1))
  done
  kill -KILL "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
  worker=
}

clean_up() {
  local status=$?
  trap - EXIT
  trap '' INT TERM HUP
  # From 128 on a signal ended it.
  if [ "$status" -ne 0 ] && [ "$status" -lt 128 ] && [ -s "$work/worker.log" ]; then
    printf '\nthe last lines of the worker:\n' >&2
    tail -n 30 "$work/worker.log" >&2
  fi
  if [ -n "$worker" ]; then stop_worker; fi
  rm -rf "$work"
  exit "$status"
}
