#!/bin/sh
# Installs what the lab and the tests need from Debian; says what before doing it.
# DROVER_NO_INSTALL=1 lists it and stops instead.
set -eu

command -v go >/dev/null || { echo "prerequisites: Go is missing: install it from your usual source (see go.mod for the version)" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "prerequisites: must be run as root (now uid $(id -u)): the lab makes namespaces and loads eBPF programs" >&2; exit 1; }

missing=
need() { # COMMAND PACKAGE
	command -v "$1" >/dev/null || missing="$missing $2"
}
need debootstrap debootstrap
need git git
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
[ -z "$missing" ] && exit 0

echo "prerequisites: these Debian packages are missing and will be installed:$missing"
if [ -n "${DROVER_NO_INSTALL:-}" ]; then
	echo "prerequisites: DROVER_NO_INSTALL is set: nothing was installed; install them and try again" >&2
	exit 1
fi
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
