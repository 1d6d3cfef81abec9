// Measuring whole training steps.
#include "bench/training.h"

#include <fmt/format.h>

#include <cmath>
#include <random>

#include "engine/error.h"
#include "hw/energy.h"
#include "neurons/train.h"

namespace nc::bench {
namespace {

Shape shape_of_samples(const Graph& g) {
    for (const Node& node : g.nodes)
        if (const auto* input = std::get_if<Input>(&node.op)) return input->shape;
    throw Error("[bench] a network without an input");
}

size_t outputs_of(const Graph& g) {
    const auto shapes = infer_shapes(g);
    for (size_t i = 0; i < g.nodes.size(); ++i)
        if (std::holds_alternative<Output>(g.nodes[i].op)) return shapes[i].elements();
    throw Error("[bench] a network without an output");
}

// One batch, as a data set that has it many times.
class Repeated : public Dataset {
 public:
    Repeated(const TrainingBatch& batch, const Graph& g, size_t times)
        : batch_(batch),
          sample_(shape_of_samples(g)),
          classes_(int(outputs_of(g))),
          times_(times) {}
    size_t size() const override { return batch_.labels.size() * times_; }
    Shape sample_shape() const override { return sample_; }
    int classes() const override { return classes_; }
    int steps() const override { return batch_.temporal ? int(batch_.T) : 0; }
    int32_t label(size_t i) const override { return batch_.labels[i % batch_.labels.size()]; }
    Batch batch(Compute& compute, const std::vector<uint32_t>&, const AugmentOptions&,
                Random&) const override {
        return {batch_.x.to(*compute.allocator), batch_.labels, batch_.temporal};
    }

 private:
    const TrainingBatch& batch_;
    Shape sample_;
    int classes_;
    size_t times_;
};

TrainingBatch part_of(const TrainingBatch& whole, size_t T, size_t N) {
    TrainingBatch out = whole;
    out.labels.resize(N);
    if (!whole.temporal) {
        out.x = whole.x.slice(0, N);
        return out;
    }
    out.T = T;
    std::vector<size_t> sizes(whole.x.shape().begin(), whole.x.shape().end());
    const size_t sample = whole.x.elements() / (sizes[0] * sizes[1]), all = sizes[1];
    const float* x = whole.x.data<float>();
    std::vector<float> some;
    for (size_t t = 0; t < T; ++t)
        some.insert(some.end(), x + t * all * sample, x + (t * all + N) * sample);
    sizes[0] = T;
    sizes[1] = N;
    out.x = Tensor::from(some, Shape(sizes));
    return out;
}

TrainOptions options_for(const TrainingBatch& batch, size_t T, bool recompute) {
    TrainOptions o;
    o.batch = batch.labels.size();
    o.T = int(T);
    o.recompute = recompute;
    o.schedule = Schedule::constant;
    o.keep_best = false;
    return o;
}

// After one step of descent.
Graph step_once(Compute& compute, const Graph& g, const TrainingBatch& batch, size_t T,
                double rate = 1) {
    TrainOptions o = options_for(batch, T, false);
    o.epochs = 1;
    o.optim = {.kind = OptimOptions::Kind::sgd,
               .lr = rate,
               .momentum = 0,
               .nesterov = false,
               .weight_decay = 0,
               .threshold_lr = 0};
    return train(compute, g, {}, Repeated(batch, g, 1), nullptr, o).graph;
}

// The weights' change from `start` to here, against there; over the change's own norm.
double difference(const Graph& start, const Graph& here, const Graph& there) {
    double far = 0, norm = 0;
    for (size_t i = 0; i < start.nodes.size(); ++i) {
        std::vector<Tensor> a, b, c;
        const auto weights = [](const Node& node, std::vector<Tensor>& out) {
            for_each_tensor(node, [&](const char*, const Tensor& t, TensorRole role) {
                if (t.defined() && role == TensorRole::weight) out.push_back(t);
            });
        };
        weights(start.nodes[i], a);
        weights(here.nodes[i], b);
        weights(there.nodes[i], c);
        for (size_t k = 0; k < a.size(); ++k)
            for (size_t e = 0; e < a[k].elements(); ++e) {
                const double x = a[k].data<float>()[e], y = b[k].data<float>()[e],
                             z = c[k].data<float>()[e];
                far += (y - z) * (y - z);
                norm += (z - x) * (z - x);
            }
    }
    return norm > 0 ? std::sqrt(far / norm) : INFINITY;
}

void check_gradients(Compute& compute, const std::string& name, const Graph& g,
                     const TrainingBatch& batch) {
    const size_t T = std::min<size_t>(batch.T, 8), N = std::min<size_t>(batch.labels.size(), 2);
    const TrainingBatch few = part_of(batch, T, N);
    Compute reference(kernels::reference(), 1);
    // At a rate of 1 the weights' rounding would drown the gradients, of 1e-6, of a network that
    // has learnt all there is.
    const double rate = 0x1p20;
    const double far =
        difference(g, step_once(compute, g, few, T, rate), step_once(reference, g, few, T, rate));
    if (!(far < 0.01))
        throw Error(
            fmt::format("[bench] {} on {}: gradients are {:.2g} of their norm from the reference's",
                        name, table_name(compute), far));
}

// Of one step: each product once forward and once for each gradient; the first layer's input needs
// none.
double dense_operations(const Graph& g, const TrainingBatch& batch) {
    const auto shapes = infer_shapes(g);
    double products = 0;
    bool first = true;
    for (const Edge& e : g.edges) {
        const double here = double(dense_macs(g.nodes[e.to], shapes[e.from]));
        if (here == 0) continue;
        // A picture meets the first layer once, whatever T.
        const double steps = first && !batch.temporal ? 1 : double(batch.T);
        products += here * steps * (first ? 2 : 3);
        first = false;
    }
    return 2 * products * double(batch.labels.size());
}

}  // namespace

TrainingBatch random_training_batch(const Graph& g, bool temporal, size_t T, size_t N,
                                    uint64_t seed) {
    TrainingBatch out;
    out.temporal = temporal;
    out.T = T;
    std::vector<size_t> sizes;
    if (temporal) sizes.push_back(T);
    sizes.push_back(N);
    const Shape sample = shape_of_samples(g);
    sizes.insert(sizes.end(), sample.begin(), sample.end());
    std::mt19937_64 random(seed);
    std::vector<float> x(Shape(sizes).elements());
    if (temporal) {
        std::bernoulli_distribution spike(0.1);
        for (float& value : x) value = spike(random) ? 1.0f : 0.0f;
    } else {
        std::uniform_real_distribution<float> uniform(-1, 1);
        for (float& value : x) value = uniform(random);
    }
    out.x = Tensor::from(x, Shape(sizes));
    const size_t classes = outputs_of(g);
    for (size_t i = 0; i < N; ++i) out.labels.push_back(int32_t(i % classes));
    return out;
}

TrainingRow measure_training(Machine& machine, const std::string& name, const Graph& g,
                             const TrainingBatch& batch, Compute& compute, double seconds,
                             bool recompute) {
    check_gradients(compute, name, g, batch);
    TrainingRow out;
    out.stepped = step_once(compute, g, batch, batch.T);

    // Epochs long enough that their ends do not matter.
    const Repeated data(batch, g, 1000);
    TrainOptions o = options_for(batch, batch.T, recompute);
    o.epochs = 1000000;
    std::vector<double> times;
    double last = 0, begin = 0;
    TrainHooks hooks;
    hooks.progress = [&](const Progress& p) {
        const double t = now();
        if (begin == 0) {  // the first step, which does not count
            out.loss = p.loss;
            begin = t;
        } else if (!p.epoch_done) {
            times.push_back(t - last);
        }
        out.peak_bytes = std::max(out.peak_bytes, p.peak_bytes);
        last = t;
    };
    hooks.stop = [&] { return times.size() >= 3 && now() - begin >= seconds; };
    try {
        train(compute, g, {}, data, nullptr, o, hooks);
    } catch (const Interrupted&) {
    }
    out.row = make_row(machine,
                       fmt::format("train.{}/T{}-batch{}{}", name, batch.T, batch.labels.size(),
                                   recompute ? "-recompute" : ""),
                       compute, dense_operations(g, batch), 0, timing_of(std::move(times)));
    return out;
}

}  // namespace nc::bench
