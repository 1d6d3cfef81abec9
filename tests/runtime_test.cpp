// The inference runtime: the interpreter's bits in every mode, on every instruction set and with
// any number of threads; streaming, early exit, and no allocation while running.
#include "neurons/runtime.h"

#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>

#include "neurons/analog.h"
#include "neurons/forward.h"
#include "neurons/zoo.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

namespace {

Tensor random_tensor(const Shape& shape, uint64_t seed, double scale = 1) {
    return Tensor::from(normal_values(shape.elements(), seed, scale), shape);
}

// A network of the zoo whose neurons fire: larger weights, and batch norms as after training.
Graph lively(const std::string& model, const Shape& input, const std::string& neuron,
             double gain = 1.5) {
    ZooOptions options;
    options.activation = neuron;
    Graph g = make_model(model, input, 10, options);
    uint64_t seed = 1;
    for (Node& node : g.nodes) {
        for_each_tensor(node, [&](const char*, Tensor& t, TensorRole role) {
            if (role != TensorRole::weight || !t.defined()) return;
            float* w = t.data<float>();
            for (size_t i = 0; i < t.elements(); ++i) w[i] *= float(gain);
        });
        if (auto* bn = std::get_if<BatchNorm>(&node.op)) {
            const size_t c = bn->mean.elements();
            bn->mean = random_tensor({c}, ++seed, 0.1);
            bn->beta = random_tensor({c}, ++seed, 0.2);
        }
    }
    return g;
}

// Everything a graph may hold here: thresholds per channel and per neuron, both pools, a sum of
// three, a residual of scaled spikes, groups, dilation, resets to a value.
Graph rich_graph() {
    Graph g;
    const auto conv = [](size_t cin, size_t cout, uint64_t seed, ops::ConvOptions o) {
        return Conv{random_tensor({3, 3, cin, cout}, seed, 0.5),
                    random_tensor({cout}, seed + 1, 0.2), o};
    };
    const auto neuron = [](size_t n, double beta, bool to_value) {
        Neuron out = default_neuron("if");
        out.theta = Tensor::full<float>({n}, 0.75f);
        for (size_t i = 0; i < n; ++i) out.theta.data<float>()[i] += 0.05f * float(i % 9);
        out.amplitude = Neuron::Amplitude::one;
        out.rule.beta = beta;
        if (to_value) out.rule.reset = kernels::Reset::to_value, out.rule.reset_value = 0.1;
        if (to_value) out.rule.compare = kernels::Compare::greater;
        return out;
    };
    const ops::ConvOptions same = {.pad_h = 1, .pad_w = 1};
    const size_t in = add_node(g, "in", Input{{9, 8, 2}}, {});
    const size_t c1 = add_node(g, "c1", conv(2, 20, 1, same), {in});
    const size_t steps1 = add_node(g, "steps1", StepBias{random_tensor({2, 20}, 20)}, {c1});
    const size_t s1 = add_node(g, "s1", neuron(20, 1, false), {steps1});
    const size_t c2 = add_node(g, "c2", conv(20, 20, 3, same), {s1});
    const size_t scale = add_node(g, "scale", Scale{random_tensor({20}, 5)}, {s1});
    const size_t s2 = add_node(g, "s2", neuron(9 * 8 * 20, 0.5, false), {scale, c2});
    const size_t c3 = add_node(
        g, "c3", conv(20, 20, 7, {.pad_h = 2, .pad_w = 2, .dilation_h = 2, .dilation_w = 2}), {s2});
    const size_t grouped =
        add_node(g, "grouped", conv(5, 20, 9, {.pad_h = 1, .pad_w = 1, .groups = 4}), {s2});
    const size_t s3 = add_node(g, "s3", neuron(1, 1, true), {c3, grouped, s1});
    const size_t max = add_node(g, "max", MaxPool{}, {s3});
    const size_t c4 = add_node(g, "c4", conv(20, 70, 11, same), {max});
    const size_t short4 = add_node(g, "short4", conv(20, 70, 13, same), {max});
    const size_t steps4 = add_node(g, "steps4", StepBias{random_tensor({3, 70}, 19)}, {c4});
    const size_t s4 = add_node(g, "s4", neuron(70, 1, false), {steps4, short4});
    const size_t avg = add_node(
        g, "avg",
        AveragePool{{.kh = 3, .kw = 3, .stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1}},
        {s4});
    const size_t flat = add_node(g, "flat", Flatten{}, {avg});
    const size_t fc1 =
        add_node(g, "fc1", Linear{random_tensor({2 * 2 * 70, 130}, 15, 0.3), {}}, {flat});
    const size_t s5 = add_node(g, "s5", neuron(130, 0.75, false), {fc1});
    const size_t fc2 =
        add_node(g, "fc2", Linear{random_tensor({130, 4}, 17, 0.3), random_tensor({4}, 18)}, {s5});
    add_node(g, "out", Output{}, {fc2});
    check(g);
    return g;
}

std::vector<const kernels::Table<float>*> cpu_tables() {
    size_t count = 0;
    const auto* all = kernels::usable(&count);
    std::vector<const kernels::Table<float>*> out;
    for (size_t i = 0; i < count; ++i)
        if (!all[i]->cuda) out.push_back(all[i]);
    return out;
}

struct Reference {
    Tensor output;                         // [T, 1, K]
    Tensor logits;                         // [1, K]
    std::map<std::string, Tensor> spikes;  // [T, ..]
};

// One sample through the interpreter.
Reference interpret(const kernels::Table<float>& table, const Graph& g, const Tensor& x,
                    bool temporal, size_t T) {
    Compute compute(table, 1);
    Reference out;
    ForwardOptions run;
    run.T = T;
    run.temporal_input = temporal;
    run.observe = [&](const Observation& o) {
        if (std::holds_alternative<Neuron>(g.nodes[o.node].op))
            out.spikes[g.nodes[o.node].name] = o.y;
    };
    const Forwarded f = forward(compute, g, {}, x, run);
    out.output = f.output.value;
    out.logits = mean_logits(compute, nullptr, f).value;
    return out;
}

size_t spike_count(const Tensor& t) {
    size_t n = 0;
    for (const float x : t.to_vector<float>()) n += x != 0;
    return n;
}

void check_same(const Reference& want, const Tensor& mean, Runtime& runtime,
                const std::vector<float>& logits, const std::vector<float>& outputs) {
    CHECK(first_difference(outputs.data(), want.output.data<float>(), outputs.size()) ==
          outputs.size());
    CHECK(first_difference(logits.data(), mean.data<float>(), logits.size()) == logits.size());
    for (const auto& [neuron, spikes] : want.spikes) {
        const std::string name = neuron;  // clang captures no parts of a pair
        INFO("neuron " << name);
        const Tensor got = runtime.spikes(name);
        REQUIRE(got.elements() == spikes.elements());
        CHECK(first_difference(got.data<float>(), spikes.data<float>(), got.elements()) ==
              got.elements());
    }
}

// The network on every table and path, with one thread and more, against the interpreter.
void check_network(const Graph& g, const Tensor& x, bool temporal, size_t T) {
    const Runtime folded(g);
    const Reference want = interpret(*cpu_tables().back(), folded.graph(), x, temporal, T);
    // The mean over steps is summed in double by the reference, in one order by all others.
    const Tensor mean = interpret(kernels::reference(), folded.graph(), x, temporal, T).logits;
    size_t spikes = 0;
    for (const auto& [neuron, train] : want.spikes) {
        const std::string name = neuron;
        INFO("neuron " << name);
        CHECK(spike_count(train) > 0);
        CHECK(spike_count(train) < train.elements());
        spikes += spike_count(train);
    }
    CHECK(spikes > 0);
    const size_t K = folded.outputs();
    for (const auto* table : cpu_tables())
        for (const RuntimePath path :
             {RuntimePath::automatic, RuntimePath::dense, RuntimePath::event})
            for (const size_t threads : {1, 3}) {
                if (table == &kernels::reference() && threads > 1) continue;
                INFO("table " << std::string(table->name) << " path " << int(path) << " threads "
                              << threads);
                RuntimeOptions options;
                options.threads = threads;
                options.T = T;
                options.temporal = temporal;
                options.path = path;
                options.record = true;
                options.table = table;
                Runtime runtime(g, options);
                for (int again = 0; again < 2; ++again) {
                    std::vector<float> logits(K), outputs(T * K);
                    runtime.run(x.data<float>(), temporal, T, 1, logits.data(), nullptr,
                                outputs.data());
                    check_same(want, table == &kernels::reference() ? mean : want.logits, runtime,
                               logits, outputs);
                }
            }
}

Tensor frames(size_t T, const Shape& sample, uint64_t seed, double rate) {
    auto x = spike_values(T * sample.elements(), seed, rate);
    for (size_t i = 0; i < x.size(); ++i) x[i] *= float(1 + i % 3);  // counts of events
    return Tensor::from(x, sample.with_leading(1).with_leading(T));
}

}  // namespace

TEST_CASE("runtime: a picture through lenet") {
    check_network(lively("lenet", {28, 28, 1}, "if", 2), random_tensor({1, 28, 28, 1}, 3), false,
                  6);
}

TEST_CASE("runtime: recordings through cnn-nmnist-3x3") {
    const Shape sample = {20, 20, 2};
    check_network(lively("cnn-nmnist-3x3", sample, "lif", 3), frames(5, sample, 4, 0.1), true, 5);
    check_network(lively("cnn-nmnist-3x3", sample, "if", 2), frames(3, sample, 5, 0.2), true, 3);
}

TEST_CASE("runtime: a picture through resnet20") {
    check_network(lively("resnet20", {16, 16, 3}, "if"), random_tensor({1, 16, 16, 3}, 6), false,
                  4);
}

TEST_CASE("runtime: every operation, more steps than are run at once") {
    check_network(rich_graph(), random_tensor({1, 9, 8, 2}, 7), false, 35);
    check_network(rich_graph(), frames(9, {9, 8, 2}, 8, 0.3), true, 9);
}

TEST_CASE("runtime: a batch is its samples, on one thread and more") {
    const Shape sample = {12, 12, 2};
    const Graph g = lively("lenet", sample, "if", 2);
    const size_t T = 5, N = 5, size = sample.elements();
    for (const bool temporal : {false, true})
        for (const bool planned : {false, true}) {  // pictures and recordings on either plan
            const Tensor x = random_tensor({temporal ? T : 1, N, size}, 9);
            RuntimeOptions options;
            options.T = 3;
            options.temporal = planned;
            Runtime one(g, options);
            options.threads = 2;
            Runtime two(g, options);
            std::vector<float> want(N * 10), got(N * 10), outputs(T * N * 10);
            for (size_t n = 0; n < N; ++n) {
                std::vector<float> own;
                for (size_t t = 0; t < (temporal ? T : 1); ++t) {
                    const float* from = x.data<float>() + (t * N + n) * size;
                    own.insert(own.end(), from, from + size);
                }
                const Tensor input =
                    Tensor::from(own, temporal ? sample.with_leading(1).with_leading(T)
                                               : sample.with_leading(1));
                const Reference r = interpret(*kernels::best(), one.graph(), input, temporal, T);
                std::copy_n(r.logits.data<float>(), 10, want.begin() + std::ptrdiff_t(n * 10));
            }
            for (Runtime* runtime : {&one, &two}) {
                std::vector<size_t> steps(N);
                runtime->run(x.data<float>(), temporal, T, N, got.data(), steps.data(),
                             outputs.data());
                CHECK(got == want);
                CHECK(steps == std::vector<size_t>(N, T));
                const auto activity = runtime->activity();
                CHECK(activity.at(1).inputs == T * N * 6 * 6 * 6);
                CHECK(activity.at(1).events > 0);
                CHECK(activity.at(1).events <= activity.at(1).inputs);
            }
            CHECK(one.activity().at(1).events == two.activity().at(1).events);
            CHECK(one.activity().at(0).spikes == two.activity().at(0).spikes);
        }
}

TEST_CASE("runtime: steps one at a time are the run's, and a run may end early") {
    const Shape sample = {12, 12, 2};
    const Graph g = lively("lenet", sample, "lif", 3);
    const size_t T = 20, K = 10;
    const Tensor x = frames(T, sample, 10, 0.3);
    for (const size_t threads : {1, 2}) {
        RuntimeOptions options;
        options.temporal = true;
        options.T = T;
        options.threads = threads;
        Runtime runtime(g, options);
        std::vector<float> logits(K), outputs(T * K), output(K), mean(K);
        runtime.run(x.data<float>(), true, T, 1, logits.data(), nullptr, outputs.data());
        runtime.reset();
        for (size_t t = 0; t < T; ++t) {
            runtime.step(x.data<float>() + t * sample.elements(), output.data(), mean.data());
            CHECK(runtime.steps_done() == t + 1);
            CHECK(
                std::equal(output.begin(), output.end(), outputs.begin() + std::ptrdiff_t(t * K)));
        }
        for (size_t k = 0; k < K; ++k) CHECK(mean[k] == doctest::Approx(logits[k]).epsilon(1e-5));

        // The first step at which the mean of the outputs so far leads by the margin.
        std::vector<double> sums(K);
        std::vector<double> leads;
        for (size_t t = 0; t < T; ++t) {
            for (size_t k = 0; k < K; ++k) sums[k] += double(outputs[t * K + k]);
            std::vector<double> sorted = sums;
            std::sort(sorted.rbegin(), sorted.rend());
            leads.push_back((sorted[0] - sorted[1]) / double(t + 1));
        }
        options.exit_margin = leads[9] * 1.0001;
        size_t want = 0;
        while (want < T && leads[want] < options.exit_margin) ++want;
        Runtime early(g, options);
        size_t steps = 0;
        early.run(x.data<float>(), true, T, 1, logits.data(), &steps);
        CHECK(steps == std::min(want + 1, T));
    }
}

TEST_CASE("runtime: what cannot be run is refused by name") {
    Graph g = lively("mlp", {8}, "if");
    RuntimeOptions options;
    options.layers["fc_act1"] = RuntimePath::dense;
    CHECK(contains(error_of([&] { Runtime r(g, options); }), "'fc_act1' is not a weight layer"));
    const Tensor x = random_tensor({8}, 1);
    std::vector<float> logits(10);
    CHECK(contains(error_of([&] { Runtime(g).run(x.data<float>(), false, 0, 1, logits.data()); }),
                   "T 0"));
    CHECK(contains(error_of([&] { Runtime(g).step(nullptr, nullptr, nullptr); }), "needs a frame"));
    CHECK(contains(error_of([&] { Runtime(g).spikes("act1"); }), "record"));
    g.edges.back().delay = 2;
    CHECK(contains(error_of([&] { Runtime r(g); }), "delayed by 2"));
    g.edges.back().delay = 0;
    for (Node& node : g.nodes)
        if (auto* neuron = std::get_if<Neuron>(&node.op))
            neuron->rule.spiking = kernels::Spiking::exact;
    CHECK(contains(error_of([&] { Runtime r(g); }), "exact"));
    CHECK(contains(error_of([&] { Runtime r(make_model("mlp", {8}, 10, {})); }), "no neuron"));
}

// Counted while `counting`: a run on one thread allocates nothing, and calls the system for
// nothing.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define NC_OTHERS_MALLOC  // a sanitizer's
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define NC_OTHERS_MALLOC
#endif
#endif
#if !defined(NC_OTHERS_MALLOC) && defined(__GLIBC__)
namespace {
std::atomic<bool> counting = false;
std::atomic<size_t> allocations = 0;
}  // namespace
extern "C" void* __libc_malloc(size_t);
extern "C" void* malloc(size_t size) {
    if (counting) ++allocations;
    return __libc_malloc(size);
}

TEST_CASE("runtime: no allocation and no system call while running") {
    int ends[2] = {};
    REQUIRE(pipe(ends) == 0);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        const Shape sample = {12, 12, 2};
        const Graph recording = lively("cnn-nmnist-3x3", sample, "if", 2),
                    picture = lively("resnet20", sample, "if");
        const Tensor x = frames(6, sample, 11, 0.2);
        RuntimeOptions options;
        options.T = 6;
        Runtime second(picture, options);
        AnalogRuntime third(make_model("resnet20", sample, 10, {}));
        options.temporal = true;
        Runtime first(recording, options);
        std::vector<float> logits(10);
        first.run(x.data<float>(), true, 6, 1, logits.data());
        counting = true;
        // From here on any system call but write and exit ends the child by a signal.
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) syscall(SYS_exit, 3);
        first.run(x.data<float>(), true, 6, 1, logits.data());
        first.reset();
        first.step(x.data<float>(), logits.data(), nullptr);
        second.run(x.data<float>(), false, 6, 1, logits.data());
        second.run(x.data<float>(), false, 6, 1, logits.data());
        third.run(x.data<float>(), 1, logits.data());
        const size_t count = allocations;
        const ssize_t written = write(ends[1], &count, sizeof count);
        syscall(SYS_exit, written == ssize_t(sizeof count) ? 0 : 4);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 3) {
        skip("this system does not let a process give up system calls");
    } else {
        CHECK(WIFEXITED(status));
        CHECK(WEXITSTATUS(status) == 0);
        size_t count = 1;
        REQUIRE(read(ends[0], &count, sizeof count) == ssize_t(sizeof count));
        CHECK(count == 0);
    }
    close(ends[0]);
    close(ends[1]);
}
#endif
