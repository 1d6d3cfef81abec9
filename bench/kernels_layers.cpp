// The kernels between the products: elementwise, reduce, pool, norm, loss, optim, image.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>

#include "bench/kernels.h"

namespace nc::bench {
namespace {

using kernels::Queue;

// Whatever a kernel here reads and writes.
struct Data {
    Values<float> x, dy, row0, row1, row2, row3;  // inputs
    Values<float> out, out2, out3;
    Values<int32_t> index;
    Values<uint8_t> bytes;
    Values<kernels::Augment> augment;
};

struct Plan {
    std::string name;
    double operations, moved;
    std::function<void(Data&)> fill;
    std::function<void(const Table&, Queue&, Data&)> run;
    std::function<size_t(const Table&)> scratch = nullptr;
    double tolerance = 0;  // of the largest output; 0: bitwise
    // Once before all runs: inputs that another kernel makes.
    std::function<void(const Table&, Queue&, Data&)> prepare = nullptr;
};

NamedCase named(const Plan& plan) {
    return {plan.name, [plan](Compute& compute) {
                auto d = std::make_shared<Data>();
                plan.fill(*d);
                bring(compute, d->x, d->dy, d->row0, d->row1, d->row2, d->row3, d->out, d->out2,
                      d->out3, d->index, d->bytes, d->augment);
                if (plan.scratch) compute.reserve(plan.scratch(*compute.table));
                if (plan.prepare) plan.prepare(*compute.table, compute.queue, *d);
                Case c;
                c.operations = plan.operations;
                c.bytes = plan.moved;
                c.run = [run = plan.run, d, &compute] { run(*compute.table, compute.queue, *d); };
                c.tolerance = plan.tolerance;
                for (const auto* v : {&d->out, &d->out2, &d->out3})
                    if (v->size() > 0) c.outputs.push_back(v->there());
                // Argmax indices stand in `index` only when nothing else is an output.
                if (c.outputs.empty()) c.outputs.push_back(d->index.there());
                return c;
            }};
}

constexpr size_t many = size_t(1) << 22;  // floats, 16 MiB: beyond the caches with its output
constexpr double word = sizeof(float);
constexpr double eps = 1.1920929e-7;

std::vector<NamedCase> elementwise_cases() {
    std::vector<NamedCase> cases;
    const double n = double(many);
    const auto two = [](Data& d) {
        d.x = random_floats(many, 1);
        d.dy = random_floats(many, 2);
        d.out.resize(many);
    };
    const auto add = [&](const std::string& name, double moved, double tolerance, auto run) {
        cases.push_back(named({.name = "elementwise." + name + "/4194304",
                               .operations = 0,
                               .moved = moved * word * n,
                               .fill = two,
                               .run = run,
                               .tolerance = tolerance}));
    };
    add("add", 3, 0, [](const Table& t, Queue& q, Data& d) {
        t.elementwise.add(q, d.x.data(), d.dy.data(), d.out.data(), many);
    });
    add("scale", 2, 0, [](const Table& t, Queue& q, Data& d) {
        t.elementwise.scale(q, d.x.data(), 0.7f, d.out.data(), many);
    });
    const std::pair<const char*, kernels::Activation> activations[] = {
        {"relu", kernels::Activation::relu}, {"silu", kernels::Activation::silu},
        {"gelu", kernels::Activation::gelu}, {"sigmoid", kernels::Activation::sigmoid},
        {"tanh", kernels::Activation::tanh},
    };
    for (const auto& [name, kind] : activations) {
        const double tolerance = kind == kernels::Activation::relu ? 0 : 8 * eps;
        const auto which = kind;
        add(name, 2, tolerance, [which](const Table& t, Queue& q, Data& d) {
            t.elementwise.activate(q, which, 0, d.x.data(), d.out.data(), many);
        });
        add(std::string(name) + "_backward", 3, tolerance,
            [which](const Table& t, Queue& q, Data& d) {
                t.elementwise.activate_backward(q, which, 0, d.x.data(), d.dy.data(), d.out.data(),
                                                many);
            });
    }
    return cases;
}

std::vector<NamedCase> reduce_cases() {
    const size_t rows = 32768, cols = 128;
    const auto fill = [](Data& d) {
        d.x = random_floats(rows * cols, 1, 0, 1);
        d.out.resize(cols);
    };
    // Blocked sums of positive terms: (block + blocks) eps, for any block up to 4096.
    return {
        named({.name = "reduce.sum/4194304",
               .operations = 0,
               .moved = word * rows * cols,
               .fill =
                   [](Data& d) {
                       d.x = random_floats(rows * cols, 1, 0, 1);
                       d.out.resize(1);
                   },
               .run = [](const Table& t, Queue& q,
                         Data& d) { t.reduce.sum(q, d.x.data(), d.out.data(), rows * cols); },
               .scratch = [](const Table& t) { return t.reduce.sum_scratch(rows * cols); },
               .tolerance = 8192 * eps}),
        named({.name = "reduce.sum_rows/32768x128",
               .operations = 0,
               .moved = word * rows * cols,
               .fill = fill,
               .run = [](const Table& t, Queue& q,
                         Data& d) { t.reduce.sum_rows(q, d.x.data(), d.out.data(), rows, cols); },
               .scratch = [](const Table& t) { return t.reduce.sum_rows_scratch(rows, cols); },
               .tolerance = 8192 * eps}),
        named(
            {.name = "reduce.argmax/32768x128",
             .operations = 0,
             .moved = word * rows * cols,
             .fill =
                 [](Data& d) {
                     d.x = random_floats(rows * cols, 1);
                     d.index.resize(rows);
                 },
             .run = [](const Table& t, Queue& q,
                       Data& d) { t.reduce.argmax(q, d.x.data(), d.index.data(), rows, cols); }})};
}

std::vector<NamedCase> pool_cases() {
    static constexpr kernels::PoolShape s = {
        .n = 32, .h = 32, .w = 32, .c = 64, .kh = 2, .kw = 2, .stride_h = 2, .stride_w = 2};
    const size_t in = s.n * s.h * s.w * s.c, out = in / 4;
    const double moved = word * double(in + out);
    const auto forward = [](Data& d) {
        d.x = random_floats(in, 1);
        d.out.resize(out);
        d.index.resize(out);
    };
    const auto backward = [](Data& d) {
        d.x = random_floats(in, 1);
        d.dy = random_floats(out, 2);
        d.row0.resize(out);
        d.index.resize(out);
        d.out.resize(in);
    };
    return {
        named({.name = "pool.average/32x32x64-n32",
               .operations = 0,
               .moved = moved,
               .fill = forward,
               .run = [](const Table& t, Queue& q,
                         Data& d) { t.pool.average(q, d.x.data(), d.out.data(), s); }}),
        named({.name = "pool.average_backward/32x32x64-n32",
               .operations = 0,
               .moved = moved,
               .fill = backward,
               .run = [](const Table& t, Queue& q,
                         Data& d) { t.pool.average_backward(q, d.dy.data(), d.out.data(), s); }}),
        named({.name = "pool.max/32x32x64-n32",
               .operations = 0,
               .moved = moved + word * double(out),
               .fill = forward,
               .run = [](const Table& t, Queue& q,
                         Data& d) { t.pool.max(q, d.x.data(), d.out.data(), d.index.data(), s); }}),
        named({.name = "pool.max_backward/32x32x64-n32",
               .operations = 0,
               .moved = moved + word * double(out),
               .fill = backward,
               .run =
                   [](const Table& t, Queue& q, Data& d) {
                       t.pool.max_backward(q, d.dy.data(), d.index.data(), d.out.data(), s);
                   },
               .prepare =
                   [](const Table& t, Queue& q, Data& d) {
                       t.pool.max(q, d.x.data(), d.row0.data(), d.index.data(), s);
                   }})};
}

std::vector<NamedCase> norm_cases() {
    static constexpr size_t rows = 32768, cols = 64;
    const double size = word * rows * cols;
    const auto fill = [](Data& d) {
        d.x = random_floats(rows * cols, 1);
        d.dy = random_floats(rows * cols, 2);
        d.row0 = random_floats(cols, 3);           // mean
        d.row1 = random_floats(cols, 4, 0.5f, 2);  // variance
        d.row2 = random_floats(cols, 5, 0.5f, 2);  // gamma, dgamma
        d.row3 = random_floats(cols, 6);           // beta, dbeta
    };
    const auto sized = [fill](size_t out, size_t out2) {
        return [fill, out, out2](Data& d) {
            fill(d);
            d.out.resize(out);
            d.out2.resize(out2);
        };
    };
    const auto scratch = [](const Table& t) { return t.norm.scratch(rows, cols); };
    return {
        named({.name = "norm.statistics/32768x64",
               .operations = 0,
               .moved = size,  // the second pass could stay in a cache
               .fill = sized(cols, cols),
               .run =
                   [](const Table& t, Queue& q, Data& d) {
                       t.norm.statistics(q, d.x.data(), d.out.data(), d.out2.data(), rows, cols);
                   },
               .scratch = scratch,
               .tolerance = 8192 * eps}),
        named({.name = "norm.normalise/32768x64",
               .operations = 0,
               .moved = 2 * size,
               .fill = sized(rows * cols, 0),
               .run =
                   [](const Table& t, Queue& q, Data& d) {
                       t.norm.normalise(q, d.x.data(), d.row0.data(), d.row1.data(), d.row2.data(),
                                        d.row3.data(), 1e-5f, false, d.out.data(), rows, cols);
                   },
               .scratch = scratch,
               .tolerance = 8 * eps}),
        named({.name = "norm.backward_sums/32768x64",
               .operations = 0,
               .moved = 2 * size,
               .fill = sized(cols, cols),
               .run =
                   [](const Table& t, Queue& q, Data& d) {
                       t.norm.backward_sums(q, d.x.data(), d.dy.data(), d.row0.data(),
                                            d.row1.data(), d.row2.data(), d.row3.data(), 1e-5f,
                                            false, d.out.data(), d.out2.data(), rows, cols);
                   },
               .scratch = scratch,
               .tolerance = 8192 * eps}),
        named({.name = "norm.backward_input/32768x64",
               .operations = 0,
               .moved = 3 * size,
               .fill = sized(rows * cols, 0),
               .run =
                   [](const Table& t, Queue& q, Data& d) {
                       t.norm.backward_input(q, d.x.data(), d.dy.data(), d.row0.data(),
                                             d.row1.data(), d.row2.data(), d.row3.data(), 1e-5f,
                                             false, d.row2.data(), d.row3.data(), d.out.data(),
                                             rows, cols, rows);
                   },
               .scratch = scratch,
               .tolerance = 16 * eps})};
}

// The whole of a data's arrays as one parameter, gradient and moments.
kernels::OptimSlice<float> slice(Data& d, float lr) {
    return {.g = d.x.data(),
            .w = d.out.data(),
            .m = d.out2.data(),
            .v = d.out3.data(),
            .n = many,
            .lr = lr,
            .weight_decay = 1e-4f,
            .lowest = -std::numeric_limits<float>::infinity()};
}

std::vector<NamedCase> other_cases() {
    static constexpr size_t rows = 65536, cols = 10;
    const auto optim = [=](Data& d) {
        d.x = random_floats(many, 1);
        uint64_t seed = 2;
        for (Values<float>* v : {&d.out, &d.out2, &d.out3}) *v = random_floats(many, seed++, 0, 1);
    };
    static constexpr size_t images = 256, side = 32, channels = 3;
    return {named({.name = "loss.cross_entropy/65536x10",
                   .operations = 0,
                   .moved = word * rows * (3 * cols + 1),
                   .fill =
                       [](Data& d) {
                           d.x = random_floats(rows * cols, 1, -4, 4);
                           d.dy.resize(rows * cols);
                           for (size_t i = 0; i < rows * cols; ++i)
                               d.dy[i] = i % cols == i / cols * 7 % cols ? 0.91f : 0.01f;
                           d.out.resize(rows);
                           d.out2.resize(rows * cols);
                       },
                   .run =
                       [](const Table& t, Queue& q, Data& d) {
                           t.loss.cross_entropy(q, d.x.data(), d.dy.data(), d.out.data(),
                                                d.out2.data(), rows, cols);
                       },
                   .tolerance = 64 * eps}),
            named({.name = "optim.sgd/4194304",
                   .operations = 0,
                   .moved = 5 * word * double(many),
                   .fill = optim,
                   .run =
                       [](const Table& t, Queue& q, Data& d) {
                           const auto s = slice(d, 0.01f);
                           t.optim.sgd(q, &s, 1, 1, 0.9f, true);
                       }}),
            named({.name = "optim.adamw/4194304",
                   .operations = 0,
                   .moved = 7 * word * double(many),
                   .fill = optim,
                   .run =
                       [](const Table& t, Queue& q, Data& d) {
                           const auto s = slice(d, 1e-3f);
                           t.optim.adamw(q, &s, 1, 1, 0.9f, 0.999f, 1e-8f, 10);
                       }}),
            named({.name = "image.augment/32x32x3-n256",
                   .operations = 0,
                   .moved = double(images * side * side * channels) * (word + 1),
                   .fill =
                       [](Data& d) {
                           d.bytes.resize(images * side * side * channels);
                           for (size_t i = 0; i < d.bytes.size(); ++i) d.bytes[i] = uint8_t(i * 31);
                           for (size_t i = 0; i < images; ++i)
                               d.augment.push_back({.source = int32_t(i * 101 % images),
                                                    .y = int32_t(i % 9) - 4,
                                                    .x = int32_t(i % 7) - 3,
                                                    .flip = int32_t(i % 2),
                                                    .cut_y0 = int32_t(i % 16),
                                                    .cut_x0 = int32_t(i % 16),
                                                    .cut_y1 = int32_t(i % 16) + 16,
                                                    .cut_x1 = int32_t(i % 16) + 16});
                           d.row0 = random_floats(channels, 1, 0.01f, 0.02f);
                           d.row1 = random_floats(channels, 2);
                           d.out.resize(d.bytes.size());
                       },
                   .run =
                       [](const Table& t, Queue& q, Data& d) {
                           t.image.augment(q, d.bytes.data(), d.augment.data(), d.row0.data(),
                                           d.row1.data(), d.out.data(), images, side, side,
                                           channels);
                       }})};
}

}  // namespace

std::vector<NamedCase> layer_cases() {
    std::vector<NamedCase> cases;
    for (const auto& family :
         {elementwise_cases(), reduce_cases(), pool_cases(), norm_cases(), other_cases()})
        cases.insert(cases.end(), family.begin(), family.end());
    return cases;
}

}  // namespace nc::bench
