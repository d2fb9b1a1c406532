#!/bin/sh
# Finds a Python that Backstay runs on and hands over to setup.py. `PYTHON=/path/to/python3.12 make setup` chooses one.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cd -- "$here/../.."

# A set-up that is still right is recognised with its own Python, in half a second.
if [ -z "${PYTHON:-}" ] && [ -x .venv/bin/python ] && .venv/bin/python -I deploy/local/setup.py --is-current 2>/dev/null; then
    exit 0
fi

unfit=
for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
    # Being on PATH is not enough: a version manager's shim exists for versions that are not active, and then fails.
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    case $version in
    3.11 | 3.12 | 3.13 | 3.14) exec "$candidate" -I deploy/local/setup.py ;; # those that the pinned packages have wheels for
    esac
    unfit="$unfit $candidate is $version;"
done

if [ -n "$unfit" ]; then
    echo "error: Backstay needs Python 3.11 to 3.14, but$unfit install one, or name one: PYTHON=/path/to/python3 make setup" >&2
elif [ -n "${PYTHON:-}" ]; then
    echo "error: PYTHON=$PYTHON does not run: name a Python 3.11 to 3.14" >&2
else
    echo "error: no Python on PATH: install Python 3.11 or newer (Debian, Ubuntu: sudo apt-get install python3 python3-venv)" >&2
fi
exit 1
