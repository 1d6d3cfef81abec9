// What the three programs share: common options, errors and exit codes, progress, Ctrl-C.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/compute.h"
#include "io/json.h"
#include "neurons/train.h"

namespace nc::program {

// Exit codes: what went wrong, for scripts.
enum Exit { success = 0, check_failed = 1, bad_usage = 2, bad_model = 3, interrupted = 130 };

struct Common {
    std::string data;  // empty: NC_DATA and Debian's places
    uint64_t seed = 0;
    size_t samples = 0;  // 0: all; else results are labelled a subset
    std::string device = "cpu";
    std::string precision;  // of training and analog networks on a GPU; empty: fp32
    int threads = 0;        // 0: all
    bool json = false;      // --json given
    std::string json_file;  // --json FILE; empty: standard output
    bool quiet = false, force = false;
    std::string log;  // JSON lines
};

// Every main's first call, with its own argv. A waiting OpenMP thread spins for milliseconds by
// default. With one thread more than cores (the one that reads ahead, or another program) the
// spinning ones hold the core that the working one needs: a training step took 15 to 60 times as
// long on a busy machine.
void spin_briefly(char** argv);

// --data --seed --samples --device --threads --json --quiet --force --log, and --config FILE.toml
// with the same names written with _ (unknown keys are errors with a suggestion).
void add_common_options(CLI::App&, Common&);

// Parses and runs. Prints "error: ..." and "hint: ..." on stderr and returns the exit code:
// nc::Error by its kind, Interrupted 130, --help and --version 0, other bad options 2 with a
// suggestion. body returns an exit code itself.
int run(CLI::App&, int argc, char** argv, const std::function<int()>& body);

std::string version();  // of the project

// The command as typed, quoted where a shell would need it; for provenance.
std::string command_line(int argc, char** argv);

// --precision, for programs that train or evaluate.
void add_precision_option(CLI::App&, Common&);

// Device, threads, precision and NC_ISA, and --json FILE by check_output. Error on a precision
// without a GPU: the CPU has fp32 only.
Compute make_compute(const Common&);

// Error (usage) when path exists and force is not given, or its folder cannot be written: asked
// before the work, not after.
void check_output(const std::string& path, bool force);
// The same of a folder that may be there, empty.
void check_output_folder(const std::string& path, bool force);

// The network with a file's weights over its own (io/weights.h); the graph itself when file is
// empty. What was assumed is said.
Graph with_weights(const Common&, const Graph&, const std::string& file);

// From the first call on, Ctrl-C (and SIGTERM) sets a flag that interrupted_by_user() returns; a
// second Ctrl-C ends the program at once.
void catch_interrupts();
bool interrupted_by_user();

// stderr, unless --quiet. Colour and redrawing only on a terminal without NO_COLOR.
void say(const Common&, const std::string& line);
void warn(const Common&, const std::string& line);  // "warning: ..."; --quiet too hides it

// One line a stage: redrawn in place on a terminal, else one line an epoch and every ten seconds.
class ProgressLine {
 public:
    explicit ProgressLine(const Common& common);
    ~ProgressLine();
    void show(const std::string& stage, const Progress&);
    void show(const std::string& text, bool whole);  // whole: it stays, as after an epoch
    void clear();                                    // so that other lines can be printed

 private:
    bool quiet_, terminal_, drawn_ = false;
    double last_ = 0;
};

// --log FILE: one JSON object a line, flushed. Does nothing without --log.
class Log {
 public:
    Log(const Common& common, bool append);  // Error as check_output, unless it appends
    ~Log();
    void write(const Json& record);
    void write(const std::string& stage, const Progress&);

 private:
    std::FILE* file_ = nullptr;
    std::string path_;
};

// The result: text on stdout; with --json the value instead, or in its file beside the text.
void print_result(const Common&, const std::string& text, const Json& value);

std::string clock_text(double seconds);  // "1:05", "2:00:00"

// "a, b, c". (fmt::join makes g++ 12 warn about its own header.)
std::string joined(const std::vector<std::string>&);

// NaN and infinities are null in JSON.
Json number_or_null(double);

}  // namespace nc::program
