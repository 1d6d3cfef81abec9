// CartPole-v1: a pole to be kept upright on a cart by pushes to the left and right (Barto, Sutton
// and Anderson, 1983), number for number as Gymnasium's CartPole-v1.
#pragma once

#include <cstdint>

namespace nc {

class CartPole {
 public:
    static constexpr int observations = 4, actions = 2;
    static constexpr int max_steps = 500;

    struct State {
        double x = 0, x_dot = 0;          // metres, from the middle; per second
        double theta = 0, theta_dot = 0;  // radians, from upright; per second
        bool operator==(const State&) const = default;
    };
    // Every step is worth 1, the last one too. Both ends may fall on one step: terminated, the cart
    // left the track or the pole fell; truncated, these were max_steps.
    struct Step {
        double reward;
        bool terminated, truncated;
        bool over() const { return terminated || truncated; }
    };

    // Starts uniformly in [-0.05, 0.05] in all four, the same for the same seed and episode.
    CartPole(uint64_t seed, uint64_t episode);
    // In this state, `steps` of the episode done.
    explicit CartPole(const State& state, int steps = 0);

    // Euler's explicit step of 0.02 s in double. action: 0 pushes to the left, 1 to the right.
    // Error on any other, and on a step after the end.
    Step step(int action);

    const State& state() const { return state_; }
    int steps() const { return steps_; }  // done so far
    bool over() const { return over_; }
    void observe(float* out) const;  // the state as 4 floats: what a policy sees

 private:
    State state_;
    int steps_ = 0;
    bool over_ = false;
};

}  // namespace nc
