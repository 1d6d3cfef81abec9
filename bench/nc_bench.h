// What the commands of nc_bench share.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bench/kernels.h"
#include "neurons/nc_program.h"

namespace nc::bench {

struct Settings {
    program::Common common;
    std::vector<std::string> tables, neurons = {"if"};
    std::string neuron = "lif";  // of a network to train
    std::vector<int> threads;
    std::vector<size_t> steps = {4, 16};
    std::string filter, compare_a, compare_b;
    size_t elements = 8388608;
    double seconds = 0.3, max_ratio = 1.1;
    std::string command;
    std::string model;
    std::vector<std::string> models = {"cnn-nmnist-3x3", "resnet20", "resnet18"};
    std::vector<double> rates = {1, 2, 5, 10, 15, 20, 30, 40, 50};
    std::vector<size_t> batches = {1};
    std::vector<std::string> modes = {"auto"}, convs = {"auto"};
    size_t latency_runs = 0;
    std::string real = "nmnist", simulated = "nmnist-simulated";  // data sets
    size_t skip = 0;
    bool test = false;            // their test part
    std::string dataset, window;  // of a stream: where it comes from, the time of a frame
    std::vector<std::string> recordings;
    std::vector<double> margins = {0, 2};
    bool layers = false, floats = false, recompute = false, frames = false;
    std::string dump;
};

// The tables and numbers of threads that were asked for, or the usual ones; Error by name.
std::vector<const Table*> chosen_tables(const Settings&);
std::vector<int> chosen_threads(const Settings&);
// Where each table works: on the host with every number of threads asked for, or on the card.
std::vector<std::unique_ptr<Compute>> chosen_computes(const Settings&);
// Before anything is measured: whether the result can be written, and who else is at work.
void prepare(const Settings&);

// The commands on whole networks, in nc_bench_networks.cpp.
int run_infer(const Settings&);
int run_ann(const Settings&);
int run_rates(const Settings&);
int run_train(const Settings&);

// On event recordings, in events.cpp and stream.cpp.
int run_events(const Settings&);
int run_stream(const Settings&);

}  // namespace nc::bench
