#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Set-up behind every make target: the Debian packages and the virtual environment that it needs.
#
#   setup.sh packages PACKAGE...   install what is missing (root), or print the line to type and fail
#   setup.sh venv EXTRA            make .venv, then install our dependencies with [EXTRA] (test, check)
#   setup.sh install               compile csrc/ and install flexha into .venv, editable
#
# make decides *when* (stamp files in .venv); this script knows *how*. What is present already
# is only looked at (dpkg-query), so that a second run costs milliseconds.
set -eu

cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=.venv

say() { printf 'flexha: %s\n' "$*"; }
die() { printf 'flexha: %s\n' "$*" >&2; exit 1; }

is_installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# A package that brings a service would start it at once, in the machine's own namespace and on its own
# ports. The lab runs these programs itself: keep the services off, now and at the next boot.
without_services() {
	policy=/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then
		trap 'rm -f "$policy"' EXIT INT TERM
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
	fi
	"$@" || return 1
	command -v systemctl >/dev/null || return 0
	for service in nginx keepalived conntrackd; do
		case " $missing " in
		*" $service "*) systemctl --quiet disable "$service" ;;
		esac
	done
}

install_packages() {
	DEBIAN_FRONTEND=noninteractive
	export DEBIAN_FRONTEND
	# shellcheck disable=SC2086
	apt-get update -q && apt-get install -q -y --no-install-recommends $missing
}

packages() {
	missing=
	for package in "$@"; do
		is_installed "$package" || missing="$missing $package"
	done
	missing=${missing# }
	[ -n "$missing" ] || return 0
	command -v apt-get >/dev/null || die "needs these Debian packages (or what your system calls them): $missing"
	if [ "$(id -u)" -ne 0 ]; then
		printf 'flexha: some Debian packages are missing. Type this line, then run make again:\n' >&2
		printf '  sudo apt-get update && sudo apt-get install -y --no-install-recommends %s\n' "$missing" >&2
		exit 1
	fi
	say "installing Debian packages (their services stay off): $missing"
	mkdir -p build
	if ! without_services install_packages >build/apt.log 2>&1 </dev/null; then
		tail -n 20 build/apt.log >&2
		die "apt-get failed; all of its output is in build/apt.log"
	fi
}

# Debian splits the standard library: ensurepip (python3-venv) and Python.h (python3-dev) may be missing.
# A Python that is not Debian's brings both.
python_packages() {
	command -v "$python" >/dev/null || die "no $python on PATH: Python 3.11 or newer is needed"
	"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
		die "$("$python" --version) is too old: Python 3.11 or newer is needed (make PYTHON=...)"
	wanted=
	"$python" -c 'import ensurepip, venv' 2>/dev/null || wanted=python3-venv
	"$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || wanted="$wanted python3-dev"
	command -v cc >/dev/null || wanted="$wanted gcc"
	printf '#include <stdlib.h>\n' | cc -E - >/dev/null 2>&1 || wanted="$wanted libc6-dev"
	printf '#include <openssl/evp.h>\n' | cc -E - >/dev/null 2>&1 || wanted="$wanted libssl-dev"
	# shellcheck disable=SC2086
	packages $wanted
}

pip() {
	"$venv/bin/python" -m pip --disable-pip-version-check --quiet --quiet "$@"
}

# What pyproject.toml names: `requires` of the build, dependencies, and one extra.
requirements() {
	"$venv/bin/python" - "$1" <<-'PYTHON'
		import sys
		import tomllib

		with open("pyproject.toml", "rb") as file:
		    project = tomllib.load(file)
		wanted = project["build-system"]["requires"] + project["project"]["dependencies"]
		print("\n".join(wanted + project["project"]["optional-dependencies"][sys.argv[1]]))
	PYTHON
}

venv() {
	python_packages
	if ! "$venv/bin/python" -c '' 2>/dev/null; then
		say "making the virtual environment $venv"
		"$python" -m venv --clear "$venv"
	fi
	say "installing Python packages for: $1"
	mkdir -p build
	requirements "$1" >"build/requirements-$1.txt"
	pip install -r "build/requirements-$1.txt"
}

install() {
	say "compiling csrc/ and installing flexha into $venv"
	pip install --no-build-isolation --no-deps --editable .
}

case ${1:-} in
packages) shift; packages "$@" ;;
venv) venv "$2" ;;
install) install ;;
*) die "usage: setup.sh packages PACKAGE... | venv EXTRA | install" ;;
esac
