#!/bin/sh
# The nine kinds of calls that MasterMind's scripts made, with bodies by jq and their content type, and two of its API.
#
# mastermind.sh DOOR ENGINE CERTIFICATES VERB NAME [COMPOSE-FILE VARIABLES FILE…]
#   VERB: create-network, delete-network, get-networks, create-volume, delete-volume, get-volumes, create-stack, delete-stack, get-stack,
#         get-cluster-info, post-networks (the API listed networks by a POST without a name)
# CERTIFICATES is a folder with ca.pem, cert.pem and key.pem, or empty.
set -eu
door=$1 engine=$2 certificates=$3 verb=$4 name=${5:-}
read_pem() { if [ -n "$certificates" ]; then cat "$certificates/$1"; fi; }
body=$(jq -n --arg name "$name" --arg url "$engine" --arg ca "$(read_pem ca.pem)" --arg cert "$(read_pem cert.pem)" \
    --arg key "$(read_pem key.pem)" '{name: $name, "engine-url": $url, "ca-cert": $ca, cert: $cert, "cert-key": $key}')
send() { curl -s -X "$1" "http://$door/v1$2" -H 'Content-Type: Application/json' -d "$body"; }
case $verb in
create-network) send POST /network ;;
delete-network) send DELETE /network/delete ;;
get-networks) send GET /network ;;
get-cluster-info) send POST /swarm ;;
post-networks)
    body=$(jq -n --argjson body "$body" '$body | del(.name)')
    send POST /network ;;
create-volume) send POST /volume ;;
delete-volume) send DELETE /volume/delete ;;
get-volumes) send GET /volume ;;
create-stack)
    file=$6 variables=$7
    shift 7
    files='[{}]'
    for path in "$@"; do
        files=$(jq -n --argjson all "$files" --arg name "${path##*/}" --arg text "$(cat "$path")" '$all + [{($name): $text}]')
    done
    body=$(jq -n --argjson body "$body" --arg file "$(cat "$file")" --arg variables "$variables" --argjson files "$files" \
        '$body + {"compose-file": $file, "compose-vars": $variables, external_files: $files}')
    send POST /stack ;;
delete-stack) send POST "/stack/delete/$name" ;;
get-stack) send POST "/stack/$name" ;;
*) echo "unknown verb $verb" >&2 && exit 2 ;;
esac
