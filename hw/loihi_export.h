// A quantised network as one JSON document that holds all it takes to program a Loihi 2 chip, and
// a script that runs it with Lava's own processes where those can express it.
//
// {
//   "format": "neurocuda-loihi", "version": 1,
//   "target": "loihi2",
//   "T": steps of every population, "depth": of the readout, "steps": T + depth, of a run,
//   "latency": 1, the steps from a spike to the current it causes,
//   "fraction_bits": 6: u, v, v(0) and biases are in 1/64 of a weight's unit; thresholds, shifted
//       left by as much, are compared with them,
//   "input": {"name", "shape": [H, W, C] or [F], "bits": 8, "scale": a value x enters as the
//       graded event clip(round(x * scale), -128, 127), round to even; the same at each of T steps,
//       or one frame a step},
//   "populations": [in an order in which each comes after those it hears, the last the readout:
//     {"name", "kind": "spiking" | "readout", "shape": neurons in this order, channels last,
//      "depth": d; its own step t = 0 .. T - 1 is the run's step d + t, counted from 0; before and
//          after it stands still,
//      "neuron": {"du": 4095: u holds one step's current, "dv": v decays by dv / 4096, "compare":
//          ">=", "reset": "subtract" | "zero", "threshold": [1], [C] or [neurons] of them, "v0": as
//          many, "amplitude": 1}; null for the readout, which adds up its current and bias over its
//          T steps (24 bits may not be enough: sums are the host's),
//      "bias": [C] in a weight's unit, at each step; of a spiking one that hears no input also
//      "bias_mantissa" and "bias_exponent": [C], bias * 64 = mantissa << exponent, else null: the
//          input's current brings the bias with it,
//      "synapses": [{
//        "from": a population's or the input's name, "kind": "linear" | "conv" | "diagonal",
//        "delay": steps beyond the latency,
//        "weight_exponent": -1, "weight_mantissa": even, 8 bits and a sign, twice the weight:
//            linear [in, out]; conv [kh, kw, C in / groups, C out]; diagonal [C],
//        "conv": null or {"input": [H, W, C], "kernel", "stride", "padding", "dilation": [y, x],
//            "groups"}, of the pooled source,
//        "pool": null or {"kernel", "stride", "padding": [y, x]}: sums of spikes, 0 .. ky kx, come
//            before the weights}]}]
// }
#pragma once

#include <string>

#include "hw/integers.h"
#include "io/json.h"

namespace nc {

// Error (kind model) as of place(): what does not fit the chip's widths is named.
Json to_loihi(const IntegerNetwork&, int T);

struct LoihiFile {
    IntegerNetwork network;
    int T = 0;
};
// Error (kind model) that names path and what is wrong, whatever the document.
LoihiFile from_loihi(const Json&, const std::string& path);

// A Python script for Lava that loads the document `file` beside it. Lava's LIF spikes when v is
// above (threshold - 1) * 64, not at threshold * 64: the same as long as u, v and biases are
// multiples of 64, so without decay. It resets to zero and has one threshold a population. Error
// (kind model) that names the population that wants otherwise.
std::string lava_script(const IntegerNetwork&, const std::string& file);

}  // namespace nc
