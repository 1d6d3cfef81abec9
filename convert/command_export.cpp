// nc_convert export: a model in the forms that other tools and chips read.
#include <fmt/format.h>

#include <filesystem>
#include <map>

#include "convert/commands.h"
#include "hw/loihi_export.h"
#include "hw/target.h"
#include "io/bytes.h"

namespace nc::program {

namespace {

// "loihi=net.json" to its two sides.
std::map<std::string, std::string> parse_emit(const std::vector<std::string>& words) {
    std::map<std::string, std::string> out;
    for (const std::string& word : words) {
        const size_t equals = word.find('=');
        const std::string kind = word.substr(0, equals);
        if (kind != "loihi" && kind != "lava")
            throw Error("[export] unknown form '" + kind + "'", ErrorKind::usage,
                        suggestion(kind, {"loihi", "lava"}));
        if (equals == std::string::npos || equals + 1 == word.size())
            throw Error("[export] no file: '" + word + "'", ErrorKind::usage,
                        "as in --emit loihi=net.json");
        if (!out.emplace(kind, word.substr(equals + 1)).second)
            throw Error("[export] " + kind + " is asked for twice");
    }
    return out;
}

}  // namespace

int export_command(int argc, char** argv) {
    Common common;
    std::string path;
    std::vector<std::string> emit;
    int T = 0;
    CLI::App app(
        "Writes a quantised network as other tools take it: loihi=FILE.json, all it takes to "
        "program a Loihi 2; lava=FILE.py beside it, a script for Lava's stock processes, which "
        "reset to zero and have one threshold a layer.",
        "nc_convert export");
    app.add_option("model", path, "a quantised model file (.safetensors)")->required();
    app.add_option("--emit", emit, "FORM=FILE, several by commas")
        ->type_name("FORM=FILE")
        ->delimiter(',')
        ->required();
    app.add_option("--T", T, "time steps (default: the model's)")->check(CLI::Range(1, 65536));
    add_common_options(app, common);
    return run(app, argc, argv, [&] {
        const auto wanted = parse_emit(emit);
        for (const auto& [kind, file] : wanted) check_output(file, common.force);
        const Model model = read_model(path);
        const int steps = T > 0 ? T : model.info.T;
        if (steps < 1)
            throw Error("[export] the model has no T", ErrorKind::usage, "give one with --T");
        const IntegerNetwork net = integer_network(model.graph);
        const auto loihi = wanted.find("loihi"), lava = wanted.find("lava");
        namespace fs = std::filesystem;
        if (lava != wanted.end()) {
            if (loihi == wanted.end() ||
                fs::path(loihi->second).parent_path() != fs::path(lava->second).parent_path())
                throw Error("[export] the script for Lava loads the network from its own folder",
                            ErrorKind::usage, "give loihi=FILE.json in the same folder too");
            lava_script(net, "");  // refuses before anything is written
        }
        Json json = {{"model", path}, {"T", steps}, {"files", Json::object()}};
        std::string text;
        if (loihi != wanted.end()) {
            const Json document = to_loihi(net, steps);
            write_json(loihi->second, document);
            const Placement placed = place(net, loihi2());
            json["files"]["loihi"] = loihi->second;
            text += fmt::format("{}: {} populations, {} neurons, T = {}, {} steps a run\n",
                                loihi->second, placed.populations.size(), count(placed.neurons),
                                steps, document["steps"].get<int>());
        }
        if (lava != wanted.end()) {
            write_file(lava->second, lava_script(net, fs::path(loihi->second).filename().string()));
            json["files"]["lava"] = lava->second;
            json["lava"] = "not run here";
            text += lava->second + ": for Lava; not run here\n";
        }
        json["command"] = typed_command;
        print_result(common, text, json);
        return int(success);
    });
}

}  // namespace nc::program
