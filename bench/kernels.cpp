// Checking and timing one kernel, and the figures that the targets are about.
#include "bench/kernels.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

namespace nc::bench {
namespace {

bool close(const Tensor& expected, const Tensor& got, double tolerance) {
    if (tolerance == 0) return std::memcmp(expected.raw(), got.raw(), got.bytes()) == 0;
    const auto* a = static_cast<const float*>(expected.raw());
    const auto* b = static_cast<const float*>(got.raw());
    const size_t n = got.bytes() / sizeof(float);
    double largest = 0;
    for (size_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(double(a[i])));
    for (size_t i = 0; i < n; ++i)
        if (!(std::fabs(double(a[i]) - double(b[i])) <= tolerance * largest)) return false;
    return true;
}

// Mean floor percent of the rows whose name starts so; negative when there is none.
double mean_percent(const std::vector<Row>& rows, const std::vector<std::string>& prefixes) {
    double sum = 0;
    size_t count = 0;
    for (const Row& row : rows)
        for (const auto& prefix : prefixes)
            if (row.name.rfind(prefix, 0) == 0) {
                sum += row.floor_percent();
                ++count;
            }
    return count > 0 ? sum / double(count) : -1;
}

const Row* find_row(const std::vector<Row>& rows, const std::string& name) {
    const auto found =
        std::find_if(rows.begin(), rows.end(), [&](const Row& r) { return r.name == name; });
    return found != rows.end() ? &*found : nullptr;
}

}  // namespace

std::vector<float> random_floats(size_t n, uint64_t seed, float low, float high) {
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<float> uniform(low, high);
    std::vector<float> out(n);
    for (float& x : out) x = uniform(random);
    return out;
}

bool same_outputs(const Case& expected, const Case& got) {
    expected.run();
    got.run();
    for (size_t i = 0; i < got.outputs.size(); ++i)
        if (!close(expected.outputs[i].to_host(), got.outputs[i].to_host(), got.tolerance))
            return false;
    return true;
}

std::vector<NamedCase> all_cases() {
    std::vector<NamedCase> all = dense_cases();
    for (auto& c : layer_cases()) all.push_back(std::move(c));
    for (auto& c : spiking_cases()) all.push_back(std::move(c));
    for (auto& c : integer_cases()) all.push_back(std::move(c));
    return all;
}

Row measure(Machine& machine, const NamedCase& named, Compute& compute, double seconds) {
    const Case c = named.make(compute);
    bool right = false;
    if (c.correct) {
        right = c.correct();
    } else {
        Compute reference(kernels::reference(), compute.queue.threads);
        right = same_outputs(named.make(reference), c);
    }
    compute.check("bench");
    if (!right)
        throw Error(fmt::format("[bench] {} on table {} differs from the reference", named.name,
                                table_name(compute)));
    const Timing timing = time_runs(seconds, compute, c.run);
    return make_row(machine, named.name, compute, c.operations, c.bytes, timing);
}

std::vector<std::string> summary(const std::vector<Row>& rows) {
    std::vector<std::string> lines;
    std::vector<std::pair<std::string, int>> seen;
    for (const Row& row : rows) {
        if (std::find(seen.begin(), seen.end(), std::pair(row.table, row.threads)) != seen.end())
            continue;
        seen.emplace_back(row.table, row.threads);
        std::vector<Row> mine;
        for (const Row& r : rows)
            if (r.table == row.table && r.threads == row.threads) mine.push_back(r);
        const auto who =
            fmt::format("{}, {} thread{}", row.table, row.threads, row.threads == 1 ? "" : "s");
        const auto share = [&](const std::string& what, double percent) {
            if (percent >= 0)
                lines.push_back(fmt::format("{}: {}: {:.1f} % of FMA peak", who, what, percent));
        };
        share("sgemm 2048", mean_percent(mine, {"gemm/2048x2048x2048"}));
        share("conv forward, ResNet-18 layers at batch 32, average",
              mean_percent(mine, {"conv.forward/resnet18/"}));
        share("conv backward, ResNet-18 layers at batch 32, average",
              mean_percent(mine,
                           {"conv.backward_input/resnet18/", "conv.backward_weight/resnet18/"}));
        const Row* dense = find_row(mine, "spike.linear_dense/rate-0.1");
        const Row* event = find_row(mine, "spike.linear_event/rate-0.1");
        if (dense != nullptr && event != nullptr)
            lines.push_back(fmt::format(
                "{}: linear at a spike rate of 0.1: event-driven {:.2f} times as fast as dense",
                who, dense->timing.minimum / event->timing.minimum));
        for (const char* neuron : {"if", "lif"})
            if (const Row* r = find_row(mine, fmt::format("integer.scan.{}/T1-n8388608", neuron)))
                lines.push_back(fmt::format("{}: integer {}: {:.0f} M neuron-updates a second", who,
                                            neuron, 8388608 / r->timing.minimum / 1e6));
    }
    return lines;
}

}  // namespace nc::bench
