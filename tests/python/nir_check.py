#!/usr/bin/env python3
"""NIR both ways: the reference package reads our files with its type check on, Norse and snnTorch count our spikes.

Where their neurons are ours the counts must be equal: Norse's IF resets to zero, compares strictly and starts at 0;
snnTorch's LIF does so too, at dt = 1e-4 (its IF leaks by 0.9, whatever the file says).
"""
import json

from checks import case, finish, folder, have, need, program, skip, work

np, nir, _ = need("numpy", "nir", "safetensors")
from safetensors.numpy import save_file  # noqa: E402

rng = np.random.default_rng(5)
T = 24


def normal(*shape, scale=1.0):
    return rng.normal(0, scale, shape).astype(np.float32)


def neuron(name, theta, hard, beta=1.0):
    """Ours (subtracts, >=, starts at half the threshold) or, `hard`, as NIR defines it."""
    fields = {"name": name, "op": "neuron", "amplitude": "one", "beta": beta, "v0_fraction": 0.0 if hard else 0.5,
              "compare": "greater" if hard else "greater_equal", "reset": "to_value" if hard else "subtract"}
    return fields, {"theta": theta}


def write_model(path, sample, layers, extra_edges=()):
    """A chain of (fields, tensors) from input to output, as a model file of ours."""
    nodes, tensors, edges, last = [{"name": "input", "op": "input", "shape": sample}], {}, [], "input"
    for fields, own in layers:
        fields = dict(fields)
        for field, value in own.items():
            fields[field] = {"shape": list(value.shape)}
            tensors[f"{fields['name']}.{field}"] = value
        nodes.append(fields)
        edges.append({"from": last, "to": fields["name"]})
        last = fields["name"]
    nodes.append({"name": "output", "op": "output"})
    edges.append({"from": last, "to": "output"})
    edges += [{"from": a, "to": b} for a, b in extra_edges]
    save_file(tensors, path, metadata={"graph": json.dumps({"nodes": nodes, "edges": edges}),
                                       "info": json.dumps({"T": T}), "state": "{}"})


def dense(hard, beta=1.0, thetas=True):
    def theta(n):
        return rng.uniform(0.5, 2, n).astype(np.float32) if thetas else np.ones(1, np.float32)
    return [({"name": "fc1", "op": "linear"}, {"weight": normal(20, 12, scale=0.5), "bias": normal(20, scale=0.1)}),
            neuron("s1", theta(20), hard, beta),
            ({"name": "fc2", "op": "linear"}, {"weight": normal(6, 20, scale=0.5), "bias": normal(6, scale=0.1)}),
            neuron("s2", theta(6), hard, beta)]


def convolutional():
    def conv(name, co, ci, k, **options):
        return ({"name": name, "op": "conv", "padding": [k // 2, k // 2], **options},
                {"weight": normal(co, ci, k, k, scale=0.6), "bias": normal(co, scale=0.1)})
    def theta(n):
        return rng.uniform(0.5, 2, n).astype(np.float32)
    return [conv("c1", 6, 2, 3), neuron("s1", theta(6), False), conv("c2", 6, 3, 3, groups=2),
            neuron("s2", theta(6), False), conv("c3", 6, 6, 3), neuron("s3", theta(6), False),
            ({"name": "pool", "op": "average_pool", "kernel_size": 2, "stride": 2}, {}),
            ({"name": "flat", "op": "flatten"}, {}),
            ({"name": "fc", "op": "linear"}, {"weight": normal(5, 96, scale=0.5), "bias": normal(5)})]


def export(name, sample, layers, extra_edges=(), options=()):
    model, file = work / f"{name}.safetensors", work / f"{name}.nir"
    write_model(model, sample, layers, extra_edges)
    program("nc_convert", "export", model, "--emit", f"nir={file}", "--force", *options)
    return file


def ours(file, x):
    """Mean outputs of [T, N, ..] through the file, by our executor."""
    np.save(work / "x.npy", x)
    program("nc_convert", "run", file, "--input", work / "x.npy", "--out", work / "y.npy", "--force")
    return np.load(work / "y.npy")


def counts(module, x):
    """Sums over the steps of what a stateful torch module gives."""
    import torch
    state, total = None, 0
    for step in torch.from_numpy(x):
        y, state = module(step, state)
        total = total + y
    return total.detach().numpy()


image = normal(T, 3, 2, 8, 8)
for pool in ("avg", "sum"):
    for start in ("metadata", "bias"):
        with case(f"the reference package reads a residual network, its type check on ({pool}, {start})"):
            file = export(f"conv_{pool}_{start}", [8, 8, 2], convolutional(), [("s1", "s3")],
                          ["--nir-pool", pool, "--nir-vinit", start])
            graph = nir.read(file)
            assert graph.infer_types() is None and graph.check_types()
            types = sorted(type(node).__name__ for node in graph.nodes.values())
            assert types.count("IF") == 3 and ("SumPool2d" in types) == (pool == "sum"), types
            assert all((node.v_threshold == 1).all() and (node.r == 1).all()
                       for node in graph.nodes.values() if isinstance(node, nir.IF))
            assert ("v0" in graph.nodes["s2"].metadata) == (start == "metadata")
            assert ours(file, image).shape == (3, 5)

with case("the reference package's copy of a file runs the same"):
    again = work / "again.nir"
    nir.write(again, nir.read(work / "conv_avg_metadata.nir"))
    assert np.array_equal(ours(again, image), ours(work / "conv_avg_metadata.nir", image))

signal = normal(T, 7, 12)
if have("norse") and have("torch"):
    import norse.torch
    with case("Norse counts the spikes of IF neurons that reset to zero as we do"):
        file = export("norse_if", [12], dense(True))
        theirs, mine = counts(norse.torch.from_nir(nir.read(file)), signal), ours(file, signal) * T
        assert np.abs(theirs).sum() > 50 and np.array_equal(np.rint(mine), theirs), np.abs(mine - theirs).sum()
else:
    skip("Norse", "no package norse")

if have("snntorch") and have("torch"):
    from snntorch.import_nir import import_from_nir
    with case("snnTorch counts the spikes of LIF neurons that reset to zero as we do"):
        file = export("snntorch_lif", [12], dense(True, beta=0.75, thetas=False))
        theirs, mine = counts(import_from_nir(nir.read(file)), signal), ours(file, signal) * T
        assert np.abs(theirs).sum() > 50 and np.array_equal(np.rint(mine), theirs), np.abs(mine - theirs).sum()
else:
    skip("snnTorch", "no package snntorch")

with case("a graph of the reference package with two inputs and two outputs runs as it says"):
    def linear(*shape):
        return nir.Linear(rng.integers(-4, 5, shape).astype(np.float32))
    left, right = linear(4, 3), linear(4, 2)
    one = np.ones(4, np.float32)
    nir.write(work / "two.nir", nir.NIRGraph(
        nodes={"right": nir.Input(np.array([2])), "left": nir.Input(np.array([3])), "wl": left, "wr": right,
               "if": nir.IF(r=one, v_threshold=one, v_reset=0 * one), "spikes": nir.Output(np.array([4])),
               "drive": nir.Output(np.array([4]))},
        edges=[("left", "wl"), ("right", "wr"), ("wl", "if"), ("wr", "if"), ("if", "spikes"), ("wr", "drive")]))
    x = {name: rng.integers(0, 2, (T, 5, n)).astype(np.float32) for name, n in [("left", 3), ("right", 2)]}
    for name, values in x.items():
        np.save(work / f"{name}.npy", values)
    words = {name: ["--input", f"{name}={work / name}.npy"] for name in x}

    def two(output, *inputs, status=0):
        return program("nc_convert", "run", work / "two.nir", "--output", output, *inputs, "--out", work / "y.npy",
                       "--force", status=status).stderr

    def result(output, *inputs):
        two(output, *inputs)
        return np.load(work / "y.npy")

    v, total = np.zeros((5, 4)), np.zeros((5, 4))
    for l, r in zip(x["left"], x["right"]):
        v += l @ left.weight.T + r @ right.weight.T
        total += v > 1
        v[v > 1] = 0
    assert total.sum() > 50
    assert np.array_equal(np.rint(result("spikes", *words["right"], *words["left"]) * T), total)
    drive = (x["right"] @ right.weight.T).mean(0)
    assert np.allclose(result("drive", "--input", work / "right.npy"), drive, atol=1e-6)
    for inputs, wrong in [(words["left"], "missing 'right'"), (words["left"] * 2, "more than once 'left'"),
                          ([*words["left"], "--input", "rihgt=x.npy"], "missing 'right'; unknown 'rihgt'")]:
        said = two("spikes", *inputs, status=2)
        assert wrong in said and "the inputs 'left', 'right'" in said, said
    said = program("nc_convert", "run", work / "two.nir", "--input", "x.npy", "--out", "z.npy", status=3).stderr
    assert "2 outputs: 'drive', 'spikes'" in said and "--output NAME" in said, said

with case("--dt is the step of a graph that does not say its own"):
    two = np.ones(2, np.float32)
    lif = nir.LIF(tau=0.02 * two, r=two, v_leak=0 * two, v_threshold=0.5 * two, v_reset=0 * two)
    graph = nir.NIRGraph(nodes={"input": nir.Input(np.array([2])), "lif": lif, "output": nir.Output(np.array([2]))},
                         edges=[("input", "lif"), ("lif", "output")])
    nir.write(work / "lif.nir", graph)
    graph.metadata["dt"] = 1e-3
    nir.write(work / "said.nir", graph)
    x = rng.uniform(0.5, 2, (200, 6, 2)).astype(np.float32)
    np.save(work / "x.npy", x)

    def rates(file, *options):
        done = program("nc_convert", "run", work / file, "--input", work / "x.npy", "--out", work / "y.npy", "--force",
                       *options)
        return np.load(work / "y.npy"), done.stderr

    for dt, options in [(1e-4, []), (1e-3, ["--dt", "1e-3"]), (5e-3, ["--dt", "0.005"])]:
        v, total = np.zeros((6, 2)), np.zeros((6, 2))
        for step in x:
            v += dt / 0.02 * (step - v)
            total += v > 0.5
            v[v > 0.5] = 0
        assert total.sum() > 5 and np.array_equal(np.rint(rates("lif.nir", *options)[0] * 200), total), dt
    want, _ = rates("lif.nir", "--dt", "1e-3")
    got, said = rates("said.nir", "--dt", "0.005")
    assert np.array_equal(got, want) and "says dt = 0.001" in said, said
    said = program("nc_convert", "info", work / "conv_avg_metadata.safetensors", "--dt", "1e-3", status=2).stderr
    assert "--dt is for NIR graphs" in said, said

golden = folder("NC_GOLDEN", "nir")
if golden:
    for path in sorted(golden.glob("*.nir")):
        if path.name == "invalid_subgraph.nir":
            continue
        with case(f"{path.name} is read by both"):
            their = nir.read(path)
            program("nc_convert", "info", path, "--json", work / "info.json", "--force")
            info = json.loads((work / "info.json").read_text())
            assert len(info["nodes"]) >= len(their.nodes)

finish()
