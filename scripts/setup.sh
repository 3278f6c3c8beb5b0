# Sourced by the other scripts, from the project's root: installs what is missing, and is quick when nothing is.
#
#   have_packages THING=PACKAGE...  Debian packages of things that are missing: commands, or files by their path
#   have_venv VENV EXTRA [PYTHON]   the virtual environment VENV with mcserver in place and pyproject.toml's group EXTRA ("": none)
#   have_modules                    npm's clients, and what their own tests need, in $packages/node_modules

say() { echo "set-up: $*" >&2; }

have_packages() {
    missing=
    for pair in "$@"; do
        case $pair in
        /*) [ -e "${pair%%=*}" ] || missing="$missing ${pair#*=}" ;;
        *) command -v "${pair%%=*}" >/dev/null || missing="$missing ${pair#*=}" ;;
        esac
    done
    [ -z "$missing" ] || install_packages $missing
}

install_packages() (
    say "installing Debian packages: $*"
    if [ "$(id -u)" -ne 0 ]; then
        say "this needs root; run: apt-get install $*"
        exit 1
    fi
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then # the package of a server would start it, and take its port
        trap 'rm -f $policy' EXIT
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
    fi
    apt_install "$@" || { apt-get -q update >&2 && apt_install "$@"; } || exit 1
    case " $* " in
    *" memcached "*) ! command -v update-rc.d >/dev/null || update-rc.d memcached disable >&2 || true ;;
    esac
)

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600 install --no-install-recommends "$@" >&2
}

# A Python that can do: 3.11 or newer.
find_python() {
    for candidate in python3 python3.11 python3.12 python3.13 /usr/bin/python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

# What it takes to build a compiled module for this Python.
have_compiler() {
    have_packages gcc=gcc /usr/include/stdio.h=libc6-dev /usr/include/openssl/ssl.h=libssl-dev
    "$1" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        install_packages python3-dev
}

is_set_up() {
    [ -x "$venv/bin/python" ] && grep -qsx "$wanted" "$venv/.set-up-$extra" "$venv/.set-up-dev"
}

have_venv() (
    set -eu
    venv=$1 extra=$2 python=${3:-}
    wanted=$(sed '/^\[tool.ruff\]/,$d' pyproject.toml | sha256sum) # what is installed, not how the tools are set
    ! is_set_up || exit 0
    exec 9<scripts/setup.sh
    flock 9 # two scripts may start at once
    ! is_set_up || exit 0
    if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
        [ -n "$python" ] || python=$(find_python)
        [ -n "$python" ] || { install_packages python3 python3-venv python3-dev && python=$(find_python); }
        [ -n "$python" ] || { say "Python 3.11 or newer is needed"; exit 1; }
        "$python" -c 'import ensurepip, venv' 2>/dev/null || install_packages python3-venv
        say "making $venv with $("$python" --version)"
        "$python" -m venv --clear "$venv"
    fi
    have_compiler "$venv/bin/python"
    say "installing mcserver${extra:+[$extra]} into $venv"
    install="$venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input"
    "$venv/bin/python" -c 'import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' >"$venv/build-requires.txt"
    $install --requirement "$venv/build-requires.txt" >&2
    $install --no-build-isolation --editable ".${extra:+[$extra]}" >&2
    echo "$wanted" >"$venv/.set-up-$extra"
)

packages=build/clients
have_modules() (
    set -eu
    have_packages node=nodejs npm=npm
    wanted="memcached@2.2.2 memcache-client@1.0.5 memcache-plus@0.3.1 memjs@1.3.2 memcache@1.10.0 mocha@12 should@13 chai@3 chance@1 sinon@1"
    [ "$(cat $packages/modules 2>/dev/null)" != "$wanted" ] || exit 0
    exec 9<scripts/setup.sh
    flock 9
    [ "$(cat $packages/modules 2>/dev/null)" != "$wanted" ] || exit 0
    say "installing npm packages into $packages: $wanted"
    mkdir -p $packages
    npm install --prefix $packages --no-save --no-audit --no-fund --loglevel error $wanted >&2
    echo "$wanted" >$packages/modules
)
