# The functions of both install.sh and uninstall.sh, which set SCRIPT and yes.
# shellcheck shell=sh disable=SC2154

say() {
    printf '%s\n' "$*" >&2
}

# report MESSAGE HINT...
report() {
    say "error: $1"
    shift
    for hint in "$@"; do
        say "hint: $hint"
    done
}

# fail MESSAGE HINT...
fail() {
    report "$@"
    exit 1
}

# fail_usage MESSAGE: reports invalid arguments
fail_usage() {
    report "$1" "sh $SCRIPT --help"
    exit 2
}

# refuse MESSAGE HINT...: fails to protect data, before anything was changed
refuse() {
    report "$@"
    exit 3
}

can_ask() {
    (: </dev/tty) 2>/dev/null
}

ask() {
    [ "$yes" = no ] || return 0
    can_ask || return 1
    printf '%s [y/N] ' "$1" >&2
    read -r answer </dev/tty || return 1
    case $answer in
        y | Y | yes) return 0 ;;
    esac
    return 1
}
