#!/usr/bin/env bash
# datasets/fetch.sh against folders, file:// and a local HTTP server: resumed, refused, never half a file.
cd "$(dirname "$0")/.." || exit 2
. tests/script.sh

server=
cleanup() { [ -z "$server" ] || kill "$server" 2>/dev/null; }

# Small files under the real names, and a manifest for them.
source=$work/source
mkdir -p "$source"
for name in train-images train-labels t10k-images t10k-labels; do
    head -c 100000 /dev/urandom >"$source/$name"
done
mkdir -p "$work/cifar-10-batches-bin" "$work/Train/3" "$work/Test/7"
for i in 1 2 3; do head -c 3073 /dev/urandom >"$work/cifar-10-batches-bin/data_batch_$i.bin"; done
head -c 50 /dev/urandom >"$work/Train/3/00001.bin"
head -c 50 /dev/urandom >"$work/Test/7/00001.bin"
tar -czf "$source/cifar-10-binary.tar.gz" -C "$work" cifar-10-batches-bin
for part in Train Test; do
    python3 - "$work" "$source" "$part" <<'END'
import os, sys, zipfile
work, source, part = sys.argv[1:]
with zipfile.ZipFile(f"{source}/{part}.zip", "w") as archive:
    for folder, _, files in os.walk(f"{work}/{part}"):
        for file in files:
            path = os.path.join(folder, file)
            archive.write(path, os.path.relpath(path, work))
END
done

sum() { local s; s=$("$1sum" <"$source/$2") && echo "$1:${s%% *}"; }
export NC_FETCH_MANIFEST=$work/manifest
# The addresses are filled in where a case does without --from.
write_manifest() {
    local base=$1
    {
        for name in train-images train-labels t10k-images t10k-labels; do
            echo "mnist $name $(sum sha256 $name) $base/gone/$name $base/$name"
        done
        echo "cifar10 cifar-10-binary.tar.gz $(sum md5 cifar-10-binary.tar.gz) $base/cifar-10-binary.tar.gz"
        for name in Train.zip Test.zip; do echo "nmnist $name $(sum md5 $name) $base/$name"; done
    } >"$NC_FETCH_MANIFEST"
}
write_manifest "file://$source"

fetch() { bash datasets/fetch.sh "$@"; }
# same FOLDER: the four files and nothing else.
same() {
    local name
    for name in train-images train-labels t10k-images t10k-labels; do
        cmp "$source/$name" "$1/mnist/$name" || return 1
    done
    [ "$(find "$1/mnist" -type f | wc -l)" = 4 ] || { ls -la "$1/mnist"; return 1; }
}
# refuses STATUS TEXT COMMAND...: fails with this status and says this.
refuses() {
    local wanted=$1 text=$2 said status
    shift 2
    said=$("$@" 2>&1)
    status=$?
    echo "$said"
    [ "$status" = "$wanted" ] && grep -qF -- "$text" <<<"$said"
}
nothing_in() { [ -z "$(find "$1" -type f 2>/dev/null)" ] || { find "$1" -type f; return 1; }; }

check 'from a folder' fetch mnist --from "$source" --to "$work/a"
check 'from a folder: the files' same "$work/a"
check 'again: nothing to do' refuses 0 'train-images: already there' fetch mnist --from /nowhere-at-all/ --to "$work/a"
check 'from file://' fetch mnist --from "file://$source" --to "$work/b"
check 'from file://: the files' same "$work/b"
check 'the second address when the first has nothing' fetch mnist --to "$work/c"
check 'the second address: the files' same "$work/c"

# Interrupted: half a file stands under the .part name and is continued.
mkdir -p "$work/d/mnist"
head -c 40000 "$source/train-images" >"$work/d/mnist/train-images.part"
check 'file://: continues half a file' fetch mnist --from "file://$source" --to "$work/d"
check 'file://: continued: the files' same "$work/d"

# Half a file that was something else: started over.
mkdir -p "$work/e/mnist"
head -c 40000 /dev/zero >"$work/e/mnist/train-images.part"
head -c 200000 /dev/zero >"$work/e/mnist/train-labels.part"
check 'file://: a wrong half is fetched again' fetch mnist --from "file://$source" --to "$work/e"
check 'file://: fetched again: the files' same "$work/e"

# Corrupted and truncated sources are refused, and nothing is left under any name.
bad=$work/bad
mkdir -p "$bad"
cp "$source"/t* "$bad"/
printf 'X' | dd of="$bad/train-images" bs=1 seek=50000 conv=notrunc 2>/dev/null
check 'a corrupted file is refused (folder)' refuses 1 'refused' fetch mnist --from "$bad" --to "$work/f"
check 'a corrupted file leaves nothing (folder)' nothing_in "$work/f"
check 'a corrupted file is refused (file://)' refuses 1 'refused' fetch mnist --from "file://$bad" --to "$work/f"
check 'a corrupted file leaves nothing (file://)' nothing_in "$work/f"
head -c 70000 "$source/train-images" >"$bad/train-images"
check 'a truncated file is refused' refuses 1 'refused' fetch mnist --from "file://$bad" --to "$work/f"
check 'a truncated file leaves nothing' nothing_in "$work/f"
check 'a file that is damaged later is fetched again' eval \
    "echo x >>'$work/a/mnist/t10k-labels' && fetch mnist --from '$source' --to '$work/a' && same '$work/a'"

check 'archives: CIFAR-10' fetch cifar10 --from "$source" --to "$work/g"
check 'archives: CIFAR-10 batches' diff -r --exclude='.*' "$work/cifar-10-batches-bin" "$work/g/cifar10"
check 'archives: N-MNIST' fetch nmnist --from "$source" --to "$work/g"
check 'archives: N-MNIST Train' diff -r --exclude='.*' "$work/Train" "$work/g/nmnist/Train"
check 'archives: N-MNIST Test' diff -r --exclude='.*' "$work/Test" "$work/g/nmnist/Test"
check 'archives: already unpacked' refuses 0 'Test.zip: already there' fetch nmnist --from "$source" --to "$work/g"
mkdir -p "$work/h/nmnist/Train/0"
echo mine >"$work/h/nmnist/Train/0/own.bin"
check 'archives: what is there is not replaced' refuses 1 'exists already' fetch nmnist --from "$source" --to "$work/h"
check 'archives: what was there is still there' grep -q mine "$work/h/nmnist/Train/0/own.bin"

check 'usage: unknown set' refuses 2 'known: mnist' fetch mnits --to "$work/x"
check 'usage: unknown option' refuses 2 'unknown option --form' fetch mnist --form x
check 'usage: no set' refuses 2 'usage:' fetch
check 'usage: a folder without the file' refuses 1 'has no train-images' fetch mnist --from "$work/Train" --to "$work/x"
if [ "$(id -u)" != 0 ]; then
    mkdir -p "$work/closed" && chmod 555 "$work/closed"
    check 'no permission' refuses 1 'cannot be made' fetch mnist --from "$source" --to "$work/closed"
else
    skip 'no permission' 'root may write everywhere'
fi

# HTTP: python's server knows no ranges; with --ranges it answers them; /cut/ hangs up in the middle.
cat >"$work/server.py" <<'END'
import http.server, os, sys
root, log, ranges = sys.argv[1], sys.argv[2], sys.argv[3] == "--ranges"
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self):
        path = self.path.replace("/cut/", "/")
        wanted = self.headers.get("Range")
        with open(log, "a") as f: f.write(f"{self.path} {wanted}\n")
        try:
            data = open(root + path, "rb").read()
        except OSError:
            self.send_error(404)
            return
        first = 0
        if ranges and wanted:
            first = int(wanted.split("=")[1].split("-")[0])
            if first >= len(data):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        data = data[first:]
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:len(data) // 2] if "/cut/" in self.path else data)
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
END
# serve ROOT --ranges|--plain: sets base and server.
serve() {
    cleanup
    : >"$work/requests"
    : >"$work/port"
    python3 "$work/server.py" "$1" "$work/requests" "$2" >"$work/port" 2>/dev/null &
    server=$!
    local i
    for i in $(seq 100); do
        [ -s "$work/port" ] && break
        sleep 0.1
    done
    base=http://127.0.0.1:$(cat "$work/port")
}

if [ -n "$(command -v curl)" ]; then
    serve "$source" --ranges
    check 'http' fetch mnist --from "$base" --to "$work/i"
    check 'http: the files' same "$work/i"
    write_manifest "$base"
    check 'http: the second address when the first has nothing' fetch mnist --to "$work/j"
    check 'http: the second address: the files' same "$work/j"

    mkdir -p "$work/k/mnist"
    head -c 40000 "$source/train-images" >"$work/k/mnist/train-images.part"
    cp "$source/train-labels" "$work/k/mnist/train-labels.part"
    head -c 100000 /dev/zero >"$work/k/mnist/t10k-images.part"
    : >"$work/requests"
    check 'http: continues' fetch mnist --from "$base" --to "$work/k"
    check 'http: continued: the files' same "$work/k"
    check 'http: continued where it stopped' grep -q '^/train-images bytes=40000-' "$work/requests"
    check 'http: a complete half is not fetched' eval "! grep -q '^/train-labels' '$work/requests'"

    check 'http: a connection cut short is an error' refuses 1 'continues it' fetch mnist --from "$base/cut" --to "$work/l"
    check 'http: the beginning is kept under another name' eval \
        "[ ! -e '$work/l/mnist/train-images' ] && [ -s '$work/l/mnist/train-images.part' ]"
    check 'http: and continued' fetch mnist --from "$base" --to "$work/l"
    check 'http: and continued: the files' same "$work/l"

    serve "$source" --plain
    mkdir -p "$work/m/mnist"
    head -c 40000 "$source/train-images" >"$work/m/mnist/train-images.part"
    check 'http without ranges: starts over' fetch mnist --from "$base" --to "$work/m"
    check 'http without ranges: the files' same "$work/m"

    serve "$bad" --ranges
    check 'http: a truncated file is refused' refuses 1 'refused' fetch mnist --from "$base" --to "$work/n"
    check 'http: a truncated file leaves nothing' nothing_in "$work/n"
    check 'http: an address with nothing' refuses 1 'could not be fetched' fetch cifar10 --from "$base" --to "$work/o"
    check 'http: an address with nothing leaves nothing' nothing_in "$work/o"
else
    skip 'http' 'curl is not installed'
fi

# The real list, against real files where they are.
unset NC_FETCH_MANIFEST
if [ -n "${NC_DATA:-}" ] && [ -f "$NC_DATA/mnist/train-images-idx3-ubyte.gz" ]; then
    check 'real MNIST has the listed checksums' fetch mnist --from "$NC_DATA" --to "$work/real"
else
    skip 'real MNIST has the listed checksums' 'NC_DATA has no mnist'
fi

finish
