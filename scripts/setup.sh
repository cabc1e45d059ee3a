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

# A virtual environment $cache/NAME of pinned versions, remade when a pin changes; further arguments go to pip.
venv() {
  local name="$1" pins="$2" stamp="$cache/$1/.stamp"
  shift 2
  if [ -f "$stamp" ] && cmp -s "$pins" "$stamp"; then return; fi
  say "installing $name (once)"
  rm -rf "${cache:?}/$name"
  python3 -m venv "$cache/$name" || { packages python3-venv; python3 -m venv "$cache/$name"; }
  "$cache/$name/bin/pip" install --quiet --disable-pip-version-check --no-input "$@" -r "$pins"
  cp "$pins" "$stamp"
}

# A Go program at a pinned version, installed under a name: `go_tool NAME BUILT_NAME MODULE VERSION`.
go_tool() {
  local name="$1" built="$2" module="$3" version="$4" stamp="$cache/bin/.$1-$4" aside
  [ -f "$stamp" ] && return
  say "installing $name $version (once)"
  aside="$(mktemp -d)"
  GOBIN="$aside" go install "$module@$version"
  mv "$aside/$built" "$cache/bin/$name"
  rm -rf "$aside"
  touch "$stamp"
}

go_tools() {
  have go || packages golang-go
  go_tool grpcurl grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl v1.9.4
  go_tool toxiproxy-server server github.com/Shopify/toxiproxy/v2/cmd/server v2.5.0
  go_tool k6 k6 go.k6.io/k6 v1.3.0
}

# promtool out of Debian's package, which is not installed: it would run a server. The one test that uses it does without.
promtool() {
  [ -x "$cache/bin/promtool" ] && return
  have apt-get || return 0
  say "unpacking promtool (once)"
  local aside
  aside="$(mktemp -d)"
  (cd "$aside" && apt-get -qq download prometheus && dpkg -x prometheus_*.deb . && mv usr/bin/promtool "$cache/bin/") >/dev/null 2>&1 ||
    say "promtool cannot be had; metrics are checked by the tests' own reader alone"
  rm -rf "$aside"
}

build
if [ "$what" = test ]; then
  have curl || packages curl
  have python3 || packages python3 python3-venv
  # Clients, an S3 server and cargo's helpers in one; MLServer, which pins much, in another. The pins are a closed set: pip
  # need not solve them (the CUDA-free build of XGBoost has a name that it would not accept for the one asked for).
  jobs=()
  venv py scripts/requirements.txt & jobs+=($!)
  venv mlserver scripts/requirements-mlserver.txt --no-deps & jobs+=($!)
  go_tools & jobs+=($!)
  promtool & jobs+=($!)
  for job in "${jobs[@]}"; do wait "$job"; done
fi
