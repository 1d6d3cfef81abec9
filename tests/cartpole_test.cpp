// CartPole: its physics, ends and starts, by hand and against trajectories of Gymnasium's.
#include "datasets/cartpole.h"

#include <cmath>
#include <optional>

#include "io/npy.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

namespace {

// Pushes against the side the pole falls to: upright for a while, not for ever.
int against_fall(const CartPole& e) {
    return e.state().theta + e.state().theta_dot > 0;
}

}  // namespace

TEST_CASE("cartpole: steps from rest, by hand") {
    // At rest and upright (sin 0, cos 1): push / mass = 100 / 11, so theta'' = -(100 / 11) / (0.5
    // (4 / 3 - 1 / 11)) = -600 / 41 and x'' = 100 / 11 + 0.05 (600 / 41) / 1.1 = 400 / 41.
    for (const int action : {0, 1}) {
        const double sign = action == 1 ? 1 : -1;
        CartPole e(CartPole::State{});
        const CartPole::Step s = e.step(action);
        CHECK(s.reward == 1);
        CHECK(!s.over());
        // Explicit: the first step moves speeds only, the second by the first one's speeds.
        CHECK(e.state().x == 0);
        CHECK(e.state().theta == 0);
        CHECK(e.state().x_dot == doctest::Approx(sign * 0.02 * 400 / 41).epsilon(1e-14));
        CHECK(e.state().theta_dot == doctest::Approx(-sign * 0.02 * 600 / 41).epsilon(1e-14));
        e.step(action);
        CHECK(e.state().x == doctest::Approx(sign * 0.0004 * 400 / 41).epsilon(1e-14));
        CHECK(e.state().theta == doctest::Approx(-sign * 0.0004 * 600 / 41).epsilon(1e-14));
        float seen[4];
        e.observe(seen);
        CHECK(seen[1] == float(e.state().x_dot));
        CHECK(seen[2] == float(e.state().theta));
    }
    // At 11 degrees, where the pole's weight and spin count: equations 23 and 24 of Florian (2007).
    const double theta = 11 * 3.14159265358979323846 / 180, spin = 2, force = -10;
    const double c = std::cos(theta), s = std::sin(theta), mass = 1.1;
    const double turned = (9.8 * s + c * (-force - 0.1 * 0.5 * spin * spin * s) / mass) /
                          (0.5 * (4.0 / 3 - 0.1 * c * c / mass));
    const double moved = (force + 0.1 * 0.5 * (spin * spin * s - turned * c)) / mass;
    CartPole e(CartPole::State{1, -3, theta, spin});
    CHECK(e.step(0).terminated);  // 11 degrees + 0.02 s * 2 / s
    CHECK(e.state().x == doctest::Approx(1 - 0.06).epsilon(1e-14));
    CHECK(e.state().x_dot == doctest::Approx(-3 + 0.02 * moved).epsilon(1e-13));
    CHECK(e.state().theta_dot == doctest::Approx(spin + 0.02 * turned).epsilon(1e-13));
}

TEST_CASE("cartpole: what ends an episode, and what may not follow") {
    const double edge = 12 * 2 * 3.14159265358979323846 / 360;
    // Speed alone moves within a step: just within and just beyond the limits.
    const auto after = [](CartPole::State s, int steps = 0) { return CartPole(s, steps).step(1); };
    CHECK(!after({2.3, 4.9, 0, 0}).over());
    CHECK(after({2.3, 5.1, 0, 0}).terminated);
    CHECK(after({-2.3, -5.1, 0, 0}).terminated);
    CHECK(!after({0, 0, edge - 0.02, 0.99}).over());
    CHECK(after({0, 0, edge - 0.02, 1.01}).terminated);
    CHECK(after({0, 0, -edge + 0.02, -1.01}).terminated);
    CHECK(after({2.3, 5.1, 0, 0}).reward == 1);
    CHECK(!after({2.3, 5.1, 0, 0}).truncated);
    CHECK(!after({}, 498).over());
    const CartPole::Step last = after({}, 499), both = after({2.3, 5.1, 0, 0}, 499);
    CHECK((last.truncated && !last.terminated && last.reward == 1));
    CHECK((both.truncated && both.terminated && both.reward == 1));

    CartPole e(CartPole::State{}, 499);
    CHECK(contains(error_of([&] { e.step(2); }), "0 (left) or 1 (right), not 2"));
    CHECK(contains(error_of([&] { e.step(-1); }), "not -1"));
    CHECK(e.steps() == 499);
    e.step(0);
    CHECK(contains(error_of([&] { e.step(0); }), "over after 500 steps"));
    CartPole fallen(CartPole::State{0, 0, 1, 0}), lost(CartPole::State{std::nan(""), 0, 0, 0});
    CHECK(contains(error_of([&] { fallen.step(0); }), "over after 0 steps"));
    CHECK(contains(error_of([&] { lost.step(0); }), "over"));
    CHECK(contains(error_of([] { CartPole(CartPole::State{}, -1); }), "negative: -1"));
}

TEST_CASE("cartpole: starts by seed and episode, near upright") {
    double low = 1, high = -1, sum = 0;
    for (uint64_t episode = 0; episode < 1000; ++episode) {
        const CartPole::State s = CartPole(3, episode).state();
        CHECK(s == CartPole(3, episode).state());
        CHECK(!(s == CartPole(4, episode).state()));
        CHECK(!(s == CartPole(3, episode + 1).state()));
        for (const double v : {s.x, s.x_dot, s.theta, s.theta_dot}) {
            low = std::min(low, v), high = std::max(high, v), sum += v;
        }
    }
    CHECK((-0.05 <= low && low < -0.049 && 0.049 < high && high <= 0.05));
    // The mean of 4000 uniform draws has a deviation of 0.05 / sqrt(3 * 4000) = 4.6e-4.
    CHECK(std::abs(sum / 4000) < 5 * 4.6e-4);
    CartPole e(0, 0);
    while (!e.step(against_fall(e)).over()) {
    }
    CHECK(e.steps() > 30);
}

// tests/python/cartpole_check.py writes the file: a row a step, of the state before it (4), the
// action, the state after it (4), reward, terminated, truncated; the first step of an episode has
// no step before it.
TEST_CASE("golden: cartpole repeats Gymnasium's trajectories bit by bit") {
    const char* root = std::getenv("NC_GOLDEN");
    const std::string path = std::string(root != nullptr ? root : "") + "/cartpole.npy";
    if (root == nullptr || !std::filesystem::exists(path)) {
        skip("NC_GOLDEN has no cartpole.npy");
        return;
    }
    const Tensor rows = load_npy(path);
    REQUIRE(rows.shape() == Shape{rows.shape()[0], 12});
    const auto state_at = [](const double* at) {
        return CartPole::State{at[0], at[1], at[2], at[3]};
    };
    std::optional<CartPole> e;
    size_t differ = 0, episodes = 0;
    for (size_t i = 0; i < rows.shape()[0]; ++i) {
        const double* row = rows.data<double>() + 12 * i;
        if (!e) e.emplace(state_at(row)), ++episodes;
        const CartPole::Step s = e->step(int(row[4]));
        const bool same = e->state() == state_at(row + 5) && s.reward == row[9] &&
                          s.terminated == (row[10] != 0) && s.truncated == (row[11] != 0);
        if (!same && ++differ == 1) FAIL_CHECK("the first difference is in row " << i);
        if (s.over()) e.reset();
    }
    MESSAGE(rows.shape()[0] << " steps of " << episodes << " episodes");
    CHECK(differ == 0);
    CHECK(!e);
    CHECK(episodes >= 10);
}
