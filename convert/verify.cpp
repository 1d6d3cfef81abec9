// Runs the same samples on every backend and compares every value of every neuron.
#include "convert/verify.h"

#include <algorithm>
#include <cmath>
#include <cstring>

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

struct Samples {
    Tensor x;  // [N, ..] or [T, N, ..]
    std::vector<int32_t> labels;
    bool temporal = false;
    std::vector<int16_t> events;
    size_t N = 0;
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
        for (const Population& p : net_.populations) leaky_ = leaky_ || p.decay != 0;
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
        if (leaky_)
            out.left_out.push_back("float: leaky neurons truncate on integer targets");
        else
            for (const std::string& name : float_backends())
                out.backends.push_back(backend("float " + name, "float with the same integers"));
        size_t done = 0;
        while (done < samples_) {
            size_t count = std::min(batch_size(), samples_ - done);
            if (done < options_.reference_samples)  // a batch that it takes whole
                count = std::min(count, options_.reference_samples - done);
            const Samples batch = take(done, count);
            standard(batch, out.backends.front());
            size_t at = 1;
            for (const auto* table : tables_)
                if (table != best_.table) simulated(*table, batch, done, out.backends[at++]);
            if (plan_.T > 0) on_fpga(batch, out.backends[at++]);
            if (!leaky_) {
                for (const auto* table : tables_) {
                    Compute compute(*table, options_.threads);
                    if (takes(*table, done)) floats(compute, g_, batch, out.backends[at]);
                    ++at;
                }
                if (options_.device != nullptr)
                    floats(*options_.device, there_, batch, out.backends[at]);
            }
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

    Samples take(size_t first, size_t count) {
        std::vector<uint32_t> indices(count);
        for (size_t i = 0; i < count; ++i) indices[i] = uint32_t(first + i);
        Random random(0);
        Batch batch = data_.batch(best_, indices, {}, random);
        Samples out;
        out.x = batch.x;
        out.labels = batch.labels;
        out.temporal = batch.temporal;
        out.N = count;
        out.events = input_events(net_, batch.x.data<float>(), batch.x.elements());
        return out;
    }

    // Only the first samples go through the slow reference.
    bool takes(const kernels::Table<float>& table, size_t done) const {
        return &table != &kernels::reference() || done < options_.reference_samples;
    }

    void count(const std::vector<int64_t>& logits, const Samples& batch, VerifiedBackend& b) const {
        const size_t classes = logits.size() / batch.N;
        for (size_t n = 0; n < batch.N; ++n) {
            const auto row = logits.begin() + std::ptrdiff_t(n * classes);
            const auto top = std::max_element(row, row + std::ptrdiff_t(classes)) - row;
            b.accuracy += top == batch.labels[n];
        }
        b.samples += batch.N;
    }

    void standard(const Samples& batch, VerifiedBackend& b) {
        traces_.assign(net_.populations.size(), {});
        const LoihiRun run =
            run_loihi(best_, net_, batch.events, batch.N, options_.T, batch.temporal,
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

    void simulated(const kernels::Table<float>& table, const Samples& batch, size_t done,
                   VerifiedBackend& b) {
        if (!takes(table, done)) return;
        Compute compute(table, options_.threads);
        const LoihiRun run =
            run_loihi(compute, net_, batch.events, batch.N, options_.T, batch.temporal,
                      [&](const IntegerStep& s) { compare_step(s, b); });
        b.neuron_steps += run.neuron_steps;
        b.spikes += run.spikes;
        b.wraps += run.wraps;
        b.clips += run.clips;
        compare_logits(run.logits, b);
        count(run.logits, batch, b);
    }

    void on_fpga(const Samples& batch, VerifiedBackend& b) {
        const FpgaRun run = run_fpga(
            plan_, net_, batch.events, batch.N, options_.T, batch.temporal,
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

    void floats(Compute& compute, const Graph& g, const Samples& batch, VerifiedBackend& b) {
        ForwardOptions how;
        how.T = size_t(options_.T);
        how.temporal_input = batch.temporal;
        how.observe = [&](const Observation& o) {
            if (const auto* neuron = std::get_if<Neuron>(&g_.nodes[o.node].op))
                compare_neuron(compute.on_host() ? compute : best_, *neuron, o, b);
        };
        const Tensor x = batch.x.to(*compute.allocator);
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

    void compare_neuron(Compute& compute, const Neuron& neuron, const Observation& o,
                        VerifiedBackend& b) const {
        size_t population = 0;
        while (net_.populations[population].name != o.graph.nodes[o.node].name) ++population;
        const Population& p = net_.populations[population];
        const Trace& standard = traces_[population];
        const size_t size = o.y.elements() / o.T, words = (size + 63) / 64;
        const Tensor given = o.x.to_host(), packed = o.bits.to_host();
        const float* x = given.data<float>();
        const uint64_t* bits = packed.data<uint64_t>();
        // The membranes once more, a step at a time, by the same table.
        const auto theta = neuron.theta.to_vector<float>();
        const auto v0 = neuron.v0.to_vector<float>();
        const std::vector<float> amplitude(theta.size(), 1);
        std::vector<float> v(size);
        for (size_t i = 0; i < size; ++i) v[i] = v0[i % p.size() % v0.size()];
        kernels::NeuronRule<float> rule;
        rule.compare = neuron.rule.compare;
        rule.reset = neuron.rule.reset;
        for (size_t t = 0; t < o.T; ++t) {
            const float* now = x + (o.x_time ? t * size : 0);
            compute.table->neuron.forward(compute.queue, rule, theta.data(), v0.data(),
                                          amplitude.data(), now, v.data(), nullptr, nullptr,
                                          {1, size, theta.size()});
            for (size_t i = 0; i < size; ++i) {
                const size_t at = t * size + i;
                const float u = now[i] - float(p.bias[i % p.channels()]);
                if (u * 64 != float(standard.u[at]))
                    differs(b, b.u_different, "u", population, int(t), i, standard.u[at], u * 64);
                if (v[i] * 64 != float(standard.v[at]))
                    differs(b, b.v_different, "v", population, int(t), i, standard.v[at],
                            v[i] * 64);
            }
            for (size_t w = 0; w < words; ++w) {
                const uint64_t own = bits[t * words + w];
                b.spikes += uint64_t(__builtin_popcountll(own));
                for (uint64_t d = own ^ standard.bits[t * words + w]; d != 0; d &= d - 1)
                    differs(b, b.s_different, "s", population, int(t),
                            w * 64 + size_t(__builtin_ctzll(d)), 0, 1);
            }
        }
        b.neuron_steps += o.T * size;
    }

    const Graph& g_;
    Graph there_;  // on the device, if any
    const IntegerNetwork net_;
    const Dataset& data_;
    const VerifyOptions& options_;
    const size_t samples_;
    Compute best_;
    bool leaky_ = false;
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
