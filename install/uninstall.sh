#!/bin/sh
# Removes a Leoflow Lite whose program is missing or does not run; otherwise use `leoflow uninstall`.
# Your data stays: datastore, config, task logs, backups, workspace. The whole script is one command between braces, as
# in install.sh, so a truncated download does nothing.
{
set -eu

SCRIPT=uninstall.sh

usage() {
    cat <<EOT
Removes Leoflow Lite from a home whose program is missing or does not run. Your data stays.

  sh uninstall.sh [--home DIR] [--purge] [--yes]

  --home DIR   the home [default: ~/.leoflow] (LEOFLOW_HOME)
  --purge      also remove the data: everything in the home; the workspace stays
  --yes        skip the confirmation prompt

Exit codes: 0 done, 1 failed or declined, 2 wrong usage, 3 refused to protect data.
EOT
}

# scripts/release puts the text of common.sh here: the script of a release is one file.
# shellcheck source=install/common.sh
. "$(dirname -- "$0")/common.sh"

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
                [ $# -ge 2 ] || fail_usage "--home needs a value"
                home=$2
                shift
                ;;
            *) fail_usage "unknown option $1" ;;
        esac
        shift
    done
    if [ -z "$home" ]; then
        [ -n "${HOME:-}" ] || fail "HOME is not set" "specify a folder: --home DIR"
        home=$HOME/.leoflow
    fi
}

# True for a home of Leoflow, so that a folder given by mistake is refused.
is_leoflow_home() {
    [ -f "$home/setup.json" ] || [ -f "$home/managed-postgres/credentials.json" ]
}

# Prints the pid of the process that holds the home's lock.
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

# An interrupted operation may have left the data between two states; only the journal describes how to finish it.
refuse_interrupted() {
    if [ -e "$home/run/journal.json" ] && [ "$purge" = no ]; then
        refuse "an operation was interrupted and is not finished: $home/run/journal.json" "install Leoflow again; its next start finishes the operation" "or remove everything: --purge"
    fi
}

refuse_running() {
    pid=$(holder)
    if [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; then
        # The pid may belong to another process by now.
        if command_of "$pid" | grep -q leoflow; then
            refuse "Leoflow is running (pid $pid)" "stop it: kill $pid"
        fi
    fi
    postmaster=$(head -n 1 "$home/managed-postgres/data/postmaster.pid" 2>/dev/null || :)
    if [ -n "$postmaster" ] && command_of "$postmaster" | grep -q postgres; then
        refuse "its PostgreSQL is running (pid $postmaster)" "stop it: kill -INT $postmaster"
    fi
}

# confirm QUESTION: ends the script unless the user confirms
confirm() {
    [ "$yes" = yes ] || can_ask || refuse "this needs confirmation, and there is no terminal to ask on" "add --yes"
    ask "$1" || {
        say "Nothing was changed."
        exit 1
    }
}

# Removes the lines that the installation added to shell startup files; they end in "# added by leoflow".
clean_shell_files() {
    for file in "${HOME:-/nonexistent}"/.profile "${HOME:-/nonexistent}"/.bashrc "${HOME:-/nonexistent}"/.bash_profile "${HOME:-/nonexistent}"/.zshrc "${HOME:-/nonexistent}"/.config/fish/conf.d/leoflow.fish; do
        if [ -f "$file" ] && grep -q '# added by leoflow$' "$file"; then
            real=$(readlink -f "$file" 2>/dev/null || printf '%s' "$file")
            copy=$real.leoflow-$$
            # cp -p keeps owner and mode; the rename replaces the file only when the copy is complete.
            cp -p -- "$real" "$copy"
            grep -v "$home/bin.*# added by leoflow\$" "$real" >"$copy" || [ $? -eq 1 ] || {
                rm -f -- "$copy"
                fail "cannot write $file" "free some space, then run this again"
            }
            mv -f -- "$copy" "$real"
            say "Removed Leoflow's line from $file"
        fi
    done
}

main() {
    parse "$@"
    [ -d "$home" ] || fail "$home does not exist" "specify the folder: --home DIR"
    home=$(CDPATH='' cd -- "$home" && pwd -P)
    case $home in
        / | "${HOME:-/}") refuse "$home is not a home of Leoflow" ;;
    esac
    is_leoflow_home || refuse "$home is not a home of Leoflow: it has neither setup.json nor credentials"
    refuse_running
    refuse_interrupted
    if [ "$purge" = yes ]; then
        confirm "Remove $home with all its data?"
        clean_shell_files
        rm -rf -- "$home"
        say "Removed $home; your workspace stays"
    else
        confirm "Your data stays. Remove the program from $home?"
        clean_shell_files
        for part in bin versions python venv venvs managed-postgres/install logs run upgrade; do
            rm -rf -- "${home:?}/$part"
        done
        say "Leoflow was removed; your data is in $home, and a new installation there uses it"
    fi
}

main "$@"
}
