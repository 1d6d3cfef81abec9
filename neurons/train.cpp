// The one training loop: ANN, QCFS, direct spiking, fine-tuning.
#include "neurons/train.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <optional>

#include "neurons/train_state.h"

namespace nc {
namespace {

double now() {
    using namespace std::chrono;
    return duration<double>(steady_clock::now().time_since_epoch()).count();
}

void check_options(const Graph& graph, const Dataset& data, const TrainOptions& o,
                   const Graph* teacher) {
    const auto need = [](bool ok, const std::string& what) {
        if (!ok) throw Error("[train] " + what);
    };
    need(o.epochs >= 0, "epochs must not be negative: " + std::to_string(o.epochs));
    need(o.batch >= 1, "a batch holds at least 1 sample");
    need(o.T >= 1, "T must be at least 1: " + std::to_string(o.T));
    need(o.ema >= 0 && o.ema < 1, "ema must be in [0, 1): " + std::to_string(o.ema));
    need(o.label_smoothing >= 0 && o.label_smoothing < 1,
         "label smoothing must be in [0, 1): " + std::to_string(o.label_smoothing));
    need(o.distill >= 0 && o.distill <= 1,
         "the teacher's share must be in [0, 1]: " + std::to_string(o.distill));
    need(o.temperature > 0, "temperature must be positive: " + std::to_string(o.temperature));
    need(o.distill == 0 || teacher != nullptr, "there is no teacher to imitate");
    need(data.size() > 0, "there are no training samples");
    const std::vector<Shape> shapes = infer_shapes(graph);
    for (size_t i = 0; i < graph.nodes.size(); ++i)
        if (std::holds_alternative<Output>(graph.nodes[i].op) &&
            shapes[i] != Shape{size_t(data.classes())})
            throw Error("[train] the network gives " + shapes[i].str() + " values for " +
                            std::to_string(data.classes()) + " classes",
                        ErrorKind::data);
}

// Everything of one call of train().
class Trainer {
 public:
    Trainer(Compute& compute, Graph graph, const ModelInfo& info, const Dataset& training,
            const Dataset* validation, const TrainOptions& options, const TrainHooks& hooks,
            TrainState state)
        : compute_(compute),
          graph_(std::move(graph)),
          info_(info),
          training_(training),
          validation_(validation),
          options_(options),
          hooks_(hooks),
          state_(std::move(state)),
          teacher_(options.distill > 0 ? on_device(*hooks.teacher, compute) : Graph()),
          moving_(with_tensors(graph_, state_.tensors)) {
        // A lone data set smaller than a batch is one batch.
        const size_t batch = std::min(options.batch, training.size());
        batch_ = batch;
        steps_ = int64_t(training.size() / batch);
        total_ = steps_ * options.epochs;
    }

    Trained run(bool resumed) {
        begin_ = now();
        if (!resumed) {
            if (options_.keep_start && validation_ != nullptr) validate(-1);
            save();
        }
        while (state_.epoch < options_.epochs) epoch();
        Trained out;
        const bool best = options_.keep_best && !state_.best.empty();
        out.graph = with_tensors(graph_, copies(on_host(best ? state_.best : weights())));
        out.validation_accuracy = best ? state_.best_accuracy : last_accuracy_;
        out.best_epoch = best ? state_.best_epoch : options_.epochs - 1;
        out.seconds = state_.seconds + now() - begin_;
        out.seconds_resumed = state_.seconds;
        return out;
    }

 private:
    // What is validated and returned.
    const Tensors& weights() const { return options_.ema > 0 ? state_.average : state_.tensors; }

    void save() {
        if (options_.checkpoint.empty()) return;
        TrainState& s = state_;
        const double before = s.seconds;
        s.seconds += now() - begin_;
        save_model(options_.checkpoint, make_checkpoint(s, graph_, info_, options_));
        s.seconds = before;
    }

    void epoch() {
        compute_.allocator->reset_peak();
        Loader loader(compute_, training_, batch_, true, options_.seed, state_.epoch,
                      options_.augment, true, size_t(state_.step));
        const double start = now(), earlier = state_.epoch_seconds;
        const uint64_t seen_before = state_.seen;
        Batch batch;
        while (loader.next(batch)) {
            step(batch);
            batch = {};
            ++state_.step;
            state_.epoch_seconds = earlier + now() - start;
            const double rate = double(state_.seen - seen_before) / (now() - start);
            if (hooks_.progress && state_.step < steps_)
                hooks_.progress(progress(rate, compute_.allocator->peak_bytes()));
            const bool stop = hooks_.stop && hooks_.stop();
            if (stop || (options_.checkpoint_steps > 0 && state_.step < steps_ &&
                         state_.step % options_.checkpoint_steps == 0))
                save();
            if (stop) throw Interrupted();
        }
        const size_t peak = compute_.allocator->peak_bytes();
        Progress done = progress(double(state_.seen - seen_before) / (now() - start), peak);
        if (validation_ != nullptr) done.validation_accuracy = validate(state_.epoch);
        done.epoch_done = true;
        done.epoch_seconds = state_.epoch_seconds;
        ++state_.epoch;
        state_.step = 0;
        state_.loss_sum = state_.epoch_seconds = 0;
        state_.correct = state_.seen = 0;
        save();
        if (hooks_.progress) hooks_.progress(done);
        if (hooks_.stop && hooks_.stop() && state_.epoch < options_.epochs) throw Interrupted();
    }

    void step(const Batch& batch) {
        Tape tape(compute_);
        const Parameters variables = on_tape(state_, tape);
        const Parameters used = rounded(variables, tape);

        const Frames frames = frames_for(compute_, graph_, batch, options_.ann_frames);
        ForwardOptions how;
        how.T = size_t(options_.T);
        how.temporal_input = frames.temporal;
        how.training = !options_.freeze_batch_norm;
        how.recompute = options_.recompute;
        std::map<std::string, fn::BatchStatistics> statistics;
        Tensor seen;
        {
            // The output's Var goes before the walk back, so that the tape alone decides what is
            // kept.
            Var loss;
            {
                Forwarded out = forward(compute_, moving_, used, frames.x, how, &tape);
                statistics = std::move(out.statistics);
                const Var logits = mean_logits(compute_, &tape, out);
                loss = loss_of(tape, logits, batch);
                seen = answers(logits.value, loss.value);
            }
            tape.backward(loss);
        }
        std::vector<Parameter> parameters = with_gradients(state_, tape, variables);
        const int64_t done = state_.epoch * steps_ + state_.step;
        optimise(compute_, options_.optim,
                 scheduled(options_.schedule, 1, done, total_, options_.warmup), parameters,
                 state_.moments);
        update_statistics(statistics);
        if (options_.ema > 0) update_average(compute_, state_, options_.ema, done);
        compute_.check("train");
        count(seen, batch.labels);
    }

    Var loss_of(Tape& tape, const Var& logits, const Batch& batch) {
        const Var hard =
            fn::cross_entropy(compute_, &tape, logits, batch.labels, options_.label_smoothing);
        if (options_.distill == 0) return hard;
        const double share = options_.distill, tau = options_.temperature;
        const Frames frames = frames_for(compute_, teacher_, batch, options_.ann_frames);
        ForwardOptions how;
        how.temporal_input = frames.temporal;
        const Var taught =
            mean_logits(compute_, nullptr, forward(compute_, teacher_, {}, frames.x, how));
        const Var targets =
            fn::softmax(compute_, nullptr, fn::scale(compute_, nullptr, taught, 1 / tau));
        const Var soft = fn::cross_entropy(
            compute_, &tape, fn::scale(compute_, &tape, logits, 1 / tau), targets.value);
        return fn::add(compute_, &tape, fn::scale(compute_, &tape, hard, 1 - share),
                       fn::scale(compute_, &tape, soft, share * tau * tau));
    }

    // The variables as the network is run with them; gradients go straight through.
    Parameters rounded(const Parameters& variables, Tape& tape) const {
        if (!hooks_.rounding) return variables;
        Parameters out = variables;
        for (const auto& [name, tensor] : rounded(state_.tensors)) {
            if (tensor.raw() == state_.tensors.at(name).raw()) continue;
            const Var& exact = variables.at(name);
            out[name] =
                exact.tracked()
                    ? tape.record(tensor, [at = exact.place()](
                                              Tape& t, const Tensor& dy) { t.accumulate(at, dy); })
                    : Var(tensor);
        }
        return out;
    }
    Tensors rounded(Tensors tensors) const {
        if (hooks_.rounding) hooks_.rounding(tensors);
        for (auto& [name, tensor] : tensors) tensor = tensor.to(*compute_.allocator);
        return tensors;
    }

    // What is counted of a step, [N + 1]: the class each sample was taken for, and the loss as its
    // bits. On a device the one copy of it is all that a step waits for, after everything was given
    // to the queue.
    Tensor answers(const Tensor& logits, const Tensor& loss) {
        const size_t n = logits.shape()[0];
        Tensor out = compute_.empty({n + 1}, DType::i32);
        out.slice(0, n).assign(ops::argmax_rows(compute_, logits));
        compute_.allocator->copy_within(out.slice(n, n + 1).raw(), loss.raw(), loss.bytes());
        return out;
    }

    void count(const Tensor& seen, const std::vector<int32_t>& labels) {
        const std::vector<int32_t> best = seen.to_vector<int32_t>();
        const double loss = std::bit_cast<float>(best.back());
        if (!std::isfinite(loss))
            throw Error("[train] the loss is " + std::to_string(loss) + " in epoch " +
                            std::to_string(state_.epoch + 1) + ", step " +
                            std::to_string(state_.step + 1),
                        ErrorKind::usage, "a lower learning rate or clipping the gradient helps");
        for (size_t i = 0; i < labels.size(); ++i) state_.correct += best[i] == labels[i];
        state_.loss_sum += loss * double(labels.size());
        state_.seen += labels.size();
    }

    // running = (1 - momentum) running + momentum batch, the variance unbiased.
    void update_statistics(const std::map<std::string, fn::BatchStatistics>& statistics) {
        for (const auto& node : graph_.nodes) {
            const auto found = statistics.find(node.name);
            if (found == statistics.end()) continue;
            const double m = std::get<BatchNorm>(node.op).momentum;
            const fn::BatchStatistics& batch = found->second;
            const double unbiased =
                double(batch.rows) / double(std::max<size_t>(batch.rows, 2) - 1);
            mix(state_.tensors.at(node.name + ".mean"), batch.mean, 1 - m, m);
            mix(state_.tensors.at(node.name + ".variance"), batch.variance, 1 - m, m * unbiased);
        }
    }
    void mix(Tensor& running, const Tensor& batch, double keep, double take) {
        ops::add_scaled_into(compute_, running, running, keep - 1);
        ops::add_scaled_into(compute_, running, batch, take);
    }

    double validate(int epoch) {
        EvaluateOptions how;
        how.T = options_.T;
        how.ann_frames = options_.ann_frames;
        last_accuracy_ =
            evaluate(compute_, with_tensors(graph_, rounded(weights())), *validation_, how)
                .accuracy;
        // Of equals the later one: its learning rate was lower.
        if (options_.keep_best && (state_.best.empty() || last_accuracy_ >= state_.best_accuracy)) {
            state_.best = copies(weights());
            state_.best_accuracy = last_accuracy_;
            state_.best_epoch = epoch;
        }
        return last_accuracy_;
    }

    Progress progress(double rate, size_t peak) const {
        Progress p;
        p.epoch = state_.epoch;
        p.epochs = options_.epochs;
        p.step = state_.step;
        p.steps = steps_;
        p.loss = state_.loss_sum / double(state_.seen);
        p.accuracy = 100 * double(state_.correct) / double(state_.seen);
        p.samples_per_second = rate;
        const int64_t left = total_ - state_.epoch * steps_ - state_.step;
        p.seconds_left = double(left) * double(batch_) / rate;
        p.epoch_done = false;
        p.validation_accuracy = std::numeric_limits<double>::quiet_NaN();
        p.epoch_seconds = 0;
        p.peak_bytes = peak;
        return p;
    }

    Compute& compute_;
    const Graph graph_;
    const ModelInfo& info_;
    const Dataset& training_;
    const Dataset* validation_;
    const TrainOptions& options_;
    const TrainHooks& hooks_;
    TrainState state_;
    const Graph teacher_;
    const Graph moving_;  // the network with the tensors being trained
    size_t batch_;
    int64_t steps_, total_;
    double begin_ = 0;
    double last_accuracy_ = std::numeric_limits<double>::quiet_NaN();
};

}  // namespace

Trained train(Compute& compute, const Graph& given, const ModelInfo& info, const Dataset& training,
              const Dataset* validation, const TrainOptions& options, const TrainHooks& hooks,
              const Model* resume) {
    check_options(given, training, options, hooks.teacher);
    Graph graph = given;
    if (options.train_thresholds)
        for (auto& node : graph.nodes)
            if (auto* neuron = std::get_if<Neuron>(&node.op)) neuron->train_theta = true;
    TrainState state = resume != nullptr ? resume_training(*resume, graph, options)
                                         : begin_training(graph, options);
    move_to(compute, state);
    return Trainer(compute, std::move(graph), info, training, validation, options, hooks,
                   std::move(state))
        .run(resume != nullptr);
}

}  // namespace nc
