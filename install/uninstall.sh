#!/bin/sh
# Removes a Leoflow Lite whose program is gone or does not run; with a program that runs,
# `leoflow uninstall` does this better. Your data stays: datastore, config, task logs, backups, workspace.
set -eu

usage() {
    cat <<EOT
Removes Leoflow Lite from a home whose program is gone.

  sh uninstall.sh [--home DIR] [--purge] [--yes]

  --home DIR   instead of ~/.leoflow (LEOFLOW_HOME)
  --purge      the data too, everything in that folder; the workspace stays
  --yes        do not ask
EOT
}

say() {
    printf '%s\n' "$*" >&2
}

fail() {
    say "error: $1"
    shift
    for hint in "$@"; do
        say "hint: $hint"
    done
    exit 3
}

parse() {
    purge=no
    yes=no
    home=${LEOFLOW_HOME:-}
    while [ $# -gt 0 ]; do
        case $1 in
            --help | -h)
                usage
                exit 0
                ;;
            --purge) purge=yes ;;
            --yes | -y) yes=yes ;;
            --home)
                [ $# -ge 2 ] || fail "--home needs a value"
                home=$2
                shift
                ;;
            *)
                say "error: unknown option $1"
                say "hint: sh uninstall.sh --help"
                exit 2
                ;;
        esac
        shift
    done
    [ -n "$home" ] || home=${HOME:?HOME is not set: name the folder with --home}/.leoflow
}

# A folder that somebody named by mistake has none of this.
is_ours() {
    [ -f "$home/setup.json" ] || [ -f "$home/managed-postgres/credentials.json" ]
}

# What the lock file says of whoever has the home.
holder() {
    sed -n 's/.*"pid":\([0-9][0-9]*\).*/\1/p' "$home/run/lite.lock" 2>/dev/null | head -n 1
}

command_of() {
    if [ -r "/proc/$1/cmdline" ]; then
        tr '\0' ' ' <"/proc/$1/cmdline"
    else
        ps -o command= -p "$1" 2>/dev/null
    fi
}

# Data may be half way between two states, and only that file says where.
refuse_interrupted() {
    if [ -e "$home/run/journal.json" ] && [ "$purge" = no ]; then
        fail "something was interrupted there and is not finished: $home/run/journal.json" "install Leoflow again: its start finishes it" "or, for a purge, remove everything: --purge"
    fi
}

refuse_running() {
    pid=$(holder)
    if [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; then
        # The number may be another's by now.
        if command_of "$pid" | grep -q leoflow; then
            fail "Leoflow runs there, pid $pid" "stop it: kill $pid"
        fi
    fi
    postmaster=$(head -n 1 "$home/managed-postgres/data/postmaster.pid" 2>/dev/null || :)
    if [ -n "$postmaster" ] && command_of "$postmaster" | grep -q postgres; then
        fail "its PostgreSQL runs, pid $postmaster" "stop it: kill -INT $postmaster"
    fi
}

ask() {
    [ "$yes" = no ] || return 0
    (: </dev/tty) 2>/dev/null || fail "this has to be confirmed, and there is no terminal to ask on" "add --yes"
    printf '%s [y/N] ' "$1" >&2
    read -r answer </dev/tty || return 1
    case $answer in
        y | Y | yes) return 0 ;;
    esac
    return 1
}

# The lines that an installation has put there end in our mark.
clean_shell_files() {
    for file in "${HOME:-/nonexistent}"/.profile "${HOME:-/nonexistent}"/.bashrc "${HOME:-/nonexistent}"/.bash_profile "${HOME:-/nonexistent}"/.zshrc "${HOME:-/nonexistent}"/.config/fish/conf.d/leoflow.fish; do
        if [ -f "$file" ] && grep -q '# added by leoflow$' "$file"; then
            real=$(readlink -f "$file" 2>/dev/null || printf '%s' "$file")
            copy=$real.leoflow-$$
            # With its owner and mode; whole or not at all.
            cp -p -- "$real" "$copy"
            grep -v "$home/bin.*# added by leoflow\$" "$real" >"$copy" || [ $? -eq 1 ] || {
                rm -f -- "$copy"
                fail "$file cannot be written" "free some space, then run this again"
            }
            mv -f -- "$copy" "$real"
            say "took our line out of $file"
        fi
    done
}

main() {
    parse "$@"
    [ -d "$home" ] || fail "$home is not there" "name the folder: --home DIR"
    home=$(CDPATH='' cd -- "$home" && pwd -P)
    case $home in
        / | "${HOME:-/}") fail "$home is no home of Leoflow's" ;;
    esac
    is_ours || fail "$home is no home of Leoflow's: it has neither setup.json nor credentials"
    refuse_running
    refuse_interrupted
    if [ "$purge" = yes ]; then
        ask "Remove $home with all of its data?" || exit 1
        clean_shell_files
        rm -rf -- "$home"
        say "$home is gone; your workspace stays"
    else
        ask "Remove the program from $home? Your data stays." || exit 1
        clean_shell_files
        for part in bin versions python venv venvs managed-postgres/install logs run upgrade; do
            rm -rf -- "${home:?}/$part"
        done
        say "Leoflow is removed; your data is in $home, and an installation into it finds it"
    fi
}

main "$@"
