#!/usr/bin/env python3
"""`nc_convert frames` against Tonic: its readers, framings and filter on the same files; Prophesee's against expelliarmus."""
import json

from checks import case, check, finish, folder, have, need, program, skip, work

np, tonic = need("numpy", "tonic")
from tonic import functional, io  # noqa: E402

random = np.random.default_rng(0)
event = np.dtype([("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "?")])


def events(n, width=34, height=34, first=20_000, step=40):
    out = np.zeros(n, event)
    out["x"], out["y"] = random.integers(0, width, n), random.integers(0, height, n)
    out["t"], out["p"] = first + np.cumsum(random.integers(0, step, n)), random.integers(0, 2, n)
    return out


def frames(path, *options):
    """What nc_convert makes of a recording."""
    program("nc_convert", "frames", path, *options, "--out", work / "frames.npy", "--force", "--quiet")
    return np.load(work / "frames.npy")


def equal(ours, theirs):
    assert ours.dtype == np.float32 and ours.shape == theirs.shape, (ours.shape, theirs.shape)
    assert np.array_equal(ours, theirs), f"{np.sum(ours != theirs)} counts differ"


def write(name, data):
    (work / name).write_bytes(data)
    return work / name


def big(values, n):
    return np.asarray(values, np.uint64).astype(f">u{n}").tobytes()


def nmnist(e):
    t, p = e["t"].astype(np.uint32), e["p"].astype(np.uint32)
    return np.stack([e["x"], e["y"], p << 7 | t >> 16, t >> 8 & 255, t & 255], 1).astype(np.uint8).tobytes()


def framings(path, read, size, options=()):
    """Every framing of Tonic's, and SpikingJelly's by its definition."""
    for text, wanted in {"tonic:bins=10": {"n_time_bins": 10}, "tonic:window=3ms": {"time_window": 3000},
                         "tonic:count=100": {"event_count": 100}}.items():
        equal(frames(path, "--framing", text, *options), functional.to_frame_numpy(read, size, **wanted))
    n = len(read) // 7
    slices = [read[i * n:(i + 1) * n if i < 6 else None] for i in range(7)]
    equal(frames(path, "--framing", "sj:number=7", *options),
          np.concatenate([functional.to_frame_numpy(s, size, event_count=len(s)) for s in slices]))


with case("N-MNIST .bin"):
    path = write("a.bin", nmnist(events(3000)))
    framings(path, io.read_mnist_file(str(path), event), (34, 34, 2))

root = folder("NC_DATA", "nmnist/Test")
if root is None:
    skip("N-MNIST recordings", "NC_DATA has no nmnist")
else:
    with case("N-MNIST recordings"):
        for path in sorted(root.glob("*/*.bin"))[:20]:
            framings(path, io.read_mnist_file(str(path), event), (34, 34, 2))

with case("AEDAT 2.0"):
    e = events(2000, 128, 128)
    pair = np.stack([e["x"].astype(np.uint32) << 8 | e["y"].astype(np.uint32) << 1 | e["p"], e["t"]], 1)
    path = write("a.aedat", b"#!AER-DAT2.0\r\n# made by a test\r\n" + big(pair, 4))
    read = np.fromfile(path, ">u4", offset=len(b"#!AER-DAT2.0\r\n# made by a test\r\n")).reshape(-1, 2)
    # Tonic's bits: read_dvs_128, whose parsing of headers some versions have broken.
    read = io.make_structured_array(read[:, 0] >> 8 & 127, read[:, 0] >> 1 & 127, read[:, 1], read[:, 0] & 1)
    framings(path, read, (128, 128, 2))

with case("AEDAT 3.1"):
    e = events(2000, 128, 128)
    data = b"#!AER-DAT3.1\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"
    start = len(data)
    for part in np.array_split(e, 5):
        address = (part["x"].astype(np.uint32) << 17 | part["y"].astype(np.uint32) << 2
                   | part["p"].astype(np.uint32) << 1 | 1)
        data += b"\1\0\1\0" + np.array([8, 4, 0, len(part), len(part), len(part)], "<u4").tobytes()
        data += np.stack([address, part["t"]], 1).astype("<u4").tobytes()
    path = write("b.aedat", data)
    raw = io.get_aer_events_from_file(str(path), 3.1, start)
    a = raw["address"]
    read = io.make_structured_array(a >> 17 & 0x1fff, a >> 2 & 0x1fff, raw["timeStamp"], a >> 1 & 1)
    framings(path, read, (128, 128, 2))

with case("structured .npy, .npz of arrays and of frames"):
    e = events(3000, 60, 50)
    np.save(work / "a.npy", e)
    np.savez(work / "a.npz", **{name: e[name] for name in "txyp"})
    np.savez_compressed(work / "b.npz", **{name: e[name] for name in "txyp"})
    for name in ["a.npy", "a.npz", "b.npz"]:
        framings(work / name, e, (60, 50, 2), ["--sensor", "60x50"])
    theirs = functional.to_frame_numpy(e, (60, 50, 2), n_time_bins=4)
    np.savez_compressed(work / "c.npz", frames=theirs)
    equal(frames(work / "c.npz"), theirs)
    equal(frames(work / "c.npz", "--clip"), theirs.clip(max=1))

with case("denoise"):
    # Tonic lets everything within the first 10 ms of the clock stay; these recordings start later.
    for step in [10, 100, 2000]:
        e = events(3000, step=step)
        np.save(work / "a.npy", e)
        quiet = functional.denoise_numpy(e, filter_time=10_000)
        assert 0 < len(quiet) < len(e)
        equal(frames(work / "a.npy", "--sensor", "34x34", "--denoise", "--framing", "tonic:bins=5"),
              functional.to_frame_numpy(quiet, (34, 34, 2), n_time_bins=5))
        equal(frames(work / "a.npy", "--sensor", "34x34", "--denoise=2ms", "--framing", "tonic:bins=5"),
              functional.to_frame_numpy(functional.denoise_numpy(e, filter_time=2000), (34, 34, 2), n_time_bins=5))

with case("what is printed is what was made"):
    e = events(1000)
    path = write("a.bin", nmnist(e))
    said = json.loads(program("nc_convert", "frames", path, "--framing", "tonic:bins=10", "--out", work / "j.npy",
                              "--json").stdout)
    assert said["shape"] == [10, 2, 34, 34] and said["events"] == 1000
    assert said["counted"] == np.load(work / "j.npy").sum()
    assert (said["first_us"], said["last_us"]) == (e["t"][0], e["t"][-1])
    program("nc_convert", "frames", path, "--framing", "tonic:bins=10", "--out", work / "j.npy", status=2)

if not have("expelliarmus"):
    skip("Prophesee EVT2, EVT3 and .dat", "no package expelliarmus")
else:
    import expelliarmus

    def prophesee(n, **options):
        e = events(n, 64, 48, **options)
        out = np.zeros(n, [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1")])
        for name in "txyp":
            out[name] = e[name]
        return out

    # It writes no EVT3 TIME_HIGH but the first: these recordings end before the second is due.
    for encoding, name in {"evt2": "a.raw", "evt3": "b.raw", "dat": "a.dat"}.items():
        e = prophesee(3000, first=0, step=2) if encoding == "evt3" else prophesee(20_000, first=1000, step=400)
        with case(f"Prophesee {encoding}, written and read by expelliarmus"):
            wizard = expelliarmus.Wizard(encoding=encoding)
            wizard.save(str(work / name), e)
            read = wizard.read(str(work / name))
            framings(work / name, read, (64, 48, 2), ["--sensor", "64x48", "--format", encoding])

check("the package's version is known", bool(tonic.__version__))
finish()
