#!/bin/sh
# Stands in for initdb in most tests: copies a cluster that the real one made with the same options and sets the
# requested password. The real initdb takes half of the time that a test's home needs.
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
    new=$cluster.$$
    # shellcheck disable=SC2086  # Leoflow's options contain no spaces.
    "$bin/real-initdb" --pgdata "$new" --pwfile "$pwfile" $options
    # Another test may have created the cluster meanwhile.
    mv -T "$new" "$cluster" 2>/dev/null || rm -rf "$new"
fi
cp -R "$cluster/." "$pgdata"
# Leoflow's passwords contain no quotes.
printf "ALTER ROLE postgres PASSWORD '%s'\n" "$(cat "$pwfile")" |
    "$bin/postgres" --single -D "$pgdata" postgres >/dev/null 2>&1
