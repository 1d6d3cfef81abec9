#!/usr/bin/env python3
"""Makes PyPI's PyTorch for Linux, which is linked against CUDA's libraries, load without them.

usage: cpu_torch.py SITE_PACKAGES

The libraries would be another 2 GB to fetch, and without a GPU none is used. In their place goes one library whose
functions report "no device", under every name the wheel asks for; the requirements on the real ones leave the
wheel's metadata, so that pip adds what depends on PyTorch without them. Needs cc, nm and readelf. Leaves a PyTorch
that has its libraries, or asks for none, as it is.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

LIBRARY = re.compile(r"NEEDED.*\[(lib(?:cu|nccl|nv)[a-zA-Z_]*\.so\.\d+)\]")
FUNCTION = re.compile(r"cu[A-Zabdfpst]|nccl|nvrtc|nvshmem|__cuda")
TEXT = re.compile(r"(ErrorString|ErrorName|StatusString)$|^(cudnn|cufft|nccl)GetLastError")
NO_DEVICE = 100  # cudaErrorNoDevice


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def symbols(which, file):
    """(kind, name, version or '') of a library's dynamic symbols."""
    for line in run("nm", "-D", which, str(file)).splitlines():
        kind, name = line.split()[-2:]
        name, _, version = name.replace("@@", "@").partition("@")
        yield kind, name, version


def stand_in(name):
    if TEXT.search(name):
        return f'const char *{name}(void) {{ return "no CUDA here"; }}\n'
    return f"long {name}(void) {{ return {NO_DEVICE}; }}\n"


def main():
    site = pathlib.Path(sys.argv[1])
    lib = site / "torch" / "lib"
    wheel = sorted(file for file in lib.glob("*.so") if file.name != "libno_cuda.so")
    names = {name for file in wheel for name in LIBRARY.findall(run("readelf", "-d", str(file)))}
    if not names or (site / "nvidia").exists():
        return
    for metadata in site.glob("torch-*.dist-info/METADATA"):
        text = metadata.read_text()
        metadata.write_text(re.sub(r"(?m)^Requires-Dist: (cuda|nvidia|triton).*\n", "", text))
    wanted = {}  # the version of each function, or ''
    for file in wheel:
        for kind, name, version in symbols("--undefined-only", file):
            if kind == "U" and FUNCTION.match(name):
                wanted[name] = version
    for file in wheel:  # not those the wheel has itself
        for _, name, _ in symbols("--defined-only", file):
            wanted.pop(name, None)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "none.c").write_text("".join(map(stand_in, sorted(wanted))))
        versions = {version: [n for n in wanted if wanted[n] == version] for version in set(wanted.values()) - {""}}
        (folder / "none.map").write_text(
            "".join(f"{version} {{ global: {'; '.join(names)}; }};\n" for version, names in versions.items()))
        run("cc", "-shared", "-fPIC", "-w", "-fno-builtin", f"-Wl,--version-script={folder}/none.map",
            "-o", str(lib / "libno_cuda.so"), str(folder / "none.c"))
    for name in names:
        (lib / name).unlink(missing_ok=True)
        (lib / name).symlink_to("libno_cuda.so")


main()
