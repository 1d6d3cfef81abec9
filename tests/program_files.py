"""What the program tests need beyond the shell: tiny data sets, damaged files, tensors compared.

Uses Python's standard library only (meson brings Python along).
"""
import json
import os
import random
import struct
import sys


def write_idx(folder, train, test, seed=1):
    """Four IDX files of 28x28 images: class k is a bright square at one of ten places, with noise."""
    draw = random.Random(seed)

    def image(k):
        row, column = 2 + 12 * (k // 5), 1 + 5 * (k % 5)
        pixels = bytearray(draw.choices(range(40), k=28 * 28))
        for y in range(row, row + 10):
            for x in range(column, column + 5):
                pixels[28 * y + x] = 160 + draw.randrange(90)
        return bytes(pixels)

    for part, count in (("train", train), ("t10k", test)):
        labels = bytes(i % 10 for i in range(count))
        with open(f"{folder}/{part}-images-idx3-ubyte", "wb") as f:
            f.write(struct.pack(">4I", 0x803, count, 28, 28) + b"".join(map(image, labels)))
        with open(f"{folder}/{part}-labels-idx1-ubyte", "wb") as f:
            f.write(struct.pack(">2I", 0x801, count) + labels)


def write_nmnist(folder):
    """Two recordings for training and two for tests, of 4 and 5 events (x, y, ON, microseconds)."""
    events = [(1, 2, 1, 1000), (1, 2, 0, 3000), (5, 5, 1, 95000), (6, 5, 1, 250000), (6, 6, 0, 300000)]
    for part in ("Train", "Test"):
        for number, label, count in ((1, 3, 4), (2, 1, 5)):
            os.makedirs(f"{folder}/{part}/{label}", exist_ok=True)
            with open(f"{folder}/{part}/{label}/{number:05}.bin", "wb") as f:
                for x, y, on, t in events[:count]:
                    f.write(bytes((x, y, on << 7 | t >> 16, t >> 8 & 255, t & 255)))


def safetensors(path):
    """Header (JSON) and the bytes after it."""
    with open(path, "rb") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        return json.loads(f.read(size)), f.read()


def tensors(path):
    header, data = safetensors(path)
    header.pop("__metadata__", None)
    return {
        name: (t["dtype"], t["shape"], data[t["data_offsets"][0] : t["data_offsets"][1]])
        for name, t in header.items()
    }


def same_tensors(first, second):
    """Nothing printed and status 0 when names, shapes and every byte are equal."""
    a, b = tensors(first), tensors(second)
    different = sorted(set(a) ^ set(b)) + [name for name in a if name in b and a[name] != b[name]]
    if not a or different:
        sys.exit(f"{first} and {second} differ in {different or 'having no tensors'}")


def poison(source, target):
    """A copy whose first float is NaN."""
    with open(source, "rb") as f:
        data = bytearray(f.read())
    start = 8 + struct.unpack("<Q", data[:8])[0]
    data[start : start + 4] = struct.pack("<f", float("nan"))
    with open(target, "wb") as f:
        f.write(data)


def patch(path, offset, values):
    """Overwrites bytes (hexadecimal) at an offset."""
    with open(path, "r+b") as f:
        f.seek(int(offset))
        f.write(bytes.fromhex(values))


def parse_json(path):
    """Strict: NaN and Infinity are no JSON. A .jsonl file is a list, one value a line."""

    def refuse(name):
        raise ValueError(f"{path}: {name} is not JSON")

    with open(path, encoding="utf-8") as f:
        if path.endswith(".jsonl"):
            return [json.loads(line, parse_constant=refuse) for line in f]
        return json.load(f, parse_constant=refuse)


def require(path, expression):
    """The JSON in a file, as `j`, makes the expression true."""
    j = parse_json(path)
    if not eval(expression, {"j": j}):
        sys.exit(f"{path}: not {expression}: {json.dumps(j)[:2000]}")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "idx":
        write_idx(arguments[0], int(arguments[1]), int(arguments[2]))
    else:
        {"same": same_tensors, "poison": poison, "patch": patch, "require": require, "nmnist": write_nmnist}[command](*arguments)
