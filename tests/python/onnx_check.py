"""Networks exported from PyTorch to ONNX, imported here: the logits are ONNX Runtime's."""
import contextlib
import io
import json
import logging

from checks import case, check, finish, folder, full, have, need, program, skip, work

np, torch, onnx, ort, _ = need("numpy", "torch", "onnx", "onnxruntime", "onnxscript")
from torch import nn  # noqa: E402  after need()
from onnx_nets import Net  # noqa: E402

logging.disable(logging.WARNING)
torch.set_num_threads(1)
ort.set_default_logger_severity(3)
largest = {}  # of the relative differences, by exporter


def export(model, x, path, exporter, seed=0):
    """Either of PyTorch's exporters; the batch left open in every other file."""
    batch_open = seed % 2 == 1
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if exporter == "torchscript":
            torch.onnx.export(model, x, path, dynamo=False, opset_version=[13, 17, 11][seed % 3], input_names=["x"],
                              dynamic_axes={"x": {0: "n"}} if batch_open else None)
        else:
            torch.onnx.export(model, (x,), path, dynamo=True, verbose=False, opset_version=[18, 20][seed % 2],
                              optimize=seed % 5 != 4, external_data=seed % 4 == 0,
                              dynamic_shapes=({0: torch.export.Dim("n")},) if batch_open else None)


def peer(path, x):
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    # A file with a fixed batch takes its samples one by one.
    fixed = isinstance(session.get_inputs()[0].shape[0], int)
    name = session.get_inputs()[0].name
    parts = [x[i:i + 1] for i in range(len(x))] if fixed else [x]
    return np.concatenate([session.run(None, {name: part})[0] for part in parts]).reshape(len(x), -1)


def ours(path, x):
    np.save(work / "x.npy", x)
    program("nc_convert", "run", path, "--input", work / "x.npy", "--out", work / "y.npy", "--force", "--threads", 1)
    return np.load(work / "y.npy")


def compare(name, path, x, exporter):
    try:
        want, got = peer(str(path), x), ours(path, x)
        difference = float(np.abs(got - want).max() / np.abs(want).max()) if got.shape == want.shape else np.inf
        largest[exporter] = max(largest.get(exporter, 0), difference)
        check(name, difference <= 1e-5, f"largest difference {difference:.2e} of the largest logit, {path}")
    except Exception as error:
        check(name, False, error)


def spiking(model, exporter, dataset, T, sample):
    """A model through conversion without training to a spiking network that runs: its file, the JSON."""
    path, out = work / f"{exporter}.onnx", work / f"{exporter}.safetensors"
    export(model, torch.zeros(1, *sample), path, exporter)
    done = program("nc_convert", path, "--dataset", dataset, "--samples", 40, "--calibration-samples", 20, "--T", T,
                   "--strategy", "percentile", "--mean", ",".join(["0.5"] * sample[0]), "--std",
                   ",".join(["0.5"] * sample[0]), "--out", out, "--force", "--json", timeout=1800)
    return out, json.loads(done.stdout)


def step_of(path, x, T):
    """The mean logits of T steps of the exported time step in ONNX Runtime."""
    step = work / "step.onnx"
    program("nc_convert", "export", path, "--emit", f"onnx={step}", "--force")
    session = ort.InferenceSession(str(step), providers=["CPUExecutionProvider"])
    outputs = [o.name for o in session.get_outputs()]
    feed, total = {session.get_inputs()[0].name: x}, 0
    for _ in range(T):
        got = dict(zip(outputs, session.run(None, feed)))
        total = total + got["logits"]
        feed.update({name.removesuffix("_next"): v for name, v in got.items() if name.endswith(".v_next")})
    return total / T


if folder("NC_DATA", "mnist"):
    with case("an exported time step gives our logits in ONNX Runtime"):
        torch.manual_seed(0)
        pool = nn.AvgPool2d(3, 2, 1, count_include_pad=False)  # a factor for every place
        model = nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU(), pool, nn.Conv2d(6, 8, 3, 1, 1), nn.ReLU(),
                              nn.Flatten(), nn.Linear(392, 10)).eval()
        path, _ = spiking(model, "torchscript", "mnist", 16, (1, 28, 28))
        x = np.random.default_rng(0).uniform(-1, 1, (20, 1, 28, 28)).astype(np.float32)
        np.save(work / "x.npy", x)
        program("nc_convert", "run", path, "--input", work / "x.npy", "--out", work / "y.npy", "--T", 16, "--force")
        want, got = np.load(work / "y.npy"), step_of(path, x, 16)
        same = np.isclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max()).all(axis=1).sum()
        print(f"time step: {same} of {len(x)} samples agree to 1e-5 of the largest logit")
        # A sum in another order may move a membrane across its threshold, once in a while.
        assert same >= len(x) - 1, (want, got)
else:
    skip("an exported time step in ONNX Runtime", "no NC_DATA with mnist")

if not have("torchvision"):
    skip("torchvision's ResNet-18", "no package torchvision")
elif not folder("NC_DATA", "cifar10"):
    skip("torchvision's ResNet-18", "no NC_DATA with cifar10")
else:
    with case("torchvision's ResNet-18 becomes a spiking network that runs 32 steps"):
        from torchvision.models import resnet18
        torch.manual_seed(0)
        _, result = spiking(resnet18(num_classes=10).eval(), "dynamo", "cifar10", 32, (3, 32, 32))
        layers = [layer["name"] for layer in result["layers"]]
        # 8 blocks with one ReLU module each, used twice, and the one of the stem.
        assert len(layers) == 17 and len(set(layers)) == 17, layers
        assert any("max pooling" in warning for warning in result["warnings"]), result["warnings"]
        assert result["T"] == 32 and len(result["accuracy_at_t"]) >= 32, result

for exporter in ["torchscript", "dynamo"]:
    for seed in range(100 if full else 8):
        name = f"random network {seed}, {exporter}"
        path = work / f"{exporter}{seed}.onnx"
        try:
            net = Net(seed)
            x = torch.randn(3, *net.input_shape, generator=torch.Generator().manual_seed(seed))
            export(net, x[:2] if seed % 2 == 1 else x[:1], path, exporter, seed)
        except Exception as error:
            check(name, False, f"export: {error}")
            continue
        compare(name, path, x.numpy(), exporter)
for exporter, difference in largest.items():
    print(f"{exporter}: largest difference {difference:.2e} of the largest logit")

finish()
