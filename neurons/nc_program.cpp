// What the three programs share: common options, errors and exit codes, progress, Ctrl-C.
#include "neurons/nc_program.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "io/bytes.h"
#include "io/weights.h"

namespace nc::program {
namespace {

volatile sig_atomic_t interrupt_flag = 0;

void on_interrupt(int) {
    interrupt_flag = 1;
}

double seconds_now() {
    using namespace std::chrono;
    return duration<double>(steady_clock::now().time_since_epoch()).count();
}

bool stderr_is_terminal() {
    return isatty(STDERR_FILENO) != 0;
}
bool colour() {
    return stderr_is_terminal() && std::getenv("NO_COLOR") == nullptr;
}

void print_error(const std::string& what, const std::string& hint) {
    const char* red = colour() ? "\033[31m" : "";
    const char* reset = colour() ? "\033[0m" : "";
    fmt::print(stderr, "{}error:{} {}\n", red, reset, what);
    if (!hint.empty()) fmt::print(stderr, "hint: {}\n", hint);
}

std::vector<std::string> option_names(const CLI::App& app) {
    std::vector<std::string> names;
    for (const CLI::Option* option : app.get_options())
        for (const auto& name : option->get_lnames()) names.push_back("--" + name);
    return names;
}

// TOML whose keys are option names with _ for -.
class Toml : public CLI::ConfigTOML {
 public:
    explicit Toml(const CLI::App& app) : app_(app) {}
    std::vector<CLI::ConfigItem> from_config(std::istream& in) const override {
        auto items = CLI::ConfigTOML::from_config(in);
        for (auto& item : items) {
            if (item.name == "++" || item.name == "--") continue;
            const std::string key = item.fullname();
            std::replace(item.name.begin(), item.name.end(), '_', '-');
            if (!item.parents.empty() || app_.get_option_no_throw("--" + item.name) == nullptr)
                throw Error("[config] unknown key '" + key + "'", ErrorKind::usage, hint(key));
        }
        return items;
    }

 private:
    std::string hint(const std::string& key) const {
        std::vector<std::string> keys;
        for (std::string name : option_names(app_)) {
            name.erase(0, 2);
            std::replace(name.begin(), name.end(), '-', '_');
            keys.push_back(name);
        }
        return suggestion(key, keys);
    }
    const CLI::App& app_;
};

int exit_code(ErrorKind kind) {
    return kind == ErrorKind::model ? bad_model : bad_usage;
}

// The app that was asked for: the selected subcommand, or the program itself.
CLI::App& innermost(CLI::App& app) {
    const auto chosen = app.get_subcommands();
    return chosen.empty() ? app : innermost(*chosen.front());
}

std::string option_hint(CLI::App& app) {
    for (std::string word : app.remaining(true)) {
        if (word.size() < 2 || word[0] != '-') continue;
        word = word.substr(0, word.find('='));
        return suggestion(word, option_names(innermost(app)));
    }
    return "";
}

}  // namespace

std::string clock_text(double seconds) {
    const long s = std::lround(seconds);
    return s < 3600 ? fmt::format("{}:{:02}", s / 60, s % 60)
                    : fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

// libgomp reads this only while it is loaded, so the program starts itself once more.
void spin_briefly(char** argv) {
    if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr)
        return;
    setenv("GOMP_SPINCOUNT", "1000", 0);
    // By its path, so that the process keeps its name.
    std::error_code error;
    const std::string path = std::filesystem::read_symlink("/proc/self/exe", error).string();
    execv(path.c_str(), argv);  // returns only where that cannot be: then we go on as we are
}

void add_common_options(CLI::App& app, Common& c) {
    app.add_option("--data", c.data, "folder of the data sets (default: NC_DATA)")
        ->type_name("DIR");
    app.add_option("--seed", c.seed, "seed of everything random")->capture_default_str();
    app.add_option("--samples", c.samples,
                   "use at most this many samples; the result is then a subset's")
        ->type_name("N")
        ->check(CLI::PositiveNumber);
    app.add_option("--device", c.device, "cpu, cuda or cuda:<index>")->capture_default_str();
    app.add_option("--threads", c.threads, "threads (default: all)")
        ->type_name("N")
        ->check(CLI::Range(1, 1024));
    app.add_option_function<std::vector<std::string>>(
           "--json",
           [&c](const std::vector<std::string>& file) {
               c.json = true;
               if (!file.empty()) c.json_file = file.front();
           },
           "the result as JSON: on stdout, or in FILE")
        ->type_name("[FILE]")
        ->expected(0, 1);
    app.add_option("--log", c.log, "write progress to this file, one JSON object a line")
        ->type_name("FILE");
    app.add_flag("--quiet", c.quiet, "no progress and no remarks on stderr");
    app.add_flag("--force", c.force, "overwrite files that exist");
    app.set_config("--config", "", "options from a TOML file, with _ for -")->type_name("FILE");
    app.config_formatter(std::make_shared<Toml>(app));
    app.allow_config_extras(CLI::config_extras_mode::error);
}

void add_precision_option(CLI::App& app, Common& c) {
    app.add_option(
        "--precision", c.precision,
        "fp32, tf32 or bf16: how a GPU rounds what it multiplies in training and analog networks; "
        "weights, sums and spiking networks stay fp32 (default: fp32)");
}

namespace {

kernels::Precision parse_precision(const std::string& text) {
    const std::vector<std::string> names = {"fp32", "tf32", "bf16"};
    const auto found = std::find(names.begin(), names.end(), text);
    if (found == names.end())
        throw Error("[precision] unknown precision '" + text + "'", ErrorKind::usage,
                    suggestion(text, names));
    return kernels::Precision(found - names.begin());
}

}  // namespace

int run(CLI::App& app, int argc, char** argv, const std::function<int()>& body) {
    try {
        app.parse(argc, argv);
        return body();
    } catch (const CLI::Success& e) {
        return app.exit(e);
    } catch (const CLI::ParseError& e) {
        const std::string hint = option_hint(app);
        print_error(e.what(), hint.empty() ? "see " + app.get_name() + " --help" : hint);
        return bad_usage;
    } catch (const Error& e) {
        print_error(e.what(), e.hint);
        return exit_code(e.kind);
    } catch (const Interrupted&) {
        fmt::print(stderr, "interrupted\n");
        return interrupted;
    } catch (const std::bad_alloc&) {
        print_error("out of memory", "a smaller --batch needs less");
        return bad_usage;
    } catch (const std::exception& e) {
        print_error(e.what(), "");
        return bad_usage;
    }
}

std::string version() {
    return NC_VERSION;
}

std::string command_line(int argc, char** argv) {
    std::string line;
    for (int i = 0; i < argc; ++i) {
        std::string word = i == 0 ? std::filesystem::path(argv[0]).filename().string() : argv[i];
        if (word.empty() || word.find_first_of(" \t\n'\"\\$`*?;&|<>()[]{}#~!") != word.npos) {
            std::string quoted = "'";
            for (char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
            word = quoted + "'";
        }
        line += (i == 0 ? "" : " ") + word;
    }
    return line;
}

Compute make_compute(const Common& common) {
    if (common.json && !common.json_file.empty()) check_output(common.json_file, common.force);
    const Device device = parse_device(common.device);
    kernels::Precision precision = kernels::Precision::fp32;
    if (!common.precision.empty()) {
        precision = parse_precision(common.precision);
        if (device.kind != DeviceKind::cuda)
            throw Error("[precision] --precision " + common.precision +
                            " is for a GPU, the device is " + device.str(),
                        ErrorKind::usage,
                        "give --device cuda too, or leave it out: the CPU has fp32 only");
    }
    return Compute(device, common.threads, precision);
}

void check_output(const std::string& path, bool force) {
    namespace fs = std::filesystem;
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (fs::is_directory(status)) throw Error("[output] " + path + " is a folder");
    if (fs::exists(status) && !fs::is_regular_file(status)) return;  // a device or a pipe
    if (fs::exists(status) && !force)
        throw Error("[output] " + path + " exists", ErrorKind::usage,
                    "--force overwrites it, or choose another name");
    fs::path folder = fs::path(path).parent_path();
    if (folder.empty()) folder = ".";
    if (!fs::is_directory(folder, error))
        throw Error("[output] no folder " + folder.string() + " for " + path);
    if (access(folder.c_str(), W_OK | X_OK) != 0)
        throw Error("[output] cannot write in " + folder.string() + ": " + std::strerror(errno));
}

void check_output_folder(const std::string& path, bool force) {
    namespace fs = std::filesystem;
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (fs::exists(status) && !fs::is_directory(status))
        throw Error("[output] " + path + " is a file, not a folder");
    if (fs::exists(status) && !force && !fs::is_empty(path, error))
        throw Error("[output] folder " + path + " is not empty", ErrorKind::usage,
                    "--force overwrites what is there");
}

void catch_interrupts() {
    struct sigaction action = {};
    action.sa_handler = on_interrupt;
    action.sa_flags = SA_RESETHAND;
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
}

bool interrupted_by_user() {
    return interrupt_flag != 0;
}

void say(const Common& common, const std::string& line) {
    if (!common.quiet) fmt::print(stderr, "{}\n", line);
}

void warn(const Common& common, const std::string& line) {
    say(common, "warning: " + line);
}

ProgressLine::ProgressLine(const Common& common)
    : quiet_(common.quiet), terminal_(stderr_is_terminal()) {}

ProgressLine::~ProgressLine() {
    clear();
}

void ProgressLine::show(const std::string& stage, const Progress& p) {
    std::string line =
        fmt::format("{}epoch {}/{}", stage.empty() ? "" : stage + ": ", p.epoch + 1, p.epochs);
    if (!p.epoch_done) line += fmt::format(" step {}/{}", p.step, p.steps);
    line += fmt::format("  loss {:.4f}  accuracy {:.2f} %", p.loss, p.accuracy);
    if (p.epoch_done && !std::isnan(p.validation_accuracy))
        line += fmt::format("  validation {:.2f} %", p.validation_accuracy);
    line += fmt::format("  {:.0f} samples/s  {} left", p.samples_per_second,
                        clock_text(p.seconds_left));
    show(line, p.epoch_done);
}

void ProgressLine::show(const std::string& text, bool whole) {
    if (quiet_) return;
    const double now = seconds_now();
    if (last_ == 0 && !terminal_) last_ = now;
    if (!whole && now - last_ < (terminal_ ? 0.1 : 10)) return;
    last_ = now;
    clear();
    const bool drawn = terminal_ && !whole;
    fmt::print(stderr, "{}{}", text, drawn ? "" : "\n");
    drawn_ = drawn;
    std::fflush(stderr);
}

void ProgressLine::clear() {
    if (drawn_) fmt::print(stderr, "\r\033[K");
    drawn_ = false;
}

Log::Log(const Common& common, bool append) : path_(common.log) {
    if (path_.empty()) return;
    check_output(path_, common.force || append);
    file_ = std::fopen(path_.c_str(), append ? "a" : "w");
    if (file_ == nullptr) throw Error("[log] cannot open " + path_ + ": " + std::strerror(errno));
}

Log::~Log() {
    if (file_ != nullptr) std::fclose(file_);
}

void Log::write(const Json& record) {
    if (file_ == nullptr) return;
    const std::string line = record.dump() + "\n";
    if (std::fwrite(line.data(), 1, line.size(), file_) != line.size() || std::fflush(file_) != 0)
        throw Error("[log] cannot write " + path_ + ": " + std::strerror(errno));
}

void Log::write(const std::string& stage, const Progress& p) {
    if (!p.epoch_done) return;
    Json record = {{"stage", stage},
                   {"epoch", p.epoch + 1},
                   {"loss", number_or_null(p.loss)},
                   {"training_accuracy", number_or_null(p.accuracy)},
                   {"validation_accuracy", number_or_null(p.validation_accuracy)},
                   {"epoch_seconds", p.epoch_seconds},
                   {"samples_per_second", p.samples_per_second},
                   {"peak_bytes", p.peak_bytes}};
    write(record);
}

void print_result(const Common& common, const std::string& text, const Json& value) {
    if (common.json && common.json_file.empty()) {
        fmt::print("{}\n", value.dump(2));
        return;
    }
    if (common.json) write_file(common.json_file, value.dump(2) + "\n");
    fmt::print("{}", text);
}

Graph with_weights(const Common& common, const Graph& graph, const std::string& file) {
    if (file.empty()) return graph;
    LaidOver laid = lay_over(graph, load_weights(file), file);
    for (const std::string& note : laid.notes) say(common, file + ": " + note);
    return std::move(laid.graph);
}

std::string joined(const std::vector<std::string>& words) {
    std::string out;
    for (const auto& word : words) out += (out.empty() ? "" : ", ") + word;
    return out;
}

Json number_or_null(double x) {
    return std::isfinite(x) ? Json(x) : Json(nullptr);
}

}  // namespace nc::program
