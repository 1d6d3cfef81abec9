#!/usr/bin/env bash
# Fetches a data set: every file is checked against its published checksum before it gets its name.
set -uo pipefail

usage() {
    cat <<'END'
usage: datasets/fetch.sh SET [--from DIR|URL] [--to DIR]

SET is mnist, fashion-mnist, cifar10 or nmnist.
  --from DIR|URL  a folder or an address with files of the published names (also file://),
                  instead of the official places
  --to DIR        the data root, NC_DATA or ./data by default; the files go to DIR/SET

An interrupted download continues where it stopped when the command is given again. A file is
written as NAME.part and renamed once its checksum is right; one whose checksum is wrong is deleted.
NC_FETCH_MANIFEST names a file that replaces the list of files, checksums and addresses below.
Debian has Fashion-MNIST as the package dataset-fashion-mnist.
END
}

# SET FILE ALGORITHM:CHECKSUM ADDRESS...
manifest() {
    if [ -n "${NC_FETCH_MANIFEST:-}" ]; then
        cat -- "$NC_FETCH_MANIFEST"
        return
    fi
    local mnist=https://ossci-datasets.s3.amazonaws.com/mnist
    local mnist2=https://storage.googleapis.com/cvdf-datasets/mnist
    local fashion=https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion
    local fashion2=http://fashion-mnist.s3-website.eu-central-1.amazonaws.com
    local nmnist=https://data.mendeley.com/public-files/datasets/468j46mzdv/files
    cat <<END
mnist train-images-idx3-ubyte.gz sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609 $mnist/train-images-idx3-ubyte.gz $mnist2/train-images-idx3-ubyte.gz
mnist train-labels-idx1-ubyte.gz sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c $mnist/train-labels-idx1-ubyte.gz $mnist2/train-labels-idx1-ubyte.gz
mnist t10k-images-idx3-ubyte.gz sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6 $mnist/t10k-images-idx3-ubyte.gz $mnist2/t10k-images-idx3-ubyte.gz
mnist t10k-labels-idx1-ubyte.gz sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6 $mnist/t10k-labels-idx1-ubyte.gz $mnist2/t10k-labels-idx1-ubyte.gz
fashion-mnist train-images-idx3-ubyte.gz md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d $fashion/train-images-idx3-ubyte.gz $fashion2/train-images-idx3-ubyte.gz
fashion-mnist train-labels-idx1-ubyte.gz md5:25c81989df183df01b3e8a0aad5dffbe $fashion/train-labels-idx1-ubyte.gz $fashion2/train-labels-idx1-ubyte.gz
fashion-mnist t10k-images-idx3-ubyte.gz md5:bef4ecab320f06d8554ea6380940ec79 $fashion/t10k-images-idx3-ubyte.gz $fashion2/t10k-images-idx3-ubyte.gz
fashion-mnist t10k-labels-idx1-ubyte.gz md5:bb300cfdad3c16e7a12a480ee83cd310 $fashion/t10k-labels-idx1-ubyte.gz $fashion2/t10k-labels-idx1-ubyte.gz
cifar10 cifar-10-binary.tar.gz md5:c32a1d4ab5d03f1284b67883e8d87530 https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz
nmnist Train.zip md5:20959b8e626244a1b502305a9e6e2031 $nmnist/39c25547-014b-4137-a934-9d29fa53c7a0/file_downloaded
nmnist Test.zip md5:69ca8762b2fe404d9b9bad1103e97832 $nmnist/05a4d654-7e03-4c15-bdfa-9bb2bcbea494/file_downloaded
END
}

say() { echo "$*" >&2; }
stop() {
    say "error: $1"
    [ -z "${2:-}" ] || say "hint: $2"
    exit "${3:-1}"
}
need() { command -v "$1" >/dev/null || stop "$1 is not installed" "apt-get install $1"; }

# good FILE ALGORITHM:CHECKSUM
good() {
    local sum
    sum=$("${2%%:*}sum" <"$1") || return 1
    [ "${sum%% *}" = "${2#*:}" ]
}

# get ADDRESS PART: continues PART, or starts over where the server cannot continue it.
get() {
    local address=$1 part=$2 status code
    local options=(--fail --location --retry 3 --connect-timeout 30 --output "$part")
    if [ -t 2 ]; then options+=(--progress-bar); else options+=(--silent --show-error); fi
    code=$(curl "${options[@]}" --continue-at - --write-out '%{http_code}' "$address")
    status=$?
    # No ranges, a bad offset, or a PART that is as long as the file or longer.
    if [ "$status" = 33 ] || [ "$status" = 36 ] || [ "$code" = 416 ]; then
        rm -f "$part"
        curl "${options[@]}" "$address"
        status=$?
    fi
    return "$status"
}

# fetch_file FILE SUM DESTINATION ADDRESS...
fetch_file() {
    local file=$1 sum=$2 to=$3 address part=$3.part resumed
    shift 3
    if [ -f "$to" ] && good "$to" "$sum"; then
        say "$file: already there"
        return
    fi
    for address; do
        resumed=0
        [ ! -s "$part" ] || resumed=1
        if [ "$resumed" = 1 ] && good "$part" "$sum"; then break; fi
        say "$file: from $address"
        if [ -d "${address%/*}" ]; then
            rm -f "$part"
            cp -- "$address" "$part" || continue
        else
            need curl
            get "$address" "$part" || {
                say "$file: could not be fetched from there"
                continue
            }
        fi
        if good "$part" "$sum"; then break; fi
        # What was there from an earlier try may be what is wrong: once more, from the start.
        rm -f "$part"
        if [ "$resumed" = 1 ] && [ ! -d "${address%/*}" ] && get "$address" "$part" \
            && good "$part" "$sum"; then
            break
        fi
        rm -f "$part"
        say "$file: checksum is not $sum: refused"
    done
    if [ ! -f "$part" ] || ! good "$part" "$sum"; then
        # A rest is kept only where it can be continued.
        [ ! -s "$part" ] || stop "$file is not complete" "the same command continues it"
        rm -f "$part"
        stop "$file could not be fetched"
    fi
    mv -f -- "$part" "$to"
    say "$file: checksum right"
}

# note FOLDER FILE: where unpack leaves the archive's checksum for the next run.
note() {
    case $2 in
        *.zip) echo "$1/${2%.zip}/.unpacked" ;;
        *) echo "$1/.$2.unpacked" ;;
    esac
}

# unpack FOLDER FILE SUM: NAME.zip holds one folder NAME, which appears whole; the files of a
# NAME.tar.gz lose their folder. The archive goes when all is there.
unpack() {
    local folder=$1 file=$2 sum=$3 name=${2%.zip}
    aside=$(mktemp -d "$folder/.unpack.XXXXXX") || stop "$folder cannot be written"
    trap 'rm -rf "$aside"' EXIT
    case $file in
        *.zip)
            unzip -q "$folder/$file" -d "$aside" && [ -d "$aside/$name" ] \
                || stop "$folder/$file cannot be unpacked"
            [ ! -e "$folder/$name" ] || stop "$folder/$name exists already" \
                "remove it to have the complete one"
            echo "$sum" >"$aside/$name/.unpacked" && mv -- "$aside/$name" "$folder"/
            ;;
        *)
            tar -xzf "$folder/$file" -C "$aside" --no-same-owner --strip-components=1 \
                || stop "$folder/$file cannot be unpacked"
            mv -f -- "$aside"/* "$folder"/ && echo "$sum" >"$(note "$folder" "$file")"
            ;;
    esac || stop "$folder cannot be written"
    rm -rf "$aside"
    trap - EXIT
    rm -f "$folder/$file"
}

set_name='' from='' to=${NC_DATA:-data}
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --from | --to)
            [ -n "${2:-}" ] || stop "$1 needs a value" "datasets/fetch.sh --help" 2
            if [ "$1" = --from ]; then from=$2; else to=$2; fi
            shift
            ;;
        -*) stop "unknown option $1" "datasets/fetch.sh --help" 2 ;;
        *)
            [ -z "$set_name" ] || stop "one data set at a time, not $set_name and $1" "" 2
            set_name=$1
            ;;
    esac
    shift
done
[ -n "$set_name" ] || { usage >&2; exit 2; }
list=$(manifest) || stop "the manifest $NC_FETCH_MANIFEST cannot be read" "" 2
list=$(grep "^$set_name " <<<"$list") || stop "unknown data set $set_name" \
    "known: mnist, fashion-mnist, cifar10, nmnist" 2

folder=$to/$set_name
mkdir -p -- "$folder" || stop "$folder cannot be made"
while read -r -u 3 _ file sum addresses; do
    unpacked=$(note "$folder" "$file")
    if [ -f "$unpacked" ] && [ "$(cat "$unpacked")" = "$sum" ]; then
        say "$file: already there, unpacked"
        continue
    fi
    case $sum in sha256:?* | md5:?*) ;; *) stop "$file: unknown checksum $sum" "" 2 ;; esac
    case $file in *.zip) need unzip ;; esac
    read -ra places <<<"$addresses"
    if [ -n "$from" ]; then
        if [ ! -d "$from" ]; then
            places=("${from%/}/$file")
        elif [ -f "$from/$file" ]; then
            places=("$from/$file")
        elif [ -f "$from/$set_name/$file" ]; then
            places=("$from/$set_name/$file")
        else
            stop "$from has no $file"
        fi
    fi
    fetch_file "$file" "$sum" "$folder/$file" "${places[@]}"
    case $file in
        *.zip | *.tar.gz)
            unpack "$folder" "$file" "$sum"
            say "$file: unpacked"
            ;;
    esac
done 3<<<"$list"
say "$set_name is in $folder"
