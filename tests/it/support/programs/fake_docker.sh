#!/bin/sh
# Stands in for docker (or podman, by its name): records its calls, keeps containers and volumes as folders below
# $FAKE_DOCKER, and starts PostgreSQL as the image would.
set -eu

state=$FAKE_DOCKER
bin=$FAKE_POSTGRES
echo "$*" >>"$state/calls"
as=""
# PostgreSQL refuses root; the image has a user of its own.
if [ "$(id -u)" = 0 ]; then
    as="unshare --user --map-user=65534 --map-group=65534"
fi

# A zombie still has its pid, but no executable.
runs() {
    readlink "/proc/$1/exe" >/dev/null 2>&1
}

fail() {
    echo "Error response from daemon: $1" >&2
    exit 1
}

[ ! -e "$state/down" ] && [ ! -e "$state/down-${0##*/}" ] || fail "Cannot connect to the Docker daemon"
case $1 in
version) echo 99.0 ;;
volume | container)
    kind=$1 verb=$2
    for last in "$@"; do :; done
    folder=$state/$kind-$last
    case $verb in
    create)
        mkdir "$folder"
        [ "$3" != --label ] || echo "${4#*=}" >"$folder/label"
        ;;
    inspect) [ -d "$folder" ] && cat "$folder/label" || fail "no such $kind: $last" ;;
    rm) [ ! -e "$state/keeps-volumes" ] && rm -r "$folder" || fail "remove $last: it is in use" ;;
    esac
    ;;
create)
    shift
    while [ $# -gt 0 ]; do
        case $1 in
        --name) folder=$state/container-$2 && mkdir "$folder" && shift ;;
        --label) echo "${2#*=}" >"$folder/label" && shift ;;
        --volume) echo "${2%%:*}" >"$folder/volume" && shift ;;
        --publish) echo "$2" >"$folder/published" && shift ;;
        --env) printf '%s=%s\n' "$2" "$(printenv "$2")" >>"$folder/env" && shift ;;
        --shm-size) shift ;;
        *) break ;;
        esac
        shift
    done
    echo "$*" >"$folder/run"
    ;;
start)
    folder=$state/container-$3
    data=$state/volume-$(cat "$folder/volume")/data
    port=$(cut -d : -f 2 "$folder/published")
    if [ ! -d "$data" ]; then
        mkdir -m 700 "$data"
        sed -n 's/^POSTGRES_PASSWORD=//p' "$folder/env" >"$folder/password"
        $as "$bin/initdb" --pgdata "$data" --pwfile "$folder/password" --username postgres --auth scram-sha-256 \
            --encoding UTF8 --locale C --locale-provider builtin --builtin-locale C.UTF-8 --data-checksums \
            --sync-method syncfs --no-instructions --no-clean
    fi
    echo $$ >"$folder/pid"
    exec $as "$bin/postgres" -D "$data" -c "port=$port" -c listen_addresses=127.0.0.1 -c fsync=off \
        -c "unix_socket_directories=$folder" -c shared_buffers=16MB
    ;;
stop)
    folder=$state/container-$4
    pid=$(cat "$folder/pid")
    kill -INT "$pid" 2>/dev/null || exit 0
    while runs "$pid"; do sleep 0.02; done
    ;;
rm)
    for last in "$@"; do :; done
    if [ -e "$state/container-$last/pid" ]; then
        pid=$(cat "$state/container-$last/pid")
        kill -QUIT "$pid" 2>/dev/null || true
        while runs "$pid"; do sleep 0.02; done
    fi
    rm -r "$state/container-$last"
    ;;
ps)
    # ps --all --filter volume=NAME --format …
    for folder in "$state"/container-*; do
        [ ! -e "$folder/volume" ] || [ "$(cat "$folder/volume")" != "${4#volume=}" ] || echo "${folder##*/container-}"
    done
    ;;
*) fail "unknown command $1" ;;
esac
