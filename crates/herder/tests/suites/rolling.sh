#!/usr/bin/env bash
# Five nodes (three managers) are upgraded from one release to another and back, one after the other, while services are created, scaled,
# updated and removed. Usage, as root: [HOSTS=3] rolling.sh OLD-BINARY NEW-BINARY. Ends with 0 if nothing was lost and all managers agree.
set -uo pipefail
old=$(realpath "$1"); new=$(realpath "$2"); lab=releases; hosts=${HOSTS:-5}
run=/run/herder-lab/$lab; work=$(mktemp -d)
say() { echo "$(date +%T) $*"; }
in_host() { local host=$1; shift; "$old" lab exec --name $lab "h$host" "$@"; }
address() { in_host "$1" ip -4 -o addr show | awk '$2 != "lo" {sub("/.*", "", $4); print $4; exit}'; }
door() { local host=$1; shift; timeout 30 docker -H "unix://$run/h$host/herder.sock" "$@"; }
end() { for h in $(seq $hosts); do stop "$h"; done 2>/dev/null; "$old" lab down --name $lab >/dev/null 2>&1; rm -rf "$work"; }

start() { # HOST BINARY [up's further arguments]
    local h=$1 binary=$2; shift 2
    in_host "$h" sh -c 'echo $$ >'"$run/h$h/herder.pid"'; exec "$@"' sh "$binary" up --state "$work/h$h" --socket "$run/h$h/herder.sock" \
        --engine "unix://$run/h$h/docker.sock" --advertise "${ip[$h]}" "$@" >>"$work/h$h.log" 2>&1 </dev/null &
    for _ in $(seq 300); do door "$h" version >/dev/null 2>&1 && return; sleep 0.2; done
    say "h$h does not answer: $(tail -2 "$work/h$h.log")"; return 1
}
stop() {
    local pid; pid=$(cat "$run/h$1/herder.pid") || return
    in_host "$1" kill -TERM "$pid"
    for _ in $(seq 100); do in_host "$1" kill -0 "$pid" 2>/dev/null || return 0; sleep 0.2; done
    in_host "$1" kill -KILL "$pid"
}

failed=0
fail() { say "FAILED $*"; failed=1; }
# Whatever door is there: a client goes on with another one when its own is being upgraded.
any() { local h; for h in 1 2 3; do door $h "$@" 2>"$work/error" && return 0; done; return 1; }

declare -A wanted
run_in_task='trap "exit 0" TERM; while true; do sleep 0.5; done'
load() { # one change, written down if it was acknowledged
    local n=$1 name="s$(( $1 % 6 ))" replicas=$(( 1 + RANDOM % 3 ))
    if [ -z "${wanted[$name]:-}" ]; then
        any service create -d --no-resolve-image --name "$name" --label "round=$n" --replicas $replicas busybox sh -c "$run_in_task" >/dev/null \
            && wanted[$name]="$replicas $n"
    elif [ $(( n % 11 )) = 0 ]; then
        any service rm "$name" >/dev/null && unset "wanted[$name]"
    else
        any service update -d --no-resolve-image --label-add "round=$n" --replicas $replicas --env-add "ROUND=$n" "$name" >/dev/null \
            && wanted[$name]="$replicas $n"
    fi || say "change $n of $name: $(head -c 200 "$work/error")"
}
check() { # every acknowledged change is there at each manager, and what is declared runs
    local name h is
    for name in "${!wanted[@]}"; do
        for h in 1 2 3; do
            for _ in $(seq 150); do
                is=$(door $h service inspect "$name" --format '{{.Spec.Mode.Replicated.Replicas}} {{.Spec.Labels.round}}' 2>&1)
                [ "$is" = "${wanted[$name]}" ] && break; sleep 0.2
            done
            [ "$is" = "${wanted[$name]}" ] || fail "$1: $name at h$h is '$is', acknowledged '${wanted[$name]}'"
        done
        for _ in $(seq 300); do
            is=$(door 1 service ls --filter "name=$name" --format '{{.Replicas}}' 2>&1)
            [ "$is" = "${wanted[$name]%% *}/${wanted[$name]%% *}" ] && break; sleep 0.2
        done
        [ "$is" = "${wanted[$name]%% *}/${wanted[$name]%% *}" ] || fail "$1: $name runs $is of ${wanted[$name]%% *}"
    done
    say "$1: ${#wanted[@]} services as declared; $(door 1 node ls --format '{{.Hostname}} {{.Status}} {{.ManagerStatus}}' | tr '\n' ',')"
}
seen() { # HOST WHAT: what a manager answers, without what a manager adds of its own
    timeout 10 curl -s --unix-socket "$run/h$1/herder.sock" "http://x/v1.44/$2" | python3 -c '
import json, sys
for it in sorted(json.load(sys.stdin), key=lambda it: it["ID"]):
    for own in "ManagerStatus", "FeatureLevel":
        it.pop(own, None)
    print(json.dumps(it, sort_keys=True))' >"$work/$2.$1"
}
same() { # all managers answer the same, once updates that are under way have ended
    local what h try
    for what in services nodes secrets configs; do
        for try in $(seq 40); do
            for h in 1 2 3; do seen $h $what; done
            cmp -s "$work/$what.1" "$work/$what.2" && cmp -s "$work/$what.1" "$work/$what.3" && continue 2
            sleep 0.5
        done
        fail "$1: the managers differ in $what"
        for h in 2 3; do diff <(tr , '\n' <"$work/$what.1") <(tr , '\n' <"$work/$what.$h") | head -20; done
    done
}

trap end EXIT
"$old" lab up --name $lab --hosts $hosts >/dev/null || exit 1
declare -A ip; for h in $(seq $hosts); do ip[$h]=$(address "$h"); done
start 1 "$old" || exit 1
token=$("$old" token --state "$work/h1")
for h in $(seq 2 $hosts); do start "$h" "$old" --join "${ip[1]}" --token "$token" || exit 1; done
door 1 swarm init --advertise-addr "${ip[1]}" >/dev/null || fail "swarm init: $(cat "$work/error")"
for _ in $(seq 100); do [ "$(door 1 node ls -q | wc -l)" = $hosts ] && break; sleep 0.2; done
for h in 2 3; do door 1 node promote "h$h" >/dev/null; done
for _ in $(seq 150); do [ "$(door 1 node ls --format '{{.ManagerStatus}}' | grep -cE 'Leader|Reachable')" = 3 ] && break; sleep 0.2; done
printf hidden | door 1 secret create pass - >/dev/null
n=0
for _ in $(seq 8); do load $((++n)); done
check "before"
for round in "upgrade $new" "downgrade $old"; do
    for h in $(seq 4 $hosts) 3 2 1; do
        stop "$h"; load $((++n)); load $((++n))
        start "$h" "${round#* }" || fail "${round%% *}: h$h does not start"
        load $((++n)); load $((++n))
    done
    check "after the ${round%% *}"; same "after the ${round%% *}"
    door 1 node inspect h1 2>/dev/null | grep -c FeatureLevel | sed 's/^/nodes that show a feature level: /'
done
say "$n changes, failed=$failed"
exit $failed
