// nc_bench: measures kernels against what this machine can do, and compares measurements.
#include "bench/nc_bench.h"

#include <fmt/format.h>

#include <regex>
#include <thread>

#include "engine/error.h"
#include "neurons/runtime_plan.h"

namespace nc::bench {
namespace {

int usable_threads() {
    const unsigned count = std::thread::hardware_concurrency();
    return count > 0 ? int(count) : 1;
}

}  // namespace

std::vector<const Table*> chosen_tables(const Settings& s) {
    std::vector<const Table*> tables;
    for (const std::string& name : s.tables) {
        const Table* table = kernels::find(name.c_str());
        if (table == nullptr)
            throw Error("[nc_bench] --table " + name + ": " + kernels::why_unusable(name.c_str()));
        tables.push_back(table);
    }
    if (!tables.empty()) return tables;
    if (kernels::best() == nullptr) {
        const char* forced = std::getenv("NC_ISA");
        throw Error(std::string("[nc_bench] NC_ISA=") + forced + ": " +
                    kernels::why_unusable(forced));
    }
    return {kernels::best()};
}

std::vector<int> chosen_threads(const Settings& s) {
    return s.threads.empty() ? std::vector<int>{usable_threads()} : s.threads;
}

std::vector<std::unique_ptr<Compute>> chosen_computes(const Settings& s) {
    std::vector<std::unique_ptr<Compute>> out;
    for (const Table* table : chosen_tables(s)) {
        if (table->cuda && table == kernels::cuda_vendor()) {
            program::Common on_card = s.common;
            on_card.device = "cuda";
            out.emplace_back(new Compute(program::make_compute(on_card)));
        } else if (table->cuda) {
            out.push_back(std::make_unique<Compute>(*table, *kernels::cuda_backend()));
        } else {
            for (const int n : chosen_threads(s))
                out.push_back(std::make_unique<Compute>(*table, n));
        }
    }
    return out;
}

void prepare(const Settings& s) {
    if (s.common.json && !s.common.json_file.empty())
        program::check_output(s.common.json_file, s.common.force);
    const std::string warning = idle_warning();
    if (!warning.empty()) program::warn(s.common, warning);
}

}  // namespace nc::bench

namespace {

using namespace nc;
using bench::chosen_computes;
using bench::Machine;
using bench::prepare;
using bench::Row;
using bench::Settings;
using bench::usable_threads;

constexpr size_t most_steps = size_t(1) << 20, most_samples = size_t(1) << 20;

// A list of numbers from 1 to most.
void add_list(CLI::App& app, const char* name, std::vector<size_t>& numbers, const char* what,
              size_t most) {
    app.add_option(name, numbers, what)
        ->delimiter(',')
        ->capture_default_str()
        ->check(CLI::Range(size_t(1), most));
}

void add_output_options(CLI::App& app, program::Common& c) {
    app.add_option_function<std::vector<std::string>>(
           "--json",
           [&c](const std::vector<std::string>& file) {
               c.json = true;
               if (!file.empty()) c.json_file = file.front();
           },
           "the result as JSON in Google Benchmark's shape: on stdout, or in FILE")
        ->type_name("[FILE]")
        ->expected(0, 1);
    app.add_flag("--quiet", c.quiet, "no remarks on stderr");
    app.add_flag("--force", c.force, "overwrite files that exist");
}

void add_measuring_options(CLI::App& app, Settings& s) {
    app.add_option("--table", s.tables,
                   "kernel tables, a list (default: the fastest, or NC_ISA): reference, sse2, "
                   "avx2, avx512, cuda, cuda-vendor")
        ->delimiter(',');
    app.add_option("--threads", s.threads, "numbers of threads, a list (default: all)")
        ->delimiter(',')
        ->check(CLI::Range(1, 1024));
    program::add_precision_option(app, s.common);
    app.add_option("--seconds", s.seconds, "how long each row is repeated")
        ->capture_default_str()
        ->check(CLI::Range(0.0, 3600.0));
    add_output_options(app, s.common);
}

// Every case on every table with every number of threads. Rows appear as they are measured, unless
// stdout is for JSON.
int measure_all(const Settings& s, const std::vector<bench::NamedCase>& cases) {
    const auto computes = chosen_computes(s);
    prepare(s);
    const bool text = !s.common.json || !s.common.json_file.empty();
    Machine machine;
    std::vector<Row> rows;
    if (text) fmt::print("{}\n", bench::row_header());
    for (const auto& c : cases)
        for (const auto& compute : computes) {
            if (c.host_only && !compute->on_host()) continue;
            rows.push_back(bench::measure(machine, c, *compute, s.seconds));
            if (text) fmt::print("{}\n", bench::row_text(rows.back()));
            std::fflush(stdout);
        }
    if (text) {
        fmt::print(
            "floor %: time at the machine's best (FMA peak, or bytes over memory bandwidth) over "
            "the minimum; above 100 the data stayed in a cache\n");
        for (const std::string& line : bench::summary(rows)) fmt::print("{}\n", line);
        for (const auto& [key, value] : machine.values())
            fmt::print("{}: {:.1f}e9\n", key, value * 1e-9);
    }
    const Json json = bench::to_json(rows, machine, s.command);
    if (s.common.json && s.common.json_file.empty()) fmt::print("{}\n", json.dump(2));
    if (s.common.json && !s.common.json_file.empty()) write_json(s.common.json_file, json);
    return program::success;
}

int run_kernels(const Settings& s) {
    std::regex filter;
    try {
        filter = std::regex(s.filter);
    } catch (const std::regex_error& e) {
        throw Error("[nc_bench] --filter '" + s.filter +
                    "' is not a regular expression: " + e.what());
    }
    std::vector<bench::NamedCase> cases;
    for (auto& c : bench::all_cases())
        if (std::regex_search(c.name, filter)) cases.push_back(c);
    if (cases.empty())
        throw Error("[nc_bench] no kernel matches --filter '" + s.filter + "'", ErrorKind::usage,
                    "names look like conv.forward/resnet18/64-64-k3-s1-32x32-n32");
    return measure_all(s, cases);
}

int run_bptt(const Settings& s) {
    std::vector<bench::NamedCase> cases;
    for (const std::string& neuron : s.neurons)
        for (size_t steps : s.steps) {
            if (steps > s.elements)
                throw Error(
                    fmt::format("[nc_bench] --T {} is more than --elements {}", steps, s.elements));
            cases.push_back(bench::bptt_case(neuron == "lif", steps, s.elements));
        }
    return measure_all(s, cases);
}

int run_machine(const Settings& s) {
    prepare(s);
    Machine machine;
    std::vector<int> threads = s.threads;
    if (threads.empty()) threads = {1};
    if (s.threads.empty() && usable_threads() > 1) threads.push_back(usable_threads());
    std::string text;
    for (int n : threads) {
        for (const char* table : {"sse2", "avx2", "avx512"}) {
            const double peak = machine.peak(table, n);
            if (peak > 0)
                text += fmt::format("{:<7} FMA peak        {:>3} threads {:>9.1f} GFLOP/s\n", table,
                                    n, peak * 1e-9);
        }
        text += fmt::format("memory  read            {:>3} threads {:>9.1f} GB/s\n", n,
                            machine.read_bandwidth(n) * 1e-9);
        text += fmt::format("memory  copy (both ways){:>3} threads {:>9.1f} GB/s\n", n,
                            machine.copy_bandwidth(n) * 1e-9);
    }
    const Json json = bench::to_json({}, machine, s.command);
    program::print_result(s.common, text, json);
    return program::success;
}

int run_compare(const Settings& s) {
    if (s.common.json && !s.common.json_file.empty())
        program::check_output(s.common.json_file, s.common.force);
    const auto result = bench::compare(read_json(s.compare_a), s.compare_a, read_json(s.compare_b),
                                       s.compare_b, s.max_ratio);
    std::string text =
        fmt::format("{:<66} {:>10} {:>10} {:>7}\n", "row", "a min ms", "b min ms", "b / a");
    Json json = {{"max_ratio", s.max_ratio}, {"slower", result.slower}, {"rows", Json::array()}};
    for (const auto& p : result.pairs) {
        text += fmt::format("{:<66} {:>10.4f} {:>10.4f} {:>7.3f}{}\n", p.name, p.a_seconds * 1e3,
                            p.b_seconds * 1e3, p.ratio, p.ratio > s.max_ratio ? "  slower" : "");
        json["rows"].push_back({{"name", p.name},
                                {"a_ms", p.a_seconds * 1e3},
                                {"b_ms", p.b_seconds * 1e3},
                                {"ratio", p.ratio}});
    }
    text += fmt::format("{} of {} rows slower than {} times\n", result.slower, result.pairs.size(),
                        s.max_ratio);
    program::print_result(s.common, text, json);
    return result.slower > 0 ? program::check_failed : program::success;
}

}  // namespace

int main(int argc, char** argv) {
    program::spin_briefly(argv);
    Settings s;
    s.command = program::command_line(argc, argv);
    CLI::App app(
        "Measures kernels and networks against what this machine can do, and compares "
        "measurements.",
        "nc_bench");
    app.set_version_flag("--version", program::version());
    app.require_subcommand(1);
    app.footer(
        "Examples:\n"
        "  nc_bench machine\n"
        "  nc_bench kernels --table avx2,reference --filter spike\n"
        "  nc_bench kernels --filter 'gemm|conv.*resnet18' --threads 1,2 --json now.json\n"
        "  nc_bench infer snn.safetensors --T 4,16 --batch 1,32 --threads 1,2 --mode dense,event\n"
        "  nc_bench ann ann.safetensors --batch 1,32 --conv direct,auto\n"
        "  nc_bench rates resnet20 --T 16 --rates 1,5,20,50\n"
        "  nc_bench bptt --neuron if --T 4,16 --elements 8388608\n"
        "  nc_bench train --model cnn-nmnist --T 16 --batch 32\n"
        "  nc_bench events --real nmnist --simulated nmnist-simulated --samples 1000\n"
        "  nc_bench stream snn.safetensors --dataset nmnist --margin 0,2 --threads 1\n"
        "  nc_bench compare before.json now.json --max-ratio 1.1\n"
        "Exit codes: 0 success, 1 compare found a slower row, 2 bad usage.");

    CLI::App* machine = app.add_subcommand("machine", "FMA peak and memory bandwidth");
    machine->add_option("--threads", s.threads, "numbers of threads, a list (default: 1, all)")
        ->delimiter(',')
        ->check(CLI::Range(1, 1024));
    add_output_options(*machine, s.common);

    CLI::App* kernels = app.add_subcommand(
        "kernels", "every family's kernels, each checked against the reference before it is timed");
    kernels->add_option("--filter", s.filter, "only names that this regular expression finds")
        ->type_name("REGEX");
    add_measuring_options(*kernels, s);

    CLI::App* bptt = app.add_subcommand(
        "bptt", "neurons over time and back, keeping packed spikes; floor 16.1 bytes an element");
    bptt->add_option("--neuron", s.neurons, "if, lif or both")
        ->delimiter(',')
        ->capture_default_str()
        ->check(CLI::IsMember({"if", "lif"}));
    add_list(*bptt, "--T", s.steps, "time steps, a list", most_steps);
    bptt->add_option("--elements", s.elements, "membranes times steps, in total")
        ->capture_default_str()
        ->check(CLI::Range(size_t(1), size_t(1) << 32));
    add_measuring_options(*bptt, s);

    CLI::App* infer = app.add_subcommand(
        "infer",
        "a network through the inference runtime, checked against the interpreter first; an analog "
        "one as by ann");
    infer->add_option("model", s.model, "of nc_convert or nc_train")
        ->required()
        ->type_name("MODEL.safetensors");
    add_list(*infer, "--T", s.steps, "time steps, a list", most_steps);
    add_list(*infer, "--batch", s.batches, "samples at once, a list", most_samples);
    infer->add_option("--mode", s.modes, "how layers add, a list: auto, dense, event")
        ->delimiter(',')
        ->capture_default_str()
        ->check(CLI::IsMember({"auto", "dense", "event"}));
    infer->add_option("--latency", s.latency_runs,
                      "runs of one sample through nc.h, for the quantiles of their times");
    infer->add_flag("--floats", s.floats, "a quantised network in floats, not in integers");
    infer->add_flag("--layers", s.layers, "each layer's share of inputs that are not zero");
    infer
        ->add_option("--dump", s.dump,
                     "write the last row's input.npy, logits.npy and run.json into this folder")
        ->type_name("DIR");
    infer->add_option("--data", s.common.data, "folder of the data sets (default: NC_DATA)");
    add_measuring_options(*infer, s);

    CLI::App* ann = app.add_subcommand("ann",
                                       "an analog network through its inference runtime, checked "
                                       "against the interpreter first");
    ann->add_option("model", s.model, "of nc_train")->required()->type_name("ANN.safetensors");
    add_list(*ann, "--batch", s.batches, "samples at once, a list", most_samples);
    ann->add_option("--conv", s.convs,
                    "how 3x3 convolutions multiply, a list: auto, direct, winograd2, winograd4")
        ->delimiter(',')
        ->capture_default_str()
        ->check(CLI::IsMember({"auto", "direct", "winograd2", "winograd4"}));
    ann->add_flag("--layers", s.layers, "each layer's method and weights");
    ann->add_option("--dump", s.dump,
                    "write the last row's input.npy and logits.npy into this folder")
        ->type_name("DIR");
    ann->add_option("--data", s.common.data, "folder of the data sets (default: NC_DATA)");
    add_measuring_options(*ann, s);
    CLI::App* rates = app.add_subcommand("rates",
                                         "a network's layers at chosen firing rates: over all "
                                         "inputs, over events, and as the runtime "
                                         "chooses; one thread");
    rates->add_option("model", s.models, "names of the zoo, or files")->capture_default_str();
    rates->add_option("--rates", s.rates, "percent of inputs that are not zero, a list")
        ->delimiter(',')
        ->capture_default_str()
        ->check(CLI::Range(0.0, 100.0));
    add_list(*rates, "--T", s.steps, "time steps, a list", plan::most_steps);
    add_measuring_options(*rates, s);

    CLI::App* training = app.add_subcommand(
        "train",
        "a network's training step: forward, back in time, update; gradients are checked against "
        "the reference first");
    training
        ->add_option("--model", s.model,
                     "a name of the zoo, a model's file, or a network described by a JSON file")
        ->required();
    training->add_option("--neuron", s.neuron, "of a network of the zoo: if, lif; relu for none")
        ->capture_default_str()
        ->check(CLI::IsMember({"if", "lif", "relu", "qcfs"}));
    add_list(*training, "--T", s.steps, "time steps, a list", most_steps);
    add_list(*training, "--batch", s.batches, "samples at once, a list", most_samples);
    training->add_option("--data", s.common.data,
                         "folder of the data sets (default: NC_DATA), for models that name one");
    training->add_flag(
        "--frames", s.frames,
        "drawn samples are recordings, another frame at each step (cnn-nmnist takes no "
        "others)");
    training->add_flag("--recompute", s.recompute,
                       "compute again in the way back instead of keeping");
    training
        ->add_option("--dump", s.dump,
                     "write the last row's input.npy, labels.npy, run.json, and model.safetensors "
                     "and stepped.safetensors, which differ by the gradients, into this folder")
        ->type_name("DIR");
    add_measuring_options(*training, s);

    CLI::App* events = app.add_subcommand(
        "events",
        "what recordings of two data sets are like, side by side; picture by picture "
        "where both have the same");
    events->add_option("--real", s.real, "data set of recordings")->capture_default_str();
    events->add_option("--simulated", s.simulated, "data set to compare with it")
        ->capture_default_str();
    events->add_flag("--test", s.test, "the test recordings, not those for training");
    events->add_option("--skip", s.skip, "recordings to leave out at the start");
    events->add_option("--samples", s.common.samples, "recordings to compare (default: all)");
    events->add_option("--data", s.common.data, "folder of the data sets (default: NC_DATA)");
    add_output_options(*events, s.common);

    CLI::App* stream = app.add_subcommand(
        "stream",
        "events in, decisions out: recordings through the inference runtime, a frame at "
        "a time, until the answer is clear");
    stream->add_option("model", s.model, "a spiking network for recordings")
        ->required()
        ->type_name("SNN.safetensors");
    stream->add_option("recordings", s.recordings,
                       "files of events (default: the data set's test recordings)");
    stream->add_option("--dataset", s.dataset, "data set of recordings (default: the model's)");
    stream
        ->add_option("--margin", s.margins,
                     "decide once the mean logits' largest leads by this, a list; 0: never early")
        ->delimiter(',')
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    stream
        ->add_option("--window", s.window,
                     "time of a frame (default: training recordings' mean over T)")
        ->type_name("30ms");
    stream->add_option("--samples", s.common.samples, "recordings (default: all)");
    stream->add_option("--threads", s.threads, "numbers of threads, a list (default: all)")
        ->delimiter(',')
        ->check(CLI::Range(1, 1024));
    stream->add_option("--data", s.common.data, "folder of the data sets (default: NC_DATA)");
    add_output_options(*stream, s.common);

    CLI::App* comparing = app.add_subcommand(
        "compare", "the rows two results share; exit 1 when one is slower in the second");
    comparing->add_option("a", s.compare_a, "before")->required()->type_name("A.json");
    comparing->add_option("b", s.compare_b, "after")->required()->type_name("B.json");
    comparing->add_option("--max-ratio", s.max_ratio, "how much slower is still the same")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    add_output_options(*comparing, s.common);

    return program::run(app, argc, argv, [&] {
        if (machine->parsed()) return run_machine(s);
        if (kernels->parsed()) return run_kernels(s);
        if (bptt->parsed()) return run_bptt(s);
        if (infer->parsed()) return bench::run_infer(s);
        if (ann->parsed()) return bench::run_ann(s);
        if (rates->parsed()) return bench::run_rates(s);
        if (training->parsed()) return bench::run_train(s);
        if (events->parsed()) return bench::run_events(s);
        if (stream->parsed()) return bench::run_stream(s);
        return run_compare(s);
    });
}
