#!/bin/sh
# Makes the images of stack.yml from the program, without a registry: images.sh PROGRAM. DOCKER_HOST says where.
set -e
program=$(realpath "$1")
program=${program#/}
# The libraries of a program that is not linked statically.
libraries=$(ldd "/$program" 2>/dev/null | grep -o '/[^ ]*' | sed 's,^/,,' || true)
image() {
    name=$1 role=$2
    shift 2
    for value; do set -- "$@" --change "$value"; shift; done
    # shellcheck disable=SC2086 # one argument for each library
    tar -chC / --transform "s,^$program\$,voting," "$program" $libraries |
        docker import "$@" --change "ENTRYPOINT [\"/voting\"]" --change "CMD [\"$role\"]" - "$name" >/dev/null
}
check() { echo "HEALTHCHECK --interval=1s CMD [\"/voting\", \"check\", \"$1\"]"; }
options="OPTION_A=Java OPTION_B=.NET"
image voting-redis queue "ENV PORT=6379" "$(check 6379)"
image voting-db store "ENV PORT=5432 DATA=/var/lib/postgresql/data/votes" "$(check 5432)"
image voting-worker worker "ENV QUEUE=redis:6379 STORE=db:5432"
image voting-vote:before vote "ENV QUEUE=redis:6379" "$(check 80)"
image voting-vote:after vote "ENV QUEUE=redis:6379 $options" "$(check 80)"
image voting-result:before result "ENV STORE=db:5432" "$(check 80)"
image voting-result:after result "ENV STORE=db:5432 $options" "$(check 80)"
