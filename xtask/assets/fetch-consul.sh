#!/bin/sh
# Brings Debian 11's Consul into a cache directory and prints the path of its binary. Nothing of the system changes:
# apt runs with its own sources, state and cache below that directory. A second call finds what the first one brought.
set -eu

cache=${1:?usage: fetch-consul.sh CACHE_DIRECTORY}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
binary=$cache/consul/usr/bin/consul
if [ -x "$binary" ]; then
    echo "$binary"
    exit 0
fi

# The mirror that this system itself uses; both forms of apt's sources.
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
    sed -n -e 's/^URIs: *\([^ ]*\/debian\)\/* *$/\1/p' -e 's/^deb  *\(\[[^]]*\]  *\)*\([^ ]*\/debian\)\/*  *.*/\2/p' | head -n 1)
mirror=${mirror:-http://deb.debian.org/debian}

apt=$cache/apt
rm -rf "$apt"
mkdir -p "$apt/lists/partial" "$apt/archives/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bullseye main" >"$apt/sources.list"
set -- -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt" -o Dir::Cache::archives="$apt/archives" \
    -o Acquire::Languages=none -o APT::Sandbox::User=root -o Acquire::Retries=3

echo "fetching Consul of Debian 11 from $mirror into $cache" >&2
apt-get "$@" update >&2
(cd "$apt" && apt-get "$@" download consul >&2)
rm -rf "$cache/consul.new"
dpkg-deb -x "$apt"/consul_*.deb "$cache/consul.new"
rm -rf "$cache/consul"
mv "$cache/consul.new" "$cache/consul"
rm -rf "$apt"
echo "$binary"
