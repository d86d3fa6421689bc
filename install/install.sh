#!/bin/sh
# Installs Leoflow Lite @VERSION@ for this user: no sudo, no files outside the home (~/.leoflow). Upgrades an existing
# install after a backup. The whole script is one command between braces, so a truncated download does nothing.
{
set -eu

SCRIPT=install.sh
VERSION='@VERSION@'
BASE_URL='@BASE_URL@'
# The oldest glibc that the program runs with; `scripts/release` builds for it.
GLIBC=2.28
# kind target file sha256 size
FILES='@FILES@'

usage() {
    cat <<EOT
Installs Leoflow Lite $VERSION, or upgrades an existing install after a backup.

  curl -fsSL URL/install.sh | sh
  curl -fsSL URL/install.sh | sh -s -- --yes --home DIR
  sh install.sh [--yes] [--no-setup] [--version V] [--channel stable|rc] [--home DIR] [--no-modify-path]

  --yes               answer yes to every prompt
  --no-setup          install the program only (LEOFLOW_NO_SETUP=1)
  --version V         install another release (LEOFLOW_VERSION)
  --channel C         install the newest release of stable or rc (LEOFLOW_CHANNEL)
  --home DIR          the home [default: ~/.leoflow] (LEOFLOW_HOME)
  --base-url URL      where to find releases: https://, file:// or a folder (LEOFLOW_BASE_URL)
  --no-modify-path    do not change shell startup files

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused to protect data; otherwise the one of the leoflow command that
the script runs.
EOT
}

# scripts/release puts the text of common.sh here: the script of a release is one file.
# shellcheck source=install/common.sh
. "$(dirname -- "$0")/common.sh"

has() {
    command -v "$1" >/dev/null 2>&1
}

parse() {
    yes=no
    modify_path=ask
    setup=yes
    [ -z "${LEOFLOW_NO_SETUP:-}" ] || setup=no
    wanted=${LEOFLOW_VERSION:-}
    channel=${LEOFLOW_CHANNEL:-}
    home=${LEOFLOW_HOME:-}
    base=${LEOFLOW_BASE_URL:-}
    while [ $# -gt 0 ]; do
        case $1 in
            --help | -h)
                usage
                exit 0
                ;;
            --yes | -y) yes=yes ;;
            --no-setup) setup=no ;;
            --no-modify-path) modify_path=no ;;
            --version | --channel | --home | --base-url)
                [ $# -ge 2 ] || fail_usage "$1 needs a value"
                case $1 in
                    --version) wanted=$2 ;;
                    --channel) channel=$2 ;;
                    --home) home=$2 ;;
                    --base-url) base=$2 ;;
                esac
                shift
                ;;
            *) fail_usage "unknown option $1" ;;
        esac
        shift
    done
    wanted=${wanted#v}
    if [ -z "$home" ]; then
        [ -n "${HOME:-}" ] || fail "HOME is not set" "specify a folder: --home DIR"
        home=$HOME/.leoflow
    fi
    case $home in
        /*) ;;
        *) home=$(pwd)/$home ;;
    esac
}

# Finds the release: beside the script when it runs as a file from a release folder, else at the published URL.
find_base() {
    if [ -z "$base" ]; then
        here=$(dirname -- "$0")
        line=$(file_of program)
        if [ -f "$0" ] && [ -f "$here/${line%% *}" ]; then
            base=$(CDPATH='' cd -- "$here" && pwd)
        else
            base=$BASE_URL
        fi
    fi
    base=${base%/}
    [ -n "$base" ] || fail "this script does not know where to find its release" "add --base-url URL_OR_FOLDER"
    # A proxy would resolve localhost to its own machine.
    no_proxy=${no_proxy:-${NO_PROXY:-}}
    no_proxy=${no_proxy:+$no_proxy,}localhost,127.0.0.1,::1
    NO_PROXY=$no_proxy
    export no_proxy NO_PROXY
}

# Sets $target to this machine's Rust target triple.
detect() {
    system=$(uname -s)
    machine=$(uname -m)
    case $machine in
        x86_64 | amd64) machine=x86_64 ;;
        aarch64 | arm64) machine=aarch64 ;;
    esac
    case $system in
        Linux)
            target=$machine-unknown-linux-gnu
            if is_musl; then
                target=$machine-unknown-linux-musl
            fi
            ;;
        Darwin)
            # An Intel terminal on Apple silicon reports an Intel machine.
            [ "$(sysctl -n hw.optional.arm64 2>/dev/null)" != 1 ] || machine=aarch64
            target=$machine-apple-darwin
            ;;
        *) target=$machine-$system ;;
    esac
    if ! file_of program >/dev/null; then
        fail "there is no release $VERSION for $target" "build it from source: cargo run --release -- lite"
    fi
    if [ "$system" = Darwin ]; then
        say "Leoflow is built and linked for Macs with Apple silicon, but we have never run it there."
        say "Please report what happens, with the output of: $home/bin/leoflow doctor --report"
    fi
    check_glibc
}

# Without getconf, running the program is the check.
check_glibc() {
    installed=$(getconf GNU_LIBC_VERSION 2>/dev/null) || return 0
    installed=${installed#glibc }
    major=${installed%%.*}
    minor=${installed#*.}
    minor=${minor%%.*}
    case $major$minor in
        '' | *[!0-9]*) return 0 ;;
    esac
    if [ "$major" -lt "${GLIBC%.*}" ] || { [ "$major" -eq "${GLIBC%.*}" ] && [ "$minor" -lt "${GLIBC#*.}" ]; }; then
        fail "this system has glibc $installed, and Leoflow needs $GLIBC or newer" \
            "use a newer system: RHEL 8, Debian 10, Ubuntu 20.04 and their successors have it"
    fi
}

is_musl() {
    # A machine with both C libraries runs the glibc build.
    for loader in /lib64/ld-linux-*.so.* /lib/ld-linux-*.so.*; do
        [ ! -e "$loader" ] || return 1
    done
    for loader in /lib/ld-musl-*; do
        [ ! -e "$loader" ] || return 0
    done
    return 1
}

# file_of KIND: prints file name, sha256 and size of this platform's file
file_of() {
    match=$(printf '%s\n' "$FILES" | sed -n "s/^$1 $target //p" | head -n 1)
    [ -n "$match" ] || return 1
    printf '%s\n' "$match"
}

# check_space FOLDER: fails unless the folder has enough free space: five times the size of the archives, for them and
# their unpacked files, and 200 MB for a new datastore
check_space() {
    total=0
    for kind in program postgres airflow-ui; do
        line=$(file_of $kind) || continue
        total=$((total + ${line##* }))
    done
    needed=$((total * 5 / 1024 + 204800))
    free=$(df -Pk "$1" 2>/dev/null | awk 'NR == 2 { print $4 }')
    case $free in
        '' | *[!0-9]*) return 0 ;;
    esac
    if [ "$free" -lt "$needed" ]; then
        fail "$1 has $((free / 1024)) MB free, but $((needed / 1024)) MB are needed" "free some space, or choose another folder: --home DIR"
    fi
}

# fetch NAME INTO: downloads or copies a file of the release
fetch() {
    case $base in
        http://* | https://*)
            has curl || has wget ||
                fail "neither curl nor wget is installed" "install one of them, or use a folder: --base-url FOLDER"
            for pause in 1 3 0; do
                ! download_by_curl "$base/$1" "$2" || return 0
                ! download_by_wget "$base/$1" "$2" || return 0
                sleep "$pause"
            done
            fail "cannot download $base/$1; the lines above say why" \
                "check the network connection, the proxy and the free space of $home" \
                "to install without a network: --base-url FOLDER"
            ;;
        *)
            folder=${base#file://}
            cp -- "$folder/$1" "$2" 2>/dev/null || fail "cannot read $folder/$1" "check that $folder is a release folder"
            ;;
    esac
}

# download_by_curl URL INTO: the shell writes the file, because a confined curl (a snap) may not write into a folder of
# the home whose name begins with a dot
download_by_curl() {
    has curl && curl -fsSL --connect-timeout 15 --speed-limit 1 --speed-time 60 "$1" >"$2"
}

# download_by_wget URL INTO
download_by_wget() {
    has wget || return 1
    # Busybox's wget has crashed on -T. GNU's prints no reason with -q, and tries 20 times by itself.
    if wget --version 2>/dev/null | grep -q 'GNU Wget'; then
        wget -nv --tries=1 --timeout=60 -O - "$1" >"$2"
    else
        wget -q -O - "$1" >"$2"
    fi
}

sha256_of() {
    if has sha256sum; then
        sha256sum <"$1" | cut -d ' ' -f 1
    elif has shasum; then
        shasum -a 256 <"$1" | cut -d ' ' -f 1
    elif has openssl; then
        openssl dgst -sha256 -r <"$1" | cut -d ' ' -f 1
    else
        fail "no program to compute a sha256 was found" "install coreutils, perl or openssl"
    fi
}

# fetch_checked KIND: fetches the file into the staging folder, verifies its sha256 and sets $file to its name
fetch_checked() {
    line=$(file_of "$1")
    file=${line%% *}
    rest=${line#* }
    expected=${rest%% *}
    say "Fetching $file"
    fetch "$file" "$stage/$file"
    found=$(sha256_of "$stage/$file")
    [ "$found" = "$expected" ] ||
        fail "$file has the wrong sha256: $found instead of $expected" "nothing was changed; download install.sh again from the release page"
}

clean_up() {
    [ -z "${stage:-}" ] || rm -rf -- "$stage"
    # rmdir removes the home only when it is empty, so only when nothing was installed.
    [ -z "${made_home:-}" ] || rmdir -- "$home" 2>/dev/null || :
}

# Refuses a folder with files of other programs: an uninstall could not distinguish them from Leoflow's.
check_home() {
    [ -e "$home" ] || return 0
    [ -d "$home" ] || fail "$home is not a folder" "choose another one: --home DIR"
    [ -n "$(find -H "$home" -prune -user "$(id -u)" 2>/dev/null)" ] ||
        refuse "$home belongs to another user" "run this as its owner, or choose another folder: --home DIR"
    for mark in run/lite.lock run/journal.json managed-postgres/credentials.json managed-postgres/data/PG_VERSION; do
        [ ! -e "$home/$mark" ] || return 0
    done
    if grep -q receipt_version "$home/setup.json" 2>/dev/null; then
        return 0
    fi
    for mark in "$home"/versions/*/leoflow; do
        [ ! -e "$mark" ] || return 0
    done
    for entry in "$home"/* "$home"/.[!.]* "$home"/..?*; do
        case ${entry##*/} in
            config.yaml | lost+found | .install-* | backups | task-logs) continue ;;
        esac
        if [ -e "$entry" ] || [ -L "$entry" ]; then
            refuse "$home is in use for something else ($entry)" "nothing was changed; choose a new or empty folder: --home DIR"
        fi
    done
}

make_stage() {
    made_home=
    if [ ! -d "$home" ]; then
        if ! mkdir -p -- "$home" || ! chmod 700 "$home"; then
            fail "cannot create $home" "choose another folder: --home DIR"
        fi
        made_home=yes
    fi
    stage=
    trap clean_up EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    stage=$(mktemp -d "$home/.install-XXXXXX") || fail "cannot write to $home" "choose another folder: --home DIR"
}

# Removes staging folders older than a day, left by killed scripts.
remove_old_stages() {
    for old in "$home"/.install-*; do
        [ ! -d "$old" ] || find "$old" -prune -mmin +1440 -exec rm -rf {} + 2>/dev/null || :
    done
}

# True when the home has a datastore and a program that runs. If only the program is missing, this script installs it
# and `leoflow setup` uses the existing data.
is_installed() {
    [ -d "$home/managed-postgres/data" ] && "$home/bin/leoflow" version >/dev/null 2>&1
}

# run PROGRAM ARGUMENTS: runs it with the terminal as stdin, if there is one, for its prompts
run() {
    if [ -t 0 ] || [ "$yes" = yes ] || ! can_ask; then
        "$@"
    else
        "$@" </dev/tty
    fi
}

# Moves the staged release to versions/: a new version by one rename, a repaired one file by file.
place() {
    versions=$home/versions
    mkdir -p -- "$versions"
    chmod 700 "$versions"
    if [ -d "$versions/$VERSION" ]; then
        mv -f -- "$stage/release/leoflow" "$versions/$VERSION/leoflow"
        [ ! -d "$stage/release/python-packages" ] || [ -d "$versions/$VERSION/python-packages" ] ||
            mv -- "$stage/release/python-packages" "$versions/$VERSION/python-packages"
        for archive in "$stage"/release/*.tar.zst; do
            [ ! -f "$archive" ] || mv -f -- "$archive" "$versions/$VERSION/${archive##*/}"
        done
    else
        mv -- "$stage/release" "$versions/$VERSION"
        # If a concurrent installer created the folder first, mv moved the staged release into that identical folder.
        rm -rf -- "$versions/$VERSION/release"
    fi
}

link() {
    mkdir -p -- "$home/bin"
    chmod 700 "$home/bin"
    for name in leoflow leoflow-server leoflow-agent; do
        ln -s "../versions/$VERSION/leoflow" "$stage/$name"
        mv -f -- "$stage/$name" "$home/bin/$name"
    done
}

# Prints the requested version or channel, if it is not the version of this script.
other_release() {
    if [ -n "$wanted" ] && [ "$wanted" != "$VERSION" ]; then
        printf '%s' "$wanted"
    elif [ -z "$wanted" ] && [ -n "$channel" ]; then
        printf '%s' "$channel"
    fi
}

set_up() {
    options=
    if [ "$modify_path" != no ] && ! on_path && ask "Add $home/bin to your PATH in your shell's startup files?"; then
        options=--modify-path
    fi
    # Without a terminal, setup does not prompt.
    run "$home/bin/leoflow" --home "$home" setup $options || return $?
    rm -f -- "$home/versions/"*/postgres-*.tar.zst
    # Keep the UI's archive when it is not unpacked yet; the server tries again.
    for ui in "$home/ui"/*; do
        [ ! -d "$ui" ] || rm -f -- "$home/versions/"*/airflow-ui-*.tar.zst
    done
}

# Sets the channel for later `leoflow upgrade`s.
remember_channel() {
    [ -z "$channel" ] || "$home/bin/leoflow" --home "$home" set-channel "$channel" >/dev/null
}

on_path() {
    case :${PATH:-}: in
        *:"$home/bin":*) return 0 ;;
    esac
    return 1
}

print_next_steps() {
    on_path || say "To put leoflow on your PATH:  export PATH=\"$home/bin:\$PATH\""
    say "Next:  $home/bin/leoflow lite"
}

# True when this release is already installed; the script then repairs it.
is_same() {
    [ -z "$other" ] && [ "$(readlink "$home/bin/leoflow" 2>/dev/null)" = "../versions/$VERSION/leoflow" ]
}

main() {
    parse "$@"
    case $VERSION in
        @*) fail "this is the installer's template" "build an installer with scripts/release" ;;
    esac
    umask 077
    detect
    find_base
    check_home
    existing=$home
    while [ ! -d "$existing" ]; do
        existing=$(dirname -- "$existing")
    done
    check_space "$existing"
    make_stage
    remove_old_stages

    fetch_checked program
    mkdir "$stage/release"
    tar -xzf "$stage/$file" -C "$stage/release" || fail "cannot unpack $file"
    mv -- "$stage/release/leoflow-$VERSION" "$stage/unpacked"
    rmdir "$stage/release"
    mv -- "$stage/unpacked" "$stage/release"
    "$stage/release/leoflow" version >/dev/null || fail "the program does not run on this machine" "check that the file system of $home is not mounted noexec"

    other=$(other_release)
    if is_installed && ! is_same; then
        options=
        [ "$yes" = no ] || options=--yes
        code=0
        run "$stage/release/leoflow" --home "$home" upgrade "${other:-$VERSION}" --from "$base" $options || code=$?
        [ "$code" != 0 ] || remember_channel
        exit "$code"
    fi
    if [ -n "$other" ]; then
        code=0
        run "$stage/release/leoflow" --home "$home" upgrade "$other" --from "$base" --yes --install || code=$?
        [ "$code" = 0 ] || exit "$code"
    else
        for component in postgres airflow-ui; do
            if file_of $component >/dev/null; then
                fetch_checked $component
                mv -- "$stage/$file" "$stage/release/$file"
            fi
        done
        place
        link
    fi
    made_home=
    if [ "$setup" = yes ]; then
        set_up
        remember_channel
    else
        print_next_steps
    fi
}

main "$@"
}
