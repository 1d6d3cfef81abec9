// Runs the same samples on every backend and compares every value of every neuron.
#include "convert/verify.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "convert/integer_run.h"
#include "hw/fpga.h"
#include "hw/loihi.h"
#include "neurons/train.h"

namespace nc {
namespace {

constexpr size_t trace_bytes = size_t(256) << 20;  // what a batch's traces may take

// All that the standard did for a batch, by population: [T, N * size].
struct Trace {
    std::vector<int32_t> u, v;
    std::vector<uint64_t> bits;  // [T, words]
};

VerifiedBackend backend(const std::string& name, const std::string& kind) {
    VerifiedBackend b;
    b.name = name;
    b.kind = kind;
    return b;
}

class Verifier {
 public:
    Verifier(const Graph& g, const Dataset& data, const VerifyOptions& options)
        : g_(g),
          net_(integer_network(g)),
          data_(data),
          options_(options),
          samples_(std::min(options.samples, data.size())),
          best_(Device{}, options.threads) {
        if (data.steps() > 0 && data.steps() != options.T)
            throw Error("[verify] T is " + std::to_string(options.T) + ", the recordings have " +
                        std::to_string(data.steps()) + " frames");
        if (options.device != nullptr) there_ = on_device(g, *options.device);
        size_t count = 0;
        const auto* tables = kernels::usable(&count);
        for (size_t i = 0; i < count; ++i)
            if (!tables[i]->cuda) tables_.push_back(tables[i]);
        std::reverse(tables_.begin(), tables_.end());
    }

    Verification run() {
        Verification out;
        out.T = options_.T;
        out.backends.push_back(
            backend(std::string("loihi ") + best_.table->name, "simulator, the standard"));
        for (const auto* table : tables_)
            if (table != best_.table)
                out.backends.push_back(backend(std::string("loihi ") + table->name, "simulator"));
        try {
            plan_ = fpga_plan(net_, options_.T);
            out.backends.push_back(backend("fpga", "simulator"));
        } catch (const Error& e) {  // registers it would need are wider than it has
            out.left_out.push_back(std::string("fpga: ") + e.what());
        }
        for (const std::string& name : float_backends())
            out.backends.push_back(backend("float " + name, "float with the same integers"));
        size_t done = 0;
        while (done < samples_) {
            size_t count = std::min(batch_size(), samples_ - done);
            if (done < options_.reference_samples)  // a batch that it takes whole
                count = std::min(count, options_.reference_samples - done);
            const IntegerBatch batch = integer_batch(best_, net_, data_, done, count);
            standard(batch, out.backends.front());
            size_t at = 1;
            for (const auto* table : tables_)
                if (table != best_.table) simulated(*table, batch, done, out.backends[at++]);
            if (plan_.T > 0) on_fpga(batch, out.backends[at++]);
            for (const auto* table : tables_) {
                Compute compute(*table, options_.threads);
                if (takes(*table, done)) floats(compute, g_, batch, out.backends[at]);
                ++at;
            }
            if (options_.device != nullptr)
                floats(*options_.device, there_, batch, out.backends[at]);
            done += batch.N;
            if (options_.stop && options_.stop()) throw Interrupted();
        }
        for (VerifiedBackend& b : out.backends)
            b.accuracy = b.samples == 0 ? 0 : 100 * b.accuracy / double(b.samples);
        return out;
    }

 private:
    size_t batch_size() const {
        size_t bytes = 1;
        for (const Population& p : net_.populations) bytes += p.size() * size_t(options_.T) * 9;
        return std::clamp<size_t>(trace_bytes / bytes, 1, 100);
    }

    // Only the first samples go through the slow reference.
    bool takes(const kernels::Table<float>& table, size_t done) const {
        return &table != &kernels::reference() || done < options_.reference_samples;
    }

    void count(const std::vector<int64_t>& logits, const IntegerBatch& batch,
               VerifiedBackend& b) const {
        const size_t classes = logits.size() / batch.N;
        for (size_t n = 0; n < batch.N; ++n) {
            const auto row = logits.begin() + std::ptrdiff_t(n * classes);
            const auto top = std::max_element(row, row + std::ptrdiff_t(classes)) - row;
            b.accuracy += top == batch.floats.labels[n];
        }
        b.samples += batch.N;
    }

    void standard(const IntegerBatch& batch, VerifiedBackend& b) {
        traces_.assign(net_.populations.size(), {});
        const LoihiRun run =
            run_loihi(best_, net_, batch.events, batch.N, options_.T, batch.floats.temporal,
                      [&](const IntegerStep& s) {
                          Trace& t = traces_[s.population];
                          t.u.insert(t.u.end(), s.u, s.u + s.count);
                          t.v.insert(t.v.end(), s.v, s.v + s.count);
                          if (s.bits != nullptr)
                              t.bits.insert(t.bits.end(), s.bits, s.bits + (s.count + 63) / 64);
                      });
        logits_ = run.logits;
        b.neuron_steps += run.neuron_steps;
        b.spikes += run.spikes;
        b.wraps += run.wraps;
        b.clips += run.clips;
        count(run.logits, batch, b);
    }

    void differs(VerifiedBackend& b, uint64_t& counter, const char* what, size_t population, int t,
                 size_t neuron, double standard, double other) const {
        ++counter;
        if (!b.first.empty()) return;
        b.first = std::string(what) + " of '" + net_.populations[population].name + "', step " +
                  std::to_string(t + 1) + ", neuron " +
                  std::to_string(neuron % net_.populations[population].size()) + ": " +
                  std::to_string(standard) + " and " + std::to_string(other);
    }

    void compare_logits(const std::vector<int64_t>& logits, VerifiedBackend& b) const {
        for (size_t i = 0; i < logits.size(); ++i)
            if (logits[i] != logits_[i])
                differs(b, b.logits_different, "logit", net_.populations.size() - 1, options_.T - 1,
                        i, double(logits_[i]), double(logits[i]));
    }

    // One step of another integer backend against the standard's.
    void compare_step(const IntegerStep& s, VerifiedBackend& b) const {
        const Trace& t = traces_[s.population];
        const size_t at = size_t(s.t) * s.count, words = (s.count + 63) / 64;
        if (std::memcmp(&t.u[at], s.u, s.count * sizeof *s.u) != 0 ||
            std::memcmp(&t.v[at], s.v, s.count * sizeof *s.v) != 0)
            for (size_t i = 0; i < s.count; ++i) {
                if (t.u[at + i] != s.u[i])
                    differs(b, b.u_different, "u", s.population, s.t, i, t.u[at + i], s.u[i]);
                if (t.v[at + i] != s.v[i])
                    differs(b, b.v_different, "v", s.population, s.t, i, t.v[at + i], s.v[i]);
            }
        if (s.bits == nullptr) return;
        for (size_t w = 0; w < words; ++w)
            for (uint64_t x = t.bits[size_t(s.t) * words + w] ^ s.bits[w]; x != 0; x &= x - 1) {
                const size_t i = w * 64 + size_t(__builtin_ctzll(x));
                const bool spiked = t.bits[size_t(s.t) * words + w] >> i % 64 & 1;
                differs(b, b.s_different, "s", s.population, s.t, i, spiked, !spiked);
            }
    }

    void simulated(const kernels::Table<float>& table, const IntegerBatch& batch, size_t done,
                   VerifiedBackend& b) {
        if (!takes(table, done)) return;
        Compute compute(table, options_.threads);
        const LoihiRun run =
            run_loihi(compute, net_, batch.events, batch.N, options_.T, batch.floats.temporal,
                      [&](const IntegerStep& s) { compare_step(s, b); });
        b.neuron_steps += run.neuron_steps;
        b.spikes += run.spikes;
        b.wraps += run.wraps;
        b.clips += run.clips;
        compare_logits(run.logits, b);
        count(run.logits, batch, b);
    }

    void on_fpga(const IntegerBatch& batch, VerifiedBackend& b) {
        const FpgaRun run = run_fpga(
            plan_, net_, batch.events, batch.N, options_.T, batch.floats.temporal,
            [&](const IntegerStep& s) { compare_step(s, b); }, best_.queue.threads);
        b.neuron_steps += run.neuron_steps;
        b.spikes += run.spikes;
        compare_logits(run.logits, b);
        count(run.logits, batch, b);
    }

    std::vector<std::string> float_backends() const {
        std::vector<std::string> out;
        for (const auto* table : tables_) out.push_back(table->name);
        if (options_.device != nullptr) out.push_back(options_.device->table->name);
        return out;
    }

    void floats(Compute& compute, const Graph& g, const IntegerBatch& batch, VerifiedBackend& b) {
        ForwardOptions how;
        how.T = size_t(options_.T);
        how.temporal_input = batch.floats.temporal;
        how.observe = [&](const Observation& o) {
            const auto* neuron = std::get_if<Neuron>(&g_.nodes[o.node].op);
            if (neuron && net_.populations[population_of(o.node)].decay == 0)
                compare_neuron(compute.on_host() ? compute : best_, *neuron, o, b);
        };
        how.neuron = [&](size_t node, const Tensor& x_in, bool x_time) {
            const size_t population = population_of(node);
            if (net_.populations[population].decay == 0) return Tensor();
            return leaky(population, x_in.to_host(), x_time, batch.N, b).to(*compute.allocator);
        };
        const Tensor x = batch.floats.x.to(*compute.allocator);
        const Tensor y = forward(compute, g, {}, x, how).output.value.to_host();  // [T, N, K]
        const size_t per_step = batch.N * net_.populations.back().size();
        std::vector<int64_t> logits(per_step, 0);
        const float* values = y.data<float>();
        for (size_t t = 0; t < size_t(options_.T); ++t)
            for (size_t i = 0; i < per_step; ++i)
                logits[i] += int64_t(values[(y.shape()[0] == 1 ? 0 : t * per_step) + i]);
        compare_logits(logits, b);
        count(logits, batch, b);
    }

    size_t population_of(size_t node) const {
        size_t population = 0;
        while (net_.populations[population].name != g_.nodes[node].name) ++population;
        return population;
    }

    // A step of a population in floats: its currents (bias included) and its membranes, of which
    // `unit` make one in 1/64 weight.
    template <class Membrane>
    void compare_floats(size_t population, size_t t, const float* x, const std::vector<Membrane>& v,
                        Membrane unit, VerifiedBackend& b) const {
        const Population& p = net_.populations[population];
        const Trace& standard = traces_[population];
        for (size_t i = 0; i < v.size(); ++i) {
            const size_t at = t * v.size() + i;
            const float u = (x[i] - float(p.bias[i % p.channels()])) * 64;
            const Membrane membrane = v[i] * unit;
            if (u != float(standard.u[at]))
                differs(b, b.u_different, "u", population, int(t), i, standard.u[at], u);
            if (membrane != Membrane(standard.v[at]))
                differs(b, b.v_different, "v", population, int(t), i, standard.v[at],
                        double(membrane));
        }
        b.neuron_steps += v.size();
    }

    void compare_spikes(size_t population, size_t t, const uint64_t* bits, size_t size,
                        VerifiedBackend& b) const {
        const size_t words = (size + 63) / 64;
        const uint64_t* standard = &traces_[population].bits[t * words];
        for (size_t w = 0; w < words; ++w) {
            b.spikes += uint64_t(__builtin_popcountll(bits[w]));
            for (uint64_t d = bits[w] ^ standard[w]; d != 0; d &= d - 1) {
                const int bit = __builtin_ctzll(d);
                const bool spiked = standard[w] >> bit & 1;
                differs(b, b.s_different, "s", population, int(t), w * 64 + size_t(bit), spiked,
                        !spiked);
            }
        }
    }

    void compare_neuron(Compute& compute, const Neuron& neuron, const Observation& o,
                        VerifiedBackend& b) const {
        const size_t population = population_of(o.node), size = o.y.elements() / o.T;
        const size_t sample = net_.populations[population].size();
        const Tensor given = o.x.to_host(), packed = o.bits.to_host();
        // The membranes once more, a step at a time, by the same table.
        const auto theta = neuron.theta.to_vector<float>();
        const auto v0 = neuron.v0.to_vector<float>();
        const std::vector<float> amplitude(theta.size(), 1);
        std::vector<float> v(size);
        for (size_t i = 0; i < size; ++i) v[i] = v0[i % sample % v0.size()];
        kernels::NeuronRule<float> rule;
        rule.compare = neuron.rule.compare;
        rule.reset = neuron.rule.reset;
        for (size_t t = 0; t < o.T; ++t) {
            const float* x = given.data<float>() + (o.x_time ? t * size : 0);
            compute.table->neuron.forward(compute.queue, rule, theta.data(), v0.data(),
                                          amplitude.data(), x, v.data(), nullptr, nullptr,
                                          {1, size, theta.size()});
            compare_floats(population, t, x, v, 64.0f, b);
            compare_spikes(population, t, packed.data<uint64_t>() + t * ((size + 63) / 64), size,
                           b);
        }
    }

    // A leaky population's steps from its currents; returns its spikes, [T * N, ...].
    Tensor leaky(size_t population, const Tensor& x, bool x_time, size_t N,
                 VerifiedBackend& b) const {
        const Population& p = net_.populations[population];
        const size_t size = N * p.size(), steps = size_t(options_.T);
        std::vector<float> spikes(steps * size, 0);
        std::vector<double> v(size, 0);
        const auto threshold = [&](size_t i) {
            return p.threshold[i % p.size() % p.threshold.size()];
        };
        for (size_t i = 0; p.half_start && i < size; ++i) v[i] = double(threshold(i) >> 1) * 64;
        for (size_t t = 0; t < steps; ++t) {
            const float* now = x.data<float>() + (x_time ? t * size : 0);
            std::vector<uint64_t> bits((size + 63) / 64);
            for (size_t i = 0; i < size; ++i) {
                v[i] = std::trunc(v[i] * (4096 - p.decay) / 4096) + double(now[i]) * 64;
                const double theta = double(threshold(i)) * 64;
                if (v[i] < theta) continue;
                v[i] = p.reset_to_zero ? 0 : v[i] - theta;
                bits[i / 64] |= uint64_t(1) << i % 64;
                spikes[t * size + i] = 1;
            }
            compare_floats(population, t, now, v, 1.0, b);
            compare_spikes(population, t, bits.data(), size, b);
        }
        return Tensor::from(spikes, p.shape.with_leading(steps * N));
    }

    const Graph& g_;
    Graph there_;  // on the device, if any
    const IntegerNetwork net_;
    const Dataset& data_;
    const VerifyOptions& options_;
    const size_t samples_;
    Compute best_;
    FpgaPlan plan_;  // T 0: no FPGA has registers for it
    std::vector<const kernels::Table<float>*> tables_;
    std::vector<Trace> traces_;
    std::vector<int64_t> logits_;
};

}  // namespace

bool Verification::passed() const {
    return std::all_of(backends.begin(), backends.end(),
                       [](const VerifiedBackend& b) { return b.agrees(); });
}

Verification verify(const Graph& g, const Dataset& data, const VerifyOptions& options) {
    if (options.T < 1) throw Error("[verify] T must be at least 1: " + std::to_string(options.T));
    return Verifier(g, data, options).run();
}

Json to_json(const Verification& v) {
    Json out = {{"T", v.T}, {"passed", v.passed()}, {"backends", Json::array()}};
    for (const VerifiedBackend& b : v.backends)
        out["backends"].push_back({{"name", b.name},
                                   {"kind", b.kind},
                                   {"samples", b.samples},
                                   {"neuron_steps", b.neuron_steps},
                                   {"spikes", b.spikes},
                                   {"u_different", b.u_different},
                                   {"v_different", b.v_different},
                                   {"s_different", b.s_different},
                                   {"logits_different", b.logits_different},
                                   {"register_wraps", b.wraps},
                                   {"register_clips", b.clips},
                                   {"accuracy", b.accuracy},
                                   {"first_difference", b.first}});
    out["left_out"] = v.left_out;
    return out;
}

}  // namespace nc
