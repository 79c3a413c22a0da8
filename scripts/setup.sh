# Sourced by run and test: the clone's own virtual environment, .venv.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv="$root/.venv"

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "$(basename "$0"): $*"
    exit 1
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# Print the Python to use: python3, else the newest one on PATH that will do.
find_python() {
    local name minor
    if new_enough python3; then
        command -v python3
        return
    fi
    for ((minor = 30; minor >= 11; minor--)); do
        name="python3.$minor"
        if new_enough "$name"; then
            command -v "$name"
            return
        fi
    done
    fail "needs Python 3.11 or newer, found $(python3 --version 2>/dev/null || echo none)"
}

can_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# Install Debian packages, start none of the services they bring, and show apt's output only if that fails.
apt_install() (
    log=$(mktemp)
    policy=/usr/sbin/policy-rc.d
    trap 'rm -f "$log"' EXIT
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$log" "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    say "Installing $* ..."
    export DEBIAN_FRONTEND=noninteractive
    if ! { apt-get update && apt_get_install "$@"; } >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        fail "could not install $*"
    fi
)

apt_get_install() { apt-get install --yes --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"; }

# Debian keeps what `python -m venv` needs in a package of its own.
need_ensurepip() {
    local package
    "$1" -c 'import ensurepip' 2>/dev/null && return
    package=$("$1" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')
    can_apt || fail "needs Python's venv module; on Debian and Ubuntu: sudo apt-get install $package"
    apt_install "$package"
}

# A virtual environment holds its own path, so one in a clone that was moved is made again.
make_venv() {
    local python
    if "$venv/bin/python" -c '' 2>/dev/null && grep -qsF "$venv/bin/python" "$venv/bin/pip"; then
        return
    fi
    python=$(find_python) || exit
    need_ensurepip "$python"
    "$python" -m venv --clear "$venv"
}

stamp() { printf '%s\n' "$root" && cksum <"$root/pyproject.toml" && cksum <"$root/requirements-ci.txt"; }

# prepare NAME INSTALL: make the environment, and call INSTALL unless it did its work with these same files.
# The lock is for two that start at once.
prepare() {
    local name=$1 install=$2
    is_ready "$name" && return
    exec 9<"$root"
    if command -v flock >/dev/null; then flock 9; fi
    if ! is_ready "$name"; then
        say "Setting up $venv ..."
        make_venv
        "$install" || fail "could not install the packages"
        stamp >"$venv/$name.stamp"
    fi
    exec 9<&-
}

is_ready() {
    [ -x "$venv/bin/python" ] && [ "$(stamp)" = "$(cat "$venv/$1.stamp" 2>/dev/null)" ]
}

pip_install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@"; }
