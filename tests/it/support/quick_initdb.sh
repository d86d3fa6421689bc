#!/bin/sh
# Stands in for initdb in most tests: copies a cluster that the real one made with the same options, and gives it the
# password asked for. Half of what a test's home costs is this.
set -eu

bin=$(dirname "$0")
options=""
while [ $# -gt 0 ]; do
    case $1 in
    --pgdata) pgdata=$2 && shift ;;
    --pwfile) pwfile=$2 && shift ;;
    *) options="$options $1" ;;
    esac
    shift
done

cluster=$bin/../cluster-$(printf '%s' "$options" | cksum | cut -d ' ' -f 1)
if [ ! -d "$cluster" ]; then
    made=$cluster.$$
    # shellcheck disable=SC2086  # No option of ours holds a space.
    "$bin/real-initdb" --pgdata "$made" --pwfile "$pwfile" $options
    # Another test may have been first.
    mv -T "$made" "$cluster" 2>/dev/null || rm -rf "$made"
fi
cp -R "$cluster/." "$pgdata"
# A password of ours holds no quote.
printf "ALTER ROLE postgres PASSWORD '%s'\n" "$(cat "$pwfile")" |
    "$bin/postgres" --single -D "$pgdata" postgres >/dev/null 2>&1
