#!/bin/sh
# Find a Python that is new enough and let it do the set-up: `sh harness/setup.sh run|test`.
# PYTHON names another interpreter.
set -eu
cd "$(dirname "$0")/.."

find_python() {
    for name in ${PYTHON:+"$PYTHON"} python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
}

python=$(find_python)
if [ -z "$python" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get -q update >&2
    DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends python3 >&2
    python=$(find_python)
fi
if [ -z "$python" ]; then
    echo "error: there is no Python 3.11 or newer (install the package python3)" >&2
    exit 3
fi
exec "$python" -m harness.setup "$@"
