#!/bin/sh
# Make a virtual environment with the first Python from 3.11 on that is found: sh make_venv.sh FOLDER
set -eu
usable='import sys; sys.exit(sys.version_info < (3, 11))'
found=
for python in python3.11 python3.12 python3 python3.13 python3.14; do
    "$python" -c "$usable" 2>/dev/null || continue  # a name may also be a shim that starts nothing
    found=${found:-$python}
    if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "making $1 with $("$python" --version)"
        exec "$python" -m venv "$1"
    fi
done
if [ -n "$found" ]; then
    echo "$found has no venv module: apt-get install $found-venv, then try again" >&2
else
    echo "no Python from 3.11 on was found: apt-get install python3 python3-venv, or see https://www.python.org" >&2
fi
exit 1
