// A CUDA device's memory, gradients, batches and training, beside the CPU's.
#include <map>

#include "engine/cuda_allocator.h"
#include "neurons/recorded.h"
#include "neurons/train_state.h"
#include "tests/devices.h"

using namespace nc;
using namespace nc::test;

TEST_CASE("device: tensors live there, come back whole, and are not read here") {
    on_devices([](Compute& compute) {
        CHECK(compute.device.kind == DeviceKind::cuda);
        const std::vector<float> values = hard_values(1000, 1);
        const Tensor there = compute.from(values, {10, 100});
        CHECK(there.device() == compute.device);
        CHECK(there.to_vector<float>() == values);
        CHECK(there.slice(3, 4).to_vector<float>() ==
              std::vector<float>(values.begin() + 300, values.begin() + 400));
        CHECK(there.slice(0, 1).reshape({100}).slice(7, 8).item() == double(values[7]));
        CHECK(contains(error_of([&] { there.host_data<float>(); }), "read on the host: [10, 100]"));
        const Tensor here = there.to_host();
        CHECK(here.host_data<float>()[999] == values[999]);
        CHECK(&there.to(*compute.allocator).allocator() == &there.allocator());
        CHECK(there.to(*compute.allocator).raw() == there.raw());

        Tensor copy = there.clone();
        copy.slice(1, 2).assign(there.slice(0, 1));
        copy.slice(2, 3).assign(here.slice(5, 6));
        copy.slice(4, 6).zero();
        std::vector<float> wanted = values;
        std::copy_n(values.begin(), 100, wanted.begin() + 100);
        std::copy_n(values.begin() + 500, 100, wanted.begin() + 200);
        std::fill_n(wanted.begin() + 400, 200, 0.0f);
        CHECK(copy.to_vector<float>() == wanted);
        CHECK(there.to_vector<float>() == values);
        CHECK(compute.zeros({3}).to_vector<float>() == std::vector<float>(3, 0.0f));
        CHECK(contains(error_of([&] { copy.assign(here.slice(0, 1)); }), "[1, 100] to [10, 100]"));
        CHECK(Tensor({0}, DType::f32, *compute.allocator).to_vector<float>().empty());
        const Tensor doubles = compute.from(std::vector<double>(3, 1.0), {3});
        CHECK(contains(error_of([&] { ops::add(compute, doubles, doubles); }),
                       "f64 runs on the cpu"));
    });
}

namespace {

// The emulated device with a card of this many bytes.
constexpr size_t card_bytes = 1 << 20;
size_t card_used = 0;
std::map<void*, size_t> card_blocks;

kernels::Backend small_card() {
    kernels::Backend out = kernels::on_cuda_emulated::backend();
    out.allocate = [](int device, void** p, size_t bytes) {
        constexpr int out_of_memory = 2;
        if (card_used + bytes > card_bytes) return out_of_memory;
        const int code = kernels::on_cuda_emulated::backend().allocate(device, p, bytes);
        card_blocks[*p] = bytes;
        card_used += bytes;
        return code;
    };
    out.release = [](int device, void* p) {
        card_used -= card_blocks[p];
        return kernels::on_cuda_emulated::backend().release(device, p);
    };
    out.free_memory = [](int, size_t* bytes) {
        *bytes = card_bytes - card_used;
        return 0;
    };
    return out;
}

}  // namespace

TEST_CASE(
    "device: memory is kept for reuse, given back when the card is full, and a full card is said") {
    const kernels::Backend card = small_card();
    {
        Compute compute(kernels::on_cuda_emulated::table(), card, 0, Compute::Memory::own);
        const auto& memory = static_cast<const CudaAllocator&>(*compute.allocator);
        const void* first = nullptr;
        {
            const Tensor a = compute.empty({100000}, DType::u8);
            first = a.raw();
            CHECK(memory.live_bytes() == 100000);
            CHECK(memory.kept_bytes() == 0);
        }
        CHECK(memory.live_bytes() == 0);
        CHECK(memory.peak_bytes() == 100000);
        CHECK(memory.kept_bytes() >= 100000);
        // A little smaller: the same block.
        const Tensor b = compute.empty({99000}, DType::u8);
        CHECK(b.raw() == first);
        { const Tensor c = compute.empty({500000}, DType::u8); }
        const size_t kept = memory.kept_bytes();
        CHECK(kept >= 500000);
        // Does not fit beside what is kept.
        const Tensor d = compute.empty({700000}, DType::u8);
        CHECK(memory.kept_bytes() == 0);
        const std::string text = error_of([&] { compute.empty({400000}, DType::u8); });
        CHECK(contains(text, "[cuda] not enough memory on cuda:0: 400000 bytes asked for, "));
        CHECK(contains(text, std::to_string(card_used) + " in use, " +
                                 std::to_string(card_bytes - card_used) + " free on the card"));
        CHECK(contains(error_of([&] { compute.empty({size_t(1) << 60}, DType::u8); }), "in use"));
        CHECK(memory.live_bytes() == 799000);
    }
    CHECK(card_used == 0);
}

TEST_CASE("device: what is not there is named") {
    const auto& table = kernels::on_cuda_emulated::table();
    const auto& backend = kernels::on_cuda_emulated::backend();
    const std::string text = error_of([&] { Compute c(table, backend, 3); });
    CHECK(contains(text, "there is no cuda:3: this machine has 1 CUDA device"));
    CHECK(contains(error_of([&] { Compute c(Device{}, 1, kernels::Precision::bf16); }),
                   "has fp32 only"));
    Compute compute(table, backend), host(Device{}, 1);
    const Graph g = small_network(1, false);
    const Tensor x = random_tensor({2, 8, 8, 1}, 2);
    CHECK(contains(error_of([&] { forward(compute, g, {}, x, {}); }),
                   "the input is on cpu, the work is to be done on cuda:0"));
    const Graph there = on_device(g, compute);
    CHECK(contains(error_of([&] { forward(compute, g, {}, x.to(*compute.allocator), {}); }),
                   "conv.weight is on cpu"));
    CHECK(contains(error_of([&] { forward(host, there, {}, x, {}); }), "conv.weight is on cuda:0"));
    CHECK(same_graph(on_host(there), g));
    CHECK(contains(error_of([&] { RecordedForward r(host, g, x.shape(), 1); }), "only a device's"));
    // A kernel that could not be started is an error of the operation.
    compute.queue.status = 1;
    CHECK(contains(error_of([&] { ops::full(compute, {3}, DType::f32, 1); }),
                   "[cuda] full: invalid argument"));
    compute.queue.status = 0;
}

namespace {

struct Gradients {
    double loss;
    std::map<std::string, Tensor> of;     // by parameter
    std::map<std::string, Tensor> batch;  // statistics of batch norms
};

Gradients gradients(Compute& compute, const Graph& g, const Tensor& x,
                    const std::vector<int32_t>& labels, size_t T, bool recompute) {
    const Graph there = on_device(g, compute);
    Tape tape(compute);
    Parameters variables;
    for (const Node& node : there.nodes)
        for_each_tensor(node, [&](const char* field, const Tensor& t, TensorRole role) {
            if (t.defined() && role != TensorRole::statistic)
                variables[node.name + "." + field] = tape.leaf(t);
        });
    ForwardOptions how;
    how.T = T;
    how.training = true;
    how.recompute = recompute;
    Gradients out;
    Forwarded f = forward(compute, there, variables, x.to(*compute.allocator), how, &tape);
    const Var loss = fn::cross_entropy(compute, &tape, mean_logits(compute, &tape, f), labels, 0.1);
    tape.backward(loss);
    out.loss = loss.value.item();
    for (const auto& [name, v] : variables) out.of[name] = tape.gradient(v).to_host();
    for (const auto& [name, s] : f.statistics) {
        out.batch[name + ".mean"] = s.mean.to_host();
        out.batch[name + ".variance"] = s.variance.to_host();
    }
    return out;
}

double largest(const Tensor& t) {
    double out = 0;
    for (const float v : t.to_vector<float>()) out = std::max(out, std::fabs(double(v)));
    return out;
}

// Two tables give each sum of n terms within n eps of its terms' magnitudes (kernels.h). Such a
// sum's magnitudes are here at most `cancelling` times the largest result, and an error is handed
// on through `layers` sums each way, none of which makes it larger than the values it comes with:
// batch norm divides by a deviation that is not small. No activation lies so near a step that a
// rounding moves it across, or the difference would be far above the bound.
double gradient_bound(const Tensor& gradient, size_t terms, size_t layers) {
    constexpr double cancelling = 8, eps = std::numeric_limits<float>::epsilon();
    return cancelling * double(terms) * double(2 * layers) * eps *
           std::max(1e-3, largest(gradient));
}

}  // namespace

TEST_CASE("device: forward and backward of convolutional networks agree with the CPU") {
    Compute host(Device{}, 1);
    const size_t N = 4;
    const Tensor x = random_tensor({N, 8, 8, 1}, 31);
    const std::vector<int32_t> labels = {0, 3, 1, 2};
    on_devices([&](Compute& compute) {
        const auto compare = [&](const Graph& g, size_t T, bool recompute) {
            const Gradients here = gradients(host, g, x, labels, T, recompute);
            const Gradients there = gradients(compute, g, x, labels, T, recompute);
            const size_t terms = N * T * 64;  // of the longest sum: a gradient over batch and space
            CHECK(here.of.size() == there.of.size());
            CHECK(std::fabs(here.loss - there.loss) <=
                  gradient_bound(Tensor::full<float>({1}, 1), terms, 4));
            for (const auto& found : here.of) {
                const Tensor& gradient = found.second;
                CHECK_MESSAGE(largest_difference(gradient, there.of.at(found.first)) <=
                                  gradient_bound(gradient, terms, 4),
                              found.first << " of " << largest(gradient));
            }
            for (const auto& found : here.batch)
                CHECK_MESSAGE(largest_difference(found.second, there.batch.at(found.first)) <=
                                  gradient_bound(found.second, terms, 2),
                              found.first);
        };
        compare(analog_network(), 1, false);
        compare(spiking_network(), 3, false);
        compare(spiking_network(), 3, true);
    });
}

TEST_CASE("device: batches are those of the host, and training on them follows the CPU") {
    const auto data = quarters(40, 3), held = quarters(20, 4);
    Compute host(Device{}, 1);
    on_devices([&](Compute& compute) {
        AugmentOptions augment;
        augment.crop = 1;
        augment.flip = true;
        augment.cutout = 3;
        Loader here(*data, 16, true, 1, 0, augment), there(compute, *data, 16, true, 1, 0, augment);
        for (Batch a, b; here.next(a);) {
            REQUIRE(there.next(b));
            CHECK(b.x.device() == compute.device);
            CHECK(same_bits(a.x, b.x.to_host()));
            CHECK(a.labels == b.labels);
        }

        for (const bool sgd : {true, false}) {
            TrainOptions o;
            o.epochs = 2;
            o.batch = 16;
            o.T = 3;
            o.augment = augment;
            o.label_smoothing = 0.1;
            o.optim.lr = 0.01;
            o.optim.clip_norm = sgd ? 0 : 1;
            o.ema = sgd ? 0.9 : 0;
            if (sgd) o.optim.kind = OptimOptions::Kind::sgd;
            const Graph g = sgd ? analog_network() : spiking_network();
            const auto run = [&](Compute& c, std::vector<double>& losses) {
                TrainHooks hooks;
                hooks.progress = [&](const Progress& p) { losses.push_back(p.loss); };
                return train(c, g, {}, *data, held.get(), o, hooks);
            };
            std::vector<double> wanted, found;
            const Trained cpu = run(host, wanted), card = run(compute, found);
            REQUIRE(wanted.size() == 4);
            REQUIRE(found.size() == 4);
            // The first step's loss within the sums' rounding; later ones have what the steps made
            // of it: an Adam step moves a weight whose gradient is near 0 either way, by at most
            // lr.
            constexpr double eps = std::numeric_limits<float>::epsilon();
            CHECK(std::fabs(found[0] - wanted[0]) < 64 * 9 * eps * wanted[0]);
            for (size_t i = 1; i < 4; ++i)
                CHECK(std::fabs(found[i] - wanted[i]) < 0.01 * wanted[i]);
            CHECK(wanted[0] > wanted[3]);
            for (const Node& node : card.graph.nodes)
                for_each_tensor(node, [&](const char*, const Tensor& t, TensorRole) {
                    if (t.defined()) CHECK(t.device() == Device{});
                });
            EvaluateOptions how;
            how.T = 3;
            const Evaluation a = evaluate(host, card.graph, *held, how);
            const Evaluation b = evaluate(compute, card.graph, *held, how);
            CHECK(a.samples == b.samples);
            if (!sgd)
                CHECK(std::fabs(a.accuracy - b.accuracy) <= 10);  // unfolded: batch norm's rounding
        }
    });
}

TEST_CASE("device: a run that was stopped goes on from its checkpoint with the same bits") {
    const auto data = quarters(40, 5), held = quarters(10, 6);
    Compute host(Device{}, 1);
    on_devices([&](Compute& compute) {
        const TempFolder folder;
        TrainOptions o;
        o.epochs = 2;
        o.batch = 16;
        o.augment.shift = 1;
        o.ema = 0.9;
        const Graph g = analog_network();
        const Trained whole = train(compute, g, {}, *data, held.get(), o);
        for (const int stop_after : {1, 3}) {
            o.checkpoint = folder / "run.safetensors";
            TrainHooks hooks;
            int done = 0;
            hooks.stop = [&] { return ++done == stop_after; };
            CHECK_THROWS_AS(train(compute, g, {}, *data, held.get(), o, hooks), Interrupted);
            const Model saved = load_model(o.checkpoint);
            const Trained rest = train(compute, saved.graph, {}, *data, held.get(), o, {}, &saved);
            CHECK(same_graph(whole.graph, rest.graph));
            CHECK(whole.validation_accuracy == rest.validation_accuracy);
            // The file is no device's: the CPU goes on with it too.
            train(host, saved.graph, {}, *data, held.get(), o, {}, &saved);
        }
    });
}
