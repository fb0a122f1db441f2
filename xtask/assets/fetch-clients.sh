#!/bin/sh
# Brings clients of the Docker API that the scenarios play with into a cache directory: Compose v2 as Debian 13 has it,
# and docker-py from PyPI. Versions are pinned and checksums checked. Nothing of the system changes. A second call finds
# what the first one brought. Prints nothing but progress.
set -eu

cache=${1:?usage: fetch-clients.sh CACHE_DIRECTORY}
assets=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

# Two runs at once: the second waits.
exec 9>"$cache/lock"
flock 9

compose_version=2.26.1-4
compose=$cache/compose-$compose_version
if [ ! -x "$compose/docker-compose" ]; then
    architecture=$(dpkg --print-architecture)
    case $architecture in
    amd64) checksum=47681197cb2b1ab88206b42a1a92fc75f50d9530a6322d03494a473eed0408ea ;;
    arm64) checksum=bbafaa666f3e7fa00ad36f2a8bab889f1c791ca8743d674e7267a3d07203869c ;;
    *) echo "no checksum of Compose v2 is known for $architecture" >&2 && exit 1 ;;
    esac
    # The mirror that this system itself uses; both forms of apt's sources. What it dropped, the archive still has.
    mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
        sed -n -e 's/^URIs: *\([^ ]*\/debian\)\/* *$/\1/p' -e 's/^deb  *\(\[[^]]*\]  *\)*\([^ ]*\/debian\)\/*  *.*/\2/p' |
        head -n 1)
    file=pool/main/d/docker-compose/docker-compose_${compose_version}_$architecture.deb
    part=$cache/compose.deb
    for base in "${mirror:-http://deb.debian.org/debian}" https://snapshot.debian.org/archive/debian/20250801T000000Z; do
        echo "fetching Compose $compose_version from $base" >&2
        curl -fsSL --retry 3 --max-time 300 -o "$part" "$base/$file" && break
    done
    echo "$checksum  $part" | sha256sum --check --quiet >&2
    rm -rf "$cache/compose.new"
    dpkg-deb -x "$part" "$cache/compose.new"
    mkdir -p "$compose"
    mv "$cache/compose.new/usr/libexec/docker/cli-plugins/docker-compose" "$compose/docker-compose"
    rm -rf "$cache/compose.new" "$part"
fi
ln -sfn "$compose" "$cache/compose"

wanted=$(sha256sum "$assets/docker-py.txt" | cut -c1-16)
venv=$cache/docker-py-$wanted
if [ ! -e "$venv/done" ]; then
    echo "fetching docker-py from PyPI" >&2
    rm -rf "$venv"
    /usr/bin/python3 -m venv "$venv" >&2
    "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --require-hashes \
        --requirement "$assets/docker-py.txt" >&2
    touch "$venv/done"
fi
ln -sfn "$venv" "$cache/docker-py"
