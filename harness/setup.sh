#!/bin/sh
# Find a Python that is new enough and let it do the set-up: `sh harness/setup.sh run|test`.
# PYTHON names another interpreter.
set -eu
cd "$(dirname "$0")/.."
log=.make/setup.log

fail() {
    echo "error: $1" >&2
    exit 3
}

find_python() {
    for name in ${PYTHON:+"$PYTHON"} python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
}

apt() {
    DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 LC_ALL=C.UTF-8 \
        apt-get -q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" >>"$log" 2>&1 </dev/null
}

# What apt says of the cause, else its last error: there is no Python yet that could explain it.
find_reason() {
    grep -E '^[EW]: (Failed to fetch|Could not get lock|dpkg was interrupted)' "$log" | head -n 1 | grep . ||
        grep '^E:' "$log" | tail -n 1
}

install_python() {
    mkdir -p .make && : >"$log" || fail "nothing can be set up in $PWD (use a checkout of your own)"
    echo "setup: installing python3: this takes a moment" >&2
    apt update || true # one archive of several may be away: the installation shows what is missing
    apt install -y --no-install-recommends python3 ||
        fail "apt-get could not install python3: $(find_reason) (all of it is in $PWD/$log)"
}

python=$(find_python)
if [ -z "$python" ]; then
    if ! command -v apt-get >/dev/null; then
        fail "there is no Python 3.11 or newer (install the package python3)"
    elif [ "$(id -u)" != 0 ]; then
        fail "there is no Python 3.11 or newer (sudo apt-get update && sudo apt-get install python3)"
    fi
    install_python
    python=$(find_python)
    [ -n "$python" ] || fail "this release's python3 is older than 3.11 (PYTHON=… make names another)"
fi
exec "$python" -m harness.setup "$@"
