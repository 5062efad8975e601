#!/usr/bin/env bash
# Installs what the build and the tests need and this machine lacks; says what to do where it may not install.
# Never starts the distribution's own PostgreSQL: Tasker runs the server binaries itself.
set -euo pipefail

readonly RUST_NEEDED=1.94
readonly POSTGRES_NEEDED=15

at_least() { # at_least HAVE NEEDED: compares versions
  [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

has_rust() {
  local version
  command -v cargo >/dev/null && version=$(rustc --version 2>/dev/null) || return 1
  version=${version#rustc }
  at_least "${version%% *}" "$RUST_NEEDED"
}

has_c_compiler() { command -v cc >/dev/null; }

# The same places that the supervisor looks at (core/postgres/src/binaries.rs).
has_postgres() {
  local directory version
  local -a directories=(/usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin
    /usr/local/opt/postgresql@*/bin /home/linuxbrew/.linuxbrew/opt/postgresql@*/bin
    /Applications/Postgres.app/Contents/Versions/*/bin)
  if command -v postgres >/dev/null; then directories+=("$(dirname "$(command -v postgres)")"); fi
  if [ -n "${TASKER_PG_BIN_DIR:-}" ]; then directories=("$TASKER_PG_BIN_DIR"); fi
  for directory in "${directories[@]}"; do
    [ -x "$directory/postgres" ] && [ -x "$directory/initdb" ] || continue
    version=$("$directory/postgres" --version | sed -n 's/.*(PostgreSQL) \([0-9]*\).*/\1/p')
    if [ "${version:-0}" -ge "$POSTGRES_NEEDED" ]; then return 0; fi
  done
  return 1
}

# A server that is given makes the binaries unnecessary.
needs_postgres() { [ -z "${TASKER_TEST_DATABASE_URL:-}${DATABASE_URL:-}" ] && ! has_postgres; }

refuse() {
  printf 'setup: %s\n' "$@" >&2
  exit 1
}

install_packages() {
  if ! command -v apt-get >/dev/null; then
    refuse "these are missing: $*" \
      "install a C compiler and the server of PostgreSQL $POSTGRES_NEEDED or newer with your package manager" \
      "(Fedora: dnf install gcc postgresql-server; macOS: xcode-select --install, brew install postgresql@18)" \
      "or set TASKER_TEST_DATABASE_URL to a server that runs already"
  fi
  if [ "$(id -u)" -ne 0 ]; then
    refuse "these are missing: $*" "as root, run: apt-get update && apt-get install -y --no-install-recommends $*"
  fi
  echo "setup: installing $*"
  # The package would make a cluster of its own and start it. A policy keeps it from the one and its own
  # configuration from the other; both are as the distribution has them afterwards.
  local policy=/usr/sbin/policy-rc.d cluster=/etc/postgresql-common/createcluster.conf made=()
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made+=("$policy")
  fi
  if [ ! -e "$cluster" ]; then
    mkdir -p "$(dirname "$cluster")"
    echo "create_main_cluster = false" >"$cluster"
    made+=("$cluster")
  fi
  local status=0
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    -o Dpkg::Options::=--force-confold "$@"; } </dev/null || status=$?
  if [ "${#made[@]}" -gt 0 ]; then rm -f "${made[@]}"; fi
  if [ ! -e "$cluster" ] && [ -e "$cluster.ucf-dist" ]; then mv "$cluster.ucf-dist" "$cluster"; fi
  [ "$status" -eq 0 ] || refuse "apt-get failed with code $status"
}

has_rust || refuse "Rust $RUST_NEEDED or newer is missing" "install it from https://rustup.rs, or update it: rustup update stable"

missing=()
has_c_compiler || missing+=(gcc libc6-dev)
if needs_postgres; then missing+=(postgresql); fi
[ "${#missing[@]}" -eq 0 ] || install_packages "${missing[@]}"

if needs_postgres; then
  refuse "the PostgreSQL of this system is older than $POSTGRES_NEEDED" \
    "install a newer one (https://wiki.postgresql.org/wiki/Apt), or set TASKER_TEST_DATABASE_URL to a server that runs already"
fi
has_c_compiler || refuse "no C compiler (cc) after the installation"
