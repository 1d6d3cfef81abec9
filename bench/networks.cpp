// Measuring networks: a trained one through the inference runtime.
#include "bench/networks.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "bench/kernels.h"
#include "datasets/dataset.h"
#include "hw/fpga.h"
#include "neurons/forward.h"
#include "neurons/nc.h"

namespace nc::bench {
namespace {

constexpr size_t checked_samples = 2;

// Sample n alone, as the interpreter takes it.
Tensor sample_of(const Samples& s, const Shape& shape, size_t n) {
    const size_t size = shape.elements(), steps = s.temporal ? s.T : 1;
    std::vector<float> out(steps * size);
    for (size_t t = 0; t < steps; ++t)
        std::memcpy(out.data() + t * size, s.x.data<float>() + (t * s.N + n) * size,
                    size * sizeof(float));
    const Shape one = shape.with_leading(1);
    return Tensor::from(out, s.temporal ? one.with_leading(s.T) : one);
}

void check_against_interpreter(const Runtime& runtime, const Samples& s, const InferCase& c,
                               const std::vector<float>& outputs) {
    Compute compute(*c.table, 1);
    const size_t K = runtime.outputs();
    for (size_t n = 0; n < std::min(c.N, checked_samples); ++n) {
        ForwardOptions options;
        options.T = c.T;
        options.temporal_input = s.temporal;
        const Forwarded want =
            forward(compute, runtime.graph(), {}, sample_of(s, runtime.sample(), n), options);
        const float* output = want.output.value.data<float>();
        for (size_t t = 0; t < c.T; ++t)
            if (std::memcmp(output + t * K, outputs.data() + (t * c.N + n) * K,
                            K * sizeof(float)) != 0)
                throw Error(fmt::format(
                    "[bench] sample {}, step {}: the runtime's output on table {}, path {}, is not "
                    "the interpreter's",
                    n, t, c.table->name, path_name(c.path)));
    }
}

bool leaks(const Graph& g) {
    for (const Node& node : g.nodes)
        if (const auto* neuron = std::get_if<Neuron>(&node.op); neuron && neuron->rule.beta != 1)
            return true;
    return false;
}

// Leaky membranes are cut to whole 1/64 there, so floats say something else.
void check_against_simulator(const Runtime& runtime, const Samples& s, const InferCase& c,
                             const std::vector<float>& outputs) {
    const IntegerNetwork net = integer_network(runtime.graph());
    const FpgaPlan plan = fpga_plan(net, int(c.T));
    const size_t K = runtime.outputs();
    for (size_t n = 0; n < std::min(c.N, checked_samples); ++n) {
        const Tensor x = sample_of(s, runtime.sample(), n);
        const auto events = input_events(net, x.data<float>(), x.elements());
        const auto logits = run_fpga(plan, net, events, 1, int(c.T), s.temporal).logits;
        for (size_t k = 0; k < K; ++k) {
            int64_t sum = 0;
            for (size_t t = 0; t < c.T; ++t) sum += int64_t(outputs[(t * c.N + n) * K + k]);
            if (sum != logits[k])
                throw Error(
                    fmt::format("[bench] sample {}, output {}: the runtime's sum {} on "
                                "table {} is not the integer simulator's {}",
                                n, k, sum, c.table->name, logits[k]));
        }
    }
}

}  // namespace

const char* path_name(RuntimePath path) {
    if (path == RuntimePath::automatic) return "auto";
    return path == RuntimePath::dense ? "dense" : "event";
}

const char* conv_name(ConvChoice conv) {
    if (conv == ConvChoice::automatic) return "auto";
    if (conv == ConvChoice::direct) return "direct";
    return conv == ConvChoice::winograd2 ? "winograd2" : "winograd4";
}

const char* method_name(kernels::ConvMethod method) {
    if (method == kernels::ConvMethod::direct) return "direct";
    return method == kernels::ConvMethod::winograd2 ? "winograd2" : "winograd4";
}

Samples samples_for(const Model& model, const std::string& data_root, size_t T, size_t N) {
    Samples out;
    out.N = N;
    out.T = T;
    Shape sample;
    for (const Node& node : model.graph.nodes)
        if (const auto* input = std::get_if<Input>(&node.op)) sample = input->shape;
    if (model.info.dataset.empty()) {
        out.source = "random samples: the model names no data set, so rates mean nothing";
        out.x = Tensor::from(random_floats(N * sample.elements(), 1), sample.with_leading(N));
        return out;
    }
    DataRequest request;
    request.name = model.info.dataset;
    request.root = data_root;
    request.T = int(T);
    request.mean = model.info.mean;
    request.std = model.info.std;
    const DataSets sets = load_data(request);
    Compute compute(Device{}, 1);
    Random random(0, 0);
    std::vector<uint32_t> indices(N);
    for (size_t i = 0; i < N; ++i) indices[i] = uint32_t(i % sets.test->size());
    const Batch batch = sets.test->batch(compute, indices, {}, random);
    out.x = batch.x;
    out.temporal = batch.temporal;
    if (out.temporal && !is_spiking(model.graph)) {  // single frames
        out.x = out.x.slice(0, 1).reshape(sample.with_leading(N));
        out.temporal = false;
    }
    out.source = fmt::format("{} test samples of {}", N, model.info.dataset);
    return out;
}

InferRow measure_inference(Machine& machine, const Model& model, const std::string& path,
                           const Samples& s, const InferCase& c, double seconds) {
    RuntimeOptions options;
    options.threads = c.threads;
    options.T = c.T;
    options.temporal = s.temporal;
    options.path = c.path;
    options.table = c.table;
    options.integers = c.integers;
    Runtime runtime(model.graph, options);
    std::vector<float> logits(c.N * runtime.outputs()), outputs(c.T * logits.size());
    const float* x = s.x.data<float>();
    runtime.run(x, s.temporal, c.T, c.N, logits.data(), nullptr, outputs.data());
    if (runtime.integers() && leaks(runtime.graph()))
        check_against_simulator(runtime, s, c, outputs);
    else
        check_against_interpreter(runtime, s, c, outputs);
    Compute compute(*c.table, int(c.threads));
    const Timing timing =
        time_runs(seconds, compute, [&] { runtime.run(x, s.temporal, c.T, c.N, logits.data()); });

    InferRow out;
    out.activity = runtime.activity();
    out.spikes = runtime.spike_count();
    out.logits = Tensor::from(logits, {c.N, runtime.outputs()});
    double operations = 0, bytes = double(s.x.bytes());
    for (size_t i = 0; i < out.activity.size(); ++i) {
        const LayerActivity& a = out.activity[i];
        operations += a.multiplies * (a.graded ? 2 : 1);
        if (a.events > 0)
            out.dense_operations += 2 * a.multiplies / double(a.events) * double(a.inputs);
    }
    for (const Node& node : runtime.graph().nodes)
        for_each_tensor(
            node, [&](const char*, const Tensor& t, TensorRole) { bytes += double(t.bytes()); });
    const std::string stem = path.substr(path.find_last_of('/') + 1);
    const std::string name = fmt::format("infer/{}/T{}-batch{}/{}", stem.substr(0, stem.find('.')),
                                         c.T, c.N, path_name(c.path)) +
                             (runtime.integers() ? "-integers" : "");
    out.row = make_row(machine, name, compute, operations, bytes, timing);
    out.again = fmt::format(
        "nc_bench infer {} --T {} --batch {} --threads {} --mode {} --table {}{}", path, c.T, c.N,
        c.threads, path_name(c.path), c.table->name, c.integers ? "" : " --floats");
    return out;
}

AnnRow measure_ann(Machine& machine, const Model& model, const std::string& path, const Samples& s,
                   const AnnCase& c, double seconds) {
    AnalogRuntime runtime(model.graph, {c.threads, c.N, c.conv, c.table});
    const size_t K = runtime.outputs(), checked = std::min(c.N, checked_samples);
    std::vector<float> logits(c.N * K);
    const float* x = s.x.data<float>();
    runtime.run(x, c.N, logits.data());
    Compute compute(*c.table, int(c.threads));
    const Tensor want =
        mean_logits(compute, nullptr, forward(compute, model.graph, {}, s.x.slice(0, checked), {}))
            .value;
    AnnRow out;
    double largest = 0;
    for (size_t i = 0; i < checked * K; ++i) {
        const double logit = double(want.data<float>()[i]);
        largest = std::max(largest, std::fabs(logit));
        out.far = std::max(out.far, std::fabs(logit - double(logits[i])));
    }
    out.far /= largest > 0 ? largest : 1;
    if (!(out.far <= 1e-4))
        throw Error(
            fmt::format("[bench] the runtime's logits on table {}, conv {}, are {} of the "
                        "largest from the interpreter's",
                        c.table->name, conv_name(c.conv), out.far));
    const Timing timing = time_runs(seconds, compute, [&] { runtime.run(x, c.N, logits.data()); });
    out.layers = runtime.layers();
    out.logits = Tensor::from(logits, {c.N, K});
    double operations = 0, bytes = double(s.x.bytes());
    for (const AnalogLayer& layer : out.layers) {
        operations += layer.operations * double(c.N);
        bytes += double(layer.weight_bytes);
    }
    const std::string stem = path.substr(path.find_last_of('/') + 1);
    out.row = make_row(
        machine,
        fmt::format("ann/{}/batch{}/{}", stem.substr(0, stem.find('.')), c.N, conv_name(c.conv)),
        compute, operations, bytes, timing);
    out.again = fmt::format("nc_bench ann {} --batch {} --threads {} --conv {} --table {}", path,
                            c.N, c.threads, conv_name(c.conv), c.table->name);
    return out;
}

Latency measure_latency(const std::string& path, const Samples& s, const InferCase& c,
                        size_t runs) {
    nc_options options = {};
    options.threads = uint32_t(c.threads);
    options.steps = uint32_t(c.T);
    options.path = uint32_t(c.path);
    nc_model model = 0;
    nc_info info = {};
    if (nc_load(path.c_str(), &options, &model) != NC_OK || nc_get_info(model, &info) != NC_OK)
        throw Error(nc_error(), ErrorKind::model);
    cpu_set_t before, one;
    CPU_ZERO(&one);
    const int processor = sched_getcpu();
    CPU_SET(processor < 0 ? 0 : size_t(processor), &one);
    const bool pinned = sched_getaffinity(0, sizeof before, &before) == 0 &&
                        sched_setaffinity(0, sizeof one, &one) == 0;
    std::vector<float> logits(info.outputs);
    std::vector<double> times;
    times.reserve(runs);
    const size_t size = info.input_size * (s.temporal ? s.T : 1);
    nc_status status = NC_OK;
    for (size_t i = 0; i < runs + 10 && status == NC_OK; ++i) {
        const double begin = now();
        status = nc_run(model, s.x.data<float>(), size, 1, c.T, logits.data(), info.outputs);
        if (i >= 10) times.push_back(now() - begin);  // the first ones meet cold caches
    }
    if (pinned) sched_setaffinity(0, sizeof before, &before);
    const std::string why = nc_error();
    nc_free(model);
    if (status != NC_OK) throw Error(why);
    std::sort(times.begin(), times.end());
    return {runs, quantile(times, 0.5), quantile(times, 0.99), quantile(times, 0.999),
            times.back()};
}

}  // namespace nc::bench
