// Networks in integers for the tests of hardware: random weights, thresholds at which neurons
// really fire, every kind of synapse.
#pragma once

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "hw/integers.h"

namespace nc::test {

class IntegerBuilder {
 public:
    explicit IntegerBuilder(const Shape& input, uint64_t seed) : random_(seed) {
        net.input_scale = 1;
        Population p;
        p.name = "input";
        p.shape = input;
        p.spiking = false;
        net.populations.push_back(p);
    }

    // A population without synapses yet; returns its index.
    size_t add(const Shape& shape, bool spiking = true, int32_t decay = 0) {
        Population p;
        p.name = (spiking ? "layer" : "readout") + std::to_string(net.populations.size());
        p.shape = shape;
        p.spiking = spiking;
        p.decay = spiking ? decay : 0;
        p.half_start = p.decay == 0;
        for (size_t c = 0; c < p.channels(); ++c) p.bias.push_back(within(-60, 60));
        net.populations.push_back(p);
        return net.populations.size() - 1;
    }

    // thresholds: 1, [channels] or [neurons] of them.
    void thresholds(size_t at, size_t count, int32_t around) {
        Population& p = net.populations[at];
        p.threshold.clear();
        for (size_t i = 0; i < count; ++i)
            p.threshold.push_back(around / 2 + within(0, around) + 1);
    }

    static kernels::PoolShape pool(const Shape& source, size_t kernel, size_t stride,
                                   size_t pad = 0) {
        return {.n = 1,
                .h = source[0],
                .w = source[1],
                .c = source[2],
                .kh = kernel,
                .kw = kernel,
                .stride_h = stride,
                .stride_w = stride,
                .pad_h = pad,
                .pad_w = pad};
    }

    void linear(size_t from, size_t to, int delay = 0, const kernels::PoolShape* pool = nullptr) {
        const Population& source = net.populations[from];
        const size_t in = pool ? pool->out_h() * pool->out_w() * source.channels() : source.size();
        synapses(Synapses::Kind::linear, from, to, in * net.populations[to].channels(), delay,
                 pool);
    }

    struct Kernel {
        size_t kh = 3, kw = 3, stride_h = 1, stride_w = 1, pad_h = 1, pad_w = 1, dilation_w = 1,
               groups = 1;
    };
    void conv(size_t from, size_t to, const Kernel& k, int delay = 0,
              const kernels::PoolShape* pool = nullptr) {
        const Population& source = net.populations[from];
        kernels::ConvShape shape{};
        shape.n = 1;
        shape.h = pool ? pool->out_h() : source.shape[0];
        shape.w = pool ? pool->out_w() : source.shape[1];
        shape.cin = source.channels();
        shape.cout = net.populations[to].channels();
        shape.kh = k.kh;
        shape.kw = k.kw;
        shape.stride_h = k.stride_h;
        shape.stride_w = k.stride_w;
        shape.pad_h = k.pad_h;
        shape.pad_w = k.pad_w;
        shape.dilation_h = 1;
        shape.dilation_w = k.dilation_w;
        shape.groups = k.groups;
        synapses(Synapses::Kind::conv, from, to,
                 shape.kh * shape.kw * shape.cin / shape.groups * shape.cout, delay, pool)
            .conv = shape;
    }

    void diagonal(size_t from, size_t to, int delay = 0, const kernels::PoolShape* pool = nullptr) {
        synapses(Synapses::Kind::diagonal, from, to, net.populations[to].channels(), delay, pool);
    }

    // Events of N samples (times T for temporal input), about a third of them zero.
    std::vector<int16_t> events(size_t frames) {
        std::vector<int16_t> out(frames * net.populations[0].size());
        for (auto& x : out)
            x = int16_t(within(0, 2) == 0 ? 0 : within(0, 99) == 0 ? -128 : within(-40, 60));
        return out;
    }

    int32_t within(int32_t low, int32_t high) {
        return low + int32_t(random_() % uint64_t(high - low + 1));
    }

    IntegerNetwork net;

 private:
    Synapses& synapses(Synapses::Kind kind, size_t from, size_t to, size_t weights, int delay,
                       const kernels::PoolShape* pool) {
        Synapses s;
        s.kind = kind;
        s.from = from;
        s.delay = delay;
        for (size_t i = 0; i < weights; ++i)
            s.weight.push_back(int8_t(from == 0 ? within(-31, 31) : within(-127, 127)));
        if (pool) {
            s.pooled = true;
            s.pool = *pool;
        }
        Population& p = net.populations[to];
        p.depth = std::max(p.depth, net.populations[from].depth + 1);
        p.synapses.push_back(s);
        return p.synapses.back();
    }

    std::mt19937_64 random_;
};

// in - 2 hidden layers - out.
inline IntegerBuilder integer_mlp(std::vector<size_t> sizes, uint64_t seed, int32_t decay = 0) {
    IntegerBuilder b({sizes[0]}, seed);
    for (size_t i = 1; i < sizes.size(); ++i) {
        const bool last = i + 1 == sizes.size();
        const size_t at = b.add({sizes[i]}, !last, decay);
        b.linear(at - 1, at);
        // The input is graded, about 20 on average; then spikes, fewer than half of them.
        const double around = std::sqrt(double(sizes[i - 1])) * (i == 1 ? 500 : 60);
        if (!last) b.thresholds(at, i == 1 ? sizes[i] : 1, std::min(60000, int32_t(around)));
    }
    return b;
}

// Convolutions with stride and padding, a residual of unequal depth with a delay, depthwise and
// grouped convolutions, overlapping and padded pools, then a readout.
inline IntegerBuilder integer_residual(uint64_t seed) {
    IntegerBuilder b({7, 6, 2}, seed);
    const size_t stem = b.add({7, 6, 6});
    b.conv(0, stem, {});
    b.thresholds(stem, 6, 2000);
    const size_t middle = b.add({7, 6, 6});
    b.conv(stem, middle, {.groups = 3});
    b.thresholds(middle, 7 * 6 * 6, 200);
    const size_t sum = b.add({7, 6, 6});
    b.conv(middle, sum, {});
    b.diagonal(stem, sum);
    b.thresholds(sum, 6, 300);
    const auto two = IntegerBuilder::pool({7, 6, 6}, 3, 2, 1);  // overlapping, to 4 x 3
    const size_t wide = b.add({2, 2, 11});
    b.conv(sum, wide, {.kh = 2, .stride_h = 2, .stride_w = 2, .pad_h = 0}, 0, &two);
    b.conv(stem, wide,
           {.kw = 2, .stride_h = 4, .stride_w = 3, .pad_h = 0, .pad_w = 0, .dilation_w = 2}, 2);
    b.thresholds(wide, 1, 400);
    const size_t last = b.add({5}, false);
    b.linear(wide, last);
    const auto all = IntegerBuilder::pool({7, 6, 6}, 2, 2);
    b.linear(sum, last, 1, &all);
    return b;
}

// What the chips of common datasets look like, small: pictures, two pooled stages and a residual.
inline IntegerBuilder integer_conv(uint64_t seed) {
    IntegerBuilder b({12, 12, 1}, seed);
    const size_t stem = b.add({12, 12, 4});
    b.conv(0, stem, {});
    b.thresholds(stem, 4, 1500);
    const auto half = IntegerBuilder::pool({12, 12, 4}, 2, 2);
    const size_t block = b.add({6, 6, 8});
    b.conv(stem, block, {}, 0, &half);
    b.thresholds(block, 8, 300);
    const size_t sum = b.add({6, 6, 8});
    b.conv(block, sum, {});
    b.diagonal(block, sum);
    b.thresholds(sum, 8, 300);
    const auto quarter = IntegerBuilder::pool({6, 6, 8}, 2, 2);
    const size_t last = b.add({10}, false);
    b.linear(sum, last, 0, &quarter);
    return b;
}

}  // namespace nc::test
