// The subcommands of nc_convert and what they share.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "convert/convert.h"
#include "convert/measure.h"
#include "io/model.h"
#include "neurons/nc_program.h"
#include "neurons/policy.h"

namespace nc::program {

// Each takes the words after its name (argv[0] stays a name for messages) and returns an exit code.
int convert_command(int argc, char** argv);
int eval_command(int argc, char** argv);
int sparsity_command(int argc, char** argv);
int energy_command(int argc, char** argv);
int neurobench_command(int argc, char** argv);
int finetune_command(int argc, char** argv);
int quantize_command(int argc, char** argv);
int verify_command(int argc, char** argv);
int export_command(int argc, char** argv);
int frames_command(int argc, char** argv);
int run_command(int argc, char** argv);
int actions_command(int argc, char** argv);
int info_command(int argc, char** argv);
int backends_command(int argc, char** argv);

struct Command {
    const char* name;
    int (*run)(int argc, char** argv);
    const char* purpose;
};
const std::vector<Command>& commands();  // without the main one, convert_command

// The command as typed, whole; set by main.
extern std::string typed_command;

// How a model file is read.
struct ReadOptions {
    std::string weights;       // a file whose weights are laid over the model's; may be empty
    std::optional<double> dt;  // of a NIR graph: seconds a step, where it does not say itself
    std::string output;        // of a NIR graph: which of several
};
void add_weights_option(CLI::App&, ReadOptions&);
void add_nir_options(CLI::App&, ReadOptions&);

// A model file: ours, ONNX or NIR. Says what was left out of a foreign one, and what it assumed.
Model read_model(const std::string& path, const ReadOptions&, const Common&);

// --dataset and how its samples are made; empty fields are the model's.
struct DataOptions {
    std::string dataset, framing;
    std::vector<float> mean, std;
    double scale = 1;  // what a pixel of 255 is before mean and std
};
void add_data_options(CLI::App&, DataOptions&);

struct LoadedData {
    DataSets sets;
    // At most --samples of them: the ones nc_train draws, the first of the test set. May refer to
    // sets.
    std::unique_ptr<Dataset> train, test;
    std::string name;
    std::string label;                 // "1000 test images (a subset)", ...
    std::string measure = "accuracy";  // what it is called: "agreement" with actions of a policy
    bool subset = false;
    bool policy() const { return measure != "accuracy"; }
};
// Says on stderr what it assumed. Error when samples do not have the shape the model takes. T: of
// recordings, 0: the model's. The data set cartpole is made of the model itself: the states that it
// visits (at its own T), and its own actions in them.
LoadedData load(const Common&, const DataOptions&, const ModelInfo&, const Graph&, int T);

// --emit FORM=FILE, ..: the forms other tools and chips take, and how hardware is made.
struct EmitOptions {
    std::vector<std::string> words;
    size_t lanes = 8;
    bool pipelined = false;
    std::string nir_vinit = "metadata", nir_pool = "avg", nir_compat = "strict";
};
void add_emit_options(CLI::App&, EmitOptions&);  // --emit is for the caller to require or not

// By form, its file or folder: what is asked for, checked. Error on a form that is unknown, asked
// for twice or without a file, and on what is there already.
using EmitFiles = std::map<std::string, std::string>;
EmitFiles emit_files(const EmitOptions&, const Common&);

// Writes the forms of any network (nir, onnx) and takes them out of the files: what is left wants a
// quantised one. Adds to json["files"], and returns what to tell people.
std::string emit_floats(EmitFiles&, const EmitOptions&, const Model&, Json&);

// Writes the forms of whole numbers (loihi, lava, rtl, hls) of a quantised network; stimulus: the
// samples that come with RTL and HLS, null when neither is asked for. Adds to json["files"], and
// returns what to tell people.
std::string emit_integers(const EmitOptions&, const EmitFiles&, const Graph&, int T,
                          const Dataset* stimulus, bool force, Json& json);
bool needs_stimulus(const EmitFiles&);
constexpr size_t stimulus_samples = 10;  // unless more are asked for

// Options of tuning, for the conversion, finetune and quantize; --checkpoint and --resume.
void add_training_options(CLI::App&, ConvertOptions&);
void add_checkpoint_options(CLI::App&, ConvertOptions&);

// Progress, log, warnings and Ctrl-C of a conversion, hooked into its options; outlives it.
class Watcher {
 public:
    // Warns when the network's own training split the data by another seed.
    Watcher(const Common&, const ModelInfo&, ConvertOptions&);
    // Calls work; says how to go on when it is interrupted.
    Converted watch(const std::function<Converted()>& work);

 private:
    const Common& common_;
    const ConvertOptions& options_;
    ProgressLine line_;
    Log log_;
};

// The modelled energy in a few lines, every assumption said.
std::string energy_text(const Energy&);

// Accuracies, sparsity and energy as a table for people.
std::string summary(const std::string& title, const Statistics&, const std::string& measure);

// What policies for CartPole return over the test episodes, as text; T 0: an ANN.
struct Player {
    std::string name;
    const Graph& graph;
    int T;
};
std::string returns_table(Compute&, const std::vector<Player>&, Json& json);

// --threads, NC_ISA, instruction set, compiler, as a report and --json give them.
Json environment(const Compute&);

std::string percent(double value);  // "91.23"
std::string count(uint64_t value);  // "1 234 567"

// Rows of columns as text: the first left-aligned, the others right-aligned.
std::string text_table(const std::vector<std::vector<std::string>>& rows);

ops::SpikePath parse_path(const std::string& text);  // auto, dense, event

// Of a spiking model: asked for, else stored, else Error.
int steps_of(const Model&, int wanted, const Dataset&);

}  // namespace nc::program
