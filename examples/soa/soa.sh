#!/bin/sh
# Starts one part of the demo: soa.sh host NAME IP:PORT | manage | apps | edge. See README.md.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

# Runs a program in the background: its log is in NAME.log, its process id in NAME.pid.
background() {
    part=$1
    shift
    "$@" >"$part.log" 2>&1 &
    echo $! >"$part.pid"
}

case ${1:-} in
host)
    name=$2 address=$3
    background "join-$name" herder join --advertise "$address" --heartbeat 5s --ttl 20s "consul://$CONSUL/swarm"
    background "registrator-$name" herder registrator -H "tcp://$address" -hostname "$name" -ip "${address%:*}" \
        -naming legacy-2015 -retry-attempts -1 -cleanup "consul://$CONSUL/services"
    ;;
manage)
    background manage herder manage -H "$ENDPOINT" --strategy random "consul://$CONSUL/swarm"
    ;;
apps)
    # The options stand apart in these variables, and are parted here.
    # shellcheck disable=SC2086
    {
        docker run -d $EXTERNAL_MASTER -e SERVICE_NAME=proxy -p 80:80 $IMAGE $COMMAND
        docker run -d $EXTERNAL_OTHER -e SERVICE_NAME=proxy -p 80:80 $IMAGE $COMMAND
        for _ in 1 2 3; do
            docker run -d $INTERNAL -e SERVICE_NAME=webapp -p 80 $IMAGE $COMMAND
        done
    }
    ;;
edge)
    printf 'events {}\nerror_log %s/nginx.log;\npid %s/nginx.pid;\nhttp {\n    access_log off;\n    include %s/services.conf;\n}\n' \
        "$PWD" "$PWD" "$PWD" >nginx.conf
    mkdir -p confd/conf.d
    cp -r "$here/confd/templates" confd
    sed "s|DIR|$PWD|g" "$here/confd/conf.d/nginx.toml" >confd/conf.d/nginx.toml
    background render-haproxy herder render -consul-addr "$CONSUL" \
        -template "$here/haproxy.ctmpl:haproxy.cfg:[ ! -e haproxy.pid ] || kill -USR2 \$(cat haproxy.pid)"
    background render-nginx herder render --confdir confd --backend consul --node "$CONSUL"
    ;;
*)
    sed -n 2p "$0" >&2
    exit 1
    ;;
esac
