#!/bin/sh
# What the tests need beside Python packages: Chromium, PostgreSQL, MariaDB. As root they are installed by apt; otherwise
# this tells which tests will be skipped, and how to get them.
set -eu
cd "$(dirname "$0")/.."

has_chromium() { for b in chromium chromium-browser google-chrome; do "$b" --version && return; done; return 1; }
has_postgresql() { ls /usr/lib/postgresql/*/bin/postgres || command -v postgres; }
has_mariadb() { command -v mariadbd || ls /usr/sbin/mariadbd; }

missing=
has_chromium >/dev/null 2>&1 || missing="$missing chromium"
has_postgresql >/dev/null 2>&1 || missing="$missing postgresql"
has_mariadb >/dev/null 2>&1 || missing="$missing mariadb-server"

if [ "$(id -u)" = 0 ]; then
    [ -n "$missing" ] || exit 0
    echo "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086
    apt-get install -qq -y --no-install-recommends $missing </dev/null >/dev/null
    exit 0
fi

echo "As you are not root, tests with 'disk' in their names will be skipped: they mount a small one."
echo "  sudo .venv/bin/python -m pytest tests -k disk"
for package in $missing; do
    tests=$(grep -li "$package" tests/test_*.py | tr '\n' ' ') || true
    echo "$package is missing; ${tests:-no test yet }will be skipped, or some of it: sudo apt-get install $package"
done
