// nc_convert actions: where two policies for CartPole act differently; the returns of policies.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <numbers>

#include "convert/commands.h"

namespace nc::program {

namespace {

// A state both networks were asked about.
struct Asked {
    std::array<float, 4> state;  // x, x_dot, theta, theta_dot
    std::array<std::array<float, 2>, 2> values;
    int action(size_t network) const { return best_action(values[network].data()); }
    double margin(size_t network) const {
        return std::abs(double(values[network][1]) - double(values[network][0]));
    }
    double degrees() const { return std::abs(double(state[2])) * 180 / std::numbers::pi; }
    bool differ() const { return action(0) != action(1); }
};

struct Policy {
    std::string path;
    Model model;
    int T;
};

Policy read_policy(const std::string& path, int T, const Common& common) {
    Policy p{path, read_model(path, {}, common), T};
    check_policy(p.model.graph);
    if (!is_spiking(p.model.graph)) {
        p.T = 1;
    } else if (T == 0) {
        p.T = p.model.info.T;
        if (p.T < 1)
            throw Error("[actions] " + path + " does not say its T", ErrorKind::usage,
                        "give one with --T");
    }
    return p;
}

// Every state that one of them meets on its own way.
std::vector<Asked> ask(Compute& compute, const std::array<Policy, 2>& policies, size_t driver,
                       size_t episodes) {
    std::vector<Asked> asked;
    const Policy& other = policies[1 - driver];
    const Graph there = on_device(other.model.graph, compute);
    PlayOptions how;
    how.T = policies[driver].T;
    how.episodes.count = episodes;
    how.stop = interrupted_by_user;
    how.visit = [&](const Visit& v) {
        const Tensor values = action_values(compute, there, other.T, v.states);
        for (size_t i = 0; i < v.states.shape()[0]; ++i) {
            Asked a;
            std::copy_n(v.states.data<float>() + 4 * i, 4, a.state.begin());
            std::copy_n(v.values.data<float>() + 2 * i, 2, a.values[driver].begin());
            std::copy_n(values.data<float>() + 2 * i, 2, a.values[1 - driver].begin());
            asked.push_back(a);
        }
    };
    play(compute, policies[driver].model.graph, how);
    return asked;
}

// States counted between borders, the last bin open: [borders[i], borders[i + 1]).
struct Bins {
    std::string title;  // of what is counted
    std::vector<double> borders;
    std::vector<uint64_t> states, different;
};

template <class Measure>
Bins count_in_bins(const std::string& title, std::vector<double> borders,
                   const std::vector<Asked>& asked, Measure measure) {
    Bins bins{title, std::move(borders), {}, {}};
    bins.states.resize(bins.borders.size());
    bins.different.resize(bins.borders.size());
    for (const Asked& a : asked) {
        const auto above =
            std::upper_bound(bins.borders.begin() + 1, bins.borders.end(), measure(a));
        const size_t i = size_t(above - bins.borders.begin()) - 1;
        ++bins.states[i];
        bins.different[i] += a.differ();
    }
    return bins;
}

Bins by_margin(const std::vector<Asked>& asked) {
    constexpr size_t parts = 5;
    std::vector<double> margins, borders = {0};
    for (const Asked& a : asked) margins.push_back(a.margin(0));
    std::sort(margins.begin(), margins.end());
    for (size_t i = 1; i < parts; ++i) borders.push_back(margins[margins.size() * i / parts]);
    return count_in_bins("margin of the first", borders, asked,
                         [](const Asked& a) { return a.margin(0); });
}

double share(uint64_t part, uint64_t whole) {
    return whole == 0 ? std::nan("") : 100 * double(part) / double(whole);
}

std::string bins_text(const Bins& b) {
    std::vector<std::vector<std::string>> rows = {{b.title, "states", "different", "%"}};
    for (size_t i = 0; i < b.borders.size(); ++i) {
        const std::string to =
            i + 1 < b.borders.size() ? fmt::format("to {:.4g}", b.borders[i + 1]) : "and more";
        const double value = share(b.different[i], b.states[i]);
        rows.push_back({fmt::format("{:.4g} {}", b.borders[i], to), count(b.states[i]),
                        count(b.different[i]), std::isnan(value) ? "-" : percent(value)});
    }
    return text_table(rows);
}

Json to_json(const Bins& b) {
    Json out = Json::array();
    for (size_t i = 0; i < b.borders.size(); ++i)
        out.push_back({{"from", b.borders[i]},
                       {"to", i + 1 < b.borders.size() ? Json(b.borders[i + 1]) : Json(nullptr)},
                       {"states", b.states[i]},
                       {"different", b.different[i]}});
    return out;
}

std::string states_text(const std::vector<Asked>& different, size_t most) {
    std::vector<std::vector<std::string>> rows = {{"x", "x_dot", "theta", "theta_dot",
                                                   "first: left", "right", "margin", "second: left",
                                                   "right", "margin"}};
    for (size_t i = 0; i < std::min(most, different.size()); ++i) {
        std::vector<std::string> row;
        for (const float v : different[i].state) row.push_back(fmt::format("{:.4f}", v));
        for (const size_t network : {0, 1}) {
            for (const float v : different[i].values[network])
                row.push_back(fmt::format("{:.4f}", v));
            row.push_back(fmt::format("{:.4f}", different[i].margin(network)));
        }
        rows.push_back(std::move(row));
    }
    return rows.size() == 1 ? ""
                            : fmt::format("the first is surest in these {} of them:\n{}",
                                          rows.size() - 1, text_table(rows));
}

Json states_json(const std::vector<Asked>& different) {
    Json out = Json::array();
    for (const Asked& a : different)
        out.push_back({{"x", a.state[0]},
                       {"x_dot", a.state[1]},
                       {"theta", a.state[2]},
                       {"theta_dot", a.state[3]},
                       {"first", {{"values", a.values[0]}, {"margin", a.margin(0)}}},
                       {"second", {{"values", a.values[1]}, {"margin", a.margin(1)}}}});
    return out;
}

std::string described(const Policy& p) {
    const std::string name = std::filesystem::path(p.path).filename().string();
    return is_spiking(p.model.graph) ? fmt::format("{} (T = {})", name, p.T) : name;
}

}  // namespace

std::string returns_table(Compute& compute, const std::vector<Player>& players, Json& json) {
    std::vector<std::vector<std::string>> rows = {{"network", "T", "mean return", "least"}};
    json["episodes"] = test_episodes.count;
    json["networks"] = Json::array();
    for (const Player& p : players) {
        PlayOptions how;
        how.T = std::max(1, p.T);
        how.stop = interrupted_by_user;
        const std::vector<double> returns = play(compute, p.graph, how);
        const double least = *std::min_element(returns.begin(), returns.end());
        rows.push_back({p.name, p.T > 0 ? std::to_string(p.T) : "",
                        fmt::format("{:.2f}", mean(returns)), fmt::format("{:.0f}", least)});
        json["networks"].push_back({{"network", p.name},
                                    {"T", p.T > 0 ? Json(p.T) : Json(nullptr)},
                                    {"mean", mean(returns)},
                                    {"least", least}});
    }
    return fmt::format("returns over {} test episodes:\n{}", test_episodes.count, text_table(rows));
}

int actions_command(int argc, char** argv) {
    Common common;
    std::array<std::string, 2> paths;
    int T = 0;
    size_t episodes = test_episodes.count, most = 10;
    std::string driver = "second";
    CLI::App app(
        "Where two policies for CartPole, an ANN and its spiking form say, would act differently "
        "in the states that one of them meets.",
        "nc_convert actions");
    app.add_option("first", paths[0], "model file")->required();
    app.add_option("second", paths[1], "model file")->required();
    app.add_option("--T", T, "time steps of spiking ones (default: the model's)")
        ->check(CLI::Range(1, 65536));
    app.add_option("--episodes", episodes, "test episodes")
        ->capture_default_str()
        ->check(CLI::Range(size_t(1), size_t(100000)));
    app.add_option("--driver", driver, "which of them acts: first or second")
        ->capture_default_str()
        ->check(CLI::IsMember({"first", "second"}));
    app.add_option("--list", most, "states to print; --json has all")->capture_default_str();
    add_common_options(app, common);
    for (const char* option : {"--data", "--samples", "--seed", "--log"})
        app.remove_option(app.get_option(option));
    return run(app, argc, argv, [&] {
        Compute compute = make_compute(common);
        const std::array<Policy, 2> policies = {read_policy(paths[0], T, common),
                                                read_policy(paths[1], T, common)};
        const std::vector<Asked> asked = ask(compute, policies, driver == "second", episodes);
        std::vector<Asked> different;
        std::copy_if(asked.begin(), asked.end(), std::back_inserter(different),
                     [](const Asked& a) { return a.differ(); });
        std::stable_sort(different.begin(), different.end(),
                         [](const Asked& a, const Asked& b) { return a.margin(0) > b.margin(0); });
        const Bins angles = count_in_bins("|theta|, degrees", {0, 0.5, 1, 2, 4, 8}, asked,
                                          [](const Asked& a) { return a.degrees(); });
        const Bins margins = by_margin(asked);
        const double percent_different = share(different.size(), asked.size());
        std::string text = fmt::format(
            "{} and {} in {} states of {} episodes, driven by the {}\n{} with different actions: "
            "{} %\n\n{}\n{}\n{}",
            described(policies[0]), described(policies[1]), count(asked.size()), episodes, driver,
            count(different.size()), percent(percent_different), bins_text(angles),
            bins_text(margins), states_text(different, most));
        const auto steps = [](const Policy& p) {
            return is_spiking(p.model.graph) ? Json(p.T) : Json(nullptr);
        };
        const Json json = {{"first", paths[0]},
                           {"second", paths[1]},
                           {"first_T", steps(policies[0])},
                           {"second_T", steps(policies[1])},
                           {"driver", driver},
                           {"episodes", episodes},
                           {"states", asked.size()},
                           {"different", different.size()},
                           {"different_percent", percent_different},
                           {"by_angle", to_json(angles)},
                           {"by_margin", to_json(margins)},
                           {"differing_states", states_json(different)},
                           {"command", typed_command},
                           {"environment", environment(compute)}};
        print_result(common, text, json);
        return int(success);
    });
}

}  // namespace nc::program
