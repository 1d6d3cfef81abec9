"""Networks exported from PyTorch to ONNX, imported here: the logits are ONNX Runtime's."""
import contextlib
import io
import logging

from checks import check, finish, full, need, program, work

np, torch, onnx, ort, _ = need("numpy", "torch", "onnx", "onnxruntime", "onnxscript")
from onnx_nets import Net  # noqa: E402  after need(): it imports torch

logging.disable(logging.WARNING)
torch.set_num_threads(1)
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
        check(name, difference <= 1e-4, f"largest difference {difference:.2e} of the largest logit, {path}")
    except Exception as error:
        check(name, False, error)


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
