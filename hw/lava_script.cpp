// The script that runs an exported network with Lava's stock processes.
#include <algorithm>

#include "hw/loihi_export.h"

namespace nc {

namespace {

// Biases enter as graded events and not by their registers: so a layer starts at its depth.
const char* const script = R"py(#!/usr/bin/env python3
"""Runs the network in @FILE@ with Lava's LIF, Sparse and RingBuffer, bit-accurate models on the CPU.

Written from the definitions of Lava 0.9; NOT RUN when it was generated.

usage: python3 SCRIPT EVENTS.npy     graded input events of one sample, whole numbers -128 .. 127:
                                      [H, W, C] or [F] for all steps, or one more axis first for time
"""
import json
import pathlib
import sys

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source
from lava.proc.lif.process import LIF
from lava.proc.sparse.process import Sparse
from lava.utils.weightutils import SignMode
from scipy.sparse import coo_matrix, identity


def windows(shape, kernel, stride, padding, dilation=(1, 1)):
    """(output y, x, kernel y, x, input y, x) of every place a kernel really covers."""
    size = [(shape[a] + 2 * padding[a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in (0, 1)]
    for oy, ox, ky, kx in np.ndindex(*size, *kernel):
        y, x = oy * stride[0] + ky * dilation[0] - padding[0], ox * stride[1] + kx * dilation[1] - padding[1]
        if 0 <= y < shape[0] and 0 <= x < shape[1]:
            yield oy, ox, ky, kx, y, x, size


def matrix(synapses, source, target):
    """Weight mantissas as [neurons, inputs], whole numbers."""
    weight, rows, columns, values = np.array(synapses["weight_mantissa"], dtype=np.int64), [], [], []
    shape, pool = source["shape"], None
    if synapses["pool"]:
        p = synapses["pool"]
        channels = np.arange(shape[2])
        for oy, ox, _, _, y, x, size in windows(shape, p["kernel"], p["stride"], p["padding"]):
            rows.append((oy * size[1] + ox) * shape[2] + channels)
            columns.append((y * shape[1] + x) * shape[2] + channels)
        rows, columns = np.concatenate(rows), np.concatenate(columns)
        pooled = [*size, shape[2]]
        pool = coo_matrix((np.ones(len(rows), np.int64), (rows, columns)),
                          (int(np.prod(pooled)), int(np.prod(shape)))).tocsr()
        shape, rows, columns = pooled, [], []
    inputs, neurons = int(np.prod(shape)), int(np.prod(target["shape"]))
    if synapses["kind"] == "linear":
        out = coo_matrix(weight.reshape(inputs, neurons).T)
    elif synapses["kind"] == "diagonal":
        each = np.arange(neurons)
        out = coo_matrix((np.resize(weight, neurons), (each, each)), (neurons, neurons))
    else:
        c = synapses["conv"]
        wide, deep = target["shape"][2] // c["groups"], shape[2] // c["groups"]
        kernel = weight.reshape(*c["kernel"], deep, target["shape"][2])
        for oy, ox, ky, kx, y, x, size in windows(shape, c["kernel"], c["stride"], c["padding"], c["dilation"]):
            i, o = np.meshgrid(np.arange(deep), np.arange(target["shape"][2]), indexing="ij")
            rows.append(((oy * size[1] + ox) * target["shape"][2] + o).ravel())
            columns.append(((y * shape[1] + x) * shape[2] + o // wide * deep + i).ravel())
            values.append(kernel[ky, kx].ravel())
        out = coo_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
                         (neurons, inputs))
    out = out.tocsr() if pool is None else out.tocsr() @ pool
    out.eliminate_zeros()
    return out


def connect(out_port, target, weights, graded_bits=0):
    """Synapses hold 8 bits and a sign: where overlapping pools add weights up, several of them."""
    rest = weights
    while rest.nnz > 0:
        part = rest.copy()
        part.data = np.clip(part.data, -254, 254)
        rest = (rest - part).tocsr()
        rest.eliminate_zeros()
        synapses = Sparse(weights=part, weight_exp=-1, num_message_bits=graded_bits, sign_mode=SignMode.MIXED)
        out_port.connect(synapses.s_in)
        synapses.a_out.connect(target.a_in)


def main():
    net = json.loads((pathlib.Path(__file__).resolve().parent / "@FILE@").read_text())
    T, steps = net["T"], net["steps"]
    events = np.load(sys.argv[1]).astype(np.int64)
    size = int(np.prod(net["input"]["shape"]))
    events = np.broadcast_to(events.reshape(-1, size), (T, size))
    places = {net["input"]["name"]: dict(net["input"], depth=0)}
    layers, sinks, started = {}, {}, None
    for p in net["populations"]:
        places[p["name"]] = p
        if p["kind"] == "readout":
            continue
        n = p["neuron"]
        assert n["reset"] == "zero" and n["dv"] == 0 and len(set(n["threshold"])) == 1, p["name"]
        count = int(np.prod(p["shape"]))
        # v > (threshold - 1) * 64 is v >= threshold * 64: all of it is multiples of 64.
        layer = LIF(shape=(count,), u=0, v=n["v0"][0], du=4095, dv=0, bias_mant=0, bias_exp=0,
                    vth=n["threshold"][0] - 1)
        layers[p["name"]] = layer
        for s in p["synapses"]:
            weights = matrix(s, places[s["from"]], p)
            if s["from"] == net["input"]["name"]:
                data = np.zeros((size, steps), np.int32)
                first = s["delay"]
                data[:, first:min(steps, first + T)] = events.T[:, :min(T, steps - first)]
                source = Source(data=data)
                connect(source.s_out, layer, weights, graded_bits=8)
                started = source
                continue
            port = layers[s["from"]].s_out
            for _ in range(s["delay"]):  # a neuron that repeats what it hears, a step later
                relay = LIF(shape=(weights.shape[1],), du=4095, dv=4095, vth=0)
                connect(port, relay, 2 * identity(weights.shape[1], dtype=np.int64, format="csr"))
                port = relay.s_out
            connect(port, layer, weights)
        if any(p["bias"]):
            data = np.zeros((count, steps), np.int32)
            data[:, p["depth"] - 1:p["depth"] - 1 + T] = np.resize(p["bias"], count)[:, None]
            source = Source(data=data)
            connect(source.s_out, layer, 2 * identity(count, dtype=np.int64, format="csr"), graded_bits=24)
        sinks[p["name"]] = Sink(shape=(count,), buffer=steps)
        layer.s_out.connect(sinks[p["name"]].a_in)

    started.run(condition=RunSteps(num_steps=steps), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    spikes = {name: sink.data.get().astype(np.int64) for name, sink in sinks.items()}
    started.stop()

    # The readout's sums need more than 24 bits: the host adds up the spikes' weights.
    last = net["populations"][-1]
    logits = T * np.resize(np.array(last["bias"], dtype=np.int64), int(np.prod(last["shape"])))
    for s in last["synapses"]:
        weights, source = matrix(s, places[s["from"]], last), places[s["from"]]
        late = s["delay"] - (last["depth"] - source["depth"] - 1)
        if s["from"] == net["input"]["name"]:
            heard = events[:T - late].sum(0)
        else:
            heard = spikes[s["from"]][:, source["depth"]:source["depth"] + T - late].sum(1)
        logits = logits + weights @ heard // 2
    for name, train in spikes.items():
        depth = places[name]["depth"]
        print(f"{name}: {int(train[:, depth:depth + T].sum())} spikes")
    print("logits:", *logits)
    print("class:", int(np.argmax(logits)))


main()
)py";

}  // namespace

std::string lava_script(const IntegerNetwork& net, const std::string& file) {
    for (const Population& p : net.populations) {
        const auto refuse = [&](const std::string& what) {
            throw Error("[lava] '" + p.name + "' " + what, ErrorKind::model,
                        "--emit loihi=FILE describes every quantised network");
        };
        if (!p.spiking) continue;
        if (!p.reset_to_zero) refuse("subtracts its threshold: Lava's LIF resets to zero");
        if (p.decay != 0)
            refuse(
                "is leaky: its membranes are no multiples of 64, so that Lava's strict comparison "
                "with threshold - 1 is another one");
        if (std::any_of(p.threshold.begin(), p.threshold.end(),
                        [&](int32_t theta) { return theta != p.threshold.front(); }))
            refuse(
                "has several thresholds: Lava's LIF has one a population (nc_convert quantize "
                "--one-threshold keeps it so)");
    }
    std::string out = script;
    for (size_t at = 0; (at = out.find("@FILE@", at)) != std::string::npos; at += file.size())
        out.replace(at, 6, file);
    return out;
}

}  // namespace nc
