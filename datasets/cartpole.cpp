// The cart and pole's equations of motion, in Gymnasium's order of operations.
#include "datasets/cartpole.h"

#include <cmath>
#include <numbers>
#include <string>

#include "datasets/streams.h"
#include "engine/error.h"
#include "engine/random.h"

namespace nc {
namespace {

constexpr double gravity = 9.8, force_magnitude = 10, time_step = 0.02;
constexpr double pole_mass = 0.1, total_mass = 1.0 + pole_mass;
constexpr double half_length = 0.5, pole_moment = pole_mass * half_length;
constexpr double x_limit = 2.4, theta_limit = 12 * 2 * std::numbers::pi / 360;
constexpr double start_range = 0.05;

// Written so that a state that is no number is outside, too.
bool outside(const CartPole::State& s) {
    return !(std::abs(s.x) <= x_limit && std::abs(s.theta) <= theta_limit);
}

}  // namespace

CartPole::CartPole(uint64_t seed, uint64_t episode) {
    Random random(seed, streams::cartpole + episode);
    for (double* value : {&state_.x, &state_.x_dot, &state_.theta, &state_.theta_dot})
        *value = random.uniform(-start_range, start_range);
}

CartPole::CartPole(const State& state, int steps)
    : state_(state), steps_(steps), over_(outside(state) || steps >= max_steps) {
    if (steps < 0) throw Error("[cartpole] steps must not be negative: " + std::to_string(steps));
}

CartPole::Step CartPole::step(int action) {
    if (action != 0 && action != 1)
        throw Error("[cartpole] an action is 0 (left) or 1 (right), not " + std::to_string(action));
    if (over_)
        throw Error("[cartpole] the episode is over after " + std::to_string(steps_) + " steps");
    auto& [x, x_dot, theta, theta_dot] = state_;
    const double force = action == 1 ? force_magnitude : -force_magnitude;
    const double cosine = std::cos(theta), sine = std::sin(theta);
    const double pushed = (force + pole_moment * (theta_dot * theta_dot) * sine) / total_mass;
    const double theta_acceleration =
        (gravity * sine - cosine * pushed) /
        (half_length * (4.0 / 3.0 - pole_mass * (cosine * cosine) / total_mass));
    const double x_acceleration = pushed - pole_moment * theta_acceleration * cosine / total_mass;
    x += time_step * x_dot;
    x_dot += time_step * x_acceleration;
    theta += time_step * theta_dot;
    theta_dot += time_step * theta_acceleration;
    const Step done = {1, outside(state_), ++steps_ >= max_steps};
    over_ = done.over();
    return done;
}

void CartPole::observe(float* out) const {
    const auto& [x, x_dot, theta, theta_dot] = state_;
    out[0] = float(x), out[1] = float(x_dot), out[2] = float(theta), out[3] = float(theta_dot);
}

}  // namespace nc
