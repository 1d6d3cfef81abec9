#!/usr/bin/env bash
# Runs the commands of README.md: every ```sh block, in order, in a scratch copy of the tree.
#
# The line before a block says how: <!-- test[ full][ needs DATA]...[: SED SCRIPT] -->
#   full        only under NC_FULL=1
#   needs DATA  only where $NC_DATA/DATA is
#   SED SCRIPT  makes hours into seconds: what is run is the block after this substitution
# Real output is shown in ```text blocks, which are not run. A ```sh block without the line fails.
cd "$(dirname "$0")/.." || exit 2
. tests/script.sh

# The tree by links, so that run/ and the build are the test's own.
tree=$work/neurocuda
mkdir "$tree"
for entry in * .ci; do
    case $entry in build* | run) ;; *) ln -s "$PWD/$entry" "$tree/$entry" ;; esac
done
ln -s "${NC_BUILD:?names the build to use}" "$tree/build"

# block LINE MARKER TEXT
block() {
    local name="README.md:$1" marker=$2 text=$3 words script data said
    if [[ ! $marker =~ ^\<!--\ test([^:]*)(:\ (.*))?\ --\>$ ]]; then
        fail "$name" "the line before this block does not say how to test it"
        return
    fi
    words=(${BASH_REMATCH[1]}) script=${BASH_REMATCH[3]:-}
    while [ ${#words[@]} -gt 0 ]; do
        case ${words[0]} in
            full)
                [ "${NC_FULL:-}" = 1 ] || { skip "$name" 'only with --full' && return; }
                words=("${words[@]:1}")
                ;;
            needs)
                data=${words[1]}
                [ -d "${NC_DATA:-/nonexistent}/$data" ] ||
                    { skip "$name" "NC_DATA has no $data" && return; }
                words=("${words[@]:2}")
                ;;
            *) fail "$name" "unknown word in its marker: ${words[0]}" && return ;;
        esac
    done
    text=$(sed "$script" <<<"$text") || { fail "$name" "its sed script: $script" && return; }
    # This script is run by the one command of the README that would never end.
    text=$(grep -vE '^(git clone|cd neurocuda|bash tests/run\.sh)' <<<"$text")
    if said=$(cd "$tree" && bash -euo pipefail -c "$text" 2>&1 </dev/null); then
        pass "$name"
    else
        fail "$name" "$text"$'\n'"$said"
    fi
}

line=0 marker='' previous='' text='' inside=''
while IFS= read -r row; do
    line=$((line + 1))
    if [ -n "$inside" ]; then
        if [ "$row" = '```' ]; then
            [ "$inside" != sh ] || block "$start" "$marker" "$text"
            inside=''
        else
            text+=$row$'\n'
        fi
    elif [[ $row == '```'* ]]; then
        inside=${row#'```'} start=$line marker=$previous text=''
        inside=${inside:-text}
    fi
    previous=$row
done <README.md
[ -z "$inside" ] || fail "README.md" "a block is not closed"
finish
