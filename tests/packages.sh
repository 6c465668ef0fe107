#!/bin/sh
# The Debian packages that the tests use. Installs what is missing when it may; otherwise says what to install.
set -eu
missing=""
command -v sftp >/dev/null || missing="$missing openssh-client"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "installing$missing"
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of names
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "Some tests need these Debian packages and are skipped without them:$missing" >&2
fi
