// Graph: the only description of a network. Nodes are plain structs, one per operation; edges carry
// activations; several edges into one node are a sum.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/ops.h"

namespace nc {

// Shapes are those of one sample: [F] or [H, W, C], without batch and time.
struct Input {
    Shape shape;
    // Above 0, of a quantised network: it takes round(x * scale), clipped to -128 .. 127.
    double scale = 0;
};
struct Output {};
struct Linear {
    Tensor weight;  // [in, out]
    Tensor bias;    // [out] or undefined
};
struct Conv {
    Tensor weight;  // [kh, kw, cin / groups, cout]
    Tensor bias;    // [cout] or undefined
    ops::ConvOptions options;
};
struct BatchNorm {
    Tensor gamma, beta;     // [C]; both undefined: not affine
    Tensor mean, variance;  // [C] running statistics
    double eps = 1e-5;
    double momentum = 0.1;  // running = (1 - momentum) running + momentum batch, variance unbiased
};
struct Activation {
    kernels::Activation kind = kernels::Activation::relu;
    double param = 0;  // leaky_relu: negative slope
};
struct PRelu {
    Tensor slope;  // [C] or [1]
};
// Quantisation, clip, floor, shift (Bu et al., ICLR 2022).
struct Qcfs {
    Tensor lambda;  // [C] or [1], > 0
    int levels = 8;
};
// Integrate-and-fire, leaky or not. All conventions are fields.
struct Neuron {
    enum class Amplitude { theta, one };
    Tensor theta;  // one element, C or as many as a sample has, > 0
    Tensor v0;     // membrane before the first step, sized likewise; undefined: v0_fraction * theta
    double v0_fraction = 0.5;
    Amplitude amplitude = Amplitude::theta;
    bool train_theta = false;
    kernels::NeuronRule<double> rule;  // beta 1: IF
};
struct AveragePool {
    ops::PoolOptions options;
};
struct MaxPool {
    ops::PoolOptions options;
};
struct GlobalAveragePool {};  // [H, W, C] -> [C]
struct Flatten {};            // [H, W, C] -> [H * W * C]
struct Scale {
    Tensor scale;  // one element, C or as many as a sample has
};
struct Add {};  // the sum of its edges, a named place for a residual without a neuron
// A bias for every step: row t is added at step t, the last one at all that follow.
struct StepBias {
    Tensor bias;  // [steps, C]
};
// A membrane in physical time, by forward Euler: what NIR's I, LI, LIF, CubaLI and CubaLIF have in
// common. Per step the synaptic current i += dt / tau_syn (w_in x - i), or i = x without tau_syn;
// then v += dt / tau (v_leak - v + r i), or v += r i without tau. i and v start at 0. It emits v,
// or with a threshold 1 where v > threshold, and there v = v_reset. Inference only.
struct Membrane {
    Tensor r;                   // each tensor: one element, C or as many as a sample has
    Tensor tau, v_leak;         // tau in seconds, > 0; both or neither
    Tensor tau_syn, w_in;       // both or neither, only with tau
    Tensor threshold, v_reset;  // both or neither
    double dt = 1e-4;           // seconds
};
struct Threshold {
    Tensor threshold;  // sized likewise; emits 1 where x > threshold, else 0
};

using Operation = std::variant<Input, Output, Linear, Conv, BatchNorm, Activation, PRelu, Qcfs,
                               Neuron, AveragePool, MaxPool, GlobalAveragePool, Flatten, Scale, Add,
                               StepBias, Membrane, Threshold>;

struct Node {
    std::string name;  // unique, [A-Za-z0-9_.-]+
    Operation op;
};

struct Edge {
    size_t from, to;  // indices into nodes
    int delay = 0;    // steps
    bool operator==(const Edge&) const = default;
};

struct Graph {
    std::vector<Node> nodes;
    std::vector<Edge> edges;  // edges into one node are added in this order
};

// What a tensor of a node is to training.
enum class TensorRole { weight, bias, norm, threshold, statistic };  // statistic: never trained
// Calls visit(field name, tensor, role) for every tensor field of the node, defined or not, in a
// fixed order. A parameter's full name is "<node>.<field>".
void for_each_tensor(Node&,
                     const std::function<void(const char* field, Tensor&, TensorRole)>& visit);
void for_each_tensor(
    const Node&, const std::function<void(const char* field, const Tensor&, TensorRole)>& visit);

std::string_view operation_name(const Operation&);  // "conv", "neuron", "average_pool", ...

// Throws Error (kind model) that names the node: duplicate or bad names, one Input and one Output,
// dangling or duplicate edges, cycles among edges of delay 0, nodes on no path from the input to
// the output, shapes that do not fit, thresholds <= 0 or not finite, other fields out of range.
void check(const Graph&);
std::vector<size_t> topological_order(const Graph&);  // edges of delay 0; Error on a cycle
std::vector<Shape> infer_shapes(
    const Graph&);  // each node's output, per sample; Error names node and shapes
// Which nodes lie on a path from an input to an output, delayed edges included.
std::vector<bool> between_input_and_output(const Graph&);
std::vector<size_t> inputs_of(const Graph&, size_t node);   // indices of edges into it, in order
std::vector<size_t> outputs_of(const Graph&, size_t node);  // indices of edges out of it
size_t find_node(const Graph&, std::string_view name);      // Error when absent

bool is_spiking(const Graph&);         // has a Neuron or a Membrane: its state needs time
bool emits_spikes(const Operation&);   // Neuron, Threshold, Membrane with a threshold
bool is_residual(const Graph&);        // some node has two or more incoming edges of delay 0
size_t weight_layers(const Graph&);    // Linear and Conv nodes
size_t parameter_count(const Graph&);  // elements of all tensors but statistics

// The same graph with its tensors where this Compute works; on the CPU the graph itself, shared.
// Files and passes take graphs whose tensors are on the host, forward() those that are on its
// device. A neuron whose thresholds are all 1 gets amplitude `one` there: that its outputs are 0 or
// 1 is then known without reading.
Graph on_device(Graph, const Compute&);
Graph on_host(Graph);  // and back

// Builder: each adds a node after `from` and returns its index. Weights are drawn by the caller
// (neurons/zoo) or given.
size_t add_node(Graph&, const std::string& name, Operation op, const std::vector<size_t>& from);

}  // namespace nc
