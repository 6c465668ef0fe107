#!/bin/sh
# The Debian packages that the tests use. Installs what is missing when it may; otherwise says what to install.
set -eu
missing=""
need() { # need PACKAGE COMMAND-OR-FILE…: the package is missing if any of them is
    package=$1
    shift
    for thing in "$@"; do
        command -v "$thing" >/dev/null || [ -e "$thing" ] || { missing="$missing $package" && return; }
    done
}
need openssh-client sftp
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
need systemd systemd-analyze # lints deploy/*.service
# Clients of the gate, see tests/clients.
need curl curl
need lftp lftp
need putty-tools psftp pscp puttygen
need dropbear-bin dbclient dropbearconvert
need rclone rclone
need libnet-sftp-foreign-perl /usr/share/perl5/Net/SFTP/Foreign.pm
perl -MNet::SSH2 -e1 2>/dev/null || missing="$missing libnet-ssh2-perl"
ruby -e 'require "net/sftp"' 2>/dev/null || missing="$missing ruby-net-sftp"
need libjsch-java /usr/share/java/jsch.jar
need default-jdk-headless java javac
need npm node npm
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "installing$missing"
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of names
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends \
        $missing >/dev/null
else
    echo "Some tests need these Debian packages and are skipped without them:$missing" >&2
fi
