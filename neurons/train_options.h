// What nc_train's ways of training share: the neuron's options, files and checkpoints; its tasks.
#pragma once

#include <string>
#include <vector>

#include "engine/graph.h"
#include "io/model.h"
#include "neurons/nc_program.h"

namespace nc::program {

// The place of `given` among these names. Error with a suggestion.
size_t choose(const std::string& option, const std::string& given,
              const std::vector<std::string>& names);

bool given(const CLI::App& app, const char* option);

// --neuron and the fields of its neurons.
struct NeuronOptions {
    std::string kind;  // if, lif; empty: none
    double theta = 1, v0 = 0, beta = 0, reset_value = 0, surrogate_width = 0;
    std::string compare, reset, amplitude, surrogate;
    bool scale_width = false, detach_reset = false;
};
void add_neuron_options(CLI::App&, NeuronOptions&, bool& train_thresholds);
void check_neuron(const CLI::App&, const NeuronOptions&);  // before neuron_of
Neuron neuron_of(const CLI::App&, const NeuronOptions&);

struct Files {
    std::string out, checkpoint, resume;
};
void add_file_options(CLI::App&, Files&);  // --out and --checkpoint

// Where a resumed checkpoint lies is where it goes on.
std::string checkpoint_path(const Files&);

// Output paths that could fail are refused before the training, not after.
void check_outputs(const Common&, const Files&);

// Writes --out, if any, with the result in its provenance, which gets its name; a checkpoint that
// nobody asked for goes.
void save_trained(const Files&, const Graph&, ModelInfo, Json& result);

// What says how to go on, when Interrupted came.
void say_saved(const Common&, const std::string& checkpoint);

// The checkpoint to resume from. Error when the program was given options which it holds.
Model load_checkpoint(const CLI::App& app, const std::string& path);
// Its options into `stored`, an app that was made for them and writes `common` and `files`; what
// may be given anew is taken from app and what it wrote, `now` and `files_now`.
void restore_options(const Model&, const CLI::App& app, const Common& now, const Files& files_now,
                     CLI::App& stored, Common& common, Files& files);

// nc_train --task cartpole, with options of its own (train_cartpole.cpp).
int train_cartpole_command(int argc, char** argv);
int resume_cartpole(const Model&, const CLI::App& app, const Common&, const Files&,
                    const std::string& command);

}  // namespace nc::program
