#!/bin/sh
# Brings clients of the Vert.x event bus that tests play with into a cache directory: three from npm, one from PyPI.
# Versions are pinned and checksums checked. A second call finds what the first one brought. Prints nothing but progress.
set -eu

cache=${1:?usage: fetch-bus-clients.sh CACHE_DIRECTORY}
assets=$(cd "$(dirname "$0")/bus-clients" && pwd)
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

# Two runs at once: the second waits.
exec 9>"$cache/lock"
flock 9

wanted=$(cat "$assets"/* | sha256sum | cut -c1-16)
[ -e "$cache/done-$wanted" ] && exit 0
rm -rf "$cache"/done-* "$cache/node_modules" "$cache/vertx"
echo "fetching clients of the event bus from npm and PyPI" >&2
cp "$assets/package.json" "$assets/package-lock.json" "$cache"
(cd "$cache" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
/usr/bin/python3 -m venv "$cache/vertx" >&2
"$cache/vertx/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-build-isolation --require-hashes \
    --requirement "$assets/python.txt" >&2
touch "$cache/done-$wanted"
