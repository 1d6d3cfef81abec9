// nc_bench's commands on whole networks: infer, ann, rates and train.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "bench/nc_bench.h"
#include "bench/networks.h"
#include "bench/rates.h"
#include "bench/training.h"
#include "engine/error.h"
#include "io/npy.h"
#include "neurons/zoo.h"

namespace nc::bench {
namespace {

RuntimePath path_named(const std::string& mode) {
    return mode == "dense"   ? RuntimePath::dense
           : mode == "event" ? RuntimePath::event
                             : RuntimePath::automatic;
}

std::vector<const Table*> chosen_cpu_tables(const Settings& s) {
    const auto tables = chosen_tables(s);
    for (const Table* table : tables)
        if (table->cuda)
            throw Error(std::string("[nc_bench] --table ") + table->name +
                        ": the inference runtime is the CPU's");
    return tables;
}

// As JSON where it is asked for, each row with what else is known of it.
void print_rows(const Settings& s, const std::vector<Row>& rows, const Machine& machine,
                const Json& extra) {
    Json json = to_json(rows, machine, s.command);
    for (size_t i = 0; i < rows.size(); ++i) json["benchmarks"][i].update(extra[i]);
    if (s.common.json && s.common.json_file.empty()) fmt::print("{}\n", json.dump(2));
    if (s.common.json && !s.common.json_file.empty()) write_json(s.common.json_file, json);
}

ConvChoice conv_named(const std::string& name) {
    for (const ConvChoice conv : {ConvChoice::direct, ConvChoice::winograd2, ConvChoice::winograd4})
        if (name == conv_name(conv)) return conv;
    return ConvChoice::automatic;
}

// A network by the zoo's name, or described by a JSON file, its weights as at the start of
// training; or a model's file.
Model model_named(const std::string& name, const std::string& neuron, bool* temporal) {
    Model out;
    *temporal = name.starts_with("cnn-nmnist");
    if (name.ends_with(".json")) {
        out.graph = draw_weights(graph_from_json(read_json(name), {}, name), 0);
        return out;
    }
    const auto known = model_names();
    if (std::find(known.begin(), known.end(), name) == known.end()) {
        out = load_model(name);
        for (const Node& node : out.graph.nodes)  // recordings have two polarities
            if (const auto* input = std::get_if<Input>(&node.op))
                *temporal = input->shape.back() == 2;
        return out;
    }
    ZooOptions options;
    options.activation = neuron;
    out.graph = make_model(name, *temporal ? Shape{34, 34, 2} : Shape{32, 32, 3}, 10, options);
    return out;
}

}  // namespace

// Every table, batch, number of threads and method.
int run_ann(const Settings& s) {
    const auto tables = chosen_cpu_tables(s);
    const Model model = load_model(s.model);
    if (is_spiking(model.graph))
        throw Error("[nc_bench] " + s.model + " is a spiking network", ErrorKind::usage,
                    "nc_bench infer measures those");
    prepare(s);
    const bool text = !s.common.json || !s.common.json_file.empty();
    Machine machine;
    std::vector<Row> rows;
    Json extra = Json::array();
    std::string source;
    if (text) fmt::print("{}\n", row_header());
    for (const size_t batch : s.batches) {
        const Samples samples = samples_for(model, s.common.data, 1, batch);
        source = samples.source;
        for (const auto* table : tables)
            for (const int n : chosen_threads(s))
                for (const std::string& conv : s.convs) {
                    const auto row =
                        measure_ann(machine, model, s.model, samples,
                                    {table, batch, size_t(n), conv_named(conv)}, s.seconds);
                    rows.push_back(row.row);
                    if (!s.dump.empty()) {
                        save_npy(s.dump + "/input.npy", samples.x);
                        save_npy(s.dump + "/logits.npy", row.logits);
                    }
                    Json more = {{"reproduce", row.again},
                                 {"samples", source},
                                 {"largest_difference", row.far},
                                 {"layers", Json::array()}};
                    if (text) fmt::print("{}\n    {}\n", row_text(row.row), row.again);
                    for (const AnalogLayer& layer : row.layers) {
                        const char* method = method_name(layer.method);
                        more["layers"].push_back({{"name", layer.name},
                                                  {"method", method},
                                                  {"weight_bytes", layer.weight_bytes}});
                        if (text && s.layers)
                            fmt::print("    {:<24} {:<9} {:>8.1f} MFLOP, {:>7.2f} MB of weights\n",
                                       layer.name, method, layer.operations * 1e-6,
                                       double(layer.weight_bytes) * 1e-6);
                    }
                    if (text)
                        fmt::print("    logits within {:.1e} of the largest of the interpreter's\n",
                                   row.far);
                    extra.push_back(more);
                    std::fflush(stdout);
                }
    }
    if (text)
        fmt::print(
            "{}; floor %: the sums' products at the FMA peak, though Winograd does fewer, or the "
            "weights read once, over the minimum\n",
            source);
    print_rows(s, rows, machine, extra);
    return program::success;
}

// Every table, number of steps, batch, number of threads and mode.
int run_infer(const Settings& s) {
    const auto tables = chosen_cpu_tables(s);
    const auto threads = chosen_threads(s);
    const Model model = load_model(s.model);
    if (!is_spiking(model.graph)) return run_ann(s);
    prepare(s);
    const bool text = !s.common.json || !s.common.json_file.empty();
    Machine machine;
    std::vector<Row> rows;
    Json extra = Json::array();
    std::string source;
    if (text) fmt::print("{}\n", row_header());
    for (const size_t T : s.steps)
        for (const size_t batch : s.batches) {
            const Samples samples = samples_for(model, s.common.data, T, batch);
            source = samples.source;
            for (const auto* table : tables)
                for (const int n : threads)
                    for (const std::string& mode : s.modes) {
                        const InferCase c = {table,    T, batch, size_t(n), path_named(mode),
                                             !s.floats};
                        const auto row =
                            measure_inference(machine, model, s.model, samples, c, s.seconds);
                        rows.push_back(row.row);
                        if (!s.dump.empty()) {
                            save_npy(s.dump + "/input.npy", samples.x);
                            save_npy(s.dump + "/logits.npy", row.logits);
                            write_json(s.dump + "/run.json",
                                       {{"T", T}, {"batch", batch}, {"spikes", row.spikes}});
                        }
                        Json more = {{"reproduce", row.again},
                                     {"dense_operations_flop", row.dense_operations},
                                     {"samples", source},
                                     {"layers", Json::array()}};
                        if (text) fmt::print("{}\n    {}\n", row_text(row.row), row.again);
                        for (const LayerActivity& a : row.activity) {
                            const double rate = 100 * double(a.events) / double(a.inputs);
                            more["layers"].push_back({{"name", a.name},
                                                      {"nonzero_inputs_percent", rate},
                                                      {"dense", a.dense}});
                            if (text && s.layers)
                                fmt::print("    {:<20} {:>6.2f} % of inputs not zero, {}\n", a.name,
                                           rate, a.dense ? "dense" : "event");
                        }
                        if (s.latency_runs > 0 && batch == 1) {
                            const auto l = measure_latency(s.model, samples, c, s.latency_runs);
                            more["latency_ms"] = {{"runs", l.runs},
                                                  {"p50", l.p50 * 1e3},
                                                  {"p99", l.p99 * 1e3},
                                                  {"p99.9", l.p999 * 1e3},
                                                  {"maximum", l.maximum * 1e3}};
                            if (text)
                                fmt::print(
                                    "    {} runs through nc.h: p50 {:.4f}, p99 {:.4f}, "
                                    "p99.9 {:.4f}, maximum {:.4f} ms\n",
                                    l.runs, l.p50 * 1e3, l.p99 * 1e3, l.p999 * 1e3,
                                    l.maximum * 1e3);
                        }
                        extra.push_back(more);
                        std::fflush(stdout);
                    }
        }
    if (text)
        fmt::print(
            "{}; floor %: the operations that events cause at the FMA peak, or the weights "
            "read once, over the minimum\n",
            source);
    print_rows(s, rows, machine, extra);
    return program::success;
}

int run_rates(const Settings& s) {
    prepare(s);
    const bool text = !s.common.json || !s.common.json_file.empty();
    Machine machine;
    std::vector<Row> rows;
    double worst = 0;
    std::string where;
    if (text)
        fmt::print("{:<58} {:>6} {:>10} {:>10} {:>10} {:>6} {:>6}\n", "layer", "rate %", "dense us",
                   "event us", "auto us", "chose", "ratio");
    for (const Table* table : chosen_tables(s)) {
        if (table->cuda)
            throw Error(std::string("[nc_bench] --table ") + table->name +
                        ": the inference runtime is the CPU's");
        Compute compute(*table, 1);
        for (const size_t T : s.steps)
            for (const std::string& name : s.models) {
                RatesCase c = {table, T, false, s.rates, s.seconds};
                const Graph graph = model_named(name, "if", &c.temporal).graph;
                const std::string stem = name.substr(name.find_last_of('/') + 1);
                measure_rates(graph, c, [&](const RateRow& r) {
                    const std::string layer =
                        fmt::format("rates/{}/T{}/{}/{:.0f}%", stem, T, r.name, std::round(r.rate));
                    if (text)
                        fmt::print("{:<58} {:>6.1f} {:>10.1f} {:>10.1f} {:>10.1f} {:>6} {:>6.3f}\n",
                                   fmt::format("{}/T{}/{} {}", stem, T, r.name, table->name),
                                   r.rate, r.dense.minimum * 1e6, r.event.minimum * 1e6,
                                   r.automatic.minimum * 1e6, r.chose_dense ? "dense" : "event",
                                   r.ratio());
                    std::fflush(stdout);
                    for (const auto& [path, timing] :
                         {std::pair("dense", r.dense), {"event", r.event}, {"auto", r.automatic}})
                        rows.push_back(
                            make_row(machine, layer + "/" + path, compute, 0, 0, timing));
                    if (r.ratio() > worst) {
                        worst = r.ratio();
                        where = layer + " on " + table->name;
                    }
                });
            }
    }
    if (text)
        fmt::print("worst ratio of auto to the better of dense and event: {:.3f}, {}\n", worst,
                   where);
    Json json = to_json(rows, machine, s.command);
    json["worst_ratio"] = worst;
    json["worst"] = where;
    if (s.common.json && s.common.json_file.empty()) fmt::print("{}\n", json.dump(2));
    if (s.common.json && !s.common.json_file.empty()) write_json(s.common.json_file, json);
    return program::success;
}

int run_train(const Settings& s) {
    const auto computes = chosen_computes(s);
    bool temporal = false;
    Model model = model_named(s.model, s.neuron, &temporal);
    const Graph& graph = model.graph;
    temporal = temporal || s.frames;
    prepare(s);
    const bool text = !s.common.json || !s.common.json_file.empty();
    const std::string stem = s.model.substr(s.model.find_last_of('/') + 1);
    const std::string name = stem.substr(0, stem.find_last_of('.'));
    Machine machine;
    std::vector<Row> rows;
    Json extra = Json::array();
    if (text) fmt::print("{}\n", row_header());
    for (const size_t T : s.steps)
        for (const size_t batch : s.batches) {
            TrainingBatch samples = random_training_batch(graph, temporal, T, batch, 1);
            std::string source = "drawn samples";
            if (!model.info.dataset.empty()) {
                const Samples real = samples_for(model, s.common.data, T, batch);
                samples.x = real.x;
                samples.temporal = real.temporal;
                source = real.source;
            }
            for (const auto& compute : computes) {
                const auto row = measure_training(machine, name, graph, samples, *compute,
                                                  s.seconds, s.recompute);
                rows.push_back(row.row);
                extra.push_back(
                    {{"samples", source}, {"loss", row.loss}, {"peak_bytes", row.peak_bytes}});
                if (text)
                    fmt::print("{}\n    {}, loss {:.6f}, peak {:.1f} MB\n", row_text(row.row),
                               source, row.loss, double(row.peak_bytes) * 1e-6);
                std::fflush(stdout);
                if (s.dump.empty()) continue;
                const std::vector<float> labels(samples.labels.begin(), samples.labels.end());
                save_npy(s.dump + "/input.npy", samples.x);
                save_npy(s.dump + "/labels.npy", Tensor::from(labels, {labels.size()}));
                save_model(s.dump + "/model.safetensors", model);
                Model stepped;
                stepped.graph = row.stepped;
                save_model(s.dump + "/stepped.safetensors", stepped);
                write_json(s.dump + "/run.json", {{"T", T}, {"batch", batch}, {"loss", row.loss}});
            }
        }
    if (text)
        fmt::print(
            "floor %: the products of all weight layers as if inputs were dense, "
            "forward and for both gradients, at the FMA peak, over the minimum\n");
    print_rows(s, rows, machine, extra);
    return program::success;
}

}  // namespace nc::bench
