// Plans of populations as time-multiplexed cores, and their simulation.
#include "hw/fpga.h"

#include <algorithm>
#include <atomic>
#include <bit>

#include "kernels/parallel.h"

namespace nc {
namespace {

[[noreturn]] void fail_fpga(const std::string& what) {
    throw Error("[fpga] " + what, ErrorKind::model);
}

// Bits of a two's complement register that holds -magnitude .. magnitude.
int signed_bits(int64_t magnitude) {
    return int(std::bit_width(uint64_t(magnitude))) + 1;
}

// One axis of a window: output o covers inputs o * stride + k * dilation - pad, k < kernel.
struct Window {
    size_t out = 1, kernel = 1, stride = 1, pad = 0, dilation = 1;
};
struct Pair {
    size_t out, kernel;
};

// The outputs an input reaches, and through which element of the kernel.
std::vector<Pair> reached(const Window& w, size_t input) {
    std::vector<Pair> out;
    for (size_t o = 0; o < w.out; ++o)
        for (size_t k = 0; k < w.kernel; ++k)
            if (o * w.stride + k * w.dilation == input + w.pad) out.push_back({o, k});
    return out;
}

// By source position: through the pool, then through the kernel.
std::vector<std::vector<FpgaTap>> taps(size_t source, const Window& pool, const Window& kernel,
                                       size_t accumulator_step, size_t weight_step) {
    std::vector<std::vector<FpgaTap>> out(source);
    for (size_t i = 0; i < source; ++i)
        for (const Pair& pooled : reached(pool, i))
            for (const Pair& at : reached(kernel, pooled.out))
                out[i].push_back(
                    {uint32_t(at.out * accumulator_step), uint32_t(at.kernel * weight_step)});
    return out;
}

size_t count_taps(const std::vector<std::vector<FpgaTap>>& axis) {
    size_t n = 0;
    for (const auto& list : axis) n += list.size();
    return n;
}

FpgaSynapses plan_synapses(const Synapses& s, const FpgaPopulation& source,
                           const FpgaPopulation& target, size_t lanes) {
    FpgaSynapses out;
    out.from = s.from;
    out.delay = s.delay;
    Window pool_y{.out = source.height}, pool_x{.out = source.width};
    if (s.pooled) {
        pool_y = {s.pool.out_h(), s.pool.kh, s.pool.stride_h, s.pool.pad_h, 1};
        pool_x = {s.pool.out_w(), s.pool.kw, s.pool.stride_w, s.pool.pad_w, 1};
    }
    // Linear: a kernel as large as the map. Diagonal: one pixel, each channel a group of its own.
    const size_t cin = source.channels, cout = target.channels;
    Window kernel_y{.kernel = pool_y.out}, kernel_x{.kernel = pool_x.out};
    size_t groups = 1;
    // A diagonal across a flattening, channel (y, x, c) to element y, x, c, is spelt out.
    const bool diagonal = s.kind == Synapses::Kind::diagonal;
    const bool flattening = diagonal && cin != cout;
    if (s.kind == Synapses::Kind::conv) {
        const kernels::ConvShape& c = s.conv;
        kernel_y = {c.out_h(), c.kh, c.stride_h, c.pad_h, c.dilation_h};
        kernel_x = {c.out_w(), c.kw, c.stride_w, c.pad_w, c.dilation_w};
        groups = c.groups;
    } else if (diagonal && !flattening) {
        kernel_y = {.out = pool_y.out};
        kernel_x = {.out = pool_x.out};
        groups = cin;
    }
    if (kernel_y.out != target.height || kernel_x.out != target.width)
        fail_fpga(target.name + ": synapses of " + source.name + " give " +
                  std::to_string(kernel_y.out) + "x" + std::to_string(kernel_x.out) +
                  " pixels, not " + std::to_string(target.height) + "x" +
                  std::to_string(target.width));

    const size_t cin_group = cin / groups, cout_group = cout / groups;
    for (size_t g = 0; g < groups; ++g)
        out.blocks =
            std::max(out.blocks, ((g + 1) * cout_group - 1) / lanes - g * cout_group / lanes + 1);
    for (size_t c = 0; c < cin; ++c)
        out.first.push_back(
            uint32_t(std::min(c / cin_group * cout_group / lanes, target.blocks - out.blocks)));
    out.rows = taps(source.height, pool_y, kernel_y, target.width * target.blocks,
                    kernel_x.kernel * cin * out.blocks);
    out.columns = taps(source.width, pool_x, kernel_x, target.blocks, cin * out.blocks);

    const size_t positions = kernel_y.kernel * kernel_x.kernel;
    out.weight.assign(positions * cin * out.blocks * lanes, 0);
    for (size_t k = 0; k < positions; ++k)
        for (size_t c = 0; c < cin; ++c)
            for (size_t i = 0; i < out.blocks * lanes; ++i) {
                const size_t o = out.first[c] * lanes + i;
                if (o >= cout || o / cout_group != c / cin_group) continue;
                int8_t& w = out.weight[(k * cin + c) * out.blocks * lanes + i];
                if (flattening)
                    w = o == k * cin + c ? s.weight[o] : int8_t(0);
                else if (diagonal)
                    w = s.weight[o];
                else
                    w = s.weight[(k * cin_group + c % cin_group) * cout + o];
            }
    return out;
}

// Cycles in which every neuron of the source spikes.
uint64_t synapse_bound(const FpgaSynapses& s) {
    const uint64_t events = s.rows.size() * s.columns.size() * s.first.size();
    return FpgaCycles::synapse + FpgaCycles::event * events +
           count_taps(s.rows) * count_taps(s.columns) * s.first.size() * s.blocks;
}

FpgaPopulation plan_population(const Population& p, const Reach& reach, bool input, size_t lanes) {
    FpgaPopulation out;
    out.name = p.name;
    if (p.shape.rank() != 1 && p.shape.rank() != 3)
        fail_fpga(p.name + ": shape " + p.shape.str() + " is neither [H, W, C] nor [F]");
    if (p.shape.rank() == 3) {
        out.height = p.shape[0];
        out.width = p.shape[1];
    }
    out.channels = p.channels();
    out.blocks = (out.channels + lanes - 1) / lanes;
    out.rows = out.height * out.width * out.blocks;
    if (input) return out;
    out.fraction = p.spiking && p.decay != 0 ? 6 : 0;
    out.accumulator_bits = signed_bits(reach.current);
    out.membrane_bits = signed_bits(reach.membrane) + out.fraction;
    if (out.accumulator_bits > 32)
        fail_fpga(p.name + ": its accumulators need " + std::to_string(out.accumulator_bits) +
                  " bits, more than 32");
    if (out.membrane_bits > 48)
        fail_fpga(p.name + ": its membranes need " + std::to_string(out.membrane_bits) +
                  " bits, more than 48");
    return out;
}

}  // namespace

uint64_t FpgaPlan::step_bound(bool temporal) const {
    uint64_t sum = 0, most = 0;
    for (size_t i = 1; i < populations.size(); ++i) {
        const FpgaPopulation& p = populations[i];
        uint64_t cycles = p.step_bound + FpgaCycles::phase;
        for (const FpgaSynapses& s : p.synapses)
            if (s.from == 0) cycles += temporal ? synapse_bound(s) : FpgaCycles::skip;
        sum += cycles;
        most = std::max(most, cycles);
    }
    return pipelined ? most : sum;
}

uint64_t FpgaPlan::memory_bits() const {
    uint64_t bits = 0;
    for (const FpgaPopulation& p : populations) {
        // Accumulator and membrane of every neuron; of every channel 17 bits of threshold and 25 of
        // bias, at most.
        bits += p.rows * lanes * uint64_t(p.accumulator_bits + p.membrane_bits);
        bits += p.blocks * lanes * 42 * (p.accumulator_bits > 0);
        for (const FpgaSynapses& s : p.synapses) {
            bits += s.weight.size() * 8;
            const uint64_t events = s.rows.size() * s.columns.size() * s.first.size();
            const uint64_t wide = std::bit_width(s.rows.size() - 1) +
                                  std::bit_width(s.columns.size() - 1) +
                                  std::bit_width(s.first.size() - 1) + 1 + (s.from == 0 ? 8 : 0);
            bits += s.queued * (events + 1) * wide;
            if (s.from == 0) bits += p.rows * lanes * uint64_t(p.accumulator_bits);
        }
    }
    return bits;
}

FpgaPlan fpga_plan(const IntegerNetwork& net, int T, size_t lanes, bool pipelined) {
    if (T < 1) fail_fpga("T must be at least 1");
    if (!std::has_single_bit(lanes) || lanes > 64)
        fail_fpga("lanes must be a power of 2 up to 64, not " + std::to_string(lanes));
    FpgaPlan plan;
    plan.T = T;
    plan.lanes = lanes;
    plan.pipelined = pipelined;
    const std::vector<Reach> reaches = reach(net, T);
    for (size_t i = 0; i < net.populations.size(); ++i) {
        const Population& p = net.populations[i];
        if (p.reset_to_zero) fail_fpga("'" + p.name + "' resets to zero: this target subtracts");
        FpgaPopulation out = plan_population(p, reaches[i], i == 0, lanes);
        out.step_bound = FpgaCycles::open + out.rows + (p.spiking ? p.size() : 0);
        for (const Synapses& s : p.synapses) {
            FpgaSynapses planned = plan_synapses(s, plan.populations[s.from], out, lanes);
            const int from_depth = net.populations[s.from].depth;
            // The input's frame arrives before the step; a core writes while its targets read.
            const int ahead = pipelined ? p.depth - std::max(from_depth, 1) : 0;
            planned.queued = size_t(1 + ahead + s.delay);
            if (s.from == 0) {
                if (out.load_bound == 0)
                    out.load_bound =
                        FpgaCycles::open + out.rows + (p.synapses.size() - 1) * FpgaCycles::skip;
                else
                    out.load_bound -= FpgaCycles::skip;
                out.load_bound += synapse_bound(planned);
            } else {
                out.step_bound += synapse_bound(planned);
            }
            out.synapses.push_back(std::move(planned));
        }
        plan.populations.push_back(std::move(out));
    }
    return plan;
}

namespace {

// One spike of a population; graded from the input.
struct Event {
    uint32_t y, x, c;
    int32_t value;
};

// What one sample's core of one population holds.
struct Core {
    std::vector<int32_t> accumulator;       // [rows, lanes]
    std::vector<int32_t> current;           // [rows, lanes]: of static input, undelayed
    std::vector<int64_t> membrane;          // [neurons]
    std::vector<std::vector<Event>> queue;  // by step % kept
    std::vector<uint64_t> cycles;           // [T]
    uint64_t load_cycles = 0, spikes = 0;
};

class Fabric {
 public:
    Fabric(const FpgaPlan& plan, const IntegerNetwork& net, const std::vector<int16_t>& input,
           size_t N, int T, bool temporal, const ObserveIntegers& observe, int threads)
        : plan_(plan),
          net_(net),
          input_(input),
          N_(N),
          T_(T),
          temporal_(temporal),
          observe_(observe),
          threads_(threads),
          keep_(net.populations.size(), 1),
          cores_(N * net.populations.size()) {
        if (net.populations.size() != plan.populations.size())
            fail_fpga("the plan is another network's");
        if (T > plan.T)
            fail_fpga("T = " + std::to_string(T) + ", but widths are proven for up to " +
                      std::to_string(plan.T) + " steps");
        check_run("fpga", net, input.size(), N, T, temporal);
        for (const Population& p : net.populations)
            for (const Synapses& s : p.synapses)
                keep_[s.from] = std::max(keep_[s.from], size_t(s.delay) + 1);
    }

    FpgaRun run() {
        FpgaRun out;
        const size_t P = net_.populations.size();
        kernels::parallel_for(threads_, N_, 1, [&](size_t begin, size_t end) {
            for (size_t n = begin; n < end; ++n)
                for (size_t i = 0; i < P; ++i) clear(n, i);
        });
        for (int t = 0; t < T_; ++t)
            for (size_t i = 0; i < P; ++i) {
                const size_t count = N_ * net_.populations[i].size();
                u_.assign(i > 0 ? count : 0, 0);
                v_.assign(i > 0 ? count : 0, 0);
                spikes_.assign(i > 0 ? count : 0, 0);
                kernels::parallel_for(threads_, N_, 1, [&](size_t begin, size_t end) {
                    for (size_t n = begin; n < end; ++n) i == 0 ? receive(n, t) : step(n, i, t);
                });
                if (overflow_) fail_fpga(net_.populations[i].name + ": a register overflowed");
                if (observe_ && i > 0) show(i, t);
            }
        for (size_t n = 0; n < N_; ++n) finish(n, out);
        return out;
    }

 private:
    Core& core(size_t n, size_t i) { return cores_[n * net_.populations.size() + i]; }

    void clear(size_t n, size_t i) {
        const Population& p = net_.populations[i];
        Core& c = core(n, i);
        c.queue.resize(keep_[i]);
        if (i == 0) return;
        c.accumulator.assign(plan_.populations[i].rows * plan_.lanes, 0);
        c.current.assign(c.accumulator.size(), 0);
        c.membrane.assign(p.size(), 0);
        if (p.spiking && p.half_start)
            for (size_t j = 0; j < p.size(); ++j)
                c.membrane[j] = int64_t(threshold(p, j) >> 1) << plan_.populations[i].fraction;
    }

    static int32_t threshold(const Population& p, size_t j) {
        return p.threshold[p.threshold.size() == p.size() ? j : j % p.threshold.size()];
    }

    // The input's non-zero values as events; of a static sample once.
    void receive(size_t n, int t) {
        if (!temporal_ && t > 0) return;
        const FpgaPopulation& p = plan_.populations[0];
        const size_t size = net_.populations[0].size();
        const int16_t* x = input_.data() + (size_t(t) * N_ + n) * size;
        auto& queue = core(n, 0).queue[size_t(t) % keep_[0]];
        queue.clear();
        for (size_t j = 0; j < size; ++j)
            if (x[j] != 0)
                queue.push_back({uint32_t(j / p.channels / p.width),
                                 uint32_t(j / p.channels % p.width), uint32_t(j % p.channels),
                                 x[j]});
    }

    // Adds a queue's weight rows to accumulator rows; returns the cycles it takes.
    uint64_t scatter(const FpgaSynapses& s, const std::vector<Event>& queue, int32_t* accumulator) {
        const size_t L = plan_.lanes, wide = s.blocks * L;
        uint64_t cycles = FpgaCycles::synapse + FpgaCycles::event * queue.size();
        for (const Event& e : queue)
            for (const FpgaTap& row : s.rows[e.y])
                for (const FpgaTap& column : s.columns[e.x]) {
                    const int8_t* w =
                        s.weight.data() + (row.weight + column.weight + e.c * s.blocks) * L;
                    int32_t* a =
                        accumulator + (row.accumulator + column.accumulator + s.first[e.c]) * L;
                    if (s.from == 0)
                        for (size_t l = 0; l < wide; ++l) a[l] += e.value * w[l];
                    else
                        for (size_t l = 0; l < wide; ++l) a[l] += w[l];
                    cycles += s.blocks;
                }
        return cycles;
    }

    void step(size_t n, size_t i, int t) {
        const FpgaPopulation& p = plan_.populations[i];
        Core& c = core(n, i);
        uint64_t cycles = FpgaCycles::open + p.rows;
        if (t == 0 && p.load_bound > 0 && !temporal_) c.load_cycles = FpgaCycles::open + p.rows;
        for (const FpgaSynapses& s : p.synapses) {
            const bool fixed = s.from == 0 && !temporal_;
            if (fixed && t == s.delay) {
                c.load_cycles += scatter(s, core(n, 0).queue[0], c.current.data());
            } else if (p.load_bound > 0 && !temporal_ && t == 0) {
                c.load_cycles += FpgaCycles::skip;
            }
            if (fixed || t < s.delay)
                cycles += FpgaCycles::skip;
            else
                cycles += scatter(s, core(n, s.from).queue[size_t(t - s.delay) % keep_[s.from]],
                                  c.accumulator.data());
        }
        const uint64_t before = c.spikes;
        sweep(n, i, t);
        c.cycles.push_back(cycles + c.spikes - before);
    }

    // Updates, compares, resets and pushes, row by row.
    void sweep(size_t n, size_t i, int t) {
        const FpgaPopulation& p = plan_.populations[i];
        const Population& what = net_.populations[i];
        Core& c = core(n, i);
        auto& queue = c.queue[size_t(t) % keep_[i]];
        queue.clear();
        const int64_t most_current = int64_t(1) << (p.accumulator_bits - 1);
        const int64_t most_membrane = int64_t(1) << (p.membrane_bits - 1);
        bool overflow = false;
        size_t j = 0;
        for (size_t y = 0; y < p.height; ++y)
            for (size_t x = 0; x < p.width; ++x) {
                const size_t base = (y * p.width + x) * p.blocks * plan_.lanes;
                for (size_t k = 0; k < p.channels; ++k, ++j) {
                    const int64_t u = int64_t(c.accumulator[base + k]) + c.current[base + k];
                    const int64_t in = u + what.bias[k];
                    int64_t v = c.membrane[j];
                    if (p.fraction != 0) v = decayed(v, what.decay);
                    v += in * (int64_t(1) << p.fraction);
                    overflow |= u < -most_current || u >= most_current || in < -most_current ||
                                in >= most_current || v < -most_membrane || v >= most_membrane;
                    if (what.spiking) {
                        const int64_t theta = int64_t(threshold(what, j)) << p.fraction;
                        if (v >= theta) {
                            v -= theta;
                            queue.push_back({uint32_t(y), uint32_t(x), uint32_t(k), 1});
                            spikes_[n * what.size() + j] = 1;
                        }
                    }
                    c.membrane[j] = v;
                    if (observe_) {
                        const int64_t seen = what.spiking ? v * (64 >> p.fraction) : v;
                        overflow |= seen != int32_t(seen) || u * 64 != int32_t(u * 64);
                        u_[n * what.size() + j] = int32_t(u * 64);
                        v_[n * what.size() + j] = int32_t(seen);
                    }
                }
            }
        c.spikes += queue.size();
        std::fill(c.accumulator.begin(), c.accumulator.end(), 0);
        if (overflow) overflow_ = true;
    }

    // Towards zero: the magnitude is what is multiplied and cut.
    static int64_t decayed(int64_t v, int32_t decay) {
        const uint64_t magnitude = uint64_t(v < 0 ? -v : v);
        const auto left = int64_t((magnitude * uint64_t(4096 - decay)) >> 12);
        return v < 0 ? -left : left;
    }

    void show(size_t i, int t) {
        bits_.assign((spikes_.size() + 63) / 64, 0);
        for (size_t j = 0; j < spikes_.size(); ++j) bits_[j / 64] |= uint64_t(spikes_[j]) << j % 64;
        const bool spiking = net_.populations[i].spiking;
        observe_({i, t, u_.data(), v_.data(), spiking ? bits_.data() : nullptr, spikes_.size()});
    }

    void finish(size_t n, FpgaRun& out) {
        const size_t P = net_.populations.size();
        uint64_t clearing = 0, loading = 0, total = 0;
        for (size_t i = 1; i < P; ++i) {
            const Core& c = core(n, i);
            clearing = std::max(clearing, uint64_t(plan_.populations[i].rows));
            loading = std::max(loading, c.load_cycles);
            out.spikes += c.spikes;
            if (net_.populations[i].spiking)
                out.neuron_steps += net_.populations[i].size() * uint64_t(T_);
        }
        total = clearing + FpgaCycles::open + FpgaCycles::phase;
        if (!temporal_) total += loading + FpgaCycles::phase;
        const int depth = plan_.pipelined ? net_.populations.back().depth : 1;
        for (int k = 0; k < T_ + depth - 1; ++k) {
            uint64_t sum = 0, most = 0;
            for (size_t i = 1; i < P; ++i) {
                const int t = plan_.pipelined ? k + 1 - net_.populations[i].depth : k;
                if (t < 0 || t >= T_) continue;
                const uint64_t cycles = core(n, i).cycles[size_t(t)] + FpgaCycles::phase;
                sum += cycles;
                most = std::max(most, cycles);
            }
            const uint64_t step = plan_.pipelined ? most : sum;
            out.worst_step = std::max(out.worst_step, step);
            total += step;
        }
        out.cycles.push_back(total);
        const Core& readout = core(n, P - 1);
        out.logits.insert(out.logits.end(), readout.membrane.begin(), readout.membrane.end());
    }

    const FpgaPlan& plan_;
    const IntegerNetwork& net_;
    const std::vector<int16_t>& input_;
    const size_t N_;
    const int T_;
    const bool temporal_;
    const ObserveIntegers& observe_;
    const int threads_;
    std::vector<size_t> keep_;  // by population: steps of its events that someone may ask for
    std::vector<Core> cores_;   // [N, populations]
    std::vector<int32_t> u_, v_;
    std::vector<uint8_t> spikes_;
    std::vector<uint64_t> bits_;
    std::atomic<bool> overflow_ = false;
};

}  // namespace

FpgaRun run_fpga(const FpgaPlan& plan, const IntegerNetwork& net, const std::vector<int16_t>& input,
                 size_t N, int T, bool temporal, const ObserveIntegers& observe, int threads) {
    return Fabric(plan, net, input, N, T, temporal, observe, threads).run();
}

}  // namespace nc
