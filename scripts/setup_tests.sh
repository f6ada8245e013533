#!/bin/sh
# What the tests need beside Python packages: Chromium and PostgreSQL. As root they are installed by apt; otherwise
# this tells which tests will be skipped, and how to get them.
set -eu
cd "$(dirname "$0")/.."

has_chromium() { for b in chromium chromium-browser google-chrome; do "$b" --version && return; done; return 1; }
has_postgresql() { ls /usr/lib/postgresql/*/bin/postgres || command -v postgres; }
using() { grep -liE "$1" tests/test_*.py | tr '\n' ' '; }

missing=
has_chromium >/dev/null 2>&1 || missing="$missing chromium"
has_postgresql >/dev/null 2>&1 || missing="$missing postgresql"

if [ "$(id -u)" = 0 ]; then
    [ -n "$missing" ] || exit 0
    echo "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086
    apt-get install -qq -y --no-install-recommends $missing </dev/null >/dev/null
    exit 0
fi

echo "will be skipped, as they mount a small disk: tests with 'disk' in their names; sudo .venv/bin/pytest tests -k disk"
for package in $missing; do
    tests=$(using "$package") || true
    echo "${package} is missing: ${tests:-no test yet }will be skipped; sudo apt-get install $package"
done
