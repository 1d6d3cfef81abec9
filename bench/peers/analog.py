#!/usr/bin/env python3
"""The same analog network, weights and samples on this library and on ONNX Runtime: who is how fast.

usage: analog.py --libnc libnc.so --model ann.safetensors --samples DIR [--threads N] [--rounds N] [--json FILE]

DIR is what `nc_bench ann --dump DIR` wrote: input.npy, logits.npy. The model file's graph becomes an ONNX file, node by
node. ONNX Runtime's logits are first held against ours: they may differ by 1e-4 of the largest, the sum of both
programs' roundings (Winograd's F(4x4, 3x3), which ours may choose, adds about 1e-5 of the largest a layer). Then the two
take turns, and each one's fastest and median run are compared.
"""
import argparse
import os
import pathlib
import sys

import numpy

from peers import NeuroCUDA, read_model, save_result, take_turns, turn_of

ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}


def to_onnx(path, shape):
    """The graph for inputs [N, C, H, W] or [N, F] of this shape."""
    import onnx
    from onnx import helper, numpy_helper

    nodes, edges, tensors = read_model(path)
    made, constants = [], []

    def constant(name):
        constants.append(numpy_helper.from_array(tensors[name], name))
        return name

    def weights(name):
        return [constant(f"{name}.{field}") for field in ("weight", "bias") if f"{name}.{field}" in tensors]

    def pair(node, field, default):
        value = node.get(field, default)
        return list(value) if isinstance(value, (list, tuple)) else [value, value]

    def window(node):
        kernel = pair(node, "kernel_size", 2)
        pads = pair(node, "padding", 0)
        return {"kernel_shape": kernel, "strides": pair(node, "stride", kernel), "pads": pads + pads}

    values = {}
    for node in nodes:
        name, op = node["name"], node["op"]
        inputs = [values[source] for source in edges.get(name, [])]
        if op == "input":
            values[name] = "x"
            continue
        x = inputs[0]
        for i, other in enumerate(inputs[1:]):
            made.append(helper.make_node("Add", [x, other], [f"{name}.sum{i}"]))
            x = f"{name}.sum{i}"
        values[name] = name
        if op == "conv":
            pads = pair(node, "padding", 0)
            options = {"strides": pair(node, "stride", 1), "dilations": pair(node, "dilation", 1), "pads": pads + pads}
            made.append(helper.make_node("Conv", [x] + weights(name), [name], group=node.get("groups", 1), **options))
        elif op == "linear":
            made.append(helper.make_node("Gemm", [x] + weights(name), [name], transB=1))
        elif op == "batch_norm":
            channels = tensors[name + ".running_mean"].size
            for field, value in (("weight", 1), ("bias", 0)):
                tensors.setdefault(f"{name}.{field}", numpy.full(channels, value, numpy.float32))
            arguments = [x] + [constant(f"{name}.{field}") for field in ("weight", "bias", "running_mean", "running_var")]
            made.append(helper.make_node("BatchNormalization", arguments, [name], epsilon=node.get("eps", 1e-5)))
        elif op == "activation" and node.get("kind", "relu") in ACTIVATIONS:
            made.append(helper.make_node(ACTIVATIONS[node.get("kind", "relu")], [x], [name]))
        elif op == "average_pool":
            made.append(helper.make_node("AveragePool", [x], [name], count_include_pad=1, **window(node)))
        elif op == "max_pool":
            made.append(helper.make_node("MaxPool", [x], [name], **window(node)))
        elif op == "global_average_pool":
            made.append(helper.make_node("GlobalAveragePool", [x], [name + ".pooled"]))
            made.append(helper.make_node("Flatten", [name + ".pooled"], [name]))
        elif op == "flatten":
            made.append(helper.make_node("Flatten", [x], [name]))
        elif op in ("add", "output"):
            values[name] = x
        else:
            sys.exit(f"error: {name} ({op}) is not compared")
        if op == "output":
            made.append(helper.make_node("Identity", [x], ["logits"]))
    graph = helper.make_graph(
        made,
        "network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [shape[0], "classes"])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


class OnnxRuntime:
    def __init__(self, model, threads, x):
        import onnxruntime

        self.x = numpy.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(
            to_onnx(model, self.x.shape), options, providers=["CPUExecutionProvider"]
        )

    def run(self):
        return self.session.run(None, {"x": self.x})[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libnc", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--samples", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-arguments.threads :])
    folder = pathlib.Path(arguments.samples)
    x, want = numpy.load(folder / "input.npy"), numpy.load(folder / "logits.npy")

    programs = {"NeuroCUDA": NeuroCUDA(arguments.libnc, arguments.model, arguments.threads, x, 1, want.shape[1])}
    if not numpy.array_equal(programs["NeuroCUDA"].run(), want):
        sys.exit("error: nc.h gives other logits than nc_bench")
    try:
        import onnx  # noqa: F401  to_onnx needs it

        programs["ONNX Runtime"] = peer = OnnxRuntime(arguments.model, arguments.threads, x)
    except ImportError as e:
        print(f"skipped: ONNX Runtime: {e}")
        return
    far = float(numpy.abs(peer.run() - want).max() / numpy.abs(want).max())
    print(f"ONNX Runtime: logits differ by {far:.2g} of the largest")
    if not far <= 1e-4:
        sys.exit("error: not timed: ONNX Runtime computes something else")

    rows = take_turns({name: turn_of(program) for name, program in programs.items()}, arguments.rounds)
    if arguments.json:
        name = pathlib.Path(arguments.model).name
        save_result(arguments.json, {"model": name, "batch": len(want), "threads": arguments.threads, "programs": rows})


if __name__ == "__main__":
    main()
