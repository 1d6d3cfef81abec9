// nc_train --task cartpole: a policy for CartPole-v1 by double DQN, an ANN or a spiking network.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "neurons/dqn.h"
#include "neurons/train_options.h"
#include "neurons/zoo.h"

namespace nc::program {

namespace {

struct CartPoleSettings {
    Common common;
    Files files;
    NeuronOptions neuron;
    std::string task;
    int T = 0;
    DqnOptions dqn;
};

void add_cartpole_options(CLI::App& app, CartPoleSettings& s) {
    DqnOptions& d = s.dqn;
    TrainOptions& t = d.train;
    app.add_option("--task", s.task, "cartpole");
    add_neuron_options(app, s.neuron, t.train_thresholds);
    app.add_option("--T", s.T, fmt::format("time steps of a decision (default {})", t.T))
        ->check(CLI::Range(1, 1 << 20))
        ->group("Network");
    const auto add = [&](const char* name, auto& value, const char* text, const auto& check) {
        app.add_option(name, value, text)->capture_default_str()->check(check)->group("Training");
    };
    const CLI::Range count(size_t(1), size_t(1) << 20);
    const CLI::Range share(0.0, 1.0);
    add("--rounds", t.epochs, "of playing, then learning, at most", CLI::Range(1, 1000000));
    add("--enough", d.enough, "stops at this mean return over 100 validation episodes",
        CLI::Range(1.0, 500.0));
    add("--environments", d.environments, "played side by side", count);
    add("--steps", d.steps, "in each of them a round", count);
    add("--updates", d.updates, "of the network a round", count);
    add("--batch", t.batch, "transitions an update", count);
    add("--buffer", d.buffer, "transitions remembered", CLI::Range(size_t(1), size_t(10000000)));
    add("--gamma", d.gamma, "discount", share);
    add("--exploration-end", d.exploration_end, "share of random actions, falling from 1 to it",
        share);
    add("--exploration-rounds", d.exploration_rounds, "how long it falls", CLI::NonNegativeNumber);
    add("--lr", t.optim.lr, "learning rate of AdamW", CLI::NonNegativeNumber);
    add("--threshold-lr", t.optim.threshold_lr, "learning rate of theta", CLI::NonNegativeNumber);
    add("--weight-decay", t.optim.weight_decay, "", CLI::NonNegativeNumber);
    add("--clip-norm", t.optim.clip_norm, "of all gradients together; 0: off",
        CLI::NonNegativeNumber);
    add_file_options(app, s.files);
    add_common_options(app, s.common);
    add_precision_option(app, s.common);
    // There is no data set.
    for (const char* option : {"--data", "--samples"}) app.remove_option(app.get_option(option));
    app.set_version_flag("--version", "nc_train " + version());
    app.footer(
        "Examples:\n"
        "  nc_train --task cartpole --seed 0 --out policy.safetensors\n"
        "  nc_train --task cartpole --neuron if --T 4 --out policy.safetensors\n"
        "  nc_train --resume policy.last.safetensors");
}

Graph make_policy(const CLI::App& app, const CartPoleSettings& s) {
    ZooOptions zoo;
    zoo.seed = s.common.seed;
    if (!s.neuron.kind.empty()) {
        zoo.activation = s.neuron.kind;
        zoo.neuron = neuron_of(app, s.neuron);
    }
    return make_model("dqn", {4}, 2, zoo);
}

std::string progress_text(const DqnProgress& p) {
    std::string line = fmt::format("round {}/{}  {} episodes", p.round, p.rounds, p.episodes);
    if (!std::isnan(p.episode_return)) line += fmt::format("  return {:.1f}", p.episode_return);
    if (!std::isnan(p.validation_return))
        line += fmt::format("  validation {:.1f}", p.validation_return);
    if (!std::isnan(p.loss)) line += fmt::format("  loss {:.4f}", p.loss);
    return line + fmt::format("  {:.0f} steps/s  at most {} left", p.steps_per_second,
                              clock_text(p.seconds_left));
}

Json to_json(const DqnProgress& p) {
    return {{"stage", "train"},
            {"round", p.round},
            {"steps", p.steps},
            {"episodes", p.episodes},
            {"episode_return", number_or_null(p.episode_return)},
            {"validation_return", number_or_null(p.validation_return)},
            {"loss", number_or_null(p.loss)},
            {"steps_per_second", p.steps_per_second}};
}

int train_cartpole(const CLI::App& app, CartPoleSettings& s, const Model* resume,
                   const std::string& command) {
    choose("task", s.task, {"cartpole"});
    check_neuron(app, s.neuron);
    const bool spiking = !s.neuron.kind.empty();
    if (!spiking && (s.T > 0 || s.dqn.train.train_thresholds))
        throw Error(std::string("[nc_train] ") + (s.T > 0 ? "--T" : "--train-thresholds") +
                        " is for spiking networks",
                    ErrorKind::usage, "--neuron if or --neuron lif makes it one");
    TrainOptions& t = s.dqn.train;
    t.seed = s.common.seed;
    if (s.T > 0) t.T = s.T;
    t.checkpoint = checkpoint_path(s.files);
    check_outputs(s.common, s.files);
    Compute compute = make_compute(s.common);
    const Graph graph = resume != nullptr ? resume->graph : make_policy(app, s);

    ModelInfo info;
    info.dataset = "cartpole";
    info.T = spiking ? t.T : 0;
    info.classes = 2;
    info.provenance = {{"program", "nc_train"}, {"task", s.task}, {"version", version()},
                       {"command", command},    {"seed", t.seed}, {"options", app.config_to_str()}};
    Log log(s.common, resume != nullptr);
    catch_interrupts();
    ProgressLine line(s.common);
    DqnTrained trained;
    try {
        trained = train_dqn(
            compute, graph, info, s.dqn,
            [&](const DqnProgress& p) {
                const bool measured = !std::isnan(p.validation_return);
                line.show(progress_text(p), measured);
                if (measured) log.write(to_json(p));
            },
            interrupted_by_user, resume);
    } catch (const Interrupted&) {
        line.clear();
        say_saved(s.common, t.checkpoint);
        throw;
    }
    line.clear();

    PlayOptions how;
    how.T = t.T;
    const std::vector<double> returns = play(compute, trained.graph, how);
    const double least = *std::min_element(returns.begin(), returns.end());
    Json result = {{"task", s.task},
                   {"neuron", spiking ? Json(s.neuron.kind) : Json(nullptr)},
                   {"T", spiking ? Json(t.T) : Json(nullptr)},
                   {"parameters", parameter_count(graph)},
                   {"seed", t.seed},
                   {"test_return", mean(returns)},
                   {"test_return_least", least},
                   {"test_episodes", returns.size()},
                   {"validation_return", trained.validation_return},
                   {"best_round", trained.best_round},
                   {"rounds", trained.rounds},
                   {"steps", trained.steps},
                   {"episodes", trained.episodes},
                   {"seconds", trained.seconds}};
    save_trained(s.files, trained.graph, info, result);
    log.write({{"stage", "result"}, {"result", result}});

    std::string text;
    const auto row = [&](const char* name, const std::string& value) {
        text += fmt::format("{:<24}{}\n", name, value);
    };
    row("test return", fmt::format("{:.1f}, mean of {} episodes; the least {:.0f}", mean(returns),
                                   returns.size(), least));
    row("validation return", fmt::format("{:.1f} after round {} of {}", trained.validation_return,
                                         trained.best_round, trained.rounds));
    row("played", fmt::format("{} steps, {} episodes, {:.1f} s", trained.steps, trained.episodes,
                              trained.seconds));
    row("saved", s.files.out.empty() ? t.checkpoint : s.files.out);
    print_result(s.common, text, result);
    return success;
}

}  // namespace

int train_cartpole_command(int argc, char** argv) {
    CLI::App app(
        "Trains a policy for CartPole-v1 by double DQN: an ANN, or with --neuron a spiking "
        "network through its time steps.",
        "nc_train --task cartpole");
    CartPoleSettings settings;
    add_cartpole_options(app, settings);
    return run(app, argc, argv,
               [&] { return train_cartpole(app, settings, nullptr, command_line(argc, argv)); });
}

int resume_cartpole(const Model& model, const CLI::App& app, const Common& now, const Files& files,
                    const std::string& command) {
    CLI::App stored("nc_train --task cartpole");
    CartPoleSettings settings;
    add_cartpole_options(stored, settings);
    restore_options(model, app, now, files, stored, settings.common, settings.files);
    return train_cartpole(stored, settings, &model, command);
}

}  // namespace nc::program
