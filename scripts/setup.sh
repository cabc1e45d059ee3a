#!/usr/bin/env bash
# Sets up what is missing: `setup.sh build` what a build needs, `setup.sh test` what the tests and checks need as well.
# Everything goes to $MODELRING_CACHE, once per pinned version; only compilers come from the system's packages.
set -euo pipefail
what="${1:-build}"
cache="${MODELRING_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/modelring}"
mkdir -p "$cache/bin"

say() { echo "setup: $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# Installs Debian packages, or says which ones are missing.
packages() {
  if have apt-get && [ "$(id -u)" = 0 ]; then
    say "installing $*"
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@"; } >/dev/null
  elif have apt-get && have sudo && sudo -n true 2>/dev/null; then
    say "installing $*"
    { sudo apt-get -qq update && sudo DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@"; } >/dev/null
  else
    say "missing: $*. Install them (Debian: sudo apt-get install $*) and run this again"
    exit 1
  fi
}

build() {
  have cargo || { say "missing: Rust. Install it from https://rustup.rs and run this again"; exit 1; }
  # Pingora's compression libraries are built from C.
  local missing=()
  have cmake || missing+=(cmake)
  { have cc && have c++; } || missing+=(build-essential)
  [ ${#missing[@]} -eq 0 ] || packages "${missing[@]}"
}

# Python clients, the reference runtime and cargo's helpers (prebuilt wheels), by pinned versions.
python_tools() {
  local pins="scripts/requirements.txt" stamp="$cache/py/.stamp"
  if [ -f "$stamp" ] && cmp -s "$pins" "$stamp"; then return; fi
  have python3 || packages python3 python3-venv
  say 'installing test clients and cargo tools (once)'
  rm -rf "$cache/py"
  python3 -m venv "$cache/py" || { packages python3-venv; python3 -m venv "$cache/py"; }
  "$cache/py/bin/pip" install --quiet --disable-pip-version-check --no-input -r "$pins"
  cp "$pins" "$stamp"
}

go_tools() {
  local grpcurl=v1.9.4 stamp
  stamp="$cache/bin/.grpcurl-$grpcurl"
  [ -f "$stamp" ] && return
  have go || packages golang-go
  say "installing grpcurl $grpcurl (once)"
  GOBIN="$cache/bin" go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@$grpcurl"
  touch "$stamp"
}

build
if [ "$what" = test ]; then
  have curl || packages curl
  python_tools &
  python=$!
  go_tools &
  go=$!
  wait "$python"
  wait "$go"
fi
