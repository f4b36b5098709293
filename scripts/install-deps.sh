#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what Cairn is built and tested with, on Debian and Ubuntu. Fast when nothing is missing:
# one dpkg-query. Arguments: build (default), test, ci; each includes the ones before it. bench: build, and what plots take.
set -eu

build="gcc libc6-dev meson ninja-build pkg-config libprotobuf-c-dev protobuf-c-compiler libxxhash-dev liblz4-dev libzstd-dev libmnl-dev
	libcap-dev libssl-dev
	libjansson-dev libcmocka-dev"
tests="python3 musl-tools busybox-static golang-go nodejs default-jdk-headless perl make xz-utils stress-ng gdb strace libcap2-bin
	sqlite3 util-linux inotify-tools rsync git zstd tmux vim-tiny less procps slurmctld slurmd slurm-client munge systemd dbus passt
	nftables iproute2 python3-seccomp redis-server nginx-light memcached curl postgresql redis-tools wrk openssh-server openssh-client mariadb-server fio"
ci="clang clang-tidy"

bench="python3 gnuplot-nox"

case "${1:-build}" in
build) wanted="$build" ;;
test) wanted="$build $tests" ;;
ci) wanted="$build $tests $ci" ;;
bench) wanted="$build $bench" ;;
*) echo "usage: $0 [build|test|ci|bench]" >&2; exit 2 ;;
esac

# pkg-config became a name that pkgconf provides; nodejs and the JDK may come from elsewhere than Debian.
present() {
	case "$1" in
	pkg-config) command -v pkg-config >/dev/null && return 0 ;;
	default-jdk-headless) command -v javac >/dev/null && return 0 ;;
	nodejs) command -v node >/dev/null && return 0 ;;
	golang-go) command -v go >/dev/null && return 0 ;;
	esac
	return 1
}

missing_of() {
	installed=$(dpkg-query -W -f '${Package} ${Status}\n' "$@" 2>/dev/null |
		sed -n 's/ install ok installed$//p' || true)
	for package in "$@"; do
		case "
$installed
" in
		*"
$package
"*) ;;
		*) present "$package" || echo "$package" ;;
		esac
	done
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		env DEBIAN_FRONTEND=noninteractive "$@"
	elif command -v sudo >/dev/null; then
		sudo env DEBIAN_FRONTEND=noninteractive "$@"
	else
		echo "install-deps: need root or sudo to install: $missing" >&2
		exit 1
	fi
}

if ! command -v dpkg-query >/dev/null; then
	echo "install-deps: no dpkg here: install by hand what README.md lists" >&2
	exit 0
fi

# The Java runtime's post-install wants the directory that slim images cut away.
install() {
	missing=$1
	echo "install-deps: installing" $missing >&2
	as_root apt-get update -q </dev/null >&2
	as_root mkdir -p /usr/share/man/man1
	# shellcheck disable=SC2086
	as_root apt-get install -q -y --no-install-recommends $missing </dev/null >&2
}

# shellcheck disable=SC2086
missing=$(missing_of $wanted)
[ -z "$missing" ] || install "$missing"

# The sanitizer runtime of clang is a package with the version in its name, where it is one at all.
if [ "${1:-build}" = ci ]; then
	version=$(clang -dumpversion | cut -d. -f1)
	missing=$(missing_of "libclang-rt-$version-dev")
	if [ -n "$missing" ] && apt-cache show "$missing" >/dev/null 2>&1; then
		install "$missing"
	fi
fi
